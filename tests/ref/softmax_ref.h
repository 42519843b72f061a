// Reference of the entropic softmax: float64, written from the formulas alone, as simple as they can be put
// down. It stores every iterate and differentiates the steps one by one. It shares no code with kernels/, so
// that both cannot have the same mistake.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "tests/ref/array.h"

namespace segprior::ref {

enum class Volume { none, equality, box };

// Threshold dynamics: r = lam (e (k * (1 - u)) - k * (e u)).
struct ThresholdDynamics {
  bool on = false;
  double lam = 1, sigma = 5;
  int size = 7;                 // of the Gaussian, per axis
  std::vector<int64_t> extent;  // of a given kernel, per axis; empty: Gaussian
  Array kernel;                 // given: [*extent], or [I, *extent] one per class
  Array edge;                   // [B, *S], [1, *S] or empty

  bool per_class() const;
};

// Star shapes: s . grad u_i >= 0 for the classes i of the list, s pointing to the centre.
struct Stars {
  std::vector<int32_t> classes;  // [M]
  Array center;                  // [B, M, nd], in voxel indices
  Array tau;                     // [M]; empty: the default step
  Array init;                    // warm start [B, M, *S], or empty

  int64_t count() const { return static_cast<int64_t>(classes.size()); }
};

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
  ThresholdDynamics td;
  Stars star;
  std::vector<uint8_t> mask;  // [B, *S], [1, *S] or empty; 0: masked
  bool single = false;        // the library computes in float32: its range is smaller

  int nd() const { return static_cast<int>(spatial.size()); }
  int64_t voxels() const;
  double step() const;        // tau, or its default
  double step_slope() const;  // d step / d eps
  double star_step(int64_t m) const;
  double star_step_slope() const;
  bool valid(int64_t b, int64_t x) const;  // not masked
  int64_t valid_voxels(int64_t b) const;
  double last_eps() const;  // of the softmax that made the result u: eps0 if no iteration was done
};

// How close the run came to a point where the map is not smooth or a decision flips. Comparisons of another
// precision are only meaningful where these are larger than its errors. Relative numbers; 1 if none was met.
struct Margins {
  double projection = 1;  // | |y| - b | / (|y| + b); where b = 0: |y| / (tau / h)
  double restart = 1;     // |<v - q', q' - q>| / sum of the |terms|
  double star = 1;        // |y| / (|v| + tau / h) of a star dual before max(., 0)
  double stop = 1;        // |residual - tolerance| / tolerance
  double bound = 1;       // distance of a volume dual from the switch of its active bound, over eps
};

// Everything that one image's iterations produced; step t goes from iterate t to iterate t + 1.
struct Iterate {
  Array u, q, v, f;  // [I, *S], [I, nd, *S] twice, [I]
  Array g, ahead;    // star duals, and where their next step starts as v is of q; [M, *S]
  Array r;           // [I, *S]: u = S((o - r + f) / eps)
};
struct Step {
  Array y, w, mass;         // [I, nd, *S], [I, *S], [I]
  Array star_y;             // [M, *S]
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
  Array u, tv_dual, volume_dual, star_dual;
  std::vector<Trace> images;
  Margins margins;
  double max_logit = 0;  // max |z - max_i z| over all softmax arguments: scales rounding errors

  int status(int64_t b) const { return images[b].status; }
  int iterations(int64_t b) const { return static_cast<int>(images[b].steps.size()); }
};

// Status of image b before its first iteration (softmax_ref_status.cpp).
int start_status(const Problem &problem, int64_t b);

Result forward(const Problem &problem);

struct Gradients {
  Array features, tv_edge, volume_lower, volume_upper, volume;  // volume: of an equality
  double eps = 0, init_eps = 0, tv_lam = 0, tv_tau = 0;
  Array td_kernel, td_edge, star_tau, star_center;
  double td_lam = 0, td_sigma = 0;
  // Sums of the absolute values of the terms of sums over the voxels: the scale of their rounding errors.
  double eps_terms = 0, init_eps_terms = 0, tv_lam_terms = 0, tv_tau_terms = 0;
  double td_lam_terms = 0, td_sigma_terms = 0;
  Array td_kernel_terms, star_tau_terms, star_center_terms;
};

Gradients backward_unrolled(const Problem &problem, const Result &result, const Array &grad_u);
Array backward_last(const Problem &problem, const Array &u, const Array &grad_u);

// ---- Operators on one scalar field of image b (softmax_ref_operators.cpp) ----

double spacing_of(const Problem &problem, int axis);
double inverse_square_spacing(const Problem &problem);  // sum over the axes of h^-2
// Whether component `axis` of a dual at voxel x joins two voxels: both in the grid and valid.
bool is_link(const Problem &problem, int64_t b, int axis, int64_t x);
void gradient(const Problem &problem, const double *u, double *q, int64_t b = 0);
void divergence(const Problem &problem, const double *q, double *r, int64_t b = 0);

struct Kernel {
  Array taps, slope;  // slope: d taps / d sigma of a Gaussian
};
Kernel kernel_of(const Problem &problem, int64_t class_index);

class Correlation {
 public:
  Correlation(const Problem &problem, int64_t b);
  // The voxel x + d of tap d, or -1 if it or x is outside the grid or masked.
  int64_t under(int64_t x, int64_t tap) const { return under_[x * taps_ + tap]; }
  int64_t taps() const { return taps_; }
  // out(x) = sum_d k(d) in(x + d), and the transpose, out(x) = sum_d k(d) in(x - d).
  void apply(const Kernel &kernel, const double *in, double *out) const;
  void transposed(const Kernel &kernel, const double *in, double *out) const;

 private:
  int64_t voxels_, taps_ = 1;
  std::vector<int64_t> under_;
};

// s(x) [nd, *S] of star m, and |c - x| [*S].
void star_direction(const Problem &problem, int64_t b, int64_t m, Array &direction, Array &length);

}  // namespace segprior::ref
