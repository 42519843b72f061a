// Checks of tensor arguments. Every message names the argument, its value and the rule.
#pragma once

#include <cstdint>
#include <string>

#include "capi/context.h"

namespace segprior {

// The extents that an argument must have. Fixed size: the checks of a valid call do not allocate.
struct Shape {
  int64_t extent[SEGPRIOR_MAX_NDIM];
  int ndim;

  const int64_t *begin() const { return extent; }
  const int64_t *end() const { return extent + ndim; }
  std::string text() const;  // "[2, 3, 64, 64]"
  bool operator==(const Shape &other) const;
};

// What a tensor holds. field: the lead tensor's dtype; parameter: the same, or float32 where that has 16
// bits; weight: what weights_like() found, the parameters' dtype otherwise; mask: uint8; the others by name.
enum class Kind { field, parameter, weight, mask, int32, int64, float64 };

[[noreturn]] void reject(segprior_status status, const std::string &text);

// Collects the memory ranges of one call's arguments, checks each tensor, and at the end that nothing
// overlaps.
class Arguments {
 public:
  // `sizes_only`: a size query; data pointers are not looked at.
  Arguments(const segprior_context &context, bool sizes_only) : context_(context), sizes_only_(sizes_only) {}

  // The first tensor of a call: any shape of `min_ndim`.. `max_ndim` axes; sets the dtypes of the call.
  const void *lead(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim) {
    return lead_tensor(name, tensor, min_ndim, max_ndim, false);
  }
  // The same for a call whose first tensor is written.
  void *lead_output(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim) {
    return lead_tensor(name, tensor, min_ndim, max_ndim, true);
  }
  // The first of the call's weights sets the dtype of all: 16 bits may accompany a float32 lead.
  void weights_like(const segprior_tensor &tensor);
  // A tensor that must have the given shape; returns its data (null if absent). Absent is an error if
  // `required`. Its dtype is the one that the lead tensor set for such tensors.
  const void *input(const char *name, const segprior_tensor *tensor, const Shape &shape,
                    bool required = false, Kind kind = Kind::parameter);
  void *output(const char *name, const segprior_tensor *tensor, const Shape &shape, bool required = false,
               Kind kind = Kind::parameter);
  // A label map: uint8, int32 or int64.
  const void *labels(const char *name, const segprior_tensor *tensor, const Shape &shape,
                     bool required = false);
  // The first label map of a call without a lead tensor: any shape of `min_ndim`.. `max_ndim` axes.
  const void *lead_labels(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim);
  // The lead's dtype, or uint8.
  const void *field_or_mask(const char *name, const segprior_tensor *tensor, const Shape &shape);
  // Raw memory.
  const void *input_bytes(const char *name, const void *data, size_t bytes, size_t alignment);
  void *output_bytes(const char *name, void *data, size_t bytes, size_t alignment);

  // Outputs must not overlap one another nor an input. Call last.
  void check_overlap() const;

  int32_t dtype() const { return parameter_dtype_; }  // of the arithmetic and of most tensors
  size_t parameter_size() const { return parameter_dtype_ == SEGPRIOR_FLOAT64 ? 8 : 4; }  // bytes
  int32_t field_dtype() const { return field_dtype_; }  // of the lead tensor
  int32_t weight_dtype() const { return weight_dtype_; }

 private:
  struct Range {
    const char *name;
    uintptr_t begin, end;
    bool written;
  };

  void *lead_tensor(const char *name, const segprior_tensor *tensor, int min_ndim, int max_ndim,
                    bool written);
  void *check(const char *name, const segprior_tensor *tensor, const Shape *shape, bool required,
              bool written, int32_t dtype);
  int32_t dtype_of(Kind kind) const;
  void add(const char *name, const void *data, size_t bytes, size_t alignment, bool written);

  const segprior_context &context_;
  const bool sizes_only_;
  const char *lead_name_ = "";
  int32_t parameter_dtype_ = 0, field_dtype_ = 0, weight_dtype_ = 0;
  Range ranges_[64];
  int range_count_ = 0;
};

}  // namespace segprior
