// Reference of the entropic softmax: float64, written from the formulas alone, as simple as they can be put
// down. It stores every iterate and differentiates the steps one by one. It shares no code with kernels/, so
// that both cannot have the same mistake.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace segprior::ref {

using Array = std::vector<double>;

enum class Volume { none, equality, box };

// The values of segprior_info.status, spelled again on purpose.
enum Status {
  converged = 0,
  iteration_cap,
  nonfinite_input,
  infeasible_volume,
  breakdown,
  invalid_parameter
};

struct Problem {
  int64_t batch = 1, classes = 1;
  std::vector<int64_t> spatial;  // 1 to 3 axes
  Array spacing;                 // empty: 1
  bool tv = false, accelerate = false;
  Volume volume = Volume::none;
  int iterations = 0, check_interval = 10;
  double tolerance = 0;
  double eps = 1, init_eps = 0, lam = 1, tau = 0;  // init_eps 0: eps; tau 0: the default step
  Array features;                                  // [B, I, *S]
  Array edge;                                      // [B, *S], [1, *S] or empty
  Array lower, upper;                              // [B, I]; equality: both are the volume
  Array init_tv, init_volume;                      // [B, I, nd, *S], [B, I]; or empty
  bool single = false;                             // the library computes in float32: its range is smaller

  int nd() const { return static_cast<int>(spatial.size()); }
  int64_t voxels() const;
  double step() const;        // tau, or its default
  double step_slope() const;  // d step / d eps
  double last_eps() const;    // of the softmax that made the result u: eps0 if no iteration was done
};

// How close the run came to a point where the map is not smooth or a decision flips. Comparisons of another
// precision are only meaningful where these are larger than its errors. Relative numbers; 1 if none was met.
struct Margins {
  double projection = 1;  // | |y| - b | / (|y| + b); where b = 0: |y| / (tau / h)
  double restart = 1;     // |<v - q', q' - q>| / sum of the |terms|
  double stop = 1;        // |residual - tolerance| / tolerance
  double bound = 1;       // distance of a volume dual from the switch of its active bound, over eps
};

// Everything that one image's iterations produced; step t goes from iterate t to iterate t + 1.
struct Iterate {
  Array u, q, v, f;  // [I, *S], [I, nd, *S] twice, [I]
};
struct Step {
  Array y, w, mass;         // [I, nd, *S], [I, *S], [I]
  std::vector<int> active;  // [I] bound that determines the dual: 0 none, -1 lower, 1 upper
  double beta = 0;
};
struct Trace {
  std::vector<Iterate> iterates;
  std::vector<Step> steps;
  int status = iteration_cap;
  double residual = 0;
  int restarts = 0;  // of the momentum
};

struct Result {
  Array u, tv_dual, volume_dual;
  std::vector<Trace> images;
  Margins margins;
  double max_logit = 0;  // max |z - max_i z| over all softmax arguments: scales rounding errors

  int status(int64_t b) const { return images[b].status; }
  int iterations(int64_t b) const { return static_cast<int>(images[b].steps.size()); }
};

Result forward(const Problem &problem);

struct Gradients {
  Array features, tv_edge, volume_lower, volume_upper, volume;  // volume: of an equality
  double eps = 0, init_eps = 0, tv_lam = 0, tv_tau = 0;
  // Sums of the absolute values of the terms of the scalars above: the scale of their rounding errors.
  double eps_terms = 0, init_eps_terms = 0, tv_lam_terms = 0, tv_tau_terms = 0;
};

Gradients backward_unrolled(const Problem &problem, const Result &result, const Array &grad_u);
Array backward_last(const Problem &problem, const Array &u, const Array &grad_u);

// Differential operators on one scalar field, with the grid and spacing of `problem`.
void gradient(const Problem &problem, const double *u, double *q);
void divergence(const Problem &problem, const double *q, double *r);

}  // namespace segprior::ref
