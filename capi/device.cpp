// Device queries for capi/: the CPU, and CUDA where the backend is in the build.
#include "capi/device.h"

#include <cstring>

#if defined(SEGPRIOR_WITH_CUDA)
#include "kernels/common/cuda.h"
#endif

namespace segprior {

#if defined(SEGPRIOR_WITH_CUDA)

int device_count(int32_t type) {
  if (type == SEGPRIOR_CPU) return 1;
  int count = 0;
  if (type != SEGPRIOR_CUDA || cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver or no GPU is an answer, not an error
    return 0;
  }
  return count;
}

DeviceScope::DeviceScope(segprior_device device) {
  if (device.type != SEGPRIOR_CUDA) return;
  int current = -1;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (current == device.index) return;
  check(cudaSetDevice(device.index), "cudaSetDevice");
  previous_ = current;
}

DeviceScope::~DeviceScope() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

bool lives_on(const void *data, segprior_device device) {
  // A CPU context must work where CUDA does not: pointers are trusted there.
  if (device.type != SEGPRIOR_CUDA) return true;
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.type == cudaMemoryTypeManaged ||
         (attributes.type == cudaMemoryTypeDevice && attributes.device == device.index);
}

void read_sync(segprior_device device, void *stream, const void *data, size_t bytes, void *host) {
  if (device.type == SEGPRIOR_CPU) {
    std::memcpy(host, data, bytes);
    return;
  }
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(host, data, bytes, cudaMemcpyDeviceToHost, queue), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(queue), "cudaStreamSynchronize");
}

void clear(const segprior_context &context, void *data, size_t bytes) {
  if (!data || bytes == 0) return;
  if (context.device.type == SEGPRIOR_CPU)
    std::memset(data, 0, bytes);
  else
    check(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(context.stream)), "cudaMemsetAsync");
}

#else

int device_count(int32_t type) { return type == SEGPRIOR_CPU ? 1 : 0; }
DeviceScope::DeviceScope(segprior_device) {}
DeviceScope::~DeviceScope() = default;
bool lives_on(const void *, segprior_device) { return true; }
void read_sync(segprior_device, void *, const void *data, size_t bytes, void *host) {
  std::memcpy(host, data, bytes);
}

void clear(const segprior_context &, void *data, size_t bytes) {
  if (data) std::memset(data, 0, bytes);
}

#endif

}  // namespace segprior
