// The proposals against their definition: Q is the softmax of z + f, and f satisfies the conditions of the
// optimum; in float64 also the reference's minimiser. On every device.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/cases/proposals_cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::proposals::Problem;

namespace {

// The largest logit and dual together.
double largest(const Problem &p, const Array &dual) { return max_abs(p.logits) + max_abs(dual); }

// Q = S(z + f), V = sum Q, and the info's residual.
void check_consistent(const Problem &p, const ProposalCase &c, const ProposalCall &call) {
  const Array dual = call.dual->get();
  const ref::proposals::Result want = ref::proposals::at(p, dual);
  const double top = largest(p, dual), voxels = static_cast<double>(p.voxels());
  CHECK_CLOSE(c, call.proposal->get(), want.proposal, proposal_rounding(c.dtype, top));
  // The dual itself is stored with a relative rounding error, and so are volumes.
  const double rounding = 2 * proposal_rounding(c.dtype, top, false) * voxels;
  CHECK_CLOSE(c, call.volume->get(), want.volume, rounding);
  const std::vector<segprior_info> infos = call.infos();
  for (int64_t b = 0; b < p.batch; ++b) {
    double outside = 0;
    for (int64_t i = 0; i < p.classes; ++i) {
      const double v = want.volume[b * p.classes + i];
      outside = std::max({outside, p.lower_of(b, i) - v, v - p.upper_of(b, i)});
    }
    CHECK_MESSAGE(std::fabs(infos[b].residual - outside) <= rounding, c, ": residual ", infos[b].residual,
                  ", want ", outside);
  }
}

// f is optimal up to `tolerance` voxels: bounds hold, and a class with f > 0 (< 0) is at its lower (upper)
// bound.
void check_optimal(const Problem &p, const ProposalCase &c, const ProposalCall &call, double tolerance) {
  const Array dual = call.dual->get(), volume = call.volume->get();
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.classes; ++i) {
      const double f = dual[b * p.classes + i], v = volume[b * p.classes + i];
      CAPTURE(c);
      CAPTURE(b);
      CAPTURE(i);
      CHECK(v >= p.lower_of(b, i) - tolerance);
      CHECK(v <= p.upper_of(b, i) + tolerance);
      if (f > 0) CHECK(v <= p.lower_of(b, i) + tolerance);
      if (f < 0) CHECK(v >= p.upper_of(b, i) - tolerance);
      CHECK(std::isinf(f) == (p.upper_of(b, i) == 0));
    }
}

void check_exact(const ProposalCase &c, Device &device, double tolerance) {
  const Problem p = c.problem();
  ProposalSettings settings;
  settings.dtype = c.dtype;
  settings.opts.tolerance = tolerance;
  ProposalCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  for (const segprior_info &info : call.infos()) {
    CHECK_MESSAGE(info.status == SEGPRIOR_CONVERGED, c, " after ", info.iterations);
    CHECK_MESSAGE(info.iterations < 150, c);
  }
  check_consistent(p, c, call);
  const double voxels = static_cast<double>(p.voxels());
  const double rounding = 2 * proposal_rounding(c.dtype, largest(p, call.dual->get()), false) * voxels;
  check_optimal(p, c, call, tolerance * voxels + rounding);
  // The minimiser is unique where the logits are finite. Volumes off by `tolerance` J voxels: an error of Q
  // of that tolerance times J / (curvature of the dual), measured up to 38 in these cases.
  if (c.dtype == SEGPRIOR_FLOAT64 && c.bounds != ProposalBounds::none)
    CHECK_CLOSE(c, call.proposal->get(), ref::proposals::solve(p).proposal, 400 * tolerance);
}

