// What the CUDA backend of the scores is made of.
#pragma once

#include "kernels/common/cuda.h"
#include "kernels/metrics/metrics.h"

namespace segprior::metrics::cuda {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// metrics_cuda_counts.cu
void confusion(const Confusion &, int threads, void *stream);
void geometry(const Geometry &, int threads, void *stream);

// metrics_cuda_components.cu
size_t components_workspace(const Components &, int threads);
void components(const Components &, void *workspace, int threads, void *stream);

// metrics_cuda_trees.cu. parents [B, J]: of each voxel a voxel of the same component with a smaller index, or
// itself at the component's first, or kOutside. An image is not empty.
constexpr int32_t kOutside = INT32_MIN;
void grow_trees(const Components &, int32_t *parents, cudaStream_t);

SEGPRIOR_HD inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for `jobs` that the kernel walks in steps of the grid: any number of jobs fits.
inline dim3 grid_of(int64_t jobs) {
  constexpr int64_t kMost = 1 << 30;
  return dim3(static_cast<unsigned>(jobs < kMost ? jobs : kMost));
}

inline void clear(int64_t *counts, int64_t count, cudaStream_t stream) {
  if (counts && count > 0)
    check(cudaMemsetAsync(counts, 0, count * sizeof *counts, stream), "cudaMemsetAsync");
}

#if defined(__CUDACC__) || defined(FAKECUDA)

// Bits 0 .. k.
__device__ inline unsigned upto(int k) { return kAllLanes >> (31 - k); }

// a / b of numbers >= 0; the 64-bit division is much slower, and seldom needed.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// A load that other threads' atomics may meet.
__device__ inline int32_t load(const int32_t *p) {
#if defined(FAKECUDA)
  return __atomic_load_n(p, __ATOMIC_RELAXED);
#else
  return *static_cast<const volatile int32_t *>(p);
#endif
}

__device__ inline void add_to(int64_t *count, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long *>(count), static_cast<unsigned long long>(value));
}

// add(key, lanes that have it) for the keys of a warp; negative keys do not count. All lanes call. Neighbours
// are mostly alike: then one addition does.
template <class Add>
__device__ inline void count_warp(int key, const Add &add) {
  const int first = __shfl_sync(kAllLanes, key, 0);
  if (__all_sync(kAllLanes, key == first)) {
    if (threadIdx.x % kWarp == 0 && key >= 0) add(key, kWarp);
  } else if (key >= 0) {
    add(key, 1u);
  }
}

#endif

}  // namespace segprior::metrics::cuda
