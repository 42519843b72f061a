// Tests of the SoftCut reference itself: golden vectors of an unrelated oracle, elimination on a dense
// matrix, and difference quotients for what the golden vectors do not cover.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "tests/ref/softcut_ref.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"
#include "tests/support/softcut_golden.h"

using namespace segprior;
using namespace segprior::test;
using namespace segprior::ref::softcut;
using ref::Array;

namespace {

Problem make(std::vector<int64_t> spatial, int64_t batch, int64_t classes, bool shared, bool diagonals,
             bool conductance, uint64_t seed) {
  Random random(seed);
  Problem p;
  p.spatial = std::move(spatial);
  p.batch = batch;
  p.classes = classes;
  p.shared = shared;
  p.diagonals = diagonals;
  p.scores = random.array(p.systems() * p.voxels(), -1, 1);
  for (int f = 0; f < kFamilies; ++f) p.weights.of[f] = random.array(p.matrices() * p.edge_count(f), 0.1, 2);
  if (conductance) p.conductance = random.array(p.matrices() * p.voxels(), 0.5, 2);
  return p;
}

std::vector<Problem> problems() {
  return {make({7}, 2, 2, false, false, true, 1), make({5, 4}, 2, 3, true, true, true, 2),
          make({4, 6}, 1, 2, false, true, false, 3), make({3, 4, 2}, 2, 2, true, false, true, 4),
          make({1, 5}, 1, 1, false, true, true, 5)};
}

// Solves with the dense matrix that the exported rows spell, by Gauss-Jordan elimination.
Array dense_solve(const Problem &p, const Array &rhs) {
  const Csr matrix = csr(p);
  const int64_t voxels = p.voxels(), entries = static_cast<int64_t>(matrix.columns.size());
  Array x;
  for (int64_t n = 0; n < p.systems(); ++n) {
    std::vector<Array> rows(voxels, Array(voxels + 1, 0.0));
    for (int64_t a = 0; a < voxels; ++a) {
      for (int64_t k = matrix.row_offsets[a]; k < matrix.row_offsets[a + 1]; ++k)
        rows[a][matrix.columns[k]] = matrix.values[p.matrix_of(n) * entries + k];
      rows[a][voxels] = rhs[n * voxels + a];
    }
    for (int64_t a = 0; a < voxels; ++a)
      for (int64_t b = 0; b < voxels; ++b) {
        const double factor = a == b ? 0 : rows[b][a] / rows[a][a];
        for (int64_t k = 0; factor != 0 && k <= voxels; ++k) rows[b][k] -= factor * rows[a][k];
      }
    for (int64_t a = 0; a < voxels; ++a) x.push_back(rows[a][voxels] / rows[a][a]);
  }
  return x;
}

// Fourth-order central difference of a function along a direction.
double slope(const std::function<double(double)> &f) {
  constexpr double kStep = 1e-3;
  return (8 * (f(kStep) - f(-kStep)) - (f(2 * kStep) - f(-2 * kStep))) / (12 * kStep);
}

void move(Array &values, const Array &along, double step) {
  for (size_t k = 0; k < values.size(); ++k) values[k] += step * along[k];
}

Problem moved(Problem p, const Gradients &along, double step) {
  move(p.scores, along.scores, step);
  move(p.conductance, along.conductance, step);
  for (int f = 0; f < kFamilies; ++f) move(p.weights.of[f], along.edges.of[f], step);
  return p;
}

Gradients random_like(const Problem &p, Random &random) {
  Gradients g;
  const auto like = [&](const Array &values) {
    return random.array(static_cast<int64_t>(values.size()), -1, 1);
  };
  g.scores = like(p.scores);
  g.conductance = like(p.conductance);
  for (int f = 0; f < kFamilies; ++f) g.edges.of[f] = like(p.weights.of[f]);
  return g;
}

double dot(const Gradients &a, const Gradients &b) {
  double sum = test::dot(a.scores, b.scores) + test::dot(a.conductance, b.conductance);
  for (int f = 0; f < kFamilies; ++f) sum += test::dot(a.edges.of[f], b.edges.of[f]);
  return sum;
}

}  // namespace

TEST_CASE("softcut reference: golden vectors [ref] [small]") {
  for (const std::string &name : softcut_golden_names()) {
    const SoftcutGolden g = read_softcut_golden(name);
    INFO("golden case " << name);
    const Inverse inverse(g.problem);
    const Array x = inverse(g.problem.scores);
    CHECK_CLOSE("x", x, g.x, 1e-13);
    const Gradients grads = backward(g.problem, inverse, x, g.grad_x);
    CHECK_CLOSE("grad_p", grads.scores, g.grads.scores, 1e-12);
    for (int m = 0; m < g.problem.nd(); ++m)
      CHECK_CLOSE("grad_w" << m, grads.edges.of[m], g.grads.edges.of[m], 1e-12);
  }
}

TEST_CASE("softcut reference: the factorisation against elimination on the exported matrix [ref] [small]") {
  for (const Problem &p : problems()) {
    const Inverse inverse(p);
    const Array x = inverse(p.scores);
    CHECK_CLOSE("x", x, dense_solve(p, p.scores), 1e-13);
    CHECK_CLOSE("A x", ref::softcut::apply(p, x), p.scores, 1e-13);
    CHECK(max_abs(residuals(p, {}, x, p.scores)) < 1e-14);
  }
  // Ten decades: the excess of the diagonal is far below the rounding of the factor.
  Problem p = make({9, 8}, 1, 1, false, false, true, 6);
  for (Array &weights : p.weights.of)
    for (double &w : weights) w = std::pow(10.0, 3 * w);
  for (double &d : p.conductance) d *= 1e-3;
  double sum = 0, conducted = 0;
  const Array x = Inverse(p)(p.scores);
  for (size_t k = 0; k < x.size(); ++k) {
    sum += p.scores[k];
    conducted += p.conductance[k] * x[k];
  }
  CHECK(std::fabs(sum - conducted) < 1e-13);  // what flows in flows out through d
}

TEST_CASE("softcut reference: gradients against difference quotients [ref] [small]") {
  Random random(7);
  for (const Problem &p : problems()) {
    const Array grad_x = random.array(p.systems() * p.voxels(), -1, 1);
    const Inverse inverse(p);
    const Array x = inverse(p.scores);
    const Gradients along = random_like(p, random), grads = backward(p, inverse, x, grad_x);
    const double difference = slope([&](double step) {
      const Problem q = moved(p, along, step);
      return test::dot(grad_x, Inverse(q)(q.scores));
    });
    CHECK(std::fabs(difference - dot(grads, along)) < 1e-9);

    // The second order: of <cotangents, backward> along a change of its arguments.
    const Gradients cotangents = random_like(p, random);
    const Array along_grad_x = random.array(p.systems() * p.voxels(), -1, 1);
    const SecondGradients second = double_backward(p, inverse, x, grads.scores, cotangents);
    const double second_difference = slope([&](double step) {
      const Problem q = moved(p, along, step);
      Array moved_grad_x = grad_x;
      move(moved_grad_x, along_grad_x, step);
      const Inverse moved_inverse(q);
      return dot(cotangents, backward(q, moved_inverse, moved_inverse(q.scores), moved_grad_x));
    });
    const Gradients slopes{second.scores, second.conductance, second.edges};
    CHECK(std::fabs(second_difference - dot(slopes, along) - test::dot(second.grad_x, along_grad_x)) < 1e-8);
  }
}
