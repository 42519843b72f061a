// Properties of threshold dynamics, star shapes and masks that need no other implementation.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

namespace {

ref::Problem problem(std::vector<int64_t> spatial, int64_t classes, uint64_t seed, int64_t batch = 1) {
  ref::Problem p;
  p.batch = batch;
  p.classes = classes;
  p.spatial = std::move(spatial);
  p.eps = 0.5;
  p.features = Random(seed).array(batch * classes * p.voxels(), -1, 1);
  return p;
}

struct Run {
  ref::Array u, tv_dual, volume_dual, star_dual;
};

Run run(Device &device, const ref::Problem &p, int32_t dtype = SEGPRIOR_FLOAT64) {
  CallSettings settings;
  settings.dtype = dtype;
  settings.checkpoint_interval = 0;
  SoftmaxCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  Run r{call.u->get(), {}, {}, {}};
  if (call.tv_dual) r.tv_dual = call.tv_dual->get();
  if (call.volume_dual) r.volume_dual = call.volume_dual->get();
  if (call.star_dual) r.star_dual = call.star_dual->get();
  return r;
}

// -<o,u> + eps <u, ln u> + lam <u, k * (1 - u)> of image 0.
double energy(const ref::Problem &p, const ref::Array &u) {
  const ref::Correlation correlation(p, 0);
  const int64_t voxels = p.voxels();
  double sum = 0;
  ref::Array complement(voxels), blurred(voxels);
  for (int64_t i = 0; i < p.classes; ++i) {
    for (int64_t x = 0; x < voxels; ++x) complement[x] = 1 - u[i * voxels + x];
    correlation.apply(ref::kernel_of(p, i), complement.data(), blurred.data());
    for (int64_t x = 0; x < voxels; ++x) {
      const double value = u[i * voxels + x];
      if (value > 0)  // 0 where masked
        sum += value * (-p.features[i * voxels + x] + p.eps * std::log(value) + p.td.lam * blurred[x]);
    }
  }
  return sum;
}

// The smallest s . grad u_i of star m of image 0.
double least_slope(const ref::Problem &p, const ref::Array &u, int64_t m) {
  const int64_t voxels = p.voxels();
  ref::Array direction, length, slope(p.nd() * voxels);
  ref::star_direction(p, 0, m, direction, length);
  ref::gradient(p, &u[p.star.classes[m] * voxels], slope.data());
  double least = 0;
  for (int64_t x = 0; x < voxels; ++x) {
    double along = 0;
    for (int d = 0; d < p.nd(); ++d) along += direction[d * voxels + x] * slope[d * voxels + x];
    least = std::min(least, along);
  }
  return least;
}

// A rectangle of valid voxels [from, to) of a masked problem.
struct Crop {
  std::vector<int64_t> from, to;

  // The elements of values [.., *S] inside.
  ref::Array of(const ref::Problem &p, const ref::Array &values) const {
    ref::Array inside;
    for (size_t k = 0; k < values.size(); ++k)
      if (contains(p, static_cast<int64_t>(k) % p.voxels())) inside.push_back(values[k]);
    return inside;
  }
  bool contains(const ref::Problem &p, int64_t x) const {
    for (int d = p.nd() - 1; d >= 0; --d) {
      const int64_t along = x % p.spatial[d];
      x /= p.spatial[d];
      if (along < from[d] || along >= to[d]) return false;
    }
    return true;
  }
};

}  // namespace

TEST_CASE("softmax: the energy of threshold dynamics never increases [small]") {
  // [STD] Theorem 3.1: for a positive semi-definite kernel each iteration minimises a bound of the energy.
  // The Fourier transforms of (1 2 1) and (1 4 6 4 1) are powers of a cosine, that of a Gaussian is positive
  // up to its truncation at 3 sigma.
  for (segprior_device which : all_devices())
    for (const bool gaussian : {true, false})
      for (const bool masked : {true, false}) {
        INFO(name_of(which) << ", gaussian " << gaussian << ", masked " << masked);
        Device device(which);
        ref::Problem p = problem({9, 10}, 3, 2);
        p.init_eps = 1;
        p.td.on = true;
        p.td.lam = 1.5;  // strong: without the theorem it would oscillate
        p.td.size = 7;
        p.td.sigma = 1;
        if (!gaussian) {
          p.td.extent = {3, 5};
          for (const double a : {0.25, 0.5, 0.25})
            for (const double b : {1., 4., 6., 4., 1.}) p.td.kernel.push_back(a * b / 16);
        }
        Random random(3);
        for (int64_t x = 0; masked && x < p.voxels(); ++x) p.mask.push_back(random.bits() % 4 != 0);
        double last = energy(p, run(device, p).u);
        const double first = last;
        for (int t = 1; t <= 12; ++t) {
          p.iterations = t;
          const double now = energy(p, run(device, p).u);
          CHECK_MESSAGE(now <= last + 1e-12 * std::fabs(first), "iteration ", t, ": ", now, " after ", last);
          last = now;
        }
        CHECK(last < first - 1);
      }
}

