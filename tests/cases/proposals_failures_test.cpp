// Bad numbers, bounds that cannot hold, and the edges of what is valid: statuses, and that no image disturbs
// another.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/cases/proposals_cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::proposals::Problem;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = INFINITY;
constexpr int32_t kMethods[] = {SEGPRIOR_PROPOSAL_EXACT, SEGPRIOR_PROPOSAL_GRADIENT};

ProposalCase three_images() { return {{5, 7}, 3, 3, ProposalBounds::boxes, 2, SEGPRIOR_FLOAT32, true}; }

bool all_nan(const Array &values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
}

// Image 1 of three, spoilt by `damage`, has the status and is NaN; the others keep their bits.
void check_isolated(int32_t status, const std::function<void(Problem &)> &damage, int32_t dtype) {
  ProposalCase c = three_images();
  c.dtype = dtype;
  const Problem good = c.problem();
  Problem bad = good;
  damage(bad);
  for (segprior_device which : all_devices())
    for (int32_t method : kMethods) {
      Device device(which);
      ProposalSettings settings;
      settings.dtype = dtype;
      settings.opts.method = method;
      settings.opts.step = 0.01;
      settings.opts.iterations = 4;
      ProposalCall healthy(device, good, settings), spoilt(device, bad, settings);
      REQUIRE(healthy.forward() == SEGPRIOR_OK);
      REQUIRE(spoilt.forward() == SEGPRIOR_OK);
      const std::vector<segprior_info> want = healthy.infos(), got = spoilt.infos();
      for (int64_t b = 0; b < 3; ++b) {
        CAPTURE(b);
        CHECK(got[b].status == (b == 1 ? status : want[b].status));
        for (TensorPtr ProposalCall::*output :
             {&ProposalCall::proposal, &ProposalCall::dual, &ProposalCall::volume}) {
          const Array g = image_of((spoilt.*output)->get(), b, 3),
                      w = image_of((healthy.*output)->get(), b, 3);
          CHECK((b == 1 ? all_nan(g) : g == w));
        }
        if (b == 1) CHECK((got[b].iterations == 0 && std::isnan(got[b].residual)));
      }
    }
}

struct Solved {
  Array proposal, dual, volume;
  std::vector<segprior_info> infos;
};

Solved run(Device &device, const Problem &p, const ProposalSettings &settings) {
  ProposalCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  return {call.proposal->get(), call.dual->get(), call.volume->get(), call.infos()};
}

// One image of 2 classes with these bounds.
Problem two_classes(const Array &lower, const Array &upper) {
  Problem p = ProposalCase{{5, 7}, 2, 1, ProposalBounds::none, 2}.problem();
  p.lower = lower;
  p.upper = upper;
  return p;
}

void for_devices(const std::function<void(Device &)> &body) {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    body(device);
  }
}

}  // namespace

TEST_CASE("proposals: a logit that is not finite fails its image alone [small]") {
  const Problem shape = three_images().problem();
  // A valid voxel of image 1.
  int64_t x = 0;
  while (!shape.valid(1, x)) ++x;
  const auto check = [&](double value, int32_t dtype) {
    check_isolated(
        SEGPRIOR_NONFINITE_INPUT, [&](Problem &p) { p.logits[(1 * p.classes + 2) * p.voxels() + x] = value; },
        dtype);
  };
  for (double value : {kNaN, kInf, -kInf}) check(value, SEGPRIOR_FLOAT32);
  check(kNaN, SEGPRIOR_FLOAT64);
  check(-kInf, SEGPRIOR_FLOAT16);
  check(kInf, SEGPRIOR_BFLOAT16);
}

TEST_CASE("proposals: invalid bounds fail their image alone [small]") {
  const auto check = [](const std::function<void(Problem &)> &damage) {
    check_isolated(SEGPRIOR_INVALID_PARAMETER, damage, SEGPRIOR_FLOAT32);
  };
  for (double value : {kNaN, -1.0, kInf}) check([=](Problem &p) { p.lower[4] = value; });
  for (double value : {kNaN, -1.0, -kInf}) check([=](Problem &p) { p.upper[4] = value; });
  check([](Problem &p) { p.upper[4] = 0.99 * p.lower[4]; });
  check([](Problem &p) { std::fill_n(&p.lower[3], 3, 0.0), std::fill_n(&p.upper[3], 3, 0.0); });
}

