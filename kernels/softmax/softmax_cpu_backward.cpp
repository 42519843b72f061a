// clang-format off
// Backward on the CPU: the exact adjoint of the unrolled iteration, image by image, three passes an iteration:
//   A  R = adjoint of u_t+1 = S(...) applied to grad_u = tau div grad_y;  sums of R over the voxels -> volume
//   B  R += adjoint of w, through which the masses saw o, v and f;  grad_features += R;  rebuild u_t from v_t
//   C  grad_y of y_t = v_t - tau grad u_t from R and the projection
// clang-format on
// R is the gradient of (o - div v + f). Iterates between checkpoints are recomputed; no reduction is
// repeated, because the volume duals and momenta of all iterations are stored. Derivation: softmax.md.
#include "kernels/softmax/softmax_cpu_backward.h"

namespace segprior::softmax {
namespace {

// Of problems that do not keep u: TV and volume.
template <class T>
class Backward : BackwardBase<T> {
 public:
  using BackwardBase<T>::BackwardBase;

  void run() {
    this->prepare();
    if (failed(saved_.status[b_])) return this->fill_failed();
    const int steps = saved_.iterations[b_];
    if (steps > 0) {
      rebuild_logits(iterate_at(steps), steps - 1);
      team_.barrier();
    }
    for (int t = steps - 1; t >= 0; --t) {
      if (p_.tv && (t == steps - 1 || (t + 1) % p_.checkpoint_interval == 0)) recompute_segment(t, steps);
      adjoint_of_u(t, t == steps - 1);
      adjoint_of_volume(t);
      u_ready_ = p_.tv;
      if (p_.tv) this->adjoint_of_dual(buffers_.u, iterate_at(t).v, beta(t), t + 1 < steps ? beta(t + 1) : 0);
    }
    adjoint_of_start(steps == 0);
    this->finish();
  }

 private:
  using Base = BackwardBase<T>;
  using Base::p_, Base::buffers_, Base::saved_, Base::team_, Base::b_, Base::image_, Base::sweep_,
      Base::grad_u_, Base::scalars_;
  using Base::params, Base::classes, Base::volume, Base::f, Base::mass_log, Base::beta, Base::total,
      Base::slot;

  // The iterate after t iterations, which the current segment holds.
  Iterate<T> iterate_at(int64_t t) const {
    if (t == saved_.iterations[b_]) return slot(saved_.checkpoints);
    const int64_t n = p_.checkpoint_interval;
    if (t % n == 0) return slot(t / n);
    return this->between(t % n - 1);
  }

  // Logits of the step that ended in iterate v_t+1: z = (o - div v_t+1 + f_t) / eps; for t = -1 those of the
  // start.
  void rebuild_logits(const Iterate<T> &iterate, int t) {
    const double eps = t < 0 ? params().init_eps : params().eps;
    if (team_.rank == 0) dual_shift(classes(), f(std::max(t, 0)), eps, buffers_.shift);
    team_.barrier();
    image_.for_rows(sweep_.begin(), sweep_.end(),
                    [&](int64_t s, int64_t r, int64_t offset) { logits_row(iterate, s, r, offset, eps); });
  }
  void logits_row(const Iterate<T> &iterate, int64_t s, int64_t r, int64_t offset, double eps) const {
    const DualRow<T> dual = p_.tv ? image_.dual_row(iterate.v, s, r, offset, sweep_.zeros()) : DualRow<T>{};
    image_.rows.logits(sweep_.shape(offset), image_.features + offset, p_.tv ? &dual : nullptr,
                       static_cast<T>(1 / eps), buffers_.shift, buffers_.logits + offset);
  }

  // Recomputes the iterates of t's segment that lie between checkpoints. Uses `u`; leaves `logits` alone.
  void recompute_segment(int t, int steps) {
    const int64_t n = p_.checkpoint_interval, first = t / n * n, last = std::min<int64_t>(first + n, steps);
    if (first + 1 < last) u_ready_ = false;
    for (int64_t k = first; k + 1 < last; ++k) {
      if (k == first) start_of_segment(k);
      if (team_.rank == 0) dual_shift(classes(), f(k + 1), params().eps, buffers_.shift);
      team_.barrier();
      sweep_.step(image_.features, buffers_.u, nullptr, iterate_at(k), iterate_at(k + 1), beta(k),
                  buffers_.shift, false);
      team_.barrier();
    }
  }

  // u <- u_k from the iterate k.
  void start_of_segment(int64_t k) {
    const double eps = k == 0 ? params().init_eps : params().eps;
    if (team_.rank == 0) dual_shift(classes(), f(k), eps, buffers_.shift);
    team_.barrier();
    const Iterate<T> iterate = iterate_at(k);
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      const DualRow<T> dual = image_.dual_row(iterate.v, s, r, offset, sweep_.zeros());
      T *u = buffers_.u + offset;
      image_.rows.logits(sweep_.shape(offset), image_.features + offset, &dual, static_cast<T>(1 / eps),
                         buffers_.shift, u);
      image_.rows.softmax(sweep_.shape(offset), u, T{1}, nullptr, u);
    });
    team_.barrier();
  }