TEST_CASE("softmax: star shapes hold at convergence") {
  // The bound: the slopes of a converged accelerated run, |s . grad u| being of order 0.1 to 0.5 without.
  constexpr double kBound = 1e-6;
  for (segprior_device which : all_devices())
    for (const bool mixed : {false, true}) {
      INFO(name_of(which) << ", mixed " << mixed);
      Device device(which);
      ref::Problem p = problem({12, 11}, 3, 4);
      if (mixed) {
        p.tv = true;
        p.lam = 0.1;
        p.volume = ref::Volume::equality;
        p.lower = p.upper = {40, 52, 40};
      }
      const ref::Array free = run(device, p).u;
      p.iterations = 4000;
      p.accelerate = true;
      p.star.classes = {2, 0};
      p.star.center = {3.3, 7.1, 8, 2};
      const Run r = run(device, p);
      for (int64_t m = 0; m < 2; ++m) {
        CHECK(least_slope(p, free, m) < -0.1);
        CHECK(least_slope(p, r.u, m) >= -kBound);
      }
      CHECK(*std::min_element(r.star_dual.begin(), r.star_dual.end()) >= 0);
      CHECK(max_abs(r.star_dual) > 0.1);
    }
}

TEST_CASE("softmax: volumes are reached with threshold dynamics and stars") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    ref::Problem p = problem({13, 12}, 3, 5);
    p.td.on = true;
    p.td.lam = 0.4;
    p.volume = ref::Volume::equality;
    p.lower = p.upper = {30, 70, 56};
    p.iterations = 200;
    const auto error = [&](const ref::Array &u) {
      double worst = 0;
      for (int64_t i = 0; i < 3; ++i) {
        double mass = 0;
        for (int64_t x = 0; x < p.voxels(); ++x) mass += u[i * p.voxels() + x];
        worst = std::max(worst, std::fabs(mass - p.upper[i]));
      }
      return worst;
    };
    CHECK(error(run(device, p).u) < 1e-8);
    p.star.classes = {1};
    p.star.center = {5.5, 6.5};
    p.iterations = 2000;
    CHECK(error(run(device, p).u) < 1e-3);
  }
}

TEST_CASE("softmax: 20 iterations of stars are 10 and 10 from a warm start [small]") {
  for (segprior_device which : all_devices())
    for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64})
      for (const bool mixed : {false, true}) {
        INFO(name_of(which) << ", dtype " << dtype << ", mixed " << mixed);
        Device device(which);
        ref::Problem p = problem({7, 9}, 3, 6);
        p.features = rounded(p.features, dtype);
        p.star.classes = {1, 0};
        p.star.center = {2.25, 4.5, 6, 1};
        if (mixed) {
          p.tv = true;
          p.lam = 0.3;
          p.volume = ref::Volume::equality;
          p.lower = p.upper = {20, 30, 13};
          p.mask.assign(p.voxels(), 1);
          p.mask[17] = p.mask[30] = 0;
        }
        p.iterations = 20;
        const Run whole = run(device, p, dtype);
        p.iterations = 10;
        const Run half = run(device, p, dtype);
        p.init_tv = half.tv_dual;
        p.init_volume = half.volume_dual;
        p.star.init = half.star_dual;
        const Run resumed = run(device, p, dtype);
        const double tolerance = dtype == SEGPRIOR_FLOAT32 ? 1e-5 : 1e-13;
        CHECK_CLOSE("u", resumed.u, whole.u, tolerance);
        CHECK_CLOSE("tv_dual", resumed.tv_dual, whole.tv_dual, tolerance);
        CHECK_CLOSE("volume_dual", resumed.volume_dual, whole.volume_dual, tolerance);
        CHECK_CLOSE("star_dual", resumed.star_dual, whole.star_dual, tolerance);
      }
}

