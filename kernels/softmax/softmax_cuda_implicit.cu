// Implicit backward on CUDA for TV and volume: scalar work of the conjugate gradients, the host's loop.
#include "kernels/softmax/softmax_cuda_implicit.h"

namespace segprior::softmax::cuda {

namespace {

// One block per image: the scalar work of the start, of the middle (alpha) and of the end of a step.
enum class Phase { start, alpha, end };

template <class T>
__global__ void __launch_bounds__(kThreads)
    scalar_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s, bool equality, Phase phase) {
  const Geometry<T> &g = in.g;
  const int64_t image = blockIdx.x, first = image * g.classes;
  const bool bad = failed(adjoint.status[image]);
  if (bad && phase == Phase::start && threadIdx.x == 0) s.solve[image] = {0, 0, NAN, 0, 0, 0, 1, 0};
  if (bad || (phase != Phase::start && s.solve[image].done)) return;
  const double *dots = s.dots + image * 2 * g.chunks;
  double dot = sum_of(dots, g.chunks), rz = sum_of(dots + g.chunks, g.chunks);  // valid in thread 0
  for (int64_t k = first; k < first + g.classes; ++k) {
    const bool on = coupled(in, adjoint, equality, k);
    double sum = 0, diagonal = 0;
    if (phase != Phase::end && on) sum = sum_of(s.sums + k * g.chunks, g.chunks);
    if (phase == Phase::start) {
      for (int64_t x = threadIdx.x; on && x < g.voxels; x += kThreads) {
        const double u = s.u[k * g.voxels + x];
        diagonal += u * (1 - u);
      }
      diagonal = block_sum(diagonal);
    }
    if (threadIdx.x != 0) continue;
    if (phase == Phase::start) {
      s.diagonal_beta[k] = fmax(diagonal, 1e-6) / in.coefficients->params.eps;
      s.beta[k] = 0;
      s.r_beta[k] = sum;
      s.p_beta[k] = sum / s.diagonal_beta[k];
      dot += sum * sum;
      rz += sum * s.p_beta[k];
    } else if (phase == Phase::alpha) {
      s.mp_beta[k] = sum;
      dot += s.p_beta[k] * sum;
    } else {
      const double alpha = s.solve[image].alpha;
      s.beta[k] += alpha * s.p_beta[k];
      s.r_beta[k] -= alpha * s.mp_beta[k];
      dot += s.r_beta[k] * s.r_beta[k];
      rz += s.r_beta[k] * s.r_beta[k] / s.diagonal_beta[k];
    }
  }
  if (threadIdx.x != 0) return;
  ImplicitSolve &solve = s.solve[image];
  if (phase == Phase::start) {
    // A right-hand side that is not a number leaves nothing to solve, and is no solution.
    solve = {rz, dot, dot > 0 ? 1.0 : dot, 0, 0, 0, !(dot > 0), dot == 0};
  } else if (phase == Phase::alpha) {
    solve.alpha = dot > 0 ? solve.rz / dot : 0;
  } else {
    solve.relative = sqrt(dot / solve.rhs);
    solve.converged = solve.relative <= s.tolerance;
    ++solve.iterations;
    // alpha = 0: no descent is left in this precision.
    solve.done = solve.converged || solve.iterations >= s.cap || solve.alpha == 0;
    solve.direction = solve.rz > 0 ? rz / solve.rz : 0;
    solve.rz = rz;
    for (int64_t k = first; k < first + g.classes; ++k)
      s.p_beta[k] = s.r_beta[k] / s.diagonal_beta[k] + solve.direction * s.p_beta[k];
  }
}

// What follows from w = o_bar.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, true);
  if (!here.active) return;
  double log_sum = 0;
  const Site site = site_of(g, here.inside ? here.work.x : 0);
  T bound_sum = 0;
  for (int i = 0; here.inside && i < g.classes; ++i) {
    const int64_t k = here.field + i * g.voxels;
    if (adjoint.grad_features) adjoint.grad_features[k] += s.w[k];
    log_sum += log_term(s.w[k], s.u[k]);
    for (int c = 0; in.tv && c < g.nd; ++c)
      if (linked(s, g, here.work.image, site, c))
        bound_sum += s.unit[here.dual + (static_cast<int64_t>(i) * g.nd + c) * g.voxels] * g.inv_h[c] *
                     (s.w[k + g.stride[c]] - s.w[k]);
  }
  if (in.tv && here.inside) adjoint.grad_bound[here.work.image * g.voxels + here.work.x] = bound_sum;
  log_sum = block_sum(log_sum);
  if (threadIdx.x == 0)
    adjoint.scalar_partials[(here.work.image * kScalars + kEpsSum) * g.chunks + here.work.chunk] = log_sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    report_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s, bool equality, segprior_info *info) {
  const int64_t image = blockIdx.x;
  const bool bad = failed(adjoint.status[image]);
  for (int i = threadIdx.x; !bad && in.has_volume && i < in.g.classes; i += kThreads) {
    const int64_t k = image * in.g.classes + i;
    const bool on = coupled(in, adjoint, equality, k),
               upper = equality || (on && final_f(in, adjoint, k) < 0);
    adjoint.upper_bar[k] = on && upper ? s.beta[k] : 0;
    adjoint.lower_bar[k] = on && !upper ? s.beta[k] : 0;
  }
  if (threadIdx.x != 0 || !info) return;
  const ImplicitSolve &solve = s.solve[image];
  const int32_t status = solve.converged ? SEGPRIOR_CONVERGED : SEGPRIOR_ITERATION_CAP;
  info[image] = {bad ? adjoint.status[image] : status, solve.iterations, solve.relative};
}