TEST_CASE("proposals: what lies behind the mask is not looked at [small]") {
  for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT16})
    for (int64_t classes : {3, 27})
      for (int32_t method : kMethods)
        for_devices([&](Device &device) {
          const ProposalCase c{{5, 7}, classes, 2, ProposalBounds::boxes, 2, dtype, true};
          const Problem clean = c.problem();
          Problem dirty = clean;
          for (int64_t k = 0; k < 2 * classes; ++k)
            for (int64_t x = 0; x < clean.voxels(); ++x)
              if (!clean.valid(k / classes, x))
                dirty.logits[k * clean.voxels() + x] = x % 3 == 0 ? kNaN : x % 3 == 1 ? kInf : -6e4;
          ProposalSettings settings;
          settings.dtype = dtype;
          settings.opts.method = method;
          settings.opts.iterations = 5;
          const Solved want = run(device, clean, settings), got = run(device, dirty, settings);
          CHECK(got.proposal == want.proposal);
          CHECK(got.dual == want.dual);
          CHECK(got.volume == want.volume);
          for (int64_t k = 0; k < 2 * classes; ++k)
            for (int64_t x = 0; x < clean.voxels(); ++x)
              if (!clean.valid(k / classes, x)) CHECK(got.proposal[k * clean.voxels() + x] == 0);
        });
}

TEST_CASE("proposals: bounds that cannot hold [small]") {
  const struct {
    Array lower, upper;
    int32_t status;
  } cases[] = {{{20, 17}, {}, SEGPRIOR_INFEASIBLE_VOLUME},  // of 35 voxels
               {{}, {20, 13}, SEGPRIOR_INFEASIBLE_VOLUME},
               {{20, 20}, {20, 20}, SEGPRIOR_INFEASIBLE_VOLUME},
               {{20, 15.4}, {20, 15.4}, SEGPRIOR_ITERATION_CAP},  // rounded volumes
               {{20, 15}, {20, 15}, SEGPRIOR_CONVERGED}};
  for (const auto &c : cases)
    for (int32_t method : kMethods)
      for_devices([&](Device &device) {
        ProposalSettings settings;
        settings.opts.method = method;
        settings.opts.step = 0.02;
        settings.opts.iterations = 60;
        const Problem p = two_classes(c.lower, c.upper);
        const Solved s = run(device, p, settings);
        CAPTURE(method);
        CHECK(s.infos[0].status == c.status);
        CHECK((s.infos[0].iterations == settings.opts.iterations) == (c.status != SEGPRIOR_CONVERGED));
        CHECK(difference(s.proposal, ref::proposals::at(p, s.dual).proposal).worst < 1e-10);
        double outside = 0;
        for (int64_t i = 0; i < 2; ++i)
          outside = std::max({outside, p.lower_of(0, i) - s.volume[i], s.volume[i] - p.upper_of(0, i)});
        CHECK(s.infos[0].residual == doctest::Approx(outside).epsilon(1e-9));
        // The bounds' ratio is what is left of bounds that do not add up.
        if (method == SEGPRIOR_PROPOSAL_EXACT && c.lower == c.upper && c.status == SEGPRIOR_INFEASIBLE_VOLUME)
          CHECK(s.volume[0] == doctest::Approx(17.5));
      });
}

TEST_CASE("proposals: where bounds cannot hold the duals do not drift [small]") {
  const struct {
    Array lower, upper, volume;
  } cases[] = {{{}, {1e-30, 1e-30}, {17.5, 17.5}},
               {{}, {2, 5}, {10, 25}},
               {{1000, 400}, {}, {25, 10}},
               {{1000, 400}, {1000, 400}, {25, 10}}};
  for (const auto &c : cases)
    for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64})
      for_devices([&](Device &device) {
        ProposalSettings settings;
        settings.dtype = dtype;
        settings.opts.iterations = 60;
        const Solved s = run(device, two_classes(c.lower, c.upper), settings);
        CHECK(s.infos[0].status == SEGPRIOR_INFEASIBLE_VOLUME);
        CHECK(s.infos[0].iterations == settings.opts.iterations);
        for (int64_t i = 0; i < 2; ++i) CHECK(s.volume[i] == doctest::Approx(c.volume[i]).epsilon(1e-5));
        // The sign says which bound is violated.
        const bool up = c.upper.empty() || c.upper[0] > 35;
        CHECK((up ? *std::min_element(s.dual.begin(), s.dual.end())
                  : *std::max_element(s.dual.begin(), s.dual.end())) == 0);
        CHECK(max_abs(s.dual) < 10);
      });
}

