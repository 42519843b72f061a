#include "tests/cases/check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/random.h"
#include "tests/support/small_types.h"

namespace segprior::test {

namespace {

// The bands of float32; those of float64 are 1e-6 of them.
bool decisions_clear(const Case &c, const ref::Margins &m) {
  // Near the fixed point differences of iterates, which decide here, have few digits left.
  if (c.implicit_) return m.restart > 1e-3 && m.stop > 5e-2;
  const double unit = c.float32_ ? 1 : 1e-6;
  return m.restart > 1e-4 * unit && m.stop > 1e-2 * unit;
}

bool clear_of_kinks(const Case &c, const ref::Margins &m) {
  const double unit = c.float32_ ? 1 : 1e-6;
  return decisions_clear(c, m) && m.projection > 2e-5 * unit && m.bound > 1e-3 * unit && m.star > 2e-5 * unit;
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

// Compares the gradient tensors with the reference. `before`: what they held if they accumulate.
class GradientCheck {
 public:
  GradientCheck(const Prepared &p, SoftmaxCall &call, const Bounds &bounds, std::vector<ref::Array> before)
      : p_(p), call_(call), bounds_(bounds), before_(std::move(before)) {}

  void all(bool unrolled) {
    const ref::Problem &problem = p_.problem;
    const ref::Gradients &want = p_.grads;
    const double incoming = max_abs(p_.grad_u),
                 smallest_eps = problem.init_eps > 0 ? std::min(problem.eps, problem.init_eps) : problem.eps;
    double smallest_volume = std::numeric_limits<double>::infinity();
    for (const ref::Array *bound : {&problem.lower, &problem.upper})
      for (double value : *bound)
        if (value > 0) smallest_volume = std::min(smallest_volume, value);
    // Scales: what one term of each gradient can be, so that a gradient that cancels to 0 is not compared
    // with its own rounding error. A volume's gradient sums z over the image before it divides by the volume.
    const double feature_scale = incoming / smallest_eps;
    const double volume_scale = incoming * static_cast<double>(problem.voxels()) / smallest_volume;
    // A dual's gradient is a difference of two neighbours' over h.
    double inverse = 0;
    for (int d = 0; d < problem.nd(); ++d) inverse += problem.spacing.empty() ? 1 : 1 / problem.spacing[d];
    const auto images = [&](Case::Edge kind) { return kind == Case::Edge::shared ? problem.batch : 1; };
    const double edge_scale = problem.lam * feature_scale * 2 * inverse * images(p_.c.edge_);
    // Of kernels of absolute sum 1.
    const double td_edge_scale =
        problem.td.lam * feature_scale * 2 * static_cast<double>(problem.classes * images(p_.c.td_edge_));

    // At convergence the terms of the steps' gradients are products with slopes that have become 0.
    const double step_scale = p_.c.implicit_ ? feature_scale : 0;

    // In the order of gradient_list.
    const GradientTensors &g = call_.gradients;
    compare("grads.features", g.features, want.features, feature_scale);
    compare("grads.eps", g.eps, {want.eps}, want.eps_terms);
    if (unrolled) compare("grads.init_eps", g.init_eps, {want.init_eps}, want.init_eps_terms);
    compare("grads.tv_lam", g.tv_lam, {want.tv_lam}, want.tv_lam_terms);
    if (unrolled) compare("grads.tv_tau", g.tv_tau, {want.tv_tau}, want.tv_tau_terms + step_scale);
    compare("grads.tv_edge", g.tv_edge, want.tv_edge, edge_scale);
    const bool centred = !unrolled;  // implicit gradients of volumes are fixed up to a constant
    compare("grads.volume", g.volume, want.volume, volume_scale, centred);
    compare("grads.volume_lower", g.volume_lower, want.volume_lower, volume_scale);
    compare("grads.volume_upper", g.volume_upper, want.volume_upper, volume_scale);
    compare("grads.td_lam", g.td_lam, {want.td_lam}, want.td_lam_terms);
    compare("grads.td_sigma", g.td_sigma, {want.td_sigma}, want.td_sigma_terms);
    compare("grads.td_kernel", g.td_kernel, want.td_kernel, max_abs(want.td_kernel_terms));
    compare("grads.td_edge", g.td_edge, want.td_edge, td_edge_scale);
    if (unrolled)
      compare("grads.star_tau", g.star_tau, want.star_tau, max_abs(want.star_tau_terms) + step_scale);
    compare("grads.star_center", g.star_center, want.star_center, max_abs(want.star_center_terms));
  }

 private:
  void compare(const char *name, const TensorPtr &tensor, const ref::Array &wanted, double scale,
               bool centred = false) {
    if (!tensor) return;
    ref::Array got = tensor->get(), expected = wanted;
    double tolerance = bounds_.relative * std::max(scale, max_abs(wanted));
    if (p_.c.accumulate_) {
      REQUIRE(next_ < before_.size());
      for (size_t k = 0; k < expected.size(); ++k) expected[k] += before_[next_][k];
      tolerance += (p_.c.float32_ ? 0x1p-23 : 0x1p-52) * max_abs(expected);
      ++next_;
    }
    // One rounding to 16 bits at the end.
    if (p_.c.small_dtype_ && tensor == call_.gradients.features)
      tolerance += small_unit(p_.c) * max_abs(expected) + small_float(p_.c.small_dtype_).smallest();
    if (centred) {
      centre(got);
      centre(expected);
    }
    if (p_.near_kink && tensor->size() > 1000) {
      // A voxel on the other side of its kink changes the gradients around it by their own size. The float64
      // twin of the case checks the values; here a wrong tile, row or class would show.
      CHECK_MESSAGE(relative_distance(got, expected) < 0.02, name, ": relative distance ",
                    relative_distance(got, expected));
    } else if (p_.near_kink) {
      CHECK_CLOSE(name, got, expected, 0.02 * std::max(max_abs(expected), 1e-3 * scale));
    } else {
      check(name, got, expected, tolerance);
    }
  }

  // Each image's mean over the classes that are on becomes 0.
  void centre(ref::Array &volume) const {
    const int64_t classes = p_.problem.classes;
    for (int64_t b = 0; b < p_.problem.batch; ++b) {
      double sum = 0, count = 0;
      for (int64_t k = b * classes; k < (b + 1) * classes; ++k)
        if (p_.problem.upper[k] > 0) sum += volume[k], ++count;
      for (int64_t k = b * classes; k < (b + 1) * classes; ++k)
        if (p_.problem.upper[k] > 0) volume[k] -= sum / count;
    }
  }

  const Prepared &p_;
  SoftmaxCall &call_;
  const Bounds bounds_;
  const std::vector<ref::Array> before_;
  size_t next_ = 0;
};

void check_unrolled(const Prepared &p, SoftmaxCall &call, const Bounds &bounds) {
  std::vector<ref::Array> before;
  if (p.c.accumulate_) {
    call.opts.accumulate = 1;
    Random random(p.c.seed_ + 2000);
    for (const auto &gradient : call.gradient_list()) {
      gradient.second->set(random.array(gradient.second->size(), -1, 1));
      before.push_back(gradient.second->get());
    }
  }
  CHECK_MESSAGE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, p.grad_u) == SEGPRIOR_OK,
                std::string(segprior_last_error()));
  call.opts.accumulate = 0;
  GradientCheck(p, call, bounds, before).all(true);
}

// At convergence the unrolled gradient of the reference is the derivative of the fixed point.
void check_implicit(const Prepared &p, SoftmaxCall &call) {
  for (int64_t b = 0; b < p.problem.batch; ++b) REQUIRE(p.result.status(b) == ref::converged);
  CHECK_MESSAGE(call.backward(SEGPRIOR_BACKWARD_IMPLICIT, p.grad_u) == SEGPRIOR_OK,
                std::string(segprior_last_error()));
  for (const segprior_info &info : call.backward_infos()) {
    CHECK(info.status == SEGPRIOR_CONVERGED);
    CHECK(info.iterations > 0);
    CHECK(info.residual <= call.opts.implicit_tolerance);
  }
  // Forward stops at a change of 1e-13, the solve at a residual of 1e-10; the slowest mode multiplies both.
  GradientCheck(p, call, {0, 0, 0, 0, 1e-6}, {}).all(false);
}

// u and every gradient of a voxel are exactly 0 where it is masked.
void check_masked(const Prepared &p, const char *name, const TensorPtr &tensor) {
  if (!tensor) return;
  const ref::Problem &problem = p.problem;
  const ref::Array values = tensor->get();
  const int64_t voxels = problem.voxels(), images = tensor->view()->shape[0],
                per_image = static_cast<int64_t>(values.size()) / images;
  int64_t nonzero = 0;
  for (int64_t k = 0; k < static_cast<int64_t>(values.size()); ++k) {
    bool valid = false;
    for (int64_t b = 0; b < problem.batch; ++b)
      if (images == 1 || k / per_image == b) valid = valid || problem.valid(b, k % voxels);
    nonzero += !valid && values[k] != 0;
  }
  CHECK_MESSAGE(nonzero == 0, name, ": ", nonzero, " masked elements are not 0");
}

void check_all_masked(const Prepared &p, const SoftmaxCall &call) {
  if (p.problem.mask.empty() || p.c.accumulate_) return;
  check_masked(p, "u", call.u);
  check_masked(p, "tv_dual", call.tv_dual);
  check_masked(p, "star_dual", call.star_dual);
  check_masked(p, "grads.features", call.gradients.features);
  check_masked(p, "grads.tv_edge", call.gradients.tv_edge);
  check_masked(p, "grads.td_edge", call.gradients.td_edge);
}

// Threshold dynamics feeds u back with a gain of up to lam |k|_1 / eps an iteration: how much larger than
// the change of one softmax the change of the result is when the features move.
double amplification_of(const Prepared &p) {
  if (!p.problem.td.on) return 1;
  ref::Problem moved = p.problem;
  const double size = 1e-8 * std::max(1.0, max_abs(moved.features));
  Random random(p.c.seed_ + 7000);
  for (double &value : moved.features) value += random.uniform(-size, size);
  const double change = difference(ref::forward(moved).u, p.result.u).worst;
  return std::max(1.0, change / (0.5 * size / p.problem.eps));
}

}  // namespace

