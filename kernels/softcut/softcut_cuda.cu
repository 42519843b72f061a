// The CUDA backend of SoftCut: which kernels serve a problem, workspaces and saved state, the three passes.
#include "kernels/softcut/softcut_cuda.h"

#include <type_traits>

#include "kernels/softcut/softcut_cuda_cg.h"
#include "kernels/softcut/softcut_cuda_chebyshev.h"
#include "kernels/softcut/softcut_cuda_check.h"
#include "kernels/softcut/softcut_cuda_grads.h"

namespace segprior::softcut::cuda {

// softcut_cuda_csr.cu, softcut_cuda_convert.cu
void csr(const Problem &, int32_t *row_offsets, int32_t *columns, void *values, int, void *stream);
void widen(Storage, const void *from, float *to, int64_t count, int, void *stream);
void narrow(Storage, const float *from, void *to, int64_t count, int, void *stream);

namespace {

template <class F>
auto with_type(const Problem &p, F &&f) {
  return p.dtype == DType::f32 ? f(static_cast<float *>(nullptr)) : f(static_cast<double *>(nullptr));
}

template <class T>
bool persistent_serves_as(const Problem &p, Solver solver) {
  if (solver == Solver::multigrid) return cg_multigrid_blocks<T>(p.grid) > 0;
  if (solver == Solver::chebyshev) return chebyshev_blocks<T>(p.grid) > 0;
  return cg_blocks<T>(p.grid) > 0;
}

bool persistent_serves(const Problem &p, Solver solver) {
  return with_type(
      p, [&](auto *type) { return persistent_serves_as<std::remove_pointer_t<decltype(type)>>(p, solver); });
}

[[noreturn]] void refuse(const std::string &text) { throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED, text); }

}  // namespace

Plan plan_of(const Problem &p) {
  if (p.solver == Solver::direct) refuse("opts.solver: SEGPRIOR_SOFTCUT_DIRECT is not there on CUDA");
  const Solver small = p.solver == Solver::automatic ? Solver::jacobi : p.solver;
  const Solver large = p.solver == Solver::automatic ? Solver::multigrid : p.solver;
  switch (p.path) {
    case Path::on_chip:
      if (!chip_serves(p)) refuse("opts.path: the on-chip path does not serve this size or solver");
      return {p.path, small};
    case Path::cluster:
      if (!cluster_serves(p))
        refuse("opts.path: the cluster path does not serve this size or solver, or not on this device");
      return {p.path, small};
    case Path::persistent:
      if (!persistent_serves(p, large))
        refuse("opts.path: this device has no cooperative launch, which the persistent path needs");
      return {p.path, large};
    case Path::streaming:
      return {p.path, large};
    case Path::automatic:
      break;
  }
  if (chip_serves(p)) return {Path::on_chip, small};
  if (cluster_serves(p)) return {Path::cluster, small};
  return {persistent_serves(p, large) ? Path::persistent : Path::streaming, large};
}

namespace {

// What forward leaves for the backward passes, and the vectors of the preconditioner that it goes with.
struct Saved {
  int32_t *status;  // [systems] SEGPRIOR_*
  Hierarchy hierarchy{};

