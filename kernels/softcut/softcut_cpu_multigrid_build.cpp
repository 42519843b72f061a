// Builds the multigrid hierarchy of a matrix, level by level. Derivation: softcut.md.
#include <algorithm>

#include "kernels/softcut/softcut_cpu_multigrid.h"
#include "kernels/softcut/softcut_cpu_multigrid_rows.h"
#include "kernels/softcut/softcut_cpu_multigrid_scratch.h"

namespace segprior::softcut {
namespace multigrid {
namespace {

// The preconditioner's weights and conductances are clamped to this and its inverse: no product of the cycle
// can overflow then, whatever a valid matrix holds.
constexpr double kLargest = 1e18;

class Builder {
 public:
  Builder(const Team &team, const Shapes &shapes, const Hierarchy &hierarchy, const BuildScratch &scratch)
      : team_(team), shapes_(shapes), hierarchy_(hierarchy), scratch_(scratch) {}

  template <class T>
  void run(const Matrix<T> &matrix) {
    load(matrix);
    team_.barrier();
    int l = 0;
    while (!diagonal(l)) coarsen(l++);
    if (team_.rank == 0) *hierarchy_.depth = l + 1;
    team_.barrier();
  }

 private:
  const Level &level(int l) const { return hierarchy_.level[l]; }
  float *excess(int l) const { return scratch_.excess[l % 2]; }

  // f(slab, row, index) for this thread's rows; small levels are one thread's.
  template <class F>
  void for_rows(const LevelShape &shape, const F &f) const {
    const bool small = shape.voxels() < kSmall;
    if (small && team_.rank > 0) return;
    const int64_t begin = small ? 0 : team_.begin(shape.rows()),
                  end = small ? shape.rows() : team_.end(shape.rows());
    for (int64_t i = begin; i < end; ++i) f(i / shape.extent[1], i % shape.extent[1], i);
  }

  // Level 0 from the matrix.
  template <class T>
  void load(const Matrix<T> &matrix) const {
    const Level &first = level(0);
    const LevelShape &shape = first.shape;
    const int64_t columns = shape.extent[2];
    const auto clamped = [](T value) {
      return static_cast<float>(
          std::min(std::max(value, static_cast<T>(1 / kLargest)), static_cast<T>(kLargest)));
    };
    for_rows(shape, [&](int64_t slab, int64_t row, int64_t i) {
      clear_padding(first.relaxation(i), first.heads() + shape.families, columns, shape.pitch);
      float *d = excess(0) + i * shape.pitch;
      clear_padding(d, 1, columns, shape.pitch);
      const T *conductance = matrix.conductance ? matrix.conductance + i * columns : nullptr;
      for (int64_t x = 0; x < columns; ++x) d[x] = conductance ? clamped(conductance[x]) : 1.0f;
      for (int f = 0; f < kFamilies; ++f) {
        if (shapes_.family[f] < 0) continue;
        const int step = shape.direction_of[shapes_.family[f]], column = column_step(step);
        float *g = first.family(i, shapes_.family[f]);
        const int64_t rows = shape.extent[1] - std::abs(row_step(step)), count = columns - std::abs(column);
        if (slab + slab_step(step) >= shape.extent[0] || row >= rows) {
          std::fill_n(g, columns, 0.0f);
          continue;
        }
        const T *from = matrix.edges[f] + (slab * rows + row) * count;
        if (column < 0) *g++ = 0;
        for (int64_t x = 0; x < count; ++x)
          g[x] = static_cast<float>(std::min(from[x], static_cast<T>(kLargest)));
        if (column > 0) g[count] = 0;
      }
    });
  }

  // Couplings of a row's voxels in a direction.
  const float *coupling(const Level &fine, int64_t slab, int64_t row, int d) const {
    const LevelShape &shape = fine.shape;
    if (d > kSelf) {
      const int f = shape.family_of[d];
      return f < 0 ? hierarchy_.rows.zeros : fine.family(shape.row_index(slab, row), f);
    }
    const int f = shape.family_of[kDirections - 1 - d];
    slab += slab_step(d), row += row_step(d);
    if (f < 0 || !shape.inside(slab, row)) return hierarchy_.rows.zeros;
    return fine.family(shape.row_index(slab, row), f) + column_step(d);
  }