// Masked voxels of the rebuilt u.
template <class T>
__global__ void __launch_bounds__(kThreads) mask_kernel(Inputs<T> in, ImplicitSystem<T> s) {
  const Work work = work_of(in.g);
  if (work.x >= in.g.voxels || valid_at(s, in.g, work.image, work.x)) return;
  for (int i = 0; i < in.g.classes; ++i) s.u[(work.image * in.g.classes + i) * in.g.voxels + work.x] = 0;
}

template <class T>
struct Scratch {
  Coefficients *coefficients;
  Adjoint<T> adjoint{};
  ImplicitSystem<T> system{};

  Scratch(const Problem &p, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t field = g.batch * g.classes * g.voxels(), dual = p.tv ? field * g.nd : 0;
    const int64_t chunks = ceil_div(g.voxels(), kThreads);
    const int64_t per_class = p.volume == Volume::none ? 0 : g.batch * g.classes;
    coefficients = arena.take<Coefficients>(1);
    adjoint.grad_bound = arena.take<T>(p.tv ? g.batch * g.voxels() : 0);
    adjoint.scalar_partials = arena.take<double>(g.batch * kScalars * chunks);
    for (double **sums :
         {&adjoint.f_bar, &adjoint.w_bar, &adjoint.lower_bar, &adjoint.upper_bar, &adjoint.eps_bar})
      *sums = arena.take<double>(per_class);
    system.u = adjoint.u = arena.take<T>(field);
    system.w = arena.take<T>(field);
    system.mu = arena.take<T>(p.tv ? field : 0);
    system.diagonal = arena.take<T>(p.tv ? field : 0);
    for (T **values : {&system.unit, &system.a, &system.r, &system.p, &system.mp})
      *values = arena.take<T>(dual);
    system.sums = arena.take<double>(per_class * chunks);
    system.dots = arena.take<double>(g.batch * 2 * chunks);
    for (double **values :
         {&system.beta, &system.r_beta, &system.p_beta, &system.mp_beta, &system.diagonal_beta})
      *values = arena.take<double>(g.batch * g.classes);
    system.solve = arena.take<ImplicitSolve>(g.batch);
    system.mask = p.mask;
    system.mask_shared = p.mask_shared;
    system.cap = p.implicit_iterations;
    system.tolerance = p.implicit_tolerance;
  }
};

template <class T>
void run(const Problem &p, const void *grad_u, const Grads &grads, void *workspace, const void *saved_memory,
         cudaStream_t stream) {
  Arena arena(workspace), saved_arena(const_cast<void *>(saved_memory));
  Scratch<T> scratch(p, arena);
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  const Inputs<T> in = inputs_of<T>(p, scratch.coefficients);
  Adjoint<T> &a = scratch.adjoint;
  ImplicitSystem<T> &s = scratch.system;
  a.iterations = saved.iterations;
  a.status = saved.status;
  a.f = saved.volume_dual;
  a.final_v = s.q = p.tv ? saved.slot(saved.checkpoints) : nullptr;
  a.grad_features = static_cast<T *>(grads.features);
  s.grad_u = static_cast<const T *>(grad_u);
  const bool equality = p.volume == Volume::equality;
  const dim3 voxels(in.g.batch * in.g.chunks), images(in.g.batch), threads(kThreads);
  const auto queue = [&](const char *name, auto kernel, dim3 grid, auto... more) {
    launch(name, kernel, grid, threads, 0, stream, in, a, s, more...);
  };

  resolve_parameters<T>(p, scratch.coefficients, stream);
  adjoint_clear<T>(in, a, grads.accumulate, stream);
  adjoint_final_u<T>(in, a, stream);
  if (p.has_mask) launch("implicit_mask", mask_kernel<T>, voxels, threads, 0, stream, in, s);
  if (p.tv) queue("implicit_linearise", linearise_kernel<T>, voxels);
  queue("implicit_rhs", jacobian_kernel<T>, voxels, Right::incoming);
  queue("implicit_start", gradient_kernel<T>, voxels, true);
  queue("implicit_scalars", scalar_kernel<T>, images, equality, Phase::start);
  for (int k = 0; k < p.implicit_iterations; ++k) {
    queue("implicit_jacobian", jacobian_kernel<T>, voxels, Right::direction);
    queue("implicit_gradient", gradient_kernel<T>, voxels, false);
    queue("implicit_alpha", scalar_kernel<T>, images, equality, Phase::alpha);
    queue("implicit_update", update_kernel<T>, voxels);
    queue("implicit_end", scalar_kernel<T>, images, equality, Phase::end);
    if (p.tv) queue("implicit_direction", direction_kernel<T>, voxels);
  }
  queue("implicit_result", jacobian_kernel<T>, voxels, Right::result);
  queue("implicit_finish", finish_kernel<T>, voxels);
  queue("implicit_report", report_kernel<T>, images, equality, grads.info);
  const auto output = [](void *data) { return static_cast<T *>(data); };
  adjoint_outputs<T>(
      in, a,
      {output(grads.eps), nullptr, output(grads.tv_lam), nullptr, output(grads.tv_edge),
       output(grads.volume_lower), output(grads.volume_upper), grads.accumulate, true, false, 0},
      stream);
}

}  // namespace

size_t implicit_workspace(const Problem &p) {
  return with_type(p, [&](auto *type) {
    Arena arena;
    Scratch<std::remove_pointer_t<decltype(type)>>(p, arena);
    return arena.used();
  });
}

void backward_implicit(const Problem &p, const void *grad_u, const Grads &grads, void *workspace,
                       const void *saved, cudaStream_t stream) {
  with_type(p, [&](auto *type) {
    run<std::remove_pointer_t<decltype(type)>>(p, grad_u, grads, workspace, saved, stream);
  });
}

}  // namespace segprior::softmax::cuda
