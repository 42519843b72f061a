// One sequence of phases, two executors: a kernel launch per phase, or all phases in one cooperative kernel.
//
// A phase is a trivially copyable struct with
//   int64_t tiles;                             independent pieces of work, each done by one block
//   static constexpr const char *kName;        for profilers and errors
//   static constexpr int kBlocksAtOnce;        may be left out: as many blocks shall fit on a multiprocessor,
//                                              which bounds the registers
//   __device__ void operator()(int64_t tile);  (const) called by all kBlock threads of a block
// A block may do several tiles one after another: shared memory is reused behind a barrier. Sums are left as
// one number per tile in global memory and added in a fixed order by whoever needs them, so that no result
// depends on the executor or the number of blocks.
//
// run() returns, for what follows it in the sequence, after all tiles are done.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/common/cuda.h"
#include "kernels/common/host_device.h"

// Before a template that is written once for both executors: it calls functions of one side only.
#if defined(__CUDACC__)
#define SEGPRIOR_FOR_EITHER_SIDE _Pragma("nv_exec_check_disable")
#else
#define SEGPRIOR_FOR_EITHER_SIDE
#endif

namespace segprior::softcut::cuda {

constexpr unsigned kBlock = 256;

template <class Phase, class = void>
struct BlocksAtOnce : std::integral_constant<int, 0> {};
template <class Phase>
struct BlocksAtOnce<Phase, std::void_t<decltype(Phase::kBlocksAtOnce)>>
    : std::integral_constant<int, Phase::kBlocksAtOnce> {};

// `remaining` counts the systems that still iterate; null: the phase does not look at it. Only phases that
// decide (Exec::finished() follows them) change it, and in a persistent kernel no phase that comes between
// that call and the next barrier.
template <class Phase>
__global__ void __launch_bounds__(kBlock, BlocksAtOnce<Phase>::value)
    phase_kernel(Phase phase, int32_t *remaining) {
  if (remaining) {
    // A deciding phase counts down while its other blocks start: one thread reads for its whole block.
    SEGPRIOR_SHARED(int32_t, left, 1);
    if (threadIdx.x == 0) left[0] = atomicAdd(remaining, 0);
    __syncthreads();
    if (left[0] == 0) return;
  }
  for (int64_t tile = blockIdx.x; tile < phase.tiles; tile += gridDim.x) phase(tile);
}

// A launch per phase. The host does not know when all systems are done: the loop runs to its cap, and kernels
// end at once.
class StreamingExecutor {
 public:
  StreamingExecutor(int32_t *remaining, cudaStream_t stream) : remaining_(remaining), stream_(stream) {}

  template <class Phase>
  void run(const Phase &phase) {
    constexpr int64_t kMostBlocks = 1 << 20;  // far more than any device holds at once
    launch(Phase::kName, phase_kernel<Phase>, dim3(static_cast<unsigned>(std::min(phase.tiles, kMostBlocks))),
           dim3(kBlock), 0, stream_, phase, remaining_);
  }
  bool finished() const { return false; }
  bool finished_for_next_decision() const { return false; }

 private:
  int32_t *remaining_;
  cudaStream_t stream_;
};

#if defined(__CUDACC__) || defined(FAKECUDA)
// A function of its own, and the phase in shared memory: inlined one after another, phases spill each other's
// arguments.
template <class Phase>
__attribute__((noinline)) __device__ void run_tiles(const Phase &phase) {
  for (int64_t tile = blockIdx.x; tile < phase.tiles; tile += gridDim.x) phase(tile);
}

// Inside a kernel of launch_cooperative(). A copy per thread.
class PersistentExecutor {
 public:
  __device__ explicit PersistentExecutor(const int32_t *remaining) : remaining_(remaining) {}

  template <class Phase>
  __device__ void run(const Phase &phase) {
    static_assert(std::is_trivially_copyable<Phase>::value, "");
    SEGPRIOR_SHARED(double, memory, (sizeof(Phase) + sizeof(double) - 1) / sizeof(double));
    Phase &shared = *reinterpret_cast<Phase *>(memory);
    if (threadIdx.x == 0) shared = phase;  // free since the last barrier
    __syncthreads();
    run_tiles(shared);
    grid_barrier();
  }
  // The same in all threads: called between a deciding phase and the next one, with no decision in between.
  __device__ bool finished() const { return *remaining_ == 0; }
  // The same where the next phase decides too.
  __device__ bool finished_for_next_decision() const {
    const bool done = finished();
    grid_barrier();
    return done;
  }

 private:
  const int32_t *remaining_;
};
#endif

}  // namespace segprior::softcut::cuda
