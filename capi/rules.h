// Rules of options and arguments that the operators share. Every message names the argument, its value and
// the rule.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "capi/tensor.h"

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

inline Shape shape_of(const segprior_tensor &tensor) {
  Shape shape{{}, tensor.ndim};
  for (int k = 0; k < tensor.ndim; ++k) shape.extent[k] = tensor.shape[k];
  return shape;
}

}  // namespace segprior
