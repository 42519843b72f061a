// Launches, the device's properties, errors, and the guard of the compute path.
#include <atomic>
#include <cstdio>
#include <mutex>
#include <unordered_map>

#include "scheduler.h"
#include "state.h"

namespace fakecuda {
namespace {

std::atomic<int> sticky_error{cudaSuccess}, device_count{1};
std::mutex mutex;

std::unordered_map<const void *, size_t> &dynamic_limits() {
  static auto *map = new std::unordered_map<const void *, size_t>;
  return *map;
}

struct PerThread {
  cudaError_t pending = cudaSuccess;
  std::string text;
  int errors = 0, launch_to_fail = 0;
  bool expected = false;
  Forbid *forbid = nullptr;
};
thread_local PerThread mine;

constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;
constexpr size_t kMaxShared = SharedMemory::kBlockLimit;

size_t dynamic_limit(const void *kernel) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = dynamic_limits().find(kernel);
  return found == dynamic_limits().end() ? SharedMemory::kStaticLimit : found->second;
}

}  // namespace

cudaError_t failed(cudaError_t error) {
  if (error) mine.pending = error;
  return error;
}

cudaError_t entry() {
  if (device_count == 0) return failed(cudaErrorNoDevice);
  return failed(static_cast<cudaError_t>(sticky_error.load()));
}

Forbid::Forbid(cudaStream_t stream) : stream_(stream), outer_(mine.forbid) { mine.forbid = this; }
Forbid::~Forbid() { mine.forbid = outer_; }
bool forbidden() { return mine.forbid != nullptr; }
void violation(const std::string &what) { mine.forbid->violations_.push_back(what); }
void uses_stream(const char *call, cudaStream_t stream) {
  if (mine.forbid && stream != mine.forbid->stream_)
    violation(std::string(call) + (stream ? " uses a foreign stream" : " uses the default stream"));
}

cudaError_t launch_kernel(const cudaLaunchConfig_t &config, const void *kernel, void (*body)(const void *),
                          const void *data) {
  FAKECUDA_ENTRY();
  if (!valid_stream(config.stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("a launch", config.stream);
  for (unsigned i = 0; i < config.numAttrs; ++i)
    if (config.attrs[i].id == cudaLaunchAttributeClusterDimension ||
        (config.attrs[i].id == cudaLaunchAttributeCooperative && config.attrs[i].val.cooperative))
      return failed(cudaErrorNotSupported);
  if (mine.launch_to_fail > 0 && --mine.launch_to_fail == 0) return failed(cudaErrorLaunchOutOfResources);
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.x > kMaxThreads || block.y > kMaxThreads || block.z > 64)
    return failed(cudaErrorInvalidConfiguration);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > kMaxGridYZ ||
      grid.z > kMaxGridYZ)
    return failed(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > dynamic_limit(kernel)) return failed(cudaErrorInvalidValue);

  Scheduler &scheduler = Scheduler::current();
  if (scheduler.run_grid(grid, block, config.dynamicSmemBytes, body, data)) return cudaSuccess;
  mine.text = scheduler.error();
  ++mine.errors;
  if (!mine.expected) std::fprintf(stderr, "fakecuda: %s\n", mine.text.c_str());
  return failed(cudaErrorLaunchFailure);
}

void set_order(Order order, uint64_t seed) { Scheduler::current().set_order(order, seed); }
std::string order_text() { return Scheduler::current().order_text(); }
const std::string &error_text() { return mine.text; }
int error_count() { return mine.errors; }
void expect_errors(bool expected) { mine.expected = expected; }
uint64_t launch_count() { return Scheduler::current().launches; }
void fail_launch(int n) { mine.launch_to_fail = n; }
void set_sticky_error(cudaError_t error) {
  sticky_error = error;
  mine.pending = cudaSuccess;
}
void set_device_count(int count) { device_count = count; }

}  // namespace fakecuda

using namespace fakecuda;

const char *cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError:
      return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchOutOfResources:
      return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorCooperativeLaunchTooLarge:
      return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorInvalidClusterSize:
      return "cudaErrorInvalidClusterSize";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorUnknown:
      break;
  }
  return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure && !mine.text.empty()) return mine.text.c_str();
  return cudaGetErrorName(error) + std::char_traits<char>::length("cuda");
}

cudaError_t cudaPeekAtLastError() {
  const int sticky = sticky_error;
  return sticky ? static_cast<cudaError_t>(sticky) : mine.pending;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  mine.pending = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = device_count;
  return entry();
}
cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return entry();
}
cudaError_t cudaSetDevice(int device) {
  FAKECUDA_ENTRY();
  return device < 0 || device >= device_count ? failed(cudaErrorInvalidDevice) : cudaSuccess;
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
      return *value = 0, cudaSuccess;
    case cudaDevAttrClusterLaunch:
      return *value = 0, cudaSuccess;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return *value = 32, cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}

// Few multiprocessors: kernels that size their grid by the device then get one that runs quickly here.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  FAKECUDA_ENTRY();
  if (device < 0 || device >= device_count) return failed(cudaErrorInvalidDevice);
  *p = {"fake CUDA device (threads are fibers of the CPU)",
        size_t{8} << 30,
        SharedMemory::kStaticLimit,
        kMaxShared,
        164 * 1024,
        65536,
        32,
        kMaxThreads,
        2048,
        {kMaxThreads, kMaxThreads, 64},
        {0x7fffffff, kMaxGridYZ, kMaxGridYZ},
        8,
        0,
        4,
        1 << 20,
        0};
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaDeviceSynchronize waits for the device");
  return cudaSuccess;
}
cudaError_t cudaDeviceReset() {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaDeviceReset waits for the device");
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  FAKECUDA_ENTRY();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kMaxShared) return failed(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(mutex);
  dynamic_limits()[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel) {
  FAKECUDA_ENTRY();
  *attributes = {0, 0, 0, kMaxThreads, 32, 80, 80, static_cast<int>(dynamic_limit(kernel))};
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                          size_t dynamic_shared_bytes) {
  FAKECUDA_ENTRY();
  if (threads <= 0 || threads > static_cast<int>(kMaxThreads)) return failed(cudaErrorInvalidValue);
  *blocks = dynamic_shared_bytes > dynamic_limit(kernel)
                ? 0
                : std::min(2048 / threads, static_cast<int>(164 * 1024 / (dynamic_shared_bytes + 1024)));
  return cudaSuccess;
}
