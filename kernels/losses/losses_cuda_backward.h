// Backward pass of the losses over the voxels, on CUDA; included by one file per kind of scores.
//
// Bytes per voxel and class, float32: scores read 4, gradient written 4 (accumulating: read 4 more), 1 / I
// for labels of one byte. S is computed again.
#pragma once

#include "kernels/losses/losses_cuda_probabilities.h"

namespace segprior::losses::cuda {

// What of FOCAL and FOCAL_DICE reaches one element, to be added to the rest of its gradient: see
// backward_kernel.
template <Scores scores, class T>
__device__ inline T sharp_gradient(const Problem &p, const T *c, T factor, T t, const Element<T> &e) {
  T slope = 0, direct = 0;
  if (p.on(SEGPRIOR_LOSS_FOCAL_DICE)) {
    const Sharp<T> h =
        sharpen(e.s, static_cast<T>(p.focal_dice_threshold), static_cast<T>(p.focal_dice_gamma));
    slope = h.slope * (c[kSharpT] * t + c[kSharpS] * (p.dice_squared ? 2 * h.value : T(1)));
  }
  const T gamma = static_cast<T>(p.focal_gamma), log_offset = static_cast<T>(p.log_offset);
  if (p.on(SEGPRIOR_LOSS_FOCAL)) {
    if (scores == Scores::logits && t != 0) direct = factor * t * focal_slope(e.s, e.rest, e.log_s, gamma);
    if (scores == Scores::sigmoid && t != 0)
      direct = factor * t * e.rest * focal_slope(e.s, e.rest, e.log_s, gamma);
    if (scores == Scores::sigmoid && t != 1)
      direct -= factor * (1 - t) * e.s * focal_slope(e.rest, e.s, e.log_rest, gamma);
    if (scores == Scores::probabilities && t != 0 && factor != 0)
      direct = factor * t * focal_slope(e.s + log_offset, e.rest, e.log_s, gamma) / (e.s + log_offset);
  }
  if (scores == Scores::logits) return e.s * slope + direct;
  return (scores == Scores::sigmoid ? e.s * e.rest : T(1)) * slope + direct;
}

// For every element r, which is, with g = dL/dS of SIZE, DICE and FOCAL_DICE, and the incoming gradients of
// its losses: logits, the part of dz_j = r_j - S_j sum_i r_i;  sigmoid, dz;  probabilities, dS. sharp: FOCAL
// or FOCAL_DICE is on.
template <class T, Scores scores, int K, bool sharp>
__global__ void __launch_bounds__(kBlockThreads<K>) backward_kernel(const __grid_constant__ Backward b) {
  constexpr int V = kVoxels<T, K>;
  const Problem &p = b.p;
  const Grid &grid = b.grid;
  const int64_t image = blockIdx.x / grid.chunks, chunk = blockIdx.x - image * grid.chunks;
  const int classes = static_cast<int>(p.classes), first = static_cast<int>(threadIdx.z) * K;
  const int own = classes - first;
  const Rows scores_rows(p, p.scores, image * p.classes + first);
  const Rows grad_rows(p, b.grad_scores, image * p.classes + first);

  T *coefficients = dynamic_shared<T>();  // [I][kCoefficients]
  const Exchange<T, V> exchange(grid, coefficients + kCoefficients * classes);
  const T *given = static_cast<const T *>(b.coefficients) + image * kCoefficients * classes;
  for (int n = thread_rank(); n < kCoefficients * classes; n += block_threads()) coefficients[n] = given[n];
  __syncthreads();

  const bool failed = b.status[image] != SEGPRIOR_CONVERGED;
  const bool entropy = p.on(SEGPRIOR_LOSS_CROSS_ENTROPY), dice = p.on(SEGPRIOR_LOSS_DICE);
  const bool focal = sharp && p.on(SEGPRIOR_LOSS_FOCAL);
  const bool targets = entropy || dice || sharp;
  const T log_offset = static_cast<T>(p.log_offset);
  int flags = 0;
#pragma unroll 1
  for (int64_t tile = chunk * grid.block_tiles; tile < (chunk + 1) * grid.block_tiles; ++tile) {
    if (tile * grid.tile >= p.voxels) break;
    const Run run = run_of<V>(grid, p.voxels, tile);
    T z[K][V];
    fill(z, static_cast<T>(-INFINITY));
    scores_rows.read(0, own, run, grid.vectors, z);
    const Sites<V> sites = sites_of<V>(p, image, run, grid.vectors, targets, flags);
    if (p.has_mask)
#pragma unroll
      for (int k = 0; k < K; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (!sites.valid[v]) z[k][v] = 0;
    const Probabilities<T, scores, sharp, K, V> probabilities(z, sites, focal, exchange);

    T voxel[V] = {};
    if (b.voxels) load(static_cast<const T *>(b.voxels) + image * p.voxels, run, grid.vectors, voxel);
    T r[K][V], sum[V] = {};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k >= own) break;
      const T *c = coefficients + (first + k) * kCoefficients;
      T t[V] = {};
      if (targets) targets_of(p, image, first + k, run, grid.vectors, sites, t, flags);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const T s = probabilities.s(k, v);
        T slope = c[kSizeSlope];
        if (dice && sites.known[v]) slope += c[kDiceT] * t[v] + c[kDiceS] * (p.dice_squared ? 2 * s : T(1));
        r[k][v] = scores == Scores::probabilities ? slope : s * slope;
        if (scores == Scores::sigmoid) r[k][v] *= probabilities.rest(k, v);
        if (entropy && sites.known[v]) {
          const T factor = c[kEntropyFactor] + (b.voxels ? voxel[v] * c[kEntropyVoxel] : T(0));
          if (scores == Scores::logits) r[k][v] -= factor * t[v];
          if (scores == Scores::sigmoid)
            r[k][v] += factor * (s * (1 - t[v]) - probabilities.rest(k, v) * t[v]);
          if (scores == Scores::probabilities && t[v] != 0 && factor != 0)
            r[k][v] -= factor * t[v] / (s + log_offset);
        }
        if (sharp && sites.known[v]) {
          const T factor = c[kFocalFactor] + (b.voxels ? voxel[v] * c[kFocalVoxel] : T(0));
          r[k][v] += sharp_gradient<scores>(p, c, factor, t[v], probabilities.element(k, v, log_offset));
        }
        sum[v] += r[k][v];
      }
    }
    if (scores == Scores::logits) exchange.sum(sum);

