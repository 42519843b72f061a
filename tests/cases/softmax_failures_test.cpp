// Bad numbers inside tensors: the image is flagged and all its results are NaN, the other images keep their
// bits, and the call terminates. Infeasible volumes are flagged with finite results.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Case base() {
  Case c({9, 11}, 3, 3);
  c.f32().tv(0.3).edge(Case::Edge::per_image).equal().iterations(6).warm_start().checkpoint(2);
  return c;
}

// With every prior.
Case mix() {
  Case c({5, 7}, 3, 3);
  c.f32().tv(0.3).td(0.2).td_kernel({3, 5}).td_edge(Case::Edge::per_image).star({1, 2}).equal();
  c.mask(Case::Mask::shared).warm_start().iterations(3).checkpoint(2);
  return c;
}

bool all_nan(const ref::Array &values, int64_t from, int64_t count) {
  for (int64_t k = from; k < from + count; ++k)
    if (!std::isnan(values[k])) return false;
  return true;
}

ref::Array slice(const ref::Array &values, int64_t b, int64_t batch) {
  const int64_t size = static_cast<int64_t>(values.size()) / batch;
  return ref::Array(values.begin() + b * size, values.begin() + (b + 1) * size);
}

// Image 1 of three is spoilt by `damage`.
void check_isolated(const Case &c, int expected, const std::function<void(ref::Problem &)> &damage) {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const ref::Problem good = make_problem(c);
    ref::Problem bad = good;
    damage(bad);
    const ref::Array grad_u = make_grad_u(c);
    SoftmaxCall healthy(device, good, settings_of(c)), spoilt(device, bad, settings_of(c));
    REQUIRE(healthy.forward() == SEGPRIOR_OK);
    REQUIRE_MESSAGE(spoilt.forward() == SEGPRIOR_OK, segprior_last_error());
    const auto infos = spoilt.infos();
    CHECK(infos[1].status == expected);
    CHECK(infos[1].iterations == 0);
    CHECK(std::isnan(infos[1].residual));

    const auto compare = [&](const char *what, const ref::Array &got, const ref::Array &want) {
      const int64_t size = static_cast<int64_t>(got.size()) / 3;
      CHECK_MESSAGE(all_nan(got, size, size), what, " of the failing image is not all NaN");
      for (int64_t b : {0, 2})
        CHECK_MESSAGE(slice(got, b, 3) == slice(want, b, 3), what, " of image ", b, " changed");
    };
    compare("u", spoilt.u->get(), healthy.u->get());
    if (spoilt.tv_dual) compare("tv_dual", spoilt.tv_dual->get(), healthy.tv_dual->get());
    if (spoilt.volume_dual) compare("volume_dual", spoilt.volume_dual->get(), healthy.volume_dual->get());
    if (spoilt.star_dual) compare("star_dual", spoilt.star_dual->get(), healthy.star_dual->get());
    for (int64_t b : {0, 2}) {
      CHECK(infos[b].status == healthy.infos()[b].status);
      CHECK(infos[b].residual == healthy.infos()[b].residual);
    }
    REQUIRE(healthy.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);
    REQUIRE(spoilt.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);
    compare("last grads.features", spoilt.gradients.features->get(), healthy.gradients.features->get());
    REQUIRE(healthy.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
    REQUIRE(spoilt.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
    const auto healthy_list = healthy.gradient_list(), spoilt_list = spoilt.gradient_list();
    for (size_t n = 0; n < spoilt_list.size(); ++n) {
      const ref::Array got = spoilt_list[n].second->get();
      const std::string name = spoilt_list[n].first;
      if (got.size() == 1 || name == "grads.td_kernel" || name == "grads.star_tau")
        CHECK_MESSAGE(all_nan(got, 0, static_cast<int64_t>(got.size())), name,
                      " sums over the batch and must be NaN");
      else
        compare(spoilt_list[n].first, got, healthy_list[n].second->get());
    }
  }
}

}  // namespace

