// Gradients of a loss that is a mean over a batch of images, in the setting of the implementation that came
// with [SC]: 32 images of 256^2, weights softplus(normal), the mean cross-entropy of sigmoid(x). The incoming
// gradient is then of the size 1 / (N J). An absolute stopping rule, |r| <= 1e-6 per voxel as [SC] has for
// the forward pass, is content with it after the first step at the latest; the rule of our backward solves is
// relative, and this is what it is for.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::Problem;

namespace {

double normal(Random &random) {
  const double u = random.uniform(0x1p-60, 1), v = random.uniform(0, 6.283185307179586);
  return std::sqrt(-2 * std::log(u)) * std::cos(v);
}

double relative(const Array &got, const Array &want) {
  double error = 0, norm = 0;
  for (size_t k = 0; k < want.size(); ++k) {
    error += (got[k] - want[k]) * (got[k] - want[k]);
    norm += want[k] * want[k];
  }
  return std::sqrt(error / norm);
}

struct Gradients {
  Array scores, rows, columns;
};

Gradients gradients(Device &device, const Problem &p, const SoftcutSettings &settings, const Array &grad_x) {
  SoftcutCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(call.backward(grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
  return {call.grad_scores->get(), call.grad_edges.of[0]->get(), call.grad_edges.of[1]->get()};
}

}  // namespace

TEST_CASE("softcut: gradients of a mean over a batch") {
  Random random(17);
  Problem p;
  p.batch = 32;
  p.spatial = {256, 256};
  Array target;
  for (int64_t k = 0; k < p.batch * p.voxels(); ++k) {
    p.scores.push_back(normal(random));
    const double y = static_cast<double>(k / 256 % 256), x = static_cast<double>(k % 256);
    target.push_back(std::sin(0.145 * x + 0.3) * std::cos(0.12 * y + 0.1) > 0.1);
  }
  p.scores = rounded(p.scores, SEGPRIOR_FLOAT32);
  for (int f = 0; f < 2; ++f) {
    for (int64_t k = 0; k < p.matrices() * p.edge_count(f); ++k)
      p.weights.of[f].push_back(std::log1p(std::exp(normal(random))));
    p.weights.of[f] = rounded(p.weights.of[f], SEGPRIOR_FLOAT32);
  }
  Device cpu({SEGPRIOR_CPU, 0});
  SoftcutSettings exact;
  exact.opts.tolerance = exact.opts.backward_tolerance = 1e-13;
  SoftcutCall solved(cpu, p, exact);
  REQUIRE(solved.forward() == SEGPRIOR_OK);
  const Array x = solved.x->get();
  Array grad_x;
  for (size_t k = 0; k < x.size(); ++k)
    grad_x.push_back((1 / (1 + std::exp(-x[k])) - target[k]) / static_cast<double>(x.size()));
  grad_x = rounded(grad_x, SEGPRIOR_FLOAT32);
  const Gradients want = gradients(cpu, p, exact, grad_x);
  // What the others are compared with solves its systems: |error| <= |residual|, as d = 1.
  CHECK(max_abs(ref::softcut::residuals(p, {}, x, p.scores)) < 1e-12);
  CHECK(max_abs(ref::softcut::residuals(p, {}, want.scores, grad_x)) < 1e-12);

  SoftcutSettings ours, one_step;
  ours.dtype = one_step.dtype = SEGPRIOR_FLOAT32;
  one_step.opts.solver = SEGPRIOR_SOFTCUT_CG;
  one_step.opts.backward_max_iterations = 1;
  // Relative errors of the gradients of scores and weights, in that order.
  const auto errors = [&](const std::string &what, const Gradients &got) {
    const std::vector<double> all{relative(got.scores, want.scores), relative(got.rows, want.rows),
                                  relative(got.columns, want.columns)};
    MESSAGE(what, ": relative errors of the gradients of scores ", all[0], ", of weights ", all[1], ", ",
            all[2]);
    return all;
  };
  const std::vector<double> stopped =
      errors("stopped after one step, as the absolute rule does", gradients(cpu, p, one_step, grad_x));
  CHECK(stopped[0] > 0.08);
  CHECK(stopped[0] < 0.25);
  CHECK(stopped[1] > 0.2);
  CHECK(stopped[2] > 0.2);
  const auto check = [&](const std::string &what, const Gradients &got) {
    for (double error : errors(what, got)) CHECK(error <= 1e-4);
  };
#if defined(FAKECUDA)
  check("CPU", gradients(cpu, p, ours, grad_x));
#else
  for (segprior_device which : all_devices()) {
    Device device(which);
    check(name_of(which), gradients(device, p, ours, grad_x));
  }
#endif
}
