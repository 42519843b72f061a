// The implicit backward against difference quotients of the converged map, and its report.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

namespace {

struct Named {
  const char *name;
  ref::Problem p;
};

ref::Problem base(uint64_t seed) {
  ref::Problem p;
  p.batch = 1;
  p.classes = 3;
  p.spatial = {6, 5};
  p.eps = 1;
  p.features = Random(seed).array(p.classes * p.voxels(), -1.5, 1.5);
  p.accelerate = true;
  p.tolerance = 1e-13;
  p.check_interval = 20;
  p.iterations = 20000;
  return p;
}

std::vector<Named> problems() {
  const auto tv = [](ref::Problem &p) {
    p.tv = true;
    p.lam = 0.25;
  };
  const auto equal = [](ref::Problem &p) {
    p.volume = ref::Volume::equality;
    p.lower = p.upper = {8, 13, 9};
  };
  const auto td = [](ref::Problem &p) {
    p.td.on = true;
    p.td.lam = 0.3;
    p.td.size = 3;
    p.td.sigma = 1.2;
    p.td.edge = Random(91).array(p.voxels(), 0.3, 1.3);
  };
  const auto star = [](ref::Problem &p) {
    p.star.classes = {1};
    p.star.center = {2.3, 1.6};
  };
  std::vector<Named> list;
  const auto add = [&](const char *name, uint64_t seed, const std::function<void(ref::Problem &)> &change) {
    ref::Problem p = base(seed);
    change(p);
    list.push_back({name, p});
  };
  add("tv", 1, tv);
  add("tv, volumes", 2, [&](ref::Problem &p) {
    tv(p);
    equal(p);
  });
  add("tv, box", 3, [&](ref::Problem &p) {
    tv(p);
    p.volume = ref::Volume::box;
    p.lower = {0, 14, 0};
    p.upper = {7, 20, INFINITY};
  });
  add("edge, volumes, spacing", 4, [&](ref::Problem &p) {
    tv(p);
    equal(p);
    p.spacing = {1.5, 0.8};
    p.edge = Random(92).array(p.voxels(), 0.2, 1.4);
  });
  add("volumes", 5, equal);
  add("td", 6, td);
  add("td, volumes", 7, [&](ref::Problem &p) {
    td(p);
    equal(p);
  });
  add("td, kernel per class, box, mask", 8, [&](ref::Problem &p) {
    td(p);
    p.td.extent = {3, 5};
    p.td.kernel = Random(93).array(3 * 15, -0.03, 0.1);
    p.mask.assign(p.voxels(), 1);
    p.mask[3] = p.mask[14] = p.mask[15] = 0;
    p.volume = ref::Volume::box;
    p.lower = {11, 0, 0};
    p.upper = {20, 6, INFINITY};
  });
  add("star", 9, star);
  add("all", 10, [&](ref::Problem &p) {
    tv(p);
    p.lam = 0.1;
    td(p);
    star(p);
    equal(p);
  });
  return list;
}

CallSettings settings(const ref::Problem &p, double tolerance, int32_t dtype = SEGPRIOR_FLOAT64) {
  CallSettings s;
  s.dtype = dtype;
  s.checkpoint_interval = p.iterations;
  s.implicit_tolerance = tolerance;
  s.implicit_iterations = 20000;
  return s;
}

class Converged {
 public:
  Converged(Device &device, const ref::Array &grad_u) : device_(device), grad_u_(grad_u) {}

  double loss(const ref::Problem &p) const {
    CallSettings s = settings(p, 1e-12);
    s.checkpoint_interval = 0;
    SoftmaxCall call(device_, p, s);
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
    REQUIRE(call.infos()[0].status == SEGPRIOR_CONVERGED);
    return dot(grad_u_, call.u->get());
  }

  double slope(const ref::Problem &p, const std::function<void(ref::Problem &, double)> &move) const {
    const auto at = [&](double step) {
      ref::Problem moved = p;
      move(moved, step);
      return loss(moved);
    };
    // Fourth order. The loss of a converged run is exact to about 1e-11, divided by the step.
    return (8 * (at(kStep) - at(-kStep)) - (at(2 * kStep) - at(-2 * kStep))) / (12 * kStep);
  }

