// From the volumes of an image to its next duals: a few numbers per class, in float64. Both backends call
// these functions, the CPU in a loop over the classes, CUDA with a thread per class. Derivation:
// proposals.md.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/proposals/proposals.h"

namespace segprior::proposals {

// What a pass over an image's voxels adds up, each sum over the valid voxels: per class [kPerClass][I], then
// per image.
enum PerClass { kVolume /* Q */, kSpread /* Q (1 - Q) */, kPerClass };
enum PerImage { kValid /* 1 */, kFinite /* 0, NaN if a logit is not finite */, kPerImage };
SEGPRIOR_HD inline int64_t sums_of(int64_t classes) { return kPerClass * classes + kPerImage; }

// Progress of one image.
struct State {
  int32_t running;     // 0: the duals are final
  int32_t status;      // as in segprior_info
  int32_t iterations;  // dual updates done
  double residual;
};

SEGPRIOR_HD inline bool failed(int32_t status) {
  return status == SEGPRIOR_NONFINITE_INPUT || status == SEGPRIOR_INVALID_PARAMETER ||
         status == SEGPRIOR_BREAKDOWN;
}

// A NaN on either side wins.
SEGPRIOR_HD inline double larger(double a, double b) { return a > b || a != a ? a : b; }

struct Bounds {
  double lower, upper;

  SEGPRIOR_HD bool valid() const { return lower >= 0 && upper >= lower && lower < INFINITY; }  // NaN: false
  SEGPRIOR_HD double outside(double volume) const {
    return larger(larger(lower - volume, volume - upper), 0.0);
  }
};

template <class T>
SEGPRIOR_HD inline Bounds bounds_of(const Problem &p, int64_t image, int64_t i) {
  Bounds b{0, INFINITY};
  if (p.lower_rows) b.lower = static_cast<const T *>(p.lower)[(p.lower_rows > 1 ? image : 0) * p.classes + i];
  if (p.upper_rows) b.upper = static_cast<const T *>(p.upper)[(p.upper_rows > 1 ? image : 0) * p.classes + i];
  return b;
}

// The status before the first update, given the sums of the classes' bounds. Half a voxel plus rounding of
// slack: rounded bounds are not reported as infeasible. With every class excluded there is no Q.
SEGPRIOR_HD inline int32_t first_status(bool bounds_valid, double lower, double upper, double valid,
                                        double finite) {
  const double slack = 0.5 + 1e-5 * valid;
  if (!bounds_valid || (upper == 0 && valid > 0)) return SEGPRIOR_INVALID_PARAMETER;
  if (finite != 0) return SEGPRIOR_NONFINITE_INPUT;
  if (lower > valid + slack || upper < valid - slack) return SEGPRIOR_INFEASIBLE_VOLUME;
  return SEGPRIOR_ITERATION_CAP;
}

// EXACT: upper bound 0.
SEGPRIOR_HD inline bool excluded(Method method, const Bounds &b) {
  return method == Method::exact && b.upper == 0;
}

// By how many voxels a class keeps its image from stopping.
SEGPRIOR_HD inline double unsettled(Method method, const Bounds &b, double dual, double volume) {
  double worst = b.outside(volume);
  if (method == Method::exact && dual > 0) worst = larger(worst, volume - b.lower);
  if (method == Method::exact && dual < 0 && b.upper > 0) worst = larger(worst, b.upper - volume);
  return worst;
}

// After a pass: `worst` and `residual` are larger() over the classes of unsettled() and of Bounds::outside(),
// NaN if a volume is: z + f left the range of T.
SEGPRIOR_HD inline void advance(State &s, const Problem &p, double worst, double residual) {
  s.residual = residual;
  if (worst != worst) {
    s.status = SEGPRIOR_BREAKDOWN;
    s.running = 0;
    return;
  }
  const bool settled = worst <= p.tolerance * static_cast<double>(p.voxels);
  s.running = !settled && s.iterations < p.iterations;
  if (settled && s.status == SEGPRIOR_ITERATION_CAP) s.status = SEGPRIOR_CONVERGED;
  if (s.running) ++s.iterations;
}

// ---- GRADIENT ----

struct Multipliers {
  double above, below;  // a, b >= 0

