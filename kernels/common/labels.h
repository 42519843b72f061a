// Label maps of the three integer types that calls accept, read through one door.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace segprior {

enum class LabelType { u8, i32, i64 };

SEGPRIOR_HD inline int64_t label_at(const void *labels, LabelType type, int64_t x) {
  if (type == LabelType::u8) return static_cast<const uint8_t *>(labels)[x];
  if (type == LabelType::i32) return static_cast<const int32_t *>(labels)[x];
  return static_cast<const int64_t *>(labels)[x];
}

}  // namespace segprior
