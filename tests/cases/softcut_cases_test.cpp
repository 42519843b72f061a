// Every case of SoftCut on every device against the reference, and the golden vectors on every device.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"
#include "tests/support/softcut_golden.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Whether a device that does not do the case is right not to.
bool may_refuse(const Device &device, const SoftcutCase &c) {
  if (c.solver_ == SoftcutCase::Solver::direct) return true;  // CUDA, or a build without Eigen
  // No device before compute capability 9.0 has clusters.
  return device.which().type == SEGPRIOR_CUDA && c.path_ == SEGPRIOR_PATH_CLUSTER;
}

void check_all(SoftcutCase::Size size) {
  const WithClusters clusters;
  int64_t checked = 0;
  for (const SoftcutCase &c : softcut_cases()) {
    if (c.size_ != size) continue;
    const SoftcutPrepared prepared(c);
    for (segprior_device which : all_devices()) {
      Device device(which);
      const std::vector<int32_t> paths = paths_of(device, c);
      const bool served = !paths.empty() || may_refuse(device, c);
      CHECK_MESSAGE(served, "add(", c.text(), "); is refused on ", name_of(which), ": ",
                    std::string(segprior_last_error()));
      for (int32_t path : paths) check_case(prepared, device, path);
      checked += !paths.empty();
    }
  }
  CHECK(checked > 0);
}

}  // namespace

TEST_CASE("softcut cases, tiny [small] [race]") { check_all(SoftcutCase::Size::race); }
TEST_CASE("softcut cases, small [small]") { check_all(SoftcutCase::Size::small); }
TEST_CASE("softcut cases, full") { check_all(SoftcutCase::Size::full); }

namespace {

void check_golden(const std::string &name, SoftcutCase::Solver solver) {
  const SoftcutGolden g = read_softcut_golden(name);
  for (const segprior_device which : all_devices())
    for (const bool float32 : {false, true}) {
      INFO("golden case " << name << ", " << (float32 ? "float32" : "float64") << " on " << name_of(which));
      Device device(which);
      SoftcutSettings settings;
      settings.dtype = float32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
      settings.opts.solver = static_cast<int32_t>(solver);
      // float32: weights of 1e4 leave no better residual than about their rounding.
      const bool strong = name == "softcut_2d_strong" || name == "softcut_2d_medium";
      settings.opts.tolerance = settings.opts.backward_tolerance = float32 ? 1e-6 : 1e-13;
      const double tolerance = float32 ? (strong ? 5e-3 : 5e-5) : 1e-10;
      SoftcutCall call(device, g.problem, settings);
      REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_CLOSE("x", call.x->get(), g.x, tolerance * max_abs(g.x));
      REQUIRE_MESSAGE(call.backward(g.grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_CLOSE("grad_p", call.grad_scores->get(), g.grads.scores, tolerance * max_abs(g.grads.scores));
      for (int m = 0; m < g.problem.nd(); ++m) {
        const ref::Array &want = g.grads.edges.of[m];
        CHECK_CLOSE("grad_w" << m, call.grad_edges.of[m]->get(), want,
                    tolerance * std::max(1e-2, max_abs(want)));
      }
    }
}

}  // namespace

TEST_CASE("softcut golden vectors, small [small]") {
  for (const std::string &name : softcut_golden_names())
    if (name.find("medium") == std::string::npos) check_golden(name, SoftcutCase::Solver::automatic);
}
TEST_CASE("softcut golden vectors, every solver") {
  for (const std::string &name : softcut_golden_names())
    for (const auto solver : {SoftcutCase::Solver::cg, SoftcutCase::Solver::jacobi,
                              SoftcutCase::Solver::multigrid, SoftcutCase::Solver::chebyshev}) {
      const bool slow = solver == SoftcutCase::Solver::chebyshev && name == "softcut_2d_strong";
      if (!slow) check_golden(name, solver);
    }
}
