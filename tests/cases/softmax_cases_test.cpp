// Every case on every device against the reference, and the golden vectors on every device.
#include <doctest/doctest.h>

#include "tests/cases/check.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_all(Case::Size size) {
  int64_t checked = 0;
  for (const Case &c : softmax_cases()) {
    if (c.size_ != size) continue;
    const Prepared prepared = prepare(c);
    int restarts = 0;
    for (const ref::Trace &image : prepared.result.images) restarts += image.restarts;
    if (c.name_.find("restarts") != std::string::npos)
      CHECK_MESSAGE(restarts > 0, "add(", prepared.c.text(), "); does not restart");
    for (segprior_device which : all_devices()) {
      Device device(which);
      CHECK_MESSAGE(serves(device, c), "add(", c.text(), "); the path does not serve it");
      if (!serves(device, c)) continue;
      check_case(prepared, device);
      ++checked;
      // Small problems run on chip of their own accord: they have to exercise the kernels of the large ones
      // too.
      if (which.type != SEGPRIOR_CUDA || c.path_ != SEGPRIOR_PATH_AUTO) continue;
      if (!serves(device, Case(c).path(SEGPRIOR_PATH_ON_CHIP))) continue;
      Prepared streaming = prepared;
      streaming.c.path(SEGPRIOR_PATH_STREAMING);
      check_case(streaming, device);
    }
  }
  CHECK(checked > 0);
}

}  // namespace

TEST_CASE("softmax cases, tiny [small] [race]") { check_all(Case::Size::race); }
TEST_CASE("softmax cases, small [small]") { check_all(Case::Size::small); }
TEST_CASE("softmax cases, full") { check_all(Case::Size::full); }

namespace {

void check_golden(const std::string &name) {
  const Golden g = read_golden(name);
  for (const segprior_device which : all_devices())
    for (const bool float32 : {false, true}) {
      INFO("golden case " << name << ", " << (float32 ? "float32" : "float64") << " on " << name_of(which));
      Device device(which);
      CallSettings settings;
      settings.dtype = float32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
      settings.checkpoint_interval = 4;
      SoftmaxCall call(device, g.problem, settings);
      REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
      // float64: rounding over at most 30 iterations. float32: the inputs themselves are rounded, which moves
      // u by up to 1e-7 * |o| / eps per iteration.
      const double tolerance = float32 ? 2e-4 : 1e-11;
      CHECK_CLOSE("u", call.u->get(), g.array("u"), tolerance);
      if (call.tv_dual) CHECK_CLOSE("tv_dual", call.tv_dual->get(), g.array("q_tv"), tolerance);
      if (call.volume_dual) CHECK_CLOSE("volume_dual", call.volume_dual->get(), g.array("f"), tolerance);
      if (call.star_dual)
        CHECK_CLOSE("star_dual", call.star_dual->get(), g.stars("q_star", g.problem.voxels()), tolerance);
      REQUIRE_MESSAGE(call.backward(SEGPRIOR_BACKWARD_LAST, g.grad_u) == SEGPRIOR_OK, segprior_last_error());
      const ref::Array quasi = g.array("grad_o_quasi");
      CHECK_CLOSE("grad_o_quasi", call.gradients.features->get(), quasi,
                  tolerance * max_abs(quasi) / g.problem.eps);
      REQUIRE_MESSAGE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, g.grad_u) == SEGPRIOR_OK,
                      segprior_last_error());
      if (float32) continue;  // kinks: see prepare(); the cases compare float32 gradients
      const auto check = [&](const char *file, const TensorPtr &tensor) {
        if (!tensor || !g.has(file)) return;
        const ref::Array want = g.array(file);
        CHECK_CLOSE(file, tensor->get(), want, tolerance * std::max(1.0, max_abs(want)));
      };
      check("grad_o", call.gradients.features);
      check("grad_tv_lam", call.gradients.tv_lam);
      check("grad_eps", call.gradients.eps);
      check("grad_tv_edge", call.gradients.tv_edge);
      check("grad_volume", call.gradients.volume);
      check("grad_volume_lower", call.gradients.volume_lower);
      check("grad_volume_upper", call.gradients.volume_upper);
      check("grad_td_lam", call.gradients.td_lam);
      check("grad_td_edge", call.gradients.td_edge);
      check("grad_td_kernel", call.gradients.td_kernel);
    }
}

}  // namespace

TEST_CASE("softmax golden vectors, small [small]") {
  for (const std::string &name : golden_names())
    if (name.find("medium") == std::string::npos) check_golden(name);
}
TEST_CASE("softmax golden vectors, medium") {
  check_golden("vptv_2d_medium");
  check_golden("std_2d_medium");
}
