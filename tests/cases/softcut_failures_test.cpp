// Bad numbers inside SoftCut's tensors: the systems that they belong to are flagged and all their results are
// NaN, the others keep their bits, and the calls terminate.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::kFamilies;
using ref::softcut::Problem;
using Solver = SoftcutCase::Solver;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

SoftcutCase base(bool shared) {
  SoftcutCase c({5, 7}, 2, 3);
  c.f32().diagonals().conductance(2).init().tolerance(1e-2).small();
  return shared ? c.shared() : c;
}

// Compares piece k of `got` with that of `want`, where pieces hold `size` elements; NaN where failed(k).
void compare(const std::string &what, const Array &got, const Array &want, int64_t size,
             const std::function<bool(int64_t)> &failed) {
  for (int64_t k = 0; k < static_cast<int64_t>(got.size()); ++k) {
    const int64_t piece = k / size;
    const bool ok = failed(piece) ? std::isnan(got[k]) : got[k] == want[k];
    if (ok) continue;
    CHECK_MESSAGE(false, what, " ", piece, std::string(failed(piece) ? " is not NaN: " : " changed: "),
                  got[k]);
    return;
  }
}

// Image 1's class 1 (its matrix, where the matrix is what is spoilt) of a sound problem is spoilt by
// `damage`.
void check_isolated(const SoftcutCase &c, int32_t path, Device &device, int expected, bool whole_matrix,
                    const std::function<void(Problem &)> &damage) {
  const Problem good = make_problem(c);
  Problem bad = good;
  damage(bad);
  SoftcutSettings settings = settings_of(c);
  settings.opts.path = path;
  SoftcutCall healthy(device, good, settings), spoilt(device, bad, settings);
  REQUIRE(healthy.forward() == SEGPRIOR_OK);
  REQUIRE_MESSAGE(spoilt.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  const int64_t spoilt_system = 3, spoilt_matrix = good.matrix_of(spoilt_system), voxels = good.voxels();
  const auto failed_system = [&](int64_t n) {
    return whole_matrix ? good.matrix_of(n) == spoilt_matrix : n == spoilt_system;
  };
  const auto failed_matrix = [&](int64_t m) { return m == spoilt_matrix; };
  const auto check_infos = [&](const std::string &what, const std::vector<segprior_info> &got,
                               const std::vector<segprior_info> &want) {
    for (size_t k = 0; k < got.size(); ++k) {
      INFO(what << " " << k);
      if (failed_system(static_cast<int64_t>(k) % good.systems())) {
        CHECK(got[k].status == expected);
        CHECK(std::isnan(got[k].residual));
        CHECK(got[k].iterations == 0);
      } else {
        CHECK(got[k].status == want[k].status);
        CHECK(got[k].iterations == want[k].iterations);
        CHECK(got[k].residual == want[k].residual);
      }
    }
  };
  check_infos("info", spoilt.infos(), healthy.infos());
  compare("x of system", spoilt.x->get(), healthy.x->get(), voxels, failed_system);

  const Array grad_x = make_grad_x(c);
  REQUIRE(healthy.backward(grad_x) == SEGPRIOR_OK);
  REQUIRE_MESSAGE(spoilt.backward(grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
  check_infos("backward info", spoilt.backward_infos(), healthy.backward_infos());
  const auto compare_edges = [&](const EdgeTensors &got, const EdgeTensors &want, const TensorPtr &got_d,
                                 const TensorPtr &want_d) {
    for (int f = 0; f < kFamilies; ++f)
      if (got.of[f])
        compare("edges of matrix", got.of[f]->get(), want.of[f]->get(), good.edge_count(f), failed_matrix);
    if (got_d) compare("conductance of matrix", got_d->get(), want_d->get(), voxels, failed_matrix);
  };
  const Array l = healthy.grad_scores->get();
  compare("grads.scores of system", spoilt.grad_scores->get(), l, voxels, failed_system);
  compare_edges(spoilt.grad_edges, healthy.grad_edges, spoilt.grad_conductance, healthy.grad_conductance);

  // The double backward is given what backward wrote.
  const auto cotangents = make_cotangents(c);
  REQUIRE(healthy.double_backward(l, cotangents) == SEGPRIOR_OK);
  REQUIRE_MESSAGE(spoilt.double_backward(spoilt.grad_scores->get(), cotangents) == SEGPRIOR_OK,
                  std::string(segprior_last_error()));
  compare("y of system", spoilt.second_grad_x->get(), healthy.second_grad_x->get(), voxels, failed_system);
  compare("z of system", spoilt.second_scores->get(), healthy.second_scores->get(), voxels, failed_system);
  compare_edges(spoilt.second_edges, healthy.second_edges, spoilt.second_conductance,
                healthy.second_conductance);
}

using Damage = std::function<void(Problem &)>;

// Sets one element of the spoilt system (class 1 of image 1) or of its matrix.
Damage set_score(double value) {
  return [=](Problem &p) { p.scores[3 * p.voxels() + 11] = value; };
}
Damage set_init(double value) {
  return [=](Problem &p) { p.init[3 * p.voxels() + 4] = value; };
}
Damage set_conductance(double value) {
  return [=](Problem &p) { p.conductance[p.matrix_of(3) * p.voxels() + 6] = value; };
}
Damage set_weight(int family, double value) {
  return [=](Problem &p) { p.weights.of[family][p.matrix_of(3) * p.edge_count(family) + 9] = value; };
}

// `all`: every kind of damage on every device; else CUDA gets one of each kind.
void check_failures(const std::vector<Solver> &solvers, bool every_path, bool all) {
  const WithClusters clusters;
  for (segprior_device which : all_devices())
    for (Solver solver : solvers)
      for (bool shared : {false, true}) {
        if (which.type == SEGPRIOR_CUDA && !all && !shared) continue;
        Device device(which);
        const SoftcutCase c = base(shared).solver(solver);
        std::vector<int32_t> paths = paths_of(device, c);
        if (!every_path && !paths.empty()) paths.resize(1);
        for (int32_t path : paths) {
          INFO("add(" << c.text() << "); on " << name_of(which) << ", path " << path);
          const auto check = [&](const std::string &what, int expected, bool whole_matrix,
                                 const Damage &damage) {
            INFO(what);
            check_isolated(c, path, device, expected, whole_matrix, damage);
          };
          check("NaN score", SEGPRIOR_NONFINITE_INPUT, false, set_score(kNaN));
          check("negative weight", SEGPRIOR_INVALID_PARAMETER, true, set_weight(0, -1e-3));
          if (which.type == SEGPRIOR_CUDA && !all) continue;
          check("zero conductance", SEGPRIOR_INVALID_PARAMETER, true, set_conductance(0));
          check("infinite score", SEGPRIOR_NONFINITE_INPUT, false, set_score(-kInf));
          check("NaN start", SEGPRIOR_NONFINITE_INPUT, false, set_init(kNaN));
          check("infinite start", SEGPRIOR_NONFINITE_INPUT, false, set_init(kInf));
          for (int family : {1, 3, 4}) {
            INFO("family " << family);
            check("NaN weight", SEGPRIOR_INVALID_PARAMETER, true, set_weight(family, kNaN));
            check("infinite weight", SEGPRIOR_INVALID_PARAMETER, true, set_weight(family, kInf));
            check("negative weight", SEGPRIOR_INVALID_PARAMETER, true, set_weight(family, -1));
          }
          check("NaN conductance", SEGPRIOR_INVALID_PARAMETER, true, set_conductance(kNaN));
          check("infinite conductance", SEGPRIOR_INVALID_PARAMETER, true, set_conductance(kInf));
          check("negative conductance", SEGPRIOR_INVALID_PARAMETER, true, set_conductance(-2));
        }
      }
}

}  // namespace

TEST_CASE("softcut: a failing system is flagged and leaves the others alone, every path [small]") {
  check_failures({Solver::cg}, true, false);
}
TEST_CASE("softcut: a failing system is flagged and leaves the others alone [small]") {
  check_failures({Solver::multigrid}, false, false);
}
TEST_CASE("softcut: a failing system is flagged and leaves the others alone, every solver") {
  check_failures(
      {Solver::automatic, Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev, Solver::direct},
      true, true);
}

TEST_CASE("softcut: the first and the last weight and voxel are looked at [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const std::vector<int64_t> &spatial : {std::vector<int64_t>{33}, {5, 7}, {3, 4, 5}}) {
      SoftcutCase c(spatial, 1);
      c.f32().conductance(2).tolerance(0.1);
      if (c.spatial_.size() == 2) c.diagonals();
      const Problem good = make_problem(c);
      const auto check = [&](const Problem &p, int expected) {
        SoftcutCall call(device, p, settings_of(c));
        REQUIRE(call.forward() == SEGPRIOR_OK);
        CHECK(call.infos()[0].status == expected);
      };
      const auto spoil = [&](Array Problem::*member, double value, int expected) {
        for (bool last : {false, true}) {
          Problem bad = good;
          (last ? (bad.*member).back() : (bad.*member).front()) = value;
          check(bad, expected);
        }
      };
      spoil(&Problem::scores, kNaN, SEGPRIOR_NONFINITE_INPUT);
      spoil(&Problem::conductance, -1, SEGPRIOR_INVALID_PARAMETER);
      for (int f = 0; f < kFamilies; ++f)
        for (bool last : {false, true}) {
          if (!good.has(f)) continue;
          INFO("family " << f << ", last " << last);
          Problem bad = good;
          (last ? bad.weights.of[f].back() : bad.weights.of[f].front()) = -1;
          check(bad, SEGPRIOR_INVALID_PARAMETER);
        }
    }
  }
}