void check_gradient(const ProposalCase &c, Device &device, int iterations, double tolerance) {
  const Problem p = c.problem();
  ProposalSettings settings;
  settings.dtype = c.dtype;
  settings.opts.method = SEGPRIOR_PROPOSAL_GRADIENT;
  settings.opts.step = 1 / static_cast<double>(p.voxels());
  settings.opts.iterations = iterations;
  settings.opts.tolerance = tolerance;
  ProposalCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  const ref::proposals::Result want = ref::proposals::gradient(p, settings.opts.step, iterations, tolerance);
  // The steps shrink errors: each adds the rounding of a volume times the step.
  const double rounding = proposal_rounding(c.dtype, largest(p, want.dual), false) * (iterations + 4);
  CHECK_CLOSE(c, call.dual->get(), want.dual, rounding);
  CHECK_CLOSE(c, call.proposal->get(), want.proposal, rounding + proposal_rounding(c.dtype, 0));
  const std::vector<segprior_info> infos = call.infos();
  for (int64_t b = 0; b < p.batch; ++b) {
    CHECK_MESSAGE(infos[b].iterations == want.iterations[b], c);
    const bool capped = want.iterations[b] == iterations;
    if (!capped) CHECK(infos[b].status == SEGPRIOR_CONVERGED);
    if (capped && tolerance == 0) CHECK(infos[b].status == SEGPRIOR_ITERATION_CAP);
  }
}

double tolerance_of(const ProposalCase &c) { return c.dtype == SEGPRIOR_FLOAT64 ? 1e-11 : 2e-6; }

}  // namespace

TEST_CASE("proposals, exact") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const ProposalCase &c : proposal_cases()) check_exact(c, device, tolerance_of(c));
  }
}

TEST_CASE("proposals, exact, tiny [small] [race]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const ProposalCase &c : tiny_proposal_cases()) check_exact(c, device, 1e-5);
  }
}

TEST_CASE("proposals, gradient, step by step") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const ProposalCase &c : proposal_cases())
      if (c.bounds != ProposalBounds::excluded && c.bounds != ProposalBounds::none)
        for (int iterations : {0, 1, 2, 5, 40}) check_gradient(c, device, iterations, 0);
  }
}

TEST_CASE("proposals, gradient, tiny [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const ProposalCase &c : tiny_proposal_cases())
      for (int iterations : {0, 1, 6}) check_gradient(c, device, iterations, 0);
  }
}

TEST_CASE("proposals, gradient stops at the first Q with the sizes") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    check_gradient({{31, 33}, 3, 2, ProposalBounds::boxes, 3}, device, 400, 1e-3);
    check_gradient({{31, 33}, 2, 2, ProposalBounds::none, 3}, device, 400, 0);
  }
}

TEST_CASE("proposals, both methods end at the same Q") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const ProposalCase &c : {ProposalCase{{7, 9}, 2, 2, ProposalBounds::lower_of_one, 2},
                                  ProposalCase{{5, 3, 3}, 3, 2, ProposalBounds::equality, 1},
                                  ProposalCase{{31}, 3, 2, ProposalBounds::upper_of_rest, 2}}) {
      const Problem p = c.problem();
      ProposalSettings settings;
      settings.opts.tolerance = 1e-12;
      ProposalCall exact(device, p, settings);
      REQUIRE(exact.forward() == SEGPRIOR_OK);
      settings.opts.method = SEGPRIOR_PROPOSAL_GRADIENT;
      settings.opts.iterations = 5000;
      settings.opts.step = 2 / static_cast<double>(p.voxels());
      ProposalCall gradient(device, p, settings);
      REQUIRE(gradient.forward() == SEGPRIOR_OK);
      for (const segprior_info &info : gradient.infos()) CHECK(info.status == SEGPRIOR_CONVERGED);
      CHECK_CLOSE(c, gradient.proposal->get(), exact.proposal->get(), 1e-9);
    }
  }
}

TEST_CASE("proposals, confident logits and far bounds converge in a few iterations") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (double scale : {10.0, 30.0, 100.0})
      for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64}) {
        ProposalCase c{{61, 67}, 2, 1, ProposalBounds::lower_of_one, scale, dtype};
        const Problem p = c.problem();
        ProposalSettings settings;
        settings.dtype = dtype;
        ProposalCall call(device, p, settings);
        REQUIRE(call.forward() == SEGPRIOR_OK);
        const segprior_info info = call.infos()[0];
        CAPTURE(c);
        CHECK(info.status == SEGPRIOR_CONVERGED);
        CHECK(info.iterations <= 40);
      }
  }
}
