// Entropic softmax on CUDA, the mixed path: workspaces and host loops of backward.
//
// Kernels an iteration, besides those that recompute an iterate: softmax 1, volume 3 (and the forces again,
// whose logits w needs), TV 1, threshold dynamics nd (a Gaussian) or 1, stars 2. Gradients of the Gaussian's
// width cost nd correlations more, those of the edge weight 1, those of a given kernel one block per tap.
//
// The implicit backward is the frozen adjoint iteration: the unrolled backward with every iterate equal to
// the final one, and a momentum of its own when accelerated (AdjointMomentum). Its features' gradient is a
// series, one term a pass; an image stops when the largest entry of a term is below the tolerance times that
// of the first one.
#include <algorithm>
#include <utility>

#include "kernels/softmax/softmax_cuda_chip.h"
#include "kernels/softmax/softmax_cuda_mixed.h"
#include "kernels/softmax/softmax_cuda_td_adjoint.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
struct BackwardScratch {
  Mixed<T> mixed;
  MixedAdjoint<T> adjoint{};
  // Iterates between two checkpoints, recomputed; the feasible duals only of the last one.
  T *v = nullptr, *q = nullptr, *star_v = nullptr, *star_g = nullptr, *u = nullptr;
  Passes passes{};
  TdPlan td_plan{};  // of the fused adjoint of threshold dynamics; no tiles: it does not serve the problem
  double *td_sums = nullptr;

  BackwardScratch(const Problem &p, Mode mode, Arena &arena) : mixed(carve_mixed<T>(p, arena)) {
    const Grid &g = p.grid;
    const bool frozen = mode == Mode::implicit, momentum = p.accelerate;
    const int64_t field = g.batch * g.classes * g.voxels(), chunks = mixed.in.g.chunks;
    const int64_t per_class = p.volume == Volume::none ? 0 : g.batch * g.classes;
    const int64_t between = frozen ? 0 : std::max(std::min(p.checkpoint_interval, p.iterations) - 1, 0);
    Adjoint<T> &a = adjoint.base;
    a.u = arena.take<T>(p.keeps_u() ? 0 : field);
    a.grad_logits = arena.take<T>(field);
    a.scalar_partials = arena.take<double>(g.batch * kScalars * chunks);
    a.mass_partials = arena.take<double>(per_class * chunks);
    for (double **sums : {&a.f_bar, &a.w_bar, &a.lower_bar, &a.upper_bar, &a.eps_bar})
      *sums = arena.take<double>(per_class);
    if (p.tv) {
      a.grad_y = arena.take<T>(dual_size(g));
      a.grad_v = arena.take<T>(momentum ? dual_size(g) : 0);
      a.grad_bound = arena.take<T>(g.batch * g.voxels());
      v = arena.take<T>(dual_size(g), between);
      q = arena.take<T>(momentum && between > 1 ? dual_size(g) : 0);
    }
    if (p.keeps_u()) {
      const bool logits = !frozen && p.volume != Volume::none;
      adjoint.force = arena.take<T>(logits || between > 0 ? field : 0);
      adjoint.grad_field = arena.take<T>(field);
      u = arena.take<T>(field, between);
    }
    if (p.td.on) {
      if (!frozen) td_plan = td_adjoint_plan(p, shared_memory_per_block());
      td_sums = arena.take<double>(2 * g.batch * td_plan.tiles());
      adjoint.td_partials = arena.take<double>(2 * g.batch * g.classes * chunks);
      adjoint.td_edge = arena.take<T>(p.td.has_edge ? g.batch * g.voxels() : 0);
      adjoint.td_kernel = arena.take<double>(p.td.gaussian ? 0 : g.batch * g.classes * p.td.taps());
    }
    if (p.star.count > 0) {
      adjoint.star_grad_y = arena.take<T>(p.star_size());
      adjoint.star_grad_v = arena.take<T>(momentum ? p.star_size() : 0);
      adjoint.star_partials = arena.take<double>(g.batch * p.star.count * (1 + g.nd) * chunks);
      adjoint.star_tau_sums = arena.take<double>(p.star.count);
      star_v = arena.take<T>(p.star_size(), between);
      star_g = arena.take<T>(momentum && between > 1 ? p.star_size() : 0);
    }
    if (!frozen) return;
    adjoint.change = arena.take<double>(g.batch * chunks);
    adjoint.r_sum = arena.take<T>(field);
    passes.momentum = arena.take<AdjointMomentum>(momentum ? g.batch : 0);
    passes.running = arena.take<int32_t>(g.batch);
    passes.done = arena.take<int32_t>(g.batch);
    passes.first = arena.take<double>(g.batch);
    passes.residual = arena.take<double>(g.batch);
    passes.f = arena.take<double>(per_class);
    passes.log_mass = arena.take<double>(per_class);
  }
};

