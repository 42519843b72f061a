// Device memory: host memory that is known to be "on the device", filled with NaN bytes, in its own heap
// block (so AddressSanitizer guards both ends).
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "state.h"

namespace fakecuda {
namespace {

struct Block {
  size_t bytes;
  cudaMemoryType type;
};

std::mutex mutex;
int allocation_to_fail = 0;

std::map<uintptr_t, Block> &blocks() {
  static auto *map = new std::map<uintptr_t, Block>;  // outlives every static object that frees memory
  return *map;
}

cudaError_t allocate(const char *call, void **pointer, size_t bytes, cudaMemoryType type) {
  FAKECUDA_ENTRY();
  if (!pointer) return failed(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (forbidden()) violation(std::string(call) + " allocates " + std::to_string(bytes) + " bytes");
  std::lock_guard<std::mutex> lock(mutex);
  if (allocation_to_fail > 0 && --allocation_to_fail == 0) return failed(cudaErrorMemoryAllocation);
  if (bytes == 0) return cudaSuccess;
  constexpr size_t kAlignment = 256, kDeviceMemory = size_t{8} << 30;
  void *memory = nullptr;
  if (bytes > kDeviceMemory || posix_memalign(&memory, kAlignment, bytes) != 0)
    return failed(cudaErrorMemoryAllocation);
  std::memset(memory, 0xff, bytes);
  blocks()[reinterpret_cast<uintptr_t>(memory)] = {bytes, type};
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t release_memory(const char *call, void *pointer, cudaMemoryType type) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation(std::string(call) + " frees memory");
  if (!pointer) return cudaSuccess;
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = blocks().find(reinterpret_cast<uintptr_t>(pointer));
  if (found == blocks().end() || found->second.type != type) return failed(cudaErrorInvalidValue);
  blocks().erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  const Allocation target = find_allocation(to), source = find_allocation(from);
  const bool to_device = target.type == cudaMemoryTypeDevice,
             from_device = source.type == cudaMemoryTypeDevice;
  const bool direction_fits =
      kind == cudaMemcpyDefault ||
      (to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
       from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice));
  if (!direction_fits) return failed(cudaErrorInvalidValue);
  if ((to_device && bytes > target.room) || (from_device && bytes > source.room))
    return failed(cudaErrorInvalidValue);
  std::memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t set(void *to, int value, size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  const Allocation target = find_allocation(to);
  if (target.type == cudaMemoryTypeUnregistered || bytes > target.room) return failed(cudaErrorInvalidValue);
  std::memset(to, value, bytes);
  return cudaSuccess;
}

}  // namespace

Allocation find_allocation(const void *pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  std::lock_guard<std::mutex> lock(mutex);
  auto next = blocks().upper_bound(address);
  if (next == blocks().begin()) return {};
  const auto &[start, block] = *--next;
  if (address - start >= block.bytes) return {};
  return {block.type, block.bytes - (address - start)};
}

void fail_allocation(int n) {
  std::lock_guard<std::mutex> lock(mutex);
  allocation_to_fail = n;
}

size_t live_allocations() {
  std::lock_guard<std::mutex> lock(mutex);
  return blocks().size();
}

size_t live_bytes() {
  std::lock_guard<std::mutex> lock(mutex);
  size_t sum = 0;
  for (const auto &entry : blocks()) sum += entry.second.bytes;
  return sum;
}

}  // namespace fakecuda

using namespace fakecuda;

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  return allocate("cudaMalloc", pointer, bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
  return allocate("cudaMallocHost", pointer, bytes, cudaMemoryTypeHost);
}
cudaError_t cudaMallocAsync(void **pointer, size_t bytes, cudaStream_t stream) {
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  return allocate("cudaMallocAsync", pointer, bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaFree(void *pointer) { return release_memory("cudaFree", pointer, cudaMemoryTypeDevice); }
cudaError_t cudaFreeHost(void *pointer) {
  return release_memory("cudaFreeHost", pointer, cudaMemoryTypeHost);
}
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) {
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  return release_memory("cudaFreeAsync", pointer, cudaMemoryTypeDevice);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaMemcpy waits for the device");
  return copy(to, from, bytes, kind);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("cudaMemcpyAsync", stream);
  const bool pageable = bytes > 0 && (find_allocation(to).type == cudaMemoryTypeUnregistered ||
                                      find_allocation(from).type == cudaMemoryTypeUnregistered);
  if (pageable && forbidden()) violation("cudaMemcpyAsync with pageable host memory waits for the device");
  return copy(to, from, bytes, kind);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  FAKECUDA_ENTRY();
  uses_stream("cudaMemset", nullptr);
  return set(to, value, bytes);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("cudaMemsetAsync", stream);
  return set(to, value, bytes);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
  FAKECUDA_ENTRY();
  if (!attributes) return failed(cudaErrorInvalidValue);
  const cudaMemoryType type = find_allocation(pointer).type;
  void *address = const_cast<void *>(pointer);
  *attributes = {type, type == cudaMemoryTypeUnregistered ? -2 : 0,
                 type == cudaMemoryTypeUnregistered ? nullptr : address,
                 type == cudaMemoryTypeDevice ? nullptr : address};
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  FAKECUDA_ENTRY();
  *total = size_t{8} << 30;
  *free = *total - std::min(*total, live_bytes());
  return cudaSuccess;
}
