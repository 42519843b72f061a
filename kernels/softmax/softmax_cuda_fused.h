// Entropic softmax on CUDA, one forward iteration in one kernel, for few classes and with the TV prior.
//
// A block owns a tile of columns (2-D grids: 128 x 1 threads; 3-D: 32 x 8 threads, rows x columns) and
// marches along the slices of a segment. A thread keeps all classes of its voxel in registers: u of this
// slice and of the next one, the features and the old dual of both, the new dual of the slice axis one slice
// back. Neighbours in the plane come through shared memory: u for the forward differences, the new dual for
// its divergence. One ring of threads around the tile and one slice before the segment are computed twice, by
// two blocks. u is never stored.
//
// The masses are added up per tile and unit of kUnit slices, whatever the segments are; so the sums, and with
// them the results, do not depend on how many images share the launch.
//
// Bytes per voxel and class, float32: features 4, old dual 4 nd, new dual 4 nd: 20 in 2-D, 28 in 3-D (twice
// the dual's part when accelerated); the halo's reads (2 of 128 columns; in 3-D 76 of 256 voxels; one slice
// in a segment) mostly come from cache.
#pragma once

#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

constexpr int kUnit = 8;  // slices per partial sum

// Offsets within an image are 32 bits wide; fused_partials() turns larger images away.
struct FusedPlan {
  int slices, rows, columns;
  int tiles_y, tiles_x, units, segments;
  int segment_units;

  SEGPRIOR_HD unsigned partials() const { return tiles_y * tiles_x * units; }
  SEGPRIOR_HD unsigned blocks() const { return tiles_y * tiles_x * segments; }
};

template <int ND>
struct Tile {
  static constexpr int kX = ND == 3 ? 32 : 128, kY = ND == 3 ? 8 : 1, kThreads = kX * kY;
  static constexpr int kInnerX = kX - 2, kInnerY = ND == 3 ? kY - 2 : 1;
};

// Segments as long as leave every SM of a large device two blocks, but at most 8 units.
template <int ND>
FusedPlan fused_plan(const Grid &grid) {
  constexpr int64_t kEnoughBlocks = 288, kLongest = 8;
  const auto count = [](int64_t n) { return static_cast<int>(n); };
  FusedPlan plan{count(grid.extent[0]), count(grid.extent[1]), count(grid.extent[2]), 0, 0, 0, 0, 0};
  plan.tiles_y = count(ceil_div(plan.rows, Tile<ND>::kInnerY));
  plan.tiles_x = count(ceil_div(plan.columns, Tile<ND>::kInnerX));
  plan.units = count(ceil_div(plan.slices, kUnit));
  const int64_t available = grid.batch * plan.partials() / kEnoughBlocks;
  plan.segment_units = count(available < 1 ? 1 : (available > kLongest ? kLongest : available));
  plan.segments = count(ceil_div(plan.units, plan.segment_units));
  return plan;
}

template <class T, int I>
__device__ inline void softmax_in_place(T (&z)[I]) {
  T max = z[0], sum = 0;
#pragma unroll
  for (int i = 1; i < I; ++i) max = z[i] > max ? z[i] : max;
#pragma unroll
  for (int i = 0; i < I; ++i) sum += z[i] = exp2_of(z[i] - max);
  const T inv_sum = 1 / sum;
#pragma unroll
  for (int i = 0; i < I; ++i) z[i] *= inv_sum;
}

// One slice of the old iterate at this thread's voxel. v0, v1, v2: the dual along slices, rows, columns.
template <class T, int I, int ND>
struct Slice {
  T o[I], v0[I], v1[ND == 3 ? I : 1], v2[I];
};

