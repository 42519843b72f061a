// Scratch of building and of applying the multigrid preconditioner.
#pragma once

#include <algorithm>

#include "kernels/softcut/softcut_cpu_multigrid_levels.h"

namespace segprior::softcut::multigrid {

// Levels of fewer voxels (times right-hand sides) are one thread's: a barrier would cost more than the work.
constexpr int64_t kSmall = 8192;

struct BuildScratch {
  float *excess[2];       // row sums of the operator of even and of odd levels
  float *minus_diagonal;  // of the level at hand, as are
  float *deficit, *sums;  // [row][2][coarse pitch]
  float *dominance;       // [threads]
};
inline BuildScratch carve_build(const Shapes &shapes, int threads, Arena &arena) {
  const LevelShape &fine = shapes.level[0], &coarse = shapes.level[shapes.count > 1 ? 1 : 0];
  const auto vector = [&](int64_t size) {
    float *array = arena.take<float>(size);
    return array ? first_row(array) : nullptr;
  };
  BuildScratch b;
  b.excess[0] = vector(fine.vector_size());
  b.excess[1] = vector(coarse.vector_size());
  b.minus_diagonal = vector(fine.vector_size());
  b.deficit = vector(2 * fine.rows() * coarse.pitch + kPad);
  b.sums = vector(2 * fine.rows() * coarse.pitch + kPad);
  b.dominance = arena.take<float>(threads);
  return b;
}

// Scratch of a cycle. A thread works through a level slab by slab, for a block of right-hand sides at a time,
// and holds the last three slabs of the vectors between the sweeps in a ring of its own.
struct CycleScratch {
  static constexpr int kSlabs = 3;
  static constexpr int64_t kRingBytes = 1 << 20;  // of a thread, to stay in its cache

  int64_t block;      // right-hand sides at a time
  int64_t ring_size;  // floats of one ring of one right-hand side
  float *rings;       // [threads][block][3 rings]
  int64_t vector_size[kMaxLevels];
  float *r[kMaxLevels], *e[kMaxLevels];  // [rhs][vector_size] of the coarse levels
  double *row_dots;                      // [rhs][rows]
  double *scale;                         // [threads][rhs]
  double *largest;                       // [threads][rhs]

  float *ring(int rank, int64_t rhs, int which) const {
    return first_row(rings + ((rank * block + rhs) * 3 + which) * ring_size);
  }
};
inline CycleScratch carve_cycle(const Shapes &shapes, int64_t rhs, int threads, Arena &arena) {
  const LevelShape &fine = shapes.level[0];
  CycleScratch c{};
  // A split row may be longer than the row.
  const int64_t row = std::max(fine.pitch, 2 * shapes.level[shapes.count > 1 ? 1 : 0].pitch);
  c.ring_size = CycleScratch::kSlabs * fine.extent[1] * row + kPad;
  c.block = std::clamp<int64_t>(
      CycleScratch::kRingBytes / (3 * c.ring_size * static_cast<int64_t>(sizeof(float))), 1, rhs);
  c.rings = arena.take<float>(3 * c.ring_size * c.block, threads);
  for (int l = 1; l < shapes.count; ++l) {
    c.vector_size[l] = shapes.level[l].vector_size();
    c.r[l] = arena.take<float>(c.vector_size[l], rhs);
    c.e[l] = arena.take<float>(c.vector_size[l], rhs);
  }
  c.row_dots = arena.take<double>(fine.rows(), rhs);
  c.scale = arena.take<double>(threads, rhs);
  c.largest = arena.take<double>(threads, rhs);
  return c;
}

}  // namespace segprior::softcut::multigrid
