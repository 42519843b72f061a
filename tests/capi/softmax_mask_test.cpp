// Masks at the borders of a call: what masked voxels hold reaches no result and stays where gradients are
// added. Values against the reference: tests/cases.
#include <doctest/doctest.h>

#include <vector>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr int32_t kModes[] = {SEGPRIOR_BACKWARD_UNROLLED, SEGPRIOR_BACKWARD_LAST};

std::vector<Case> cases() {
  const auto base = [] { return Case({9, 11}, 3, 2).iterations(4).mask(Case::Mask::per_image); };
  return {base(), base().tv(0.3).equal(), base().f32().tv(0.3), base().bf16().tv(0.3).td(0.2).star({1})};
}

std::vector<ref::Array> results(SoftmaxCall &call, int32_t mode) {
  std::vector<ref::Array> all{call.u->get()};
  for (const TensorPtr *tensor : {&call.tv_dual, &call.volume_dual, &call.star_dual})
    if (*tensor) all.push_back((*tensor)->get());
  for (const auto &gradient : call.gradient_list(mode)) all.push_back(gradient.second->get());
  return all;
}

}  // namespace

TEST_CASE("masked voxels: u and gradients are 0 there, whatever the features hold [small]") {
  for (segprior_device which : all_devices())
    for (const Case &c : cases()) {
      INFO(c.text() << " on " << name_of(which));
      Device device(which);
      const ref::Problem problem = make_problem(c);  // NaN at masked voxels
      const ref::Array grad_u = make_grad_u(c);
      const int64_t voxels = problem.voxels();
      const auto masked = [&](size_t k) {
        const int64_t image = static_cast<int64_t>(k) / (problem.classes * voxels);
        return !problem.valid(image, static_cast<int64_t>(k) % voxels);
      };
      ref::Problem clean = problem;
      ref::Array clean_grad_u = grad_u;
      int count = 0;
      for (size_t k = 0; k < grad_u.size(); ++k)
        if (masked(k)) {
          clean.features[k] = 1000.0 * static_cast<double>(k % 3);
          clean_grad_u[k] = -7;
          ++count;
        }
      REQUIRE(count > 0);
      SoftmaxCall dirty(device, problem, settings_of(c)), tidy(device, clean, settings_of(c));
      REQUIRE_MESSAGE(dirty.forward() == SEGPRIOR_OK, segprior_last_error());
      REQUIRE(tidy.forward() == SEGPRIOR_OK);
      for (int32_t mode : kModes) {
        CHECK_MESSAGE(dirty.backward(mode, grad_u) == SEGPRIOR_OK, segprior_last_error());
        CHECK(tidy.backward(mode, clean_grad_u) == SEGPRIOR_OK);
        const std::vector<ref::Array> got = results(dirty, mode), want = results(tidy, mode);
        for (size_t k = 0; k < got.size(); ++k) CHECK(difference(got[k], want[k]).worst == 0);
        const ref::Array u = dirty.u->get(), gradient = dirty.gradients.features->get();
        for (size_t k = 0; k < u.size(); ++k)
          if (masked(k)) {
            CHECK(u[k] == 0);
            CHECK(gradient[k] == 0);
          }
        // Added to, masked voxels keep what they hold.
        dirty.opts.accumulate = 1;
        dirty.gradients.features->set(ref::Array(gradient.size(), 2.5));
        CHECK(dirty.backward(mode, grad_u) == SEGPRIOR_OK);
        const ref::Array added = dirty.gradients.features->get();
        for (size_t k = 0; k < added.size(); ++k)
          if (masked(k)) CHECK(added[k] == 2.5);
        dirty.opts.accumulate = 0;
      }
      CHECK(dirty.canaries_intact());
      CHECK(dirty.violations().empty());
    }
}

TEST_CASE("a shared mask is the same as a copy for each image [small]") {
  for (segprior_device which : all_devices())
    for (Case c : cases()) {
      c.mask(Case::Mask::shared);
      INFO(c.text() << " on " << name_of(which));
      Device device(which);
      ref::Problem problem = make_problem(c);
      SoftmaxCall shared(device, problem, settings_of(c));
      const std::vector<uint8_t> once = problem.mask;
      for (int64_t b = 1; b < problem.batch; ++b)
        problem.mask.insert(problem.mask.end(), once.begin(), once.end());
      for (uint8_t &valid : problem.mask) valid = valid ? 255 : 0;  // any value but 0 is valid
      SoftmaxCall copied(device, problem, settings_of(c));
      CHECK(shared.inputs.mask->shape[0] == 1);
      CHECK(copied.inputs.mask->shape[0] == problem.batch);
      REQUIRE_MESSAGE(shared.forward() == SEGPRIOR_OK, segprior_last_error());
      REQUIRE(copied.forward() == SEGPRIOR_OK);
      for (int32_t mode : kModes) {
        CHECK(shared.backward(mode, make_grad_u(c)) == SEGPRIOR_OK);
        CHECK(copied.backward(mode, make_grad_u(c)) == SEGPRIOR_OK);
        const std::vector<ref::Array> got = results(shared, mode), want = results(copied, mode);
        for (size_t k = 0; k < got.size(); ++k) CHECK(difference(got[k], want[k]).worst == 0);
      }
    }
}

TEST_CASE("the last softmax of a masked call needs room for grad_u alone [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const Case c = cases()[2];
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    call.opts.backward_mode = SEGPRIOR_BACKWARD_LAST;
    size_t bytes = 0;
    CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, &bytes) ==
          SEGPRIOR_OK);
    CHECK(bytes >= sizeof(float) * static_cast<size_t>(c.elements()));
    CHECK(bytes <= sizeof(float) * static_cast<size_t>(c.elements()) + 256);
  }
}
