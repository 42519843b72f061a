// Entropic softmax on CUDA, one backward iteration in one kernel, for few classes and with the TV prior: the
// tiles, the march and the partial sums of softmax_cuda_fused.h, the mathematics of softmax_cuda_adjoint.cu.
//
// Loading a slice gives R, complete, and u_t; y_bar of t follows from their forward differences; its
// divergence gives the incoming gradient of u_t and with it the sums of R that the volume step of t - 1 waits
// for. Neither R nor u is ever stored. y_bar and v_bar alternate between two buffers: blocks read their
// neighbours'.
//
// Bytes per voxel and class, float32, nd = 2: o 4, v_t+1 8, v_t 8, y_bar 8 + 8, grad_features 8: 44 (60 when
// accelerated).
#pragma once

#include "kernels/softmax/softmax_cuda_fused.h"

namespace segprior::softmax::cuda {

// R = s (bar - <bar, s>) / eps for s = S(z); z holds s afterwards, bar R.
template <class T, int I>
__device__ inline void softmax_adjoint(T (&z)[I], T (&bar)[I], T inv_eps) {
  softmax_in_place(z);
  T mean = 0;
#pragma unroll
  for (int i = 0; i < I; ++i) mean += bar[i] * z[i];
#pragma unroll
  for (int i = 0; i < I; ++i) bar[i] = z[i] * (bar[i] - mean) * inv_eps;
}

// What is known about a slice once it is loaded: R, the part of it that came through w, and u_t.
template <class T, int I>
struct AdjointSlice {
  T r[I] = {}, through_w[I] = {}, u[I] = {};
  T log_w = 0;  // sum of through_w ln w
};

template <class T, int I, int ND>
__global__ void __launch_bounds__(Tile<ND>::kThreads, blocks_per_sm<T, I, ND>())
    fused_adjoint_kernel(Inputs<T> in, Adjoint<T> a, int t, const T *v, const T *v_next, FusedPlan plan) {
  using Block = Tile<ND>;
  constexpr int kSize = Block::kThreads;
  SEGPRIOR_SHARED(T, shared_r, I * kSize);  // R, then the new dual's gradient along columns
  SEGPRIOR_SHARED(T, shared_u, I * kSize);  // u, then the same along rows

  const Geometry<T> &g = in.g;
  const unsigned block = blockIdx.x % plan.blocks();
  const int64_t image = blockIdx.x / plan.blocks();
  const int done = a.iterations[image];
  if (t >= done) return;
  const bool end = t + 1 == done;  // nothing comes from later iterations yet
  const int tile_x = block % plan.tiles_x, tile_y = block / plan.tiles_x % plan.tiles_y;
  const int segment = block / (plan.tiles_x * plan.tiles_y);

  const int tx = threadIdx.x, ty = ND == 3 ? threadIdx.y : 0, me = ty * Block::kX + tx;
  const int column = tile_x * Block::kInnerX + tx - 1, row = ND == 3 ? tile_y * Block::kInnerY + ty - 1 : 0;
  const bool inside = column >= 0 && column < plan.columns && row >= 0 && row < plan.rows;
  const bool inner = inside && tx > 0 && tx < Block::kX - 1 && (ND < 3 || (ty > 0 && ty < Block::kY - 1));
  const bool left = column > 0 && tx > 0, right = column + 1 < plan.columns && tx < Block::kX - 1;
  const bool above = ND == 3 && row > 0 && ty > 0;
  const bool below = ND == 3 && row + 1 < plan.rows && ty < Block::kY - 1;
  const bool has_slices = ND == 3 || g.nd == 2;

  const Coefficients &c = *in.coefficients;
  const T lam = static_cast<T>(c.params.lam), tau = static_cast<T>(c.params.tau),
          scale = static_cast<T>(c.scale);
  const T scale_t = static_cast<T>(t == 0 ? c.init_scale : c.scale),
          inv_eps = static_cast<T>(1 / c.params.eps);
  const T inv_eps_t = static_cast<T>(1 / (t == 0 ? c.params.init_eps : c.params.eps));
  const T beta = static_cast<T>(in.accelerate ? a.momentum[t * g.batch + image] : 0);
  const T beta_next = static_cast<T>(in.accelerate && !end ? a.momentum[(t + 1) * g.batch + image] : 0);
  const T inv_h0 = has_slices ? g.inv_h[0] : T(0), inv_h1 = ND == 3 ? g.inv_h[1] : T(0),
          inv_h2 = g.inv_h[g.nd - 1];

  const unsigned plane = plan.rows * plan.columns, here = row * plan.columns + column;
  const unsigned voxels = static_cast<unsigned>(g.voxels), dual_class = g.nd * voxels,
                 v2_at = (g.nd - 1) * voxels;
  const int64_t image_scalars = image * I * voxels, image_duals = image * I * dual_class;
  const T *features = in.features + image_scalars, *v_t = v + image_duals;
  const T *v_after = (end ? a.final_v : v_next) + image_duals, *old_y = a.grad_y + image_duals;
  T *new_y = a.next_grad_y + image_duals;
  const double *f = a.f ? a.f + (t * g.batch + image) * I : nullptr;
  const double *f_after = f ? f + g.batch * I : nullptr, *w_bar = f ? a.w_bar + image * I : nullptr;

  // div of the field p[nd][voxels] at offset k of its first component.
  const auto divergence_at = [&](const T *p, unsigned k, int s) {
    T div = 0;
    if (has_slices) div = inv_h0 * ((s + 1 < plan.slices ? p[k] : T(0)) - (s > 0 ? p[k - plane] : T(0)));
    if (ND == 3)
      div += inv_h1 *
             ((row + 1 < plan.rows ? p[k + voxels] : T(0)) - (row > 0 ? p[k + voxels - plan.columns] : T(0)));
    const T here2 = column + 1 < plan.columns ? p[k + v2_at] : T(0);
    return div + inv_h2 * (here2 - (column > 0 ? p[k + v2_at - 1] : T(0)));
  };

  const auto load = [&](int s, AdjointSlice<T, I> &slice) {
    if (!inside) return;
    const unsigned at = s * plane + here;
    T after[I], z[I];
#pragma unroll
    for (int i = 0; i < I; ++i) {
      const unsigned k = i * dual_class + at;
      const T o = features[i * voxels + at];
      after[i] = o - divergence_at(v_after, k, s);
      z[i] = (after[i] + (f ? static_cast<T>(f_after[i]) : T(0))) * scale;
      slice.r[i] = end ? a.grad_u[image_scalars + i * voxels + at] : tau * divergence_at(old_y, k, s);
      slice.u[i] = (o - divergence_at(v_t, k, s) + (f ? static_cast<T>(f[i]) : T(0))) * scale_t;
    }
    softmax_adjoint(z, slice.r, inv_eps);
    softmax_in_place(slice.u);
    if (!f) return;
#pragma unroll
    for (int i = 0; i < I; ++i) {
      z[i] = (after[i] + static_cast<T>(f[i])) * scale;
      slice.through_w[i] = static_cast<T>(w_bar[i]);
    }
    softmax_adjoint(z, slice.through_w, inv_eps);
    slice.log_w = 0;
#pragma unroll
    for (int i = 0; i < I; ++i) {
      slice.r[i] += slice.through_w[i];
      slice.log_w += log_term(slice.through_w[i], z[i]);
    }
  };

  const int first = segment * plan.segment_units * kUnit, planned = first + plan.segment_units * kUnit;
  const int stop = planned < plan.slices ? planned : plan.slices, begin = first > 0 ? first - 1 : 0;
  AdjointSlice<T, I> now, next;
  T y0[I] = {}, sums[I] = {};
  T log_sum = 0, start_log = 0, tau_sum = 0;
  load(begin, now);

  for (int s = begin; s < stop; ++s) {
    const bool last = s + 1 == plan.slices, counts = inner && s >= first;
    const unsigned at = s * plane + here;
    if (!last) load(s + 1, next);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      shared_r[i * kSize + me] = now.r[i];
      shared_u[i * kSize + me] = now.u[i];
    }
    __syncthreads();

    T before_y0[I], y1[ND == 3 ? I : 1] = {}, y2[I] = {}, bound_sum = 0;
    const T bound = inside ? bound_of(in, image, at, lam) : T(0);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      before_y0[i] = y0[i];
      if (!inside) continue;
      T y[3] = {}, bar[3] = {}, slope[3] = {}, square = 0, along = 0;
      // Axis: 0 slices, 1 rows, 2 columns; `offset` of its component.
      const auto axis = [&](int d, unsigned offset, T inv_h, bool ahead, T r, T u) {
        const unsigned k = i * dual_class + offset + at;
        slope[d] = ahead ? inv_h * (u - now.u[i]) : T(0);
        T v_bar = ahead ? inv_h * (r - now.r[i]) : T(0);
        y[d] = v_t[k] - tau * slope[d];
        if (!end) v_bar += old_y[k];
        bar[d] = v_bar;
        if (in.accelerate) {
          bar[d] = (1 + beta) * v_bar - (end ? T(0) : beta_next * a.grad_v[image_duals + k]);
          if (counts) a.next_grad_v[image_duals + k] = v_bar;
        }
        square += y[d] * y[d];
        along += y[d] * bar[d];
      };
      if (has_slices) axis(0, 0, inv_h0, !last, next.r[i], next.u[i]);
      if (ND == 3) {
        const int to = i * kSize + me + (below ? Block::kX : 0);
        axis(1, voxels, inv_h1, below, shared_r[to], shared_u[to]);
      }
      const int to = i * kSize + me + (right ? 1 : 0);
      axis(2, v2_at, inv_h2, right, shared_r[to], shared_u[to]);

      const T norm = sqrt(square);
      const bool clipped = norm > bound;
      const T shrink = clipped ? bound / norm : T(1), radial = clipped ? along / square : T(0);
      if (clipped) bound_sum += along / norm;
#pragma unroll
      for (int d = 0; d < 3; ++d) {
        bar[d] = shrink * (bar[d] - y[d] * radial);
        if (counts) tau_sum -= bar[d] * slope[d];
      }
      y0[i] = last ? T(0) : bar[0];
      if (ND == 3) y1[ND == 3 ? i : 0] = bar[1];
      y2[i] = bar[2];
      if (!counts) continue;
      if (has_slices) new_y[i * dual_class + at] = bar[0];
      if (ND == 3) new_y[i * dual_class + voxels + at] = bar[1];
      new_y[i * dual_class + v2_at + at] = bar[2];
    }
    if (counts && a.grad_bound) a.grad_bound[image * voxels + at] += bound_sum;
    __syncthreads();  // R and u of the neighbours are read
#pragma unroll
    for (int i = 0; i < I; ++i) {
      shared_r[i * kSize + me] = y2[i];
      if (ND == 3) shared_u[i * kSize + me] = y1[ND == 3 ? i : 0];
    }
    __syncthreads();

