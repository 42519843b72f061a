// Functions of one probability that both backends share, and their derivatives.
#pragma once

#include <cmath>

#include "kernels/common/host_device.h"

namespace segprior::losses {

// Any exponent: many instructions, so that a CUDA kernel has them once and not for every voxel of a thread.
template <class T>
#if defined(__CUDACC__)
__noinline__
#endif
    SEGPRIOR_HD T
    general_power(T x, T g) {
  return std::pow(x, g);
}

// x^g for x >= 0 and g >= 0, exact multiplications for the usual exponents; 0^0 = 1.
template <class T>
SEGPRIOR_HD inline T power(T x, T g) {
  if (g == T{2}) return x * x;
  if (g == T{1}) return x;
  if (g == T{3}) return x * x * x;
  if (g == T{0}) return T{1};
  return general_power(x, g);
}

// FOCAL of one target class: f(S) = (1 - S)^g (-ln S). complement = 1 - S and log_s = ln S come from the
// logits, where S is near 1 or 0 and would not tell them.
template <class T>
SEGPRIOR_HD inline T focal(T complement, T log_s, T g) {
  return -power(complement, g) * log_s;
}

// S f'(S) = g S (1 - S)^(g-1) ln S - (1 - S)^g; tends to 0 for S -> 1 (-1 if g = 0), where (1 - S)^(g-1) may
// not.
template <class T>
SEGPRIOR_HD inline T focal_slope(T s, T complement, T log_s, T g) {
  if (g == T{0}) return T{-1};
  if (!(complement > T{0})) return complement;  // 0, or NaN
  if (s == T{0}) return T{-1};                  // ln S may be -Inf
  const T lower = power(complement, g - 1 > 0 ? g - 1 : T{0});
  const T ratio = g >= T{1} ? lower : power(complement, g) / complement;
  return g * s * ratio * log_s - power(complement, g);
}

// FOCAL_DICE's h and dh/dS. The derivative at the ends of the clamp is the one from inside.
template <class T>
struct Sharp {
  T value, slope;
};

template <class T>
SEGPRIOR_HD inline Sharp<T> sharpen(T s, T threshold, T g) {
  const T open = s - threshold + T(0.5);
  const T z = open < T{0} ? T{0} : open > T{1} ? T{1} : open;
  // By the ratio of the smaller of z, 1 - z to the larger: no power of both underflows at once.
  const bool upper = z > T(0.5);
  const T large = upper ? z : T{1} - z, ratio = (upper ? T{1} - z : z) / large;
  const T p = power(ratio, g), sum = T{1} + p;
  const bool inside = !(open < T{0}) && !(open > T{1});
  const T slope = g * power(ratio, g - T{1}) / (large * large * sum * sum);
  return {open == open ? (upper ? T{1} : p) / sum : open, inside ? slope : T{0}};
}

}  // namespace segprior::losses
