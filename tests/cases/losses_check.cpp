#include "tests/cases/losses_check.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tests/support/compare.h"
#include "tests/support/random.h"

namespace segprior::test {

using ref::Array;
using ref::losses::Values;

namespace {

// Rounding units that the steps from a score to a result may lose together: seen are at most 7 in float32,
// and 50 in float64, where the sums of the reference itself are no better. CUDA devices approximate the
// logarithm to about 2 units, and the float32 exponential of x to about 2 + |x|, of a value that exp(x) makes
// small.
constexpr double kFloat32Units = 24, kFloat64Units = 200;

double units_of(int32_t dtype) { return dtype == SEGPRIOR_FLOAT64 ? kFloat64Units : kFloat32Units; }

void check_infos(const LossCall &call, int64_t batch) {
  const auto infos = call.infos();
  REQUIRE(static_cast<int64_t>(infos.size()) == batch);
  for (const segprior_info &info : infos) {
    CHECK(info.status == SEGPRIOR_CONVERGED);
    CHECK(info.iterations == 0);
    CHECK(info.residual == 0);
  }
}

bool masked(const ref::losses::Problem &p, int64_t element) {
  const int64_t voxels = p.voxels(), b = element / (voxels * p.classes), x = element % voxels;
  if (p.mask.empty()) return false;
  return p.mask[(static_cast<int64_t>(p.mask.size()) == voxels ? 0 : b * voxels) + x] == 0;
}

// A call with its gradients set to what they accumulate to; forward and backward.
void run(LossCall &call, const LossPrepared &p) {
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  for (const auto &gradient : call.gradient_list())
    gradient.second->set(start_of(*gradient.second, p.c.parameter_dtype()));
  if (p.c.is_small_float())
    call.grad_scores->set(rounded(start_of(*call.grad_scores, p.c.parameter_dtype()), p.c.dtype_));
  REQUIRE_MESSAGE(call.backward(p.cotangents) == SEGPRIOR_OK, std::string(segprior_last_error()));
  CHECK(call.violations().empty());
}

void check_reference(const LossPrepared &p, Device &device) {
  const int32_t dtype = p.c.dtype_;
  const double units = units_of(dtype);
  LossCall call(device, p.problem, settings_of(p.c));
  run(call, p);
  check_infos(call, p.c.batch_);
  check_within("total", call.total->get(), p.results.total, dtype, units);
  check_within("terms", call.terms->get(), p.results.terms, dtype, units);
  check_within("items", call.items->get(), p.results.items, dtype, units);
  check_within("voxels", call.voxels->get(), p.results.voxels, dtype, units);
  const auto gradient = [&](const char *name, const TensorPtr &got, const Values &want) {
    if (!got) return;
    Values expected = want;
    const Array start = p.c.accumulate_ ? start_of(*got, dtype) : Array(want.value.size(), 0.0);
    for (size_t k = 0; k < start.size(); ++k) {
      expected.value[k] += start[k];
      expected.size[k] += std::fabs(start[k]);
    }
    const Array values = got->get();
    check_within(name, values, expected, dtype, units);
    if (want.value.data() != p.grads.scores.value.data()) return;
    bool untouched = true;
    for (size_t k = 0; k < values.size(); ++k)
      if (masked(p.problem, static_cast<int64_t>(k))) untouched = untouched && values[k] == start[k];
    CHECK_MESSAGE(untouched, "the gradient at a masked voxel is not exactly ",
                  p.c.accumulate_ ? "kept" : "0");
  };
  gradient("grads.scores", call.grad_scores, p.grads.scores);
  if (p.cotangents.voxels.empty())
    gradient("grads.class_weights", call.grad_class_weights, p.grads.class_weights);
  gradient("grads.size_lower", call.grad_size_lower, p.grads.size_lower);
  gradient("grads.size_upper", call.grad_size_upper, p.grads.size_upper);
}

// 16-bit scores give what float32 scores of the same values do, the gradient rounded once.
void check_16_bit(const LossPrepared &p, Device &device) {
  LossSettings wide = settings_of(p.c);
  wide.dtype = SEGPRIOR_FLOAT32;
  LossCall call(device, p.problem, settings_of(p.c)), same(device, p.problem, wide);
  run(call, p);
  run(same, p);
  check_infos(call, p.c.batch_);
  const auto equal = [](const char *name, const Array &got, const Array &want) {
    CHECK_CLOSE(name, got, want, 0);
  };
  const NamedTensors outputs = call.output_list(), want = same.output_list();
  for (size_t k = 0; k < outputs.size(); ++k)
    equal(outputs[k].first, outputs[k].second->get(), want[k].second->get());
  const NamedTensors grads = call.gradient_list(), want_grads = same.gradient_list();
  for (size_t k = 0; k < grads.size(); ++k)
    equal(grads[k].first, grads[k].second->get(),
          k == 0 ? rounded(want_grads[k].second->get(), p.c.dtype_) : want_grads[k].second->get());
}

}  // namespace

LossPrepared::LossPrepared(const LossCase &given)
    : c(given), problem(make_problem(given)), cotangents(make_cotangents(given)) {
  if (c.is_small_float()) return;
  results = ref::losses::forward(problem);
  grads = ref::losses::backward(problem, cotangents);
}

Array start_of(const Tensor &gradient, int32_t dtype) {
  return rounded(Random(77).array(gradient.size(), -1, 1), dtype);
}

void check_within(const std::string &what, const Array &got, const Values &want, int32_t dtype,
                  double factor) {
  REQUIRE(got.size() == want.value.size());
  const bool wide = dtype == SEGPRIOR_FLOAT64;
  // Below the normal numbers, a unit is not relative any more.
  const double unit = wide ? 0x1p-53 : 0x1p-24, tiny = wide ? 0x1p-1000 : 0x1p-120;
  double worst = 0;
  size_t at = 0;
  for (size_t k = 0; k < got.size(); ++k) {
    double off = std::fabs(got[k] - want.value[k]) / (unit * want.size[k] + tiny);
    if (std::isnan(off)) off = INFINITY;
    if (off > worst) worst = off, at = k;
  }
  // How far from failing the tests are; for setting kFloat32Units.
  static const bool print = std::getenv("SEGPRIOR_TEST_MARGINS") != nullptr;
  if (print) std::printf("margin %s %d %.3g\n", what.c_str(), static_cast<int>(dtype), worst);
  CHECK_MESSAGE(worst <= factor, what, " ", at, ": got ", got[at], ", want ", want.value[at], ", off by ",
                worst, " units of ", want.size[at], ", allowed ", factor);
}

std::vector<std::vector<unsigned char>> contents(const LossCall &call) {
  std::vector<std::vector<unsigned char>> all;
  for (const auto &list : {call.output_list(), call.gradient_list()})
    for (const auto &tensor : list) all.push_back(tensor.second->memory().content());
  all.push_back(call.info->content());
  return all;
}

void check_case(const LossPrepared &p, Device &device) {
  INFO("add(" << p.c.text() << "); on " << name_of(device.which()));
  if (p.c.is_small_float())
    check_16_bit(p, device);
  else
    check_reference(p, device);
}

}  // namespace segprior::test
