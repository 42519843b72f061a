// Shapes, stencils and memory of the levels of a multigrid hierarchy.
#include "kernels/softcut/softcut_cpu_multigrid_levels.h"

#include <algorithm>

#include "kernels/softcut/softcut_cpu_multigrid.h"

namespace segprior::softcut {
namespace multigrid {
namespace {

int64_t pitch_of(int64_t columns) { return (columns + 31) / 32 * 32 + kPad; }

// Couplings to all neighbours, as every level but the first has.
void full_stencil(LevelShape &level) {
  level.families = 0;
  std::fill_n(level.family_of, kDirections, -1);
  for (int d = kSelf + 1; d < kDirections; ++d) {
    if ((level.nd < 2 && slab_step(d) != 0) || (level.nd < 3 && row_step(d) != 0)) continue;
    level.direction_of[level.families] = d;
    level.family_of[d] = level.families++;
  }
}

void grid_stencil(const Grid &g, const int (&axis_of)[3], Shapes &shapes) {
  LevelShape &level = shapes.level[0];
  level.families = 0;
  std::fill_n(level.family_of, kDirections, -1);
  int family_at[kDirections];
  std::fill_n(family_at, kDirections, -1);
  for (int f = 0; f < kFamilies; ++f) {
    shapes.family[f] = -1;
    if (g.edge_count(f) <= 0) continue;
    int step[3] = {};
    for (int axis = 0; axis < 3; ++axis)
      if (kStep[f][axis] != 0) step[axis_of[axis]] = kStep[f][axis];
    family_at[direction(step[0], step[1], step[2])] = f;
  }
  for (int d = kSelf + 1; d < kDirections; ++d) {
    if (family_at[d] < 0) continue;
    shapes.family[family_at[d]] = level.families;
    level.direction_of[level.families] = d;
    level.family_of[d] = level.families++;
  }
}

int64_t zeros_size(const Shapes &shapes) {
  const int64_t pitch = shapes.level[0].pitch, corners = shapes.count > 1 ? 4 * shapes.level[1].pitch : 0;
  return std::max(pitch, corners) + 2 * kPad;
}
int64_t row_size(const Shapes &shapes) { return shapes.level[0].pitch + 2 * kPad; }

Constants carve_constants(const Shapes &shapes, Arena &arena) {
  Constants c;
  c.zeros = arena.take<float>(zeros_size(shapes));
  c.ones = arena.take<float>(row_size(shapes));
  c.keep = arena.take<float>(row_size(shapes));
  if (c.zeros) c.zeros += kPad, c.ones += kPad, c.keep += kPad;
  return c;
}

void list_terms(Level &level) {
  level.terms = 0;
  for (int f = 0; f < level.shape.families; ++f) {
    const int ahead = level.shape.direction_of[f], column = column_step(ahead);
    const int64_t family = (level.heads() + f) * level.shape.pitch;
    level.term[level.terms++] = {ahead / 3, kHere, family, column};
    const int behind = (kDirections - 1 - ahead) / 3;
    level.term[level.terms++] = {behind, behind, family - column, -column};
  }
}

}  // namespace

Shapes shapes_of(const Grid &g) {
  Shapes shapes;
  int axes[3], nd = 0;
  for (int axis = 0; axis < 3; ++axis)
    if (g.extent[axis] > 1) axes[nd++] = axis;
  LevelShape &first = shapes.level[0];
  first.nd = std::max(nd, 1);
  // The last long axis is the column axis; of two, the first is the slab axis.
  const int places[4][3] = {{}, {2, 0, 0}, {0, 2, 0}, {0, 1, 2}};
  int axis_of[3] = {0, 1, 2};
  std::fill_n(first.extent, 3, int64_t{1});
  for (int i = 0; i < nd; ++i) {
    axis_of[axes[i]] = places[nd][i];
    first.extent[places[nd][i]] = g.extent[axes[i]];
  }
  grid_stencil(g, axis_of, shapes);
  first.pitch = pitch_of(first.extent[2]);
  for (shapes.count = 1; shapes.level[shapes.count - 1].voxels() > 1; ++shapes.count) {
    LevelShape &level = shapes.level[shapes.count];
    level.nd = first.nd;
    for (int axis = 0; axis < 3; ++axis)
      level.extent[axis] = (shapes.level[shapes.count - 1].extent[axis] + 1) / 2;
    level.pitch = pitch_of(level.extent[2]);
    full_stencil(level);
  }
  return shapes;
}

Weights<float> Level::weights_of(int64_t slab, int64_t row, float *ones) const {
  const bool odd_slab = slab % 2 != 0, odd_row = row % 2 != 0;
  // Rows of the four parities, (even, even) first, have 2, 6, 6 and 12 half rows; without a row axis 2 and 6.
  const int before = !odd_slab ? (odd_row ? 2 : 0) : (odd_row ? 14 : (shape.nd == 2 ? 2 : 8));
  float *at = weights + ((slab / 2 * coarse_rows + row / 2) * weight_rows(shape.nd) + before) * coarse_pitch;
  const int corners = (odd_slab ? 2 : 1) * (odd_row ? 2 : 1);
  if (corners == 1) return {1, ones, at, at + coarse_pitch};
  return {corners, at, at + corners * coarse_pitch, at + 2 * corners * coarse_pitch};
}

Weights<float> Level::weights_towards(int64_t slab, int64_t row, int64_t coarse_slab, int64_t coarse_row,
                                      float *ones) const {
  const Weights<float> w = weights_of(slab, row, ones);
  if (w.corners == 1) return w;
  const int64_t up = coarse_slab - slab / 2, down = coarse_row - row / 2;
  const int64_t at = (up * (row % 2 != 0 ? 2 : 1) + down) * coarse_pitch;
  return {1, w.even + at, w.left + at, w.right + at};
}

Hierarchy carve_hierarchy(const Shapes &shapes, Arena &arena) {
  Hierarchy h;
  h.depth = arena.take<int32_t>(1);
  h.rows = carve_constants(shapes, arena);
  for (int l = 0; l < shapes.count; ++l) {
    Level &level = h.level[l];
    level.shape = shapes.level[l];
    level.varying = l > 0;
    level.couplings = arena.take<float>(
        level.shape.rows() * (level.heads() + level.shape.families) * level.shape.pitch + kPad);
    list_terms(level);
    level.weights = nullptr;
    level.coarse_rows = level.coarse_pitch = 0;
    if (l + 1 < shapes.count) {
      const LevelShape &coarse = shapes.level[l + 1];
      level.coarse_rows = coarse.extent[1];
      level.coarse_pitch = coarse.pitch;
      level.weights = arena.take<float>(coarse.rows() * weight_rows(coarse.nd) * coarse.pitch + kPad);
    }
    if (level.couplings) level.couplings += kPad;
    if (level.weights) level.weights += kPad;
  }
  return h;
}

void fill_constants(const Shapes &shapes, const Constants &c) {
  std::fill_n(c.zeros - kPad, zeros_size(shapes), 0.0f);
  std::fill_n(c.ones - kPad, row_size(shapes), 1.0f);
  std::fill_n(c.keep - kPad, row_size(shapes), 1 - kOmega);
}

void clear_padding(float *first, int64_t rows, int64_t columns, int64_t pitch) {
  std::fill_n(first - kPad, kPad, 0.0f);
  for (int64_t row = 0; row < rows; ++row)
    std::fill(first + row * pitch + columns, first + (row + 1) * pitch, 0.0f);
}

}  // namespace multigrid

size_t hierarchy_bytes(const Grid &grid) {
  Arena arena;
  multigrid::carve_hierarchy(multigrid::shapes_of(grid), arena);
  return arena.used();
}

}  // namespace segprior::softcut
