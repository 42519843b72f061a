// Entropic softmax on CUDA: workspaces and the host loops. They only queue kernels: the progress of each
// image, and with it the decision to skip the rest of its iterations, stays on the device.
#include <algorithm>
#include <string>
#include <utility>

#include "kernels/common/cuda.h"
#include "kernels/softmax/softmax_cuda.h"
#include "kernels/softmax/softmax_cuda_chip.h"
#include "kernels/softmax/softmax_cuda_td_fused.h"
#include "kernels/softmax/softmax_stage.h"

namespace segprior::softmax::cuda {

namespace {

// ---- Forward ----

template <class T>
struct ForwardScratch {
  Coefficients *coefficients;
  Progress *progress;
  unsigned *tickets;
  double *partials, *restart, *residual, *volume_dual;
  Normaliser<T> *old_u, *new_u;
  T *duals;  // two iterates, unless every iterate is saved

  ForwardScratch(const Problem &p, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t chunks = ceil_div(g.voxels(), kThreads), sums = std::max(chunks, fused_partials(p));
    coefficients = arena.take<Coefficients>(1);
    progress = arena.take<Progress>(g.batch);
    tickets = arena.take<unsigned>(g.batch);
    partials = arena.take<double>(g.batch * std::max<int64_t>(g.classes, 3) * sums);
    restart = arena.take<double>(p.accelerate ? g.batch * sums : 0);
    residual = arena.take<double>(g.batch * chunks);
    const bool history = p.volume == Volume::none || p.checkpoint_interval > 0;
    volume_dual = arena.take<double>(history ? 0 : 2 * g.batch * g.classes);
    old_u = arena.take<Normaliser<T>>(g.batch * g.voxels());
    new_u = arena.take<Normaliser<T>>(g.batch * g.voxels());
    duals = arena.take<T>(p.checkpoint_interval == 1 ? 0 : 2 * parts_of(p) * dual_size(g));
  }
};

template <class T>
class Forward {
 public:
  Forward(const Problem &p, const Outputs &out, void *workspace, void *saved_memory, cudaStream_t stream)
      : p_(p),
        out_(out),
        stream_(stream),
        arena_(workspace),
        saved_arena_(saved_memory),
        scratch_(p, arena_),
        saved_(carve_saved<T>(p, saved_arena_)),
        in_(inputs_of<T>(p, scratch_.coefficients)) {
    iterates_ = {saved_.slots, scratch_.duals,        dual_size(p.grid),
                 parts_of(p),  p.checkpoint_interval, p.iterations};
    const bool history = p.checkpoint_interval > 0;
    f_ = {history ? saved_.volume_dual : scratch_.volume_dual, history ? p.iterations + 1 : 2, per_class()};
  }

  void run() {
    resolve_parameters<T>(p_, scratch_.coefficients, stream_);
    start<T>(in_,
             {static_cast<const T *>(p_.init_tv), static_cast<const T *>(p_.init_volume), iterates_.dual(0),
              f_.at(0), scratch_.partials, scratch_.progress, momentum_of_step(0), scratch_.tickets,
              p_.grid.inv_spacing_sum()},
             stream_);
    if (takes_chip(p_))
      run_on_chip();
    else
      for (int t = 0; t < p_.iterations; ++t) iterate(t);
    finish<T>(in_,
              {static_cast<T *>(out_.u), static_cast<T *>(out_.tv_dual), static_cast<T *>(out_.volume_dual),
               out_.info, saved_.iterations, saved_.status, iterates_, f_, scratch_.progress},
              stream_);
  }

 private:
  int64_t per_class() const { return p_.grid.batch * p_.grid.classes; }
  double *momentum_of_step(int t) const {
    return saved_.momentum && t < p_.iterations ? saved_.momentum + t * p_.grid.batch : nullptr;
  }

  void run_on_chip() {
    const Chip<T> chip{iterates_,
                       f_,
                       saved_.log_mass,
                       saved_.momentum,
                       scratch_.progress,
                       nullptr,
                       0,
                       nullptr,
                       p_.tolerance > 0 ? p_.check_interval : 0,
                       p_.tolerance > 0 || out_.info,
                       p_.tolerance};
    chip_iterations<T>(p_.grid, in_, chip, chip_plan(p_, shared_memory_per_block()), stream_);
  }

