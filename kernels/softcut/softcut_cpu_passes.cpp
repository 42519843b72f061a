// Forward, backward and double backward of the CPU backend: solves, and the gradients from them.
#include <algorithm>

#include "kernels/softcut/softcut_cpu.h"
#include "kernels/softcut/softcut_cpu_solve.h"

namespace segprior::softcut {
namespace {

// Vectors of all right-hand sides of a matrix that a pass keeps per team, besides the solver's.
constexpr int kBackwardFields = 1, kDoubleBackwardFields = 3;

template <class T>
Room<T> make_room(const Problem &p, Pass pass, int threads, Arena &arena) {
  const bool batch = pass == Pass::forward && p.stop.batch;
  const int fields = pass == Pass::forward    ? 0
                     : pass == Pass::backward ? kBackwardFields
                                              : kDoubleBackwardFields;
  return Room<T>::carve(p, batch, fields, threads, arena);
}

// A workspace of a call that is about to begin.
template <class T>
Room<T> open_room(const Problem &p, Pass pass, int threads, void *workspace) {
  Arena arena(workspace);
  const Room<T> room = make_room<T>(p, pass, threads, arena);
  std::fill_n(room.scratch.zeros, team_count(threads, p.grid.matrices()) * room.zeros, T{0});
  return room;
}

template <class T>
Task<T> forward_task(const Problem &p, const Outputs &out, const Saved &saved, int64_t m) {
  const int64_t first = m * p.grid.rhs(), at = first * p.grid.voxels();
  return {p.stop,
          p.grid.rhs(),
          static_cast<const T *>(p.scores) + at,
          p.has_init ? static_cast<const T *>(p.init) + at : nullptr,
          false,
          static_cast<T *>(out.x) + at,
          saved.status + first,
          saved.status + first,
          out.info ? out.info + first : nullptr};
}

// The rule of a batch: all systems as one vector.
class BatchRule {
 public:
  explicit BatchRule(const Stop &stop, double voxels) : stop_(stop), voxels_(voxels) {}
  void add(const System &s) {
    if (s.status != SEGPRIOR_CONVERGED) return;
    residual_ += s.residual_norm;
    rhs_ += s.rhs_norm;
    count_ += voxels_;
  }
  bool satisfied() const {
    return softcut::satisfied(stop_, scaled_residual(stop_, residual_, rhs_, count_));
  }

 private:
  Stop stop_;
  double voxels_, residual_ = 0, rhs_ = 0, count_ = 0;
};

// All systems in lock step.
template <class T>
void solve_batch(const Call<T> &call, const Outputs &out, int threads) {
  const Problem &p = call.problem;
  const Vectors<T> &all = call.room.vectors;  // [M][R]: the groups of such a call are whole
  const auto for_jobs = [&](const auto &f) {
    for_images(threads, p.grid.matrices(), [&](const Team &team, int team_index, int64_t m) {
      with_job(call, {team, team_index, m}, m, forward_task<T>(p, out, call.saved, m), f);
    });
  };
  const int64_t systems = p.grid.systems();
  const auto satisfied = [&] {
    BatchRule rule(p.stop, static_cast<double>(p.grid.voxels()));
    for (int64_t n = 0; n < systems; ++n) rule.add(all.systems[n]);
    return rule.satisfied();
  };
  const auto iterations = [&] {
    int most = 0;
    for (int64_t n = 0; n < systems; ++n) most = std::max(most, all.systems[n].iterations);
    return most;
  };
  const auto goes_on = [&] {
    const bool *const active = all.active;
    return std::find(active, active + systems, true) != active + systems &&
           iterations() < p.stop.max_iterations && !satisfied();
  };
  for_jobs([](const Job<T> &job) { start(job); });
  while (goes_on()) for_jobs([](const Job<T> &job) { advance(job); });
  const bool met = p.solver == Solver::direct || satisfied();
  const int done = iterations();
  for (int64_t n = 0; n < systems; ++n) {
    System &s = all.systems[n];
    if (s.status != SEGPRIOR_CONVERGED || s.vanishes) continue;
    s.met = met;
    s.iterations = done;
  }
  for_jobs([](const Job<T> &job) { finish(job); });
  const bool holds = satisfied();
  for_jobs([&](const Job<T> &job) { conclude(job, &holds); });
}

void rethrow(const std::exception_ptr &error) {
  if (error) std::rethrow_exception(error);
}

// Rows of the gradients of a matrix's edges and conductance, from their arrays.
template <class T>
struct EdgeArrays {
  T *edges[kFamilies], *conductance;

