// With no iteration, u = S(o / eps0) is the softmax of the start. Mode `last` differentiated it as if it were
// that of eps, so its gradient was wrong by the factor eps0 / eps whenever the start had an eps of its own.
// Without priors there are no duals to hold constant: both modes must give the exact gradient.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

TEST_CASE("regression: the last mode of zero iterations differentiates the start [small]") {
  for (segprior_device which : all_devices())
    for (bool tv : {false, true})
      for (bool float32 : {false, true}) {
        INFO(name_of(which) << ", tv " << tv << ", float32 " << float32);
        Device device(which);
        Case c({4, 5}, 3, 2);
        c.eps(0.5).init_eps(1).iterations(0);
        if (tv) c.tv(0.3);
        if (float32) c.f32();
        const ref::Problem problem = make_problem(c);
        const ref::Array grad_u = make_grad_u(c);
        SoftmaxCall call(device, problem, settings_of(c));
        REQUIRE(call.forward() == SEGPRIOR_OK);
        REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
        const ref::Array unrolled = call.gradients.features->get();
        REQUIRE(call.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);
        const ref::Array last = call.gradients.features->get();
        CHECK_CLOSE("last and unrolled", last, unrolled, float32 ? 1e-6 : 1e-14);

        const double h = 1e-5;  // truncation about h^2, rounding about 1e-16 / h
        for (size_t k = 0; k < last.size(); k += 7) {
          ref::Problem ahead = problem, behind = problem;
          ahead.features[k] += h;
          behind.features[k] -= h;
          const double quotient =
              (dot(grad_u, ref::forward(ahead).u) - dot(grad_u, ref::forward(behind).u)) / (2 * h);
          CHECK(std::fabs(last[k] - quotient) <= (float32 ? 1e-6 : 1e-9));
        }
      }
}
