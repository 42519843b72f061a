// Conjugate gradients, with or without preconditioner, in two passes over memory per iteration: the direction
// with the matrix's product behind it, while its rows are in cache; then the residual.
//
// Values moved per voxel and iteration (float32: times 4 bytes; weights of shared matrices once for all
// right-hand sides): pass 1 x, p read and written, r read, q written (twice its size: the cache fetches it
// first), nd weights; pass 2 q read, r read and written. 11 and the weights in all.
#include <cmath>

#include "kernels/softcut/softcut_cpu_multigrid.h"
#include "kernels/softcut/softcut_cpu_solve.h"

namespace segprior::softcut {
namespace {

// Where <p, A p> vanishes although r does not, squares have underflown: r is this small beside the right-hand
// side, further than any rule that could be met.
constexpr double kNegligible = 1e-24;

template <class T>
bool negligible(const Job<T> &job, const System &s) {
  const double ratio = s.residual_norm / s.rhs_norm;
  return (job.task.stop.norm == Norm::l2 ? ratio : ratio * ratio) <= kNegligible;
}

// A positive, finite inner product: else the system breaks down, or is done.
template <class T>
bool check_product(const Job<T> &job, int64_t r, double product) {
  if (product > 0 && std::isfinite(product)) return true;
  System &s = job.system(r);
  if (!negligible(job, s)) {
    job.fail(r, SEGPRIOR_BREAKDOWN);
  } else {
    s.alpha = 0;  // already in x
    s.met = true;
    job.vectors.active[r] = false;
  }
  return false;
}

// The preconditioned residual is left in q, which is free between the passes.
template <class T>
void precondition(const Job<T> &job) {
  const Vectors<T> &v = job.vectors;
  cycle<T>(job.team, job.grid, job.hierarchy, job.rhs(), v.active, v.r, v.q, job.scratch.dots,
           job.scratch.cycle);
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    s.beta = job.scratch.dots[r] / s.product;
    s.product = job.scratch.dots[r];
    if (s.product > 0 && std::isfinite(s.product)) return;
    if (!negligible(job, s)) return job.fail(r, SEGPRIOR_BREAKDOWN);
    s.met = true;  // s.alpha stays: x has its last step still before it
    job.vectors.active[r] = false;
  });
}

// x += alpha p (of the last iteration), p = z + beta p, q = A p. A unit's product needs the new p of the
// units within reach, which are therefore made that much earlier; those at the borders of a thread's share
// first of all.
template <class T>
void directions(const Job<T> &job, const T *z) {
  const Units &units = job.units;
  const auto direction = [&](int64_t r, int64_t u) {
    const System &s = job.system(r);
    const int64_t at = units.offset(u), field = r * job.voxels() + at;
    job.rows.direction(units.size(u), s.iterations == 0, static_cast<T>(s.alpha / s.scale),
                       static_cast<T>(s.beta), z + field, job.inverse_diagonal(at), job.vectors.p + field,
                       job.x(r) + at);
  };
  const int64_t begin = job.team.begin(units.count), end = job.team.end(units.count);
  const int64_t early = std::min(end, begin + units.reach);
  const int64_t late = end < units.count ? std::max(early, end - units.reach) : end;
  for (int64_t r = 0; r < job.rhs(); ++r) {
    if (!job.active(r)) continue;
    for (int64_t u = begin; u < early; ++u) direction(r, u);
    for (int64_t u = late; u < end; ++u) direction(r, u);
  }
  job.team.barrier();
  job.for_units([&](int64_t r, int64_t u) {
    if (u + units.reach < late) direction(r, u + units.reach);
    const int64_t field = r * job.voxels();
    double product = 0;
    job.spans.for_unit(u, [&](const Span<T> &span, int64_t row) {
      product += job.rows.apply(span, job.vectors.p + field + row, job.vectors.q + field + row);
    });
    job.partial(0, r, u) = product;
  });
}

}  // namespace

template <class T>
void advance_cg(const Job<T> &job) {
  const Vectors<T> &v = job.vectors;
  const bool multigrid = job.info.solver == Solver::multigrid;
  if (multigrid) {
    precondition(job);
    if (!job.any_active()) return;
  }
  directions(job, multigrid ? v.q : v.r);
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    const double curvature = job.total(0, r);
    if (check_product(job, r, curvature)) s.alpha = s.product / curvature;
  });
  const Norm norm = job.task.stop.norm;
  job.for_units([&](int64_t r, int64_t u) {
    const int64_t at = job.units.offset(u), field = r * job.voxels() + at;
    const Sums sums = job.rows.update(job.units.size(u), norm, static_cast<T>(job.system(r).alpha),
                                      v.q + field, job.inverse_diagonal(at), v.r + field);
    job.partial(1, r, u) = sums.norm;
    job.partial(2, r, u) = sums.product;
  });
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    ++s.iterations;
    if (!multigrid) {
      const double product = job.total(2, r);
      s.beta = product / s.product;
      s.product = product;
    }
    job.set_residual(r, job.total(1, r));
  });
}

template void advance_cg(const Job<float> &);
template void advance_cg(const Job<double> &);

}  // namespace segprior::softcut
