// The CSR solve: SoftCut's matrices and ones with further edges against dense and band factorisations, how
// the iteration ends, and the formula of the gradient.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <utility>

#include "tests/support/compare.h"
#include "tests/support/csr_call.h"
#include "tests/support/random.h"
#include "tests/support/softcut_call.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;

namespace {

constexpr int32_t kPreconditioners[] = {SEGPRIOR_CSR_NONE, SEGPRIOR_CSR_IC0};

struct Edge {
  int32_t a, b;
  double w;
};

// diag(d) + the edges' Laplacian.
CsrProblem problem_of(const Array &d, const std::vector<Edge> &edges, Array rhs) {
  std::vector<std::map<int32_t, double>> rows(d.size());
  for (size_t i = 0; i < d.size(); ++i) rows[i][static_cast<int32_t>(i)] = d[i];
  for (const Edge &e : edges) {
    rows[e.a][e.a] += e.w;
    rows[e.b][e.b] += e.w;
    rows[e.a][e.b] -= e.w;
    rows[e.b][e.a] -= e.w;
  }
  CsrProblem p;
  p.row_offsets.push_back(0);
  for (const auto &row : rows) {
    for (const auto &[column, value] : row) {
      p.columns.push_back(column);
      p.values.push_back(value);
    }
    p.row_offsets.push_back(static_cast<int32_t>(p.columns.size()));
  }
  p.rhs = std::move(rhs);
  return p;
}

Array dense_of(const CsrProblem &p) {
  const int64_t n = p.rows();
  Array a(n * n);
  for (int64_t i = 0; i < n; ++i)
    for (int32_t k = p.row_offsets[i]; k < p.row_offsets[i + 1]; ++k) a[i * n + p.columns[k]] = p.values[k];
  return a;
}

// Elimination without pivoting, enough for positive definite matrices.
Array dense_solve(const CsrProblem &p) {
  const int64_t n = p.rows();
  Array a = dense_of(p), x = p.rhs;
  const int64_t count = p.count();
  for (int64_t k = 0; k < n; ++k)
    for (int64_t i = k + 1; i < n; ++i) {
      const double factor = a[i * n + k] / a[k * n + k];
      for (int64_t j = k; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
      for (int64_t r = 0; r < count; ++r) x[r * n + i] -= factor * x[r * n + k];
    }
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = n - 1; i >= 0; --i) {
      for (int64_t j = i + 1; j < n; ++j) x[r * n + i] -= a[i * n + j] * x[r * n + j];
      x[r * n + i] /= a[i * n + i];
    }
  return x;
}

// A path of 40 with random weights and edges far beyond the neighbours, three right-hand sides.
CsrProblem far_edges() {
  Random random(7);
  constexpr int32_t n = 40;
  std::vector<Edge> edges;
  for (int32_t i = 0; i + 1 < n; ++i) edges.push_back({i, i + 1, random.uniform(0, 5)});
  for (int32_t k = 0; k < 30; ++k) {
    const int32_t a = static_cast<int32_t>(random.bits() % n), b = static_cast<int32_t>(random.bits() % n);
    if (a != b) edges.push_back({a, b, random.uniform(0, 20)});
  }
  return problem_of(random.array(n, 0.5, 2), edges, random.array(3 * n, -1, 1));
}

CsrProblem path(int32_t n) {
  std::vector<Edge> edges;
  for (int32_t i = 0; i + 1 < n; ++i) edges.push_back({i, i + 1, 3.0 + i});
  return problem_of(Array(n, 1), edges, Random(3).array(n, -1, 1));
}

// Edges between all pairs.
CsrProblem complete(int32_t n) {
  std::vector<Edge> edges;
  for (int32_t i = 0; i < n; ++i)
    for (int32_t j = 0; j < i; ++j) edges.push_back({i, j, 1.0 + i * j % 5});
  return problem_of(Array(n, 1), edges, Random(4).array(n, -1, 1));
}

// A grid whose classes share the matrix, as SoftCut's reference writes it.
ref::softcut::Problem grid(std::vector<int64_t> spatial, double weight) {
  Random random(5);
  ref::softcut::Problem p;
  p.classes = 3;
  p.spatial = std::move(spatial);
  p.shared = true;
  for (int f = 0; f < p.nd(); ++f) p.weights.of[f] = random.array(p.edge_count(f), 0, weight);
  p.scores = random.array(p.systems() * p.voxels(), -1, 1);
  return p;
}

CsrProblem csr_of(const ref::softcut::Problem &p) {
  const ref::softcut::Csr a = ref::softcut::csr(p);
  return {a.row_offsets, a.columns, a.values, p.scores, {}};
}

template <class F>
void everywhere(const F &f) {
  for (segprior_device which : all_devices())
    for (int32_t preconditioner : kPreconditioners) {
      INFO(name_of(which) << ", preconditioner " << preconditioner);
      Device device(which);
      f(device, preconditioner);
    }
}

void check_converged(const CsrCall &call) {
  for (const segprior_info &info : call.infos()) {
    CHECK(info.status == SEGPRIOR_CONVERGED);
    CHECK(info.residual <= call.opts.tolerance);
  }
}

}  // namespace