TEST_CASE("softcut: a failed system takes no part in the batch's rule [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::cg, Solver::multigrid, Solver::chebyshev}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      SoftcutCase c({5, 6}, 1, 3);
      c.f32().tolerance(1e-4).batch_rule().solver(solver);
      Problem p = make_problem(c);
      p.scores[p.voxels() + 3] = kNaN;
      SoftcutCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const auto infos = call.infos();
      CHECK(infos[1].status == SEGPRIOR_NONFINITE_INPUT);
      CHECK(infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(infos[2].status == SEGPRIOR_CONVERGED);
      CHECK(infos[0].iterations == infos[2].iterations);
      CHECK(infos[0].iterations > 0);
      CHECK(infos[0].residual < 1e-3);
    }
}

TEST_CASE("softcut: an incoming gradient that is not finite fails its system [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::cg, Solver::multigrid, Solver::chebyshev}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      SoftcutCase c({5, 6}, 2, 2);
      c.f32().tolerance(1e-4).solver(solver);
      const Problem p = make_problem(c);
      SoftcutCall call(device, p, settings_of(c)), healthy(device, p, settings_of(c));
      Array grad_x = make_grad_x(c);
      REQUIRE(healthy.forward() == SEGPRIOR_OK);
      REQUIRE(healthy.backward(grad_x) == SEGPRIOR_OK);
      grad_x[2 * p.voxels()] = kInf;
      REQUIRE(call.forward() == SEGPRIOR_OK);
      REQUIRE(call.backward(grad_x) == SEGPRIOR_OK);
      const auto failed = [](int64_t n) { return n == 2; };
      compare("grads.scores of system", call.grad_scores->get(), healthy.grad_scores->get(), p.voxels(),
              failed);
      compare("grads.edges of system", call.grad_edges.of[0]->get(), healthy.grad_edges.of[0]->get(),
              p.edge_count(0), failed);
      CHECK(call.backward_infos()[2].status == SEGPRIOR_NONFINITE_INPUT);
      CHECK(call.backward_infos()[1].status == SEGPRIOR_CONVERGED);
    }
}

TEST_CASE("softcut: numbers near the ends of the range [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::cg, Solver::jacobi, Solver::multigrid}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      SoftcutCase c({5, 6}, 1);
      c.f32().tolerance(1e-4).solver(solver);
      const Problem p = make_problem(c);
      SoftcutCall plain(device, p, settings_of(c));
      REQUIRE(plain.forward() == SEGPRIOR_OK);
      const Array want = plain.x->get();
      // The system is linear in its scores: powers of two change nothing but the exponents, and sums of
      // squares must not leave the range.
      for (double factor : {0x1p-40, 0x1p40}) {
        INFO("factor " << factor);
        Problem scaled = p;
        for (double &score : scaled.scores) score *= factor;
        SoftcutCall call(device, scaled, settings_of(c));
        REQUIRE(call.forward() == SEGPRIOR_OK);
        CHECK(call.infos()[0].status == SEGPRIOR_CONVERGED);
        Array x = call.x->get();
        for (double &value : x) value /= factor;
        CHECK_CLOSE("x", x, want, 1e-3);
      }
    }
}
