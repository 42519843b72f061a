// Properties that need no other implementation: simplex, volumes, limits, warm starts, stopping,
// acceleration.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/cases/check.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Three stripes of different grey value under noise of the size of their contrast.
ref::Problem noisy_stripes(int64_t n) {
  ref::Problem p;
  p.batch = 1;
  p.classes = 3;
  p.spatial = {n, n};
  p.tv = true;
  p.lam = 0.5;
  p.eps = 0.5;
  Random random(5);
  ref::Array grey(n * n);
  for (int64_t x = 0; x < n * n; ++x)
    grey[x] = 0.5 * static_cast<double>((x % n) * 3 / n) + random.uniform(-0.4, 0.4);
  for (int64_t i = 0; i < 3; ++i)
    for (double g : grey) p.features.push_back(-4 * (g - 0.5 * i) * (g - 0.5 * i));
  p.volume = ref::Volume::equality;
  const double third = static_cast<double>(n * n) / 3;
  p.lower = p.upper = {third, 0.8 * third, 1.2 * third};
  return p;
}

ref::Array masses(const ref::Array &u, int64_t classes) {
  ref::Array sums(classes);
  const int64_t voxels = static_cast<int64_t>(u.size()) / classes;
  for (size_t k = 0; k < u.size(); ++k) sums[k / voxels] += u[k];
  return sums;
}

struct Run {
  ref::Array u, tv_dual, volume_dual;
  segprior_info info;
};

Run run(Device &device, const ref::Problem &p, int32_t dtype = SEGPRIOR_FLOAT64) {
  CallSettings settings;
  settings.dtype = dtype;
  settings.checkpoint_interval = 0;
  SoftmaxCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  Run r{call.u->get(), {}, {}, call.infos()[0]};
  if (call.tv_dual) r.tv_dual = call.tv_dual->get();
  if (call.volume_dual) r.volume_dual = call.volume_dual->get();
  return r;
}

}  // namespace

TEST_CASE("softmax: u lies on the simplex [small]") {
  for (const Case &c : softmax_cases()) {
    if (c.size_ != Case::Size::race) continue;
    for (segprior_device which : all_devices()) {
      INFO("add(" << c.text() << "); on " << name_of(which));
      Device device(which);
      SoftmaxCall call(device, make_problem(c), settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const ref::Array u = call.u->get();
      const ref::Problem problem = make_problem(c);
      const int64_t voxels = problem.voxels();
      // I roundings in the sum of the exponentials, one in each quotient, I in this sum; I to 16 bits.
      const double tolerance = (2 * c.classes_ + 4) * (c.float32_ ? 0x1p-24 : 0x1p-53) +
                               static_cast<double>(c.classes_) * small_unit(c);
      for (int64_t b = 0; b < c.batch_; ++b)
        for (int64_t x = 0; x < voxels; ++x) {
          double sum = 0;
          for (int64_t i = 0; i < c.classes_; ++i) {
            const double value = u[(b * c.classes_ + i) * voxels + x];
            REQUIRE(value >= 0);
            sum += value;
          }
          REQUIRE(std::fabs(sum - (problem.valid(b, x) ? 1 : 0)) <= tolerance);
        }
    }
  }
}

TEST_CASE("softmax: equality volumes are reached as T grows") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = noisy_stripes(24);
    double last = 1;
    for (int iterations : {5, 50, 500}) {
      p.iterations = iterations;
      const ref::Array got = masses(run(device, p).u, 3);
      double error = 0;
      for (int64_t i = 0; i < 3; ++i)
        error = std::max(error, std::fabs(got[i] - p.upper[i]) / static_cast<double>(p.voxels()));
      CHECK(error < last / 3);
      last = error;
    }
    CHECK(last < 1e-4);
  }
}

TEST_CASE("softmax: box volumes hold at convergence and are inactive inside") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = noisy_stripes(24);
    p.accelerate = true;
    p.iterations = 600;
    p.volume = ref::Volume::none;
    p.lower = p.upper = {};
    const ref::Array free = masses(run(device, p).u, 3);
    p.volume = ref::Volume::box;
    p.lower = {free[0] - 5, 0, 0};
    p.upper = {free[0] + 5, free[1] + 5, INFINITY};
    const Run slack = run(device, p);
    CHECK(slack.volume_dual == ref::Array{0, 0, 0});
    p.lower = {free[0] + 20, 0, 0};
    p.upper = {free[0] + 90, free[1] - 30, INFINITY};
    const Run tight = run(device, p);
    const ref::Array got = masses(tight.u, 3);
    CHECK(got[0] > p.lower[0] - 0.1);
    CHECK(got[1] < p.upper[1] + 0.1);
    CHECK(tight.volume_dual[0] > 0);
    CHECK(tight.volume_dual[1] < 0);
    CHECK(tight.volume_dual[2] == 0);
  }
}

