// Every case of the losses on every device against the reference, and the golden vectors on every device.
#include <doctest/doctest.h>

#include <string>

#include "tests/cases/losses_check.h"
#include "tests/support/compare.h"
#include "tests/support/losses_golden.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_all(LossCase::Size size) {
  int64_t checked = 0;
  for (const LossCase &c : loss_cases()) {
    if (c.size_ != size) continue;
    const LossPrepared prepared(c);
    for (segprior_device which : all_devices()) {
      Device device(which);
      check_case(prepared, device);
      ++checked;
    }
  }
  CHECK(checked > 0);
}

}  // namespace

TEST_CASE("losses cases, tiny [small] [race]") { check_all(LossCase::Size::race); }
TEST_CASE("losses cases, small [small]") { check_all(LossCase::Size::small); }
TEST_CASE("losses cases, full") { check_all(LossCase::Size::full); }

TEST_CASE("losses golden vectors [small]") {
  for (const std::string &name : loss_golden_names()) {
    const LossGolden g = read_loss_golden(name);
    for (const segprior_device which : all_devices())
      for (const bool float32 : {false, true}) {
        INFO("golden case " << name << ", " << (float32 ? "float32" : "float64") << " on " << name_of(which));
        Device device(which);
        LossSettings settings;
        settings.dtype = float32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
        settings.label_dtype = SEGPRIOR_INT32;
        const double tolerance = float32 ? 2e-6 : 1e-13;
        LossCall call(device, g.problem, settings);
        REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
        CHECK_CLOSE("loss", call.total->get(), ref::Array{g.loss}, tolerance * g.loss);
        ref::losses::Cotangents one;
        one.total = {1};
        REQUIRE_MESSAGE(call.backward(one) == SEGPRIOR_OK, std::string(segprior_last_error()));
        CHECK_CLOSE("grad_logits", call.grad_scores->get(), g.grad_logits,
                    tolerance * max_abs(g.grad_logits));
        LossCall same(device, g.of_probabilities(), settings);
        REQUIRE_MESSAGE(same.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
        CHECK_CLOSE("loss of probabilities", same.total->get(), ref::Array{g.loss}, tolerance * g.loss);
      }
  }
}