  // The diagonals of a level. True where it is the last one.
  bool diagonal(int l) const {
    const Level &fine = level(l);
    float max = 0;
    for_rows(fine.shape, [&](int64_t slab, int64_t row, int64_t i) {
      Neighbours all{};
      for (int f = 0; f < fine.shape.families; ++f)
        for (const int d : {fine.shape.direction_of[f], kDirections - 1 - fine.shape.direction_of[f]}) {
          all.g[all.count] = coupling(fine, slab, row, d);
          all.e[all.count++] = hierarchy_.rows.zeros;
        }
      float *minus = scratch_.minus_diagonal + i * fine.shape.pitch;
      clear_padding(minus, 1, fine.shape.extent[2], fine.shape.pitch);
      max = std::max(max, kernels_.diagonal(fine.shape.extent[2], all, excess(l) + i * fine.shape.pitch,
                                            fine.relaxation(i), fine.keep(i), minus));
    });
    scratch_.dominance[team_.rank] = max;
    team_.barrier();
    for (int rank = 0; rank < team_.size; ++rank) max = std::max(max, scratch_.dominance[rank]);
    return max <= kDominance || l + 1 == shapes_.count;
  }

  SplitRow split_row(float *array, const Level &fine, int64_t i) const {
    float *even = array + 2 * i * fine.coarse_pitch;
    return {even, even + fine.coarse_pitch};
  }

  InterpolationRow interpolation_row(int l, int64_t slab, int64_t row) const {
    const Level &fine = level(l);
    const LevelShape &shape = fine.shape;
    InterpolationRow r;
    r.nd = shape.nd;
    r.odd_slab = slab % 2 != 0, r.odd_row = row % 2 != 0;
    r.columns = (shape.extent[2] + 1) / 2;
    r.pitch = fine.coarse_pitch;
    for (int d = 0; d < kDirections; ++d) r.g[d] = d == kSelf ? nullptr : coupling(fine, slab, row, d);
    r.excess = excess(l) + shape.row_index(slab, row) * shape.pitch;
    for (int s = -1; s <= 1; ++s)
      for (int y = -1; y <= 1; ++y) {
        const bool inside = shape.inside(slab + s, row + y);
        r.weights[s + 1][y + 1] =
            inside ? fine.weights_of(slab + s, row + y, hierarchy_.rows.ones)
                   : Weights<float>{1, hierarchy_.rows.zeros, hierarchy_.rows.zeros, hierarchy_.rows.zeros};
        r.deficit[s + 1][y + 1] = inside
                                      ? split_row(scratch_.deficit, fine, shape.row_index(slab + s, row + y))
                                      : SplitRow{hierarchy_.rows.zeros, hierarchy_.rows.zeros};
      }
    return r;
  }

  // Interpolation, then the next level's couplings and excesses.
  void coarsen(int l) const {
    const Level &fine = level(l);
    // A row of weights needs those of neighbouring rows with fewer odd coordinates.
    for (int odd = 0; odd < fine.shape.nd; ++odd) {
      for_rows(fine.shape, [&](int64_t slab, int64_t row, int64_t i) {
        if (slab % 2 + row % 2 != odd) return;
        const InterpolationRow r = interpolation_row(l, slab, row);
        const Weights<float> &w = r.weights[1][1];
        clear_padding(w.corners == 1 ? w.left : w.even, w.corners == 1 ? 2 : 3 * w.corners, r.columns,
                      r.pitch);
        clear_padding(split_row(scratch_.deficit, fine, i).even, 2, r.columns, r.pitch);
        kernels_.interpolate_even(r);
        kernels_.interpolate_odd(r);
      });
      team_.barrier();
    }
    for_rows(fine.shape, [&](int64_t slab, int64_t row, int64_t i) {
      const SplitRow sums = split_row(scratch_.sums, fine, i);
      clear_padding(sums.even, 2, (fine.shape.extent[2] + 1) / 2, fine.coarse_pitch);
      kernels_.row_sums(interpolation_row(l, slab, row), sums);
    });
    team_.barrier();
    for_rows(level(l + 1).shape, [&](int64_t slab, int64_t row, int64_t i) { coarse_row(l, slab, row, i); });
    team_.barrier();
  }

