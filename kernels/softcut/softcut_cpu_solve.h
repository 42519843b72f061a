// Solves of the CPU backend. A job is the systems of one matrix: start, advance until every system has
// stopped, finish, conclude. With the batch rule all jobs advance in turn.
//
//   softcut_cpu_prepare.cpp     inspection of matrices, choice of the solver, hierarchies
//   softcut_cpu_solve.cpp       the loop, stopping, results
//   softcut_cpu_cg.cpp          conjugate gradients, with any of the preconditioners
//   softcut_cpu_chebyshev.cpp   Chebyshev iteration
//   softcut_direct.cpp          sparse Cholesky
#pragma once

#include <exception>

#include "kernels/common/arena.h"
#include "kernels/softcut/softcut_cpu_units.h"

namespace segprior::softcut {

// What backward has to know of a matrix.
struct MatrixInfo {
  Inspection inspection;
  Solver solver;  // never automatic
};

// What forward leaves for the backward calls.
struct Saved {
  int32_t *status;       // [systems]
  MatrixInfo *matrices;  // [M]
  char *hierarchies;     // [M][hierarchy_stride]; null: no matrix needs one
  size_t hierarchy_stride;

  static Saved carve(const Problem &, Arena &);
};

// A system while it is being solved. r is kept times `scale`, a power of two that brings the right-hand side
// near 1, so that squares neither overflow nor vanish.
struct System {
  double scale;
  double rhs_norm, residual_norm;   // sums of norm_term, not scaled
  double residual, first_residual;  // in the scale of the rule
  double product;                   // <r, M^-1 r>, scaled
  double alpha, beta;               // alpha: still to be added to x
  double momentum;                  // Chebyshev's
  int32_t status, iterations;
  bool met;       // the iteration satisfied the rule, by its own account
  bool vanishes;  // rhs = 0
};

// Arrays for systems of one matrix that are solved together; absent ones are null.
template <class T>
struct Vectors {
  T *r, *p, *q;         // [group][J]; Chebyshev: p is the other iterate. q also holds M^-1 r
  T *inverse_diagonal;  // [J]
  System *systems;      // [group]
  bool *active;         // [group] still iterates
};

// Scratch of a team.
template <class T>
struct Scratch {
  T *zeros;                 // [Units::zeros()]
  double *partial[3];       // [group][units]
  double *dots;             // [group]
  Inspection *inspections;  // [units]
  char *cycle;
  T *fields;  // [number asked for][R][J]
};

// A workspace, cut up.
template <class T>
struct Room {
  int64_t zeros, voxels, rhs, units, fields;
  int64_t group;  // right-hand sides that are solved together
  size_t cycle_bytes;
  Vectors<T> vectors;  // of slot 0
  Scratch<T> scratch;  // of team 0

  // `together`: all jobs of a call are alive at once, else one per team.
  static Room carve(const Problem &, bool together, int64_t fields, int threads, Arena &);
  Vectors<T> slot(int64_t slot) const;
  Scratch<T> team(int64_t team) const;
};

inline bool is_failure(int32_t status) {
  return status == SEGPRIOR_NONFINITE_INPUT || status == SEGPRIOR_BREAKDOWN ||
         status == SEGPRIOR_INVALID_PARAMETER;
}

// `count` systems of one matrix, and their results. Vectors are [count][J].
template <class T>
struct Task {
  Stop stop;
  int64_t count;
  const T *rhs, *init;  // init null: start from rhs / d ...
  bool from_zero;       // ... or from 0
  T *x;
  const int32_t *failed;  // [count] a failure: x becomes NaN
  int32_t *status;        // [count] how it ended; may be `failed`. Null: not wanted
  segprior_info *info;    // [count]; null: not wanted

  Task part(int64_t first, int64_t number, int64_t voxels) const {
    const int64_t at = first * voxels;
    return {stop,
            number,
            rhs + at,
            init ? init + at : nullptr,
            from_zero,
            x + at,
            failed + first,
            status ? status + first : nullptr,
            info ? info + first : nullptr};
  }
};

// What a thread needs to work on them.
template <class T>
struct Job {
  const Grid &grid;
  Task<T> task;
  const Team &team;
  const Units &units;
  const Spans<T> &spans;
  const RowKernels<T> &rows;
  Vectors<T> vectors;
  Scratch<T> scratch;
  Matrix<T> matrix;
  MatrixInfo info;
  const char *hierarchy;
  std::exception_ptr *error;

