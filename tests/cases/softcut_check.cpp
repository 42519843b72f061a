#include "tests/cases/softcut_check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/support/compare.h"
#include "tests/support/random.h"
#include "tests/support/small_types.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

using ref::Array;
using ref::softcut::Edge;
using ref::softcut::Edges;
using ref::softcut::Gradients;
using ref::softcut::kFamilies;
using ref::softcut::Problem;
using ref::softcut::Rule;

WithClusters::WithClusters() {
#if defined(FAKECUDA)
  fakecuda::set_compute_capability(9, 0);
#endif
}
WithClusters::~WithClusters() {
#if defined(FAKECUDA)
  fakecuda::set_compute_capability(8, 0);
#endif
}

SoftcutPrepared::SoftcutPrepared(const SoftcutCase &given)
    : c(given),
      problem(make_problem(given)),
      inverse(problem),
      x(inverse(problem.scores)),
      grad_x(make_grad_x(given)),
      cotangents(make_cotangents(given)) {}

std::vector<int32_t> paths_of(Device &device, const SoftcutCase &c) {
  SoftcutCall call(device, make_problem(c), settings_of(c));
  const bool cuda = device.which().type == SEGPRIOR_CUDA;
  if (call.query() == SEGPRIOR_ERROR_NOT_SUPPORTED) return {};
  if (!cuda || c.path_ != SEGPRIOR_PATH_AUTO) return {c.path_};
  std::vector<int32_t> paths;
  for (int32_t path :
       {SEGPRIOR_PATH_STREAMING, SEGPRIOR_PATH_ON_CHIP, SEGPRIOR_PATH_CLUSTER, SEGPRIOR_PATH_PERSISTENT}) {
    call.opts.path = path;
    if (call.query() == SEGPRIOR_OK) paths.push_back(path);
  }
  return paths;
}

void check_within(const std::string &what, const Array &got, const Array &want, const Array &tolerance) {
  // SEGPRIOR_TEST_MARGINS=1 prints how much of each tolerance is used: the way to see whether they are right.
  static const bool print = std::getenv("SEGPRIOR_TEST_MARGINS") != nullptr;
  REQUIRE(got.size() == want.size());
  REQUIRE(got.size() == tolerance.size());
  size_t worst = 0;
  double used = 0;
  for (size_t k = 0; k < got.size(); ++k) {
    const double error = std::fabs(got[k] - want[k]);
    const double part = error == 0 ? 0 : error / tolerance[k];
    if (part <= used) continue;  // NaN goes on
    used = part;
    worst = k;
    if (std::isnan(used)) break;
  }
  if (print) std::printf("used %.3f of the tolerance of %s\n", used, what.c_str());
  if (got.empty()) return;
  CHECK_MESSAGE(used <= 1, what, ": element ", worst, " of ", got.size(), " is ", got[worst], ", want ",
                want[worst], ", allowed ", tolerance[worst]);
}

Array rounding_of(const Problem &p, const Array &x, double u) {
  const int64_t voxels = p.voxels();
  const Array diagonal = ref::softcut::diagonal(p);
  const std::vector<Edge> edges = ref::softcut::edges_of(p);
  Array noise(x.size());
  for (int64_t n = 0; n < p.systems(); ++n) {
    const int64_t m = p.matrix_of(n), at = n * voxels;
    for (int64_t a = 0; a < voxels; ++a) noise[at + a] += u * diagonal[m * voxels + a] * std::fabs(x[at + a]);
    for (const Edge &e : edges) {
      const double w = p.weights.of[e.family][m * p.edge_count(e.family) + e.entry];
      noise[at + e.a] += u * w * std::fabs(x[at + e.b]);
      noise[at + e.b] += u * w * std::fabs(x[at + e.a]);
    }
  }
  return noise;
}