TEST_CASE("csr: SoftCut's matrices [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    for (const std::vector<int64_t> &spatial : {std::vector<int64_t>{31}, {9, 7}, {3, 5, 4}, {1, 1}})
      for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64}) {
        const ref::softcut::Problem grid_problem = grid(spatial, 20);
        const bool f32 = dtype == SEGPRIOR_FLOAT32;
        CsrCall call(device, csr_of(grid_problem), dtype);
        call.opts.preconditioner = preconditioner;
        call.opts.tolerance = f32 ? 1e-5 : 1e-12;
        REQUIRE(call.solve() == SEGPRIOR_OK);
        check_converged(call);
        // |x - x*| <= |A^-1| |r|, and A >= 1.
        const Array want = ref::softcut::Inverse(grid_problem)(grid_problem.scores);
        CHECK_CLOSE("x", call.x.get(), want, (f32 ? 1e-4 : 1e-11) * max_abs(grid_problem.scores));
        CHECK(call.x.memory().canaries_intact());
      }
  });
}

TEST_CASE("csr: edges beyond the neighbours [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    const CsrProblem p = far_edges();
    CsrCall call(device, p, SEGPRIOR_FLOAT64);
    call.opts.preconditioner = preconditioner;
    call.opts.tolerance = 1e-13;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    CHECK_CLOSE("x", call.x.get(), dense_solve(p), 1e-11);
  });
}

TEST_CASE("csr: SoftCut's own solve of the matrix it exports [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const ref::softcut::Problem g = grid({9, 7}, 20);
    SoftcutSettings settings;
    settings.opts.tolerance = 1e-12;
    SoftcutCall own(device, g, settings);
    REQUIRE(own.forward() == SEGPRIOR_OK);

    CsrProblem p = csr_of(g);
    const std::vector<int32_t> row_offsets = p.row_offsets, columns = p.columns;
    const Array values = p.values;
    CsrCall call(device, p, SEGPRIOR_FLOAT64);
    call.row_offsets.fill(kPoison);
    call.columns.fill(kPoison);
    call.values.memory().fill(kPoison);
    int64_t entries = 0;
    REQUIRE(segprior_softcut_csr_size(device.context(), &own.inputs, &entries) == SEGPRIOR_OK);
    REQUIRE(entries == call.entries);
    Tensor exported(which, SEGPRIOR_FLOAT64, {1, entries});
    REQUIRE(
        segprior_softcut_csr(device.context(), &own.inputs, static_cast<int32_t *>(call.row_offsets.data()),
                             static_cast<int32_t *>(call.columns.data()), exported.view()) == SEGPRIOR_OK);
    device.synchronize();
    call.values.set(exported.get());
    call.opts.tolerance = 1e-12;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    CHECK_CLOSE("x", call.x.get(), own.x->get(), 1e-10);
  }
}

TEST_CASE("csr: without fill-in the incomplete factor is the complete one [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    for (const CsrProblem &p : {path(33), complete(9)}) {
      CsrCall call(device, p, SEGPRIOR_FLOAT64);
      REQUIRE(call.solve() == SEGPRIOR_OK);
      check_converged(call);
      CHECK(call.infos()[0].iterations == 1);
      CHECK_CLOSE("x", call.x.get(), dense_solve(p), 1e-12);
    }
  }
}

TEST_CASE("csr: incomplete Cholesky needs fewer iterations [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    CsrCall call(device, csr_of(grid({21, 17}, 1000)), SEGPRIOR_FLOAT64);
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    const int32_t with = call.infos()[0].iterations;
    call.opts.preconditioner = SEGPRIOR_CSR_NONE;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    CHECK(2 * with < call.infos()[0].iterations);
  }
}

TEST_CASE("csr: starts that are good enough [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    CsrProblem p = far_edges();
    for (int64_t i = 0; i < p.rows(); ++i) p.rhs[i] = 0;  // the first of three
    p.init = dense_solve(p);
    p.init[0] = 5;  // ignored: x = 0 solves that one
    CsrCall call(device, p, SEGPRIOR_FLOAT64);
    call.opts.preconditioner = preconditioner;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    Array want = p.init;
    want[0] = 0;
    CHECK(call.x.get() == want);
    for (const segprior_info &info : call.infos()) {
      CHECK(info.status == SEGPRIOR_CONVERGED);
      CHECK(info.iterations == 0);
    }
    CHECK(call.infos()[0].residual == 0);
  });
}

