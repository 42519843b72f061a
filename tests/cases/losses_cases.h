// The cases of the losses. To add one: append a line to the list in losses_cases.cpp, for example
//
//     add(LossCase({31, 33}, 3, 2).name("what it is
//     for").f32().target(Target::soft).mask(Rows::each).mean());
//
// That line alone yields, on the CPU and on every CUDA device: every output, every info and every gradient
// against the float64 reference (losses_cases_test.cpp); with 16-bit scores, the bits of the float32 call on
// the same values. float64 cases of at most kLossDifferenceSize elements are also compared with difference
// quotients of the library (losses_gradients_test.cpp). A failure prints the case as the line that made it.
//
// Every case with a mask has NaN, Inf and labels out of range where it is masked.
//
// tags: race() marks the few cases that also run under the race detector of the fake CUDA runtime, small()
// those that run in the fake runtime at all; a test program picks them by the names of the test cases, which
// carry [race] and [small]; [race] implies [small].
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/losses_ref.h"
#include "tests/support/losses_call.h"

namespace segprior::test {

constexpr int64_t kLossDifferenceSize = 3000;  // B * I * J up to which difference quotients are taken

struct LossCase {
  enum class Target { u8, i32, i64, soft, one_hot, none };
  enum class Rows { absent, shared, each };  // of masks: over images; of bounds: over groups
  enum class Size { race, small, full };
  enum Incoming { kTotal = 1, kTerms = 2, kItems = 4, kVoxels = 8 };  // which cotangents there are
  using Scores = ref::losses::Scores;

  LossCase(std::vector<int64_t> spatial, int64_t classes, int64_t batch = 1)
      : spatial_(std::move(spatial)), classes_(classes), batch_(batch) {}

  std::vector<int64_t> spatial_;
  int64_t classes_, batch_;
  std::string name_;
  std::array<double, ref::losses::kTerms> terms_{{0.1, 1, 0.75, 1.5, -0.5}};
  int32_t dtype_ = SEGPRIOR_FLOAT64;
  Scores scores_ = Scores::logits;
  Target target_ = Target::u8;
  int64_t ignore_ = 255;
  Rows mask_ = Rows::absent, labelled_ = Rows::absent, lower_ = Rows::absent, upper_ = Rows::each;
  int weight_rows_ = 0;  // 0, 1 or 5
  bool mean_ = false, per_voxel_ = false, plain_ = false, dice_batch_ = false, groups_ = false,
       accumulate_ = false;
  bool background_ = true;  // with sigmoid: label 0 has no channel
  double smooth_ = 1e-5, gamma_ = 2, threshold_ = 0.5, sharpness_ = 2, offset_ = 1e-10;
  double spread_ = 4;  // logits are in [-spread, spread]
  int incoming_ = kTotal;
  uint64_t seed_ = 1;
  Size size_ = Size::full;

  bool background() const { return background_ && scores_ == Scores::sigmoid; }

  // Each returns the case itself, so that one expression makes it.
  LossCase &name(std::string text) { return name_ = std::move(text), *this; }
  LossCase &terms(std::array<double, ref::losses::kTerms> weights) { return terms_ = weights, *this; }
  LossCase &only(int term) { return terms_ = {}, terms_[term] = 1, *this; }
  LossCase &f32() { return dtype_ = SEGPRIOR_FLOAT32, *this; }
  LossCase &f16() { return dtype_ = SEGPRIOR_FLOAT16, *this; }
  LossCase &bf16() { return dtype_ = SEGPRIOR_BFLOAT16, *this; }
  LossCase &scores(Scores value) { return scores_ = value, *this; }
  LossCase &without_background() { return background_ = false, *this; }
  LossCase &target(Target value) { return target_ = value, *this; }
  LossCase &ignore(int64_t label) { return ignore_ = label, *this; }
  LossCase &mask(Rows rows) { return mask_ = rows, *this; }
  LossCase &labelled(Rows rows) { return labelled_ = rows, *this; }
  LossCase &bounds(Rows lower, Rows upper) { return lower_ = lower, upper_ = upper, *this; }
  LossCase &groups() { return groups_ = true, *this; }
  LossCase &class_weights(int rows) { return weight_rows_ = rows, *this; }
  LossCase &mean() { return mean_ = true, *this; }
  LossCase &per_voxel() { return per_voxel_ = true, *this; }
  LossCase &plain() { return plain_ = true, *this; }  // sums in the denominators of DICE
  LossCase &dice_batch() { return dice_batch_ = true, *this; }
  LossCase &smooth(double value) { return smooth_ = value, *this; }
  LossCase &gamma(double value) { return gamma_ = value, *this; }
  LossCase &sharp(double threshold, double g) { return threshold_ = threshold, sharpness_ = g, *this; }
  LossCase &offset(double value) { return offset_ = value, *this; }
  LossCase &spread(double value) { return spread_ = value, *this; }
  LossCase &incoming(int which) { return incoming_ = which, *this; }
  LossCase &accumulate() { return accumulate_ = true, *this; }
  LossCase &seed(uint64_t value) { return seed_ = value, *this; }
  LossCase &race() { return size_ = Size::race, *this; }
  LossCase &small() { return size_ = Size::small, *this; }

  std::string text() const;  // the expression that makes it
  int64_t elements() const;  // B * I * J
  bool is_small_float() const { return dtype_ == SEGPRIOR_FLOAT16 || dtype_ == SEGPRIOR_BFLOAT16; }
  int32_t parameter_dtype() const { return dtype_ == SEGPRIOR_FLOAT64 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32; }
};

const std::vector<LossCase> &loss_cases();

// The data of a case, already rounded to its dtypes (losses_case_data.cpp). Deterministic.
ref::losses::Problem make_problem(const LossCase &c);
ref::losses::Cotangents make_cotangents(const LossCase &c);
LossSettings settings_of(const LossCase &c);

}  // namespace segprior::test
