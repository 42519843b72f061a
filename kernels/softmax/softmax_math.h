// Scalar mathematics that both backends share: parameters, volume dual and its adjoint, momentum. All of it
// runs once per class or per image and iteration, in float64. Formulas: softmax.md.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/common/host_device.h"
#include "segprior/core.h"

namespace segprior::softmax {

// Resolved parameters of one call.
struct Params {
  double eps, init_eps, lam, tau;
  bool valid;  // each in its domain
};

// tau <= 0 asks for the default step; `inv_spacing_sq` = sum over the axes of h_d^-2. A given tau is checked.
SEGPRIOR_HD inline Params resolve_params(double eps, double init_eps, double lam, double tau,
                                         bool default_tau, double inv_spacing_sq, bool accelerate, bool tv) {
  Params p{eps, init_eps > 0 ? init_eps : eps, lam, tau, true};
  if (default_tau) p.tau = eps / ((accelerate ? 2 : 1) * inv_spacing_sq);
  p.valid = eps > 0 && eps < INFINITY;
  if (tv) p.valid = p.valid && lam >= 0 && lam < INFINITY && p.tau > 0 && p.tau < INFINITY;
  return p;
}

// d tau / d eps when tau is the default.
SEGPRIOR_HD inline double default_tau_slope(double inv_spacing_sq, bool accelerate) {
  return 1 / ((accelerate ? 2 : 1) * inv_spacing_sq);
}

// Largest magnitudes among the inputs of one image.
struct Magnitudes {
  double feature, edge, init_tv, init_volume;
};

// Whether the numbers of one image stay far enough from overflow: 1 / eps, the logits (|o| + |div q| + |f|) /
// eps, and the squares of the dual step's terms. `inv_spacing_sum` = sum over the axes of h_d^-1.
SEGPRIOR_HD inline bool in_range(const Magnitudes &max, const Params &p, double inv_spacing_sum, bool tv,
                                 bool is_float) {
  const double limit = is_float ? 1e30 : 1e280, root = is_float ? 1e15 : 1e140;
  const double smallest = fmin(fmin(p.eps, p.init_eps), 1.0);
  if (!(smallest * limit > 1)) return false;
  if (!tv) return max.feature + max.init_volume < limit * smallest;
  const double dual = fmax(p.lam * max.edge, max.init_tv);
  return max.feature + max.init_volume + 2 * dual * inv_spacing_sum < limit * smallest &&
         dual + p.tau * inv_spacing_sum < root && inv_spacing_sum < root;
}

// Volume bounds of one class. An upper bound of 0 excludes the class: f = -inf, u = 0.
SEGPRIOR_HD inline bool bounds_valid(double lower, double upper) {
  return lower >= 0 && upper >= lower && lower < INFINITY;  // false for NaN
}
SEGPRIOR_HD inline bool excluded(double upper) { return upper == 0; }

// The bounds of all classes of one image, added one class at a time.
struct VolumeCheck {
  double lower = 0, upper = 0;
  bool each_valid = true;

