// Devices, memory and tensors for tests: the same code for the CPU and for a CUDA device, real or fake.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/array.h"

namespace segprior::test {

constexpr unsigned char kPoison = 0xff;  // as a float or double: NaN

// Every device the library offers: the CPU, then the CUDA devices.
std::vector<segprior_device> all_devices();
std::string name_of(segprior_device device);

// A context with, on CUDA, a stream of its own (not the default stream, so that misplaced work shows).
class Device {
 public:
  explicit Device(segprior_device which, int threads = 0);
  ~Device();
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  segprior_context *context() const { return context_; }
  segprior_device which() const { return which_; }
  void *stream() const { return stream_; }
  void synchronize() const;

 private:
  segprior_device which_;
  segprior_context *context_ = nullptr;
  void *stream_ = nullptr;
};

// Owned memory on a device, aligned to 64 bytes and no more, filled with kPoison. With `canaries`, 256 known
// bytes lie on either side; without them a sanitizer sees the first byte beyond the end.
class DeviceArray {
 public:
  DeviceArray(segprior_device device, size_t bytes, bool canaries = false);
  ~DeviceArray();
  DeviceArray(const DeviceArray &) = delete;
  DeviceArray &operator=(const DeviceArray &) = delete;

  void *data() const { return base_ + margin_; }
  size_t bytes() const { return bytes_; }
  void fill(unsigned char byte);
  void upload(const void *host);  // bytes() of it
  void download(void *host) const;
  std::vector<unsigned char> content() const;
  bool canaries_intact() const;

 private:
  segprior_device device_;
  size_t bytes_, margin_;
  void *memory_ = nullptr;         // as it was allocated
  unsigned char *base_ = nullptr;  // 64 bytes further
};

// A tensor with its memory. Values travel as float64 and are rounded (integers: truncated) to the dtype.
class Tensor {
 public:
  Tensor(segprior_device device, int32_t dtype, std::vector<int64_t> shape, bool canaries = false);
  Tensor(segprior_device device, int32_t dtype, std::vector<int64_t> shape, const ref::Array &values,
         bool canaries = false);

  segprior_tensor *view() { return &view_; }
  DeviceArray &memory() { return memory_; }
  const DeviceArray &memory() const { return memory_; }
  int64_t size() const { return size_; }
  void set(const ref::Array &values);
  ref::Array get() const;

 private:
  template <class T>
  void upload_as(const ref::Array &values);
  template <class T>
  ref::Array download_as() const;

  std::vector<int64_t> shape_;
  int64_t size_;
  int32_t dtype_;
  DeviceArray memory_;
  segprior_tensor view_;
};
using TensorPtr = std::unique_ptr<Tensor>;

// `values` rounded to the dtype, as float64.
ref::Array rounded(const ref::Array &values, int32_t dtype);

}  // namespace segprior::test