  Saved(const Problem &p, const Plan &plan, Arena &saved, Arena &workspace) {
    status = saved.take<int32_t>(p.grid.systems());
    if (plan.solver == Solver::multigrid) hierarchy = carve_hierarchy(p.grid, saved, workspace);
  }
};

template <class T>
void solve(const Problem &p, const Plan &plan, const Saved &saved, const Solve<T> &s, Arena arena,
           cudaStream_t stream) {
  const Operator<T> a = operator_of<T>(p);
  if (plan.path == Path::on_chip)
    return chip_solve(p, s, arena.take<char>(static_cast<int64_t>(chip_workspace(p))), stream);
  if (plan.path == Path::cluster)
    return cluster_solve(p, s, arena.take<char>(static_cast<int64_t>(cluster_workspace(p))), stream);
  if (plan.solver == Solver::chebyshev) {
    const Chebyshev<T> c = carve_chebyshev(p.grid, a, s, arena);
    start_frame(c.cg.frame, stream);
    run_chebyshev(p.grid, plan.path, c, stream);
    return finish_frame(c.cg.frame, p.grid, stream);
  }
  const Cg<T> cg = carve_cg(a, s, plan.solver, arena);
  start_frame(cg.frame, stream);
  if (plan.solver == Solver::multigrid)
    run_cg_multigrid(p.grid, plan.path, cg, saved.hierarchy, stream);
  else
    run_cg(p.grid, plan.path, cg, stream);
  finish_frame(cg.frame, p.grid, stream);
}

// The part of a workspace that solve() takes.
template <class T>
size_t solve_workspace(const Problem &p, const Plan &plan, const Stop &stop) {
  if (plan.path == Path::on_chip) return chip_workspace(p);
  if (plan.path == Path::cluster) return cluster_workspace(p);
  Arena arena;
  Solve<T> s{};
  s.stop = stop;
  if (plan.solver == Solver::chebyshev)
    carve_chebyshev(p.grid, operator_of<T>(p), s, arena);
  else
    carve_cg(operator_of<T>(p), s, plan.solver, arena);
  return arena.used();
}

// Arrays of the backward passes.
template <class T>
struct Scratch {
  int32_t *status;          // [systems]
  T *rhs, *first, *second;  // [systems][J]: double backward's right-hand sides; the solutions

  Scratch(const Problem &p, Pass pass, Arena &arena) {
    const int64_t systems = p.grid.systems(), voxels = p.grid.voxels();
    const bool twice = pass == Pass::double_backward;
    status = arena.take<int32_t>(systems);
    first = arena.take<T>(systems, voxels);
    second = arena.take<T>(twice ? systems : 0, voxels);
    rhs = arena.take<T>(twice ? systems : 0, voxels);
  }
};

size_t workspace(const Problem &p, Pass pass, int) {
  const Plan plan = plan_of(p);
  return with_type(p, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Arena arena, saved;
    Saved(p, plan, saved, arena);
    if (pass != Pass::forward) Scratch<T>(p, pass, arena);
    return arena.used() + solve_workspace<T>(p, plan, pass == Pass::forward ? p.stop : p.backward_stop);
  });
}

size_t saved_bytes(const Problem &p) {
  Arena saved, workspace;
  Saved(p, plan_of(p), saved, workspace);
  return saved.used();
}

template <class T>
void forward_as(const Problem &p, const Outputs &out, void *memory, void *saved_memory, cudaStream_t stream) {
  const Plan plan = plan_of(p);
  Arena arena(memory), saved_arena(saved_memory);
  const Saved saved(p, plan, saved_arena, arena);
  const Operator<T> a = operator_of<T>(p);
  const Solve<T> s{p.stop,
                   static_cast<const T *>(p.scores),
                   p.has_init ? static_cast<const T *>(p.init) : nullptr,
                   static_cast<T *>(out.x),
                   saved.status,
                   out.info};
  check_systems(a, s, nullptr, stream);
  if (plan.solver == Solver::multigrid) build_hierarchy(a, saved.hierarchy, stream);
  solve(p, plan, saved, s, arena, stream);
}

// One call of a backward pass.
template <class T>
class Backward {
 public:
  Backward(const Problem &p, Pass pass, void *memory, const void *saved, cudaStream_t stream)
      : p_(p),
        stream_(stream),
        plan_(plan_of(p)),
        arena_(memory),
        saved_arena_(const_cast<void *>(saved)),
        saved_(p, plan_, saved_arena_, arena_),
        scratch_(p, pass, arena_),
        a_(operator_of<T>(p)),
        count_(a_.systems() * a_.voxels) {}

  void run(const T *x, const T *grad_x, const Grads &out) {
    T *const scores = static_cast<T *>(out.scores);
    const T *l = solve_for(grad_x, scores && !out.accumulate ? scores : scratch_.first, out.info);
    if (scores && out.accumulate) add(scores, l, count_, stream_);
    matrix({{l, nullptr}, {x, nullptr}}, out.edges, out.conductance, out.accumulate);
  }

