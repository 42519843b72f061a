// Gradients of the library against difference quotients of the library's forward, without the reference.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>

#include "tests/cases/losses_check.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::losses::Cotangents;
using ref::losses::Problem;

namespace {

constexpr double kStep = 1e-4;  // of the fourth-order differences

double slope(const std::function<double(double)> &f) {
  return (8 * (f(kStep) - f(-kStep)) - (f(2 * kStep) - f(-2 * kStep))) / (12 * kStep);
}

// Sum of the products, and of their absolute values: the scale of its rounding.
struct Product {
  double sum = 0, size = 0;
  void add(const Array &a, const Array &b) {
    for (size_t k = 0; k < a.size() && k < b.size(); ++k) {
      if (a[k] == 0) continue;
      sum += a[k] * b[k];
      size += std::fabs(a[k] * b[k]);
    }
  }
};

// The scalar function whose gradient backward gives.
Product scalar(const LossCase &c, Device &device, const Problem &p, const Cotangents &given) {
  LossCall call(device, p, settings_of(c));
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  Product product;
  product.add(given.total, call.total->get());
  product.add(given.terms, call.terms->get());
  product.add(given.items, call.items->get());
  product.add(given.voxels, call.voxels->get());
  return product;
}

// A direction that leaves alone what must not move: NaN and Inf, weights of 0, probabilities of 0. Relative
// to the values, but for logits.
Array direction(Random &random, const Array &values, bool relative) {
  Array along = random.array(static_cast<int64_t>(values.size()), -1, 1);
  for (size_t k = 0; k < along.size(); ++k) {
    if (relative) along[k] *= values[k];
    if (!std::isfinite(values[k])) along[k] = 0;
  }
  return along;
}

Problem moved(Problem p, Array Problem::*member, const Array &along, double step) {
  for (size_t k = 0; k < along.size(); ++k)
    if (along[k] != 0) (p.*member)[k] += step * along[k];
  return p;
}

void check_differences(const LossCase &c, Device &device) {
  INFO("add(" << c.text() << "); on " << name_of(device.which()));
  const Problem p = make_problem(c);
  const Cotangents given = make_cotangents(c);
  LossCall call(device, p, settings_of(c));
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(call.backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
  const double scale = scalar(c, device, p, given).size;
  Random random(c.seed_ + 3000);
  const auto check = [&](const char *name, const TensorPtr &gradient, Array Problem::*member, bool relative) {
    const Array &values = p.*member;
    if (values.empty()) return;
    const Array got = gradient->get();
    // All elements at once, then one.
    for (bool one : {false, true}) {
      Array along = direction(random, values, relative);
      const size_t only = random.bits() % values.size();
      for (size_t k = 0; k < along.size() && one; ++k)
        if (k != only) along[k] = 0;
      Product product;
      product.add(along, got);
      const double quotient =
          slope([&](double step) { return scalar(c, device, moved(p, member, along, step), given).sum; });
      // Truncation is of the order of kStep^4; the rounding of the values is divided by kStep.
      const double allowed = 1e-8 * product.size + 1e-10 * scale + 1e-12;
      CHECK_MESSAGE(std::fabs(product.sum - quotient) <= allowed, name, (one ? ", one: " : ", all: "),
                    "gradient ", product.sum, ", difference quotient ", quotient, ", allowed ", allowed);
    }
  };
  check("scores", call.grad_scores, &Problem::scores, c.scores_ == LossCase::Scores::probabilities);
  if (given.voxels.empty()) check("class_weights", call.grad_class_weights, &Problem::class_weights, true);
  check("size_lower", call.grad_size_lower, &Problem::size_lower, true);
  check("size_upper", call.grad_size_upper, &Problem::size_upper, true);
}

// Whether the gradient is smooth within the steps, and exact.
bool smooth(const LossCase &c) {
  const bool clamped = c.terms_[ref::losses::kFocalDice] != 0 && c.threshold_ != 0.5;
  return c.dtype_ == SEGPRIOR_FLOAT64 && !c.accumulate_ && !clamped && c.spread_ <= 4;
}

}  // namespace

TEST_CASE("losses: gradients are difference quotients") {
  int64_t checked = 0, seen = 0;
  for (const LossCase &c : loss_cases()) {
    if (!smooth(c) || c.elements() > kLossDifferenceSize || seen++ % 3 != 0) continue;
    for (segprior_device which : all_devices()) {
      if (which.type == SEGPRIOR_CUDA && seen % 10 != 1) continue;
      Device device(which);
      check_differences(c, device);
      ++checked;
    }
  }
  CHECK(checked > 50);
}

TEST_CASE("losses: gradients are difference quotients, small [small]") {
  using Rows = LossCase::Rows;
  constexpr int kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;
  for (segprior_device which : all_devices()) {
    Device device(which);
    LossCase c({3, 4}, 3, 2);
    c.class_weights(5).bounds(Rows::each, Rows::shared).mean().incoming(kSums);
    check_differences(c, device);
    check_differences(LossCase(c).scores(LossCase::Scores::sigmoid).groups().bounds(Rows::each, Rows::each),
                      device);
    check_differences(LossCase(c).target(LossCase::Target::soft).incoming(kSums | LossCase::kVoxels), device);
  }
}