TEST_CASE("softmax: a mask of ones is no mask [small]") {
  for (segprior_device which : all_devices())
    for (const bool f32 : {false, true})
      for (int bits = 0; bits < 16; ++bits) {
        Case c({7, 9}, 3, 2);
        c.iterations(5).checkpoint(2);
        if (bits & 1) c.tv(0.3).edge(Case::Edge::per_image);
        if (bits & 2) c.td(0.3).td_edge(Case::Edge::shared);
        if (bits & 4) c.star({1, 2});
        if (bits & 8) c.volumes(bits & 1 ? Case::Volumes::equal : Case::Volumes::box);
        if (f32) c.f32();
        INFO("add(" << c.text() << "); on " << name_of(which));
        Device device(which);
        ref::Problem p = make_problem(c);
        const ref::Array grad_u = make_grad_u(c);
        SoftmaxCall bare(device, p, settings_of(c));
        p.mask.assign(p.voxels(), 1);
        SoftmaxCall masked(device, p, settings_of(c));
        const auto same = [&](const char *what, const TensorPtr &got, const TensorPtr &want) {
          if (!got) return;
          // On CUDA other kernels may serve masks; their sums differ in the last bits.
          const double tolerance =
              which.type == SEGPRIOR_CPU ? 0 : (f32 ? 1e-4 : 1e-12) * max_abs(want->get());
          CHECK_CLOSE(std::string(what), got->get(), want->get(), tolerance);
        };
        REQUIRE(bare.forward() == SEGPRIOR_OK);
        REQUIRE_MESSAGE(masked.forward() == SEGPRIOR_OK, segprior_last_error());
        same("u", masked.u, bare.u);
        same("tv_dual", masked.tv_dual, bare.tv_dual);
        same("volume_dual", masked.volume_dual, bare.volume_dual);
        same("star_dual", masked.star_dual, bare.star_dual);
        REQUIRE(bare.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
        REQUIRE(masked.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
        const GradientTensors &got = masked.gradients, &want = bare.gradients;
        same("grads.features", got.features, want.features);
        same("grads.eps", got.eps, want.eps);
        same("grads.tv_edge", got.tv_edge, want.tv_edge);
        same("grads.volume", got.volume, want.volume);
        same("grads.volume_lower", got.volume_lower, want.volume_lower);
        same("grads.td_edge", got.td_edge, want.td_edge);
        same("grads.td_sigma", got.td_sigma, want.td_sigma);
        same("grads.star_center", got.star_center, want.star_center);
      }
}

TEST_CASE("softmax: cutting off whole slices by a mask is the smaller problem [small]") {
  for (segprior_device which : all_devices())
    for (const bool accelerate : {false, true})
      for (int bits = 0; bits < 8; ++bits) {
        INFO(name_of(which) << ", accelerate " << accelerate << ", priors " << bits);
        Device device(which);
        ref::Problem p = problem({6, 5, 7}, 3, 7);
        const Crop crop{{1, 0, 2}, {5, 4, 7}};
        ref::Problem small = p;
        small.spatial = {4, 4, 5};
        small.features = crop.of(p, p.features);
        for (int64_t x = 0; x < p.voxels(); ++x) p.mask.push_back(crop.contains(p, x));
        for (ref::Problem *q : {&p, &small}) {
          const bool whole = q == &p;
          q->accelerate = accelerate;
          q->iterations = 7;
          q->tv = bits & 1;
          q->lam = 0.3;
          q->td.on = bits & 2;  // k * sums over valid voxels, as zero padding does
          q->td.lam = 0.3;
          if (bits & 4) {
            q->star.classes = {1};
            q->star.center = whole ? ref::Array{2.2, 1.6, 4.5} : ref::Array{1.2, 1.6, 2.5};
          }
          q->volume = ref::Volume::box;
          q->lower = {20, 0, 10};
          q->upper = {25, 30, INFINITY};
        }
        const ref::Array grad_u = Random(8).array(static_cast<int64_t>(p.features.size()), -1, 1);
        SoftmaxCall masked(device, p, CallSettings()), cropped(device, small, CallSettings());
        REQUIRE_MESSAGE(masked.forward() == SEGPRIOR_OK, segprior_last_error());
        REQUIRE(cropped.forward() == SEGPRIOR_OK);
        CHECK_CLOSE("u", crop.of(p, masked.u->get()), cropped.u->get(), 1e-12);
        CHECK_CLOSE("volume_dual", masked.volume_dual->get(), cropped.volume_dual->get(), 1e-12);
        REQUIRE(masked.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
        REQUIRE(cropped.backward(SEGPRIOR_BACKWARD_UNROLLED, crop.of(p, grad_u)) == SEGPRIOR_OK);
        CHECK_CLOSE("grads.features", crop.of(p, masked.gradients.features->get()),
                    cropped.gradients.features->get(), 1e-11);
        const auto list = masked.gradient_list(), other = cropped.gradient_list();
        for (size_t n = 1; n < list.size(); ++n)  // sums over the image: features come first
          CHECK_CLOSE(std::string(list[n].first), list[n].second->get(), other[n].second->get(),
                      1e-11 * std::max(1.0, max_abs(other[n].second->get())));
      }
}

TEST_CASE("softmax: each image of a mix is computed as if it were alone [small]") {
  for (const bool accelerate : {false, true})
    for (segprior_device which : all_devices()) {
      Case c({5, 9}, 3, 3);
      c.f32().tv(0.3).td(0.2).td_edge(Case::Edge::per_image).star({2, 0}).equal().mask(Case::Mask::per_image);
      c.eps(1).iterations(30).tolerance(2e-2, 2).warm_start();
      if (accelerate) c.accelerate();
      INFO("add(" << c.text() << "); on " << name_of(which));
      const ref::Problem all = make_problem(c);
      const ref::Array grad_u = make_grad_u(c);
      Device device(which);
      SoftmaxCall together(device, all, settings_of(c));
      REQUIRE_MESSAGE(together.forward() == SEGPRIOR_OK, segprior_last_error());
      REQUIRE(together.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
      for (int64_t b = 0; b < all.batch; ++b) {
        INFO("image " << b);
        const auto part = [&](const ref::Array &values) {
          const int64_t size = static_cast<int64_t>(values.size()) / all.batch;
          return ref::Array(values.begin() + b * size, values.begin() + (b + 1) * size);
        };
        ref::Problem one = all;
        one.batch = 1;
        for (ref::Array *values : {&one.features, &one.lower, &one.upper, &one.init_tv, &one.init_volume,
                                   &one.td.edge, &one.star.center, &one.star.init})
          *values = part(*values);
        one.mask.assign(all.mask.begin() + b * all.voxels(), all.mask.begin() + (b + 1) * all.voxels());
        SoftmaxCall alone(device, one, settings_of(c));
        REQUIRE(alone.forward() == SEGPRIOR_OK);
        REQUIRE(alone.backward(SEGPRIOR_BACKWARD_UNROLLED, part(grad_u)) == SEGPRIOR_OK);
        CHECK(alone.u->get() == part(together.u->get()));
        CHECK(alone.star_dual->get() == part(together.star_dual->get()));
        CHECK(alone.gradients.features->get() == part(together.gradients.features->get()));
        CHECK(alone.gradients.td_edge->get() == part(together.gradients.td_edge->get()));
        CHECK(alone.gradients.star_center->get() == part(together.gradients.star_center->get()));
        CHECK(alone.infos()[0].iterations == together.infos()[b].iterations);
      }
    }
}

TEST_CASE("softmax: an image without a valid voxel is 0 and leaves the others alone [small]") {
  for (segprior_device which : all_devices())
    for (int bits = 0; bits < 16; ++bits) {
      Case c({5, 7}, 3, 2);
      c.mask(Case::Mask::per_image).iterations(4).checkpoint(2);
      if (bits & 1) c.tv(0.3).edge(Case::Edge::per_image);
      if (bits & 2) c.td(0.3).td_edge(Case::Edge::per_image);
      if (bits & 4) c.star({1}).accelerate();
      if (bits & 8) c.equal();
      INFO("add(" << c.text() << "); on " << name_of(which));
      Device device(which);
      ref::Problem p = make_problem(c);
      SoftmaxCall before(device, p, settings_of(c));
      REQUIRE_MESSAGE(before.forward() == SEGPRIOR_OK, segprior_last_error());
      std::fill(p.mask.begin() + p.voxels(), p.mask.end(), 0);
      SoftmaxCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const auto half = [](const ref::Array &values, bool second) {
        const size_t middle = values.size() / 2;
        return second ? ref::Array(values.begin() + middle, values.end())
                      : ref::Array(values.begin(), values.begin() + middle);
      };
      CHECK(half(call.u->get(), false) == half(before.u->get(), false));
      CHECK(half(call.u->get(), true) == ref::Array(p.features.size() / 2));
      REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list()) {
        const ref::Array values = gradient.second->get();
        for (double value : values) CHECK_MESSAGE(std::isfinite(value), std::string(gradient.first));
        if (values.size() % 2 == 0)  // [B, ...]
          CHECK_MESSAGE(half(values, true) == ref::Array(values.size() / 2), std::string(gradient.first));
      }
    }
}
