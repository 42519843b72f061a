// The multigrid hierarchy on CUDA: its shape, and its matrices, level by level.
//
// Each number of a coarse level is gathered by one thread. Differences are kept small: a matrix is stored as
// couplings and the excess of its diagonal over them, and so is what interpolation loses of a constant,
// d = 1 - P 1, where 1 - (sum of the weights) would be rounding alone as soon as couplings are 10^7 times the
// conductance.
#include "kernels/softcut/softcut_cuda_multigrid.h"

#include "kernels/softcut/softcut_cuda_multigrid_level.h"

namespace segprior::softcut::cuda {
namespace {

// Axes as bits. Of an offset, those on which it is not 0.
template <int ND>
__device__ constexpr int axes_of(int offset) {
  int axes = 0;
  for (int a = 0; a < ND; ++a) axes |= (step_of(offset, a) != 0) << a;
  return axes;
}

// `offset` with 0 on the axes not in `axes`.
template <int ND>
__device__ constexpr int restricted_to(int axes, int offset) {
  int result = 0;
  for (int a = 0; a < ND; ++a) result += ((axes >> a & 1 ? step_of(offset, a) : 0) + 1) * power_of_three(a);
  return result;
}

// f(offset, coupling) for the neighbours of a point inside.
template <int ND, class Matrix, class F>
__device__ inline void for_couplings(const Matrix &a, const Point<ND> &p, const F &f) {
  const int64_t i = p.index(a.e);
#pragma unroll
  for (int offset = 0; offset < kOffsets<ND>; ++offset)
    if (offset != kCentre<ND> && Matrix::has(offset) && p.has_neighbour(offset, a.e))
      f(offset, a.coupling(p, i, offset));
}

// A phase with a thread per coarse point: the matrix and the point of a tile's thread.
template <int ND>
struct Item {
  int64_t m, part;
  Point<ND> p;
  bool inside;
};
template <int ND>
__device__ inline Item<ND> item_of(int64_t tile, int64_t parts, const Extents<ND> &e) {
  const int64_t points = e.points(), chunks = ceil_div(points, kBlock);
  const int64_t which = tile / chunks, i = (tile - which * chunks) * kBlock + threadIdx.x;
  return {which / parts, which % parts, point_at<ND>(i, e), i < points};
}
template <int ND>
int64_t items_of(int64_t matrices, int64_t parts, const Extents<ND> &e) {
  return matrices * parts * ceil_div(e.points(), kBlock);
}

// What a point with odd coordinates on the axes `odd`, all others even, loses of a constant: operator-induced
// interpolation takes its equation, with the couplings along the other axes collapsed. Its neighbours on
// fewer odd axes come first.
template <int ND, class Matrix>
__device__ inline float loss_of(const Matrix &a, const Point<ND> &p, int odd, const float *losses) {
  const float excess = fmaxf(a.excess(p.index(a.e)), 0.0f);
  float centre = excess, sum = excess;
  for_couplings<ND>(a, p, [&](int offset, float g) {
    if ((axes_of<ND>(offset) & odd) == 0 || !(g > 0)) return;
    centre += g;
    if ((axes_of<ND>(offset) & odd) != odd)
      sum += g * losses[p.stepped(restricted_to<ND>(odd, offset)).index(a.e)];
  });
  return centre > 0 ? sum / centre : 1.0f;
}

// The weight of a coarse point in the fine point at `offset` from it: the same equation, in which only what
// leads towards the coarse point counts.
template <int ND, class Matrix>
__device__ inline float weight_of(const Matrix &a, const Point<ND> &p, int offset,
                                  const CoarseMatrix<ND> &coarse, int64_t i) {
  const int odd = axes_of<ND>(offset);
  float centre = fmaxf(a.excess(p.index(a.e)), 0.0f), sum = 0;
  for_couplings<ND>(a, p, [&](int step, float g) {
    if ((axes_of<ND>(step) & odd) == 0 || !(g > 0)) return;
    centre += g;
    int next = kCentre<ND>;
    for (int axis = 0; axis < ND; ++axis) {
      if ((odd >> axis & 1) == 0) continue;
      if (step_of(step, axis) == step_of(offset, axis)) return;
      if (step_of(step, axis) == 0) next += step_of(offset, axis) * power_of_three(axis);
    }
    sum += next == kCentre<ND> ? g : g * coarse.slot(weight_slot<ND>(next))[i];
  });
  return centre > 0 ? sum / centre : 0.0f;
}

// First of a level: the inverse diagonal; losses of the points with one odd coordinate; all weights.
template <int ND, class Fine>
struct WeightsPhase {
  static constexpr const char *kName = "softcut multigrid weights";
  int64_t tiles;
  Fine fine;
  Coarse<ND> coarse;
  float *losses;  // [M][fine.pitch]