namespace {

constexpr double kRounding = 4;  // units in the last place that an expression of a few terms may lose

// sum of the squares over a system, root.
double norm2(const Array &values, int64_t from, int64_t count) {
  double sum = 0;
  for (int64_t k = from; k < from + count; ++k) sum += values[k] * values[k];
  return std::sqrt(sum);
}

// The norms that residuals() would give if `values` were the residual.
std::vector<double> scaled_norms(const Problem &p, const Rule &rule, const Array &values, const Array &rhs) {
  const int64_t groups = rule.batch ? 1 : p.systems(), size = static_cast<int64_t>(values.size()) / groups;
  const auto term = [&](double value) { return rule.l1 ? std::fabs(value) : value * value; };
  std::vector<double> all;
  for (int64_t g = 0; g < groups; ++g) {
    double sum = 0, scale = 0;
    for (int64_t k = g * size; k < (g + 1) * size; ++k) {
      sum += term(values[k]);
      scale += rule.absolute ? 1 : term(rhs[k]);
    }
    const double ratio = sum == 0 ? 0 : sum / scale;
    all.push_back(rule.l1 ? ratio : std::sqrt(ratio));
  }
  return all;
}

double smallest_d(const Problem &p, int64_t system) {
  double least = p.d(p.matrix_of(system), 0);
  for (int64_t a = 1; a < p.voxels(); ++a) least = std::min(least, p.d(p.matrix_of(system), a));
  return least;
}

// One comparison of a case with a device.
class Check {
 public:
  Check(const SoftcutPrepared &prepared, Device &device, int32_t path)
      : prepared_(prepared),
        c_(prepared.c),
        p_(prepared.problem),
        voxels_(p_.voxels()),
        path_(path),
        call_(device, p_, settings()) {}

  void run() {
    const auto succeeded = [&](segprior_status status) {
      CHECK_MESSAGE(status == SEGPRIOR_OK, std::string(segprior_last_error()));
      return status == SEGPRIOR_OK;
    };
    if (!succeeded(call_.forward())) return;
    check_forward();
    remember(call_.gradient_list(), backward_before_);
    if (!succeeded(call_.backward(prepared_.grad_x))) return;
    check_backward();
    remember(call_.second_list(), second_before_);
    if (!succeeded(call_.double_backward(l_, prepared_.cotangents))) return;
    check_double_backward();
    for (const std::string &violation : call_.violations()) CHECK_MESSAGE(false, violation);
  }

 private:
  SoftcutSettings settings() const {
    SoftcutSettings s = settings_of(c_);
    s.opts.path = path_;
    s.opts.accumulate = c_.accumulate_;
    return s;
  }
  // Statuses and residuals of `systems` solves A values = rhs, of which rhs is known up to rhs_noise.
  // `values` empty: they are not known well enough to compute residuals.
  void check_infos(const std::string &what, const segprior_info *infos, const Rule &rule, const Array &values,
                   const Array &rhs, const Array &rhs_noise) {
    Rule alone = rule;
    alone.batch = false;
    Array noise = rounding_of(p_, values, kRounding * c_.unit());
    for (size_t k = 0; k < noise.size(); ++k)
      noise[k] += rhs_noise[k] + kRounding * c_.unit() * std::fabs(rhs[k]);
    const Array own = ref::softcut::residuals(p_, alone, values, rhs),
                own_noise = scaled_norms(p_, alone, noise, rhs),
                deciding = ref::softcut::residuals(p_, rule, values, rhs),
                deciding_noise = scaled_norms(p_, rule, noise, rhs);
    for (int64_t n = 0; n < p_.systems(); ++n) {
      INFO(what << " of system " << n << ": status " << infos[n].status << ", iterations "
                << infos[n].iterations << ", residual " << infos[n].residual << ", true residual " << own[n]
                << ", rounding " << own_noise[n] << ", tolerance " << c_.tolerance());
      const double decides = deciding[rule.batch ? 0 : n], slack = deciding_noise[rule.batch ? 0 : n];
      const double tolerance = c_.tolerance();
      CHECK(std::fabs(infos[n].residual - own[n]) <= own_noise[n] + 1e-5 * own[n]);
      CHECK(infos[n].iterations >= 0);
      CHECK(infos[n].iterations <= c_.cap());
      if (rule.batch) CHECK(infos[n].iterations == infos[0].iterations);
      if (c_.solver_ == SoftcutCase::Solver::chebyshev && infos[n].iterations < c_.cap())
        CHECK(infos[n].iterations % 8 == 0);
      // The recurrence of the residual drifts away by one rounding of A x an iteration.
      const double drift = slack * (10 + infos[n].iterations);
      if (infos[n].status == SEGPRIOR_CONVERGED) {
        CHECK(decides <= tolerance * (1 + 1e-5) + slack);
      } else if (infos[n].status == SEGPRIOR_PRECISION_LIMIT) {
        CHECK(decides >= tolerance * (1 - 1e-5) - slack);
        CHECK(decides <= tolerance + drift);
      } else {
        CHECK(infos[n].status == SEGPRIOR_ITERATION_CAP);
        CHECK(c_.cap_ > 0);
        CHECK(infos[n].iterations == c_.cap());
        CHECK(decides >= tolerance * (1 - 1e-5) - slack);
      }
    }
  }

