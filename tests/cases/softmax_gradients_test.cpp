// Gradients of the library against difference quotients of the library, without the reference: float64 cases
// that are small and stay away from kinks.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "tests/cases/check.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

namespace {

class Differences {
 public:
  Differences(const Prepared &p, Device &device) : p_(p), device_(device) {}

  double loss(const ref::Problem &problem) {
    SoftmaxCall call(device_, problem, settings_of(p_.c));
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
    return dot(p_.grad_u, call.u->get());
  }

  // Fourth-order central difference of the loss along `move`.
  double slope(const std::function<void(ref::Problem &, double)> &move) {
    const auto at = [&](double step) {
      ref::Problem moved = p_.problem;
      move(moved, step);
      return loss(moved);
    };
    return (8 * (at(kStep) - at(-kStep)) - (at(2 * kStep) - at(-2 * kStep))) / (12 * kStep);
  }

  static constexpr double kStep = 2e-6;

 private:
  const Prepared &p_;
  Device &device_;
};

void check_differences(const Prepared &p, Device &device) {
  INFO("add(" << p.c.text() << "); on " << name_of(device.which()));
  Differences differences(p, device);
  SoftmaxCall call(device, p.problem, settings_of(p.c));
  REQUIRE(call.forward() == SEGPRIOR_OK);
  REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, p.grad_u) == SEGPRIOR_OK);
  const GradientTensors &g = call.gradients;
  // The loss is a sum of n = B I J products of size 1, each exact to about (T + 1) * |z| * 2^-53; divided by
  // the step. The second-order truncation error is far below it.
  const double noise = bounds_of(p).u * std::sqrt(static_cast<double>(p.c.elements())) / Differences::kStep;
  const auto close = [&](const char *what, double got, double want, double scale) {
    CHECK_MESSAGE(std::fabs(got - want) <= noise + 1e-8 * (1 + scale), what, ": gradient ", got,
                  ", difference quotient ", want, ", allowed ", noise + 1e-8 * (1 + scale));
  };

  // Adjoint dot product: <gradient, direction> = derivative along the direction, all inputs moving at once.
  Random random(p.c.seed_ + 3000);
  const ref::Problem &problem = p.problem;
  ref::Problem direction;
  const auto like = [&](const ref::Array &values) {
    ref::Array out = random.array(static_cast<int64_t>(values.size()), -1, 1);
    for (size_t k = 0; k < out.size(); ++k)
      if (!(values[k] > 0 && values[k] < INFINITY)) out[k] = 0;  // stay inside the domain
    return out;
  };
  direction.features = random.array(p.c.elements(), -1, 1);
  direction.edge = like(problem.edge);
  direction.upper = like(problem.upper);
  direction.lower = problem.volume == ref::Volume::equality ? direction.upper : like(problem.lower);
  direction.eps = random.uniform(-1, 1);
  direction.lam = problem.lam > 0 ? random.uniform(-1, 1) : 0;
  direction.tau = problem.tau > 0 ? random.uniform(-1, 1) : 0;
  direction.init_eps = problem.init_eps > 0 ? random.uniform(-1, 1) : 0;
  const auto move = [&](ref::Problem &q, double s) {
    const auto add = [s](ref::Array &to, const ref::Array &by) {
      for (size_t k = 0; k < to.size(); ++k) to[k] += s * by[k];
    };
    add(q.features, direction.features);
    add(q.edge, direction.edge);
    add(q.lower, direction.lower);
    add(q.upper, direction.upper);
    q.eps += s * direction.eps;
    q.lam += s * direction.lam;
    if (q.tau > 0) q.tau += s * direction.tau;
    if (q.init_eps > 0) q.init_eps += s * direction.init_eps;
  };
  double product = 0, terms = 0;
  const auto with = [&](const TensorPtr &gradient, const ref::Array &by) {
    if (!gradient) return;
    const double part = dot(gradient->get(), by);
    product += part;
    terms += std::fabs(part);
  };
  with(g.features, direction.features);
  with(g.tv_edge, direction.edge);
  with(g.volume, direction.upper);
  with(g.volume_lower, direction.lower);
  with(g.volume_upper, direction.upper);
  with(g.eps, {direction.eps});
  with(g.tv_lam, {direction.lam});
  with(g.tv_tau, {direction.tau});
  with(g.init_eps, {direction.init_eps});
  close("dot product", product, differences.slope(move), terms);

  // Each input alone: a wrong gradient that is small beside the others would hide in the sum above.
  const auto single = [&](const char *what, const TensorPtr &gradient, ref::Array ref::Problem::*field) {
    if (!gradient) return;
    const ref::Array values = gradient->get();
    const size_t k = random.bits() % values.size();
    if (!((problem.*field)[k] < INFINITY) || (field != &ref::Problem::features && !((problem.*field)[k] > 0)))
      return;
    close(what, values[k], differences.slope([&](ref::Problem &q, double s) {
      (q.*field)[k] += s;
      if (field == &ref::Problem::upper && problem.volume == ref::Volume::equality) q.lower[k] += s;
    }),
          std::fabs(values[k]));
  };
  for (int n = 0; n < 2; ++n) {
    single("features", g.features, &ref::Problem::features);
    single("edge", g.tv_edge, &ref::Problem::edge);
    single("volume", g.volume, &ref::Problem::upper);
    single("volume_lower", g.volume_lower, &ref::Problem::lower);
    single("volume_upper", g.volume_upper, &ref::Problem::upper);
  }
  const auto scalar = [&](const char *what, const TensorPtr &gradient, double ref::Problem::*field) {
    if (!gradient) return;
    const double value = gradient->get()[0];
    close(what, value, differences.slope([&](ref::Problem &q, double s) {
      if (field == &ref::Problem::tau) q.tau = q.step();  // the partial derivative, also by default
      q.*field += s;
    }),
          std::fabs(value));
  };
  scalar("eps", g.eps, &ref::Problem::eps);
  scalar("init_eps", g.init_eps, &ref::Problem::init_eps);
  if (problem.lam > 0) scalar("tv_lam", g.tv_lam, &ref::Problem::lam);
  scalar("tv_tau", g.tv_tau, &ref::Problem::tau);
}

void check_all(bool tiny) {
  for (const Case &c : softmax_cases()) {
    if (c.float32_ || c.accumulate_ || c.elements() > kDifferenceSize ||
        (c.size_ == Case::Size::race) != tiny)
      continue;
    const Prepared p = prepare(c);
    // A difference quotient must not straddle a kink: the step of 4e-6 moves y / b by a few times that.
    if (p.result.margins.projection < 1e-4 || p.result.margins.restart < 1e-3 ||
        p.result.margins.bound < 1e-3 || p.result.margins.stop < 1e-2)
      continue;
    for (segprior_device which : all_devices()) {
      Device device(which);
      check_differences(p, device);
    }
  }
}

}  // namespace

TEST_CASE("softmax difference quotients, tiny [small]") { check_all(true); }
TEST_CASE("softmax difference quotients, full") { check_all(false); }
