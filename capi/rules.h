// Rules of options and arguments that the operators share. Every message names the argument, its value and
// the rule.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "capi/tensor.h"
#include "kernels/common/labels.h"
#include "kernels/common/storage.h"

namespace segprior {

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

inline void require(bool ok, const char *field, double value, const char *rule) {
  if (!ok)
    reject(SEGPRIOR_ERROR_VALUE, "opts." + std::string(field) + " = " + number(value) + " must be " + rule);
}

inline void needs(const char *name, const void *given, bool condition, const char *what) {
  if (given && !condition) reject(SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs " + what);
}

// A buffer's given size against the queried one.
inline void check_size(const char *name, size_t given, size_t needed) {
  if (given < needed)
    reject(SEGPRIOR_ERROR_BUFFER_TOO_SMALL, std::string(name) + " = " + std::to_string(given) +
                                                " is smaller than the needed " + std::to_string(needed));
}

inline bool flag(int32_t value) { return value == 0 || value == 1; }
inline bool positive(double value) { return value > 0 && std::isfinite(value); }
inline bool not_negative(double value) { return value >= 0 && std::isfinite(value); }

// Of a dtype that Arguments::labels() let pass.
inline LabelType label_type(int32_t dtype) {
  if (dtype == SEGPRIOR_UINT8) return LabelType::u8;
  return dtype == SEGPRIOR_INT32 ? LabelType::i32 : LabelType::i64;
}

// Of a dtype that Arguments::lead() let pass.
inline Storage storage_of(int32_t dtype) {
  switch (dtype) {
    case SEGPRIOR_FLOAT64:
      return Storage::f64;
    case SEGPRIOR_FLOAT16:
      return Storage::f16;
    case SEGPRIOR_BFLOAT16:
      return Storage::bf16;
    default:
      return Storage::f32;
  }
}

// Whether the tensor's one row serves the whole batch.
inline bool one_row(const segprior_tensor *tensor) {
  return tensor && tensor->ndim > 0 && tensor->shape && tensor->shape[0] == 1;
}

// Voxels of an image: the product of a checked shape's extents from `first_axis` on; 0 for any empty tensor,
// whose other extents may have no product.
inline int64_t voxels_of(const Shape &shape, int first_axis) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t voxels = 1;
  for (int k = first_axis; k < shape.ndim; ++k) voxels *= shape.extent[k];
  return voxels;
}

inline Shape shape_of(const segprior_tensor &tensor) {
  Shape shape{{}, tensor.ndim};
  for (int k = 0; k < tensor.ndim; ++k) shape.extent[k] = tensor.shape[k];
  return shape;
}

}  // namespace segprior