// Blocks per SM that the compiler has to make room for: about the registers of a thread's state and 40 more,
// so that enough loads are in flight.
template <class T, int I, int ND>
constexpr int blocks_per_sm() {
  constexpr int kWords = sizeof(T) / sizeof(float), kState = (ND == 3 ? 16 : 13) * I * kWords + 40 * kWords;
  constexpr int kBlocks = 65536 / (kState * Tile<ND>::kThreads);
  return kBlocks < 1 ? 1 : (kBlocks > 8 ? 8 : kBlocks);
}

template <class T, int I, int ND>
__global__ void __launch_bounds__(Tile<ND>::kThreads, blocks_per_sm<T, I, ND>())
    fused_kernel(Inputs<T> in, Step<T> step, Finish finish, FusedPlan plan, bool advance, unsigned *tickets) {
  using Block = Tile<ND>;
  constexpr int kSize = Block::kThreads;
  SEGPRIOR_SHARED(T, shared_u, I * kSize);
  SEGPRIOR_SHARED(T, shared_v2, I * kSize);
  SEGPRIOR_SHARED(T, shared_v1, (ND == 3 ? I * kSize : 1));
  SEGPRIOR_SHARED(double, masses, I);

  const Geometry<T> &g = in.g;
  const unsigned block = blockIdx.x % plan.blocks();
  const int64_t image = blockIdx.x / plan.blocks();
  const int tile_x = block % plan.tiles_x, tile_y = block / plan.tiles_x % plan.tiles_y;
  const int segment = block / (plan.tiles_x * plan.tiles_y);
  if (!active(step.gate, image)) return;

  const int tx = threadIdx.x, ty = ND == 3 ? threadIdx.y : 0, me = ty * Block::kX + tx;
  const int column = tile_x * Block::kInnerX + tx - 1, row = ND == 3 ? tile_y * Block::kInnerY + ty - 1 : 0;
  const bool inside = column >= 0 && column < plan.columns && row >= 0 && row < plan.rows;
  const bool inner = inside && tx > 0 && tx < Block::kX - 1 && (ND < 3 || (ty > 0 && ty < Block::kY - 1));
  // Whether a neighbour in the plane exists and its dual or u is in the tile.
  const bool left = column > 0 && tx > 0, right = column + 1 < plan.columns && tx < Block::kX - 1;
  const bool above = ND == 3 && row > 0 && ty > 0;
  const bool below = ND == 3 && row + 1 < plan.rows && ty < Block::kY - 1;
  const bool has_slices = ND == 3 || g.nd == 2;  // a 1-D grid is one slice without a dual along slices

  const Coefficients &c = *in.coefficients;
  const T lam = static_cast<T>(c.params.lam), tau = static_cast<T>(c.params.tau);
  const T scale_u = static_cast<T>(step.t == 0 ? c.init_scale : c.scale), scale_w = static_cast<T>(c.scale);
  const T beta = static_cast<T>(momentum_of(step.gate, image, g.batch));
  const T inv_h0 = has_slices ? g.inv_h[0] : T(0), inv_h1 = ND == 3 ? g.inv_h[1] : T(0),
          inv_h2 = g.inv_h[g.nd - 1];
  T f[I];
#pragma unroll
  for (int i = 0; i < I; ++i) f[i] = step.f ? static_cast<T>(step.f[image * I + i]) : T(0);

  const unsigned plane = plan.rows * plan.columns, here = row * plan.columns + column;
  const unsigned voxels = static_cast<unsigned>(g.voxels), dual_class = g.nd * voxels,
                 v2_at = (g.nd - 1) * voxels;
  const int64_t image_duals = image * I * dual_class;
  const T *features = in.features + image * I * voxels, *v = step.from.v + image_duals;
  const T *old_q = in.accelerate ? step.from.q + image_duals : nullptr;
  T *to_v = step.to.v + image_duals, *to_q = in.accelerate ? step.to.q + image_duals : nullptr;

  // Loads slice s and computes its u; `before` is v0 one slice back.
  const auto load = [&](int s, const T(&before)[I], Slice<T, I, ND> &slice, T(&u)[I]) {
    if (!inside) return;
    const unsigned at = s * plane + here;
    const bool last = s + 1 == plan.slices;
#pragma unroll
    for (int i = 0; i < I; ++i) {
      const unsigned k = i * dual_class + at;
      slice.o[i] = features[i * voxels + at];
      slice.v0[i] = has_slices ? v[k] : T(0);
      slice.v2[i] = v[k + v2_at];
      const T behind = column > 0 ? v[k + v2_at - 1] : T(0);
      T div = inv_h0 * ((last ? T(0) : slice.v0[i]) - before[i]);
      div += inv_h2 * ((column + 1 < plan.columns ? slice.v2[i] : T(0)) - behind);
      if (ND == 3) {
        const T v1 = v[k + voxels], over = row > 0 ? v[k + voxels - plan.columns] : T(0);
        div += inv_h1 * ((row + 1 < plan.rows ? v1 : T(0)) - over);
        slice.v1[ND == 3 ? i : 0] = v1;
      }
      u[i] = (slice.o[i] - div + f[i]) * scale_u;
    }
    softmax_in_place(u);
  };

  const int first = segment * plan.segment_units * kUnit, planned = first + plan.segment_units * kUnit;
  const int end = planned < plan.slices ? planned : plan.slices, begin = first > 0 ? first - 1 : 0;
  Slice<T, I, ND> now, next;
  T u[I] = {}, u_next[I] = {}, new_v0[I] = {}, mass[I] = {};
  T product = 0;
  {
    T before[I] = {};
    if (begin > 0 && inside) {
#pragma unroll
      for (int i = 0; i < I; ++i) before[i] = v[i * dual_class + (begin - 1) * plane + here];
    }
    load(begin, before, now, u);
  }

  for (int s = begin; s < end; ++s) {
    const bool last = s + 1 == plan.slices, counts = inner && s >= first;
    if (!last) load(s + 1, now.v0, next, u_next);
#pragma unroll
    for (int i = 0; i < I; ++i) shared_u[i * kSize + me] = u[i];
    __syncthreads();

    T before_v0[I];  // new dual along slices, one slice back
    T new_v1[ND == 3 ? I : 1], new_v2[I];
#pragma unroll
    for (int i = 0; i < I; ++i) before_v0[i] = new_v0[i];
    if (inside) {
      const unsigned at = s * plane + here;
      const T bound = bound_of(in, image, at, lam);
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const T y0 = now.v0[i] - (last ? T(0) : tau * inv_h0 * (u_next[i] - u[i]));
        const T y2 = now.v2[i] - (right ? tau * inv_h2 * (shared_u[i * kSize + me + 1] - u[i]) : T(0));
        T y1 = 0, square = y0 * y0 + y2 * y2;
        if (ND == 3) {
          y1 = now.v1[ND == 3 ? i : 0] -
               (below ? tau * inv_h1 * (shared_u[i * kSize + me + Block::kX] - u[i]) : T(0));
          square += y1 * y1;
        }
        const T norm = sqrt(square), shrink = norm > bound ? bound / norm : T(1);
        T q0 = y0 * shrink, q1 = y1 * shrink, q2 = y2 * shrink;
        const unsigned k = i * dual_class + at;
        if (in.accelerate) {
          const auto extrapolate = [&](unsigned at_q, T old_v, T &q) {
            const T change = q - old_q[at_q];
            if (counts) {
              product += (old_v - q) * change;
              to_q[at_q] = q;
            }
            q += beta * change;
          };
          if (has_slices) extrapolate(k, now.v0[i], q0);
          if (ND == 3) extrapolate(k + voxels, now.v1[ND == 3 ? i : 0], q1);
          extrapolate(k + v2_at, now.v2[i], q2);
        }
        if (counts) {
          if (has_slices) to_v[k] = q0;
          if (ND == 3) to_v[k + voxels] = q1;
          to_v[k + v2_at] = q2;
        }
        new_v0[i] = last ? T(0) : q0;
        new_v2[i] = q2;
        shared_v2[i * kSize + me] = q2;
        if (ND == 3) shared_v1[i * kSize + me] = new_v1[ND == 3 ? i : 0] = q1;
      }
    }
    __syncthreads();

    if (in.has_volume && counts) {
      T w[I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        T div = inv_h0 * (new_v0[i] - before_v0[i]);
        div += inv_h2 * ((column + 1 < plan.columns ? new_v2[i] : T(0)) -
                         (left ? shared_v2[i * kSize + me - 1] : T(0)));
        if (ND == 3)
          div += inv_h1 * ((row + 1 < plan.rows ? new_v1[ND == 3 ? i : 0] : T(0)) -
                           (above ? shared_v1[i * kSize + me - Block::kX] : T(0)));
        w[i] = (now.o[i] - div + f[i]) * scale_w;
      }
      softmax_in_place(w);
#pragma unroll
      for (int i = 0; i < I; ++i) mass[i] += w[i];
    }

    if (s >= first && ((s + 1) % kUnit == 0 || s + 1 == end)) {
      const unsigned part = (tile_y * plan.tiles_x + tile_x) * plan.units + s / kUnit;
      if (in.has_volume) {
        double sums[I];
#pragma unroll
        for (int i = 0; i < I; ++i) {
          sums[i] = mass[i];
          mass[i] = 0;
        }
        block_reduce(sums, Sum());
        if (me == 0)
          for (int i = 0; i < I; ++i) step.partials[(image * I + i) * plan.partials() + part] = sums[i];
      }
      if (in.accelerate) {
        const double sum = block_sum(static_cast<double>(product));
        if (me == 0) finish.restart[image * finish.restart_count + part] = sum;
        product = 0;
      }
    }
    now = next;
#pragma unroll
    for (int i = 0; i < I; ++i) u[i] = u_next[i];
  }

  if (!in.has_volume && !advance) return;
  if (!last_block(tickets + image, plan.blocks())) return;
  if (in.has_volume) {
    double sums[I];
    for (int i = 0; i < I; ++i) {
      const double *partials = step.partials + (image * I + i) * plan.partials();
      sums[i] = 0;
      for (unsigned k = me; k < plan.partials(); k += kSize) sums[i] += partials[k];
    }
    block_reduce(sums, Sum());
    if (me == 0)
      for (int i = 0; i < I; ++i) masses[i] = sums[i];
    __syncthreads();
    if (me < I) finish_volume(in, step, image * I + me, masses[me]);
  }
  if (advance) finish_image(finish, image);
}