TEST_CASE("softmax: eps towards 0 gives a nearly binary u") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = noisy_stripes(24);
    p.accelerate = true;
    p.iterations = 400;
    double last = 0;
    for (double eps : {0.5, 0.1, 0.02, 0.004}) {
      p.eps = eps;
      const ref::Array u = run(device, p).u;
      double sharpness = 0;  // mean over voxels of max_i u_i
      for (int64_t x = 0; x < p.voxels(); ++x)
        sharpness +=
            std::max({u[x], u[p.voxels() + x], u[2 * p.voxels() + x]}) / static_cast<double>(p.voxels());
      CHECK(sharpness > last);
      last = sharpness;
    }
    CHECK(last > 0.97);
  }
}

TEST_CASE("softmax: 20 iterations are 10 and 10 from a warm start [small]") {
  for (segprior_device which : all_devices())
    for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64}) {
      INFO(name_of(which) << ", dtype " << dtype);
      Device device(which);
      ref::Problem p = noisy_stripes(15);
      SUBCASE("all classes") {}
      SUBCASE("an excluded class, whose volume dual is -inf") { p.lower = p.upper = {100, 0, 125}; }
      p.iterations = 20;
      const Run whole = run(device, p, dtype);
      p.iterations = 10;
      const Run half = run(device, p, dtype);
      p.init_tv = half.tv_dual;
      p.init_volume = half.volume_dual;
      const Run resumed = run(device, p, dtype);
      // The same iterates; only the way in which the first logits are formed may round differently.
      const double tolerance = dtype == SEGPRIOR_FLOAT32 ? 1e-5 : 1e-13;
      CHECK(resumed.info.status == SEGPRIOR_ITERATION_CAP);
      CHECK_CLOSE("u", resumed.u, whole.u, tolerance);
      CHECK_CLOSE("tv_dual", resumed.tv_dual, whole.tv_dual, tolerance);
      CHECK_CLOSE("volume_dual", resumed.volume_dual, whole.volume_dual, tolerance);
    }
}

TEST_CASE("softmax: the tolerance stop reports what it did [small]") {
  for (segprior_device which : all_devices())
    for (bool accelerate : {false, true}) {
      INFO(name_of(which) << ", accelerate " << accelerate);
      Device device(which);
      ref::Problem p = noisy_stripes(15);
      p.eps = 1;
      p.accelerate = accelerate;
      p.iterations = 500;
      p.tolerance = 1e-3;
      p.check_interval = 7;
      const Run stopped = run(device, p);
      CHECK(stopped.info.status == SEGPRIOR_CONVERGED);
      CHECK(stopped.info.residual < p.tolerance);
      CHECK(stopped.info.iterations < 500);
      CHECK(stopped.info.iterations % 7 == (accelerate ? 1 : 0));  // one more, without momentum
      if (accelerate) continue;
      p.iterations = stopped.info.iterations;
      p.tolerance = 0;
      const Run fixed = run(device, p);
      CHECK(fixed.u == stopped.u);
      CHECK(fixed.info.status == SEGPRIOR_ITERATION_CAP);
      CHECK(fixed.info.residual == stopped.info.residual);
    }
}

TEST_CASE("softmax: acceleration reaches the same point in far fewer iterations") {
  // The point itself: so many accelerated iterations that more change nothing.
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = noisy_stripes(24);
    p.accelerate = true;
    p.iterations = 6000;
    const ref::Array limit = run(device, p).u;
    const auto iterations_needed = [&](bool accelerate, double distance) {
      p.accelerate = accelerate;
      for (int n = 25; n <= 6400; n *= 2) {
        p.iterations = n;
        if (difference(run(device, p).u, limit).worst < distance) return n;
      }
      return 12800;
    };
    CHECK(4 * iterations_needed(true, 1e-3) <= iterations_needed(false, 1e-3));
    CHECK(iterations_needed(false, 1e-3) <= 6400);  // plain gets there too: they agree
  }
}

TEST_CASE("softmax: symmetries [small]") {
  // Doubling the spacing with lam and features of a problem with h = 1 is the problem with lam / 2: only
  // lam / h enters. A constant added to all classes of a voxel changes nothing.
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = noisy_stripes(13);
    p.iterations = 15;
    const Run base = run(device, p);
    ref::Problem shifted = p;
    Random random(3);
    for (int64_t x = 0; x < p.voxels(); ++x) {
      const double shift = random.uniform(-5, 5);
      for (int64_t i = 0; i < 3; ++i) shifted.features[i * p.voxels() + x] += shift;
    }
    CHECK_CLOSE("u of shifted features", run(device, shifted).u, base.u, 1e-12);
    ref::Problem spaced = p;
    spaced.spacing = {2, 2};
    spaced.lam = 2 * p.lam;
    CHECK_CLOSE("u of doubled spacing and lam", run(device, spaced).u, base.u, 1e-12);
    ref::Problem edged = p;
    edged.edge.assign(p.voxels(), 0.25);
    edged.lam = 4 * p.lam;
    CHECK_CLOSE("u of lam e", run(device, edged).u, base.u, 1e-12);
  }
}