  __device__ void operator()(int64_t tile) const {
    const Item<ND> item = item_of<ND>(tile, 1, coarse.e);
    if (!item.inside) return;
    const auto a = fine.matrix(item.m);
    const CoarseMatrix<ND> c = coarse.matrix(item.m);
    const Point<ND> corner = doubled(item.p);
    const int64_t i = item.p.index(coarse.e);
#pragma unroll 1
    for (int odd = 0; odd < 1 << ND; ++odd) {
      Point<ND> p = corner;
      for (int axis = 0; axis < ND; ++axis) p.at[axis] += odd >> axis & 1;
      if (!p.inside(fine.e)) continue;
      const int64_t k = p.index(fine.e);
      float diagonal = a.excess(k), magnitude = 0;
      for_couplings<ND>(a, p, [&](int, float g) {
        diagonal += g;
        magnitude += fabsf(g);
      });
      const float bound = fmaxf(diagonal, (diagonal + magnitude) * (1 / kSpectrum));
      fine.inverses(item.m)[k] = bound > 0 ? 1 / bound : 0.0f;
      if ((odd & (odd - 1)) == 0)
        losses[item.m * fine.pitch + k] = odd ? loss_of<ND>(a, p, odd, nullptr) : 0.0f;
    }
    for (int axes = 1; axes <= ND; ++axes) {
#pragma unroll 1
      for (int offset = 0; offset < kOffsets<ND>; ++offset) {
        if (__popc(axes_of<ND>(offset)) != axes) continue;
        const Point<ND> p = corner.stepped(offset);
        c.slot(weight_slot<ND>(offset))[i] = p.inside(fine.e) ? weight_of<ND>(a, p, offset, c, i) : 0.0f;
      }
    }
  }
};

// Losses of the points with `count` > 1 odd coordinates.
template <int ND, class Fine>
struct LossPhase {
  static constexpr const char *kName = "softcut multigrid loss";
  int64_t tiles;
  Fine fine;
  Coarse<ND> coarse;
  float *losses;
  int count;

  __device__ void operator()(int64_t tile) const {
    const Item<ND> item = item_of<ND>(tile, 1, coarse.e);
    if (!item.inside) return;
    const auto a = fine.matrix(item.m);
    float *const mine = losses + item.m * fine.pitch;
#pragma unroll 1
    for (int odd = 0; odd < 1 << ND; ++odd) {
      if (__popc(odd) != count) continue;
      Point<ND> p = doubled(item.p);
      for (int axis = 0; axis < ND; ++axis) p.at[axis] += odd >> axis & 1;
      if (p.inside(fine.e)) mine[p.index(fine.e)] = loss_of<ND>(a, p, odd, mine);
    }
  }
};

// One number of each point of the coarse matrix P^T A P: a coupling with a neighbour ahead, or the excess.
template <int ND, class Fine>
struct GalerkinPhase {
  static constexpr const char *kName = "softcut multigrid galerkin";
  static constexpr int kParts = kCentre<ND> + 1;
  int64_t tiles;
  Fine fine;
  Coarse<ND> coarse;
  const float *losses;

  __device__ void operator()(int64_t tile) const {
    const Item<ND> item = item_of<ND>(tile, kParts, coarse.e);
    if (!item.inside) return;
    const auto a = fine.matrix(item.m);
    const CoarseMatrix<ND> c = coarse.matrix(item.m);
    const int part = static_cast<int>(item.part);
    const int64_t i = item.p.index(coarse.e);
    if (part == kCentre<ND>)
      c.slot(kExcess)[i] = excess(a, c, item.p, losses + item.m * fine.pitch);
    else
      c.slot(kCouplings + part)[i] = coupling(a, c, item.p, kCentre<ND> + 1 + part);
  }

  // The value of the basis function of coarse point `i` at the fine point that is `steps` from it.
  __device__ static float basis(const CoarseMatrix<ND> &coarse, int64_t i, const int (&steps)[ND]) {
    int offset = 0;
    for (int axis = 0; axis < ND; ++axis) {
      if (steps[axis] < -1 || steps[axis] > 1) return 0;
      offset += (steps[axis] + 1) * power_of_three(axis);
    }
    return offset == kCentre<ND> ? 1.0f : coarse.slot(weight_slot<ND>(offset))[i];
  }

  // Row sum: P^T A (1 - losses).
  template <class Matrix>
  __device__ static float excess(const Matrix &a, const CoarseMatrix<ND> &coarse, const Point<ND> &point,
                                 const float *losses) {
    float sum = 0;
    const int64_t i = point.index(coarse.e);
#pragma unroll 1
    for (int offset = 0; offset < kOffsets<ND>; ++offset) {
      const Point<ND> p = doubled(point).stepped(offset);
      if (!p.inside(a.e)) continue;
      const int64_t k = p.index(a.e);
      const float loss = losses[k];
      float row = a.excess(k) * (1 - loss);
      for_couplings<ND>(a, p, [&](int step, float g) { row += g * (losses[k + a.e.shift(step)] - loss); });
      sum += (offset == kCentre<ND> ? 1.0f : coarse.slot(weight_slot<ND>(offset))[i]) * row;
    }
    return sum;
  }

