// One V(1,1) cycle as phases, for either executor. On the way down a phase smooths from zero, takes the
// residual and restricts it: of each level only the restricted residual is stored. On the way up a phase
// smooths once more what it makes anew of the first smoothing and the interpolated correction. The small
// levels are one phase, a block per system.
#pragma once

#include "kernels/common/reduce.h"
#include "kernels/softcut/softcut_cuda_multigrid_tile.h"

namespace segprior::softcut::cuda {

// The vectors of a level, of one system: the residual that comes in and the correction that goes out.
template <class T>
struct FinestVectors {
  const T *r;
  T *z;
  T scale, unscale;

  __device__ float residual(int64_t i) const { return static_cast<float>(r[i] * scale); }
  // Returns r z.
  __device__ double store(int64_t i, float value) const {
    const T unscaled = value * unscale;
    z[i] = unscaled;
    return static_cast<double>(r[i]) * static_cast<double>(unscaled);
  }
};
struct CoarseVectors {
  const float *residuals;
  float *corrections;

  __device__ float residual(int64_t i) const { return residuals[i]; }
  __device__ double store(int64_t i, float value) const {
    corrections[i] = value;
    return 0;
  }
};

template <class T, int ND>
__device__ inline FinestVectors<T> vectors_of(const CycleArgs<T> &args, const Finest<ND, T> &fine,
                                              int64_t n) {
  const T scale = static_cast<T>(args.scale[n]);
  return {args.r + n * fine.voxels, args.z + n * fine.voxels, scale, 1 / scale};
}
template <class T, int ND>
__device__ inline CoarseVectors vectors_of(const CycleArgs<T> &, const Coarse<ND> &fine, int64_t n) {
  return {fine.residual + n * fine.pitch, fine.correction + n * fine.pitch};
}

// The offset with 1 on the axes of these bits and 0 elsewhere.
template <int ND>
SEGPRIOR_HD constexpr int offset_to(int axes) {
  int offset = kCentre<ND>;
  for (int a = 0; a < ND; ++a) offset += (axes >> a & 1) * power_of_three(a);
  return offset;
}

// (A e) at a point that is at `place` of a patch of e.
template <int ND, class P, class Matrix>
__device__ inline float product(const Matrix &a, const Point<ND> &p, int64_t i, const float *e, int place) {
  const float own = e[place];
  float sum = a.excess(i) * own;
#pragma unroll
  for (int offset = 0; offset < kOffsets<ND>; ++offset)
    if (offset != kCentre<ND> && Matrix::has(offset) && p.has_neighbour(offset, a.e))
      sum += a.coupling(p, i, offset) * (own - e[place + P::step(offset)]);
  return sum;
}

// The interpolated correction at the fine points 2 p + {0, 1}^nd of the cell of coarse point p, which is
// inside. Calls f(odd, value) for those that are inside, `odd` having the bits of the axes with 1.
template <int ND, class F>
__device__ inline void interpolate(const CoarseMatrix<ND> &coarse, const float *correction,
                                   const Point<ND> &p, const Extents<ND> &fine, const F &f) {
  const int64_t i = p.index(coarse.e);
  float at[1 << ND];  // the cell's corners; 0 outside, where weights are not stored
#pragma unroll
  for (int corner = 0; corner < 1 << ND; ++corner) {
    const int offset = offset_to<ND>(corner);
    at[corner] = p.has_neighbour(offset, coarse.e) ? correction[i + coarse.e.shift(offset)] : 0.0f;
  }
#pragma unroll
  for (int odd = 0; odd < 1 << ND; ++odd) {
    bool inside = true;
#pragma unroll
    for (int a = 0; a < ND; ++a)
      if (odd >> a & 1) inside = inside && 2 * p.at[a] + 1 < fine.n[a];
    if (!inside) continue;
    float sum = odd == 0 ? at[0] : 0.0f;
#pragma unroll
    for (int corner = 0; corner < 1 << ND; ++corner) {
      if (odd == 0 || (corner & ~odd) != 0) continue;
      const int to = offset_to<ND>(corner);
      // The fine point is ahead of the corner on odd axes where the corner is p's, else behind it.
      const int from = offset_to<ND>(odd) - 2 * (to - kCentre<ND>);
      if (p.has_neighbour(to, coarse.e))
        sum += coarse.slot(weight_slot<ND>(from))[i + coarse.e.shift(to)] * at[corner];
    }
    f(odd, sum);
  }
}

// The restricted residual at a coarse point. residual(offset) is that of the fine point.
template <int ND, class F>
__device__ inline float restricted(const CoarseMatrix<ND> &coarse, int64_t i, const F &residual) {
  float sum = 0;
#pragma unroll
  for (int offset = 0; offset < kOffsets<ND>; ++offset)
    sum +=
        offset == kCentre<ND> ? residual(offset) : coarse.slot(weight_slot<ND>(offset))[i] * residual(offset);
  return sum;
}

// Down: the residual of the coarser level.
template <int ND, class T, class Fine>
struct RestrictPhase {
  static constexpr const char *kName = "softcut multigrid restrict";
  int64_t tiles;
  Fine fine;
  Coarse<ND> coarse;
  CycleArgs<T> args;

