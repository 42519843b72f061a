#include "tests/cases/check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/random.h"

namespace segprior::test {

namespace {

// The bands of float32; those of float64 are 1e-6 of them.
bool clear_of_kinks(const ref::Margins &m, bool float32) {
  const double unit = float32 ? 1 : 1e-6;
  return m.projection > 2e-5 * unit && m.restart > 1e-4 * unit && m.bound > 1e-3 * unit &&
         m.stop > 1e-2 * unit;
}

bool decisions_clear(const ref::Margins &m, bool float32) {
  const double unit = float32 ? 1 : 1e-6;
  return m.restart > 1e-4 * unit && m.stop > 1e-2 * unit;
}

// SEGPRIOR_TEST_MARGINS=1 prints how much of each tolerance is used: the way to see whether they are right.
void check(const char *what, const ref::Array &got, const ref::Array &want, double tolerance) {
  static const bool print = std::getenv("SEGPRIOR_TEST_MARGINS") != nullptr;
  if (print && tolerance > 0)
    std::printf("used %.3f of the tolerance of %s\n", difference(got, want).worst / tolerance, what);
  CHECK_CLOSE(what, got, want, tolerance);
}

double relative_distance(const ref::Array &got, const ref::Array &want) {
  double error = 0, norm = 0;
  for (size_t k = 0; k < want.size(); ++k) {
    error += (got[k] - want[k]) * (got[k] - want[k]);
    norm += want[k] * want[k];
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

void check_infos(const Prepared &p, const std::vector<segprior_info> &infos, const Bounds &bounds) {
  for (int64_t b = 0; b < p.problem.batch; ++b) {
    INFO("info of image " << b);
    CHECK(infos[b].status == p.result.status(b));
    CHECK(infos[b].iterations == p.result.iterations(b));
    CHECK(std::fabs(infos[b].residual - p.result.images[b].residual) <= 2 * bounds.u);
  }
}

void check_unrolled(const Prepared &p, SoftmaxCall &call, const Bounds &bounds) {
  const ref::Problem &problem = p.problem;
  const ref::Gradients &want = p.grads;
  ref::Array before_all;
  std::vector<ref::Array> before;
  if (p.c.accumulate_) {
    call.opts.accumulate = 1;
    Random random(p.c.seed_ + 2000);
    for (const auto &gradient : call.gradient_list()) {
      gradient.second->set(random.array(gradient.second->size(), -1, 1));
      before.push_back(gradient.second->get());
    }
  }
  CHECK_MESSAGE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, p.grad_u) == SEGPRIOR_OK, segprior_last_error());
  call.opts.accumulate = 0;

  const double incoming = max_abs(p.grad_u),
               smallest_eps = problem.init_eps > 0 ? std::min(problem.eps, problem.init_eps) : problem.eps;
  double smallest_volume = std::numeric_limits<double>::infinity();
  for (const ref::Array *bound : {&problem.lower, &problem.upper})
    for (double value : *bound)
      if (value > 0) smallest_volume = std::min(smallest_volume, value);
  // Scales: what one term of each gradient can be, so that a gradient that cancels to 0 is not compared with
  // its own rounding error. A volume's gradient sums z over the image before it divides by the volume.
  const double feature_scale = incoming / smallest_eps;
  const double volume_scale = incoming * static_cast<double>(problem.voxels()) / smallest_volume;
  // A dual's gradient is a difference of two neighbours' over h.
  double inverse = 0;
  for (int d = 0; d < problem.nd(); ++d) inverse += problem.spacing.empty() ? 1 : 1 / problem.spacing[d];
  const double edge_scale =
      problem.lam * feature_scale * 2 * inverse * (p.c.edge_ == Case::Edge::shared ? problem.batch : 1);

  size_t next = 0;
  const auto compare = [&](const char *name, const TensorPtr &tensor, const ref::Array &wanted,
                           double scale) {
    if (!tensor) return;
    ref::Array got = tensor->get(), expected = wanted;
    double tolerance = bounds.relative * std::max(scale, max_abs(wanted));
    if (p.c.accumulate_) {
      REQUIRE(next < before.size());
      for (size_t k = 0; k < expected.size(); ++k) expected[k] += before[next][k];
      tolerance += (p.c.float32_ ? 0x1p-23 : 0x1p-52) * max_abs(expected);
      ++next;
    }
    if (p.near_kink && tensor->size() > 1000) {
      // A voxel on the other side of its kink changes the gradients around it by their own size. The float64
      // twin of the case checks the values; here a wrong tile, row or class would show.
      CHECK_MESSAGE(relative_distance(got, expected) < 0.02, name, ": relative distance ",
                    relative_distance(got, expected));
    } else if (p.near_kink) {
      CHECK_CLOSE(name, got, expected, 0.02 * std::max(max_abs(expected), 1e-3 * scale));
    } else {
      check(name, got, expected, tolerance);
    }
  };
  const GradientTensors &g = call.gradients;  // in the order of gradient_list
  compare("grads.features", g.features, want.features, feature_scale);
  compare("grads.eps", g.eps, {want.eps}, want.eps_terms);
  compare("grads.init_eps", g.init_eps, {want.init_eps}, want.init_eps_terms);
  compare("grads.tv_lam", g.tv_lam, {want.tv_lam}, want.tv_lam_terms);
  compare("grads.tv_tau", g.tv_tau, {want.tv_tau}, want.tv_tau_terms);
  compare("grads.tv_edge", g.tv_edge, want.tv_edge, edge_scale);
  compare("grads.volume", g.volume, want.volume, volume_scale);
  compare("grads.volume_lower", g.volume_lower, want.volume_lower, volume_scale);
  compare("grads.volume_upper", g.volume_upper, want.volume_upper, volume_scale);
}

}  // namespace

Prepared prepare(const Case &original) {
  const bool retry = original.elements() * std::max(1, original.iterations_) < 60000;
  Prepared p{original, {}, {}, {}, {}, false};
  for (int attempt = 0; attempt < 40; ++attempt) {
    p.c.seed(original.seed_ + 100 * attempt);
    p.problem = make_problem(p.c);
    p.result = ref::forward(p.problem);
    if (clear_of_kinks(p.result.margins, p.c.float32_)) break;
    if (!retry && decisions_clear(p.result.margins, p.c.float32_)) break;
  }
  p.near_kink = !clear_of_kinks(p.result.margins, p.c.float32_);
  p.grad_u = make_grad_u(p.c);
  p.grads = ref::backward_unrolled(p.problem, p.result, p.grad_u);
  return p;
}

Bounds bounds_of(const Prepared &p) {
  const ref::Problem &problem = p.problem;
  const double unit = p.c.float32_ ? 0x1p-24 : 0x1p-53;
  double inverse = 0;
  for (int d = 0; d < problem.nd(); ++d) inverse += problem.spacing.empty() ? 1 : 1 / problem.spacing[d];
  const double smallest_eps = problem.init_eps > 0 ? std::min(problem.eps, problem.init_eps) : problem.eps;
  const double edge = problem.edge.empty() ? 1 : max_abs(problem.edge);
  const double dual = problem.tv ? std::max(problem.lam * edge, max_abs(problem.init_tv)) : 0;
  const double logits =
      1 + (max_abs(problem.features) + 2 * dual * inverse + max_abs(p.result.volume_dual)) / smallest_eps;
  // k = 8: about three roundings in each of the exponent, its argument and the division by the sum.
  const double relative = 8 * unit * logits * (problem.iterations + 1);
  return {relative, relative * std::max(dual, problem.tv ? problem.step() : 0.0),
          relative * (problem.eps + max_abs(p.result.volume_dual)), relative};
}

void check_case(const Prepared &p, Device &device) {
  INFO("add(" << p.c.text() << "); on " << name_of(device.which()));
  const Bounds bounds = bounds_of(p);
  SoftmaxCall call(device, p.problem, settings_of(p.c));
  CHECK_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  check("u", call.u->get(), p.result.u, bounds.u);
  if (call.tv_dual) check("tv_dual", call.tv_dual->get(), p.result.tv_dual, bounds.tv_dual);
  if (call.volume_dual)
    check("volume_dual", call.volume_dual->get(), p.result.volume_dual, bounds.volume_dual);
  check_infos(p, call.infos(), bounds);

  check_unrolled(p, call, bounds);

  const ref::Array u = call.u->get();
  CHECK_MESSAGE(call.backward(SEGPRIOR_BACKWARD_LAST, p.grad_u) == SEGPRIOR_OK, segprior_last_error());
  const ref::Array last = ref::backward_last(p.problem, u, p.grad_u);
  // From the library's own u: a difference of two numbers and a product, I terms in the mean.
  const double unit = p.c.float32_ ? 0x1p-24 : 0x1p-53;
  check("last grads.features", call.gradients.features->get(), last,
        unit * (4 + static_cast<double>(p.problem.classes)) * max_abs(p.grad_u) / p.problem.last_eps());
  const std::string violations = call.violations().empty() ? "" : call.violations().front();
  CHECK_MESSAGE(call.violations().empty(), violations);
}

}  // namespace segprior::test
