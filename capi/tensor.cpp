// Checks of tensor arguments.
#include "capi/tensor.h"

#include <algorithm>
#include <iterator>

#include "capi/device.h"

namespace segprior {

std::string Shape::text() const {
  std::string text = "[";
  for (int k = 0; k < ndim; ++k) text += (k ? ", " : "") + std::to_string(extent[k]);
  return text + "]";
}

bool Shape::operator==(const Shape &other) const {
  return ndim == other.ndim && std::equal(begin(), end(), other.extent);
}

void reject(segprior_status status, const std::string &text) { throw Error(status, text); }

namespace {

size_t element_size(int32_t dtype) {
  switch (dtype) {
    case SEGPRIOR_FLOAT64:
    case SEGPRIOR_INT64:
      return 8;
    case SEGPRIOR_FLOAT32:
    case SEGPRIOR_INT32:
      return 4;
    case SEGPRIOR_UINT8:
      return 1;
    default:
      return 2;
  }
}

std::string device_text(segprior_device device) {
  return (device.type == SEGPRIOR_CPU    ? "cpu:"
          : device.type == SEGPRIOR_CUDA ? "cuda:"
                                         : "device type " + std::to_string(device.type) + ":") +
         std::to_string(device.index);
}

void check_rank(const char *name, const segprior_tensor &tensor, int min_ndim, int max_ndim) {
  if (tensor.ndim < min_ndim || tensor.ndim > max_ndim)
    reject(SEGPRIOR_ERROR_SHAPE, std::string(name) + ": ndim = " + std::to_string(tensor.ndim) + " must be " +
                                     std::to_string(min_ndim) + " to " + std::to_string(max_ndim));
}

void check_label_dtype(const char *name, const segprior_tensor &tensor) {
  if (tensor.dtype < SEGPRIOR_UINT8 || tensor.dtype > SEGPRIOR_INT64)
    reject(SEGPRIOR_ERROR_DTYPE, std::string(name) + ": dtype = " + std::to_string(tensor.dtype) +
                                     " must be SEGPRIOR_UINT8 (5), _INT32 (6) or _INT64 (7)");
}

}  // namespace

void *Arguments::lead_tensor(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim,
                             bool written) {
  if (!tensor) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  if (tensor->dtype < SEGPRIOR_FLOAT32 || tensor->dtype > SEGPRIOR_BFLOAT16)
    reject(SEGPRIOR_ERROR_DTYPE,
           std::string(name) + ": dtype = " + std::to_string(tensor->dtype) +
               " must be SEGPRIOR_FLOAT32 (1), _FLOAT64 (2), _FLOAT16 (3) or _BFLOAT16 (4)");
  check_rank(name, *tensor, min_ndim, max_ndim);
  lead_name_ = name;
  field_dtype_ = tensor->dtype;
  parameter_dtype_ = weight_dtype_ = tensor->dtype == SEGPRIOR_FLOAT64 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32;
  return check(name, tensor, nullptr, true, written, field_dtype_);
}

const void *Arguments::lead_labels(const char *name, const segprior_tensor *tensor, int min_ndim,
                                   int max_ndim) {
  if (!tensor) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + " is NULL");
  check_label_dtype(name, *tensor);
  check_rank(name, *tensor, min_ndim, max_ndim);
  return check(name, tensor, nullptr, true, false, tensor->dtype);
}

const void *Arguments::labels(const char *name, const segprior_tensor *tensor, const Shape &shape,
                              bool required) {
  if (tensor) check_label_dtype(name, *tensor);
  return check(name, tensor, &shape, required, false, tensor ? tensor->dtype : 0);
}

const void *Arguments::field_or_mask(const char *name, const segprior_tensor *tensor, const Shape &shape) {
  const bool mask = tensor && tensor->dtype == SEGPRIOR_UINT8;
  return check(name, tensor, &shape, false, false,
               mask ? static_cast<int32_t>(SEGPRIOR_UINT8) : field_dtype_);
}

void Arguments::weights_like(const segprior_tensor &tensor) {
  const bool small = tensor.dtype == SEGPRIOR_FLOAT16 || tensor.dtype == SEGPRIOR_BFLOAT16;
  if (small && parameter_dtype_ == SEGPRIOR_FLOAT32) weight_dtype_ = tensor.dtype;
}

const void *Arguments::input(const char *name, const segprior_tensor *tensor, const Shape &shape,
                             bool required, Kind kind) {
  return check(name, tensor, &shape, required, false, dtype_of(kind));
}

void *Arguments::output(const char *name, const segprior_tensor *tensor, const Shape &shape, bool required,
                        Kind kind) {
  return check(name, tensor, &shape, required, true, dtype_of(kind));
}

