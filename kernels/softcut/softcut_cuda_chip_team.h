// The blocks that solve one system together: one, or a cluster. A team can meet and add up numbers.
//
// Sums are the same in all threads and have a fixed order: the lanes of a warp by a butterfly, then the
// warps, then the blocks. They are taken in the type of the data: a tree of at most 32 + 5 + 4 + 4 additions
// on the longest way loses a few units in the last place, and doubles would take longer than the rest of an
// iteration on devices with few units for them.
#pragma once

#include "kernels/softcut/softcut_cuda_chip.h"

namespace segprior::softcut::cuda {

#if defined(__CUDACC__) || defined(FAKECUDA)

constexpr unsigned kAllLanes = 0xffffffffu;

// Lanes per value when the lanes of a warp share N sums.
template <int N>
constexpr int kLanesPerSum = N <= 1   ? 32
                             : N <= 2 ? 16
                             : N <= 4 ? 8
                                      : 4;

// The sums over the lanes of N values: that of value l / kLanesPerSum in lane l. At each step the lanes part
// with half of their values, so that 5 sums take 9 shuffles and not 25.
template <class S, int N>
__device__ inline S scatter_sums(const S (&values)[N]) {
  constexpr int kSlots = kWarp / kLanesPerSum<N>;
  static_assert(N <= kSlots);
  S v[kSlots];
#pragma unroll
  for (int i = 0; i < kSlots; ++i) v[i] = i < N ? values[i < N ? i : 0] : S(0);
  int step = kWarp / 2;
#pragma unroll
  for (int half = kSlots / 2; half > 0; half /= 2) {
    const bool upper = threadIdx.x & step;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const S given = upper ? v[i] : v[i + half], kept = upper ? v[i + half] : v[i];
      v[i] = kept + __shfl_xor_sync(kAllLanes, given, step);
    }
    step /= 2;
  }
#pragma unroll
  for (int rest = kLanesPerSum<N> / 2; rest > 0; rest /= 2) v[0] += __shfl_xor_sync(kAllLanes, v[0], rest);
  return v[0];
}

// All threads' sums to their warps' columns of rows[N][kWarp].
template <class S, int N>
__device__ inline void store_warp_sums(const S (&values)[N], S *rows) {
  const S sum = scatter_sums(values);
  const int lane = threadIdx.x % kWarp, value = lane / kLanesPerSum<N>;
  if (lane % kLanesPerSum<N> == 0 && value < N) rows[value * kWarp + threadIdx.x / kWarp] = sum;
}

// The sums of the first `count` columns of rows, in every lane.
template <class S, int N>
__device__ inline void sum_columns(const S *rows, int count, S (&values)[N]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = lane < count ? rows[i * kWarp + lane] : S(0);
  const S sum = scatter_sums(values);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = __shfl_sync(kAllLanes, sum, i * kLanesPerSum<N>);
}

// One block. Whoever calls sum() twice has a barrier() in between.
class OneBlock {
 public:
  static constexpr bool kMany = false;
  __device__ int rank() const { return 0; }
  __device__ int64_t system() const { return blockIdx.x; }
  __device__ void barrier() const { __syncthreads(); }

  template <class S, int N>
  __device__ void sum(S (&values)[N]) const {
    SEGPRIOR_SHARED(S, warps, N * kWarp);
    store_warp_sums(values, warps);
    __syncthreads();
    sum_columns(warps, blockDim.x / kWarp, values);
  }
};

// The blocks of a cluster; the same rules. All have met once before the first sum().
class Cluster {
 public:
  static constexpr bool kMany = true;
  __device__ int rank() const { return static_cast<int>(cluster_rank()); }
  __device__ int64_t system() const { return blockIdx.x / cluster_blocks(); }
  __device__ void barrier() const { cluster_barrier(); }

  template <class S, int N>
  __device__ void sum(S (&values)[N]) const {
    SEGPRIOR_SHARED(S, warps, N * kWarp);
    SEGPRIOR_SHARED(S, blocks, N * kWarp);
    const unsigned count = cluster_blocks();
    store_warp_sums(values, warps);
    __syncthreads();
    if (threadIdx.x < kWarp) {
      sum_columns(warps, blockDim.x / kWarp, values);
      if (threadIdx.x < count) {
        S *theirs = cluster_shared(blocks, threadIdx.x);
#pragma unroll
        for (int i = 0; i < N; ++i) theirs[i * kWarp + cluster_rank()] = values[i];
      }
    }
    cluster_barrier();
    sum_columns(blocks, static_cast<int>(count), values);
  }
};

#endif

}  // namespace segprior::softcut::cuda
