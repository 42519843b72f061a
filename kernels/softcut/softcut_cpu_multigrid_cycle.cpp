// One V-cycle of the multigrid preconditioner, for all right-hand sides of a matrix. Derivation: softcut.md.
#include <algorithm>
#include <cmath>

#include "kernels/softcut/softcut_cpu_multigrid.h"
#include "kernels/softcut/softcut_cpu_multigrid_rows.h"
#include "kernels/softcut/softcut_cpu_multigrid_scratch.h"

namespace segprior::softcut {
namespace multigrid {
namespace {

// The finest level's vectors, in the caller's dtype.
template <class T>
struct Border {
  const T *r;
  T *z;
  double *dots;
};

template <class T>
class Cycle {
 public:
  Cycle(const Team &team, const Hierarchy &hierarchy, const CycleScratch &scratch, int64_t rhs,
        const bool *active, const Border<T> &border)
      : team_(team), hierarchy_(hierarchy), scratch_(scratch), rhs_(rhs), active_(active), border_(border) {}

  void run() {
    find_scales();
    int64_t running = 0;
    for (int64_t r = 0; r < rhs_; ++r) running += active_[r];
    const int last = *hierarchy_.depth - 1;
    int solo = 0;  // the first level that is one thread's
    while (solo <= last && team_.size > 1 && shape(solo).voxels() * running >= kSmall) ++solo;
    for (int l = 0; l < std::min(solo, last); ++l) {
      down(team_, l);
      team_.barrier();
    }
    if (team_.rank == 0) {
      const Team alone{0, 1, nullptr};
      for (int l = solo; l < last; ++l) down(alone, l);
      for (int l = last; l >= solo; --l) up(alone, l);
    }
    team_.barrier();
    for (int l = std::min(solo - 1, last); l >= 0; --l) {
      up(team_, l);
      team_.barrier();
    }
    if (team_.rank == 0) add_dots();
    team_.barrier();
  }

 private:
  const LevelShape &shape(int l) const { return hierarchy_.level[l].shape; }
  int64_t rows() const { return shape(0).rows(); }
  int64_t columns() const { return shape(0).extent[2]; }

  // Per thread, the power of two that r is multiplied by. A float64 residual's largest entry is brought to
  // [1/2, 1): float32 holds it then. A float32 residual, of a system scaled to its right-hand side, only
  // needs room for sums.
  void find_scales() const {
    double *largest = scratch_.largest + team_.rank * rhs_, *scale = scratch_.scale + team_.rank * rhs_;
    if constexpr (sizeof(T) == sizeof(float)) {
      std::fill_n(scale, rhs_, std::ldexp(1.0, -20));
      return;
    }
    const int64_t begin = team_.begin(rows()) * columns(), end = team_.end(rows()) * columns();
    for (int64_t r = 0; r < rhs_; ++r)
      if (active_[r])
        largest[r] = static_cast<double>(
            border_kernels_.max_abs(end - begin, border_.r + r * shape(0).voxels() + begin));
    team_.barrier();
    for (int64_t r = 0; r < rhs_; ++r) {
      if (!active_[r]) continue;
      double max = 0;
      for (int rank = 0; rank < team_.size; ++rank) max = std::max(max, scratch_.largest[rank * rhs_ + r]);
      int exponent = 0;
      std::frexp(max, &exponent);
      scale[r] = std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
    }
  }
  double scale(int64_t r) const { return scratch_.scale[team_.rank * rhs_ + r]; }

  void add_dots() const {
    for (int64_t r = 0; r < rhs_; ++r) {
      if (!active_[r]) continue;
      double sum = 0;
      for (int64_t row = 0; row < rows(); ++row) sum += scratch_.row_dots[r * rows() + row];
      border_.dots[r] = sum;
    }
  }

  // A level as one thread of `team` works on it, for one block of right-hand sides.
  struct Pass {
    const Level &level;
    const LevelShape &shape;
    int l, rank;
    int64_t count, rhs[64];  // the block

    int64_t ring_row(int64_t slab, int64_t row) const {
      return slab % CycleScratch::kSlabs * shape.extent[1] + row;
    }
  };