TEST_CASE("csr: the cap, the limit of the dtype, tiny right-hand sides [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    const CsrProblem p = csr_of(grid({9, 7}, 100));
    CsrCall call(device, p, SEGPRIOR_FLOAT32);
    call.opts.preconditioner = preconditioner;
    call.opts.max_iterations = 2;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    for (const segprior_info &info : call.infos()) {
      CHECK(info.status == SEGPRIOR_ITERATION_CAP);
      CHECK(info.iterations == 2);
      CHECK(info.residual > 1e-6);
    }
    call.opts.max_iterations = 0;
    call.opts.tolerance = 1e-12;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    for (const segprior_info &info : call.infos()) {
      CHECK(info.status == SEGPRIOR_PRECISION_LIMIT);
      CHECK(info.residual < 1e-4);
    }
    // The squares of such numbers are 0 in float32.
    call.opts.tolerance = 1e-4;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    const Array x = call.x.get();
    Array tiny = p.rhs;
    for (double &value : tiny) value *= 0x1p-100;
    call.rhs.set(tiny);
    REQUIRE(call.solve() == SEGPRIOR_OK);
    check_converged(call);
    Array scaled = call.x.get();
    for (double &value : scaled) value *= 0x1p100;
    CHECK_CLOSE("scaled x", scaled, x, 1e-3);
  });
}

TEST_CASE("csr: a right-hand side that is not finite fails alone [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    CsrProblem p = far_edges();
    p.init = Array(p.rhs.size(), 0.25);
    const int64_t n = p.rows();
    CsrCall good(device, p, SEGPRIOR_FLOAT64);
    good.opts.preconditioner = preconditioner;
    REQUIRE(good.solve() == SEGPRIOR_OK);
    p.rhs[n - 1] = NAN;
    p.init[2 * n + 3] = INFINITY;
    CsrCall call(device, p, SEGPRIOR_FLOAT64);
    call.opts.preconditioner = preconditioner;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    const Array x = call.x.get(), want = good.x.get();
    for (int64_t i = 0; i < n; ++i) {
      CHECK(std::isnan(x[i]));
      CHECK(x[n + i] == want[n + i]);
      CHECK(std::isnan(x[2 * n + i]));
    }
    const std::vector<segprior_info> infos = call.infos();
    CHECK(infos[0].status == SEGPRIOR_NONFINITE_INPUT);
    CHECK(std::isnan(infos[0].residual));
    CHECK(infos[1].status == SEGPRIOR_CONVERGED);
    CHECK(infos[2].status == SEGPRIOR_NONFINITE_INPUT);
  });
}

TEST_CASE("csr: a matrix that is not positive definite breaks down [small]") {
  everywhere([](Device &device, int32_t preconditioner) {
    CsrProblem p = path(9);
    for (double &value : p.values) value = -value;
    CsrCall call(device, p, SEGPRIOR_FLOAT64);
    call.opts.preconditioner = preconditioner;
    REQUIRE(call.solve() == SEGPRIOR_OK);
    CHECK(call.infos()[0].status == SEGPRIOR_BREAKDOWN);
    CHECK(call.infos()[0].iterations == 0);
    for (double x : call.x.get()) CHECK(std::isnan(x));
  });
}

TEST_CASE("csr: the same bits for every number of threads") {
  const CsrProblem p = csr_of(grid({13, 11}, 50));
  Device one({SEGPRIOR_CPU, 0}, 1);
  CsrCall alone(one, p, SEGPRIOR_FLOAT32);
  REQUIRE(alone.solve() == SEGPRIOR_OK);
  for (int threads : {2, 3, 7}) {
    Device several({SEGPRIOR_CPU, 0}, threads);
    CsrCall call(several, p, SEGPRIOR_FLOAT32);
    REQUIRE(call.solve() == SEGPRIOR_OK);
    CHECK(call.x.get() == alone.x.get());
  }
}

// The formulas of csr.h: l = A^-1 grad_x, grad rhs = l, grad w = -(l_i - l_j)(x_i - x_j) of an edge.
TEST_CASE("csr: the gradient is one more solve [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    Random random(11);
    constexpr int32_t n = 12;
    const Array d = random.array(n, 0.5, 2), rhs = random.array(n, -1, 1), grad_x = random.array(n, -1, 1);
    std::vector<Edge> edges{{0, 11, 3}, {2, 9, 7}};
    for (int32_t i = 0; i + 1 < n; ++i) edges.push_back({i, i + 1, random.uniform(1, 5)});
    const auto solve = [&](const Array &right) {
      CsrCall call(device, problem_of(d, edges, right), SEGPRIOR_FLOAT64);
      call.opts.tolerance = 1e-14;
      REQUIRE(call.solve() == SEGPRIOR_OK);
      return call.x.get();
    };
    const Array x = solve(rhs), l = solve(grad_x);
    constexpr double h = 1e-4;
    for (int32_t i = 0; i < n; ++i) {
      Array up = rhs, down = rhs;
      up[i] += h;
      down[i] -= h;
      CHECK(std::fabs((dot(grad_x, solve(up)) - dot(grad_x, solve(down))) / (2 * h) - l[i]) < 1e-8);
    }
    for (Edge &e : edges) {
      e.w += h;
      const double up = dot(grad_x, solve(rhs));
      e.w -= 2 * h;
      const double down = dot(grad_x, solve(rhs));
      e.w += h;
      const double want = -(l[e.a] - l[e.b]) * (x[e.a] - x[e.b]);
      CHECK(std::fabs((up - down) / (2 * h) - want) < 1e-7);
    }
  }
}
