// The header says that backward needs no workspace with SEGPRIOR_BACKWARD_LAST, and the size query answered
// 0. The CUDA backend nevertheless kept a small array there and wrote through the caller's pointer: NULL when
// the caller believed the query. No test saw it, because all of them passed the workspace of the unrolled
// mode.
#include <doctest/doctest.h>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

TEST_CASE("regression: the last mode needs no workspace [small][race]") {
  for (segprior_device which : all_devices())
    for (bool device_scalars : {false, true}) {
      INFO(name_of(which) << ", device scalars " << device_scalars);
      Device device(which);
      Case c({5, 7}, 3, 2);
      c.tv(0.3).equal().iterations(3);
      if (device_scalars) c.device_scalars();
      const ref::Problem problem = make_problem(c);
      SoftmaxCall call(device, problem, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);

      call.opts.backward_mode = SEGPRIOR_BACKWARD_LAST;
      size_t bytes = 77;
      REQUIRE(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, &bytes) ==
              SEGPRIOR_OK);
      CHECK(bytes == 0);

      const ref::Array grad_u = make_grad_u(c);
      call.grad_u->set(grad_u);
      segprior_softmax_grads grads{};
      grads.struct_size = sizeof grads;
      grads.features = call.gradients.features->view();
      REQUIRE_MESSAGE(
          segprior_softmax_backward(device.context(), &call.opts, &call.inputs, call.u->view(),
                                    call.grad_u->view(), &grads, nullptr, 0, nullptr, 0) == SEGPRIOR_OK,
          segprior_last_error());
      device.synchronize();
      CHECK_CLOSE("grads.features", call.gradients.features->get(),
                  ref::backward_last(problem, call.u->get(), grad_u), 1e-14);
    }
}