  __device__ void operator()(int64_t tile) const {
    using Wide = Smoothed<ND>;
    using Narrow = Residuals<ND>;
    float *const smoothed = cycle_memory<ND>(), *const residuals = smoothed + Wide::size();
    const Tiling<ND> tiling(coarse.e);
    const unsigned m = static_cast<unsigned>(tile) / tiling.tiles();
    const Point<ND> first = tiling.first(static_cast<unsigned>(tile) % tiling.tiles());
    const auto a = fine.matrix(m);
    const CoarseMatrix<ND> c = coarse.matrix(m);
    for (int64_t n = m * args.rhs; n < (m + 1) * args.rhs; ++n) {
      if (!args.active[n]) continue;
      const auto v = vectors_of(args, fine, n);
      for (int q = threadIdx.x; q < Wide::size(); q += kBlock) {
        const Point<ND> p = Wide::point(first, q, 2);
        const int64_t i = p.index(fine.e);
        smoothed[q] = p.inside(fine.e) ? kDamping * a.inverse(i) * v.residual(i) : 0.0f;
      }
      __syncthreads();
      for (int q = threadIdx.x; q < Narrow::size(); q += kBlock) {
        const Point<ND> p = Narrow::point(first, q, 1);
        const int64_t i = p.index(fine.e);
        residuals[q] = 0;
        if (p.inside(fine.e))
          residuals[q] =
              v.residual(i) - product<ND, Wide>(a, p, i, smoothed, Wide::template place<Narrow>(q, 1));
      }
      __syncthreads();
      Point<ND> p = first;
      int place = 0, rest = threadIdx.x;
#pragma unroll
      for (int axis = 0; axis < ND; ++axis) {
        const int local = rest % tile_extent<ND>(axis);
        rest /= tile_extent<ND>(axis);
        p.at[axis] += local;
        place += (2 * local + 1) * Narrow::stride(axis);
      }
      if (!p.inside(coarse.e)) continue;
      const int64_t i = p.index(coarse.e);
      coarse.residual[n * coarse.pitch + i] =
          restricted<ND>(c, i, [&](int offset) { return residuals[place + Narrow::step(offset)]; });
    }
  }
};

// Up, one tile of one system: the correction of the finer level. Returns this thread's part of r z.
template <int ND, class Fine, class Vectors>
__device__ inline double correct(const Fine &fine, const Coarse<ND> &coarse, const Point<ND> &first,
                                 int64_t m, int64_t n, const Vectors &v) {
  using Wide = Corrected<ND>;
  float *const corrected = cycle_memory<ND>();
  const auto a = fine.matrix(m);
  const CoarseMatrix<ND> c = coarse.matrix(m);
  for (int q = threadIdx.x; q < Cells<ND>::size(); q += kBlock) {
    Point<ND> cell{};
    int place = 0;
#pragma unroll
    for (int axis = 0; axis < ND; ++axis) {
      const int local = Cells<ND>::local(q, axis);
      cell.at[axis] = first.at[axis] - 1 + local;
      place += 2 * local * Wide::stride(axis);
    }
    if (!cell.inside(coarse.e)) continue;
    interpolate(c, coarse.correction + n * coarse.pitch, cell, fine.e, [&](int odd, float value) {
      const int offset = offset_to<ND>(odd);
      const int64_t i = doubled(cell).stepped(offset).index(fine.e);
      corrected[place + Wide::step(offset)] = kDamping * a.inverse(i) * v.residual(i) + value;
    });
  }
  __syncthreads();
  double sum = 0;
  for (int q = threadIdx.x; q < Tile<ND>::size(); q += kBlock) {
    const Point<ND> p = Tile<ND>::point(first, q, 0);
    if (!p.inside(fine.e)) continue;
    const int64_t i = p.index(fine.e);
    const int place = Wide::template place<Tile<ND>>(q, 2);
    const float left = v.residual(i) - product<ND, Wide>(a, p, i, corrected, place);
    sum += v.store(i, corrected[place] + kDamping * a.inverse(i) * left);
  }
  __syncthreads();
  return sum;
}

template <int ND, class T>
struct CorrectPhase {
  static constexpr const char *kName = "softcut multigrid correct";
  int64_t tiles;
  Coarse<ND> fine, coarse;
  CycleArgs<T> args;

