// opts.compact_saved: forward does not depend on it, saved has about half the bytes, and gradients differ by
// what 16-bit fixed point of duals and u explains.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Gradients are compared as a whole: where rounding turns a projection active, a few elements move visibly.
double relative_distance(const ref::Array &got, const ref::Array &want) {
  double error = 0, norm = 0;
  for (size_t k = 0; k < want.size(); ++k) {
    error += (got[k] - want[k]) * (got[k] - want[k]);
    norm += want[k] * want[k];
  }
  return std::sqrt(error / norm);
}

std::vector<Case> cases() {
  const auto base = [] { return Case({17, 19}, 3, 2).f32().iterations(12); };
  return {base().tv(0.3).equal(),
          base().tv(0.3).equal().checkpoint(4),
          base().tv(0.3).edge(Case::Edge::per_image),
          base().tv(0.3).mask(Case::Mask::per_image),
          base().td(0.2).equal(),
          base().tv(0.2).td(0.2).star({1}).checkpoint(5),
          base().bf16().tv(0.3)};
}

}  // namespace

TEST_CASE("compact saved state: half the bytes, nearly the same gradients [small]") {
  for (segprior_device which : all_devices())
    for (const Case &c : cases()) {
      INFO(c.text() << " on " << name_of(which));
      Device device(which);
      const ref::Problem problem = make_problem(c);
      const ref::Array grad_u = make_grad_u(c);
      SoftmaxCall full(device, problem, settings_of(c)), compact(device, problem, settings_of(c));
      compact.opts.compact_saved = 1;
      compact.allocate();
      REQUIRE(full.forward() == SEGPRIOR_OK);
      REQUIRE_MESSAGE(compact.forward() == SEGPRIOR_OK, segprior_last_error());
      CHECK(compact.u->memory().content() == full.u->memory().content());
      const double ratio =
          static_cast<double>(compact.saved->bytes()) / static_cast<double>(full.saved->bytes());
      CHECK(ratio > 0.45);
      CHECK(ratio < 0.65);

      REQUIRE(full.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
      REQUIRE_MESSAGE(compact.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK,
                      segprior_last_error());
      const auto got = compact.gradient_list(), want = full.gradient_list();
      for (size_t k = 0; k < want.size(); ++k) {
        INFO(std::string(want[k].first));
        const ref::Array expected = want[k].second->get();
        const bool sum = expected.size() == 1;  // with cancellation
        CHECK(relative_distance(got[k].second->get(), expected) < (sum ? 3e-2 : 3e-3));
      }
      REQUIRE(compact.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);  // reads no saved state
      REQUIRE(full.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);
      CHECK(compact.gradients.features->memory().content() == full.gradients.features->memory().content());
      CHECK(compact.canaries_intact());
      CHECK(compact.violations().empty());
    }
}