    if (counts) {
      T bar[I], mean = 0;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        T div = inv_h0 * (y0[i] - before_y0[i]);
        div += inv_h2 *
               ((column + 1 < plan.columns ? y2[i] : T(0)) - (left ? shared_r[i * kSize + me - 1] : T(0)));
        if (ND == 3)
          div += inv_h1 * ((row + 1 < plan.rows ? y1[ND == 3 ? i : 0] : T(0)) -
                           (above ? shared_u[i * kSize + me - Block::kX] : T(0)));
        bar[i] = tau * div;
        mean += bar[i] * now.u[i];
      }
      T log_u = 0;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const T r = now.u[i] * (bar[i] - mean) * inv_eps_t;
        log_u += log_term(r, now.u[i]);
        sums[i] += now.through_w[i] + r;
        const unsigned k = i * voxels + at;
        if (a.grad_features) a.grad_features[image_scalars + k] += t == 0 ? now.r[i] + r : now.r[i];
      }
      (t == 0 ? start_log : log_sum) += log_u;
      log_sum += now.log_w;
    }
    __syncthreads();  // shared memory is free for the next slice

    if (s >= first && ((s + 1) % kUnit == 0 || s + 1 == stop)) {
      const unsigned part = (tile_y * plan.tiles_x + tile_x) * plan.units + s / kUnit;
      double total[I + 3];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        total[i] = sums[i];
        sums[i] = 0;
      }
      total[I + kEpsSum] = log_sum;
      total[I + kStartSum] = start_log;
      total[I + kTauSum] = tau_sum;
      log_sum = start_log = tau_sum = 0;
      block_reduce(total, Sum());
      if (me == 0) {
        if (f)
          for (int i = 0; i < I; ++i) a.fused_mass[(image * I + i) * plan.partials() + part] = total[i];
        for (int k = 0; k < 3; ++k)
          a.fused_scalars[(image * kScalars + k) * plan.partials() + part] += total[I + k];
      }
    }
    now = next;
  }
}

// Calls the kernel for `classes` = I .. kMostFused.
template <class T, int ND, int I = 2>
void dispatch_fused_adjoint(const Grid &grid, const Inputs<T> &in, const Adjoint<T> &a, int t, const T *v,
                            const T *v_next, cudaStream_t stream) {
  if constexpr (I <= kMostFused<T>) {
    if (grid.classes != I) return dispatch_fused_adjoint<T, ND, I + 1>(grid, in, a, t, v, v_next, stream);
    const FusedPlan plan = fused_plan<ND>(grid);
    launch("fused_adjoint", fused_adjoint_kernel<T, I, ND>,
           dim3(static_cast<unsigned>(grid.batch * plan.blocks())), dim3(Tile<ND>::kX, Tile<ND>::kY), 0,
           stream, in, a, t, v, v_next, plan);
  }
}

}  // namespace segprior::softmax::cuda