  __device__ void operator()(int64_t tile) const {
    const Tiling<ND> tiling(coarse.e);
    const unsigned m = static_cast<unsigned>(tile) / tiling.tiles();
    const Point<ND> first = tiling.first(static_cast<unsigned>(tile) % tiling.tiles());
    for (int64_t n = m * args.rhs; n < (m + 1) * args.rhs; ++n)
      if (args.active[n]) correct(fine, coarse, first, m, n, vectors_of(args, fine, n));
  }
};

// The same of level 0: z, and the sums of r z. As many tiles of the grid as there are to a partial sum.
template <int ND, class T>
struct FinishPhase {
  static constexpr const char *kName = "softcut multigrid finish";
  int64_t tiles;
  Finest<ND, T> fine;
  Coarse<ND> coarse;
  CycleArgs<T> args;

  __device__ void operator()(int64_t tile) const {
    const Tiling<ND> tiling(coarse.e);
    const unsigned sums = static_cast<unsigned>(chunks_of(fine.voxels).count);
    const unsigned m = static_cast<unsigned>(tile) / sums, chunk = static_cast<unsigned>(tile) % sums;
    const unsigned begin = first_tile(tiling, chunk, sums), end = first_tile(tiling, chunk + 1, sums);
    for (int64_t n = m * args.rhs; n < (m + 1) * args.rhs; ++n) {
      if (!args.active[n]) continue;
      const FinestVectors<T> v = vectors_of(args, fine, n);
      double sum = 0;
      for (unsigned t = begin; t < end; ++t) sum += correct(fine, coarse, tiling.first(t), m, n, v);
      sum = block_sum(sum);
      if (threadIdx.x == 0) args.rz[n * sums + chunk] = sum;
    }
  }

  __device__ static unsigned first_tile(const Tiling<ND> &tiling, unsigned chunk, unsigned chunks) {
    return static_cast<unsigned>(static_cast<uint64_t>(chunk) * tiling.tiles() / chunks);
  }
};

// The small levels, of one system: the same cycle, with the vectors in shared memory.
template <int ND, class T>
struct TailPhase {
  static constexpr const char *kName = "softcut multigrid tail";
  int64_t tiles;
  int levels;
  Coarse<ND> top;
  CycleArgs<T> args;

  __device__ void operator()(int64_t n) const {
    if (!args.active[n]) return;
    float *const other = cycle_memory<ND>(), *residual = other + kTailPoints,
                 *correction = residual + kTailFloats;
    const int64_t m = n / args.rhs;
    const int points = static_cast<int>(top.e.points());
    for (int i = threadIdx.x; i < points; i += kBlock) residual[i] = top.residual[n * top.pitch + i];
    __syncthreads();
    for (int l = 0; l < levels - 1; ++l) {
      const Coarse<ND> fine = level(l), coarse = level(l + 1);
      descend(fine.matrix(m), coarse.matrix(m), residual, correction, other);
      residual += fine.e.points();
      correction += fine.e.points();
    }
    const float diagonal = level(levels - 1).matrix(m).excess(0);
    if (threadIdx.x == 0) correction[0] = diagonal > 0 ? residual[0] / diagonal : 0.0f;
    __syncthreads();
    for (int l = levels - 2; l >= 0; --l) {
      const Coarse<ND> fine = level(l), coarse = level(l + 1);
      float *const coarse_correction = correction;
      residual -= fine.e.points();
      correction -= fine.e.points();
      ascend(fine.matrix(m), coarse.matrix(m), residual, correction, coarse_correction, other);
    }
    for (int i = threadIdx.x; i < points; i += kBlock) top.correction[n * top.pitch + i] = correction[i];
    __syncthreads();
  }