  int64_t rhs() const { return task.count; }
  int64_t voxels() const { return grid.voxels(); }
  const T *b(int64_t r) const { return task.rhs + r * voxels(); }
  T *x(int64_t r) const { return task.x + r * voxels(); }
  bool active(int64_t r) const { return vectors.active[r]; }
  System &system(int64_t r) const { return vectors.systems[r]; }
  double &partial(int sum, int64_t r, int64_t unit) const {
    return scratch.partial[sum][r * units.count + unit];
  }
  double total(int sum, int64_t r) const {
    double value = 0;
    for (int64_t u = 0; u < units.count; ++u) value += partial(sum, r, u);
    return value;
  }
  // Null where the solver goes without.
  const T *inverse_diagonal() const {
    return info.solver == Solver::jacobi || info.solver == Solver::chebyshev ? vectors.inverse_diagonal
                                                                             : nullptr;
  }
  const T *inverse_diagonal(int64_t voxel) const {
    const T *inverse = inverse_diagonal();
    return inverse ? inverse + voxel : nullptr;
  }

  // f(r, unit) for this thread's units and the active right-hand sides.
  template <class F>
  void for_units(const F &f) const {
    const int64_t begin = team.begin(units.count), end = team.end(units.count);
    for (int64_t slab = begin; slab < end; slab += units.slab)
      for (int64_t r = 0; r < rhs(); ++r) {
        if (!active(r)) continue;
        const int64_t slab_end = std::min(end, slab + units.slab);
        for (int64_t u = slab; u < slab_end; ++u) f(r, u);
      }
  }
  // f(r) for every active right-hand side, by one thread each, after all threads have left their sums. Done
  // for all when it returns.
  template <class F>
  void for_systems(const F &f) const {
    team.barrier();
    for (int64_t r = team.begin(rhs()); r < team.end(rhs()); ++r)
      if (active(r)) f(r);
    team.barrier();
  }
  bool any_active() const {
    for (int64_t r = 0; r < rhs(); ++r)
      if (active(r)) return true;
    return false;
  }

  // Of system r at `iterate` in a unit, to `out` unless that is null.
  Sums residual(int64_t r, int64_t unit, const T *iterate, T *out) const;
  // Takes the sum of a new residual, scaled, and stops the system if its rule says so.
  void set_residual(int64_t r, double scaled_sum) const;
  // Stops the system for good: x will be NaN.
  void fail(int64_t r, int32_t status) const {
    system(r).status = status;
    vectors.active[r] = false;
  }
};

template <class T>
void start(const Job<T> &);
// One iteration (Chebyshev: up to 8) of the active systems.
template <class T>
void advance(const Job<T> &);
template <class T>
void advance_cg(const Job<T> &);
template <class T>
void advance_chebyshev(const Job<T> &);
// The solution of the active systems, in float64, by one thread. Allocates.
template <class T>
void solve_direct(const Job<T> &);
void require_direct();  // throws where the library was built without
// x and its true residual.
template <class T>
void finish(const Job<T> &);
// Statuses and infos, NaN for failed systems. `satisfied` as of the whole batch; null: per system.
template <class T>
void conclude(const Job<T> &, const bool *batch_satisfied);

// ---- softcut_cpu_prepare.cpp ----
// Inspects all matrices, chooses their solvers and builds hierarchies: saved.matrices and .hierarchies.
template <class T>
void prepare(const Problem &, const Room<T> &, const Saved &, int threads);

// A call of the backend, and where in it a thread is.
template <class T>
struct Call {
  const Problem &problem;
  const Room<T> &room;
  const Saved &saved;
  std::exception_ptr *error;
};
struct Place {
  const Team &team;
  int team_index;
  int64_t m;
};

// f(job) with the job of a task.
template <class T, class F>
void with_job(const Call<T> &call, const Place &place, int64_t slot, const Task<T> &task, const F &f) {
  const Problem &p = call.problem;
  const Units units(p.grid);
  const Matrix<T> matrix = matrix_of<T>(p, place.m);
  const Scratch<T> scratch = call.room.team(place.team_index);
  const Spans<T> spans(p.grid, units, matrix, scratch.zeros);
  const Saved &saved = call.saved;
  f(Job<T>{p.grid, task, place.team, units, spans, row_kernels<T>(), call.room.slot(slot), scratch, matrix,
           saved.matrices[place.m],
           saved.hierarchies ? saved.hierarchies + place.m * saved.hierarchy_stride : nullptr, call.error});
}

// Solves the systems of a matrix, by rules per system, as many at a time as there are vectors for.
template <class T>
void solve_matrix(const Call<T> &call, const Place &place, const Task<T> &task) {
  const int64_t group = call.room.group;
  for (int64_t first = 0; first < task.count; first += group) {
    const Task<T> part = task.part(first, std::min(group, task.count - first), call.room.voxels);
    with_job(call, place, place.team_index, part, [](const Job<T> &job) {
      start(job);
      while (job.any_active()) advance(job);
      finish(job);
      conclude(job, nullptr);
    });
  }
}

}  // namespace segprior::softcut
