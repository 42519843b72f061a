// clang-format off
// Backward on the CPU: the exact adjoint of the unrolled iteration, image by image, three passes an iteration:
//   A  R = adjoint of u_t+1 = S(...) applied to grad_u = tau div grad_y;  sums of R over the voxels -> volume
//   B  R += adjoint of w, through which the masses saw o, v and f;  grad_features += R;  rebuild u_t from v_t
//   C  grad_y of y_t = v_t - tau grad u_t from R and the projection
// clang-format on
// R is the gradient of (o - div v + f). Iterates between checkpoints are recomputed; no reduction is
// repeated, because the volume duals and momenta of all iterations are stored. Derivation: softmax.md.
#include <algorithm>

#include "kernels/softmax/softmax_cpu_grads.h"

namespace segprior::softmax {
namespace {

template <class T>
class Backward {
 public:
  Backward(const Problem &p, const T *grad_u, const Grads &grads, const BackwardWorkspace<T> &workspace,
           const Saved<T> &saved, const Team &team, int64_t b)
      : p_(p),
        grads_(grads),
        buffers_(workspace.mine),
        saved_(saved),
        team_(team),
        b_(b),
        image_(p, b),
        sweep_(image_, *buffers_.params, buffers_.sweep, team),
        grad_u_(grad_u + b * image_.plane()),
        grad_features_(grads.features ? static_cast<T *>(grads.features) + b * image_.plane() : nullptr),
        grad_bound_(p.tv ? workspace.grad_bound + b * image_.voxels() : nullptr),
        scalars_(workspace.scalars[b]) {}

  void run() {
    prepare();
    if (failed(saved_.status[b_])) return fill_failed();
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
      if (p_.tv) adjoint_of_dual(t);
    }
    adjoint_of_start(steps == 0);
    finish();
  }

 private:
  const Params &params() const { return *buffers_.params; }
  int classes() const { return image_.classes(); }
  bool volume() const { return p_.volume != Volume::none; }
  const double *f(int64_t t) const {
    return volume() ? saved_.volume_dual + (t * p_.grid.batch + b_) * classes() : nullptr;
  }
  const double *mass_log(int64_t t) const { return saved_.log_mass + (t * p_.grid.batch + b_) * classes(); }
  double beta(int64_t t) const { return p_.accelerate ? saved_.momentum[t * p_.grid.batch + b_] : 0; }
  bool wants_eps() const { return grads_.eps || grads_.init_eps; }

  void prepare() {
    if (team_.rank == 0) {
      *buffers_.params = read_params<T>(p_);
      scalars_ = {};
      std::fill_n(buffers_.grad_f, classes(), 0.0);
      std::fill_n(buffers_.sweep.zeros, image_.columns(), T{0});
    }
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    const int64_t n = (sweep_.end() - sweep_.begin()) * size;
    const auto clear = [&](T *field, int64_t planes) {
      for (int64_t i = 0; i < planes; ++i) std::fill_n(field + i * image_.voxels() + begin, n, T{0});
    };
    if (grad_features_ && !grads_.accumulate) clear(grad_features_, classes());
    if (p_.tv) {
      clear(grad_bound_, 1);
      clear(buffers_.grad_y, classes() * p_.grid.nd);
      if (p_.accelerate) clear(buffers_.grad_v, classes() * p_.grid.nd);
    }
    team_.barrier();
  }

  void fill_failed() {
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    const int64_t n = (sweep_.end() - sweep_.begin()) * size;
    const T nan = static_cast<T>(NAN);
    for (int64_t i = 0; grad_features_ && i < classes(); ++i)
      std::fill_n(grad_features_ + i * image_.voxels() + begin, n, nan);
    if (p_.tv) std::fill_n(grad_bound_ + begin, n, nan);
    if (team_.rank != 0) return;
    scalars_ = {NAN, NAN, NAN, NAN};
    for (void *grad : {grads_.volume_lower, grads_.volume_upper})
      if (grad) std::fill_n(static_cast<T *>(grad) + b_ * classes(), classes(), nan);
  }

  Iterate<T> slot(int64_t k) const {
    const int64_t offset = b_ * image_.dual_size();
    return {saved_.slot(k) + offset, p_.accelerate ? saved_.slot(k, 1) + offset : nullptr};
  }
  // The iterate after t iterations, which the current segment holds.
  Iterate<T> iterate_at(int64_t t) const {
    if (!p_.tv) return {nullptr, nullptr};
    if (t == saved_.iterations[b_]) return slot(saved_.checkpoints);
    const int64_t n = p_.checkpoint_interval;
    if (t % n == 0) return slot(t / n);
    const int64_t offset = (t % n - 1) * image_.dual_size();
    return {buffers_.between.v + offset, p_.accelerate ? buffers_.between.q + offset : nullptr};
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
    image_.rows.logits(sweep_.shape(), image_.features + offset, p_.tv ? &dual : nullptr,
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
      sweep_.step(buffers_.u, nullptr, iterate_at(k), iterate_at(k + 1), beta(k), buffers_.shift, false);
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
      image_.rows.logits(sweep_.shape(), image_.features + offset, &dual, static_cast<T>(1 / eps),
                         buffers_.shift, u);
      image_.rows.softmax(sweep_.shape(), u, T{1}, nullptr, u);
    });
    team_.barrier();
  }

