// Chebyshev iteration on D^-1 A, whose eigenvalues lie in [delta, 2 - delta], delta the least d / diag:
// rounds of 8 steps without a sum, then a look at the residual.
//
// Steps are skewed in space: while step s works on a unit, step s + 1 follows one reach behind, so that a
// round reads and writes the iterates once (8 values and the weights per voxel and round). The two iterates
// are each other's target: step s + 1 overwrites a unit when no unit that step s still has to do needs it.
// Threads share a matrix by bands: in each a trapezoid that narrows by one reach per step, then the gaps
// between the bands.
#include <cmath>

#include "kernels/softcut/softcut_cpu_solve.h"

namespace segprior::softcut {
namespace {

constexpr int kRound = 8;
constexpr int64_t kWaveBytes = 4 << 20;  // what a skewed pass may keep in cache

template <class T>
struct Round {
  const Job<T> &job;
  int steps;
  double delta;
  T momentum[kRound], step[kRound];

  // rho: the recurrence's state, 0 before the first step.
  double prepare(double rho) {
    const double sigma = 1 / (1 - delta);
    for (int k = 0; k < steps; ++k) {
      if (rho == 0) {
        rho = 1 / sigma;
        momentum[k] = 0;
        step[k] = 1;
        continue;
      }
      const double next = 1 / (2 * sigma - rho);
      momentum[k] = static_cast<T>(next * rho);
      step[k] = static_cast<T>(2 * next * sigma);
      rho = next;
    }
    return rho;
  }

  // Step k of the round at a unit; k = steps: the sums of the residual.
  void work(int k, int64_t r, int64_t u) const {
    T *iterate[2] = {job.x(r), job.vectors.p + r * job.voxels()};
    const T *from = iterate[k % 2];
    T *to = iterate[1 - k % 2];
    if (k == steps) {
      job.partial(0, r, u) = job.residual(r, u, from, nullptr).norm;
      return;
    }
    job.spans.for_unit(u, [&](const Span<T> &span, int64_t row) {
      job.rows.chebyshev(span, momentum[k], step[k], job.b(r) + row, job.inverse_diagonal(row), from + row,
                         to + row);
    });
  }

  // Steps [first, last) in one skewed pass.
  void pass(int first, int last) const {
    const int64_t count = job.units.count, reach = job.units.reach;
    const int depth = last - first;
    const int64_t bands = std::max<int64_t>(1, std::min<int64_t>(job.team.size, count / (2 * reach * depth)));
    const Team band{job.team.rank, static_cast<int>(bands), nullptr};
    if (band.rank < bands) {
      const int64_t begin = band.begin(count), end = band.end(count);
      for (int64_t r = 0; r < job.rhs(); ++r) {
        if (!job.active(r)) continue;
        for (int64_t front = begin; front < end + (depth - 1) * reach; ++front)
          for (int k = 0; k < depth; ++k) {
            const int64_t u = front - k * reach;
            const int64_t from = begin > 0 ? begin + k * reach : 0, to = end < count ? end - k * reach : end;
            if (u >= from && u < to) work(first + k, r, u);
          }
      }
    }
    job.team.barrier();
    if (band.rank < bands && band.rank > 0) {
      const int64_t border = band.begin(count);
      for (int64_t r = 0; r < job.rhs(); ++r) {
        if (!job.active(r)) continue;
        for (int k = 1; k < depth; ++k)
          for (int64_t u = border - k * reach; u < border + k * reach; ++u) work(first + k, r, u);
      }
    }
    job.team.barrier();
  }
};

// The residual after k steps is at most this part of the first one, in the norm weighted by 1 / diag.
double bound(double delta, int steps) {
  const double root = std::acosh(1 / (1 - delta));
  return 1 / std::cosh(std::min(700.0, steps * root));
}

}  // namespace

template <class T>
void advance_chebyshev(const Job<T> &job) {
  const Inspection &matrix = job.info.inspection;
  int64_t any = 0;
  while (!job.active(any)) ++any;
  const System state = job.system(any);  // all active systems are equally far
  Round<T> round{job,
                 std::min(kRound, job.task.stop.max_iterations - state.iterations),
                 std::min(matrix.dominance, 0.999),
                 {},
                 {}};
  const double momentum = round.prepare(state.momentum);
  const int64_t stage_bytes = static_cast<int64_t>(sizeof(T)) * 7 * job.units.reach * job.units.size(0);
  const int depth =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(kRound + 1, kWaveBytes / stage_bytes)));
  for (int k = 0; k <= round.steps; k += depth) round.pass(k, std::min(round.steps + 1, k + depth));
  if (round.steps % 2 != 0)  // the last round of a capped solve
    job.for_units([&](int64_t r, int64_t u) {
      const int64_t at = job.units.offset(u);
      std::copy_n(job.vectors.p + r * job.voxels() + at, job.units.size(u), job.x(r) + at);
    });
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    s.iterations += round.steps;
    s.momentum = momentum;
    job.set_residual(r, job.total(0, r));
    if (!job.active(r) || job.task.stop.batch) return;
    // Rounding keeps the residual up where the iteration has long met the rule.
    const double norms =
        std::sqrt(matrix.diagonal[1] / matrix.diagonal[0] *
                  (job.task.stop.norm == Norm::l1 ? static_cast<double>(job.voxels()) : 1.0));
    if (s.first_residual * norms * bound(round.delta, s.iterations) > job.task.stop.tolerance) return;
    s.met = true;
    job.vectors.active[r] = false;
  });
}

template void advance_chebyshev(const Job<float> &);
template void advance_chebyshev(const Job<double> &);

}  // namespace segprior::softcut
