// Formulas of SoftCut that both backends share: the stopping rule. Notation: softcut.md.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/host_device.h"

namespace segprior::softcut {

enum class Norm { l2, l1 };

// When a solve ends. `batch`: all systems count as one vector.
struct Stop {
  Norm norm;
  bool absolute, batch;
  double tolerance;
  int max_iterations;
};

// One voxel's part in the sum of a norm.
template <class T>
SEGPRIOR_HD T norm_term(Norm norm, T value) {
  return norm == Norm::l2 ? value * value : (value < 0 ? -value : value);
}

// The residual in the scale of the rule, from the sums of norm_term over the `count` entries of the residual
// and of the right-hand side. 0 for a vanishing residual, also where the right-hand side vanishes; NaN stays
// NaN.
SEGPRIOR_HD inline double scaled_residual(const Stop &stop, double residual_sum, double rhs_sum,
                                          double count) {
  if (residual_sum == 0) return 0;
  const double ratio = residual_sum / (stop.absolute ? count : rhs_sum);
  return stop.norm == Norm::l2 ? sqrt(ratio) : ratio;
}

SEGPRIOR_HD inline bool satisfied(const Stop &stop, double residual) { return residual <= stop.tolerance; }

}  // namespace segprior::softcut