  SEGPRIOR_HD double dual() const { return above - below; }
  // Stays within the range of T, which the passes take the dual as, however long the step.
  template <class T>
  SEGPRIOR_HD void ascend(const Bounds &b, double volume, double step) {
    const double top = sizeof(T) == sizeof(float) ? FLT_MAX : DBL_MAX;
    above = fmin(top, fmax(0.0, above + step * (b.lower - volume)));
    below = fmin(top, fmax(0.0, below + step * (volume - b.upper)));
  }
};

// ---- EXACT ----
//
// f minimises F(f) = sum_x ln sum_i exp(z_i + f_i) + sum_i psi_i(f_i), psi_i(f) = -lower f for f > 0, -upper
// f for f < 0. Two upper models of F at f that are separable over the classes, so that their minima are
// known:
//
//   plain   V_i exp(d_i)                         f + d is the volume dual's update
//   curved  V_i d_i + c_i d_i^2 / 2, c_i = k D_i holds up to a factor that grows with |d|, so the step is
//   damped
//
// with D_i = sum_x Q_i (1 - Q_i), k = 1 if one class moves, else 2. The one that promises the larger decrease
// is taken; both promises hold, so F falls in every iteration.

// One class's part in that choice.
struct Candidate {
  double plain, curved;  // new dual
  double plain_gain;     // promised decrease
  double slope, bend;    // -(V d + psi(f + d) - psi(f)) and c d^2 of the curved model
};

SEGPRIOR_HD inline double psi(const Bounds &b, double dual) {
  return dual > 0 ? -b.lower * dual : dual < 0 ? -b.upper * dual : 0.0;
}

// Whether an update can change the dual.
SEGPRIOR_HD inline bool moves(const Bounds &b, double dual, double volume) {
  return b.upper > 0 && (dual != 0 || b.outside(volume) > 0);
}

// `movers`: number of classes that move.
template <class T>
SEGPRIOR_HD inline Candidate candidate(const Bounds &b, double dual, double volume, double spread,
                                       int movers) {
  if (!moves(b, dual, volume)) return {dual, dual, 0, 0, 0};
  constexpr bool is_float = sizeof(T) == sizeof(float);
  // Floors: of a volume that underflows, and of Q (1 - Q), which rounding makes 0 where Q is nearly 1.
  const double tiny = is_float ? FLT_MIN : DBL_MIN, rounding = is_float ? FLT_EPSILON : DBL_EPSILON;
  const double mass = fmax(volume, tiny), curvature = (movers > 1 ? 2 : 1) * fmax(spread, rounding * mass);
  const double log_mass = log(mass), low = log(b.lower) - log_mass, high = log(b.upper) - log_mass;
  Candidate c;
  c.plain = fmin(dual + high, fmax(dual + low, 0.0));
  c.curved = fmin(dual + (b.upper - mass) / curvature, fmax(dual + (b.lower - mass) / curvature, 0.0));
  const double now = psi(b, dual), d = c.curved - dual;
  c.plain_gain = now - psi(b, c.plain) - volume * expm1(c.plain - dual);
  c.slope = now - psi(b, c.curved) - volume * d;
  c.bend = curvature * d * d;
  return c;
}

// The sums over the classes, and the extremes of d = curved - dual (0 among them).
struct Choice {
  double plain_gain = 0, slope = 0, bend = 0, up = 0, down = 0;

  SEGPRIOR_HD void add(const Candidate &c, double dual) {
    const double d = c.curved - dual;
    plain_gain += c.plain_gain;
    slope += c.slope;
    bend += c.bend;
    up = fmax(up, d);
    down = fmin(down, d);
  }

  // The part of d that the curved step goes; 0: take the plain one. Along d the softmax's curvature grows at
  // most like exp(range of d).
  SEGPRIOR_HD double damping() const {
    const double range = up - down;
    if (!(range > 0)) return 0;
    // Whole steps where they still promise a good part: they land on f = 0 exactly.
    const double part = range <= 1 ? 1 : fmin(1.0, log1p(range * slope / bend) / range), way = part * range;
    const double growth = way < 1e-4 ? part * part * (0.5 + way / 6) : (expm1(way) - way) / (range * range);
    return part * slope - bend * growth > plain_gain ? part : 0;  // NaN: 0
  }
};

SEGPRIOR_HD inline double next_dual(const Candidate &c, double dual, double damping) {
  if (damping == 0) return c.plain;
  return damping == 1 ? c.curved : dual + damping * (c.curved - dual);
}

// Where bounds cannot hold all duals take one sign and drift, until rounding z + f eats z. What they have in
// common changes nothing in Q: this is taken off, and the one nearest to 0 becomes 0. From the extremes of
// the duals.
SEGPRIOR_HD inline double common_part(double least, double largest) {
  return least > 0 ? least : largest < 0 ? largest : 0;
}

}  // namespace segprior::proposals
