// Tests of the reference itself: golden vectors of an unrelated oracle, and central differences for what the
// golden vectors do not cover (acceleration, default steps, tolerance stops, warm starts).
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "tests/ref/softmax_ref.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

// Both sides are float64 sums of at most a few thousand terms of order 1 over at most 30 iterations.
constexpr double kGoldenTolerance = 2e-12;

TEST_CASE("reference: golden vectors [ref]") {
  for (const std::string &name : golden_names()) {
    const Golden g = read_golden(name);
    INFO("golden case " << name);
    const ref::Result r = ref::forward(g.problem);
    CHECK_CLOSE("u", r.u, g.array("u"), kGoldenTolerance);
    if (g.problem.tv) CHECK_CLOSE("q", r.tv_dual, g.array("q_tv"), kGoldenTolerance);
    if (g.has("f")) CHECK_CLOSE("f", r.volume_dual, g.array("f"), kGoldenTolerance);
    CHECK_CLOSE("g", r.star_dual, g.stars("q_star", g.problem.voxels()), kGoldenTolerance);

    const ref::Gradients grads = ref::backward_unrolled(g.problem, r, g.grad_u);
    const auto check = [&](const char *file, const ref::Array &got) {
      if (!g.has(file)) return 0;
      const ref::Array want = g.array(file);
      CHECK_CLOSE(file, got, want, kGoldenTolerance * std::max(1.0, max_abs(want)));
      return 1;
    };
    int checked = check("grad_o", grads.features) + check("grad_tv_edge", grads.tv_edge) +
                  check("grad_volume", grads.volume) + check("grad_volume_lower", grads.volume_lower) +
                  check("grad_volume_upper", grads.volume_upper) + check("grad_tv_lam", {grads.tv_lam}) +
                  check("grad_eps", {grads.eps}) + check("grad_td_lam", {grads.td_lam}) +
                  check("grad_td_edge", grads.td_edge) + check("grad_td_kernel", grads.td_kernel);
    CHECK(checked >= 3);
    CHECK_CLOSE("grad_o_quasi", ref::backward_last(g.problem, r.u, g.grad_u), g.array("grad_o_quasi"),
                kGoldenTolerance * max_abs(g.array("grad_o_quasi")));
    if (!g.problem.td.on) continue;
    // The kernels of these cases are Gaussians.
    ref::Problem gaussian = g.problem;
    gaussian.td.extent = {};
    CHECK_CLOSE("kernel", ref::kernel_of(gaussian, 0).taps, g.array("td_kernel"), 1e-15);
  }
}

namespace {

ref::Problem problem(std::vector<int64_t> spatial, int64_t classes, uint64_t seed) {
  Random random(seed);
  ref::Problem p;
  p.batch = 2;
  p.classes = classes;
  p.spatial = std::move(spatial);
  p.features = random.array(p.batch * classes * p.voxels(), -1.5, 1.5);
  p.tv = true;
  p.eps = 0.6;
  p.lam = 0.4;
  p.iterations = 9;
  return p;
}

void with_volume(ref::Problem &p) {
  p.volume = ref::Volume::equality;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.classes; ++i)
      p.upper.push_back(p.voxels() * 2.0 * (i + 1) / (p.classes * (p.classes + 1)));
  p.lower = p.upper;
}

void with_threshold_dynamics(ref::Problem &p, double lam) {
  p.td.on = true;
  p.td.lam = lam;
  p.td.sigma = 1.3;
  p.td.size = 3;
}

void with_stars(ref::Problem &p, std::vector<int32_t> classes, uint64_t seed) {
  p.star.classes = std::move(classes);
  Random random(seed);
  for (int64_t k = 0; k < p.batch * p.star.count(); ++k)
    for (int64_t n : p.spatial) p.star.center.push_back(random.uniform(-1, static_cast<double>(n)));
}

void with_mask(ref::Problem &p, bool shared, uint64_t seed) {
  Random random(seed);
  for (int64_t k = 0; k < (shared ? 1 : p.batch) * p.voxels(); ++k) p.mask.push_back(random.bits() % 4 != 0);
}

