// Checks of tensor arguments.
#include "capi/tensor.h"

#include <algorithm>

#include "capi/device.h"

namespace segprior {

std::string shape_text(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (size_t k = 0; k < shape.size(); ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + "]";
}

void reject(segprior_status status, const std::string &text) { throw Error(status, text); }

namespace {

size_t element_size(int32_t dtype) { return dtype == SEGPRIOR_FLOAT32 ? 4 : 8; }

std::string device_text(segprior_device device) {
  return (device.type == SEGPRIOR_CPU    ? "cpu:"
          : device.type == SEGPRIOR_CUDA ? "cuda:"
                                         : "device type " + std::to_string(device.type) + ":") +
         std::to_string(device.index);
}

}  // namespace

const void *Arguments::lead(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim) {
  if (!tensor) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  if (tensor->dtype != SEGPRIOR_FLOAT32 && tensor->dtype != SEGPRIOR_FLOAT64)
    reject(SEGPRIOR_ERROR_DTYPE, std::string(name) + ": dtype = " + std::to_string(tensor->dtype) +
                                     " must be SEGPRIOR_FLOAT32 (1) or SEGPRIOR_FLOAT64 (2)");
  if (tensor->ndim < min_ndim || tensor->ndim > max_ndim)
    reject(SEGPRIOR_ERROR_SHAPE, std::string(name) + ": ndim = " + std::to_string(tensor->ndim) +
                                     " must be " + std::to_string(min_ndim) + " to " +
                                     std::to_string(max_ndim));
  dtype_ = tensor->dtype;
  return check(name, tensor, nullptr, true, false);
}

const void *Arguments::input(const char *name, const segprior_tensor *tensor,
                             const std::vector<int64_t> &shape, bool required) {
  return check(name, tensor, &shape, required, false);
}

void *Arguments::output(const char *name, const segprior_tensor *tensor, const std::vector<int64_t> &shape,
                        bool required) {
  return check(name, tensor, &shape, required, true);
}

const void *Arguments::input_bytes(const char *name, const void *data, size_t bytes, size_t alignment) {
  add(name, data, bytes, alignment, false);
  return data;
}

void *Arguments::output_bytes(const char *name, void *data, size_t bytes, size_t alignment) {
  add(name, data, bytes, alignment, true);
  return data;
}

void *Arguments::check(const char *name, const segprior_tensor *tensor, const std::vector<int64_t> *shape,
                       bool required, bool written) {
  if (!tensor) {
    if (required) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
    return nullptr;
  }
  const std::string label = name;
  if (tensor->dtype != dtype_)
    reject(SEGPRIOR_ERROR_DTYPE, label + ": dtype = " + std::to_string(tensor->dtype) +
                                     " must be the features' dtype " + std::to_string(dtype_));
  if (tensor->device.type != context_.device.type || tensor->device.index != context_.device.index)
    reject(SEGPRIOR_ERROR_DEVICE, label + ": device " + device_text(tensor->device) +
                                      " must be the context's device " + device_text(context_.device));
  if (tensor->ndim < 0 || tensor->ndim > SEGPRIOR_MAX_NDIM)
    reject(SEGPRIOR_ERROR_SHAPE, label + ": ndim = " + std::to_string(tensor->ndim) + " must be 0 to 8");
  if (tensor->ndim > 0 && !tensor->shape) reject(SEGPRIOR_ERROR_NULL_POINTER, label + ".shape is NULL");
  const std::vector<int64_t> given(tensor->shape, tensor->shape + tensor->ndim);
  for (int64_t extent : given)
    if (extent < 0)
      reject(SEGPRIOR_ERROR_SHAPE, label + ": shape " + shape_text(given) + " has a negative extent");
  if (shape && given != *shape)
    reject(SEGPRIOR_ERROR_SHAPE, label + ": shape " + shape_text(given) + " must be " + shape_text(*shape));
  // Zero extents first: an empty tensor has 0 bytes however large the others are.
  const bool empty = std::find(given.begin(), given.end(), 0) != given.end();
  size_t bytes = empty ? 0 : element_size(dtype_);
  for (int64_t extent : given)
    if (!empty &&
        (__builtin_mul_overflow(bytes, static_cast<size_t>(extent), &bytes) || bytes > SIZE_MAX / 4))
      reject(SEGPRIOR_ERROR_SIZE_OVERFLOW,
             label + ": shape " + shape_text(given) + " does not fit in 63 bits");
  if (tensor->strides && !empty) {
    int64_t contiguous = 1;
    for (int k = tensor->ndim - 1; k >= 0; --k) {
      if (given[k] != 1 && tensor->strides[k] != contiguous)
        reject(SEGPRIOR_ERROR_STRIDES, label + ": stride " + std::to_string(tensor->strides[k]) +
                                           " of axis " + std::to_string(k) + " must be " +
                                           std::to_string(contiguous) + " (C-contiguous)");
      contiguous *= given[k];
    }
  }
  if (sizes_only_ || bytes == 0) return nullptr;
  if (!tensor->data) reject(SEGPRIOR_ERROR_NULL_POINTER, label + ".data is NULL");
  char *data = static_cast<char *>(tensor->data) + tensor->byte_offset;
  add(name, data, bytes, element_size(dtype_), written);
  return data;
}

void Arguments::add(const char *name, const void *data, size_t bytes, size_t alignment, bool written) {
  if (sizes_only_ || bytes == 0) return;
  if (!data) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  if (begin % alignment != 0)
    reject(SEGPRIOR_ERROR_ALIGNMENT,
           std::string(name) + ": address must be a multiple of " + std::to_string(alignment));
  if (!lives_on(data, context_.device))
    reject(SEGPRIOR_ERROR_DEVICE, std::string(name) + ": the pointer is not memory of the context's device " +
                                      device_text(context_.device));
  ranges_.push_back({name, begin, begin + bytes, written});
}

void Arguments::check_overlap() const {
  for (size_t a = 0; a < ranges_.size(); ++a)
    for (size_t b = a + 1; b < ranges_.size(); ++b) {
      const Range &x = ranges_[a], &y = ranges_[b];
      if ((x.written || y.written) && x.begin < y.end && y.begin < x.end)
        reject(SEGPRIOR_ERROR_OVERLAP, std::string(x.name) + " and " + y.name + " share memory");
    }
}

}  // namespace segprior