  // Without TV only the last u reaches the loss: the earlier ones pass on through f alone.
  void adjoint_row(int64_t s, int64_t r, int64_t offset, bool from_loss, double eps) const {
    image_.rows.adjoint_softmax(this->softmax_row(s, r, offset, u_ready_ ? buffers_.u : nullptr,
                                                  from_loss ? grad_u_ : nullptr, !from_loss, eps));
  }

  // A: R from the gradient of u_t+1, and the volume adjoint from its sums.
  void adjoint_of_u(int t, bool last) {
    if (team_.rank == 0) {
      std::fill_n(buffers_.change, classes(), T{0});
      if (volume()) dual_change(classes(), f(t + 1), f(t), params().eps, buffers_.change);
    }
    team_.barrier();
    const bool reaches_loss = p_.tv || last;
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) this->clear_sums(s);
      if (reaches_loss)
        adjoint_row(s, r, offset, last, params().eps);
      else
        for (int i = 0; i < classes(); ++i)
          std::fill_n(buffers_.grad_logits + i * image_.voxels() + offset, image_.columns(), T{0});
    });
    team_.barrier();
    if (team_.rank != 0) return;
    this->adjoint_of_volume_step([&](int i, double lower, double upper) {
      const double mass = mass_log(t)[i];
      return VolumeState{volume_step(f(t)[i], mass, lower, upper, params().eps), mass};
    });
  }

  // B: the part of R that came through the masses, the features' gradient, and u_t for pass C.
  void adjoint_of_volume(int t) {
    const Iterate<T> iterate = iterate_at(t);
    const double eps = t == 0 ? params().init_eps : params().eps;
    team_.barrier();
    if (team_.rank == 0) {
      dual_shift(classes(), f(std::max(t - 1, 0)), eps, buffers_.shift);
      std::fill_n(buffers_.change, classes(), T{0});
      if (volume() && t > 0) dual_change(classes(), f(t), f(t - 1), eps, buffers_.change);
    }
    team_.barrier();
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) this->clear_sums(s);
      this->adjoint_of_masses(nullptr, s, offset);
      logits_row(iterate, s, r, offset, eps);
      if (p_.tv)
        image_.rows.softmax(sweep_.shape(offset), buffers_.logits + offset, T{1}, buffers_.change,
                            buffers_.u + offset);
    });
    team_.barrier();
    if (team_.rank == 0) this->finish_masses();
  }

  // u_0 = S((o - div q_0 + f_0) / eps0); pass B of t = 0 left its logits.
  void adjoint_of_start(bool only_step) {
    if (only_step) rebuild_logits(iterate_at(0), -1);
    team_.barrier();
    if (team_.rank == 0) std::fill_n(buffers_.change, classes(), T{0});
    team_.barrier();
    if (!p_.tv && !only_step) return;
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) this->clear_sums(s);
      adjoint_row(s, r, offset, only_step, params().init_eps);
      this->add_to_features(offset);
    });
    team_.barrier();
    if (team_.rank == 0) scalars_.init_eps = -total(buffers_.slice_eps);
  }

  bool u_ready_ = false;  // `u` holds the u of the coming pass A; the same on every thread
};

}  // namespace

template <class T>
size_t backward_workspace(const Problem &p, Mode mode, int threads) {
  Arena arena;
  BackwardWorkspace<T>::carve(p, mode, threads, 0, arena);
  return arena.used();
}

template <class T>
void backward_unrolled(const Problem &p, const void *grad_u, const Grads &grads, void *workspace,
                       const void *saved_memory, int threads) {
  Arena saved_arena(const_cast<void *>(saved_memory));
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  for_images(threads, p.grid.batch, [&](const Team &team, int team_index, int64_t b) {
    Arena arena(workspace);
    const BackwardWorkspace<T> mine =
        BackwardWorkspace<T>::carve(p, Mode::unrolled, threads, team_index, arena);
    Backward<T>(p, static_cast<const T *>(grad_u), grads, mine, saved, team, b).run();
  });
  Arena arena(workspace);
  finish_batch<T>(p, grads, BackwardWorkspace<T>::carve(p, Mode::unrolled, threads, 0, arena));
}

template size_t backward_workspace<float>(const Problem &, Mode, int);
template size_t backward_workspace<double>(const Problem &, Mode, int);
template void backward_unrolled<float>(const Problem &, const void *, const Grads &, void *, const void *,
                                       int);
template void backward_unrolled<double>(const Problem &, const void *, const Grads &, void *, const void *,
                                        int);

}  // namespace segprior::softmax
