// The 16-bit floating-point formats, binary16 (Half) and bfloat16 (Bfloat), as bit patterns. Written in
// integer arithmetic and selections: compilers turn loops over them into vector code without any 16-bit
// instruction, and the same lines run on every device. Narrowing rounds to nearest, ties to even; what is too
// large becomes infinite; NaN stays NaN (quiet, of the same sign).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace segprior {

SEGPRIOR_HD inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

SEGPRIOR_HD inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

struct Half {  // 1 sign, 5 exponent, 10 mantissa bits
  static constexpr uint32_t kInfinity = 255u << 23, kSign = 0x8000;

  SEGPRIOR_HD static float widen(uint16_t half) {
    constexpr uint32_t kExponent = 0x7c00u << 13, kRebias = 112u << 23;
    const uint32_t magnitude = (half & 0x7fffu) << 13, exponent = magnitude & kExponent;
    const uint32_t normal = magnitude + kRebias;
    // A subnormal is mantissa * 2^-24: put behind the implicit 1 of 2^-14, which is subtracted again.
    const float subnormal = float_of(normal + (1u << 23)) - float_of(kRebias + (1u << 23));
    const uint32_t finite = exponent == 0 ? bits_of(subnormal) : normal;
    const uint32_t bits = exponent == kExponent ? magnitude | kInfinity : finite;
    return float_of(bits | (half & kSign) << 16);
  }

  SEGPRIOR_HD static uint16_t narrow(float value) {
    constexpr uint32_t kRebias = 112u << 23, kSmallestNormal = 113u << 23, kTooLarge = 143u << 23;
    constexpr uint32_t kHalf = 126u << 23;  // 0.5: its last bit is worth 2^-24, a subnormal's
    const uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    // A subnormal's rounding is that of the addition to 0.5.
    const uint32_t subnormal = bits_of(float_of(magnitude) + float_of(kHalf)) - kHalf;
    const uint32_t odd = magnitude >> 13 & 1u;
    const uint32_t normal = (magnitude - kRebias + 0xfffu + odd) >> 13;  // carries into infinity
    const uint32_t finite = magnitude < kSmallestNormal ? subnormal : normal;
    const uint32_t large = magnitude > kInfinity ? 0x7e00u : 0x7c00u;
    return static_cast<uint16_t>((magnitude < kTooLarge ? finite : large) | (bits >> 16 & kSign));
  }
};

struct Bfloat {  // the upper half of a float32
  SEGPRIOR_HD static float widen(uint16_t half) { return float_of(static_cast<uint32_t>(half) << 16); }

  SEGPRIOR_HD static uint16_t narrow(float value) {
    const uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffffu) > Half::kInfinity;
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);  // carries into infinity
    return static_cast<uint16_t>((nan ? bits | 0x400000u : rounded) >> 16);
  }
};

}  // namespace segprior