double small_unit(const Case &c) { return c.small_dtype_ ? small_float(c.small_dtype_).unit() : 0; }

Prepared prepare(const Case &original) {
  const bool retry = original.implicit_ || original.elements() * std::max(1, original.iterations_) < 60000;
  Prepared p{original, {}, {}, {}, {}, false, 1};
  for (int attempt = 0; attempt < 40; ++attempt) {
    p.c.seed(original.seed_ + 100 * attempt);
    p.problem = make_problem(p.c);
    p.result = ref::forward(p.problem);
    if (clear_of_kinks(p.c, p.result.margins)) break;
    if (!retry && decisions_clear(p.c, p.result.margins)) break;
  }
  p.near_kink = !clear_of_kinks(p.c, p.result.margins);
  p.grad_u = make_grad_u(p.c);
  p.grads = ref::backward_unrolled(p.problem, p.result, p.grad_u);
  p.amplification = amplification_of(p);
  return p;
}

Bounds bounds_of(const Prepared &p) {
  const ref::Problem &problem = p.problem;
  const double unit = p.c.float32_ ? 0x1p-24 : 0x1p-53;
  double inverse = 0, longest_star_step = 0;
  for (int d = 0; d < problem.nd(); ++d) inverse += problem.spacing.empty() ? 1 : 1 / problem.spacing[d];
  for (int64_t m = 0; m < problem.star.count(); ++m)
    longest_star_step = std::max(longest_star_step, problem.star_step(m));
  const double smallest_eps = problem.init_eps > 0 ? std::min(problem.eps, problem.init_eps) : problem.eps;
  const auto largest_edge = [](const ref::Array &edge) { return edge.empty() ? 1 : max_abs(edge); };
  const double dual =
      problem.tv ? std::max(problem.lam * largest_edge(problem.edge), max_abs(problem.init_tv)) : 0;
  const double star_dual = max_abs(p.result.star_dual);
  const double force = problem.td.on ? 2 * problem.td.lam * largest_edge(problem.td.edge) : 0;  // |k|_1 = 1
  const double logits = 1 + (max_abs(problem.features) + 2 * (dual + star_dual) * inverse + force +
                             max_abs(p.result.volume_dual)) /
                                smallest_eps;
  // k = 8: about three roundings in each of the exponent, its argument and the division by the sum.
  const double relative = 8 * unit * logits * (problem.iterations + 1) * p.amplification;
  return {relative + small_unit(p.c), relative * std::max(dual, problem.tv ? problem.step() : 0.0),
          relative * (problem.eps + max_abs(p.result.volume_dual)),
          relative * (star_dual + longest_star_step), relative};
}

