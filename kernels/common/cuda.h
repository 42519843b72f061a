// The only door to CUDA's launch syntax, shared memory and inter-block hand-over. Plain C++, so that the same
// .cu files compile with nvcc and, against tests/fakecuda, with an ordinary compiler.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "kernels/common/error.h"

#if defined(__CUDACC__) || defined(FAKECUDA)
#include <cooperative_groups.h>
#endif

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

// Lets `kernel` have this much dynamic shared memory; the error says whether the device has it.
inline cudaError_t allow_shared(const void *kernel, size_t dynamic_shared_bytes) {
  constexpr size_t kWithoutOptIn = 32 * 1024;  // 48 KB, less what the kernel may have of static shared memory
  if (dynamic_shared_bytes <= kWithoutOptIn) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(dynamic_shared_bytes));
}

inline cudaError_t allow_cluster(const void *kernel, unsigned cluster_blocks) {
  constexpr unsigned kEverywhere = 8;  // the size that every device with clusters has
  if (cluster_blocks <= kEverywhere) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
}

inline cudaLaunchAttribute cluster_attribute(unsigned cluster_blocks) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster_blocks;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

// `attribute` may be null.
inline cudaLaunchConfig_t launch_config(dim3 grid, dim3 block, size_t dynamic_shared_bytes,
                                        cudaStream_t stream, cudaLaunchAttribute *attribute) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared_bytes;
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = attribute ? 1 : 0;
  return config;
}

template <class... P>
void launch_with(cudaLaunchAttribute *attribute, const char *name, void (*kernel)(P...), dim3 grid,
                 dim3 block, size_t dynamic_shared_bytes, cudaStream_t stream,
                 typename Exactly<P>::type... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check(allow_shared(reinterpret_cast<const void *>(kernel), dynamic_shared_bytes), name);
  const cudaLaunchConfig_t config = launch_config(grid, block, dynamic_shared_bytes, stream, attribute);
  check(cudaLaunchKernelEx(&config, kernel, args...), name);
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace detail

// Queues `kernel` on `stream`; arguments convert implicitly to the kernel's parameter types. Nothing is
// launched when a grid dimension is 0. Throws Error naming the kernel when the launch is refused.
template <class... P>
void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes,
            cudaStream_t stream, typename detail::Exactly<P>::type... args) {
  detail::launch_with(nullptr, name, kernel, grid, block, dynamic_shared_bytes, stream, args...);
}

// The same with all blocks running at once, so that they may meet in grid_barrier(). Refused when the grid
// has more than cooperative_blocks() blocks.
template <class... P>
void launch_cooperative(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                        size_t dynamic_shared_bytes, cudaStream_t stream,
                        typename detail::Exactly<P>::type... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  detail::launch_with(&attribute, name, kernel, grid, block, dynamic_shared_bytes, stream, args...);
}

// The same with runs of `cluster_blocks` blocks along x as clusters, which may meet in cluster_barrier() and
// read each other's shared memory. grid.x is a multiple of cluster_blocks; ask clusters_fit() first.
template <class... P>
void launch_cluster(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, unsigned cluster_blocks,
                    size_t dynamic_shared_bytes, cudaStream_t stream,
                    typename detail::Exactly<P>::type... args) {
  check(detail::allow_cluster(reinterpret_cast<const void *>(kernel), cluster_blocks), name);
  cudaLaunchAttribute attribute = detail::cluster_attribute(cluster_blocks);
  detail::launch_with(&attribute, name, kernel, grid, block, dynamic_shared_bytes, stream, args...);
}

// How many blocks of `kernel` run at once on the current device; 0 where it has no cooperative launches or
// not this much shared memory.
template <class... P>
int cooperative_blocks(void (*kernel)(P...), unsigned block_threads, size_t dynamic_shared_bytes) {
  if (!detail::device_attribute(cudaDevAttrCooperativeLaunch)) return 0;
  const void *function = reinterpret_cast<const void *>(kernel);
  if (detail::allow_shared(function, dynamic_shared_bytes) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  int per_processor = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, function,
                                                      static_cast<int>(block_threads), dynamic_shared_bytes),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return per_processor * detail::device_attribute(cudaDevAttrMultiProcessorCount);
}

// Whether launch_cluster() works for blocks and clusters of this size on the current device.
template <class... P>
bool clusters_fit(void (*kernel)(P...), dim3 block, unsigned cluster_blocks, size_t dynamic_shared_bytes) {
  if (!detail::device_attribute(cudaDevAttrClusterLaunch)) return false;
  const void *function = reinterpret_cast<const void *>(kernel);
  // Code for older devices, translated for this one by the driver, has no cluster operations in it.
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, function), "cudaFuncGetAttributes");
  if (attributes.ptxVersion < 90) return false;
  cudaLaunchAttribute attribute = detail::cluster_attribute(cluster_blocks);
  const cudaLaunchConfig_t config =
      detail::launch_config(cluster_blocks, block, dynamic_shared_bytes, nullptr, &attribute);
  int clusters = 0;
  if (detail::allow_shared(function, dynamic_shared_bytes) == cudaSuccess &&
      detail::allow_cluster(function, cluster_blocks) == cudaSuccess &&
      cudaOccupancyMaxActiveClusters(&clusters, function, &config) == cudaSuccess)
    return clusters > 0;
  cudaGetLastError();
  return false;
}

// The rest is for kernels; host files of the real backend are compiled without nvcc.
#if defined(__CUDACC__) || defined(FAKECUDA)

// Devices before sm_90 know no clusters; kernels with them are compiled for those too, and never launched.
#if defined(FAKECUDA) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define SEGPRIOR_HAS_CLUSTERS 1
#else
#define SEGPRIOR_HAS_CLUSTERS 0
#endif

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

// All threads of a launch_cooperative() grid, or of one cluster of a launch_cluster() grid, meet; each then
// sees what the others wrote before. As for last_block(), not through __ldg or a const __restrict__ pointer.
#if defined(FAKECUDA)
// The parameters are never given: they hold the caller's place.
inline void grid_barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  cooperative_groups::this_grid().sync(file, line);
}
inline void cluster_barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  cooperative_groups::this_cluster().sync(file, line);
}
#else
__device__ inline void grid_barrier() { cooperative_groups::this_grid().sync(); }
__device__ inline void cluster_barrier() {
#if SEGPRIOR_HAS_CLUSTERS
  cooperative_groups::this_cluster().sync();
#else
  __trap();
#endif
}
#endif

// This block's number in its cluster, and how many blocks that has.
__device__ inline unsigned cluster_rank() {
#if SEGPRIOR_HAS_CLUSTERS
  return cooperative_groups::this_cluster().block_rank();
#else
  return 0;
#endif
}
__device__ inline unsigned cluster_blocks() {
#if SEGPRIOR_HAS_CLUSTERS
  return cooperative_groups::this_cluster().num_blocks();
#else
  return 1;
#endif
}

// Where block `rank` of the cluster has what this block has at `mine`, in static or dynamic shared memory.
// That block must have started (a cluster_barrier() before the first use) and must not have ended (one after
// the last).
template <class T>
__device__ inline T *cluster_shared(T *mine, unsigned rank) {
#if SEGPRIOR_HAS_CLUSTERS
  return cooperative_groups::this_cluster().map_shared_rank(mine, rank);
#else
  return rank == 0 ? mine : nullptr;
#endif
}

#endif

}  // namespace segprior
