// Gradients of the library against difference quotients of the library, without the reference: float64 cases
// that are small and stay away from kinks.
#include <doctest/doctest.h>

#include <algorithm>
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
    ref::Array u = call.u->get();
    double sum = 0;
    for (size_t k = 0; k < u.size(); ++k)
      if (!std::isnan(p_.grad_u[k])) sum += p_.grad_u[k] * u[k];  // NaN: masked
    return sum;
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
  direction.td.lam = problem.td.on && problem.td.lam > 0 ? random.uniform(-1, 1) : 0;
  direction.td.sigma = problem.td.on ? random.uniform(-1, 1) : 0;
  direction.td.kernel = random.array(static_cast<int64_t>(problem.td.kernel.size()), -1, 1);
  direction.td.edge = like(problem.td.edge);
  direction.star.tau = like(problem.star.tau);
  direction.star.center = random.array(static_cast<int64_t>(problem.star.center.size()), -1, 1);
  // s jumps where the centre crosses a voxel.
  if (p.c.centers_ == Case::Centers::on_voxel) direction.star.center.assign(direction.star.center.size(), 0);
  const auto move = [&](ref::Problem &q, double s) {
    const auto add = [s](ref::Array &to, const ref::Array &by) {
      for (size_t k = 0; k < to.size(); ++k) to[k] += s * by[k];
    };
    add(q.features, direction.features);
    add(q.edge, direction.edge);
    add(q.lower, direction.lower);
    add(q.upper, direction.upper);
    add(q.td.kernel, direction.td.kernel);
    add(q.td.edge, direction.td.edge);
    add(q.star.tau, direction.star.tau);
    add(q.star.center, direction.star.center);
    q.td.lam += s * direction.td.lam;
    q.td.sigma += s * direction.td.sigma;
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
  with(g.td_lam, {direction.td.lam});
  with(g.td_sigma, {direction.td.sigma});
  with(g.td_kernel, direction.td.kernel);
  with(g.td_edge, direction.td.edge);
  if (!problem.star.tau.empty()) with(g.star_tau, direction.star.tau);
  with(g.star_center, direction.star.center);
  close("dot product", product, differences.slope(move), terms);

  // Each input alone: a wrong gradient that is small beside the others would hide in the sum above.
  using Field = std::function<ref::Array &(ref::Problem &)>;
  const auto single = [&](const char *what, const TensorPtr &gradient, const Field &field, bool positive) {
    if (!gradient) return;
    const ref::Array values = gradient->get();
    const size_t k = random.bits() % values.size();
    ref::Problem here = problem;
    const double value = field(here)[k];
    if (!(value < INFINITY) || (positive && !(value > 0))) return;  // also where it is masked
    close(what, values[k], differences.slope([&](ref::Problem &q, double s) {
      field(q)[k] += s;
      if (q.volume == ref::Volume::equality) q.lower = q.upper;
    }),
          std::fabs(values[k]));
  };
  for (int n = 0; n < 2; ++n) {
    const auto features = [](ref::Problem &q) -> ref::Array & { return q.features; };
    const auto lower = [](ref::Problem &q) -> ref::Array & { return q.lower; };
    const auto upper = [](ref::Problem &q) -> ref::Array & { return q.upper; };
    single("features", g.features, features, false);
    single(
        "edge", g.tv_edge, [](ref::Problem &q) -> ref::Array & { return q.edge; }, true);
    single("volume", g.volume, upper, true);
    single("volume_lower", g.volume_lower, lower, true);
    single("volume_upper", g.volume_upper, upper, true);
    single(
        "td_kernel", g.td_kernel, [](ref::Problem &q) -> ref::Array & { return q.td.kernel; }, false);
    single(
        "td_edge", g.td_edge, [](ref::Problem &q) -> ref::Array & { return q.td.edge; }, true);
    const auto steps = [](ref::Problem &q) -> ref::Array & {  // partial derivatives, also by default
      const ref::Problem old = q;
      q.star.tau.resize(q.star.count());
      for (int64_t m = 0; m < q.star.count(); ++m) q.star.tau[m] = old.star_step(m);
      return q.star.tau;
    };
    single("star_tau", g.star_tau, steps, true);
    if (p.c.centers_ != Case::Centers::on_voxel)
      single(
          "star_center", g.star_center, [](ref::Problem &q) -> ref::Array & { return q.star.center; }, false);
  }
  const auto scalar = [&](const char *what, const TensorPtr &gradient,
                          const std::function<void(ref::Problem &, double)> &change) {
    if (!gradient) return;
    const double value = gradient->get()[0];
    close(what, value, differences.slope(change), std::fabs(value));
  };
  scalar("eps", g.eps, [](ref::Problem &q, double s) { q.eps += s; });
  scalar("init_eps", g.init_eps, [](ref::Problem &q, double s) { q.init_eps += s; });
  if (problem.lam > 0) scalar("tv_lam", g.tv_lam, [](ref::Problem &q, double s) { q.lam += s; });
  scalar("tv_tau", g.tv_tau, [](ref::Problem &q, double s) { q.tau = q.step() + s; });
  if (problem.td.lam > 0) scalar("td_lam", g.td_lam, [](ref::Problem &q, double s) { q.td.lam += s; });
  scalar("td_sigma", g.td_sigma, [](ref::Problem &q, double s) { q.td.sigma += s; });
}

void check_all(bool tiny) {
  for (const Case &c : softmax_cases()) {
    if (c.float32_ || c.accumulate_ || c.elements() > kDifferenceSize || c.implicit_ ||
        (c.size_ == Case::Size::race) != tiny)
      continue;
    const Prepared p = prepare(c);
    // A difference quotient must not straddle a kink: the step of 4e-6 moves y / b by a few times that.
    if (std::min(p.result.margins.projection, p.result.margins.star) < 1e-4 ||
        p.result.margins.restart < 1e-3 || p.result.margins.bound < 1e-3 || p.result.margins.stop < 1e-2)
      continue;
    for (segprior_device which : all_devices()) {
      Device device(which);
      if (serves(device, c)) check_differences(p, device);
    }
  }
}

}  // namespace

TEST_CASE("softmax difference quotients, tiny [small]") { check_all(true); }
TEST_CASE("softmax difference quotients, full") { check_all(false); }
