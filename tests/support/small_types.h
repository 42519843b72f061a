// The dtypes without a C++ type, value by value, from their definition: binary16 and bfloat16. All values
// travel as float64; rounding is to nearest even.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "segprior/core.h"

namespace segprior::test {

struct SmallFloat {
  int fraction_bits, min_exponent;  // of the smallest normal number
  int bias() const { return 1 - min_exponent; }
  // The largest relative rounding error of a normal number.
  double unit() const { return std::ldexp(1.0, -fraction_bits - 1); }
  double smallest() const { return std::ldexp(1.0, min_exponent - fraction_bits); }  // subnormal
};
constexpr SmallFloat kFloat16{10, -14}, kBfloat16{7, -126};

inline bool is_small(int32_t dtype) { return dtype == SEGPRIOR_FLOAT16 || dtype == SEGPRIOR_BFLOAT16; }
inline const SmallFloat &small_float(int32_t dtype) {
  return dtype == SEGPRIOR_FLOAT16 ? kFloat16 : kBfloat16;
}

inline uint16_t encode(const SmallFloat &type, double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int infinity = (2 * type.bias() + 1) << type.fraction_bits;
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | 1);
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  const double size = std::fabs(value);
  const int exponent = size > 0 ? std::max(std::ilogb(size), type.min_exponent) : type.min_exponent;
  // In units of the last place; a carry runs into the exponent, subnormal numbers have no implicit bit.
  const int64_t units = static_cast<int64_t>(std::nearbyint(std::ldexp(size, type.fraction_bits - exponent)));
  const int64_t bits = (static_cast<int64_t>(exponent - type.min_exponent) << type.fraction_bits) + units;
  return static_cast<uint16_t>(sign | (bits < infinity ? bits : infinity));
}

inline double decode(const SmallFloat &type, uint16_t bits) {
  const int exponent = (bits & 0x7fff) >> type.fraction_bits,
            fraction = bits & ((1 << type.fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 2 * type.bias() + 1) return fraction ? NAN : sign * INFINITY;
  const int units = exponent > 0 ? fraction + (1 << type.fraction_bits) : fraction;
  return sign * std::ldexp(units, std::max(exponent, 1) - type.bias() - type.fraction_bits);
}

}  // namespace segprior::test
