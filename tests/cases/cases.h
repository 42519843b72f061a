// The cases of the entropic softmax. To add one: append a line to a list in cases.cpp (TV and volumes) or
// cases_priors.cpp (threshold dynamics, stars, masks, 16-bit, and mixes of all), for example
//
//     add(Case({31, 33}, 3).name("what it is
//     for").equal().tv(0.3).td(0.2).mask(Mask::shared).iterations(12));
//
// That line alone yields, on the CPU and on every CUDA device: forward and all gradients (unrolled and last)
// against the float64 reference (softmax_cases_test.cpp), directional and per-input difference quotients when
// the case is float64 and at most kDifferenceSize large (softmax_gradients_test.cpp), and an entry that a
// benchmark can time (time_cases.h). A failure prints the case as the line that made it. With implicit() the
// forward pass has to converge, and the implicit backward is compared as well.
//
// tags: race() marks the few cases that also run under the race detector of the fake CUDA runtime, small()
// those that run in the fake runtime at all; a test program picks them by the names of the test cases, which
// carry [race] and [small]; [race] implies [small].
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "segprior/core.h"
#include "tests/ref/softmax_ref.h"
#include "tests/support/softmax_call.h"

namespace segprior::test {

constexpr int64_t kDifferenceSize = 4000;  // B * I * J up to which difference quotients are taken

struct Case {
  enum class Edge { none, per_image, shared };
  enum class Mask { none, per_image, shared };  // a quarter of the voxels, chosen at random, masked
  enum class Centers { random, on_voxel, between, outside };
  enum class Kernel { gaussian, shared, per_class };
  enum class Volumes { none, equal, equal_zero, box, box_open, lower, upper };
  enum class Size { race, small, full };

  explicit Case(std::vector<int64_t> spatial, int64_t classes, int64_t batch = 1)
      : spatial_(std::move(spatial)), classes_(classes), batch_(batch) {}

  std::vector<int64_t> spatial_;
  int64_t classes_, batch_;
  std::string name_;
  bool float32_ = false, tv_ = false, accelerate_ = false, warm_start_ = false, accumulate_ = false;
  bool device_scalars_ = false, td_ = false, implicit_ = false;
  int32_t small_dtype_ = 0;  // SEGPRIOR_FLOAT16 or _BFLOAT16; float32_ is set then too
  double eps_ = 0.5, init_eps_ = 0, lam_ = 0, tau_ = 0, tolerance_ = 0;
  double td_lam_ = 0, td_sigma_ = 1.2, star_tau_ = 0;
  int td_size_ = 3;
  Kernel kernel_ = Kernel::gaussian;
  std::vector<int64_t> kernel_extent_;
  std::vector<int32_t> stars_;
  Centers centers_ = Centers::random;
  Mask mask_ = Mask::none;
  int32_t path_ = SEGPRIOR_PATH_AUTO;
  Edge edge_ = Edge::none, td_edge_ = Edge::none;
  Volumes volumes_ = Volumes::none;
  std::vector<double> spacing_;
  int iterations_ = 10, check_interval_ = 10, checkpoint_ = 1;
  uint64_t seed_ = 1;
  Size size_ = Size::full;

  // Each returns the case itself, so that one expression makes it.
  Case &name(std::string text) { return name_ = std::move(text), *this; }
  Case &f32() { return float32_ = true, *this; }
  Case &eps(double value) { return eps_ = value, *this; }
  Case &init_eps(double value) { return init_eps_ = value, *this; }
  Case &tv(double lam, double tau = 0) { return tv_ = true, lam_ = lam, tau_ = tau, *this; }
  Case &edge(Edge kind) { return edge_ = kind, *this; }
  Case &volumes(Volumes kind) { return volumes_ = kind, *this; }
  Case &equal() { return volumes(Volumes::equal); }
  Case &spacing(std::vector<double> h) { return spacing_ = std::move(h), *this; }
  Case &iterations(int n) { return iterations_ = n, *this; }
  Case &tolerance(double value, int interval) {
    return tolerance_ = value, check_interval_ = interval, *this;
  }
  Case &accelerate() { return accelerate_ = true, *this; }
  Case &checkpoint(int n) { return checkpoint_ = n, *this; }
  Case &warm_start() { return warm_start_ = true, *this; }
  Case &accumulate() { return accumulate_ = true, *this; }
  Case &device_scalars() { return device_scalars_ = true, *this; }
  Case &f16() { return small_dtype_ = SEGPRIOR_FLOAT16, f32(); }
  Case &bf16() { return small_dtype_ = SEGPRIOR_BFLOAT16, f32(); }
  Case &td(double lam, int size = 3, double sigma = 1.2) {
    return td_ = true, td_lam_ = lam, td_size_ = size, td_sigma_ = sigma, *this;
  }
  // Instead of the Gaussian: random taps of both signs, of absolute sum 1.
  Case &td_kernel(std::vector<int64_t> extent, bool per_class = false) {
    kernel_ = per_class ? Kernel::per_class : Kernel::shared;
    return kernel_extent_ = std::move(extent), *this;
  }
  Case &td_edge(Edge kind) { return td_edge_ = kind, *this; }
  // tau: of the first class; each further one has a longer step.
  Case &star(std::vector<int32_t> classes, double tau = 0) {
    return stars_ = std::move(classes), star_tau_ = tau, *this;
  }
  Case &centers(Centers kind) { return centers_ = kind, *this; }
  // Masked voxels hold NaN in the features, edges, warm starts and grad_u.
  Case &mask(Mask kind) { return mask_ = kind, *this; }
  Case &path(int32_t value) { return path_ = value, *this; }
  Case &implicit() { return implicit_ = true, *this; }
  Case &seed(uint64_t value) { return seed_ = value, *this; }
  Case &race() { return size_ = Size::race, *this; }
  Case &small() { return size_ = Size::small, *this; }

  std::string text() const;  // the expression that makes it
  int64_t elements() const;  // B * I * J
  int32_t dtype() const {    // of the features
    return small_dtype_ ? small_dtype_ : float32_ ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
  }
};

const std::vector<Case> &softmax_cases();
void add_prior_cases(std::vector<Case> &list);  // cases_priors.cpp

// The data of a case, already rounded to its dtype (case_data.cpp). Deterministic.
ref::Problem make_problem(const Case &c);
ref::Array make_grad_u(const Case &c);  // NaN at masked voxels
CallSettings settings_of(const Case &c);

}  // namespace segprior::test