template <class T>
class Backward {
 public:
  Backward(const Problem &p, Mode mode, const T *grad_u, const Grads &grads, void *workspace,
           const void *saved_memory, cudaStream_t stream)
      : p_(p),
        grads_(grads),
        frozen_(mode == Mode::implicit),
        stream_(stream),
        arena_(workspace),
        saved_arena_(const_cast<void *>(saved_memory)),
        scratch_(p, mode, arena_),
        saved_(carve_saved<T>(p, saved_arena_)),
        m_(scratch_.mixed),
        a_(scratch_.adjoint) {
    const int64_t last = saved_.checkpoints;
    Adjoint<T> &base = a_.base;
    base.iterations = saved_.iterations;
    base.status = saved_.status;
    base.f = saved_.volume_dual;
    base.log_mass = saved_.log_mass;
    base.momentum = saved_.momentum;
    base.final_v = p.tv ? saved_.slot(last) : nullptr;
    base.grad_u = grad_u;
    base.grad_features = static_cast<T *>(grads.features);
    if (!grads.tv_lam && !grads.tv_edge) base.grad_bound = nullptr;
    a_.frozen = frozen_;
    a_.final_u = p.keeps_u() ? saved_.u_slot(last) : base.u;
    a_.final_star_v = p.star.count > 0 ? saved_.star_slot(last) : nullptr;
    if (!grads.td_edge) a_.td_edge = nullptr;
    if (!grads.td_kernel) a_.td_kernel = nullptr;
    a_.want_sigma = grads.td_sigma != nullptr;
    fused_ = scratch_.td_plan.tiles() > 0 && !a_.want_sigma;
  }

  void run() {
    resolve_parameters<T>(p_, m_.coefficients, stream_);
    MixedCall<T>::prepare(m_, stream_);
    adjoint_clear(m_.in, a_.base, grads_.accumulate, stream_);
    MixedGrads<T>::clear(m_, a_, stream_);
    if (frozen_)
      passes();
    else
      unrolled();
    const auto output = [](void *data) { return static_cast<T *>(data); };
    const StepRule rule = step_rule(p_);
    adjoint_outputs<T>(
        m_.in, a_.base,
        {output(grads_.eps), output(grads_.init_eps), output(grads_.tv_lam), output(grads_.tv_tau),
         output(grads_.tv_edge), output(grads_.volume_lower), output(grads_.volume_upper), grads_.accumulate,
         p_.init_eps > 0, !frozen_ && p_.tv && p_.default_tau(), rule.tau_slope()},
        stream_);
    if (p_.keeps_u())
      MixedGrads<T>::outputs(m_, a_,
                             {grads_.eps, grads_.td_lam, grads_.td_sigma, grads_.td_kernel, grads_.td_edge,
                              grads_.star_tau, grads_.star_center, grads_.accumulate,
                              !frozen_ && p_.star.count > 0 && p_.star.default_tau(), p_.td.edge_shared},
                             stream_);
  }

 private:
  int64_t field_size() const { return p_.grid.batch * p_.grid.classes * p_.grid.voxels(); }