  void coarse_row(int l, int64_t slab, int64_t row, int64_t i) const {
    const Level &fine = level(l), &coarse = level(l + 1);
    const LevelShape &shape = coarse.shape;
    clear_padding(coarse.relaxation(i), coarse.heads(), shape.extent[2], shape.pitch);
    std::fill_n(coarse.family(i, 0) - kPad, shape.families * shape.pitch + kPad, 0.0f);
    float *sums = excess(l + 1) + i * shape.pitch;
    clear_padding(sums, 1, shape.extent[2], shape.pitch);
    Restriction below{};
    const int s_max = shape.nd >= 2, y_max = shape.nd >= 3;
    for (int s = -s_max; s <= s_max; ++s)
      for (int y = -y_max; y <= y_max; ++y) {
        const int64_t at[2] = {2 * slab + s, 2 * row + y};
        const int k = below.count++;
        if (!fine.shape.inside(at[0], at[1])) {
          below.values_even[k] = below.values_odd[k] = hierarchy_.rows.zeros;
          below.even[k] = below.left[k] = below.right[k] = hierarchy_.rows.zeros;
          continue;
        }
        const SplitRow values = split_row(scratch_.sums, fine, fine.shape.row_index(at[0], at[1]));
        const Weights<float> w = fine.weights_towards(at[0], at[1], slab, row, hierarchy_.rows.ones);
        below.values_even[k] = values.even, below.values_odd[k] = values.odd;
        below.even[k] = w.even, below.left[k] = w.left, below.right[k] = w.right;
        couple(fine, coarse, slab, row, at[0], at[1], w);
      }
    kernels_.restrict_row(shape.extent[2], below, 0, sums);
  }

  // The part of the coarse row's couplings that goes through its fine row (fine_slab, fine_row), with weights
  // `w`.
  void couple(const Level &fine, const Level &coarse, int64_t slab, int64_t row, int64_t fine_slab,
              int64_t fine_row, const Weights<float> &w) const {
    const LevelShape &shape = fine.shape;
    const int64_t here = coarse.shape.row_index(slab, row);
    for (int s = -1; s <= 1; ++s)
      for (int y = -1; y <= 1; ++y) {
        const int64_t to[2] = {fine_slab + s, fine_row + y};
        if (!shape.inside(to[0], to[1])) continue;
        const bool self = s == 0 && y == 0;
        if (!self && !has_direction(shape, s, y, 0)) continue;
        GalerkinTerm term{};
        term.columns = coarse.shape.extent[2];
        term.p_even = w.even, term.p_left = w.left, term.p_right = w.right;
        const bool sides = has_direction(shape, s, y, 1) || has_direction(shape, s, y, -1);
        for (int c = -1; c <= 1; ++c) {
          if (c == 0 || sides) term.a[c + 1] = coupling(fine, fine_slab, fine_row, direction(s, y, c));
        }
        if (self) term.a[1] = scratch_.minus_diagonal + shape.row_index(fine_slab, fine_row) * shape.pitch;
        for (int64_t cs = to[0] / 2; cs <= (to[0] + 1) / 2; ++cs)
          for (int64_t cy = to[1] / 2; cy <= (to[1] + 1) / 2; ++cy) {
            const int64_t step[2] = {cs - slab, cy - row};
            if (step[0] < 0 || (step[0] == 0 && step[1] < 0) || !coarse.shape.inside(cs, cy)) continue;
            const Weights<float> q = fine.weights_towards(to[0], to[1], cs, cy, hierarchy_.rows.ones);
            term.q_even = q.even, term.q_left = q.left, term.q_right = q.right;
            for (int c = -1; c <= 1; ++c) {
              const int f =
                  coarse.shape.family_of[direction(static_cast<int>(step[0]), static_cast<int>(step[1]), c)];
              term.coupling[c + 1] = f < 0 ? nullptr : coarse.family(here, f);
            }
            kernels_.galerkin(term);
          }
      }
  }

  static bool has_direction(const LevelShape &shape, int s, int y, int c) {
    const int d = direction(s, y, c);
    return shape.family_of[d > kSelf ? d : kDirections - 1 - d] >= 0;
  }

  const Team &team_;
  const Shapes &shapes_;
  const Hierarchy &hierarchy_;
  const BuildScratch &scratch_;
  const RowKernels &kernels_ = row_kernels();
};

}  // namespace
}  // namespace multigrid

template <class T>
void build_hierarchy(const Team &team, const Grid &grid, const Matrix<T> &matrix, void *memory,
                     void *scratch_memory) {
  using namespace multigrid;
  const Shapes shapes = shapes_of(grid);
  Arena arena(memory), scratch_arena(scratch_memory);
  const Hierarchy hierarchy = carve_hierarchy(shapes, arena);
  const BuildScratch scratch = carve_build(shapes, team.size, scratch_arena);
  if (team.rank == 0) fill_constants(shapes, hierarchy.rows);
  team.barrier();
  Builder(team, shapes, hierarchy, scratch).run(matrix);
}

template void build_hierarchy<float>(const Team &, const Grid &, const Matrix<float> &, void *, void *);
template void build_hierarchy<double>(const Team &, const Grid &, const Matrix<double> &, void *, void *);

}  // namespace segprior::softcut