template <class T, int ND, int I>
void launch_fused(const Grid &grid, const Inputs<T> &in, const Step<T> &step, const Finish &finish,
                  bool advance, unsigned *tickets, cudaStream_t stream) {
  const FusedPlan plan = fused_plan<ND>(grid);
  launch("fused", fused_kernel<T, I, ND>, dim3(static_cast<unsigned>(grid.batch * plan.blocks())),
         dim3(Tile<ND>::kX, Tile<ND>::kY), 0, stream, in, step, finish, plan, advance, tickets);
}

// Most classes that the fused iteration serves: their state has to fit into the registers.
template <class T>
constexpr int kMostFused = sizeof(T) == sizeof(float) ? 8 : 4;

// Calls launch_fused for `classes` = I .. kMostFused.
template <class T, int ND, int I = 2>
void dispatch_fused(const Grid &grid, const Inputs<T> &in, const Step<T> &step, const Finish &finish,
                    bool advance, unsigned *tickets, cudaStream_t stream) {
  if constexpr (I <= kMostFused<T>) {
    if (grid.classes == I)
      launch_fused<T, ND, I>(grid, in, step, finish, advance, tickets, stream);
    else
      dispatch_fused<T, ND, I + 1>(grid, in, step, finish, advance, tickets, stream);
  }
}

}  // namespace segprior::softmax::cuda