  // Iterate t, 0 <= t < iterations: a slot, or recomputed. Valid in images that did more than t.
  bool in_slot(int t) const { return t % p_.checkpoint_interval == 0; }
  int slot_of(int t) const { return t / p_.checkpoint_interval; }
  int64_t between(int t) const { return t % p_.checkpoint_interval - 1; }
  T *v_at(int t) const {
    if (!p_.tv) return nullptr;
    return in_slot(t) ? saved_.slot(slot_of(t)) : scratch_.v + between(t) * dual_size(p_.grid);
  }
  T *star_at(int t) const {
    if (p_.star.count == 0) return nullptr;
    return in_slot(t) ? saved_.star_slot(slot_of(t)) : scratch_.star_v + between(t) * p_.star_size();
  }
  T *u_at(int t) const {
    if (!p_.keeps_u()) return a_.base.u;
    return in_slot(t) ? saved_.u_slot(slot_of(t)) : scratch_.u + between(t) * field_size();
  }
  Dual<T> dual_at(int t) const {
    if (!p_.tv || !p_.accelerate) return {v_at(t), nullptr};
    return {v_at(t), in_slot(t) ? saved_.slot(slot_of(t), 1) : scratch_.q};
  }
  Dual<T> star_dual_at(int t) const {
    if (p_.star.count == 0 || !p_.accelerate) return {star_at(t), nullptr};
    return {star_at(t), in_slot(t) ? saved_.star_slot(slot_of(t), 1) : scratch_.star_g};
  }
  double *f_at(int t) const {
    return saved_.volume_dual ? saved_.volume_dual + t * p_.grid.batch * p_.grid.classes : nullptr;
  }
  Gate gate_of(int t) const { return {nullptr, saved_.iterations, saved_.momentum, t}; }

  void unrolled() {
    if (!p_.keeps_u()) MixedAdjoints<T>::final_u(m_, a_, stream_);
    const int n = p_.checkpoint_interval;
    for (int64_t k = saved_.checkpoints - 1; k >= 0; --k) {
      const int begin = static_cast<int>(k * n), end = std::min(begin + n, p_.iterations);
      for (int t = begin; t + 1 < end; ++t) recompute(t);
      for (int t = end - 1; t >= begin; --t) step_back(t);
    }
    if (fused_)
      td_adjoint_collect(m_.in, td_adjoint(), scratch_.td_plan,
                         a_.base.scalar_partials + kEpsSum * m_.in.g.chunks, kScalars * m_.in.g.chunks,
                         a_.td_partials, 2 * m_.in.g.classes * m_.in.g.chunks, stream_);
    a_.t = -1;
    a_.u_next = u_at(0);
    MixedAdjoints<T>::softmax(m_, a_, true, stream_);
    a_.star_v = star_at(0);
    if (p_.star.count > 0 && p_.star.has_init) MixedStars<T>::adjoint_start(m_, a_, stream_);
  }

  // u_t from the duals, where it is not kept.
  void u_of_duals(int t, T *u) {
    MixedSteps<T>::softmax(m_, {gate_of(t), false, t == 0, nullptr, v_at(t), f_at(t), u, nullptr, nullptr},
                           stream_);
  }

  // Iterate t + 1 from iterate t, both inside a segment.
  void recompute(int t) {
    T *u = u_at(t);
    if (!p_.keeps_u()) {
      if (!p_.tv) return;
      u = a_.base.grad_logits;  // not in use between the steps
      u_of_duals(t, u);
    }
    const Step<T> base{gate_of(t), t, dual_at(t), dual_at(t + 1), f_at(t), nullptr, nullptr, nullptr};
    MixedSteps<T>::forces(m_, {base, u, star_dual_at(t), star_dual_at(t + 1), a_.force, nullptr}, stream_);
    if (p_.keeps_u())
      MixedSteps<T>::softmax(
          m_, {gate_of(t), false, false, a_.force, base.to.v, f_at(t + 1), u_at(t + 1), nullptr, nullptr},
          stream_);
  }