// Compares every gradient with central differences of the loss <grad_u, u>. beta is a constant of backward:
// its dependence on the inputs is a step function, so differences do not see it either.
void check_differences(const ref::Problem &p, uint64_t seed) {
  Random random(seed);
  const ref::Result base = ref::forward(p);
  REQUIRE(std::min(base.margins.projection, base.margins.star) >
          2e-6);  // else a difference quotient would straddle a kink
  const ref::Array grad_u = random.array(static_cast<int64_t>(base.u.size()), -1, 1);
  const ref::Gradients g = ref::backward_unrolled(p, base, grad_u);
  const double h = 1e-6;
  const auto slope = [&](const std::function<void(ref::Problem &, double)> &move) {
    ref::Problem ahead = p, behind = p;
    move(ahead, h);
    move(behind, -h);
    return (dot(grad_u, ref::forward(ahead).u) - dot(grad_u, ref::forward(behind).u)) / (2 * h);
  };
  // Rounding of the quotient: about 1e-16 * |loss| / h; truncation: h^2 times third derivatives.
  const double tolerance = 2e-8;
  const auto close = [&](const char *what, double got, double want) {
    CHECK_MESSAGE(std::fabs(got - want) <= tolerance * std::max(1.0, std::fabs(want)), what, ": gradient ",
                  got, ", difference quotient ", want);
  };
  for (int n = 0; n < 6; ++n) {
    const size_t k = random.bits() % p.features.size();
    close("features", g.features[k], slope([k](ref::Problem &q, double s) { q.features[k] += s; }));
  }
  close("eps", g.eps, slope([](ref::Problem &q, double s) { q.eps += s; }));
  if (p.init_eps > 0)
    close("init_eps", g.init_eps, slope([](ref::Problem &q, double s) { q.init_eps += s; }));
  if (p.tv) {
    close("lam", g.tv_lam, slope([](ref::Problem &q, double s) { q.lam += s; }));
    close("tau", g.tv_tau, slope([](ref::Problem &q, double s) { q.tau = q.step() + s; }));
  }
  for (size_t k = 0; k < p.edge.size(); k += p.edge.size() / 4)
    close("edge", g.tv_edge[k], slope([k](ref::Problem &q, double s) { q.edge[k] += s; }));
  if (p.td.on) close("td_lam", g.td_lam, slope([](ref::Problem &q, double s) { q.td.lam += s; }));
  if (p.td.on && p.td.extent.empty())
    close("td_sigma", g.td_sigma, slope([](ref::Problem &q, double s) { q.td.sigma += s; }));
  for (size_t k = 0; k < p.td.kernel.size(); k += 1 + p.td.kernel.size() / 5)
    close("td_kernel", g.td_kernel[k], slope([k](ref::Problem &q, double s) { q.td.kernel[k] += s; }));
  for (size_t k = 0; k < p.td.edge.size(); k += p.td.edge.size() / 4)
    close("td_edge", g.td_edge[k], slope([k](ref::Problem &q, double s) { q.td.edge[k] += s; }));
  for (int64_t m = 0; m < p.star.count(); ++m)
    close("star_tau", g.star_tau[m], slope([m](ref::Problem &q, double s) {
            const ref::Problem old = q;
            q.star.tau.resize(q.star.count());
            for (int64_t n = 0; n < q.star.count(); ++n) q.star.tau[n] = old.star_step(n) + (n == m ? s : 0);
          }));
  for (size_t k = 0; k < p.star.center.size(); ++k)
    close("star_center", g.star_center[k], slope([k](ref::Problem &q, double s) { q.star.center[k] += s; }));
  for (size_t k = 0; k < p.upper.size(); ++k) {
    if (p.upper[k] == 0) continue;
    if (p.volume == ref::Volume::equality) {
      close("volume", g.volume[k], slope([k](ref::Problem &q, double s) { q.lower[k] = q.upper[k] += s; }));
      continue;
    }
    if (p.upper[k] < INFINITY)
      close("upper", g.volume_upper[k], slope([k](ref::Problem &q, double s) { q.upper[k] += s; }));
    if (p.lower[k] > 0)
      close("lower", g.volume_lower[k], slope([k](ref::Problem &q, double s) { q.lower[k] += s; }));
  }
}

}  // namespace

