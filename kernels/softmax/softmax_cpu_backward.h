// What the CPU's unrolled backward of every mix of priors shares: state of one image's backward, the volume
// adjoint, the adjoint of the dual step, and the outputs per image.
#pragma once

#include "kernels/softmax/softmax_cpu_grads.h"

namespace segprior::softmax {

// What one class's volume step did.
struct VolumeState {
  VolumeStep step;
  double mass_log;  // ln sum_x w_i
};

// Methods are called by every thread of the team and work on its band of slices; rank 0 does scalar work.
template <class T>
class BackwardBase {
 public:
  BackwardBase(const Problem &p, const T *grad_u, const Grads &grads, const BackwardWorkspace<T> &workspace,
               const Saved<T> &saved, const Team &team, int64_t b)
      : p_(p),
        grads_(grads),
        workspace_(workspace),
        buffers_(workspace.mine),
        saved_(saved),
        team_(team),
        b_(b),
        image_(p, b, buffers_.mask),
        sweep_(image_, *buffers_.params, buffers_.sweep, team),
        grad_u_(grad_u + b * image_.plane()),
        grad_features_(grads.features ? static_cast<T *>(grads.features) + b * image_.plane() : nullptr),
        grad_bound_(p.tv ? workspace.grad_bound + b * image_.voxels() : nullptr),
        scalars_(workspace.scalars[b]) {}

 protected:
  const Params &params() const { return *buffers_.params; }
  int classes() const { return image_.classes(); }
  bool volume() const { return p_.volume != Volume::none; }
  const double *f(int64_t t) const {
    return volume() ? saved_.volume_dual + (t * p_.grid.batch + b_) * classes() : nullptr;
  }
  const double *mass_log(int64_t t) const { return saved_.log_mass + (t * p_.grid.batch + b_) * classes(); }
  double beta(int64_t t) const { return p_.accelerate ? saved_.momentum[t * p_.grid.batch + b_] : 0; }
  bool wants_eps() const { return grads_.eps || grads_.init_eps; }

  // Of an array [slices], in order.
  double total(const double *per_slice, int64_t stride = 1) const {
    double sum = 0;
    for (int64_t s = 0; s < image_.slices(); ++s) sum += per_slice[s * stride];
    return sum;
  }
  void clear_sums(int64_t slice) const {
    std::fill_n(buffers_.sums + slice * classes(), classes(), 0.0);
    buffers_.slice_eps[slice] = 0;
  }

  // This thread's band of `planes` planes.
  void fill_band(T *field, int64_t planes, T value) const {
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    for (int64_t i = 0; i < planes; ++i)
      std::fill_n(field + i * image_.voxels() + begin, (sweep_.end() - sweep_.begin()) * size, value);
  }

  void prepare() {
    if (team_.rank == 0) {
      *buffers_.params = read_params<T>(p_);
      scalars_ = {};
      std::fill_n(buffers_.grad_f, classes(), 0.0);
      std::fill_n(buffers_.sweep.zeros, image_.columns(), T{0});
    }
    prepare_mask(p_, b_, buffers_.mask, team_);
    if (grad_features_ && !grads_.accumulate) fill_band(grad_features_, classes(), 0);
    if (p_.tv) {
      fill_band(grad_bound_, 1, 0);
      fill_band(buffers_.grad_y, classes() * p_.grid.nd, 0);
      if (p_.accelerate) fill_band(buffers_.grad_v, classes() * p_.grid.nd, 0);
    }
    team_.barrier();
  }

  void fill_failed() {
    const T nan = static_cast<T>(NAN);
    if (grad_features_) fill_band(grad_features_, classes(), nan);
    if (p_.tv) fill_band(grad_bound_, 1, nan);
    if (team_.rank != 0) return;
    scalars_ = {NAN, NAN, NAN, NAN};
    for (void *grad : {grads_.volume_lower, grads_.volume_upper})
      if (grad) std::fill_n(static_cast<T *>(grad) + b_ * classes(), classes(), nan);
  }

  // TV's iterate in a checkpoint.
  Iterate<T> slot(int64_t k) const {
    if (!p_.tv) return {nullptr, nullptr};
    const int64_t offset = b_ * image_.dual_size();
    return {saved_.slot(k) + offset, p_.accelerate ? saved_.slot(k, 1) + offset : nullptr};
  }
  // TV's iterate k of those between checkpoints.
  Iterate<T> between(int64_t k) const {
    const int64_t offset = k * image_.dual_size();
    return {p_.tv ? buffers_.between.v + offset : nullptr,
            p_.tv && p_.accelerate ? buffers_.between.q + offset : nullptr};
  }

