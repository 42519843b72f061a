// The cases of the entropic softmax. To add one: append a line to the list in cases.cpp, for example
//
//     add(Case({31, 33}, 3).name("what it is for").equal().tv(0.3).iterations(12));
//
// That line alone yields, on the CPU and on every CUDA device: forward and all gradients (unrolled and last)
// against the float64 reference (softmax_cases_test.cpp), directional and per-input difference quotients when
// the case is float64 and at most kDifferenceSize large (softmax_gradients_test.cpp), and an entry that a
// benchmark can time (time_cases.h). A failure prints the case as the line that made
// it.
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
  enum class Volumes { none, equal, equal_zero, box, box_open, lower, upper };
  enum class Size { race, small, full };

  explicit Case(std::vector<int64_t> spatial, int64_t classes, int64_t batch = 1)
      : spatial_(std::move(spatial)), classes_(classes), batch_(batch) {}

  std::vector<int64_t> spatial_;
  int64_t classes_, batch_;
  std::string name_;
  bool float32_ = false, tv_ = false, accelerate_ = false, warm_start_ = false, accumulate_ = false;
  bool device_scalars_ = false;
  double eps_ = 0.5, init_eps_ = 0, lam_ = 0, tau_ = 0, tolerance_ = 0;
  Edge edge_ = Edge::none;
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
  Case &seed(uint64_t value) { return seed_ = value, *this; }
  Case &race() { return size_ = Size::race, *this; }
  Case &small() { return size_ = Size::small, *this; }

  std::string text() const;  // the expression that makes it
  int64_t elements() const;  // B * I * J
};

const std::vector<Case> &softmax_cases();

// The data of a case, already rounded to its dtype. Deterministic.
ref::Problem make_problem(const Case &c);
ref::Array make_grad_u(const Case &c);
CallSettings settings_of(const Case &c);

}  // namespace segprior::test
