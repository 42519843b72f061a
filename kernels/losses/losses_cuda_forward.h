// Forward pass of the losses over the voxels, on CUDA; included by one file per kind of scores.
//
// Bytes per voxel and class, float32: 4, and 1 / I for labels of one byte; written: the sums of a block. Sums
// run in T over at most 256 voxels of a thread and 32 threads, from there in float64, always in the same
// order.
#pragma once

#include "kernels/losses/losses_cuda_probabilities.h"

namespace segprior::losses::cuda {

constexpr int kLabelled = kSums;  // behind the sums of a warp's first class

// A warp's sums, [kSums + 1][K] per warp: of each class, its value of every voxel.
template <class T, int K>
class Table {
 public:
  static constexpr int kSize = (kSums + 1) * K;
  SEGPRIOR_HD static size_t bytes(const Grid &grid) { return sizeof(double) * kSize * grid.warps(); }

  __device__ Table(const Grid &grid, double *shared) : grid_(grid), all_(shared) {
    for (int n = lane(); n < kSize; n += kWarp) mine()[n] = 0;
    __syncwarp();
  }

  // Whole warp.
  __device__ void add(int sum, int k, T value) const {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (lane() == 0) mine()[sum * K + k] += value;
  }

  // After a barrier: over the teams.
  __device__ double total(int sum, int i) const {
    double total = 0;
    for (int team = 0; team < grid_.teams; ++team)
      total += all_[(i / K * grid_.teams + team) * kSize + sum * K + i % K];
    return total;
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x); }
  __device__ double *mine() const { return all_ + (threadIdx.z * grid_.teams + threadIdx.y) * kSize; }

  const Grid &grid_;
  double *all_;
};

// FOCAL of one element.
template <Scores scores, class T>
__device__ inline T focal_of(T t, const Element<T> &e, T gamma) {
  T loss = 0;
  if (t != 0) loss = t * focal(e.rest, e.log_s, gamma);
  if (scores == Scores::sigmoid && t != 1) loss += (1 - t) * focal(e.s, e.log_rest, gamma);
  return loss;
}

// sharp: FOCAL or FOCAL_DICE is on.
template <class T, Scores scores, int K, bool sharp>
__global__ void __launch_bounds__(kBlockThreads<K>) forward_kernel(const __grid_constant__ Forward f) {
  constexpr int V = kVoxels<T, K>;
  constexpr bool kFlush = K == kManyClasses;  // too many sums for registers: to the table after every class
  const Problem &p = f.p;
  const Grid &grid = f.grid;
  const int64_t image = blockIdx.x / grid.chunks, chunk = blockIdx.x - image * grid.chunks;
  const int classes = static_cast<int>(p.classes), first = static_cast<int>(threadIdx.z) * K;
  const int own = classes - first;

  double *shared = dynamic_shared<double>();
  const Table<T, K> table(grid, shared);
  T *scratch = reinterpret_cast<T *>(shared + Table<T, K>::kSize * grid.warps());
  const Exchange<T, V> exchange(grid, scratch);
  // What a voxel's CROSS_ENTROPY and FOCAL of each class count in f.voxels.
  T *factors = scratch + Exchange<T, V>::bytes(grid) / sizeof(T);
  if (f.voxels) {
    const Numbers<T> numbers(p, f.state);
    for (int n = thread_rank(); n < 2 * classes; n += block_threads()) {
      const int term = n < classes ? SEGPRIOR_LOSS_CROSS_ENTROPY : SEGPRIOR_LOSS_FOCAL;
      factors[n] = static_cast<T>(p.weights[term] * numbers.weight(term, n % classes));
    }
    __syncthreads();
  }

  const bool size = p.on(SEGPRIOR_LOSS_SIZE), entropy = p.on(SEGPRIOR_LOSS_CROSS_ENTROPY);
  const bool dice = p.on(SEGPRIOR_LOSS_DICE), focal = sharp && p.on(SEGPRIOR_LOSS_FOCAL);
  const bool focal_dice = sharp && p.on(SEGPRIOR_LOSS_FOCAL_DICE);
  const bool targets = entropy || focal || dice || focal_dice;
  const T focal_gamma = static_cast<T>(p.focal_gamma), log_offset = static_cast<T>(p.log_offset);
  const T threshold = static_cast<T>(p.focal_dice_threshold), dice_gamma = static_cast<T>(p.focal_dice_gamma);

  const Rows scores_rows(p, p.scores, image * p.classes + first);
  T sums[kSums][kFlush ? 1 : K] = {};
  T probe = 0;
  int flags = 0, labelled = 0;
#pragma unroll 1
  for (int64_t tile = chunk * grid.block_tiles; tile < (chunk + 1) * grid.block_tiles; ++tile) {
    if (tile * grid.tile >= p.voxels) break;
    const Run run = run_of<V>(grid, p.voxels, tile);
    T z[K][V];
    fill(z, static_cast<T>(-INFINITY));
    scores_rows.read(0, own, run, grid.vectors, z);
    const Sites<V> sites = sites_of<V>(p, image, run, grid.vectors, targets, flags);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (threadIdx.z == 0) labelled += sites.known[v];
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (p.has_mask && !sites.valid[v]) z[k][v] = 0;
        if (k >= own) continue;
        probe += z[k][v] * 0;  // NaN for NaN and Inf
        if (scores == Scores::probabilities && z[k][v] < 0) flags |= kInvalid;
      }
    }
    const Probabilities<T, scores, sharp, K, V> probabilities(z, sites, entropy || focal, exchange);

    T voxel[V] = {};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k >= own) break;
      const int at = kFlush ? 0 : k;
      if (kFlush)
        for (int sum = 0; sum < kSums; ++sum) sums[sum][at] = 0;
      if (size)