 private:
  static constexpr double kStep = 2e-4;
  Device &device_;
  const ref::Array &grad_u_;
};

void check_problem(const Named &named, Device &device) {
  const ref::Problem &p = named.p;
  INFO("implicit: " << std::string(named.name) << " on " << name_of(device.which()));
  Random random(77);
  const ref::Array grad_u = random.array(static_cast<int64_t>(p.features.size()), -1, 1);
  SoftmaxCall call(device, p, settings(p, 1e-12));
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  REQUIRE(call.infos()[0].status == SEGPRIOR_CONVERGED);
  REQUIRE_MESSAGE(call.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK, segprior_last_error());
  const segprior_info info = call.backward_infos()[0];
  CHECK(info.status == SEGPRIOR_CONVERGED);
  CHECK(info.iterations > 0);
  CHECK(info.residual <= 1e-12);

  const Converged converged(device, grad_u);
  const GradientTensors &g = call.gradients;
  using Move = std::function<void(ref::Problem &, double)>;
  const auto close = [&](const char *what, double got, const Move &move) {
    const double want = converged.slope(p, move);
    CHECK_MESSAGE(std::fabs(got - want) <= 1e-6 * std::max(1.0, std::fabs(want)), std::string(what),
                  ": gradient ", got, ", difference quotient ", want);
  };
  const auto array = [&](const char *what, const TensorPtr &gradient, const ref::Array &direction,
                         const std::function<ref::Array &(ref::Problem &)> &field) {
    if (!gradient) return;
    close(what, dot(gradient->get(), direction), [&](ref::Problem &q, double s) {
      ref::Array &values = field(q);
      for (size_t k = 0; k < values.size(); ++k)
        if (direction[k] != 0) values[k] += s * direction[k];
      if (q.volume == ref::Volume::equality) q.lower = q.upper;
    });
  };
  const auto scalar = [&](const char *what, const TensorPtr &gradient, const Move &move) {
    if (gradient) close(what, gradient->get()[0], move);
  };
  const auto any = [&](const ref::Array &like) {
    ref::Array direction = random.array(static_cast<int64_t>(like.size()), -1, 1);
    for (size_t k = 0; k < like.size(); ++k)
      if (!std::isfinite(like[k]) || like[k] == 0) direction[k] = 0;  // open bounds
    return direction;
  };
  for (int n = 0; n < 2; ++n)
    array("features", g.features, any(p.features),
          [](ref::Problem &q) -> ref::Array & { return q.features; });
  scalar("eps", g.eps, [](ref::Problem &q, double s) { q.eps += s; });
  scalar("tv_lam", g.tv_lam, [](ref::Problem &q, double s) { q.lam += s; });
  scalar("td_lam", g.td_lam, [](ref::Problem &q, double s) { q.td.lam += s; });
  scalar("td_sigma", g.td_sigma, [](ref::Problem &q, double s) { q.td.sigma += s; });
  array("tv_edge", g.tv_edge, any(p.edge), [](ref::Problem &q) -> ref::Array & { return q.edge; });
  array("td_edge", g.td_edge, any(p.td.edge), [](ref::Problem &q) -> ref::Array & { return q.td.edge; });
  array("td_kernel", g.td_kernel, any(p.td.kernel),
        [](ref::Problem &q) -> ref::Array & { return q.td.kernel; });
  array("star_center", g.star_center, any(p.star.center),
        [](ref::Problem &q) -> ref::Array & { return q.star.center; });
  // The volumes of an equality must keep their sum.
  array("volume", g.volume, {0.7, -1, 0.3}, [](ref::Problem &q) -> ref::Array & { return q.upper; });
  array("volume_lower", g.volume_lower, any(p.lower),
        [](ref::Problem &q) -> ref::Array & { return q.lower; });
  array("volume_upper", g.volume_upper, any(p.upper),
        [](ref::Problem &q) -> ref::Array & { return q.upper; });
}

// All gradients of one call, in the order of gradient_list; volumes without their free constant.
std::vector<ref::Array> gradients_on(segprior_device which, const ref::Problem &p, double tolerance,
                                     int32_t dtype) {
  Device device(which);
  SoftmaxCall call(device, p, settings(p, tolerance, dtype));
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  const ref::Array grad_u = Random(78).array(static_cast<int64_t>(p.features.size()), -1, 1);
  REQUIRE_MESSAGE(call.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK, segprior_last_error());
  std::vector<ref::Array> all;
  for (const auto &gradient : call.gradient_list(SEGPRIOR_BACKWARD_IMPLICIT)) {
    all.push_back(gradient.second->get());
    if (gradient.second != call.gradients.volume.get()) continue;
    double mean = 0;
    for (double value : all.back()) mean += value / static_cast<double>(all.back().size());
    for (double &value : all.back()) value -= mean;
  }
  return all;
}

void check_agreement(const ref::Problem &p, const char *name, int32_t dtype, double relative) {
  const std::vector<ref::Array> want = gradients_on({SEGPRIOR_CPU, 0}, p, 1e-12, SEGPRIOR_FLOAT64);
  for (segprior_device which : all_devices()) {
    if (which.type == SEGPRIOR_CPU && dtype == SEGPRIOR_FLOAT64) continue;
    INFO("implicit: " << std::string(name) << " on " << name_of(which) << ", dtype " << dtype);
    ref::Problem q = p;
    if (dtype == SEGPRIOR_FLOAT32) q.tolerance = 2e-6;
    const std::vector<ref::Array> got =
        gradients_on(which, q, dtype == SEGPRIOR_FLOAT64 ? 1e-12 : 1e-6, dtype);
    for (size_t n = 0; n < want.size(); ++n) {
      INFO("gradient " << n);
      CHECK_CLOSE(std::string("gradient"), got[n], want[n], relative * std::max(1.0, max_abs(want[n])));
    }
  }
}

}  // namespace

