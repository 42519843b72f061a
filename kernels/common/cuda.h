// The only door to CUDA's launch syntax, shared memory and inter-block hand-over. Plain C++, so that the same
// .cu files compile with nvcc and, against tests/fakecuda, with an ordinary compiler.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "kernels/common/error.h"

namespace segprior {

// Throws Error for anything but cudaSuccess. `what` names the call or kernel. The runtime's pending error is
// cleared, so that a later, unrelated check does not report it again (a sticky one stays anyway).
inline void check(cudaError_t code, const char *what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  segprior_status status = SEGPRIOR_ERROR_CUDA;
  if (code == cudaErrorMemoryAllocation) status = SEGPRIOR_ERROR_OUT_OF_MEMORY;
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) status = SEGPRIOR_ERROR_NO_DEVICE;
  throw Error(status,
              std::string(what) + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")");
}

namespace detail {
template <class T>
struct Exactly {
  using type = T;
};
}  // namespace detail

// Queues `kernel` on `stream`; arguments convert implicitly to the kernel's parameter types. Nothing is
// launched when a grid dimension is 0. Throws Error naming the kernel when the launch is refused.
template <class... P>
void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes,
            cudaStream_t stream, typename detail::Exactly<P>::type... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr size_t kWithoutOptIn = 32 * 1024;  // 48 KB, less what the kernel may have of static shared memory
  if (dynamic_shared_bytes > kWithoutOptIn)
    check(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(dynamic_shared_bytes)),
          name);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, args...), name);
}

// The rest is for kernels; host files of the real backend are compiled without nvcc.
#if defined(__CUDACC__) || defined(FAKECUDA)

// SEGPRIOR_SHARED(type, name, count): a static shared array of the calling block; `count` is a constant
// expression, `type` holds no comma. As in CUDA, its content is undefined until written, and every call of
// one function (one instantiation of a template) uses the same array.
#if defined(FAKECUDA)
#define SEGPRIOR_SHARED(type, name, count)           \
  static char name##_site;                           \
  type(&name)[count] = *static_cast<type(*)[count]>( \
      fakecuda::static_shared(&name##_site, #name, sizeof(type) * (count), alignof(type)))
#else
#define SEGPRIOR_SHARED(type, name, count) __shared__ type name[count]
#endif

// The launch's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ inline T *dynamic_shared() {
#if defined(FAKECUDA)
  return static_cast<T *>(fakecuda::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char segprior_dynamic_shared[];
  return reinterpret_cast<T *>(segprior_dynamic_shared);
#endif
}

// Threads of a block in one order, x fastest; warps are runs of 32 of it.
__device__ inline unsigned thread_rank() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ inline unsigned block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

// Publishes what this thread wrote (and, after a barrier, what its block wrote), takes the next number from
// `counter`, and sees what the holders of earlier numbers had published. One thread per block calls it.
__device__ inline unsigned device_ticket(unsigned *counter) {
  __threadfence();
  const unsigned ticket = atomicAdd(counter, 1u);
  __threadfence();
  return ticket;
}

// Whole block. True in exactly one of the `blocks` blocks that call it with this counter: the last one, which
// then sees all global writes that the others made before their calls, and has set the counter back to 0 for
// the next launch. It must not read them through __ldg or a const __restrict__ pointer: that cache is not
// coherent within a launch.
__device__ inline bool last_block(unsigned *counter, unsigned blocks) {
  SEGPRIOR_SHARED(unsigned, is_last, 1);
  __syncthreads();
  if (thread_rank() == 0) {
    is_last[0] = device_ticket(counter) == blocks - 1;
    if (is_last[0]) atomicExch(counter, 0u);
  }
  __syncthreads();
  return is_last[0] != 0;
}

#endif

}  // namespace segprior