TEST_CASE("reference: central differences [ref]") {
  SUBCASE("plain, default step, start with its own eps") {
    ref::Problem p = problem({5, 7}, 3, 1);
    p.init_eps = 1.1;
    with_volume(p);
    check_differences(p, 2);
  }
  SUBCASE("accelerated, default step, edge per image") {
    ref::Problem p = problem({6, 5}, 3, 3);
    p.accelerate = true;
    p.iterations = 14;
    p.edge = Random(4).array(p.batch * p.voxels(), 0.2, 1.4);
    with_volume(p);
    check_differences(p, 5);
  }
  SUBCASE("accelerated, given step, spacing, shared edge, warm start") {
    ref::Problem p = problem({3, 4, 5}, 2, 26);
    p.accelerate = true;
    p.tau = 0.05;
    p.spacing = {2, 0.75, 1.25};
    p.edge = Random(7).array(p.voxels(), 0.2, 1.4);
    p.init_tv = Random(8).array(p.batch * p.classes * 3 * p.voxels(), -0.3, 0.3);
    p.init_volume = Random(9).array(p.batch * p.classes, -0.3, 0.3);
    with_volume(p);
    check_differences(p, 10);
  }
  SUBCASE("tolerance stop: images stop at different iterations") {
    for (bool accelerate : {false, true}) {
      ref::Problem p = problem({4, 6}, 3, 11);
      p.accelerate = accelerate;
      for (int64_t k = 0; k < p.classes * p.voxels(); ++k) p.features[k] *= 3;
      p.iterations = 60;
      p.check_interval = 2;
      p.tolerance = 3e-3;
      const ref::Result r = ref::forward(p);
      CHECK(r.status(0) == ref::converged);
      CHECK(r.iterations(0) < p.iterations);
      CHECK(r.iterations(0) != r.iterations(1));
      check_differences(p, 12);
    }
  }
  SUBCASE("box volumes with an excluded class and open bounds") {
    ref::Problem p = problem({6, 6}, 4, 13);
    p.volume = ref::Volume::box;
    p.lower = {12, 0, 0, 0, 10, 9, 0, 0};
    p.upper = {20, 3, 0, INFINITY, 30, 10, 4, INFINITY};
    check_differences(p, 14);
    const ref::Result r = ref::forward(p);
    for (int64_t x = 0; x < p.voxels(); ++x) CHECK(r.u[2 * p.voxels() + x] == 0);
  }
}

TEST_CASE("reference: central differences of threshold dynamics, stars and masks [ref]") {
  SUBCASE("threshold dynamics, Gaussian, edge per image, mask") {
    ref::Problem p = problem({5, 7}, 3, 31);
    p.tv = false;
    with_threshold_dynamics(p, 0.4);
    p.td.edge = Random(32).array(p.batch * p.voxels(), 0.2, 1.4);
    with_mask(p, false, 33);
    check_differences(p, 34);
  }
  SUBCASE("anisotropic kernel per class, shared edge, shared mask, volumes") {
    ref::Problem p = problem({4, 3, 5}, 2, 35);
    with_threshold_dynamics(p, 0.3);
    p.td.extent = {3, 1, 5};
    p.td.kernel = Random(36).array(2 * 15, -0.2, 0.3);
    p.td.edge = Random(37).array(p.voxels(), 0.2, 1.4);
    with_mask(p, true, 38);
    with_volume(p);
    for (double &value : p.upper) value *= 0.75;
    p.lower = p.upper;
    check_differences(p, 39);
  }
  SUBCASE("star, default step, centre on a voxel") {
    ref::Problem p = problem({6, 7}, 3, 40);
    p.tv = false;
    p.star.classes = {1};
    p.star.center = {2.3, 3.6, -1.2, 4.1};
    check_differences(p, 41);
    p.star.center = {2, 3, 1.5, 4.1};
    const ref::Result r = ref::forward(p);  // not differentiable at the centre; finite all the same
    for (double value : ref::backward_unrolled(p, r, r.u).star_center) CHECK(std::isfinite(value));
  }
  SUBCASE("everything, accelerated, spacing, warm start, mask per image") {
    ref::Problem p = problem({4, 5, 4}, 3, 42);
    p.accelerate = true;
    p.iterations = 12;
    p.spacing = {2, 0.75, 1.25};
    with_threshold_dynamics(p, 0.3);
    with_stars(p, {2, 0}, 43);
    with_mask(p, false, 44);
    p.volume = ref::Volume::box;
    p.lower = {20, 0, 5, 0, 0, 0};
    p.upper = {30, INFINITY, 70, 15, INFINITY, INFINITY};
    p.edge = Random(45).array(p.voxels(), 0.2, 1.4);
    p.init_tv = Random(46).array(p.batch * p.classes * 3 * p.voxels(), -0.3, 0.3);
    p.star.init = Random(47).array(p.batch * 2 * p.voxels(), 0, 0.3);
    check_differences(p, 48);
  }
  SUBCASE("stars with their own steps") {
    ref::Problem p = problem({7, 8}, 3, 49);
    p.tv = false;
    with_stars(p, {0, 1}, 50);
    p.star.tau = {0.05, 0.12};
    check_differences(p, 51);
  }
  SUBCASE("one star, restarts") {
    ref::Problem p = problem({8, 9}, 3, 52);
    p.tv = false;
    p.accelerate = true;
    p.eps = 1;
    p.iterations = 60;
    with_stars(p, {0}, 53);
    const ref::Result r = ref::forward(p);
    CHECK(r.images[0].restarts + r.images[1].restarts > 0);
    check_differences(p, 54);
  }
}

