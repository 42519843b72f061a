// The cases of SoftCut. To add one: append a line to the list in softcut_cases.cpp, for example
//
//     add(SoftcutCase({31, 33}, 3, 2).name("what it is for").shared().weights(10).solver(Solver::jacobi));
//
// That line alone yields, on the CPU and on every CUDA device, against the float64 reference: the solution,
// its infos (with the true residual computed from it), all gradients and the double backward
// (softcut_cases_test.cpp); difference quotients when the case is float64 and at most kSoftcutDifferenceSize
// large (softcut_gradients_test.cpp). A failure prints the case as the line that made it.
//
// CUDA: a case runs on the path that it names; one that names none runs on every path that serves it
// (softcut_check.h). An explicit path has to serve the case wherever the device has the path at all. Direct
// solves are for the CPU of a build with Eigen.
//
// tags: race() marks the few cases that also run under the race detector of the fake CUDA runtime, small()
// those that run in the fake runtime at all; a test program picks them by the names of the test cases, which
// carry [race] and [small]; [race] implies [small]. Fake CUDA threads are slow: small() is for tens of
// iterations on hundreds of voxels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/softcut_ref.h"
#include "tests/support/softcut_call.h"

namespace segprior::test {

constexpr int64_t kSoftcutDifferenceSize = 600;  // B * K * J up to which difference quotients are taken

struct SoftcutCase {
  // How weights are drawn, given their scale w. uniform: of [0, w]; cut: the same, half of them 0; decades:
  // w 10^u, u of [-10, 0]; constant: w.
  enum class Weights { uniform, cut, decades, constant };
  enum class Size { race, small, full };
  enum class Solver { automatic, cg, jacobi, multigrid, chebyshev, direct };

  SoftcutCase(std::vector<int64_t> spatial, int64_t classes, int64_t batch = 1)
      : spatial_(std::move(spatial)), classes_(classes), batch_(batch) {}

  std::vector<int64_t> spatial_;
  int64_t classes_, batch_;
  std::string name_;
  bool float32_ = false, shared_ = false, diagonals_ = false, init_ = false, accumulate_ = false;
  int32_t small_dtype_ = 0;  // SEGPRIOR_FLOAT16 or _BFLOAT16 of the weights; float32_ is set then too
  double conductance_ = 0;   // 0: absent; c: of [1 / c, c], evenly in the logarithm
  Weights weights_ = Weights::uniform;
  double scale_ = 1;
  Solver solver_ = Solver::automatic;
  int32_t path_ = SEGPRIOR_PATH_AUTO;
  double tolerance_ = 0;  // 0: see tolerance()
  int cap_ = 0;           // 0: see cap()
  bool l1_ = false, absolute_ = false, batch_rule_ = false;
  uint64_t seed_ = 1;
  Size size_ = Size::full;

  // Each returns the case itself, so that one expression makes it.
  SoftcutCase &name(std::string text) { return name_ = std::move(text), *this; }
  SoftcutCase &f32() { return float32_ = true, *this; }
  SoftcutCase &f16() { return small_dtype_ = SEGPRIOR_FLOAT16, f32(); }
  SoftcutCase &bf16() { return small_dtype_ = SEGPRIOR_BFLOAT16, f32(); }
  SoftcutCase &shared() { return shared_ = true, *this; }
  SoftcutCase &diagonals() { return diagonals_ = true, *this; }
  SoftcutCase &conductance(double spread) { return conductance_ = spread, *this; }
  SoftcutCase &weights(double scale, Weights kind = Weights::uniform) {
    return weights_ = kind, scale_ = scale, *this;
  }
  SoftcutCase &solver(Solver value) { return solver_ = value, *this; }
  SoftcutCase &path(int32_t value) { return path_ = value, *this; }
  SoftcutCase &tolerance(double value) { return tolerance_ = value, *this; }
  SoftcutCase &cap(int value) { return cap_ = value, *this; }
  SoftcutCase &l1() { return l1_ = true, *this; }
  SoftcutCase &absolute() { return absolute_ = true, *this; }
  SoftcutCase &batch_rule() { return batch_rule_ = true, *this; }
  SoftcutCase &init() { return init_ = true, *this; }
  SoftcutCase &accumulate() { return accumulate_ = true, *this; }
  SoftcutCase &seed(uint64_t value) { return seed_ = value, *this; }
  SoftcutCase &race() { return size_ = Size::race, *this; }
  SoftcutCase &small() { return size_ = Size::small, *this; }

  std::string text() const;  // the expression that makes it
  int64_t elements() const;  // B * K * J
  int32_t dtype() const { return float32_ ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64; }
  int32_t edge_dtype() const { return small_dtype_ ? small_dtype_ : dtype(); }
  double unit() const { return float32_ ? 0x1p-24 : 0x1p-53; }
  // The streaming path launches its kernels as often as the cap allows: too often for the fake runtime.
  int cap() const {
    if (cap_ > 0) return cap_;
    return size_ != Size::full ? 60 : solver_ == Solver::multigrid ? 500 : 2000;
  }
  // Of forward and backward. By default far enough above the rounding that every solver meets it.
  double tolerance() const { return tolerance_ > 0 ? tolerance_ : float32_ ? 1e-5 : 1e-11; }
};

const std::vector<SoftcutCase> &softcut_cases();

// The data of a case, already rounded to its dtypes (softcut_case_data.cpp). Deterministic.
ref::softcut::Problem make_problem(const SoftcutCase &c);
ref::Array make_grad_x(const SoftcutCase &c);
ref::softcut::Gradients make_cotangents(const SoftcutCase &c);
SoftcutSettings settings_of(const SoftcutCase &c);
ref::softcut::Rule rule_of(const SoftcutCase &c);

}  // namespace segprior::test