  void iterate(int t) {
    const Gate gate{scratch_.progress, nullptr, nullptr, t};
    const Step<T> step{gate,
                       t,
                       iterates_.dual(t),
                       iterates_.dual(t + 1),
                       f_.at(t),
                       f_.at(t + 1),
                       saved_.log_mass ? saved_.log_mass + t * per_class() : nullptr,
                       scratch_.partials};
    const int64_t fused = fused_partials(p_);
    const bool check = takes_residual(p_, out_.info, t);
    const Finish end{scratch_.progress,
                     momentum_of_step(t + 1),
                     scratch_.restart,
                     check ? scratch_.residual : nullptr,
                     fused > 0 ? fused : in_.g.chunks,
                     in_.g.chunks,
                     t,
                     p_.iterations,
                     p_.accelerate,
                     p_.tolerance};
    if (fused > 0) {
      fused_step<T>(p_.grid, in_, step, end, !check, scratch_.tickets, stream_);
    } else {
      if (p_.tv) {
        normalise<T>(in_, gate, t, step.from.v, step.f, scratch_.old_u, stream_);
        update_dual<T>(in_, step, scratch_.old_u, scratch_.restart, stream_);
      }
      if (in_.has_volume) update_volume<T>(in_, step, stream_);
    }
    if (check) {
      if (fused > 0 || !p_.tv) normalise<T>(in_, gate, t, step.from.v, step.f, scratch_.old_u, stream_);
      normalise<T>(in_, gate, t + 1, step.to.v, step.f_next, scratch_.new_u, stream_);
      residual<T>(in_, step, scratch_.old_u, scratch_.new_u, scratch_.residual, stream_);
    }
    if (check || fused == 0) advance_images<T>(in_, end, stream_);
  }

  const Problem &p_;
  const Outputs &out_;
  const cudaStream_t stream_;
  Arena arena_, saved_arena_;
  const ForwardScratch<T> scratch_;
  const Saved<T> saved_;
  const Inputs<T> in_;
  Iterates<T> iterates_;
  VolumeDuals f_;
};

// ---- Backward ----

template <class T>
struct BackwardScratch {
  Coefficients *coefficients;
  Adjoint<T> adjoint{};
  // Iterates between two checkpoints, recomputed; q only of the last two.
  T *v, *q;
  Normaliser<T> *normalisers;

  BackwardScratch(const Problem &p, Arena &arena) {
    const Grid &g = p.grid;
    coefficients = arena.take<Coefficients>(1);
    v = q = nullptr;
    normalisers = nullptr;
    if (p.checkpoint_interval == 0) return;  // only Mode::last
    const int64_t scalars = g.batch * g.classes * g.voxels(), chunks = ceil_div(g.voxels(), kThreads);
    const int64_t per_class = p.volume == Volume::none ? 0 : g.batch * g.classes;
    adjoint.u = arena.take<T>(scalars);
    adjoint.fused = fused_partials(p);
    adjoint.grad_logits = arena.take<T>(adjoint.fused > 0 ? 0 : scalars);
    adjoint.fused_mass = arena.take<double>(per_class * adjoint.fused);
    adjoint.fused_scalars = arena.take<double>(g.batch * kScalars * adjoint.fused);
    adjoint.scalar_partials = arena.take<double>(g.batch * kScalars * chunks);
    adjoint.mass_partials = arena.take<double>(per_class * chunks);
    for (double **sums :
         {&adjoint.f_bar, &adjoint.w_bar, &adjoint.lower_bar, &adjoint.upper_bar, &adjoint.eps_bar})
      *sums = arena.take<double>(per_class);
    if (!p.tv) return;
    adjoint.grad_y = arena.take<T>(dual_size(g));
    adjoint.grad_v = arena.take<T>(p.accelerate ? dual_size(g) : 0);
    adjoint.next_grad_y = arena.take<T>(adjoint.fused > 0 ? dual_size(g) : 0);
    adjoint.next_grad_v = arena.take<T>(adjoint.fused > 0 && p.accelerate ? dual_size(g) : 0);
    adjoint.grad_bound = arena.take<T>(g.batch * g.voxels());
    const int64_t between = std::min(p.checkpoint_interval, p.iterations) - 1;
    if (between < 1) return;
    v = arena.take<T>(dual_size(g), between);
    q = arena.take<T>(p.accelerate && between > 1 ? 2 * dual_size(g) : 0);
    normalisers = arena.take<Normaliser<T>>(g.batch * g.voxels());
  }
};

template <class T>
class Backward {
 public:
  Backward(const Problem &p, const T *grad_u, const Grads &grads, void *workspace, const void *saved_memory,
           cudaStream_t stream)
      : p_(p),
        grads_(grads),
        stream_(stream),
        arena_(workspace),
        saved_arena_(const_cast<void *>(saved_memory)),
        scratch_(p, arena_),
        saved_(carve_saved<T>(p, saved_arena_)),
        in_(inputs_of<T>(p, scratch_.coefficients)),
        adjoint_(scratch_.adjoint) {
    adjoint_.iterations = saved_.iterations;
    adjoint_.status = saved_.status;
    adjoint_.f = saved_.volume_dual;
    adjoint_.log_mass = saved_.log_mass;
    adjoint_.momentum = saved_.momentum;
    adjoint_.final_v = p.tv ? saved_.slot(saved_.checkpoints) : nullptr;
    adjoint_.grad_u = grad_u;
    adjoint_.grad_features = static_cast<T *>(grads.features);
    if (!grads.tv_lam && !grads.tv_edge) adjoint_.grad_bound = nullptr;
  }

