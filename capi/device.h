// What capi/ needs of a device besides kernels. One implementation file for each build: the CPU's answers,
// and the CUDA runtime's where the backend is in the build.
#pragma once

#include <cstddef>
#include <cstdint>

#include "capi/context.h"

namespace segprior {

int device_count(int32_t type);
// Makes the context's device current on this thread for the length of one call.
class DeviceScope {
 public:
  explicit DeviceScope(segprior_device device);
  ~DeviceScope();
  DeviceScope(const DeviceScope &) = delete;

 private:
  int previous_ = -1;
};
// Whether memory at `data` can be used by a context on `device`.
bool lives_on(const void *data, segprior_device device);
// Copies device memory to the host after all work queued on `stream`.
void read_sync(segprior_device device, void *stream, const void *data, size_t bytes, void *host);
// Sets memory to 0 bytes, in stream order; nothing for a null pointer.
void clear(const segprior_context &context, void *data, size_t bytes);

}  // namespace segprior