  SEGPRIOR_HD void add(double lo, double up) {
    each_valid = each_valid && bounds_valid(lo, up);
    lower += lo;
    upper += up;
  }
  // At least one class must be allowed.
  SEGPRIOR_HD bool valid() const { return each_valid && upper > 0; }
  // Half a voxel plus rounding of slack: rounded volumes are not reported as infeasible.
  SEGPRIOR_HD bool feasible(double voxels) const {
    const double slack = 0.5 + 1e-5 * voxels;
    return lower <= voxels + slack && upper >= voxels - slack;
  }
};

// ln of a class's mass; floored so that a class whose every w underflows recovers in a few iterations.
SEGPRIOR_HD inline double log_mass(double mass, bool is_float) {
  const double tiny = is_float ? FLT_MIN : DBL_MIN;  // device code may not call numeric_limits
  return log(fmax(mass, tiny));
}

enum class Active { none, lower, upper };

struct VolumeStep {
  double dual;
  Active active;
};

// f <- min(eps (ln upper - L), max(eps (ln lower - L), 0)),  L = log_mass - f / eps. Equality: lower ==
// upper.
SEGPRIOR_HD inline VolumeStep volume_step(double f, double mass_log, double lower, double upper, double eps) {
  if (excluded(upper)) return {-INFINITY, Active::none};
  const double at_upper = upper < INFINITY ? f + eps * (log(upper) - mass_log) : INFINITY;
  const double at_lower = lower > 0 ? f + eps * (log(lower) - mass_log) : -INFINITY;
  const double above = fmax(at_lower, 0.0);
  if (at_upper <= above) return {at_upper, Active::upper};
  return {above, at_lower > 0 ? Active::lower : Active::none};
}

// Adjoint of volume_step, given the total gradient of the new dual.
struct VolumeAdjoint {
  double w;      // gradient of every w_i(x): constant over x
  double dual;   // gradient of the old dual, without the part through w
  double bound;  // gradient of the active bound
  double eps;    // gradient of eps, without the part through w
};

SEGPRIOR_HD inline VolumeAdjoint volume_adjoint(const VolumeStep &step, double grad, double mass_log,
                                                double lower, double upper, double eps) {
  if (step.active == Active::none) return {0, 0, 0, 0};
  const double bound = step.active == Active::upper ? upper : lower;
  return {-grad * eps * exp(-mass_log), grad, grad * eps / bound, grad * (log(bound) - mass_log)};
}

// Nesterov's momentum with restart. `theta` starts at 1; returns the beta of the coming iteration.
SEGPRIOR_HD inline double next_momentum(double &theta, bool restart) {
  if (restart) theta = 1;
  const double next = (1 + sqrt(1 + 4 * theta * theta)) / 2, beta = (theta - 1) / next;
  theta = next;
  return beta;
}

// Progress of one image through the iterations; kept in device memory, changed once an iteration.
struct Progress {
  int32_t status;      // as in segprior_info
  int32_t iterations;  // done so far
  int32_t running;     // 0: later iterations skip the image
  int32_t final_next;  // the coming iteration is the last one (it uses beta = 0)
  int32_t reached;     // a check found the residual below the tolerance
  double theta, beta;  // momentum: state, and the beta of the coming iteration
  double residual;
};

// Status of an image before its first iteration.
SEGPRIOR_HD inline int32_t start_status(bool inputs_finite, bool parameters_valid, bool range_ok,
                                        bool feasible) {
  if (!parameters_valid) return SEGPRIOR_INVALID_PARAMETER;
  if (!inputs_finite) return SEGPRIOR_NONFINITE_INPUT;
  if (!range_ok) return SEGPRIOR_BREAKDOWN;
  return feasible ? SEGPRIOR_ITERATION_CAP : SEGPRIOR_INFEASIBLE_VOLUME;
}

SEGPRIOR_HD inline bool failed(int32_t status) {
  return status == SEGPRIOR_NONFINITE_INPUT || status == SEGPRIOR_BREAKDOWN ||
         status == SEGPRIOR_INVALID_PARAMETER;
}

// Whether iteration t (0-based) of `total` ends with a check of the residual.
SEGPRIOR_HD inline bool is_check(int t, int total, int interval) {
  return (t + 1) % interval == 0 || t + 1 == total;
}

SEGPRIOR_HD inline Progress start_progress(int32_t status, int total, bool accelerate) {
  Progress s{status, 0, !failed(status) && total > 0, total == 1, 0, 1, 0, failed(status) ? NAN : 0};
  if (accelerate && !s.final_next) s.beta = next_momentum(s.theta, false);
  return s;
}

// After iteration t. `restart`: <v_t - q_t+1, q_t+1 - q_t> > 0 in the iteration just done; it takes effect in
// the next one, so that one kernel can do both the step and the extrapolation. `checked`: `residual` is new.
SEGPRIOR_HD inline void advance(Progress &s, int t, int total, bool accelerate, bool restart, bool checked,
                                double residual, double tolerance) {
  s.iterations = t + 1;
  // The extra iteration after convergence keeps the residual that decided.
  if (checked && !s.reached) s.residual = residual;
  const bool reached = checked && residual < tolerance;
  s.reached = s.reached || reached;
  if (s.final_next || (reached && !accelerate)) s.running = 0;
  if (reached && s.status == SEGPRIOR_ITERATION_CAP) s.status = SEGPRIOR_CONVERGED;
  s.final_next = reached || t + 2 == total;
  s.beta = 0;
  if (accelerate && s.running && !s.final_next) s.beta = next_momentum(s.theta, restart);
}

}  // namespace segprior::softmax