  // A: R from the gradient of u: `grad_u` (null: none) and, through_tv, what the next dual step passes back.
  AdjointSoftmaxRow<T> softmax_row(int64_t s, int64_t r, int64_t offset, const T *u, const T *grad_u,
                                   bool through_tv, double eps) const {
    AdjointSoftmaxRow<T> row{};
    row.shape = sweep_.shape(offset);
    row.u = u ? u + offset : nullptr;
    row.logits = buffers_.logits + offset;
    row.shift = buffers_.change;
    row.grad_u = grad_u ? grad_u + offset : nullptr;
    if (through_tv) row.dual = image_.dual_row(buffers_.grad_y, s, r, offset, sweep_.zeros());
    row.tau = static_cast<T>(params().tau);
    row.inv_eps = static_cast<T>(1 / eps);
    row.grad_logits = buffers_.grad_logits + offset;
    row.sum = buffers_.sums + s * classes();
    row.log_u = wants_eps() ? buffers_.slice_eps + s : nullptr;
    return row;
  }

  // The sums of pass A over the image, and the adjoint of the volume step; state(i, lower, upper) is class
  // i's VolumeState. Rank 0, after a barrier.
  template <class State>
  void adjoint_of_volume_step(const State &state) {
    scalars_.eps -= total(buffers_.slice_eps);
    for (int i = 0; volume() && i < classes(); ++i) {
      const double lower = lower_bound<T>(p_, b_, i), upper = upper_bound<T>(p_, b_, i);
      const double grad = buffers_.grad_f[i] + total(buffers_.sums + i, classes());
      const auto [step, mass_log] = state(i, lower, upper);
      const VolumeAdjoint a = volume_adjoint(step, grad, mass_log, lower, upper, params().eps);
      buffers_.grad_w[i] = static_cast<T>(a.w);
      buffers_.grad_f[i] = a.dual;
      scalars_.eps += a.eps;
      void *bound = step.active == Active::lower ? grads_.volume_lower : grads_.volume_upper;
      if (bound && step.active != Active::none) bound_grads_[step.active == Active::lower][i] += a.bound;
    }
  }

  // R += adjoint of w, and R goes into the features' gradient. `w` null: the softmax of `logits`.
  void adjoint_of_masses(const T *w, int64_t s, int64_t offset) const {
    if (volume())
      image_.rows.adjoint_volume(
          {sweep_.shape(offset), w ? w + offset : nullptr, buffers_.logits + offset, buffers_.grad_w,
           static_cast<T>(1 / params().eps), buffers_.grad_logits + offset,
           grad_features_ ? grad_features_ + offset : nullptr, buffers_.sums + s * classes(),
           wants_eps() ? buffers_.slice_eps + s : nullptr});
    else
      add_to_features(offset);
  }
  // After adjoint_of_masses of every row. Rank 0, after a barrier.
  void finish_masses() {
    if (!volume()) return;
    scalars_.eps -= total(buffers_.slice_eps);
    for (int i = 0; i < classes(); ++i) buffers_.grad_f[i] += total(buffers_.sums + i, classes());
  }

  void add_to_features(int64_t offset) const {
    if (grad_features_)
      image_.rows.add(sweep_.shape(offset), buffers_.grad_logits + offset, grad_features_ + offset);
  }

  // C: the gradient of y_t of TV's step from v_t and u_t. Barrier before: R complete.
  void adjoint_of_dual(const T *u, const T *v, double beta, double beta_next) {
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) buffers_.slice_tau[s] = 0;
      AdjointDualRow<T> row{};
      row.shape = sweep_.shape(offset);
      row.accelerate = p_.accelerate;
      row.grad_logits = buffers_.grad_logits + offset;
      image_.ahead(buffers_.grad_logits, s, r, offset, row.grad_logits_next);
      row.u = u + offset;
      image_.ahead(u, s, r, offset, row.u_next);
      row.v = v + offset;
      row.grad_y = buffers_.grad_y + offset;
      row.grad_v = p_.accelerate ? buffers_.grad_v + offset : nullptr;
      row.edge = image_.edge_row(offset);
      row.lam = static_cast<T>(params().lam);
      row.tau = static_cast<T>(params().tau);
      row.beta = static_cast<T>(beta);
      row.beta_next = static_cast<T>(beta_next);
      row.grad_bound = grad_bound_ + offset;
      row.tau_sum = buffers_.slice_tau + s;
      image_.rows.adjoint_dual(row);
    });
    team_.barrier();
    if (team_.rank == 0) scalars_.tau -= total(buffers_.slice_tau);
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

  const Problem &p_;
  const Grads &grads_;
  const BackwardWorkspace<T> &workspace_;
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

 private:
  void write_bounds(void *grad, const double *value) const {
    if (!grad) return;
    T *out = static_cast<T *>(grad) + b_ * classes();
    for (int i = 0; i < classes(); ++i) out[i] = static_cast<T>(value[i] + (grads_.accumulate ? out[i] : 0));
  }

  double bound_grads_[2][kMaxClasses] = {};  // upper (or equality), lower; rank 0's are used
};

}  // namespace segprior::softmax