  void check_forward() {
    x_ = call_.x->get();
    const Array none(x_.size(), 0.0);
    check_infos("info", call_.infos().data(), rule_of(c_), x_, p_.scores, none);
    // |error| <= |residual| / smallest d, both L2.
    Array residual = ref::softcut::apply(p_, x_), tolerance;
    for (size_t k = 0; k < residual.size(); ++k) residual[k] -= p_.scores[k];
    for (int64_t n = 0; n < p_.systems(); ++n)
      tolerance.insert(tolerance.end(), voxels_,
                       norm2(residual, n * voxels_, voxels_) / smallest_d(p_, n) * (1 + 1e-6) + 1e-300);
    for (size_t k = 0; k < x_.size(); ++k) tolerance[k] += 0x1p-50 * std::fabs(prepared_.x[k]);
    check_within("x", x_, prepared_.x, tolerance);
  }

  // Error bounds of the solution of A values = rhs, per system.
  Array solution_errors(const segprior_info *infos, const Array &values, const Array &rhs,
                        const Array &rhs_noise) const {
    const Array noise = rounding_of(p_, values, kRounding * c_.unit());
    Array errors;
    for (int64_t n = 0; n < p_.systems(); ++n) {
      const int64_t at = n * voxels_;
      const double reached = infos[n].status == SEGPRIOR_CONVERGED
                                 ? c_.tolerance()
                                 : std::max(c_.tolerance(), infos[n].residual);
      errors.push_back(
          (reached * norm2(rhs, at, voxels_) + norm2(noise, at, voxels_) + norm2(rhs_noise, at, voxels_)) /
          smallest_d(p_, n));
    }
    return errors;
  }

  Array per_element(const Array &errors, const Array &values) const {
    Array tolerance;
    for (size_t k = 0; k < values.size(); ++k)
      tolerance.push_back(errors[k / voxels_] * (1 + 1e-5) + kRounding * c_.unit() * std::fabs(values[k]));
    return tolerance;
  }

  // What an error of each system's l, at most l_errors, does to the products with x; and their rounding.
  void add_product_errors(const Array &l_errors, const Array &l, const Array &x, Edges &edges,
                          Array &conductance) const {
    const std::vector<Edge> list = ref::softcut::edges_of(p_);
    for (int64_t n = 0; n < p_.systems(); ++n) {
      const int64_t m = p_.matrix_of(n), at = n * voxels_;
      const double u = (kRounding + static_cast<double>(p_.classes)) * c_.unit();
      for (const Edge &e : list) {
        const double dx = std::fabs(x[at + e.a] - x[at + e.b]), dl = std::fabs(l[at + e.a] - l[at + e.b]);
        edges.of[e.family][m * p_.edge_count(e.family) + e.entry] += (2 * l_errors[n] + u * dl) * dx;
      }
      for (int64_t a = 0; !conductance.empty() && a < voxels_; ++a)
        conductance[m * voxels_ + a] += (l_errors[n] + u * std::fabs(l[at + a])) * std::fabs(x[at + a]);
    }
  }

  using List = std::vector<std::pair<const char *, Tensor *>>;

  // What the tensors hold before a call that adds to them.
  void remember(const List &list, std::vector<Array> &before) {
    Random random(c_.seed_ + 4000);
    for (const auto &entry : list) {
      before.emplace_back(entry.second->size(), 0.0);
      if (!c_.accumulate_) continue;
      entry.second->set(random.array(entry.second->size(), -1, 1));
      before.back() = entry.second->get();
    }
  }

  void compare(const std::pair<const char *, Tensor *> &got, const Array &before, const Array &wanted,
               Array tolerance) const {
    Array want = wanted;
    const bool edge = std::string(got.first).find("edges") != std::string::npos ||
                      std::string(got.first).find("diagonals") != std::string::npos;
    for (size_t k = 0; k < want.size(); ++k) {
      want[k] += before[k];
      if (c_.accumulate_) tolerance[k] += 2 * c_.unit() * std::fabs(want[k]);
      if (edge && c_.small_dtype_)
        tolerance[k] += small_float(c_.small_dtype_).unit() * (std::fabs(want[k]) + tolerance[k]) +
                        small_float(c_.small_dtype_).smallest();
      tolerance[k] += 1e-300;
    }
    check_within(got.first, got.second->get(), want, tolerance);
  }

