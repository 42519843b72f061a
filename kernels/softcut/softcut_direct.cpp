// The direct solver: sparse Cholesky factorisation by Eigen (headers only, approximate minimum degree
// ordering), in float64 for both dtypes. One thread per matrix. It is the only solver of SoftCut that
// allocates.

#include "kernels/common/error.h"
#include "kernels/softcut/softcut_cpu_solve.h"

#if defined(SEGPRIOR_WITH_EIGEN)
#include <Eigen/Sparse>
#endif

namespace segprior::softcut {

#if defined(SEGPRIOR_WITH_EIGEN)

namespace {

// f(weight, voxel, neighbour) for every edge that starts in a unit.
template <class T, class F>
void for_edges(const Job<T> &job, int64_t unit, const F &f) {
  const Grid &g = job.grid;
  job.spans.for_unit(unit, [&](const Span<T> &s, int64_t first) {
    const int64_t down = s.row_step[0], slice = s.slice_step[0];
    for (int64_t line = 0; line < s.lines; ++line)
      for (int64_t c = s.begin; c < s.end; ++c) {
        const int64_t k = line * s.columns + c, edge = line * (s.columns - 1) + c, a = first + k;
        const bool next = c + 1 < s.columns;
        if (next) f(s.column[edge], a, a + 1);
        if (down) f(s.row[0][k], a, a + down);
        if (slice) f(s.slice[0][k], a, a + slice);
        if (g.has[kDiagonal] && down && next) f(s.diagonal[0][edge], a, a + down + 1);
        if (g.has[kAnti] && down && next) f(s.anti[0][edge], a + 1, a + down);
      }
  });
}

// The factor of a volume has more than 2^31 entries from about 120^3 voxels on.
using Factor = Eigen::SimplicialLLT<Eigen::SparseMatrix<double, Eigen::ColMajor, int64_t>>;

// The lower triangle.
template <class T>
Factor::MatrixType assemble(const Job<T> &job) {
  using Eigen::Index;
  const Index n = static_cast<Index>(job.voxels());
  Eigen::VectorXd diagonal = Eigen::VectorXd::Ones(n);
  if (job.matrix.conductance)
    for (Index a = 0; a < n; ++a) diagonal[a] = static_cast<double>(job.matrix.conductance[a]);
  std::vector<Eigen::Triplet<double, int64_t>> entries;
  for (int64_t u = 0; u < job.units.count; ++u)
    for_edges(job, u, [&](T weight, int64_t a, int64_t b) {
      diagonal[a] += static_cast<double>(weight);
      diagonal[b] += static_cast<double>(weight);
      entries.emplace_back(std::max(a, b), std::min(a, b), -static_cast<double>(weight));
    });
  for (Index a = 0; a < n; ++a) entries.emplace_back(a, a, diagonal[a]);
  Factor::MatrixType matrix(n, n);
  matrix.setFromTriplets(entries.begin(), entries.end());
  return matrix;
}

}  // namespace

void require_direct() {}

template <class T>
void solve_direct(const Job<T> &job) {
  if (!job.any_active()) return;
  const Factor factor(assemble(job));
  Eigen::VectorXd b(static_cast<Eigen::Index>(job.voxels()));
  for (int64_t r = 0; r < job.rhs(); ++r) {
    if (!job.active(r)) continue;
    if (factor.info() != Eigen::Success) {
      job.fail(r, SEGPRIOR_BREAKDOWN);
      continue;
    }
    std::copy_n(job.b(r), job.voxels(), b.data());
    const Eigen::VectorXd x = factor.solve(b);
    for (int64_t a = 0; a < job.voxels(); ++a) job.x(r)[a] = static_cast<T>(x[static_cast<Eigen::Index>(a)]);
  }
}

#else

void require_direct() {
  throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
              "opts.solver = SEGPRIOR_SOFTCUT_DIRECT (5): this library was built without Eigen");
}

template <class T>
void solve_direct(const Job<T> &) {}  // require_direct() came first

#endif

template void solve_direct(const Job<float> &);
template void solve_direct(const Job<double> &);

}  // namespace segprior::softcut