  void run() {
    resolve_parameters<T>(p_, scratch_.coefficients, stream_);
    adjoint_clear<T>(in_, adjoint_, grads_.accumulate, stream_);
    adjoint_final_u<T>(in_, adjoint_, stream_);
    if (adjoint_.fused > 0) adjoint_end<T>(in_, adjoint_, stream_);
    const int n = p_.checkpoint_interval;
    for (int64_t k = saved_.checkpoints - 1; k >= 0; --k) {
      const int begin = static_cast<int>(k * n), end = std::min(begin + n, p_.iterations);
      for (int t = begin; p_.tv && t + 1 < end; ++t) recompute(t);
      for (int t = end - 1; t >= begin; --t) step_back(t);
    }
    adjoint_start<T>(in_, adjoint_, stream_);
    const auto output = [](void *data) { return static_cast<T *>(data); };
    adjoint_outputs<T>(
        in_, adjoint_,
        {output(grads_.eps), output(grads_.init_eps), output(grads_.tv_lam), output(grads_.tv_tau),
         output(grads_.tv_edge), output(grads_.volume_lower), output(grads_.volume_upper), grads_.accumulate,
         p_.init_eps > 0, p_.tv && p_.default_tau(), step_rule(p_).tau_slope()},
        stream_);
  }

 private:
  // v after t iterations, in images that did more than t.
  T *v_at(int t) const {
    if (!p_.tv) return nullptr;
    const int n = p_.checkpoint_interval;
    return t % n == 0 ? saved_.slot(t / n) : scratch_.v + (t % n - 1) * dual_size(p_.grid);
  }
  T *q_at(int t) const {
    if (!p_.accelerate) return nullptr;
    if (t % p_.checkpoint_interval == 0) return saved_.slot(t / p_.checkpoint_interval, 1);
    return scratch_.q ? scratch_.q + t % 2 * dual_size(p_.grid) : nullptr;
  }

  void step_back(int t) {
    if (adjoint_.fused == 0) {
      adjoint_step<T>(in_, adjoint_, t, v_at(t), v_at(t + 1), stream_);
      return;
    }
    if (in_.has_volume) adjoint_volume<T>(in_, adjoint_, t, stream_);
    fused_adjoint_step<T>(p_.grid, in_, adjoint_, t, v_at(t), v_at(t + 1), stream_);
    std::swap(adjoint_.grad_y, adjoint_.next_grad_y);
    std::swap(adjoint_.grad_v, adjoint_.next_grad_v);
  }