  template <class Matrix>
  __device__ static float coupling(const Matrix &a, const CoarseMatrix<ND> &coarse, const Point<ND> &point,
                                   int ahead) {
    if (!point.has_neighbour(ahead, coarse.e)) return 0;
    float sum = 0;
    const int64_t i = point.index(coarse.e), j = point.stepped(ahead).index(coarse.e);
#pragma unroll 1
    for (int offset = 0; offset < kOffsets<ND>; ++offset) {
      const Point<ND> p = doubled(point).stepped(offset);
      int steps[ND];  // from j's fine point
      bool reached = true;
      for (int axis = 0; axis < ND; ++axis) {
        steps[axis] = step_of(offset, axis) - 2 * step_of(ahead, axis);
        reached = reached && steps[axis] >= -2 && steps[axis] <= 2;
      }
      if (!reached || !p.inside(a.e)) continue;
      const float own = basis(coarse, j, steps);
      const int64_t k = p.index(a.e);
      float row = a.excess(k) * own;
#pragma unroll 1
      for (int step = 0; step < kOffsets<ND>; ++step) {
        if (step == kCentre<ND> || !Matrix::has(step) || !p.has_neighbour(step, a.e)) continue;
        int next[ND];
        for (int axis = 0; axis < ND; ++axis) next[axis] = steps[axis] + step_of(step, axis);
        const float other = basis(coarse, j, next);
        if (own != other) row += a.coupling(p, k, step) * (own - other);
      }
      sum += (offset == kCentre<ND> ? 1.0f : coarse.slot(weight_slot<ND>(offset))[i]) * row;
    }
    return -sum;
  }
};

// The matrix of a level from that of the finer one.
template <int ND, class Fine>
void coarsen(StreamingExecutor &exec, int64_t matrices, const Fine &fine, const Coarse<ND> &coarse,
             float *losses) {
  const int64_t tiles = items_of<ND>(matrices, 1, coarse.e);
  exec.run(WeightsPhase<ND, Fine>{tiles, fine, coarse, losses});
  for (int odd = 2; odd <= ND; ++odd) exec.run(LossPhase<ND, Fine>{tiles, fine, coarse, losses, odd});
  exec.run(GalerkinPhase<ND, Fine>{items_of<ND>(matrices, GalerkinPhase<ND, Fine>::kParts, coarse.e), fine,
                                   coarse, losses});
}

int slots_of(int nd) { return nd == 1 ? kSlots<1> : nd == 2 ? kSlots<2> : kSlots<3>; }

}  // namespace

Hierarchy carve_hierarchy(const Grid &grid, Arena &saved, Arena &workspace) {
  Hierarchy h{};
  int64_t extent[3] = {1, 1, 1};
  constexpr int kAlong[3] = {kColumn, kRow, kSlice};
  for (int axis = 0; axis < 3; ++axis) {
    if (grid.extent[2 - axis] == 1) continue;
    h.family[h.nd] = kAlong[axis];
    extent[h.nd++] = grid.extent[2 - axis];
  }
  if (h.nd == 0) h.family[h.nd++] = kColumn;
  for (const int64_t n : extent)
    if (n > INT32_MAX)
      throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED, "multigrid on CUDA: an axis has 2^31 voxels or more");
  do {
    Level &level = h.level[h.levels];
    for (int axis = 0; axis < 3; ++axis) {
      level.extent[axis] = extent[axis];
      extent[axis] = ceil_div(extent[axis], 2);
    }
    level.pitch = pitch_of(level.points());
    if (h.tail == 0 && h.levels > 0 && level.points() <= kTailPoints) h.tail = h.levels;
  } while (h.level[h.levels++].points() > 1 || h.levels == 1);
  for (int l = 0; l < h.levels; ++l) {
    Level &level = h.level[l];
    level.matrix = saved.take<float>(grid.matrices() * (l == 0 ? 1 : slots_of(h.nd)), level.pitch);
    level.residual = workspace.take<float>(l == 0 ? grid.matrices() : grid.systems(), level.pitch);
    if (l > 0) level.correction = workspace.take<float>(grid.systems(), level.pitch);
  }
  return h;
}

template <class T>
void build_hierarchy(const Operator<T> &a, const Hierarchy &h, cudaStream_t stream) {
  StreamingExecutor exec(nullptr, stream);
  with_dimension(h, [&](auto dimension) {
    constexpr int ND = dimension;
    coarsen<ND>(exec, a.matrices, finest_of<ND>(a, h), coarse_of<ND>(h.level[1]), h.level[0].residual);
    for (int l = 1; l + 1 < h.levels; ++l)
      coarsen<ND>(exec, a.matrices, coarse_of<ND>(h.level[l]), coarse_of<ND>(h.level[l + 1]),
                  h.level[l].residual);
  });
}

template void build_hierarchy(const Operator<float> &, const Hierarchy &, cudaStream_t);
template void build_hierarchy(const Operator<double> &, const Hierarchy &, cudaStream_t);

}  // namespace segprior::softcut::cuda