  __device__ Coarse<ND> level(int l) const {
    Coarse<ND> result = top;
    for (int k = 0; k < l; ++k) result = next_level(result, args.matrices);
    return result;
  }

  __device__ static void descend(const CoarseMatrix<ND> &a, const CoarseMatrix<ND> &coarse, float *residual,
                                 float *correction, float *left) {
    const int points = static_cast<int>(a.e.points()), coarse_points = static_cast<int>(coarse.e.points());
    for (int i = threadIdx.x; i < points; i += kBlock) correction[i] = kDamping * a.inverse(i) * residual[i];
    __syncthreads();
    for (int i = threadIdx.x; i < points; i += kBlock) left[i] = residual[i] - apply(a, i, correction);
    __syncthreads();
    for (int i = threadIdx.x; i < coarse_points; i += kBlock) {
      const Point<ND> p = doubled(point_at<ND>(i, coarse.e));
      residual[points + i] = restricted<ND>(coarse, i, [&](int offset) {
        const Point<ND> q = p.stepped(offset);
        return q.inside(a.e) ? left[q.index(a.e)] : 0.0f;
      });
    }
    __syncthreads();
  }

  __device__ static void ascend(const CoarseMatrix<ND> &a, const CoarseMatrix<ND> &coarse,
                                const float *residual, float *correction, const float *coarse_correction,
                                float *corrected) {
    const int points = static_cast<int>(a.e.points()), coarse_points = static_cast<int>(coarse.e.points());
    for (int k = threadIdx.x; k < coarse_points; k += kBlock) {
      const Point<ND> cell = point_at<ND>(k, coarse.e);
      interpolate(coarse, coarse_correction, cell, a.e, [&](int odd, float value) {
        const int64_t i = doubled(cell).stepped(offset_to<ND>(odd)).index(a.e);
        corrected[i] = correction[i] + value;
      });
    }
    __syncthreads();
    for (int i = threadIdx.x; i < points; i += kBlock)
      correction[i] = corrected[i] + kDamping * a.inverse(i) * (residual[i] - apply(a, i, corrected));
    __syncthreads();
  }

  __device__ static float apply(const CoarseMatrix<ND> &a, int i, const float *e) {
    const Point<ND> p = point_at<ND>(i, a.e);
    const float own = e[i];
    float sum = a.excess(i) * own;
#pragma unroll
    for (int offset = 0; offset < kOffsets<ND>; ++offset)
      if (offset != kCentre<ND> && p.has_neighbour(offset, a.e))
        sum += a.coupling(p, i, offset) * (own - e[i + a.e.shift(offset)]);
    return sum;
  }
};

// z = M^-1 r for the active systems.
SEGPRIOR_FOR_EITHER_SIDE
template <int ND, class Exec, class T>
SEGPRIOR_HD void v_cycle(Exec &exec, const Operator<T> &a, const Hierarchy &h, const CycleArgs<T> &args) {
  const auto tiles = [&](int l) { return args.matrices * Tiling<ND>(extents_of<ND>(h.level[l])).tiles(); };
  const auto coarse = [&](int l) { return coarse_of<ND>(h.level[l]); };
  const Finest<ND, T> finest = finest_of<ND>(a, h);
  exec.run(RestrictPhase<ND, T, Finest<ND, T>>{tiles(1), finest, coarse(1), args});
  for (int l = 1; l < h.tail; ++l)
    exec.run(RestrictPhase<ND, T, Coarse<ND>>{tiles(l + 1), coarse(l), coarse(l + 1), args});
  exec.run(TailPhase<ND, T>{args.matrices * args.rhs, h.levels - h.tail, coarse(h.tail), args});
  for (int l = h.tail - 1; l > 0; --l)
    exec.run(CorrectPhase<ND, T>{tiles(l + 1), coarse(l), coarse(l + 1), args});
  exec.run(FinishPhase<ND, T>{args.matrices * chunks_of(a.voxels).count, finest, coarse(1), args});
}

}  // namespace segprior::softcut::cuda
