// A gradient is the same whichever others are wanted. On CUDA threshold dynamics goes back through a fused
// kernel when the gradient of sigma is not wanted, and through others when it is.
#include <doctest/doctest.h>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_without_sigma(const Case &c) {
  const ref::Array grad_u = make_grad_u(c);
  for (segprior_device which : all_devices()) {
    INFO(name_of(which) << ": " << c.text());
    Device device(which);
    SoftmaxCall all(device, make_problem(c), settings_of(c)), few(device, make_problem(c), settings_of(c));
    few.gradients.td_sigma.reset();
    for (SoftmaxCall *call : {&all, &few}) {
      REQUIRE_MESSAGE(call->forward() == SEGPRIOR_OK, segprior_last_error());
      REQUIRE_MESSAGE(call->backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK,
                      segprior_last_error());
      CHECK(call->violations().empty());
    }
    const auto close = [](const char *name, const TensorPtr &got, const TensorPtr &want) {
      if (want) CHECK_CLOSE(name, got->get(), want->get(), 1e-12 * (1 + max_abs(want->get())));
    };
    close("features", few.gradients.features, all.gradients.features);
    close("eps", few.gradients.eps, all.gradients.eps);
    close("init_eps", few.gradients.init_eps, all.gradients.init_eps);
    close("td_lam", few.gradients.td_lam, all.gradients.td_lam);
  }
}

}  // namespace

TEST_CASE("gradients of threshold dynamics with and without that of sigma, one tile [small] [race]") {
  check_without_sigma(Case({5, 7}, 3, 2).td(0.4, 3).iterations(2));
}

TEST_CASE("gradients of threshold dynamics with and without that of sigma [small]") {
  check_without_sigma(Case({18, 67}, 3).td(0.4, 7, 2).init_eps(1).iterations(3).checkpoint(2));
  check_without_sigma(Case({11, 65}, 2, 2).td(0.4, 11, 3).iterations(4).tolerance(1e-2, 1));
  check_without_sigma(Case({70}, 4).td(0.4, 5, 2).iterations(3));
  check_without_sigma(Case({5, 4, 6}, 3).td(0.4).equal().iterations(2));
}