#pragma unroll
        for (int v = 0; v < V; ++v) sums[kVolume][at] += sites.valid[v] ? probabilities.s(k, v) : T(0);
      T t[V] = {};
      if (targets) targets_of(p, image, first + k, run, grid.vectors, sites, t, flags);
#pragma unroll
      for (int v = 0; v < V; ++v) sums[kCount][at] += t[v];
      if (p.target == Target::soft || p.target == Target::one_hot)
#pragma unroll
        for (int v = 0; v < V; ++v) sums[kTargetSquares][at] += t[v] * t[v];
      if (dice)
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (!sites.known[v]) continue;
          const T s = probabilities.s(k, v);
          sums[kOverlap][at] += s * t[v];
          sums[kSquares][at] += p.dice_squared ? s * s : s;
        }
      if (focal_dice)
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (!sites.known[v]) continue;
          const T h = sharpen(probabilities.s(k, v), threshold, dice_gamma).value;
          sums[kFocalOverlap][at] += h * t[v];
          sums[kFocalSquares][at] += p.dice_squared ? h * h : h;
        }
      if (entropy) {
        const T factor = f.voxels ? factors[first + k] : T(0);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (!sites.known[v]) continue;
          const T one = probabilities.entropy(k, v, t[v], log_offset);
          sums[kEntropy][at] += one;
          if (factor != 0) voxel[v] += factor * one;
        }
      }
      if (focal) {
        const T factor = f.voxels ? factors[classes + first + k] : T(0);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (!sites.known[v]) continue;
          const T one = focal_of<scores>(t[v], probabilities.element(k, v, log_offset), focal_gamma);
          sums[kFocalLoss][at] += one;
          if (factor != 0) voxel[v] += factor * one;
        }
      }
      if (kFlush)
#pragma unroll
        for (int sum = 0; sum < kSums; ++sum)
          if (f.sums >> sum & 1) table.add(sum, k, sums[sum][at]);
    }
    if (f.voxels) {
      exchange.sum(voxel);
      if (threadIdx.z == 0) store(static_cast<T *>(f.voxels) + image * p.voxels, run, grid.vectors, voxel);
    }
  }

  if (!kFlush)
#pragma unroll
    for (int sum = 0; sum < kSums; ++sum)
      if (f.sums >> sum & 1)
#pragma unroll
        for (int k = 0; k < K; ++k) table.add(sum, k, sums[sum][kFlush ? 0 : k]);
  table.add(kLabelled, 0, static_cast<T>(labelled));
  const int nonfinite = __syncthreads_or(probe != 0), invalid = __syncthreads_or(flags & kInvalid);
  for (int n = thread_rank(); n < kSums * classes; n += block_threads()) {
    const int sum = n / classes, i = n - sum * classes;
    if (f.sums >> sum & 1)
      f.partials.sums[((image * kSums + sum) * p.classes + i) * grid.chunks + chunk] = table.total(sum, i);
  }
  if (thread_rank() != 0) return;
  f.partials.labelled[blockIdx.x] = table.total(kLabelled, 0);
  f.partials.flags[blockIdx.x] = (nonfinite ? kNonfinite : 0) | (invalid ? kInvalid : 0);
  if (blockIdx.x == 0) *f.partials.ticket = 0;
}

template <Scores scores, class T, int K>
void launch_forward(const Forward &f, cudaStream_t stream) {
  const bool sharp = f.p.on(SEGPRIOR_LOSS_FOCAL) || f.p.on(SEGPRIOR_LOSS_FOCAL_DICE);
  const size_t shared = Table<T, K>::bytes(f.grid) + Exchange<T, kVoxels<T, K>>::bytes(f.grid) +
                        (f.voxels ? 2 * sizeof(T) * f.p.classes : 0);
  launch("losses_forward", sharp ? forward_kernel<T, scores, K, true> : forward_kernel<T, scores, K, false>,
         dim3(static_cast<unsigned>(f.p.batch * f.grid.chunks)), f.grid.block(), shared, stream, f);
}

}  // namespace segprior::losses::cuda