  AdjointSoftmaxRow<T> softmax_row(int64_t s, int64_t r, int64_t offset, bool from_loss, double eps) const {
    AdjointSoftmaxRow<T> row{};
    row.shape = sweep_.shape();
    row.u = u_ready_ ? buffers_.u + offset : nullptr;
    row.logits = buffers_.logits + offset;
    row.shift = buffers_.change;
    // Without TV only the last u reaches the loss: the earlier ones pass on through f alone.
    row.grad_u = from_loss ? grad_u_ + offset : nullptr;
    if (!from_loss) row.dual = image_.dual_row(buffers_.grad_y, s, r, offset, sweep_.zeros());
    row.tau = static_cast<T>(params().tau);
    row.inv_eps = static_cast<T>(1 / eps);
    row.grad_logits = buffers_.grad_logits + offset;
    row.sum = buffers_.sums + s * classes();
    row.log_u = wants_eps() ? buffers_.slice_eps + s : nullptr;
    return row;
  }

  void clear_sums(int64_t slice) const {
    std::fill_n(buffers_.sums + slice * classes(), classes(), 0.0);
    buffers_.slice_eps[slice] = 0;
  }
  double total(const double *per_slice, int64_t stride = 1) const {
    double sum = 0;
    for (int64_t s = 0; s < image_.slices(); ++s) sum += per_slice[s * stride];
    return sum;
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
      if (r == 0) clear_sums(s);
      if (reaches_loss)
        image_.rows.adjoint_softmax(softmax_row(s, r, offset, last, params().eps));
      else
        for (int i = 0; i < classes(); ++i)
          std::fill_n(buffers_.grad_logits + i * image_.voxels() + offset, image_.columns(), T{0});
    });
    team_.barrier();
    if (team_.rank != 0) return;
    scalars_.eps -= total(buffers_.slice_eps);
    if (!volume()) return;
    for (int i = 0; i < classes(); ++i) {
      const double lower = lower_bound<T>(p_, b_, i), upper = upper_bound<T>(p_, b_, i);
      const double grad = buffers_.grad_f[i] + total(buffers_.sums + i, classes());
      const VolumeStep step = volume_step(f(t)[i], mass_log(t)[i], lower, upper, params().eps);
      const VolumeAdjoint a = volume_adjoint(step, grad, mass_log(t)[i], lower, upper, params().eps);
      buffers_.grad_w[i] = static_cast<T>(a.w);
      buffers_.grad_f[i] = a.dual;
      scalars_.eps += a.eps;
      void *bound = step.active == Active::lower ? grads_.volume_lower : grads_.volume_upper;
      if (bound && step.active != Active::none) bound_grads_[step.active == Active::lower][i] += a.bound;
    }
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
      if (r == 0) clear_sums(s);
      if (volume())
        image_.rows.adjoint_volume(
            {sweep_.shape(), buffers_.logits + offset, buffers_.grad_w, static_cast<T>(1 / params().eps),
             buffers_.grad_logits + offset, grad_features_ ? grad_features_ + offset : nullptr,
             buffers_.sums + s * classes(), wants_eps() ? buffers_.slice_eps + s : nullptr});
      else
        add_to_features(offset);
      logits_row(iterate, s, r, offset, eps);
      if (p_.tv)
        image_.rows.softmax(sweep_.shape(), buffers_.logits + offset, T{1}, buffers_.change,
                            buffers_.u + offset);
    });
    team_.barrier();
    if (team_.rank != 0 || !volume()) return;
    scalars_.eps -= total(buffers_.slice_eps);
    for (int i = 0; i < classes(); ++i) buffers_.grad_f[i] += total(buffers_.sums + i, classes());
  }

  void add_to_features(int64_t offset) const {
    if (grad_features_)
      image_.rows.add(sweep_.shape(), buffers_.grad_logits + offset, grad_features_ + offset);
  }

  // C: the gradient of y_t.
  void adjoint_of_dual(int t) {
    const T *v = iterate_at(t).v;
    const double beta_next = t + 1 < saved_.iterations[b_] ? beta(t + 1) : 0;
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) buffers_.slice_tau[s] = 0;
      AdjointDualRow<T> row{};
      row.shape = sweep_.shape();
      row.accelerate = p_.accelerate;
      row.grad_logits = buffers_.grad_logits + offset;
      image_.ahead(buffers_.grad_logits, s, r, offset, row.grad_logits_next);
      row.u = buffers_.u + offset;
      image_.ahead(buffers_.u, s, r, offset, row.u_next);
      row.v = v + offset;
      row.grad_y = buffers_.grad_y + offset;
      row.grad_v = p_.accelerate ? buffers_.grad_v + offset : nullptr;
      row.edge = image_.edge_row(offset);
      row.lam = static_cast<T>(params().lam);
      row.tau = static_cast<T>(params().tau);
      row.beta = static_cast<T>(beta(t));
      row.beta_next = static_cast<T>(beta_next);
      row.grad_bound = grad_bound_ + offset;
      row.tau_sum = buffers_.slice_tau + s;
      image_.rows.adjoint_dual(row);
    });
    team_.barrier();
    if (team_.rank == 0) scalars_.tau -= total(buffers_.slice_tau);
  }

  // u_0 = S((o - div q_0 + f_0) / eps0); pass B of t = 0 left its logits.
  void adjoint_of_start(bool only_step) {
    if (only_step) rebuild_logits(iterate_at(0), -1);
    team_.barrier();
    if (team_.rank == 0) std::fill_n(buffers_.change, classes(), T{0});
    team_.barrier();
    if (!p_.tv && !only_step) return;
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) clear_sums(s);
      image_.rows.adjoint_softmax(softmax_row(s, r, offset, only_step, params().init_eps));
      add_to_features(offset);
    });
    team_.barrier();
    if (team_.rank == 0) scalars_.init_eps = -total(buffers_.slice_eps);
  }

  void finish() {
    if (p_.tv && (grads_.tv_lam || grads_.tv_edge)) {
      const int64_t size = image_.slice_size();
      for (int64_t s = sweep_.begin(); s < sweep_.end(); ++s) {
        double sum = 0;
        for (int64_t x = s * size; x < (s + 1) * size; ++x)
          sum += static_cast<double>(image_.edge ? image_.edge[x] : 1) * grad_bound_[x];
        buffers_.slice_tau[s] = sum;
      }
      team_.barrier();
      if (team_.rank == 0) scalars_.lam = total(buffers_.slice_tau);
    }
    if (team_.rank != 0) return;
    write_bounds(grads_.volume_upper, bound_grads_[0]);
    write_bounds(grads_.volume_lower, bound_grads_[1]);
  }

  void write_bounds(void *grad, const double *value) const {
    if (!grad) return;
    T *out = static_cast<T *>(grad) + b_ * classes();
    for (int i = 0; i < classes(); ++i) out[i] = static_cast<T>(value[i] + (grads_.accumulate ? out[i] : 0));
  }

  const Problem &p_;
  const Grads &grads_;
  const BackwardBuffers<T> &buffers_;
  const Saved<T> &saved_;
  const Team team_;
  const int64_t b_;
  const Image<T> image_;
  const Sweep<T> sweep_;
  const T *const grad_u_;
  T *const grad_features_;
  T *const grad_bound_;
  ScalarGrads &scalars_;
  bool u_ready_ = false;                     // `u` holds the u of the coming pass A; the same on every thread
  double bound_grads_[2][kMaxClasses] = {};  // upper (or equality), lower; rank 0's are used
};

}  // namespace

