#include "tests/support/device.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "tests/support/small_types.h"

#if defined(SEGPRIOR_WITH_CUDA)
#include <cuda_runtime.h>
#endif

namespace segprior::test {

namespace {

constexpr size_t kMargin = 256;
// What the library asks of a workspace, the widest of its rules. Allocators give more, which would hide a
// dependence on it.
constexpr size_t kAlignment = 64;
constexpr unsigned char kCanary = 0xc5;

void require(bool ok, const std::string &what) {
  if (!ok) throw std::runtime_error(what);
}

#if defined(SEGPRIOR_WITH_CUDA)
void require_cuda(cudaError_t code, const char *what) {
  require(code == cudaSuccess, std::string(what) + ": " + cudaGetErrorName(code));
}
#endif

int64_t product(const std::vector<int64_t> &shape) {
  int64_t size = 1;
  for (int64_t n : shape) size *= n;
  return size;
}

size_t size_of(int32_t dtype) {
  switch (dtype) {
    case SEGPRIOR_FLOAT32:
    case SEGPRIOR_INT32:
      return 4;
    case SEGPRIOR_FLOAT64:
    case SEGPRIOR_INT64:
      return 8;
    case SEGPRIOR_UINT8:
      return 1;
    default:
      return sizeof(uint16_t);
  }
}

}  // namespace

std::vector<segprior_device> all_devices() {
  std::vector<segprior_device> devices{{SEGPRIOR_CPU, 0}};
  for (int32_t n = 0; n < segprior_device_count(SEGPRIOR_CUDA); ++n) devices.push_back({SEGPRIOR_CUDA, n});
  return devices;
}

std::string name_of(segprior_device device) {
  return device.type == SEGPRIOR_CPU ? "CPU" : "CUDA device " + std::to_string(device.index);
}

Device::Device(segprior_device which, int threads) : which_(which) {
  require(segprior_context_create(which, &context_) == SEGPRIOR_OK, segprior_last_error());
  require(segprior_context_set_threads(context_, threads) == SEGPRIOR_OK, segprior_last_error());
#if defined(SEGPRIOR_WITH_CUDA)
  if (which.type == SEGPRIOR_CUDA) {
    cudaStream_t stream;
    require_cuda(cudaSetDevice(which.index), "cudaSetDevice");
    require_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    stream_ = stream;
    require(segprior_context_set_stream(context_, stream) == SEGPRIOR_OK, segprior_last_error());
  }
#endif
}

Device::~Device() {
  segprior_context_destroy(context_);
#if defined(SEGPRIOR_WITH_CUDA)
  if (stream_) cudaStreamDestroy(static_cast<cudaStream_t>(stream_));
#endif
}

void Device::synchronize() const {
#if defined(SEGPRIOR_WITH_CUDA)
  if (stream_)
    require_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream_)), "cudaStreamSynchronize");
#endif
}

DeviceArray::DeviceArray(segprior_device device, size_t bytes, bool canaries)
    : device_(device), bytes_(bytes), margin_(canaries ? kMargin : 0) {
  const size_t total = bytes + 2 * margin_;
  if (device.type == SEGPRIOR_CPU) {
    require(posix_memalign(&memory_, 2 * kAlignment, kAlignment + total) == 0, "out of memory");
  }
#if defined(SEGPRIOR_WITH_CUDA)
  if (device.type == SEGPRIOR_CUDA) {
    require_cuda(cudaSetDevice(device.index), "cudaSetDevice");
    require_cuda(cudaMalloc(&memory_, kAlignment + total), "cudaMalloc");
    require_cuda(cudaMemset(memory_, kCanary, kAlignment + total), "cudaMemset");
  }
#endif
  require(memory_ != nullptr, "no memory for this device");
  base_ = static_cast<unsigned char *>(memory_) + kAlignment;
  if (device.type == SEGPRIOR_CPU) std::memset(base_, kCanary, total);
  fill(kPoison);
}

DeviceArray::~DeviceArray() {
  if (device_.type == SEGPRIOR_CPU) std::free(memory_);
#if defined(SEGPRIOR_WITH_CUDA)
  if (device_.type == SEGPRIOR_CUDA) cudaFree(memory_);
#endif
}

void DeviceArray::fill(unsigned char byte) {
  const std::vector<unsigned char> bytes(bytes_, byte);
  upload(bytes.data());
}