int32_t Arguments::dtype_of(Kind kind) const {
  switch (kind) {
    case Kind::field:
      return field_dtype_;
    case Kind::weight:
      return weight_dtype_;
    case Kind::mask:
      return SEGPRIOR_UINT8;
    case Kind::int32:
      return SEGPRIOR_INT32;
    case Kind::int64:
      return SEGPRIOR_INT64;
    case Kind::float64:
      return SEGPRIOR_FLOAT64;
    default:
      return parameter_dtype_;
  }
}

const void *Arguments::input_bytes(const char *name, const void *data, size_t bytes, size_t alignment) {
  add(name, data, bytes, alignment, false);
  return data;
}

void *Arguments::output_bytes(const char *name, void *data, size_t bytes, size_t alignment) {
  add(name, data, bytes, alignment, true);
  return data;
}

void *Arguments::check(const char *name, const segprior_tensor *tensor, const Shape *shape, bool required,
                       bool written, int32_t dtype) {
  // Built only for an error.
  const auto complain = [&](segprior_status status, const std::string &what) { reject(status, name + what); };
  if (!tensor) {
    if (required) complain(SEGPRIOR_ERROR_NULL_POINTER, " is NULL");
    return nullptr;
  }
  const segprior_tensor &t = *tensor;
  if (t.dtype != dtype) {
    const bool same = dtype == field_dtype_ && *lead_name_;
    complain(SEGPRIOR_ERROR_DTYPE, ": dtype = " + std::to_string(t.dtype) + " must be " +
                                       (same ? "the dtype of " + std::string(lead_name_) + ", " : "dtype ") +
                                       std::to_string(dtype));
  }
  if (t.device.type != context_.device.type || t.device.index != context_.device.index)
    complain(SEGPRIOR_ERROR_DEVICE, ": device " + device_text(t.device) + " must be the context's device " +
                                        device_text(context_.device));
  if (t.ndim < 0 || t.ndim > SEGPRIOR_MAX_NDIM)
    complain(SEGPRIOR_ERROR_SHAPE, ": ndim = " + std::to_string(t.ndim) + " must be 0 to 8");
  if (t.ndim > 0 && !t.shape) complain(SEGPRIOR_ERROR_NULL_POINTER, ".shape is NULL");
  Shape given{{}, t.ndim};
  std::copy_n(t.shape, t.ndim, given.extent);
  if (std::any_of(given.begin(), given.end(), [](int64_t extent) { return extent < 0; }))
    complain(SEGPRIOR_ERROR_SHAPE, ": shape " + given.text() + " has a negative extent");
  if (shape && !(given == *shape))
    complain(SEGPRIOR_ERROR_SHAPE, ": shape " + given.text() + " must be " + shape->text());
  // Zero extents first: an empty tensor has 0 bytes however large the others are.
  const bool empty = std::find(given.begin(), given.end(), 0) != given.end();
  size_t bytes = empty ? 0 : element_size(dtype);
  for (int k = 0; k < t.ndim && !empty; ++k)
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(given.extent[k]), &bytes) || bytes > SIZE_MAX / 4)
      complain(SEGPRIOR_ERROR_SIZE_OVERFLOW, ": shape " + given.text() + " does not fit in 63 bits");
  if (t.strides && !empty) {
    int64_t contiguous = 1;
    for (int k = t.ndim - 1; k >= 0; --k) {
      if (given.extent[k] != 1 && t.strides[k] != contiguous)
        complain(SEGPRIOR_ERROR_STRIDES, ": stride " + std::to_string(t.strides[k]) + " of axis " +
                                             std::to_string(k) + " must be " + std::to_string(contiguous) +
                                             " (C-contiguous)");
      contiguous *= given.extent[k];
    }
  }
  if (sizes_only_ || bytes == 0) return nullptr;
  if (!t.data) complain(SEGPRIOR_ERROR_NULL_POINTER, ".data is NULL");
  char *data = static_cast<char *>(t.data) + t.byte_offset;
  add(name, data, bytes, element_size(dtype), written);
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
  if (range_count_ == static_cast<int>(std::size(ranges_)))
    reject(SEGPRIOR_ERROR_INTERNAL, "too many arguments for the overlap check");
  ranges_[range_count_++] = {name, begin, begin + bytes, written};
}

void Arguments::check_overlap() const {
  for (int a = 0; a < range_count_; ++a)
    for (int b = a + 1; b < range_count_; ++b) {
      const Range &x = ranges_[a], &y = ranges_[b];
      if ((x.written || y.written) && x.begin < y.end && y.begin < x.end)
        reject(SEGPRIOR_ERROR_OVERLAP, std::string(x.name) + " and " + y.name + " share memory");
    }
}

}  // namespace segprior