TEST_CASE("softmax: a failing image is flagged and leaves the others alone [small]") {
  const auto set = [](ref::Array ref::Problem::*field, int64_t at, double value) {
    return [=](ref::Problem &p) {
      const int64_t size = static_cast<int64_t>((p.*field).size()) / 3;
      (p.*field)[size + at] = value;
    };
  };
  SUBCASE("NaN feature") {
    check_isolated(base(), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::features, 17, kNaN));
  }
  SUBCASE("infinite feature") {
    check_isolated(base(), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::features, 0, kInf));
    check_isolated(base(), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::features, 296, -kInf));
  }
  SUBCASE("NaN feature, accelerated, tolerance") {
    check_isolated(base().accelerate().tolerance(1e-9, 2), SEGPRIOR_NONFINITE_INPUT,
                   set(&ref::Problem::features, 100, kNaN));
  }
  SUBCASE("NaN feature, no prior") {
    Case c({9, 11}, 3, 3);
    check_isolated(c.iterations(3), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::features, 3, kNaN));
  }
  SUBCASE("NaN feature, one class, float64, 3-D, no iteration") {
    Case c({3, 3, 5}, 1, 3);
    check_isolated(c.tv(0.3).iterations(0), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::features, 3, kNaN));
  }
  SUBCASE("many classes") {
    Case c({4, 5}, 21, 3);
    check_isolated(c.tv(0.3).equal().iterations(3), SEGPRIOR_NONFINITE_INPUT,
                   set(&ref::Problem::features, 3, kNaN));
  }
  SUBCASE("NaN warm start") {
    check_isolated(base(), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::init_tv, 31, kNaN));
    check_isolated(base(), SEGPRIOR_NONFINITE_INPUT, set(&ref::Problem::init_volume, 1, kNaN));
  }
  SUBCASE("negative or NaN edge") {
    check_isolated(base(), SEGPRIOR_INVALID_PARAMETER, set(&ref::Problem::edge, 50, -0.5));
    check_isolated(base(), SEGPRIOR_INVALID_PARAMETER, set(&ref::Problem::edge, 98, kNaN));
  }
  const auto volume = [](int64_t at, double value) {
    return [=](ref::Problem &p) { p.lower[3 + at] = p.upper[3 + at] = value; };
  };
  SUBCASE("negative, NaN or infinite volume") {
    check_isolated(base(), SEGPRIOR_INVALID_PARAMETER, volume(0, -1));
    check_isolated(base(), SEGPRIOR_INVALID_PARAMETER, volume(2, kNaN));
    check_isolated(base(), SEGPRIOR_INVALID_PARAMETER, volume(1, kInf));
  }
  SUBCASE("lower above upper, NaN bounds") {
    const Case c = base().volumes(Case::Volumes::box);
    check_isolated(c, SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.lower[4] = p.upper[4] + 1; });
    check_isolated(c, SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.lower[4] = kNaN; });
    check_isolated(c, SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.upper[4] = kNaN; });
  }
  SUBCASE("beyond the floating-point range") {
    check_isolated(base(), SEGPRIOR_BREAKDOWN, set(&ref::Problem::features, 7, 3e38));
  }
}

