// The course of a solve that all solvers share: starting point, stopping rule, results. Passes over memory
// per solve, besides the iterations: 3 to start, 2 to finish.
#include "kernels/softcut/softcut_cpu_solve.h"

#include <cmath>
#include <limits>

namespace segprior::softcut {
namespace {

// A power of two near 1 / value.
double scale_for(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::min(126, std::max(-126, -exponent)));
}

// A sum over a vector that was scaled, of the vector itself.
double unscaled(Norm norm, double sum, double scale) {
  return norm == Norm::l2 ? sum / scale / scale : sum / scale;
}

template <class T>
void start_system(const Job<T> &job, int64_t r) {
  System &s = job.system(r);
  double largest[2] = {0, 0};
  for (int64_t u = 0; u < job.units.count; ++u)
    for (int k = 0; k < 2; ++k) largest[k] = std::max(largest[k], job.partial(k, r, u));
  s.scale = scale_for(largest[0]);
  if (!std::isfinite(largest[0] + largest[1])) return job.fail(r, SEGPRIOR_NONFINITE_INPUT);
  if (largest[0] == 0) {
    s.vanishes = s.met = true;
    job.vectors.active[r] = false;
  }
}

}  // namespace

template <class T>
void Job<T>::set_residual(int64_t r, double scaled_sum) const {
  System &s = system(r);
  s.residual_norm = unscaled(task.stop.norm, scaled_sum, s.scale);
  s.residual = scaled_residual(task.stop, s.residual_norm, s.rhs_norm, static_cast<double>(voxels()));
  if (!std::isfinite(s.residual)) return fail(r, SEGPRIOR_BREAKDOWN);
  if (task.stop.batch) {
    if (s.residual_norm == 0) vectors.active[r] = false;  // nothing left to do
    return;
  }
  s.met = satisfied(task.stop, s.residual);
  if (s.met || s.iterations >= task.stop.max_iterations) vectors.active[r] = false;
}

template <class T>
Sums Job<T>::residual(int64_t r, int64_t unit, const T *iterate, T *out) const {
  Sums sums{};
  spans.for_unit(unit, [&](const Span<T> &span, int64_t row) {
    sums += rows.residual(span, task.stop.norm, static_cast<T>(system(r).scale), b(r) + row, iterate + row,
                          inverse_diagonal(row), out ? out + row : nullptr);
  });
  return sums;
}

template <class T>
void start(const Job<T> &job) {
  const Task<T> &task = job.task;
  for (int64_t r = job.team.begin(job.rhs()); r < job.team.end(job.rhs()); ++r) {
    System &s = job.system(r);
    s = System{};
    s.status = is_failure(task.failed[r]) ? task.failed[r] : SEGPRIOR_CONVERGED;
    job.vectors.active[r] = s.status == SEGPRIOR_CONVERGED;
  }
  job.team.barrier();
  // Starting point; is the input finite?
  job.for_units([&](int64_t r, int64_t u) {
    const int64_t at = job.units.offset(u), n = job.units.size(u);
    T *x = job.x(r) + at;
    job.partial(0, r, u) = job.rows.max_abs(n, job.b(r) + at);
    job.partial(1, r, u) = 0;
    if (task.init) {
      const T *init = task.init + r * job.voxels() + at;
      job.partial(1, r, u) = job.rows.max_abs(n, init);
      std::copy_n(init, n, x);
    } else if (task.from_zero) {
      std::fill_n(x, n, T{0});
    } else {
      job.rows.divide(n, job.b(r) + at, job.matrix.conductance ? job.matrix.conductance + at : nullptr, x);
    }
  });
  job.for_systems([&](int64_t r) { start_system(job, r); });
  if (job.info.solver == Solver::direct) {
    if (job.team.rank == 0) {
      try {
        solve_direct(job);
      } catch (...) {
#pragma omp critical(segprior_softcut_error)
        *job.error = std::current_exception();
      }
    }
    job.for_systems([&](int64_t r) {
      job.system(r).met = true;
      job.vectors.active[r] = false;
    });
    return;
  }
  if (job.inverse_diagonal()) {
    for (int64_t u = job.team.begin(job.units.count); u < job.team.end(job.units.count); ++u)
      job.spans.inspect(job.rows, u, job.vectors.inverse_diagonal);
    job.team.barrier();
  }
  const bool chebyshev = job.info.solver == Solver::chebyshev;
  job.for_units([&](int64_t r, int64_t u) {
    const int64_t at = job.units.offset(u), field = r * job.voxels();
    const Sums sums = job.residual(r, u, job.x(r), chebyshev ? nullptr : job.vectors.r + field);
    if (chebyshev) std::copy_n(job.x(r) + at, job.units.size(u), job.vectors.p + field + at);
    job.partial(0, r, u) = sums.norm;
    job.partial(1, r, u) = sums.product;
    job.partial(2, r, u) = sums.rhs_norm;
  });
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    s.rhs_norm = unscaled(task.stop.norm, job.total(2, r), s.scale);
    s.product = job.total(1, r);
    job.set_residual(r, job.total(0, r));
    s.first_residual = s.residual;
  });
}

