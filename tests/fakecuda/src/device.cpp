// The fake device: properties by compute capability, limits that kernels opt in to, occupancy.
#include "device.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "shared_memory.h"
#include "state.h"

namespace fakecuda {
namespace {

std::atomic<int> devices{1}, capability{80}, processors{3};
std::mutex mutex;

struct Model {
  int capability;
  size_t shared_per_block, shared_per_processor;
  int threads_per_processor, blocks_per_processor;
};
constexpr Model kModels[] = {{75, 64 * 1024, 64 * 1024, 1024, 16},
                             {80, 163 * 1024, 164 * 1024, 2048, 32},
                             {86, 99 * 1024, 100 * 1024, 1536, 16},
                             {90, SharedMemory::kMostPerBlock, 228 * 1024, 2048, 32}};

// The newest that is not newer than the device.
Model model() {
  Model found = kModels[0];
  for (const Model &m : kModels)
    if (m.capability <= capability) found = m;
  return found;
}

struct OptIn {
  size_t dynamic = SharedMemory::kStaticLimit;
  bool large_clusters = false;
};
std::unordered_map<const void *, OptIn> &opt_ins() {
  static auto *map = new std::unordered_map<const void *, OptIn>;
  return *map;
}
OptIn opt_in(const void *kernel) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = opt_ins().find(kernel);
  return found == opt_ins().end() ? OptIn() : found->second;
}

}  // namespace

int device_count() { return devices; }
void set_device_count(int count) { devices = count; }
void set_compute_capability(int major, int minor) { capability = 10 * major + minor; }
void set_multiprocessors(int count) { processors = count; }

size_t shared_limit() { return model().shared_per_block; }
bool has_clusters() { return capability >= 90; }
size_t dynamic_limit(const void *kernel) { return std::min(opt_in(kernel).dynamic, shared_limit()); }
unsigned most_cluster_blocks(const void *kernel) { return opt_in(kernel).large_clusters ? 16 : 8; }

uint64_t resident_blocks_per_processor(uint64_t block_threads, size_t dynamic_shared_bytes) {
  const Model m = model();
  constexpr size_t kReserved = 1024;  // shared memory per block for the system
  const uint64_t by_threads = m.threads_per_processor / ((block_threads + 31) / 32 * 32),
                 by_shared = m.shared_per_processor / (dynamic_shared_bytes + kReserved);
  return std::min({by_threads, by_shared, static_cast<uint64_t>(m.blocks_per_processor)});
}
uint64_t resident_blocks(uint64_t block_threads, size_t dynamic_shared_bytes) {
  return processors * resident_blocks_per_processor(block_threads, dynamic_shared_bytes);
}

}  // namespace fakecuda

using namespace fakecuda;

cudaError_t cudaGetDeviceCount(int *count) {
  *count = device_count();
  return entry();
}
cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return entry();
}
cudaError_t cudaSetDevice(int device) {
  FAKECUDA_ENTRY();
  return device < 0 || device >= device_count() ? failed(cudaErrorInvalidDevice) : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return *value = kMaxThreads, cudaSuccess;
    case cudaDevAttrMaxBlockDimZ:
      return *value = 64, cudaSuccess;
    case cudaDevAttrMaxGridDimX:
      return *value = 0x7fffffff, cudaSuccess;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return *value = kMaxGridYZ, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = static_cast<int>(properties.sharedMemPerBlock), cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = static_cast<int>(properties.sharedMemPerBlockOptin), cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return *value = static_cast<int>(properties.sharedMemPerMultiprocessor), cudaSuccess;
    case cudaDevAttrWarpSize:
      return *value = 32, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = properties.multiProcessorCount, cudaSuccess;
    case cudaDevAttrL2CacheSize:
      return *value = properties.l2CacheSize, cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return *value = properties.maxThreadsPerMultiProcessor, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = properties.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = properties.minor, cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
      return *value = properties.cooperativeLaunch, cudaSuccess;
    case cudaDevAttrClusterLaunch:
      return *value = has_clusters(), cudaSuccess;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return *value = model().blocks_per_processor, cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  FAKECUDA_ENTRY();
  if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
  const Model m = model();
  *p = {"fake CUDA device (threads are fibers of the CPU)",
        size_t{8} << 30,
        SharedMemory::kStaticLimit,
        m.shared_per_block,
        m.shared_per_processor,
        65536,
        32,
        kMaxThreads,
        m.threads_per_processor,
        {kMaxThreads, kMaxThreads, 64},
        {0x7fffffff, kMaxGridYZ, kMaxGridYZ},
        capability / 10,
        capability % 10,
        processors,
        1 << 20,
        1};
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  FAKECUDA_ENTRY();
  std::lock_guard<std::mutex> lock(mutex);
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      if (value < 0 || static_cast<size_t>(value) > shared_limit()) return failed(cudaErrorInvalidValue);
      opt_ins()[kernel].dynamic = static_cast<size_t>(value);
      break;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      if (!has_clusters()) return failed(cudaErrorNotSupported);
      opt_ins()[kernel].large_clusters = value != 0;
      break;
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel) {
  FAKECUDA_ENTRY();
  *attributes = {0, 0, 0, kMaxThreads, 32, capability, capability, static_cast<int>(dynamic_limit(kernel))};
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                          size_t dynamic_shared_bytes) {
  FAKECUDA_ENTRY();
  if (threads <= 0 || threads > static_cast<int>(kMaxThreads)) return failed(cudaErrorInvalidValue);
  *blocks = dynamic_shared_bytes > dynamic_limit(kernel)
                ? 0
                : static_cast<int>(resident_blocks_per_processor(threads, dynamic_shared_bytes));
  return cudaSuccess;
}

// A cluster runs on one group of processors; the fake device has a single one, of 16: enough for the largest
// cluster of the largest blocks.
cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *kernel,
                                           const cudaLaunchConfig_t *config) {
  FAKECUDA_ENTRY();
  unsigned blocks = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i)
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension)
      blocks = config->attrs[i].val.clusterDim.x;
  const uint64_t threads = uint64_t{config->blockDim.x} * config->blockDim.y * config->blockDim.z;
  if (!has_clusters()) return failed(cudaErrorNotSupported);
  if (threads == 0 || threads > kMaxThreads) return failed(cudaErrorInvalidConfiguration);
  if (blocks == 0 || blocks > most_cluster_blocks(kernel)) return failed(cudaErrorInvalidClusterSize);
  constexpr unsigned kProcessorsOfGroup = 16;
  *clusters =
      config->dynamicSmemBytes > dynamic_limit(kernel)
          ? 0
          : static_cast<int>(kProcessorsOfGroup *
                             resident_blocks_per_processor(threads, config->dynamicSmemBytes) / blocks);
  return cudaSuccess;
}