    T out[1][V] = {};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k >= own) break;
      if (b.accumulate) grad_rows.read(k, 1, run, grid.vectors, out);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        T gradient = scores == Scores::logits ? r[k][v] - probabilities.s(k, v) * sum[v] : r[k][v];
        if (failed) gradient = static_cast<T>(NAN);
        if (b.accumulate) gradient += out[0][v];
        out[0][v] = sites.valid[v] ? gradient : b.accumulate ? out[0][v] : T(0);
      }
      grad_rows.write(k, run, grid.vectors, out[0]);
    }
  }
}

template <Scores scores, class T, int K>
void launch_backward(const Backward &b, cudaStream_t stream) {
  const bool sharp = b.p.on(SEGPRIOR_LOSS_FOCAL) || b.p.on(SEGPRIOR_LOSS_FOCAL_DICE);
  const size_t shared = Exchange<T, kVoxels<T, K>>::bytes(b.grid) +
                        sizeof(T) * kCoefficients * static_cast<size_t>(b.p.classes);
  launch("losses_backward",
         sharp ? backward_kernel<T, scores, K, true> : backward_kernel<T, scores, K, false>,
         dim3(static_cast<unsigned>(b.p.batch * b.grid.chunks)), b.grid.block(), shared, stream, b);
}

}  // namespace segprior::losses::cuda
