// Gradients of the library against difference quotients of the library, without the reference: of forward for
// backward, of backward for the double backward. Float64, solved as far as rounding allows.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::Gradients;
using ref::softcut::kFamilies;
using ref::softcut::Problem;

namespace {

constexpr double kStep = 1e-3;  // of the fourth-order differences, relative for weights and conductance

double slope(const std::function<double(double)> &f) {
  return (8 * (f(kStep) - f(-kStep)) - (f(2 * kStep) - f(-2 * kStep))) / (12 * kStep);
}

void move(Array &values, const Array &along, double step) {
  for (size_t k = 0; k < along.size(); ++k) values[k] += step * along[k];
}

Problem moved(Problem p, const Gradients &along, double step) {
  move(p.scores, along.scores, step);
  move(p.conductance, along.conductance, step);
  for (int f = 0; f < kFamilies; ++f) move(p.weights.of[f], along.edges.of[f], step);
  return p;
}

// Sum of the products, and of their absolute values: the scale of its rounding.
struct Product {
  double sum = 0, size = 0;
  void add(const Array &a, const Array &b) {
    for (size_t k = 0; k < a.size() && k < b.size(); ++k) {
      sum += a[k] * b[k];
      size += std::fabs(a[k] * b[k]);
    }
  }
  void add(const Gradients &a, const Gradients &b) {
    add(a.scores, b.scores);
    add(a.conductance, b.conductance);
    for (int f = 0; f < kFamilies; ++f) add(a.edges.of[f], b.edges.of[f]);
  }
};

Array get(const TensorPtr &tensor) { return tensor ? tensor->get() : Array(); }
Gradients get(const TensorPtr &scores, const EdgeTensors &edges, const TensorPtr &conductance) {
  Gradients g;
  g.scores = get(scores);
  g.conductance = get(conductance);
  for (int f = 0; f < kFamilies; ++f) g.edges.of[f] = get(edges.of[f]);
  return g;
}

class Differences {
 public:
  Differences(const SoftcutCase &c, Device &device) : device_(device), settings_(settings_of(c)) {
    settings_.opts.tolerance = settings_.opts.backward_tolerance = 1e-13;
    settings_.opts.absolute = settings_.opts.norm = settings_.opts.batch = 0;
  }

  // The loss <grad_x, x>.
  double loss(const Problem &p, const Array &grad_x) {
    SoftcutCall call(device_, p, settings_);
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    return dot(grad_x, call.x->get());
  }
  // <cotangents, backward's results>.
  double second_loss(const Problem &p, const Array &grad_x, const Gradients &cotangents) {
    const auto call = solved(p, grad_x);
    Product product;
    product.add(cotangents, get(call->grad_scores, call->grad_edges, call->grad_conductance));
    return product.sum;
  }
  std::unique_ptr<SoftcutCall> solved(const Problem &p, const Array &grad_x) {
    auto call = std::make_unique<SoftcutCall>(device_, p, settings_);
    REQUIRE_MESSAGE(call->forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    REQUIRE_MESSAGE(call->backward(grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
    return call;
  }

 private:
  Device &device_;
  SoftcutSettings settings_;
};

void check_differences(const SoftcutCase &c, Device &device, bool entries = true) {
  INFO("add(" << c.text() << "); on " << name_of(device.which()));
  Differences differences(c, device);
  const Problem p = make_problem(c);
  const Array grad_x = make_grad_x(c);
  const Gradients cotangents = make_cotangents(c);
  const auto call = differences.solved(p, grad_x);
  const Gradients grads = get(call->grad_scores, call->grad_edges, call->grad_conductance);
  REQUIRE_MESSAGE(call->double_backward(grads.scores, cotangents) == SEGPRIOR_OK,
                  std::string(segprior_last_error()));
  const Gradients second = get(call->second_scores, call->second_edges, call->second_conductance);
  const Array second_grad_x = call->second_grad_x->get();

  // All inputs at once: each gradient's product with a direction is the derivative along it. Weights and
  // conductances move by parts of themselves, so that they stay in their domain.
  Random random(c.seed_ + 3000);
  const auto part_of = [&](const Array &values) {
    Array along = random.array(static_cast<int64_t>(values.size()), -1, 1);
    for (size_t k = 0; k < along.size(); ++k) along[k] *= values[k];
    return along;
  };
  Gradients along;
  along.scores = random.array(c.elements(), -1, 1);
  along.conductance = part_of(p.conductance);
  for (int f = 0; f < kFamilies; ++f) along.edges.of[f] = part_of(p.weights.of[f]);
  const Array along_grad_x = random.array(c.elements(), -1, 1);
  // Truncation is of the order of kStep^4; the solves' rounding is divided by kStep.
  const auto close = [](const std::string &what, double got, double want, double size) {
    const double allowed = 1e-7 * size + 1e-11;
    CHECK_MESSAGE(std::fabs(got - want) <= allowed, what, ": gradient ", got, ", difference quotient ", want,
                  ", allowed ", allowed);
  };
  Product first, next, size;
  first.add(grads, along);
  next.add(second, along);
  next.add(second_grad_x, along_grad_x);
  size.add(grad_x, call->x->get());
  close("all inputs", first.sum,
        slope([&](double step) { return differences.loss(moved(p, along, step), grad_x); }),
        first.size + size.size);
  size.add(cotangents, grads);
  close("all inputs of the backward", next.sum, slope([&](double step) {
          Array grad = grad_x;
          move(grad, along_grad_x, step);
          return differences.second_loss(moved(p, along, step), grad, cotangents);
        }),
        next.size + size.size);

  // One entry of each input.
  if (!entries) return;
  const auto entry = [&](const std::string &what, const Array &values, Array Gradients::*member, int family,
                         double relative) {
    if (values.empty()) return;
    Gradients single;
    Array &direction = family < 0 ? single.*member : single.edges.of[family];
    direction.assign(values.size(), 0.0);
    const size_t k = random.bits() % values.size();
    direction[k] = relative > 0 ? relative * values[k] : 1;
    Product product;
    product.add(grads, single);
    close(what, product.sum,
          slope([&](double step) { return differences.loss(moved(p, single, step), grad_x); }),
          product.size + size.size);
  };
  entry("one score", p.scores, &Gradients::scores, -1, 0);
  entry("one conductance", p.conductance, &Gradients::conductance, -1, 1);
  for (int f = 0; f < kFamilies; ++f) entry("one weight", p.weights.of[f], &Gradients::scores, f, 1);
}

}  // namespace

TEST_CASE("softcut: gradients are difference quotients") {
  int64_t checked = 0, seen = 0;
  for (const SoftcutCase &c : softcut_cases()) {
    // Of the many cases every fourth; what stops at a cap has no gradient of the solution.
    if (c.float32_ || c.cap_ > 0 || c.elements() > kSoftcutDifferenceSize || seen++ % 4 != 0) continue;
    for (segprior_device which : all_devices()) {
      Device device(which);
      if (paths_of(device, c).empty()) continue;
      check_differences(c, device);
      ++checked;
    }
  }
  CHECK(checked > 30);
}

TEST_CASE("softcut: gradients are difference quotients, small [small]") {
  using Solver = SoftcutCase::Solver;
  for (segprior_device which : all_devices()) {
    Device device(which);
    check_differences(SoftcutCase({3, 3}, 2).shared().diagonals().conductance(2).weights(0.5), device, false);
    check_differences(SoftcutCase({3, 3}, 1).conductance(2).weights(0.5).solver(Solver::multigrid), device,
                      false);
  }
}
