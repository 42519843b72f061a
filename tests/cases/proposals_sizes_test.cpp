// Sizes at which the passes' loops run more than once, and what float32 sums keep: on every device.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/cases/proposals_cases.h"
#include "tests/support/compare.h"

#if defined(SEGPRIOR_WITH_CUDA)
#include <cuda_runtime.h>  // says whether it is the fake one
#endif

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::proposals::Problem;

namespace {

// A few iterations in float64: Q and V against their definition, the duals against the CPU's.
void check(const ProposalCase &c, int iterations) {
  const Problem p = c.problem();
  ProposalSettings settings;
  settings.opts.iterations = iterations;
  settings.opts.tolerance = 0;
  Array of_cpu;
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ProposalCall call(device, p, settings);
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    const Array dual = call.dual->get();
    if (which.type == SEGPRIOR_CPU) of_cpu = dual;
    CHECK_CLOSE(c, dual, of_cpu, 1e-10);
    CHECK(max_abs(dual) > 0);
    const ref::proposals::Result want = ref::proposals::at(p, dual);
    const double rounding = proposal_rounding(c.dtype, max_abs(p.logits) + max_abs(dual));
    CHECK_CLOSE(c, call.proposal->get(), want.proposal, rounding);
    CHECK_CLOSE(c, call.volume->get(), want.volume, 2 * rounding * static_cast<double>(p.voxels()));
    for (const segprior_info &info : call.infos())
      CHECK((info.iterations == iterations || info.status == SEGPRIOR_CONVERGED));
  }
}

}  // namespace

// CUDA: chunks of 2048 voxels, of which a thread takes 8 in two rounds, and 32 lanes add up 129 chunks.
TEST_CASE("proposals, large images") {
  for (int64_t classes : {2, 27}) check({{263009}, classes, 1, ProposalBounds::equality}, 2);
}

TEST_CASE("proposals, 256 classes [small]") { check({{37}, 256, 2, ProposalBounds::equality}, 2); }
TEST_CASE("proposals, 256 classes, every loop") { check({{31, 33}, 256, 2, ProposalBounds::boxes}, 4); }

// The fake runtime starts every thread of every block: minutes for what a device does at once.
#if defined(FAKECUDA)
constexpr int64_t kImages = 700;
#else
constexpr int64_t kImages = 70000;  // more than a grid's second axis holds
#endif
TEST_CASE("proposals, many images of one voxel") {
  for (int iterations : {1, 4}) check({{1}, 2, kImages, ProposalBounds::equality}, iterations);
}

TEST_CASE("proposals: float32 volumes of a constant image stay within the default tolerance") {
  // Equal values round alike: what one addition loses is not made good by the next.
  for (double logit : {-3.0, -0.2, 2.5})
    for (int64_t voxels : {65536, 40009})
      for (segprior_device which : all_devices()) {
        CAPTURE(logit);
        CAPTURE(voxels);
        Device device(which);
        Problem p;
        p.classes = 2;
        p.spatial = {voxels};
        p.logits = Array(2 * voxels);
        std::fill_n(p.logits.begin(), voxels, logit);
        ProposalSettings settings;
        settings.dtype = SEGPRIOR_FLOAT32;
        ProposalCall call(device, p, settings);
        REQUIRE(call.forward() == SEGPRIOR_OK);
        const Array volume = call.volume->get(), q = call.proposal->get();
        for (int64_t i = 0; i < 2; ++i)
          CHECK(std::fabs(volume[i] / static_cast<double>(voxels) - q[i * voxels]) < 3e-7);
      }
}