  // Iterate t + 1 from iterate t, both inside a segment.
  void recompute(int t) {
    const Gate gate{nullptr, saved_.iterations, saved_.momentum, t};
    const double *f = saved_.volume_dual ? saved_.volume_dual + t * p_.grid.batch * p_.grid.classes : nullptr;
    const Step<T> step{gate, t, {v_at(t), q_at(t)}, {v_at(t + 1), q_at(t + 1)}, f, nullptr, nullptr, nullptr};
    normalise<T>(in_, gate, t, step.from.v, f, scratch_.normalisers, stream_);
    update_dual<T>(in_, step, scratch_.normalisers, nullptr, stream_);
  }

  const Problem &p_;
  const Grads &grads_;
  const cudaStream_t stream_;
  Arena arena_, saved_arena_;
  const BackwardScratch<T> scratch_;
  const Saved<T> saved_;
  const Inputs<T> in_;
  Adjoint<T> adjoint_;
};

template <class T>
void backward_last(const Problem &p, const T *u, const T *grad_u, const Grads &grads, cudaStream_t stream) {
  if (grads.features)
    last_softmax<T>(geometry_of<T>(p.grid), last_eps(p), u, grad_u, static_cast<T *>(grads.features),
                    grads.accumulate, stream);
}

// ---- The backend ----

bool empty(const Problem &p) { return p.grid.batch == 0 || p.grid.voxels() == 0; }

// Which kernels serve a problem: those of softmax_cuda_mixed.h, or those of TV and volume alone.
bool is_mixed(const Problem &p) { return p.keeps_u() || p.has_mask; }

size_t forward_workspace(const Problem &p, int) {
  takes_chip(p);  // a demand for it that cannot be met shows here, before anything is queued
  if (td_fused_serves(p)) return td_fused_workspace(p);
  if (is_mixed(p)) return mixed_forward_workspace(p);
  return with_type(p, [&](auto *type) {
    Arena arena;
    ForwardScratch<std::remove_pointer_t<decltype(type)>>(p, arena);
    return arena.used();
  });
}

size_t backward_workspace(const Problem &p, Mode mode, int) {
  if (mode == Mode::last) return 0;
  if (mode == Mode::implicit && symmetric_implicit(p)) return implicit_workspace(p);
  if (is_mixed(p)) return mixed_backward_workspace(p, mode);
  return with_type(p, [&](auto *type) {
    Arena arena;
    BackwardScratch<std::remove_pointer_t<decltype(type)>>(p, arena);
    return arena.used();
  });
}

void forward(const Problem &p, const Outputs &out, void *workspace, void *saved, int, void *stream) {
  if (empty(p)) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (td_fused_serves(p)) return td_fused_forward(p, out, workspace, saved, queue);
  if (is_mixed(p)) return mixed_forward(p, out, workspace, saved, queue);
  with_type(p, [&](auto *type) {
    Forward<std::remove_pointer_t<decltype(type)>>(p, out, workspace, saved, queue).run();
  });
}

void backward(const Problem &p, Mode mode, const void *u, const void *grad_u, const Grads &grads,
              void *workspace, const void *saved, int, void *stream) {
  if (empty(p)) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (mode == Mode::implicit && symmetric_implicit(p))
    return backward_implicit(p, grad_u, grads, workspace, saved, queue);
  if (mode != Mode::last && is_mixed(p))
    return mixed_backward(p, mode, grad_u, grads, workspace, saved, queue);
  with_type(p, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T *grad = static_cast<const T *>(grad_u);
    if (mode == Mode::last)
      backward_last(p, static_cast<const T *>(u), grad, grads, queue);
    else
      Backward<T>(p, grad, grads, workspace, saved, queue).run();
  });
}

void pack_saved(const Problem &p, const void *full, void *compact, int, void *stream) {
  with_type(p, [&](auto *type) {
    pack<std::remove_pointer_t<decltype(type)>>(p, full, compact, static_cast<cudaStream_t>(stream));
  });
}
void unpack_saved(const Problem &p, const void *compact, void *full, int, void *stream) {
  with_type(p, [&](auto *type) {
    unpack<std::remove_pointer_t<decltype(type)>>(p, compact, full, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace

}  // namespace segprior::softmax::cuda

namespace segprior::softmax {

const Backend kCuda{
    cuda::forward_workspace, cuda::backward_workspace, cuda::forward, cuda::backward, cuda::load, cuda::store,
    cuda::pack_saved,        cuda::unpack_saved};

}  // namespace segprior::softmax