TEST_CASE("softmax implicit: difference quotients of the converged map") {
  for (const Named &named : problems())
    for (segprior_device which : all_devices()) {
      Device device(which);
      check_problem(named, device);
    }
}

TEST_CASE("softmax implicit: devices agree [small]") {
  for (const Named &named : problems())
    if (std::string(named.name) == "tv, volumes" || std::string(named.name) == "td, volumes" ||
        std::string(named.name) == "star")
      check_agreement(named.p, named.name, SEGPRIOR_FLOAT64, 1e-8);
}

TEST_CASE("softmax implicit: float32") {
  // Forward stops at a change of 2e-6, backward at a relative residual of 1e-6; the slow modes of the dual
  // multiply both.
  for (const Named &named : problems()) check_agreement(named.p, named.name, SEGPRIOR_FLOAT32, 1e-2);
}

TEST_CASE("softmax implicit: the report [small]") {
  for (segprior_device which : all_devices())
    for (const Named &named : problems()) {
      const std::string name = named.name;
      if (name != "tv, volumes" && name != "td") continue;
      INFO("implicit: " << name << " on " << name_of(which));
      Device device(which);
      ref::Problem p = named.p;
      p.batch = 3;
      p.tolerance = 0;  // meaningful or not, what forward left is differentiated
      p.iterations = 25;
      const int64_t plane = static_cast<int64_t>(p.features.size());
      for (int b = 1; b < 3; ++b) {
        for (int64_t k = 0; k < plane; ++k) p.features.push_back(p.features[k] * (1 + 0.2 * b));
        for (int64_t i = 0; !named.p.upper.empty() && i < 3; ++i) p.upper.push_back(named.p.upper[i]);
      }
      p.lower = p.upper;
      p.features[plane + 4] = NAN;  // image 1 fails
      ref::Array grad_u = Random(79).array(3 * plane, -1, 1);
      std::fill(grad_u.begin() + 2 * plane, grad_u.end(), 0);  // image 2 has nothing to solve
      CallSettings s = settings(p, 1e-9);
      SoftmaxCall call(device, p, s);
      REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
      REQUIRE_MESSAGE(call.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK,
                      segprior_last_error());
      const auto infos = call.backward_infos();
      CHECK(infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(infos[0].iterations > 3);
      CHECK(infos[0].residual <= 1e-9);
      CHECK(infos[1].status == SEGPRIOR_NONFINITE_INPUT);
      CHECK(infos[2].status == SEGPRIOR_CONVERGED);
      const ref::Array full = call.gradients.features->get();
      for (int64_t k = 0; k < plane; ++k) {
        CHECK(std::isfinite(full[k]));
        CHECK(std::isnan(full[plane + k]));
        CHECK(full[2 * plane + k] == 0);
      }

      s.implicit_iterations = 3;
      SoftmaxCall capped(device, p, s);
      REQUIRE(capped.forward() == SEGPRIOR_OK);
      REQUIRE(capped.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK);
      CHECK(capped.backward_infos()[0].status == SEGPRIOR_ITERATION_CAP);
      CHECK(capped.backward_infos()[0].iterations == 3);
      CHECK(capped.backward_infos()[0].residual > 1e-9);

      // It depends on the last state alone: any checkpoint interval will do.
      s = settings(p, 1e-9);
      s.checkpoint_interval = 4;
      SoftmaxCall dense(device, p, s);
      REQUIRE(dense.forward() == SEGPRIOR_OK);
      REQUIRE(dense.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK);
      CHECK_CLOSE("grads.features", dense.gradients.features->get(), full, 0);

      // A loss that is not a number has no gradient: nothing may call that converged.
      grad_u[5] = NAN;
      REQUIRE(dense.backward(SEGPRIOR_BACKWARD_IMPLICIT, grad_u) == SEGPRIOR_OK);
      CHECK(dense.backward_infos()[0].status == SEGPRIOR_ITERATION_CAP);
      CHECK(std::isnan(dense.backward_infos()[0].residual));
      CHECK(dense.backward_infos()[2].status == SEGPRIOR_CONVERGED);
    }
}