  template <class Wanted>
  EdgeArrays(const Grid &g, const Wanted &wanted, int64_t m) {
    for (int f = 0; f < kFamilies; ++f)
      edges[f] = wanted.edges[f] ? static_cast<T *>(wanted.edges[f]) + m * g.edge_count(f) : nullptr;
    conductance = wanted.conductance ? static_cast<T *>(wanted.conductance) + m * g.voxels() : nullptr;
  }
  bool any() const {
    for (const T *array : edges)
      if (array) return true;
    return conductance != nullptr;
  }
};

// out (+)= -sum_r (l_a - l_b)(x_a - x_b), and -sum_r l x, by this thread's units.
template <class T>
void add_gradients(const Job<T> &job, const T *l, const T *x, bool add, const EdgeArrays<T> &out) {
  const Grid &g = job.grid;
  for (int64_t u = job.team.begin(job.units.count); u < job.team.end(job.units.count); ++u) {
    const int64_t slice = job.units[u].slice;
    const auto of = [&](int family, bool there, int64_t at) {
      return there && out.edges[family] ? out.edges[family] + at : nullptr;
    };
    job.spans.for_unit(u, [&](const Span<T> &span, int64_t row) {
      const bool next_row = span.row_step[0] != 0, next_slice = span.slice_step[0] != 0;
      const int64_t line = row / g.extent[2];
      const EdgeRows<T> rows{of(kColumn, true, line * (g.extent[2] - 1)),
                             of(kRow, next_row, (line - slice) * g.extent[2]),
                             of(kSlice, next_slice, row),
                             of(kDiagonal, next_row, line * (g.extent[2] - 1)),
                             of(kAnti, next_row, line * (g.extent[2] - 1)),
                             out.conductance ? out.conductance + row : nullptr};
      for (int64_t r = 0; r < g.rhs(); ++r)
        job.rows.gradients(span, l + r * job.voxels() + row, x + r * job.voxels() + row, add || r > 0, rows);
    });
  }
}

// to (+)= from, all right-hand sides, by this thread's share.
template <class T>
void add_field(const Job<T> &job, const T *from, T *to) {
  const int64_t n = job.grid.rhs() * job.voxels(), begin = job.team.begin(n);
  job.rows.add(job.team.end(n) - begin, T{1}, from + begin, to + begin);
}

// Where the solution of a matrix's systems goes: to the caller if he only wants it overwritten.
template <class T>
T *target(void *wanted, bool accumulate, int64_t at, T *own) {
  return wanted && !accumulate ? static_cast<T *>(wanted) + at : own;
}

}  // namespace

template <class T>
size_t cpu_workspace(const Problem &p, Pass pass, int threads) {
  if (p.solver == Solver::direct) require_direct();
  Arena arena;
  make_room<T>(p, pass, threads, arena);
  return arena.used();
}

template <class T>
void cpu_forward(const Problem &p, const Outputs &out, void *workspace, void *saved_bytes, int threads) {
  if (p.solver == Solver::direct) require_direct();
  Arena arena(saved_bytes);
  const Saved saved = Saved::carve(p, arena);
  const Room<T> room = open_room<T>(p, Pass::forward, threads, workspace);
  prepare(p, room, saved, threads);
  std::exception_ptr error;
  const Call<T> call{p, room, saved, &error};
  if (p.stop.batch)
    solve_batch(call, out, threads);
  else
    for_images(threads, p.grid.matrices(), [&](const Team &team, int team_index, int64_t m) {
      solve_matrix(call, {team, team_index, m}, forward_task<T>(p, out, saved, m));
    });
  rethrow(error);
}

// Backward solves start from 0: the first residual is then the incoming gradient itself. From its quotient by
// d, CG and multigrid take as many iterations, give or take one, Chebyshev 20 % more, and the larger residual
// leaves its rounding in the recurrence.
template <class T>
void cpu_backward(const Problem &p, const void *x, const void *grad_x, const Grads &grads, void *workspace,
                  const void *saved_bytes, int threads) {
  Arena arena(const_cast<void *>(saved_bytes));  // only read
  const Saved saved = Saved::carve(p, arena);
  const Room<T> room = open_room<T>(p, Pass::backward, threads, workspace);
  std::exception_ptr error;
  const Call<T> call{p, room, saved, &error};
  for_images(threads, p.grid.matrices(), [&](const Team &team, int team_index, int64_t m) {
    const int64_t first = m * room.rhs, at = first * room.voxels;
    T *l = target(grads.scores, grads.accumulate, at, room.team(team_index).fields);
    const Place place{team, team_index, m};
    solve_matrix(call, place,
                 {p.backward_stop, room.rhs, static_cast<const T *>(grad_x) + at, nullptr, true, l,
                  saved.status + first, nullptr, grads.info ? grads.info + first : nullptr});
    with_job(call, place, team_index, Task<T>{}, [&](const Job<T> &job) {
      if (grads.scores && grads.accumulate) add_field(job, l, static_cast<T *>(grads.scores) + at);
      const EdgeArrays<T> out(p.grid, grads, m);
      if (out.any()) add_gradients(job, l, static_cast<const T *>(x) + at, grads.accumulate, out);
    });
  });
  rethrow(error);
}

template <class T>
void cpu_double_backward(const Problem &p, const void *x_data, const void *l_data, const Cotangents &in,
                         const SecondGrads &out, void *workspace, const void *saved_bytes, int threads) {
  Arena arena(const_cast<void *>(saved_bytes));  // only read
  const Saved saved = Saved::carve(p, arena);
  const Room<T> room = open_room<T>(p, Pass::double_backward, threads, workspace);
  const Grid &g = p.grid;
  const Units units(g);
  Problem perturbed = p;  // with the matrix A(b, c)
  perturbed.has_conductance = in.conductance != nullptr;
  perturbed.conductance = in.conductance;
  bool change = in.conductance != nullptr;
  for (int f = 0; f < kFamilies; ++f) {
    perturbed.edges[f] = in.edges[f];
    perturbed.grid.has[f] = in.edges[f] != nullptr;
    change = change || in.edges[f];
  }
  std::exception_ptr error;
  const Call<T> call{p, room, saved, &error};
  for_images(threads, g.matrices(), [&](const Team &team, int team_index, int64_t m) {
    const int64_t first = m * room.rhs, at = first * room.voxels, field = room.rhs * room.voxels;
    const Place place{team, team_index, m};
    const Scratch<T> scratch = room.team(team_index);
    const T *x = static_cast<const T *>(x_data) + at, *l = static_cast<const T *>(l_data) + at;
    const T *a = in.scores ? static_cast<const T *>(in.scores) + at : nullptr;
    const EdgeArrays<T> edges(g, out, m);
    T *rhs = scratch.fields;
    T *y = target(out.grad_x, out.accumulate, at, scratch.fields + field);
    T *z = target(out.scores, out.accumulate, at, scratch.fields + 2 * field);
    const Spans<T> spans(g, units, matrix_of<T>(perturbed, m), scratch.zeros, 0);
    // solution = A^-1 (given - A(b, c) v), to the caller too if he accumulates.
    const auto solve = [&](const T *given, const T *v, T *solution, void *wanted, segprior_info *info) {
      for (int64_t u = team.begin(units.count); u < team.end(units.count); ++u)
        for (int64_t r = 0; r < room.rhs; ++r) {
          const int64_t field = r * room.voxels;
          spans.for_unit(u, [&](const Span<T> &span, int64_t row) {
            row_kernels<T>().residual(span, Norm::l2, T{1}, given ? given + field + row : scratch.zeros,
                                      v + field + row, nullptr, rhs + field + row);
          });
        }
      team.barrier();
      solve_matrix(call, place,
                   {p.backward_stop, room.rhs, rhs, nullptr, true, solution, saved.status + first, nullptr,
                    info ? info + first : nullptr});
      if (wanted && out.accumulate)
        with_job(call, place, team_index, Task<T>{},
                 [&](const Job<T> &job) { add_field(job, solution, static_cast<T *>(wanted) + at); });
    };
    if (out.grad_x || edges.any() || out.info) solve(a, x, y, out.grad_x, out.info);
    if (out.scores || edges.any() || out.info)
      solve(nullptr, l, z, out.scores, out.info ? out.info + g.systems() : nullptr);
    if (edges.any())
      with_job(call, place, team_index, Task<T>{}, [&](const Job<T> &job) {
        add_gradients(job, y, l, out.accumulate, edges);
        if (change) add_gradients(job, z, x, true, edges);
      });
  });
  rethrow(error);
}

template size_t cpu_workspace<float>(const Problem &, Pass, int);
template size_t cpu_workspace<double>(const Problem &, Pass, int);
template void cpu_forward<float>(const Problem &, const Outputs &, void *, void *, int);
template void cpu_forward<double>(const Problem &, const Outputs &, void *, void *, int);
template void cpu_backward<float>(const Problem &, const void *, const void *, const Grads &, void *,
                                  const void *, int);
template void cpu_backward<double>(const Problem &, const void *, const void *, const Grads &, void *,
                                   const void *, int);
template void cpu_double_backward<float>(const Problem &, const void *, const void *, const Cotangents &,
                                         const SecondGrads &, void *, const void *, int);
template void cpu_double_backward<double>(const Problem &, const void *, const void *, const Cotangents &,
                                          const SecondGrads &, void *, const void *, int);

}  // namespace segprior::softcut