TEST_CASE("softmax: a failing image of a mix is flagged and leaves the others alone [small]") {
  const ref::Problem p = make_problem(mix());
  int64_t valid = 0, masked = 0;
  while (!p.valid(0, valid)) ++valid;
  while (p.valid(0, masked)) ++masked;
  const int64_t voxels = p.voxels();
  SUBCASE("NaN at a valid voxel") {
    check_isolated(mix(), SEGPRIOR_NONFINITE_INPUT,
                   [=](ref::Problem &q) { q.features[(3 + 2) * voxels + valid] = kNaN; });
  }
  SUBCASE("edges") {
    for (const double value : {-0.5, kNaN, kInf}) {
      check_isolated(mix(), SEGPRIOR_INVALID_PARAMETER,
                     [=](ref::Problem &q) { q.td.edge[voxels + valid] = value; });
      check_isolated(mix().edge(Case::Edge::per_image), SEGPRIOR_INVALID_PARAMETER,
                     [=](ref::Problem &q) { q.edge[voxels + valid] = value; });
    }
  }
  SUBCASE("centres") {
    check_isolated(mix(), SEGPRIOR_NONFINITE_INPUT, [](ref::Problem &q) { q.star.center[4 + 1] = kNaN; });
    check_isolated(mix(), SEGPRIOR_NONFINITE_INPUT, [](ref::Problem &q) { q.star.center[4 + 2] = kInf; });
  }
  SUBCASE("warm starts of star duals") {
    check_isolated(mix(), SEGPRIOR_INVALID_PARAMETER,
                   [=](ref::Problem &q) { q.star.init[3 * voxels + valid] = -0.25; });
    check_isolated(mix(), SEGPRIOR_NONFINITE_INPUT,
                   [=](ref::Problem &q) { q.star.init[2 * voxels + valid] = kNaN; });
    check_isolated(mix(), SEGPRIOR_NONFINITE_INPUT,
                   [=](ref::Problem &q) { q.star.init[2 * voxels + valid] = kInf; });
  }
  SUBCASE("a warm start beyond the range") {
    check_isolated(mix(), SEGPRIOR_BREAKDOWN,
                   [=](ref::Problem &q) { q.star.init[2 * voxels + valid] = 3e38; });
  }
  SUBCASE("whatever masked voxels hold") {
    // make_problem has put NaN there. Infinity and numbers out of range are no different.
    for (segprior_device which : all_devices())
      for (const double value : {kInf, -kInf, -7.0, 3e38}) {
        INFO(name_of(which) << ", " << value);
        Device device(which);
        const Case c = mix().edge(Case::Edge::per_image);
        const ref::Problem clean = make_problem(c);
        ref::Problem filled = clean;
        for (ref::Array *values :
             {&filled.features, &filled.edge, &filled.init_tv, &filled.td.edge, &filled.star.init})
          for (double &element : *values)
            if (std::isnan(element)) element = value;
        SoftmaxCall want(device, clean, settings_of(c)), got(device, filled, settings_of(c));
        REQUIRE(want.forward() == SEGPRIOR_OK);
        REQUIRE(got.forward() == SEGPRIOR_OK);
        CHECK(got.infos()[1].status == SEGPRIOR_ITERATION_CAP);
        CHECK(got.u->get() == want.u->get());
        CHECK(got.star_dual->get() == want.star_dual->get());
        REQUIRE(want.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
        REQUIRE(got.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
        const auto got_list = got.gradient_list(), want_list = want.gradient_list();
        for (size_t n = 0; n < got_list.size(); ++n)
          CHECK_MESSAGE(got_list[n].second->get() == want_list[n].second->get(),
                        std::string(got_list[n].first));
      }
  }
}

TEST_CASE("softmax: bad scalars in device memory fail every image [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const Case c = base().device_scalars().tv(0.3, 0.1);
    const auto expect = [&](const char *what, int status, const std::function<void(ref::Problem &)> &damage) {
      ref::Problem p = make_problem(c);
      damage(p);
      SoftmaxCall call(device, p, settings_of(c));
      INFO(what);
      REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
      for (const segprior_info &info : call.infos()) CHECK(info.status == status);
      CHECK(all_nan(call.u->get(), 0, c.elements()));
      REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list())
        CHECK_MESSAGE(all_nan(gradient.second->get(), 0, gradient.second->size()), gradient.first);
    };
    expect("eps 0", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.eps = 0; });
    expect("eps -1", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.eps = -1; });
    expect("eps NaN", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.eps = kNaN; });
    expect("eps inf", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.eps = kInf; });
    expect("lam -1", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.lam = -1; });
    expect("lam NaN", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.lam = kNaN; });
    expect("tau -1", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.tau = -1; });
    expect("tau NaN", SEGPRIOR_INVALID_PARAMETER, [](ref::Problem &p) { p.tau = kNaN; });
    expect("tiny eps", SEGPRIOR_BREAKDOWN, [](ref::Problem &p) { p.eps = 1e-36; });
  }
}

TEST_CASE("softmax: bad scalars of threshold dynamics and stars fail every image [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    Case gaussian({5, 7}, 3, 2);
    gaussian.f32().td(0.2).star({1, 2}, 0.2).iterations(3).device_scalars();
    Case given = gaussian;
    given.td_kernel({3, 5});
    const auto expect = [&](const char *what, const Case &c, int status,
                            const std::function<void(ref::Problem &)> &damage) {
      ref::Problem p = make_problem(c);
      damage(p);
      SoftmaxCall call(device, p, settings_of(c));
      INFO(std::string(what));
      REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
      for (const segprior_info &info : call.infos()) CHECK(info.status == status);
      CHECK(all_nan(call.u->get(), 0, c.elements()));
      REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list())
        CHECK_MESSAGE(all_nan(gradient.second->get(), 0, gradient.second->size()),
                      std::string(gradient.first));
    };
    for (const double value : {-1., kNaN, kInf})
      expect("td_lam", gaussian, SEGPRIOR_INVALID_PARAMETER, [=](ref::Problem &p) { p.td.lam = value; });
    for (const double value : {0., -1., kNaN, kInf}) {
      expect("td_sigma", gaussian, SEGPRIOR_INVALID_PARAMETER, [=](ref::Problem &p) { p.td.sigma = value; });
      expect("star_tau", given, SEGPRIOR_INVALID_PARAMETER, [=](ref::Problem &p) { p.star.tau[1] = value; });
    }
    for (const double value : {kNaN, kInf, -kInf})
      expect("td_kernel", given, SEGPRIOR_NONFINITE_INPUT, [=](ref::Problem &p) { p.td.kernel[7] = value; });
    expect("td_lam", gaussian, SEGPRIOR_BREAKDOWN, [](ref::Problem &p) { p.td.lam = 1e37; });
    expect("td_kernel", given, SEGPRIOR_BREAKDOWN, [](ref::Problem &p) { p.td.kernel[7] = 1e37; });
  }
}

