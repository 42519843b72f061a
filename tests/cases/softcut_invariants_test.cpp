// Properties of SoftCut that need no other implementation: sums, bounds, limits of the weights, symmetry.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::Problem;
using Solver = SoftcutCase::Solver;
using Weights = SoftcutCase::Weights;

namespace {

constexpr Solver kIterative[] = {Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev};

// x of a problem, float64, solved as far as rounding allows.
Array solve(Device &device, const Problem &p, Solver solver, double tolerance = 1e-13) {
  SoftcutSettings settings;
  settings.opts.solver = static_cast<int32_t>(solver);
  settings.opts.tolerance = tolerance;
  SoftcutCall call(device, p, settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  return call.x->get();
}

void check_properties(const SoftcutCase &c, Device &device) {
  INFO("add(" << c.text() << "); on " << name_of(device.which()));
  const Problem p = make_problem(c);
  const Array x = solve(device, p, c.solver_);
  const double slack = 1e-10;
  for (int64_t n = 0; n < p.systems(); ++n) {
    const auto from = n * p.voxels(), to = from + p.voxels();
    double sum_x = 0, sum_p = 0;
    for (int64_t k = from; k < to; ++k) {
      sum_x += x[k];
      sum_p += p.scores[k];
    }
    CHECK(std::fabs(sum_x - sum_p) <= slack * static_cast<double>(p.voxels()));
    const auto range = [&](const Array &values) {
      return std::minmax_element(values.begin() + from, values.begin() + to);
    };
    CHECK(*range(x).first >= *range(p.scores).first - slack);
    CHECK(*range(x).second <= *range(p.scores).second + slack);
  }
  // <y, A^-1 p> = <p, A^-1 y>.
  Problem other = p;
  other.scores = make_grad_x(c);
  CHECK(std::fabs(dot(other.scores, x) - dot(p.scores, solve(device, other, c.solver_))) <=
        slack * static_cast<double>(c.elements()));
}

}  // namespace

TEST_CASE("softcut: sums are kept, scores bound the solution, the inverse is symmetric [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    check_properties(SoftcutCase({7, 6}, 2).diagonals().shared().weights(2), device);
    check_properties(SoftcutCase({3, 4, 3}, 2).weights(1).solver(Solver::multigrid), device);
  }
}

TEST_CASE("softcut: sums are kept, scores bound the solution, the inverse is symmetric") {
  for (segprior_device which : all_devices())
    for (Solver solver : kIterative) {
      Device device(which);
      check_properties(SoftcutCase({201}, 2, 2).weights(20).solver(solver), device);
      check_properties(SoftcutCase({33, 47}, 3).diagonals().shared().weights(10, Weights::cut).solver(solver),
                       device);
      check_properties(SoftcutCase({9, 8, 11}, 2).weights(5).solver(solver), device);
    }
}

TEST_CASE("softcut: no coupling returns the scores [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : kIterative) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      const Problem p = make_problem(SoftcutCase({5, 6}, 2, 2).weights(0, Weights::constant));
      CHECK_CLOSE("x", solve(device, p, solver), p.scores, 1e-13);
      // In the limit: by the first order of the weight.
      const Problem weak = make_problem(SoftcutCase({5, 6}, 2, 2).weights(1e-7, Weights::constant));
      CHECK_CLOSE("x", solve(device, weak, solver), p.scores, 1e-5);
    }
}

TEST_CASE("softcut: strong coupling returns the means of the regions [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::jacobi, Solver::multigrid}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      // Two regions, the columns 0 to 2 and the rest, with no edge between.
      constexpr int64_t kRows = 6, kColumns = 7, kCut = 3;
      Problem p = make_problem(SoftcutCase({kRows, kColumns}, 1).weights(1e6, Weights::constant));
      for (int64_t y = 0; y < kRows; ++y) p.weights.of[1][y * (kColumns - 1) + kCut - 1] = 0;
      double left = 0, right = 0;
      for (int64_t k = 0; k < kRows * kColumns; ++k) (k % kColumns < kCut ? left : right) += p.scores[k];
      Array want;
      for (int64_t k = 0; k < kRows * kColumns; ++k)
        want.push_back(k % kColumns < kCut ? left / (kRows * kCut) : right / (kRows * (kColumns - kCut)));
      CHECK_CLOSE("x", solve(device, p, solver, 1e-9), want, 1e-4);
    }
}

TEST_CASE("softcut: constant scores and a right-hand side of the conductance have known solutions [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : kIterative) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      // p = d c gives x = c, which is also the start: nothing is left to do.
      SoftcutCase c({5, 6}, 2);
      Problem p = make_problem(c.conductance(4).diagonals().weights(3));
      for (size_t k = 0; k < p.scores.size(); ++k) p.scores[k] = p.conductance[k] * 1.75;
      SoftcutSettings settings;
      settings.opts.solver = static_cast<int32_t>(solver);
      SoftcutCall call(device, p, settings);
      REQUIRE(call.forward() == SEGPRIOR_OK);
      CHECK_CLOSE("x", call.x->get(), Array(p.scores.size(), 1.75), 1e-14);
      for (const segprior_info &info : call.infos()) {
        CHECK(info.status == SEGPRIOR_CONVERGED);
        CHECK(info.iterations == 0);
        CHECK(info.residual <= 1e-14);
      }
    }
}
