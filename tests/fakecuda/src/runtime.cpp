// Launches, errors, and the guard of the compute path.
#include <atomic>
#include <cstdio>

#include "device.h"
#include "scheduler.h"
#include "state.h"

namespace fakecuda {
namespace {

std::atomic<int> sticky_error{cudaSuccess};

struct PerThread {
  cudaError_t pending = cudaSuccess;
  std::string text;
  int errors = 0, launch_to_fail = 0;
  bool expected = false;
  Forbid *forbid = nullptr;
};
thread_local PerThread mine;

}  // namespace

cudaError_t failed(cudaError_t error) {
  if (error) mine.pending = error;
  return error;
}

cudaError_t entry() {
  if (device_count() == 0) return failed(cudaErrorNoDevice);
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
  if (mine.launch_to_fail > 0 && --mine.launch_to_fail == 0) return failed(cudaErrorLaunchOutOfResources);
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.x > kMaxThreads || block.y > kMaxThreads || block.z > 64)
    return failed(cudaErrorInvalidConfiguration);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > kMaxGridYZ ||
      grid.z > kMaxGridYZ)
    return failed(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > dynamic_limit(kernel)) return failed(cudaErrorInvalidValue);

  Launch launch{grid, block, config.dynamicSmemBytes, shared_limit(), 1, false, has_clusters()};
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute &attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative) launch.cooperative = attribute.val.cooperative != 0;
    if (attribute.id != cudaLaunchAttributeClusterDimension) continue;
    const auto cluster = attribute.val.clusterDim;
    if (!has_clusters() || cluster.y != 1 || cluster.z != 1) return failed(cudaErrorNotSupported);
    if (cluster.x == 0 || cluster.x > most_cluster_blocks(kernel) || grid.x % cluster.x != 0)
      return failed(cudaErrorInvalidClusterSize);
    launch.cluster_blocks = cluster.x;
  }
  if (launch.cooperative &&
      uint64_t{grid.x} * grid.y * grid.z > resident_blocks(threads, config.dynamicSmemBytes))
    return failed(cudaErrorCooperativeLaunchTooLarge);

  Scheduler &scheduler = Scheduler::current();
  if (scheduler.run_grid(launch, body, data)) return cudaSuccess;
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