  // f(pass) for each block of active right-hand sides.
  template <class F>
  void for_blocks(const Team &team, int l, const F &f) const {
    const Level &level = hierarchy_.level[l];
    Pass pass{level, level.shape, l, team.rank, 0, {}};
    for (int64_t r = 0; r < rhs_; ++r) {
      if (active_[r]) pass.rhs[pass.count++] = r;
      if (pass.count == std::min<int64_t>(scratch_.block, 64) || (r + 1 == rhs_ && pass.count > 0)) {
        f(pass);
        pass.count = 0;
      }
    }
  }

  float *e_ring(const Pass &p, int64_t i, int64_t slab, int64_t row) const {
    return scratch_.ring(p.rank, i, 0) + p.ring_row(slab, row) * p.shape.pitch;
  }
  SplitRow residual_ring(const Pass &p, int64_t i, int64_t slab, int64_t row) const {
    float *even = scratch_.ring(p.rank, i, 2) + p.ring_row(slab, row) * 2 * p.level.coarse_pitch;
    return {even, even + p.level.coarse_pitch};
  }
  // The right-hand side of a level: on the finest in a ring, scaled.
  float *r_row(const Pass &p, int64_t i, int64_t slab, int64_t row) const {
    if (p.l == 0) return scratch_.ring(p.rank, i, 1) + p.ring_row(slab, row) * p.shape.pitch;
    return vector_row(scratch_.r[p.l], p.l, p.rhs[i], p.shape.row_index(slab, row));
  }
  float *vector_row(float *vectors, int l, int64_t r, int64_t row) const {
    return first_row(vectors + r * scratch_.vector_size[l]) + row * shape(l).pitch;
  }
  int64_t ring_shift(int64_t i) const { return i * 3 * scratch_.ring_size; }

  const float *keep(const Pass &p, int64_t slab, int64_t row) const {
    const float *own = p.level.keep(p.shape.row_index(slab, row));
    return own ? own : hierarchy_.rows.keep;
  }

  void clear_rings(const Pass &p) const {
    const int64_t ring_rows = CycleScratch::kSlabs * p.shape.extent[1];
    for (int64_t i = 0; i < p.count; ++i) {
      for (int which = 0; which < 2; ++which)
        clear_padding(scratch_.ring(p.rank, i, which), ring_rows, p.shape.extent[2], p.shape.pitch);
      if (p.level.coarse_pitch > 0)
        clear_padding(scratch_.ring(p.rank, i, 2), 2 * ring_rows, (p.shape.extent[2] + 1) / 2,
                      p.level.coarse_pitch);
    }
  }

  void load(const Pass &p, int64_t slab, int64_t row) const {
    for (int64_t i = 0; p.l == 0 && i < p.count; ++i) {
      const T *from = border_.r + p.rhs[i] * shape(0).voxels() + p.shape.row_index(slab, row) * columns();
      border_kernels_.load(columns(), from, static_cast<T>(scale(p.rhs[i])), r_row(p, i, slab, row));
    }
  }

  // Rows outside the grid: couplings 0, and the row itself for values.
  void find_neighbours(const Pass &p, int64_t slab, int64_t row, Neighbours &all) const {
    const float *couplings[9], *values[9];
    const int slabs = p.shape.nd >= 2, rows = p.shape.nd >= 3;
    for (int s = -slabs; s <= slabs; ++s)
      for (int y = -rows; y <= rows; ++y) {
        const bool inside = p.shape.inside(slab + s, row + y);
        const int place = (s + 1) * 3 + y + 1;
        couplings[place] = inside ? p.level.relaxation(p.shape.row_index(slab + s, row + y)) : nullptr;
        values[place] = inside ? e_ring(p, 0, slab + s, row + y) : e_ring(p, 0, slab, row);
      }
    all.count = p.level.terms;
    for (int k = 0; k < p.level.terms; ++k) {
      const Term &term = p.level.term[k];
      all.g[k] =
          couplings[term.place] ? couplings[term.coupling_place] + term.coupling : hierarchy_.rows.zeros;
      all.e[k] = values[term.place] + term.column;
    }
  }