TEST_CASE("reference: masked voxels are read by nothing [ref]") {
  ref::Problem p = problem({4, 5, 3}, 3, 60);
  with_threshold_dynamics(p, 0.3);
  with_stars(p, {1}, 61);
  with_mask(p, false, 62);
  p.edge = Random(63).array(p.batch * p.voxels(), 0.2, 1.4);
  p.td.edge = Random(64).array(p.batch * p.voxels(), 0.2, 1.4);
  p.star.init = Random(65).array(p.batch * p.voxels(), 0, 0.3);
  p.init_tv = Random(66).array(p.batch * p.classes * 3 * p.voxels(), -0.3, 0.3);
  ref::Problem spoilt = p;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t x = 0; x < p.voxels(); ++x) {
      if (p.valid(b, x)) continue;
      spoilt.edge[b * p.voxels() + x] = spoilt.td.edge[b * p.voxels() + x] = NAN;
      spoilt.star.init[b * p.voxels() + x] = NAN;
      for (int64_t i = 0; i < p.classes; ++i) {
        spoilt.features[(b * p.classes + i) * p.voxels() + x] = NAN;
        for (int64_t d = 0; d < 3; ++d) spoilt.init_tv[((b * p.classes + i) * 3 + d) * p.voxels() + x] = NAN;
      }
    }
  const ref::Result want = ref::forward(p), got = ref::forward(spoilt);
  CHECK(got.u == want.u);
  CHECK(got.tv_dual == want.tv_dual);
  CHECK(got.star_dual == want.star_dual);
  const ref::Array grad_u = Random(67).array(static_cast<int64_t>(got.u.size()), -1, 1);
  const ref::Gradients a = ref::backward_unrolled(p, want, grad_u),
                       b = ref::backward_unrolled(spoilt, got, grad_u);
  CHECK(a.features == b.features);
  CHECK(a.td_edge == b.td_edge);
  CHECK(a.star_center == b.star_center);
  for (int64_t x = 0; x < p.voxels(); ++x)
    if (!p.valid(0, x)) CHECK((b.features[x] == 0 && b.tv_edge[x] == 0 && b.td_edge[x] == 0));
}

TEST_CASE("reference: no iteration, the modes agree [ref]") {
  ref::Problem p = problem({4, 5}, 3, 22);
  p.iterations = 0;
  p.eps = 0.5;
  p.init_eps = 1;
  check_differences(p, 23);
  const ref::Result r = ref::forward(p);
  const ref::Array grad_u = Random(24).array(static_cast<int64_t>(r.u.size()), -1, 1);
  CHECK_CLOSE("last", ref::backward_last(p, r.u, grad_u), ref::backward_unrolled(p, r, grad_u).features,
              1e-15);
}

TEST_CASE("reference: gradient and divergence are adjoint [ref]") {
  ref::Problem p = problem({4, 1, 5}, 1, 20);
  p.spacing = {2, 3, 0.5};
  Random random(21);
  const ref::Array u = random.array(p.voxels(), -1, 1), q = random.array(3 * p.voxels(), -1, 1);
  ref::Array gradient(q.size()), divergence(u.size());
  ref::gradient(p, u.data(), gradient.data());
  ref::divergence(p, q.data(), divergence.data());
  CHECK(dot(gradient, q) == doctest::Approx(-dot(u, divergence)).epsilon(1e-13));
}