bool serves(Device &device, const Case &c) {
  if (c.path_ != SEGPRIOR_PATH_ON_CHIP || device.which().type == SEGPRIOR_CPU) return true;
  CallSettings settings = settings_of(c);
  settings.path = SEGPRIOR_PATH_AUTO;
  SoftmaxCall call(device, make_problem(c), settings);
  call.opts.path = c.path_;
  return segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, nullptr) !=
         SEGPRIOR_ERROR_NOT_SUPPORTED;
}

void check_case(const Prepared &p, Device &device) {
  INFO("add(" << p.c.text() << "); on " << name_of(device.which()));
  const Bounds bounds = bounds_of(p);
  CallSettings settings = settings_of(p.c);
  if (p.c.implicit_) {
    settings.implicit_tolerance = 1e-10;
    settings.implicit_iterations = 20000;
  }
  SoftmaxCall call(device, p.problem, settings);
  const segprior_status status = call.forward();
  CHECK_MESSAGE(status == SEGPRIOR_OK, std::string(segprior_last_error()));
  if (status != SEGPRIOR_OK) return;
  // 16 bits: u <= 1 is rounded once more.
  check("u", call.u->get(), p.result.u, bounds.u);
  if (call.tv_dual) check("tv_dual", call.tv_dual->get(), p.result.tv_dual, bounds.tv_dual);
  if (call.volume_dual)
    check("volume_dual", call.volume_dual->get(), p.result.volume_dual, bounds.volume_dual);
  if (call.star_dual) check("star_dual", call.star_dual->get(), p.result.star_dual, bounds.star_dual);
  check_infos(p, call.infos(), bounds);

  check_unrolled(p, call, bounds);
  check_all_masked(p, call);

  if (p.c.implicit_) {
    check_implicit(p, call);
    check_all_masked(p, call);
  }

  const ref::Array u = call.u->get();
  CHECK_MESSAGE(call.backward(SEGPRIOR_BACKWARD_LAST, p.grad_u) == SEGPRIOR_OK,
                std::string(segprior_last_error()));
  const ref::Array last = ref::backward_last(p.problem, u, p.grad_u);
  // From the library's own u: a difference of two numbers and a product, I terms in the mean.
  const double unit = p.c.float32_ ? 0x1p-24 : 0x1p-53;
  check("last grads.features", call.gradients.features->get(), last,
        (unit * (4 + static_cast<double>(p.problem.classes)) + small_unit(p.c)) * max_abs(p.grad_u) /
            p.problem.last_eps());
  check_masked(p, "last grads.features", call.gradients.features);
  const std::string violations = call.violations().empty() ? "" : call.violations().front();
  CHECK_MESSAGE(call.violations().empty(), violations);
}

}  // namespace segprior::test