  // Sweep from zero, residual and restriction.
  void down(const Team &team, int l) const {
    const LevelShape &coarse = shape(l + 1);
    const int64_t begin = team.begin(coarse.extent[0]), end = team.end(coarse.extent[0]);
    if (begin == end) return;
    for_blocks(team, l, [&](const Pass &p) {
      clear_rings(p);
      const int64_t first = std::max<int64_t>(0, 2 * begin - 1);
      const int64_t last = std::min(p.shape.extent[0] - 1, 2 * end - 1);
      int64_t started = std::max<int64_t>(0, first - 1);
      for (int64_t slab = first; slab <= last; ++slab) {
        for (; started <= std::min(slab + 1, p.shape.extent[0] - 1); ++started) start(p, started);
        for (int64_t row = 0; row < p.shape.extent[1]; ++row) residual(p, slab, row);
        if (slab % 2 == 0 && slab + 1 < p.shape.extent[0]) continue;
        if (slab / 2 < begin) continue;
        for (int64_t row = 0; row < coarse.extent[1]; ++row) restrict_row(p, coarse, slab / 2, row);
      }
    });
  }

  void start(const Pass &p, int64_t slab) const {
    for (int64_t row = 0; row < p.shape.extent[1]; ++row) {
      load(p, slab, row);
      for (int64_t i = 0; i < p.count; ++i)
        kernels_.start(p.shape.extent[2], p.level.relaxation(p.shape.row_index(slab, row)),
                       r_row(p, i, slab, row), e_ring(p, i, slab, row));
    }
  }

  void residual(const Pass &p, int64_t slab, int64_t row) const {
    Neighbours all;
    find_neighbours(p, slab, row, all);
    for (int64_t i = 0; i < p.count; ++i)
      kernels_.residual(p.shape.extent[2], all, ring_shift(i), keep(p, slab, row), r_row(p, i, slab, row),
                        residual_ring(p, i, slab, row));
  }

  void restrict_row(const Pass &p, const LevelShape &coarse, int64_t coarse_slab, int64_t coarse_row) const {
    Restriction below;
    below.count = 0;
    const int s_max = coarse.nd >= 2, y_max = coarse.nd >= 3;
    for (int s = -s_max; s <= s_max; ++s)
      for (int y = -y_max; y <= y_max; ++y) {
        int64_t slab = 2 * coarse_slab + s, row = 2 * coarse_row + y;
        const bool inside = p.shape.inside(slab, row);
        Weights<float> w{1, hierarchy_.rows.zeros, hierarchy_.rows.zeros, hierarchy_.rows.zeros};
        if (inside) w = p.level.weights_towards(slab, row, coarse_slab, coarse_row, hierarchy_.rows.ones);
        const SplitRow values =
            inside ? residual_ring(p, 0, slab, row) : residual_ring(p, 0, 2 * coarse_slab, 2 * coarse_row);
        const int k = below.count++;
        below.values_even[k] = values.even, below.values_odd[k] = values.odd;
        below.even[k] = w.even, below.left[k] = w.left, below.right[k] = w.right;
      }
    for (int64_t i = 0; i < p.count; ++i) {
      const int64_t at = coarse.row_index(coarse_slab, coarse_row);
      float *out = vector_row(scratch_.r[p.l + 1], p.l + 1, p.rhs[i], at);
      clear_padding(out, 1, coarse.extent[2], coarse.pitch);
      kernels_.restrict_row(coarse.extent[2], below, ring_shift(i), out);
    }
  }

  // Coarse correction (none on the last level) and the sweep after it.
  void up(const Team &team, int l) const {
    const int64_t slabs = shape(l).extent[0], begin = team.begin(slabs), end = team.end(slabs);
    if (begin == end) return;
    for_blocks(team, l, [&](const Pass &p) {
      clear_rings(p);
      int64_t started = std::max<int64_t>(0, begin - 1);
      for (int64_t slab = begin; slab < end; ++slab) {
        for (; started <= std::min(slab + 1, slabs - 1); ++started) correct(p, started);
        for (int64_t row = 0; row < p.shape.extent[1]; ++row) relax(p, slab, row);
      }
    });
  }

