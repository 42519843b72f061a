// CUDA took an edge weight of +Inf for "not negative" and went on: with lam > 0 the image was reported as a
// breakdown, with lam = 0 the bound lam e was 0 * Inf = NaN, which the range check let pass, and the image
// ended normally with wrong numbers. The CPU called it an invalid parameter, as the header does; so must
// every device.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/cases/cases.h"

using namespace segprior;
using namespace segprior::test;

TEST_CASE("regression: an infinite edge is an invalid parameter [small]") {
  for (segprior_device which : all_devices())
    for (double lam : {0.0, 0.3})
      for (bool float32 : {false, true})
        for (bool shared : {false, true})
          for (bool device_scalars : {false, true}) {
            INFO(name_of(which) << ", lam " << lam << ", float32 " << float32 << ", shared edge " << shared
                                << ", device scalars " << device_scalars);
            Device device(which);
            Case c({6, 9}, 3, 2);
            c.tv(lam).edge(shared ? Case::Edge::shared : Case::Edge::per_image).equal().iterations(4);
            if (float32) c.f32();
            if (device_scalars) c.device_scalars();
            ref::Problem problem = make_problem(c);
            problem.edge.back() = std::numeric_limits<double>::infinity();  // of the last image, or of all
            SoftmaxCall call(device, problem, settings_of(c));
            REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
            const std::vector<segprior_info> infos = call.infos();
            CHECK(infos[0].status == (shared ? SEGPRIOR_INVALID_PARAMETER : SEGPRIOR_ITERATION_CAP));
            CHECK(infos[1].status == SEGPRIOR_INVALID_PARAMETER);
            const ref::Array u = call.u->get();
            for (size_t k = 0; k < u.size(); ++k) REQUIRE(std::isnan(u[k]) == (shared || k >= u.size() / 2));
            const ref::Result want = ref::forward(problem);
            for (int64_t b = 0; b < 2; ++b) CHECK(infos[b].status == want.status(b));
          }
}
