// Carves one caller-owned buffer into typed arrays. The same code path, run on a null base, measures the
// size: a size query and the call that uses it cannot disagree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/error.h"

namespace segprior {

class Arena {
 public:
  static constexpr size_t kAlignment = 256;  // of every array from the base; for CUDA's coalescing
  // Of the base: covers vector loads of both backends, and is what frameworks' allocators give.
  static constexpr size_t kBaseAlignment = 64;

  explicit Arena(void *base = nullptr) : base_(static_cast<char *>(base)) {}

  // An array of `count` times `times` elements (null when measuring, or when there are none). Pass a factor
  // that the caller's options set, an iteration count say, as `times`: the product is checked.
  template <class T>
  T *take(int64_t count, int64_t times = 1) {
    if (count == 0 || times == 0) return nullptr;
    size_t bytes;
    if (count < 0 || times < 0 || __builtin_mul_overflow(static_cast<size_t>(count), sizeof(T), &bytes) ||
        __builtin_mul_overflow(bytes, static_cast<size_t>(times), &bytes) || bytes > SIZE_MAX / 4 - used_)
      throw Error(SEGPRIOR_ERROR_SIZE_OVERFLOW, "the required buffer size does not fit in 63 bits");
    T *array = base_ ? reinterpret_cast<T *>(base_ + used_) : nullptr;
    used_ = (used_ + bytes + kAlignment - 1) / kAlignment * kAlignment;
    return array;
  }

  size_t used() const { return used_; }

 private:
  char *base_;
  size_t used_ = 0;
};

}  // namespace segprior