template <class T>
void advance(const Job<T> &job) {
  if (!job.any_active()) return;
  job.info.solver == Solver::chebyshev ? advance_chebyshev(job) : advance_cg(job);
}

template <class T>
void finish(const Job<T> &job) {
  job.team.barrier();
  for (int64_t r = job.team.begin(job.rhs()); r < job.team.end(job.rhs()); ++r)
    job.vectors.active[r] = job.system(r).status == SEGPRIOR_CONVERGED && !job.system(r).vanishes;
  job.team.barrier();
  job.for_units([&](int64_t r, int64_t u) {
    const System &s = job.system(r);
    const int64_t at = job.units.offset(u);
    if (s.alpha != 0)
      job.rows.add(job.units.size(u), static_cast<T>(s.alpha / s.scale),
                   job.vectors.p + r * job.voxels() + at, job.x(r) + at);
  });
  job.team.barrier();
  job.for_units([&](int64_t r, int64_t u) {
    const Sums sums = job.residual(r, u, job.x(r), nullptr);
    job.partial(0, r, u) = sums.norm;
    job.partial(2, r, u) = sums.rhs_norm;
  });
  job.for_systems([&](int64_t r) {
    System &s = job.system(r);
    s.rhs_norm = unscaled(job.task.stop.norm, job.total(2, r), s.scale);
    s.residual_norm = unscaled(job.task.stop.norm, job.total(0, r), s.scale);
    s.residual =
        scaled_residual(job.task.stop, s.residual_norm, s.rhs_norm, static_cast<double>(job.voxels()));
    if (!std::isfinite(s.residual)) job.fail(r, SEGPRIOR_BREAKDOWN);
  });
}

template <class T>
void conclude(const Job<T> &job, const bool *batch_satisfied) {
  job.team.barrier();
  for (int64_t r = job.team.begin(job.rhs()); r < job.team.end(job.rhs()); ++r) {
    System &s = job.system(r);
    const bool ok = s.vanishes || (batch_satisfied ? *batch_satisfied : satisfied(job.task.stop, s.residual));
    if (s.status == SEGPRIOR_CONVERGED && !ok)
      s.status = s.met ? SEGPRIOR_PRECISION_LIMIT : SEGPRIOR_ITERATION_CAP;
  }
  job.team.barrier();
  for (int64_t r = 0; r < job.rhs(); ++r) {
    const System &s = job.system(r);
    const bool failed = is_failure(s.status);
    if (failed || s.vanishes) {
      const int64_t begin = job.team.begin(job.voxels()), end = job.team.end(job.voxels());
      std::fill(job.x(r) + begin, job.x(r) + end, failed ? std::numeric_limits<T>::quiet_NaN() : T{0});
    }
    if (job.team.rank != 0) continue;
    if (job.task.status) job.task.status[r] = s.status;
    if (job.task.info)
      job.task.info[r] = {s.status, s.iterations,
                          failed ? std::numeric_limits<double>::quiet_NaN() : s.residual};
  }
  job.team.barrier();
}

template struct Job<float>;
template struct Job<double>;
template void start(const Job<float> &);
template void start(const Job<double> &);
template void advance(const Job<float> &);
template void advance(const Job<double> &);
template void finish(const Job<float> &);
template void finish(const Job<double> &);
template void conclude(const Job<float> &, const bool *);
template void conclude(const Job<double> &, const bool *);

}  // namespace segprior::softcut