  void run_twice(const T *x, const T *l, const Cotangents &in, const SecondGrads &out) {
    T *const grad_x = static_cast<T *>(out.grad_x), *const scores = static_cast<T *>(out.scores);
    T *const y = grad_x && !out.accumulate ? grad_x : scratch_.first;
    T *const z = scores && !out.accumulate ? scores : scratch_.second;
    CotangentRhs<T> rhs{
        static_cast<const T *>(in.scores), x, {}, static_cast<const T *>(in.conductance), scratch_.rhs};
    bool matrix_given = rhs.conductance != nullptr;
    for (int f = 0; f < kFamilies; ++f) {
      rhs.edges[f] = static_cast<const T *>(in.edges[f]);
      matrix_given = matrix_given || rhs.edges[f];
    }
    cotangent_rhs(p_.grid, a_, rhs, stream_);
    solve_for(scratch_.rhs, y, out.info);
    segprior_info *const second_info = out.info ? out.info + a_.systems() : nullptr;
    if (matrix_given) {
      rhs.constant = nullptr;
      rhs.x = l;
      cotangent_rhs(p_.grid, a_, rhs, stream_);
      solve_for(scratch_.rhs, z, second_info);
    } else {
      zero_solution(a_, saved_.status, z, second_info, stream_);
    }
    if (out.accumulate && grad_x) add(grad_x, y, count_, stream_);
    if (out.accumulate && scores) add(scores, z, count_, stream_);
    matrix({{y, z}, {l, x}}, out.edges, out.conductance, out.accumulate);
  }

 private:
  struct Pairs {
    const T *left[2], *right[2];
  };

  const T *solve_for(const T *rhs, T *x, segprior_info *info) {
    const Solve<T> s{p_.backward_stop, rhs, nullptr, x, scratch_.status, info};
    check_systems(a_, s, saved_.status, stream_);
    solve(p_, plan_, saved_, s, arena_, stream_);
    return x;
  }

  void matrix(const Pairs &pairs, void *const (&edges)[kFamilies], void *conductance, bool accumulate) {
    MatrixGrads<T> g{{pairs.left[0], pairs.left[1]},
                     {pairs.right[0], pairs.right[1]},
                     {},
                     static_cast<T *>(conductance),
                     accumulate};
    for (int f = 0; f < kFamilies; ++f) g.edges[f] = static_cast<T *>(edges[f]);
    matrix_grads(p_.grid, a_, g, stream_);
  }

  const Problem &p_;
  const cudaStream_t stream_;
  const Plan plan_;
  Arena arena_, saved_arena_;
  const Saved saved_;
  const Scratch<T> scratch_;
  const Operator<T> a_;
  const int64_t count_;
};

// ---- The backend ----

void forward(const Problem &p, const Outputs &out, void *memory, void *saved, int, void *stream) {
  with_type(p, [&](auto *type) {
    forward_as<std::remove_pointer_t<decltype(type)>>(p, out, memory, saved,
                                                      static_cast<cudaStream_t>(stream));
  });
}

void backward(const Problem &p, const void *x, const void *grad_x, const Grads &out, void *memory,
              const void *saved, int, void *stream) {
  with_type(p, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Backward<T>(p, Pass::backward, memory, saved, static_cast<cudaStream_t>(stream))
        .run(static_cast<const T *>(x), static_cast<const T *>(grad_x), out);
  });
}

void double_backward(const Problem &p, const void *x, const void *grad_scores, const Cotangents &in,
                     const SecondGrads &out, void *memory, const void *saved, int, void *stream) {
  with_type(p, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Backward<T>(p, Pass::double_backward, memory, saved, static_cast<cudaStream_t>(stream))
        .run_twice(static_cast<const T *>(x), static_cast<const T *>(grad_scores), in, out);
  });
}

}  // namespace

}  // namespace segprior::softcut::cuda

namespace segprior::softcut {

const Backend kCuda{cuda::workspace,       cuda::saved_bytes, cuda::forward, cuda::backward,
                    cuda::double_backward, cuda::csr,         cuda::widen,   cuda::narrow};

}  // namespace segprior::softcut
