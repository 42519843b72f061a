// Three ways past the floating-point range that the check before the first iteration overlooked, because it
// only compared the features and the TV dual with eps: a warm start of the volume dual that overflows once it
// is divided by eps, an eps whose inverse is not a number of the dtype, and a spacing whose inverse is not
// (with lam = 0, so that no large dual gave it away). The images ended as "all iterations done" with wrong
// numbers or NaN in u. They must say so: status BREAKDOWN and NaN everywhere, never silently.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "tests/cases/cases.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_breakdown(const Case &c, const std::function<void(ref::Problem &)> &damage) {
  ref::Problem problem = make_problem(c);
  damage(problem);
  for (segprior_device which : all_devices()) {
    INFO(name_of(which) << ": " << c.text());
    Device device(which);
    SoftmaxCall call(device, problem, settings_of(c));
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
    for (const segprior_info &info : call.infos()) {
      CHECK(info.status == SEGPRIOR_BREAKDOWN);
      CHECK(info.iterations == 0);
      CHECK(std::isnan(info.residual));
    }
    const auto all_nan = [](const char *what, const Tensor &tensor) {
      bool all = true;
      for (double value : tensor.get()) all = all && std::isnan(value);
      CHECK_MESSAGE(all, what, " is not all NaN");
    };
    all_nan("u", *call.u);
    if (call.tv_dual) all_nan("tv_dual", *call.tv_dual);
    if (call.volume_dual) all_nan("volume_dual", *call.volume_dual);
    for (int32_t mode : {SEGPRIOR_BACKWARD_LAST, SEGPRIOR_BACKWARD_UNROLLED}) {
      REQUIRE_MESSAGE(call.backward(mode, make_grad_u(c)) == SEGPRIOR_OK, segprior_last_error());
      all_nan("grads.features", *call.gradients.features);
    }
    for (const auto &gradient : call.gradient_list()) all_nan(gradient.first, *gradient.second);
  }
}

Case base() {
  Case c({5, 7}, 3);
  return c.f32().iterations(4);
}

}  // namespace

TEST_CASE("regression: a warm start of the volume dual beyond the range is a breakdown [small]") {
  for (bool tv : {false, true})
    for (bool device_scalars : {false, true}) {
      Case c = base().eps(0.01).equal();
      if (tv) c.tv(0.3);
      if (device_scalars) c.device_scalars();
      check_breakdown(c, [](ref::Problem &p) { p.init_volume = {3e38, -3e38, 0}; });
    }
}

TEST_CASE("regression: an eps whose inverse overflows is a breakdown [small]") {
  const auto tiny = [](ref::Problem &p) {
    for (double &o : p.features) o *= 1e-11;
  };
  for (bool device_scalars : {false, true}) {
    Case c = base().tv(0).eps(1e-40);
    if (device_scalars) c.device_scalars();
    check_breakdown(c, tiny);
    check_breakdown(c.equal(), tiny);
  }
  check_breakdown(base().eps(1e-40), tiny);
  check_breakdown(base().tv(0).eps(0.5).init_eps(1e-40), tiny);
}

TEST_CASE("regression: a spacing whose inverse overflows is a breakdown [small]") {
  check_breakdown(base().tv(0).spacing({1, 1e-40}), [](ref::Problem &) {});
  check_breakdown(base().tv(0).spacing({1e-40, 1}).equal(), [](ref::Problem &) {});
  check_breakdown(base().tv(0, 0.1).spacing({1e-40, 1}), [](ref::Problem &) {});
}