TEST_CASE("softmax: infeasible volumes are flagged and the result is finite [small]") {
  for (segprior_device which : all_devices())
    for (bool accelerate : {false, true}) {
      INFO(name_of(which) << ", accelerate " << accelerate);
      Device device(which);
      Case c({8, 9}, 3, 3);
      c.tv(0.3).equal().iterations(12).f32();
      if (accelerate) c.accelerate();
      ref::Problem p = make_problem(c);
      for (int64_t i = 0; i < 3; ++i) p.upper[3 + i] *= 2;  // image 1: twice the voxels there are
      p.upper[6] += 0.4;                                    // image 2: a rounded volume
      p.lower = p.upper;
      SoftmaxCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const auto infos = call.infos();
      CHECK(infos[0].status == SEGPRIOR_ITERATION_CAP);
      CHECK(infos[1].status == SEGPRIOR_INFEASIBLE_VOLUME);
      CHECK(infos[1].iterations == 12);
      CHECK(infos[2].status == SEGPRIOR_ITERATION_CAP);
      const ref::Result want = ref::forward(p);
      CHECK_CLOSE("u", call.u->get(), want.u, 1e-4);
      REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list())
        for (double value : gradient.second->get()) CHECK_MESSAGE(std::isfinite(value), gradient.first);

      // The same u as for the volumes scaled to fit: the softmax does not see the drift of f.
      ref::Problem scaled = p;
      for (int64_t i = 0; i < 3; ++i) scaled.lower[3 + i] = scaled.upper[3 + i] = p.upper[3 + i] / 2;
      SoftmaxCall fits(device, scaled, settings_of(c));
      REQUIRE(fits.forward() == SEGPRIOR_OK);
      CHECK_CLOSE("u of scaled volumes", call.u->get(), fits.u->get(), 1e-5);

      // Lower bounds above, or upper bounds below, the number of voxels.
      Case box = c;
      box.volumes(Case::Volumes::box);
      for (bool low : {false, true}) {
        ref::Problem q = make_problem(box);
        for (int64_t k = 0; k < 9; ++k) {
          q.lower[k] = low ? 0 : 30;
          q.upper[k] = low ? 20 : 60;
        }
        SoftmaxCall bounded(device, q, settings_of(box));
        REQUIRE(bounded.forward() == SEGPRIOR_OK);
        for (const segprior_info &info : bounded.infos()) CHECK(info.status == SEGPRIOR_INFEASIBLE_VOLUME);
        for (double value : bounded.u->get()) CHECK(std::isfinite(value));
      }
    }
}

TEST_CASE("softmax: a class whose every weight underflows stays finite [small]") {
  for (segprior_device which : all_devices())
    for (bool float32 : {false, true}) {
      INFO(name_of(which) << ", float32 " << float32);
      Device device(which);
      Case c({8, 9}, 3);
      c.tv(0.3).equal().iterations(80).eps(0.02);
      if (float32) c.f32();
      ref::Problem p = make_problem(c);
      for (int64_t x = 0; x < p.voxels(); ++x) p.features[x] -= 30;  // exp(-1500) is 0
      SoftmaxCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const ref::Array u = call.u->get();
      double mass = 0;
      for (double value : u) REQUIRE(std::isfinite(value));
      for (int64_t x = 0; x < p.voxels(); ++x) mass += u[x];
      CHECK(mass > 0.5 * p.upper[0]);  // the dual has brought the class back
      REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list())
        for (double value : gradient.second->get()) CHECK_MESSAGE(std::isfinite(value), gradient.first);
    }
}