template <class T>
size_t backward_workspace(const Problem &p, Mode, int threads) {
  Arena arena;
  BackwardWorkspace<T>::carve(p, threads, 0, arena);
  return arena.used();
}

template <class T>
void backward_unrolled(const Problem &p, const void *grad_u, const Grads &grads, void *workspace,
                       const void *saved_memory, int threads) {
  Arena saved_arena(const_cast<void *>(saved_memory));
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  for_images(threads, p.grid.batch, [&](const Team &team, int team_index, int64_t b) {
    Arena arena(workspace);
    const BackwardWorkspace<T> mine = BackwardWorkspace<T>::carve(p, threads, team_index, arena);
    Backward<T>(p, static_cast<const T *>(grad_u), grads, mine, saved, team, b).run();
  });
  Arena arena(workspace);
  finish_batch<T>(p, grads, BackwardWorkspace<T>::carve(p, threads, 0, arena));
}

template size_t backward_workspace<float>(const Problem &, Mode, int);
template size_t backward_workspace<double>(const Problem &, Mode, int);
template void backward_unrolled<float>(const Problem &, const void *, const Grads &, void *, const void *,
                                       int);
template void backward_unrolled<double>(const Problem &, const void *, const Grads &, void *, const void *,
                                        int);

}  // namespace segprior::softmax