  // Compares a list of gradients, in its order: fields, edges, conductance.
  void compare_all(const List &list, const std::vector<Array> &before, const std::vector<Array> &fields,
                   const std::vector<Array> &field_tolerances, const Edges &edges,
                   const Edges &edge_tolerances, const Array &conductance,
                   const Array &conductance_tolerance) const {
    size_t k = 0;
    for (size_t f = 0; f < fields.size(); ++f, ++k)
      compare(list[k], before[k], fields[f], field_tolerances[f]);
    for (int f = 0; f < kFamilies; ++f)
      if (p_.has(f)) {
        compare(list[k], before[k], edges.of[f], edge_tolerances.of[f]);
        ++k;
      }
    if (!conductance.empty()) {
      compare(list[k], before[k], conductance, conductance_tolerance);
      ++k;
    }
    REQUIRE(k == list.size());
  }

  void check_backward() {
    const Gradients want = ref::softcut::backward(p_, prepared_.inverse, x_, prepared_.grad_x);
    const std::vector<segprior_info> infos = call_.backward_infos();
    const Array none(x_.size(), 0.0);
    l_ = rounded(want.scores, c_.dtype());
    if (!c_.accumulate_)
      check_infos("backward info", infos.data(), Rule(), call_.grad_scores->get(), prepared_.grad_x, none);
    const Array errors = solution_errors(infos.data(), want.scores, prepared_.grad_x, none);
    Edges edge_tolerance = ref::softcut::zero_edges(p_);
    Array conductance_tolerance(p_.conductance.size(), 0.0);
    add_product_errors(errors, want.scores, x_, edge_tolerance, conductance_tolerance);
    compare_all(call_.gradient_list(), backward_before_, {want.scores}, {per_element(errors, want.scores)},
                want.edges, edge_tolerance, want.conductance, conductance_tolerance);
  }

  // a - A(b, c) x (a may be empty: 0), and the rounding of that.
  Array right_hand_side(const Array &a, const Array &x, Array &noise) const {
    const Gradients &g = prepared_.cotangents;
    Array rhs = ref::softcut::apply(p_, g.edges, g.conductance, x);
    Problem sizes = p_;  // the rounding's matrix: the sizes of b and c
    sizes.weights = g.edges;
    for (Array &weights : sizes.weights.of)
      for (double &w : weights) w = std::fabs(w);
    sizes.conductance = g.conductance;
    for (double &d : sizes.conductance) d = std::fabs(d);
    noise = rounding_of(sizes, x, kRounding * c_.unit());
    for (size_t k = 0; k < rhs.size(); ++k) {
      rhs[k] = (a.empty() ? 0 : a[k]) - rhs[k];
      noise[k] += c_.unit() * std::fabs(rhs[k]);
    }
    return rhs;
  }

  void check_double_backward() {
    const ref::softcut::SecondGradients want =
        ref::softcut::double_backward(p_, prepared_.inverse, x_, l_, prepared_.cotangents);
    const std::vector<segprior_info> infos = call_.second_infos();
    const segprior_info *y_infos = infos.data(), *z_infos = infos.data() + p_.systems();
    Array y_noise, z_noise;
    const Array y_rhs = right_hand_side(prepared_.cotangents.scores, x_, y_noise),
                z_rhs = right_hand_side({}, l_, z_noise);
    if (!c_.accumulate_) {
      check_infos("info of y", y_infos, Rule(), call_.second_grad_x->get(), y_rhs, y_noise);
      check_infos("info of z", z_infos, Rule(), call_.second_scores->get(), z_rhs, z_noise);
    }
    const Array y_errors = solution_errors(y_infos, want.grad_x, y_rhs, y_noise),
                z_errors = solution_errors(z_infos, want.scores, z_rhs, z_noise);
    Edges edge_tolerance = ref::softcut::zero_edges(p_);
    Array conductance_tolerance(p_.conductance.size(), 0.0);
    add_product_errors(y_errors, want.grad_x, l_, edge_tolerance, conductance_tolerance);
    add_product_errors(z_errors, want.scores, x_, edge_tolerance, conductance_tolerance);
    compare_all(call_.second_list(), second_before_, {want.grad_x, want.scores},
                {per_element(y_errors, want.grad_x), per_element(z_errors, want.scores)}, want.edges,
                edge_tolerance, want.conductance, conductance_tolerance);
  }

  const SoftcutPrepared &prepared_;
  const SoftcutCase &c_;
  const Problem &p_;
  const int64_t voxels_;
  const int32_t path_;
  SoftcutCall call_;
  Array x_, l_;  // the library's x; the reference's l for it, rounded
  std::vector<Array> backward_before_, second_before_;
};

}  // namespace

void check_case(const SoftcutPrepared &p, Device &device, int32_t path) {
  INFO("add(" << p.c.text() << "); on " << name_of(device.which()) << ", path " << path);
  Check(p, device, path).run();
}

}  // namespace segprior::test
