// 16-bit features. Arithmetic is float32: a 16-bit call is the float32 call on the same numbers with u and
// the features' gradient rounded, bit for bit, so that their error is that of float32 and half an ulp of the
// type.
#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "tests/cases/cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr int32_t kLast = SEGPRIOR_BACKWARD_LAST, kUnrolled = SEGPRIOR_BACKWARD_UNROLLED;

std::vector<Case> cases() {
  const auto base = [](std::vector<int64_t> spatial, int64_t classes, int64_t batch) {
    return Case(std::move(spatial), classes, batch).f16().iterations(4);
  };
  return {base({9, 11}, 3, 2).tv(0.3).equal(), base({13}, 2, 3), base({4, 5, 6}, 4, 1).tv(0.2).checkpoint(3),
          base({9, 11}, 3, 2).tv(0.3).td(0.2).star({1}).mask(Case::Mask::per_image)};
}

// The same problem in another dtype.
CallSettings as(const Case &c, int32_t dtype) {
  CallSettings settings = settings_of(c);
  settings.dtype = dtype;
  return settings;
}

// All results of a call in a mode, 16-bit tensors and, rounded to them, float32 ones.
std::vector<ref::Array> results(SoftmaxCall &call, int32_t mode, int32_t dtype) {
  std::vector<ref::Array> all{rounded(call.u->get(), dtype)};
  for (const TensorPtr *tensor : {&call.tv_dual, &call.volume_dual, &call.star_dual})
    if (*tensor) all.push_back((*tensor)->get());
  for (const auto &gradient : call.gradient_list(mode))
    all.push_back(gradient.second == call.gradients.features.get() ? rounded(gradient.second->get(), dtype)
                                                                   : gradient.second->get());
  return all;
}

// Something for gradients to be added to.
void preset(SoftmaxCall &call) {
  for (const auto &gradient : call.gradient_list()) {
    ref::Array values(gradient.second->size());
    for (size_t k = 0; k < values.size(); ++k) values[k] = 0.5 + static_cast<double>(k % 7);
    gradient.second->set(values);
  }
}

void check_same(const std::vector<ref::Array> &got, const std::vector<ref::Array> &want) {
  REQUIRE(got.size() == want.size());
  for (size_t k = 0; k < got.size(); ++k) {
    INFO("result " << k);
    CHECK(difference(got[k], want[k]).worst == 0);
  }
}

}  // namespace

TEST_CASE("16-bit calls are float32 calls, rounded [small]") {
  for (segprior_device which : all_devices())
    for (int32_t dtype : {SEGPRIOR_FLOAT16, SEGPRIOR_BFLOAT16})
      for (const Case &c : cases())
        for (bool accumulate : {false, true}) {
          INFO(c.text() << ", dtype " << dtype << " on " << name_of(which));
          Device device(which);
          ref::Problem problem = make_problem(c);
          problem.features = rounded(problem.features, dtype);
          const ref::Array grad_u = rounded(make_grad_u(c), dtype);
          SoftmaxCall narrow(device, problem, as(c, dtype)), wide(device, problem, as(c, SEGPRIOR_FLOAT32));
          REQUIRE_MESSAGE(narrow.forward() == SEGPRIOR_OK, segprior_last_error());
          REQUIRE(wide.forward() == SEGPRIOR_OK);
          for (int32_t mode : {kUnrolled, kLast}) {
            if (mode == kLast) wide.u->set(narrow.u->get());  // the u that both read
            for (SoftmaxCall *call : {&narrow, &wide}) {
              call->opts.accumulate = accumulate;
              if (accumulate) preset(*call);
              CHECK_MESSAGE(call->backward(mode, grad_u) == SEGPRIOR_OK, segprior_last_error());
            }
            check_same(results(narrow, mode, dtype), results(wide, mode, dtype));
          }
          CHECK(narrow.canaries_intact());
          CHECK(narrow.violations().empty());
          CHECK(narrow.infos()[0].iterations == wide.infos()[0].iterations);
        }
}

TEST_CASE("16-bit workspace: what conversions need, also for the last softmax alone [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const Case c = cases()[0];
    SoftmaxCall narrow(device, make_problem(c), as(c, SEGPRIOR_BFLOAT16)),
        wide(device, make_problem(c), as(c, SEGPRIOR_FLOAT32));
    const auto bytes = [&](SoftmaxCall &call, int32_t mode) {
      call.opts.backward_mode = mode;
      size_t forward = 0, backward = 0;
      CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, &forward,
                                            &backward) == SEGPRIOR_OK);
      return std::make_pair(forward, backward);
    };
    const size_t field = sizeof(float) * static_cast<size_t>(c.elements()), slack = 4 * 256;
    CHECK(bytes(narrow, kUnrolled).first - bytes(wide, kUnrolled).first >= 2 * field);
    CHECK(bytes(narrow, kUnrolled).first - bytes(wide, kUnrolled).first <= 2 * field + slack);
    CHECK(bytes(narrow, kUnrolled).second - bytes(wide, kUnrolled).second >= 3 * field);
    CHECK(bytes(narrow, kUnrolled).second - bytes(wide, kUnrolled).second <= 3 * field + slack);
    CHECK(bytes(narrow, kLast).second >= 3 * field);
    CHECK(bytes(narrow, kLast).second <= 3 * field + slack);
    CHECK(bytes(wide, kLast).second == 0);
  }
}

TEST_CASE("16-bit features beyond the range of the type are not finite [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const Case c = Case({5, 7}, 3, 2).f16().iterations(3);
    ref::Problem problem = make_problem(c);
    problem.features[3 * 35 + 1] = 65520;  // rounds to infinity; in the second image
    SoftmaxCall call(device, problem, as(c, SEGPRIOR_FLOAT16));
    REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
    CHECK(call.infos()[0].status == SEGPRIOR_ITERATION_CAP);
    CHECK(call.infos()[1].status == SEGPRIOR_NONFINITE_INPUT);
    const ref::Array u = call.u->get();
    for (size_t k = 0; k < u.size(); ++k) CHECK(std::isnan(u[k]) == (k >= 3 * 35));
    // Gradients beyond it become infinite, not wrong.
    problem = make_problem(c);
    problem.eps = 0.01;
    SoftmaxCall steep(device, problem, as(c, SEGPRIOR_FLOAT16));
    REQUIRE(steep.forward() == SEGPRIOR_OK);
    ref::Array grad_u(c.elements(), 0);
    for (size_t k = 0; k < 35; ++k) grad_u[k] = 60000;
    REQUIRE(steep.backward(kUnrolled, grad_u) == SEGPRIOR_OK);
    int infinite = 0;
    for (double value : steep.gradients.features->get()) {
      CHECK(!std::isnan(value));
      infinite += std::isinf(value);
    }
    CHECK(infinite > 0);
  }
}