  void correct(const Pass &p, int64_t slab) const {
    const bool last = p.l + 1 == *hierarchy_.depth;
    for (int64_t row = 0; row < p.shape.extent[1]; ++row) {
      load(p, slab, row);
      Prolongation rows;
      rows.coarse[0] = nullptr;
      rows.pitch = p.level.coarse_pitch;
      if (!last) {
        const LevelShape &coarse = shape(p.l + 1);
        rows.weights = p.level.weights_of(slab, row, hierarchy_.rows.ones);
        int corner = 0;
        for (int64_t s = slab / 2; s <= (slab + 1) / 2; ++s)
          for (int64_t y = row / 2; y <= (row + 1) / 2; ++y) {
            const int64_t at =
                coarse.inside(s, y) ? coarse.row_index(s, y) : coarse.row_index(slab / 2, row / 2);
            rows.coarse[corner++] = vector_row(scratch_.e[p.l + 1], p.l + 1, 0, at);
          }
      }
      for (int64_t i = 0; i < p.count; ++i)
        kernels_.correct(p.shape.extent[2], rows, last ? 0 : p.rhs[i] * scratch_.vector_size[p.l + 1],
                         p.level.relaxation(p.shape.row_index(slab, row)), r_row(p, i, slab, row),
                         e_ring(p, i, slab, row));
    }
  }

  void relax(const Pass &p, int64_t slab, int64_t row) const {
    Neighbours all;
    find_neighbours(p, slab, row, all);
    const int64_t at = p.shape.row_index(slab, row);
    for (int64_t i = 0; i < p.count; ++i) {
      float *out = p.l == 0 ? scratch_.ring(p.rank, i, 2) : vector_row(scratch_.e[p.l], p.l, p.rhs[i], at);
      if (p.l > 0) clear_padding(out, 1, p.shape.extent[2], p.shape.pitch);
      kernels_.relax(p.shape.extent[2], all, ring_shift(i), p.level.relaxation(at), keep(p, slab, row),
                     r_row(p, i, slab, row), e_ring(p, i, slab, row), out);
      if (p.l > 0) continue;
      const int64_t r = p.rhs[i], offset = r * p.shape.voxels() + at * columns();
      scratch_.row_dots[r * rows() + at] = border_kernels_.store(columns(), out, static_cast<T>(1 / scale(r)),
                                                                 border_.r + offset, border_.z + offset);
    }
  }

  const Team &team_;
  const Hierarchy &hierarchy_;
  const CycleScratch &scratch_;
  const int64_t rhs_;
  const bool *active_;
  const Border<T> border_;
  const RowKernels &kernels_ = row_kernels();
  const BorderKernels<T> &border_kernels_ = border_kernels<T>();
};

}  // namespace
}  // namespace multigrid

size_t cycle_scratch_bytes(const Grid &grid, int64_t rhs, int threads) {
  const multigrid::Shapes shapes = multigrid::shapes_of(grid);
  Arena build, cycle;
  multigrid::carve_build(shapes, threads, build);
  multigrid::carve_cycle(shapes, rhs, threads, cycle);
  return std::max(build.used(), cycle.used());
}

template <class T>
void cycle(const Team &team, const Grid &grid, const void *memory, int64_t rhs, const bool *active,
           const T *r, T *z, double *dots, void *scratch_memory) {
  using namespace multigrid;
  const Shapes shapes = shapes_of(grid);
  Arena arena(const_cast<void *>(memory)), scratch_arena(scratch_memory);
  const Hierarchy hierarchy = carve_hierarchy(shapes, arena);
  const CycleScratch scratch = carve_cycle(shapes, rhs, team.size, scratch_arena);
  Cycle<T>(team, hierarchy, scratch, rhs, active, {r, z, dots}).run();
}

template void cycle<float>(const Team &, const Grid &, const void *, int64_t, const bool *, const float *,
                           float *, double *, void *);
template void cycle<double>(const Team &, const Grid &, const void *, int64_t, const bool *, const double *,
                            double *, double *, void *);

}  // namespace segprior::softcut
