// Comparisons that say where the worst element is.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

#include "tests/ref/array.h"

namespace segprior::test {

struct Difference {
  double worst = 0;  // max |got - want|; infinite where exactly one of the two is NaN or infinite
  int64_t index = -1;
  double got = 0, want = 0;
  bool same_size = true;

  std::string text() const {
    std::ostringstream out;
    out.precision(17);
    if (!same_size) return "sizes differ";
    out << "max difference " << worst << " at element " << index << ": got " << got << ", want " << want;
    return out.str();
  }
};

inline Difference difference(const ref::Array &got, const ref::Array &want) {
  Difference d;
  d.same_size = got.size() == want.size();
  if (!d.same_size) {
    d.worst = INFINITY;
    return d;
  }
  for (size_t k = 0; k < got.size(); ++k) {
    double distance = std::fabs(got[k] - want[k]);
    if (got[k] == want[k] || (std::isnan(got[k]) && std::isnan(want[k]))) distance = 0;
    if (std::isnan(distance)) distance = INFINITY;
    if (distance > d.worst || d.index < 0) {
      d.worst = distance;
      d.index = static_cast<int64_t>(k);
      d.got = got[k];
      d.want = want[k];
    }
  }
  return d;
}

inline double max_abs(const ref::Array &values) {  // of the finite ones
  double top = 0;
  for (double value : values)
    if (std::isfinite(value)) top = std::fmax(top, std::fabs(value));
  return top;
}

inline double dot(const ref::Array &a, const ref::Array &b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

}  // namespace segprior::test

// Checks max |got - want| <= tolerance; `what` is any streamable text.
#define CHECK_CLOSE(what, got_values, want_values, tolerance)                                               \
  do {                                                                                                      \
    const ::segprior::test::Difference difference_ = ::segprior::test::difference(got_values, want_values); \
    const double tolerance_ = tolerance;                                                                    \
    CHECK_MESSAGE(difference_.worst <= tolerance_, what, ": ", difference_.text(), ", tolerance ",          \
                  tolerance_);                                                                              \
  } while (false)
