// Block-wide reductions in a fixed order: the same values in the same threads give the same bits, in every
// run.
//
// Order, for W warps: within a warp, lane l takes lane l + 16, then l + 8, 4, 2, 1 (a tree whose left operand
// is always the lower lane); then the warps' results, as a row of W values, go through the same tree, in
// which missing right operands are skipped.
//
// The block has a multiple of 32 threads, at most 1024, in one, two or three dimensions (x fastest). All of
// its threads call. The result is valid in thread 0 alone (thread_rank() == 0). Calls may follow one another
// directly. They are not a substitute for a barrier: a block of one warp meets none.
#pragma once

#include "kernels/common/cuda.h"
#include "kernels/common/host_device.h"

namespace segprior {

struct Sum {
  template <class T>
  SEGPRIOR_HD T operator()(T a, T b) const {
    return a + b;
  }
};

// A NaN on either side wins: a residual that is not a number may not vanish.
struct Max {
  template <class T>
  SEGPRIOR_HD T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// Reduces N independent values at the price of one pair of barriers, in place. T: any type of
// __shfl_down_sync.
template <class Op, class T, int N>
__device__ inline void block_reduce(T (&values)[N], Op op) {
  constexpr unsigned kWarp = 32, kAllLanes = 0xffffffffu;
  SEGPRIOR_SHARED(T, per_warp, N * kWarp);
  const unsigned lane = thread_rank() % kWarp, warp = thread_rank() / kWarp, warps = block_threads() / kWarp;
  for (unsigned step = kWarp / 2; step > 0; step /= 2)
    for (int i = 0; i < N; ++i) values[i] = op(values[i], __shfl_down_sync(kAllLanes, values[i], step));
  if (warps == 1) return;

  if (lane == 0)
    for (int i = 0; i < N; ++i) per_warp[i * kWarp + warp] = values[i];
  __syncthreads();
  if (warp == 0) {
    for (int i = 0; i < N; ++i) values[i] = per_warp[i * kWarp + (lane < warps ? lane : 0)];
    for (unsigned step = kWarp / 2; step > 0; step /= 2)
      for (int i = 0; i < N; ++i) {
        const T right = __shfl_down_sync(kAllLanes, values[i], step);
        if (lane + step < warps) values[i] = op(values[i], right);
      }
  }
  __syncthreads();  // per_warp is free for the next call
}

template <class T, class Op>
__device__ inline T block_reduce(T value, Op op) {
  T values[1] = {value};
  block_reduce(values, op);
  return values[0];
}

template <class T>
__device__ inline T block_sum(T value) {
  return block_reduce(value, Sum());
}

template <class T>
__device__ inline T block_max(T value) {
  return block_reduce(value, Max());
}

}  // namespace segprior