void DeviceArray::upload(const void *host) {
  if (bytes_ == 0) return;
  if (device_.type == SEGPRIOR_CPU) std::memcpy(data(), host, bytes_);
#if defined(SEGPRIOR_WITH_CUDA)
  if (device_.type == SEGPRIOR_CUDA) {
    require_cuda(cudaMemcpy(data(), host, bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
    // From pageable memory cudaMemcpy may return before the device has the bytes, and the context's stream
    // does not wait for the default stream.
    require_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
#endif
}

void DeviceArray::download(void *host) const {
  if (bytes_ == 0) return;
  if (device_.type == SEGPRIOR_CPU) std::memcpy(host, data(), bytes_);
#if defined(SEGPRIOR_WITH_CUDA)
  if (device_.type == SEGPRIOR_CUDA)
    require_cuda(cudaMemcpy(host, data(), bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy");
#endif
}

std::vector<unsigned char> DeviceArray::content() const {
  std::vector<unsigned char> bytes(bytes_);
  download(bytes.data());
  return bytes;
}

bool DeviceArray::canaries_intact() const {
  std::vector<unsigned char> all(bytes_ + 2 * margin_);
  if (all.empty()) return true;
  if (device_.type == SEGPRIOR_CPU) std::memcpy(all.data(), base_, all.size());
#if defined(SEGPRIOR_WITH_CUDA)
  if (device_.type == SEGPRIOR_CUDA)
    require_cuda(cudaMemcpy(all.data(), base_, all.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
#endif
  for (size_t k = 0; k < margin_; ++k)
    if (all[k] != kCanary || all[all.size() - 1 - k] != kCanary) return false;
  return true;
}

Tensor::Tensor(segprior_device device, int32_t dtype, std::vector<int64_t> shape, bool canaries)
    : shape_(std::move(shape)),
      size_(product(shape_)),
      dtype_(dtype),
      memory_(device, static_cast<size_t>(size_) * size_of(dtype), canaries) {
  view_ = {memory_.data(), device, dtype, static_cast<int32_t>(shape_.size()), shape_.data(), nullptr, 0};
}

Tensor::Tensor(segprior_device device, int32_t dtype, std::vector<int64_t> shape, const ref::Array &values,
               bool canaries)
    : Tensor(device, dtype, std::move(shape), canaries) {
  set(values);
}

template <class T>
void Tensor::upload_as(const ref::Array &values) {
  const std::vector<T> converted(values.begin(), values.end());
  memory_.upload(converted.data());
}

template <class T>
ref::Array Tensor::download_as() const {
  std::vector<T> stored(size_);
  memory_.download(stored.data());
  return ref::Array(stored.begin(), stored.end());
}

void Tensor::set(const ref::Array &values) {
  require(static_cast<int64_t>(values.size()) == size_, "Tensor::set: wrong number of values");
  switch (dtype_) {
    case SEGPRIOR_FLOAT64:
      return upload_as<double>(values);
    case SEGPRIOR_FLOAT32:
      return upload_as<float>(values);
    case SEGPRIOR_UINT8:
      return upload_as<uint8_t>(values);
    case SEGPRIOR_INT32:
      return upload_as<int32_t>(values);
    case SEGPRIOR_INT64:
      return upload_as<int64_t>(values);
  }
  std::vector<uint16_t> bits;
  for (double value : values) bits.push_back(encode(small_float(dtype_), value));
  memory_.upload(bits.data());
}

ref::Array Tensor::get() const {
  switch (dtype_) {
    case SEGPRIOR_FLOAT64:
      return download_as<double>();
    case SEGPRIOR_FLOAT32:
      return download_as<float>();
    case SEGPRIOR_UINT8:
      return download_as<uint8_t>();
    case SEGPRIOR_INT32:
      return download_as<int32_t>();
    case SEGPRIOR_INT64:
      return download_as<int64_t>();
  }
  std::vector<uint16_t> bits(size_);
  memory_.download(bits.data());
  ref::Array values(size_);
  for (int64_t k = 0; k < size_; ++k) values[k] = decode(small_float(dtype_), bits[k]);
  return values;
}

ref::Array rounded(const ref::Array &values, int32_t dtype) {
  if (dtype == SEGPRIOR_FLOAT64) return values;
  if (is_small(dtype)) {
    ref::Array out;
    for (double value : values) out.push_back(decode(small_float(dtype), encode(small_float(dtype), value)));
    return out;
  }
  const std::vector<float> floats(values.begin(), values.end());
  return ref::Array(floats.begin(), floats.end());
}

}  // namespace segprior::test
