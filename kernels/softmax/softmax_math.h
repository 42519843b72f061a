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
  double eps, init_eps, lam, tau, td_lam, td_sigma;
  bool valid;  // each in its domain
};

// What decides about the default steps.
struct StepRule {
  double inv_spacing_sq;  // sum over the axes of h_d^-2
  bool accelerate, tv;
  int star_count;

  // Largest stable steps: 2 / L with L = |grad|^2 / (2 eps) for TV and several star classes, half of that L
  // for one star class, |grad|^2 <= 4 sum h^-2. Two dual fields share the limit; momentum asks for 1 / L.
  SEGPRIOR_HD double share() const { return (tv && star_count > 0 ? 2 : 1) * (accelerate ? 2 : 1); }
  SEGPRIOR_HD double tau_slope() const { return 1 / (share() * inv_spacing_sq); }  // d tau / d eps
  SEGPRIOR_HD double star_tau_slope() const { return (star_count == 1 ? 2 : 1) / (share() * inv_spacing_sq); }
};

// Values as the caller gave them; which priors are on decides what is looked at.
struct GivenParams {
  double eps, init_eps, lam, tau, td_lam, td_sigma;
  bool default_tau, tv, td, td_gaussian;
};

SEGPRIOR_HD inline Params resolve_params(const GivenParams &given, const StepRule &rule) {
  Params p{given.eps,    given.init_eps > 0 ? given.init_eps : given.eps,
           given.lam,    given.tau,
           given.td_lam, given.td_sigma,
           true};
  if (given.default_tau) p.tau = given.eps * rule.tau_slope();
  p.valid = p.eps > 0 && p.eps < INFINITY;
  if (given.tv) p.valid = p.valid && p.lam >= 0 && p.lam < INFINITY && p.tau > 0 && p.tau < INFINITY;
  if (given.td) p.valid = p.valid && p.td_lam >= 0 && p.td_lam < INFINITY;
  if (given.td && given.td_gaussian) p.valid = p.valid && p.td_sigma > 0 && p.td_sigma < INFINITY;
  return p;
}

// ---- Threshold dynamics ----

// The normalised truncated Gaussian of one axis, exp(-d^2 / (2 sigma^2)) / sum for |d| <= size / 2, and its
// derivative with respect to sigma. The kernel of several axes is the product.
SEGPRIOR_HD inline void gaussian_taps(double sigma, int size, double *tap, double *derivative) {
  const int radius = size / 2;
  double sum = 0, slope_sum = 0;
  for (int k = 0; k < size; ++k) {
    const double d = (k - radius) / sigma;
    tap[k] = exp(-0.5 * d * d);
    derivative[k] = tap[k] * d * d / sigma;
    sum += tap[k];
    slope_sum += derivative[k];
  }
  for (int k = 0; k < size; ++k) {
    tap[k] /= sum;
    derivative[k] = (derivative[k] - tap[k] * slope_sum) / sum;
  }
}

// ---- Star shapes ----

// s(x) = (c - x) / |c - x| of one voxel, in voxel indices; 0 at the centre. Returns |c - x|.
template <class T>
SEGPRIOR_HD inline T star_direction(int nd, const T *offset /* c - x */, T *direction) {
  T square = 0;
  for (int c = 0; c < nd; ++c) square += offset[c] * offset[c];
  const T length = sqrt(square), inverse = length > 0 ? 1 / length : T(0);
  for (int c = 0; c < nd; ++c) direction[c] = offset[c] * inverse;
  return length;
}

// Gradient of c from that of s: ds/dc = (1 - s s^T) / |c - x|; 0 at the centre.
template <class T>
SEGPRIOR_HD inline void star_direction_adjoint(int nd, T length, const T *direction, const T *grad_direction,
                                               T *grad_center) {
  T along = 0;
  for (int c = 0; c < nd; ++c) along += direction[c] * grad_direction[c];
  for (int c = 0; c < nd; ++c)
    grad_center[c] = length > 0 ? (grad_direction[c] - along * direction[c]) / length : T(0);
}

// ---- Range ----

// Largest magnitudes among the inputs of one image.
struct Magnitudes {
  double feature, edge, init_tv, init_volume;
  double force = 0;  // bound of |r| of threshold dynamics and star shapes together
};

// Bounds of those two: |k|_1 = sum of |k| (1 for a Gaussian, the largest class's), `edge` the largest e';
// star duals rise by at most tau |s . grad u| <= tau sum_d h_d^-1 an iteration.
SEGPRIOR_HD inline double td_force(double td_lam, double kernel_sum, double edge) {
  return 2 * td_lam * kernel_sum * edge;
}
SEGPRIOR_HD inline double star_force(double init, double tau, int iterations, double inv_spacing_sum) {
  return 2 * (init + iterations * tau * inv_spacing_sum) * inv_spacing_sum;
}

// Whether the numbers of one image stay far enough from overflow: 1 / eps, the logits (|o| + |div q| + |f|) /
// eps, and the squares of the dual step's terms. `inv_spacing_sum` = sum over the axes of h_d^-1.
SEGPRIOR_HD inline bool in_range(const Magnitudes &max, const Params &p, double inv_spacing_sum, bool tv,
                                 bool is_float) {
  const double limit = is_float ? 1e30 : 1e280, root = is_float ? 1e15 : 1e140;
  const double smallest = fmin(fmin(p.eps, p.init_eps), 1.0);
  if (!(smallest * limit > 1)) return false;
  const double fixed = max.feature + max.init_volume + max.force;
  if (!tv) return fixed < limit * smallest;
  const double dual = fmax(p.lam * max.edge, max.init_tv);
  return fixed + 2 * dual * inv_spacing_sum < limit * smallest && dual + p.tau * inv_spacing_sum < root &&
         inv_spacing_sum < root;
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
  // At least one class must be allowed, unless there is no voxel (every one is masked).
  SEGPRIOR_HD bool valid(double voxels) const { return each_valid && (upper > 0 || voxels == 0); }
  // `voxels`: the valid ones. Half a voxel plus rounding of slack: rounded volumes are not reported as
  // infeasible.
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

// Momentum of the implicit backward's adjoint iteration, when accelerated. Its restarts are scheduled, each
// run twice as long as the one before: forward's test would need sums that the adjoint's increments do not
// give, and without restarts it is no faster than the plain iteration.
struct AdjointMomentum {
  double theta = 1, beta = 0, beta_before = 0;  // of the coming pass, and of the one before it
  int length = 8, left = 8;                     // of the current run: passes, and those to come
  int calm = 0;                                 // passes below the tolerance since the last one above it

  // After a pass, told whether its change is below the tolerance: whether that has lasted long enough.
  // Momentum makes slow modes oscillate, and the change of an oscillating mode passes through 0. Never
  // advanced: at once.
  SEGPRIOR_HD bool settled(bool below) {
    calm = below ? calm + 1 : 0;
    return calm >= length / 8;
  }

  SEGPRIOR_HD void advance() {
    const bool restart = left == 0;
    if (restart) left = length *= 2;
    --left;
    beta_before = beta;
    beta = next_momentum(theta, restart);
  }
};

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