TEST_CASE("proposals: steps beyond the floating-point range [small]") {
  for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64})
    for_devices([&](Device &device) {
      const double top = dtype == SEGPRIOR_FLOAT32 ? FLT_MAX : DBL_MAX;
      ProposalSettings settings;
      settings.dtype = dtype;
      settings.opts.method = SEGPRIOR_PROPOSAL_GRADIENT;
      settings.opts.step = 0.9 * top;
      settings.opts.iterations = 7;
      Problem p = two_classes({30, 0}, {35, 35});
      p.logits = Array(70);
      p.logits[3] = 1;
      Solved s = run(device, p, settings);
      CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(s.infos[0].iterations == 1);
      CHECK(s.dual == Array{top, 0});
      CHECK(s.volume == Array{35, 0});
      // No Q of these steps has the sizes: all of class 0, then all of class 1, and back.
      p.lower = {30, 0};
      p.upper = {30, 6};
      s = run(device, p, settings);
      CHECK(s.infos[0].status == SEGPRIOR_ITERATION_CAP);
      CHECK(s.infos[0].residual == 5);
      CHECK(s.volume == Array{35, 0});
      CHECK(s.dual == Array{top, -top});
      // z + f is infinite in image 1 alone.
      p.batch = 2;
      p.lower = {30, 0};
      p.upper = {35, 35};
      p.logits.resize(140, 0.6 * top);
      s = run(device, p, settings);
      CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(s.infos[1].status == SEGPRIOR_BREAKDOWN);
      CHECK(s.infos[1].iterations == 1);
      CHECK(std::isnan(s.infos[1].residual));
      for (const Array *values : {&s.proposal, &s.dual, &s.volume}) {
        const Array first = image_of(*values, 0, 2);
        CHECK(std::none_of(first.begin(), first.end(), [](double v) { return std::isnan(v); }));
        CHECK(all_nan(image_of(*values, 1, 2)));
      }
    });
}

TEST_CASE("proposals: excluded classes, one class, no bounds, everything masked [small]") {
  for_devices([](Device &device) {
    ProposalSettings settings;
    settings.opts.iterations = 30;
    Solved s = run(device, two_classes({}, {0, kInf}), settings);
    CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
    CHECK(s.dual == Array{-kInf, 0});
    CHECK(s.volume == Array{0, 35});
    s = run(device, two_classes({}, {}), settings);
    CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
    CHECK(s.infos[0].iterations == 0);
    CHECK(s.infos[0].residual == 0);
    CHECK(s.dual == Array{0, 0});

    Problem one = two_classes({}, {});
    one.classes = 1;
    one.logits.resize(35);
    one.lower = one.upper = {35};
    s = run(device, one, settings);
    CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
    CHECK(s.proposal == Array(35, 1.0));
    one.lower = one.upper = {30};
    CHECK(run(device, one, settings).infos[0].status == SEGPRIOR_INFEASIBLE_VOLUME);

    for (int32_t method : kMethods) {
      settings.opts.method = method;
      Problem masked = two_classes({}, {0, 0});
      masked.mask = Array(35);
      s = run(device, masked, settings);
      CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(s.proposal == Array(70));
      CHECK(s.volume == Array(2));
      masked.upper = Array();
      masked.lower = {1, 0};
      s = run(device, masked, settings);
      CHECK(s.infos[0].status == SEGPRIOR_INFEASIBLE_VOLUME);
      CHECK(s.infos[0].residual == 1);
      CHECK(s.proposal == Array(70));
    }
  });
}

TEST_CASE("proposals: a class whose volume underflows recovers [small]") {
  for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64})
    for_devices([&](Device &device) {
      Problem p = two_classes({10, 0}, {});
      for (int64_t x = 0; x < 35; ++x) {
        p.logits[x] = 0.01 * static_cast<double>(x);
        p.logits[35 + x] = 5000;
      }
      ProposalSettings settings;
      settings.dtype = dtype;
      // Numbers of this size are 5e-4 apart in float32, and so are the duals that can be told apart.
      settings.opts.tolerance = dtype == SEGPRIOR_FLOAT32 ? 1e-3 : 1e-9;
      const Solved s = run(device, p, settings);
      CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(s.infos[0].iterations < 150);
      CHECK(std::fabs(s.volume[0] - 10) <= 35 * settings.opts.tolerance);
    });
}

TEST_CASE("proposals: f goes back to 0 where a bound stops to bind [small]") {
  // The first steps push class 1 below its upper bound together with class 0's lower bound; at the optimum
  // that one bound alone is active.
  for_devices([](Device &device) {
    const ProposalCase c{{31, 33}, 3, 1, ProposalBounds::none, 3};
    Problem p = c.problem();
    const Array v = ref::proposals::at(p, Array(3)).volume;
    const double voxels = static_cast<double>(p.voxels());
    p.lower = {v[0] + 0.6 * (voxels - v[0]), 0, 0};
    p.upper = {INFINITY, 0.9 * v[1], INFINITY};
    ProposalSettings settings;
    settings.opts.tolerance = 1e-10;
    const Solved s = run(device, p, settings);
    CHECK(s.infos[0].status == SEGPRIOR_CONVERGED);
    CHECK(s.dual[0] > 0);
    CHECK(s.dual[1] == 0);
    CHECK(s.volume[1] < p.upper[1] - 1);
  });
}