  void step_back(int t) {
    a_.t = t;
    a_.gate = gate_of(t);
    const bool next = t + 1 < p_.iterations;  // else every image that is active ends here
    a_.u_next = next ? u_at(t + 1) : a_.final_u;
    a_.v_next = next ? v_at(t + 1) : a_.base.final_v;
    a_.star_v_next = next ? star_at(t + 1) : a_.final_star_v;
    a_.u = u_at(t);
    a_.v = v_at(t);
    a_.star_v = star_at(t);
    a_.f = f_at(t);
    if (fused_) {
      td_adjoint_step(m_.in, td_adjoint(), scratch_.td_plan, stream_);
      std::swap(a_.grad_field, a_.base.grad_logits);
      return;
    }
    MixedAdjoints<T>::softmax(m_, a_, false, stream_);
    if (!p_.keeps_u()) u_of_duals(t, a_.base.u);
    if (m_.in.has_volume) {
      if (m_.td.on) MixedThreshold<T>::force(m_, a_.gate, a_.u, a_.force, stream_);
      if (m_.star.count > 0)
        MixedStars<T>::force(
            m_, {a_.gate, false, a_.star_v_next, a_.final_star_v, saved_.iterations, t, a_.force}, stream_);
      MixedAdjoints<T>::volume(m_, a_, stream_);
    }
    adjoint_of_duals();
    if (m_.td.on) MixedThreshold<T>::parameters(m_, a_, stream_);
  }

  // The fused adjoint keeps no R: its two buffers are those of R and of the gradient of u.
  TdAdjoint<T> td_adjoint() const {
    const int *size = p_.td.size;
    return {saved_.iterations,
            a_.t,
            a_.u,
            a_.u_next,
            a_.final_u,
            a_.base.grad_u,
            a_.grad_field,
            a_.base.grad_logits,
            a_.base.grad_features,
            m_.td.axis_taps,
            {size[0], size[1], size[2]},
            scratch_.td_sums};
  }

  void adjoint_of_duals() {
    if (m_.in.tv) MixedAdjoints<T>::dual(m_, a_, stream_);
    if (m_.td.on) MixedThreshold<T>::adjoint(m_, a_, stream_);
    if (m_.star.count > 0) MixedStars<T>::adjoint(m_, a_, stream_);
  }

  void passes() {
    Passes passes = scratch_.passes;
    passes.history = saved_.volume_dual;
    passes.iterations = saved_.iterations;
    MixedGrads<T>::begin_passes(m_, a_, passes, stream_);
    a_.gate = {nullptr, passes.running, nullptr, 0};
    a_.base.iterations = passes.running;
    a_.base.f = a_.f = passes.f;
    a_.base.log_mass = passes.log_mass;
    a_.u = a_.u_next = a_.final_u;
    a_.v = a_.v_next = a_.base.final_v;
    a_.star_v = a_.star_v_next = a_.final_star_v;
    a_.pass_momentum = passes.momentum;
    for (a_.t = 0; a_.t < p_.implicit_iterations; ++a_.t) {
      MixedAdjoints<T>::softmax(m_, a_, false, stream_);
      if (m_.in.has_volume) MixedAdjoints<T>::volume(m_, a_, stream_);
      adjoint_of_duals();
      MixedGrads<T>::end_pass(m_, a_, passes, p_.implicit_tolerance, stream_);
    }
    // The parameters of threshold dynamics are linear in R, as u stays the same.
    a_.gate.iterations = passes.done;
    a_.base.grad_logits = a_.r_sum;
    if (m_.td.on) MixedThreshold<T>::parameters(m_, a_, stream_);
    if (grads_.info) MixedGrads<T>::report(m_, a_, passes, p_.implicit_tolerance, grads_.info, stream_);
  }

  const Problem &p_;
  const Grads &grads_;
  const bool frozen_;
  const cudaStream_t stream_;
  Arena arena_, saved_arena_;
  const BackwardScratch<T> scratch_;
  const Saved<T> saved_;
  const Mixed<T> &m_;
  MixedAdjoint<T> a_;
  bool fused_ = false;
};

}  // namespace

size_t mixed_backward_workspace(const Problem &p, Mode mode) {
  if (p.checkpoint_interval == 0) return 0;  // only Mode::last
  return with_type(p, [&](auto *type) {
    Arena arena;
    BackwardScratch<std::remove_pointer_t<decltype(type)>>(p, mode, arena);
    return arena.used();
  });
}

void mixed_backward(const Problem &p, Mode mode, const void *grad_u, const Grads &grads, void *workspace,
                    const void *saved, cudaStream_t stream) {
  with_type(p, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Backward<T>(p, mode, static_cast<const T *>(grad_u), grads, workspace, saved, stream).run();
  });
}

}  // namespace segprior::softmax::cuda
