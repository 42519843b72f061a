// clang-format off
// Backward on the CPU of problems that keep u: threshold dynamics and star shapes, with or without TV, volume,
// mask and acceleration. As softmax_cpu_backward.cpp, with u_t of every iterate at hand:
//   A  R = adjoint of u_t+1 = S(...) applied to grad_u (+ tau div grad_y of TV);  sums of R -> volume
//   B  R += adjoint of w, whose logits need the force of u_t again;  grad_features += R
//   C  grad_y of TV and of the stars;  grad_u <- lam B^T R + tau_m div(grad_y_m s_m);  their parameters
// clang-format on
// The implicit mode is the same adjoint step at the frozen final iterate, repeated until nothing changes: the
// Neumann series of the fixed point's derivative. A pass carries increments of that sum, to which momentum
// applies as it does to gradients of the accelerated iteration.
#include "kernels/softmax/softmax_cpu_backward.h"

namespace segprior::softmax {
namespace {

template <class T>
class MixedBackward : BackwardBase<T> {
 public:
  MixedBackward(const Problem &p, Mode mode, const T *grad_u, const Grads &grads,
                const BackwardWorkspace<T> &workspace, const Saved<T> &saved, const Team &team, int64_t b)
      : Base(p, grad_u, grads, workspace, saved, team, b),
        frozen_(mode == Mode::implicit),
        base_(buffers_.logits),
        td_(image_, params(), buffers_.td, team),
        star_(image_, params(), buffers_.star, team) {}

  void run() {
    prepare();
    if (failed(saved_.status[b_])) return fill_failed();
    if (p_.td.on) td_.prepare();
    star_.prepare();
    frozen_ ? iterate_frozen() : unroll();
    this->finish();
    star_.center_gradient(star_center());
  }

 private:
  using Base = BackwardBase<T>;
  using Base::p_, Base::grads_, Base::workspace_, Base::buffers_, Base::saved_, Base::team_, Base::b_,
      Base::image_, Base::sweep_, Base::grad_u_, Base::grad_features_, Base::scalars_;
  using Base::params, Base::classes, Base::volume, Base::f, Base::mass_log, Base::total, Base::fill_band;

  // An iterate with everything that made the next one.
  struct State {
    Iterate<T> tv;
    StarIterate<T> star;
    T *u;
  };

  double *star_tau() const { return workspace_.star_tau + b_ * p_.star.count; }
  double *star_center() const { return workspace_.star_center + b_ * p_.star.count * p_.grid.nd; }
  T *td_edge() const { return workspace_.td_edge + b_ * image_.voxels(); }
  int64_t star_size() const { return p_.star.count * image_.voxels(); }
  bool wants_center() const { return grads_.star_center != nullptr; }

  void prepare() {
    Base::prepare();
    fill_band(buffers_.grad_star_y, p_.star.count, 0);
    if (p_.accelerate) fill_band(buffers_.grad_star_v, p_.star.count, 0);
    if (p_.td.on && p_.td.has_edge) fill_band(td_edge(), 1, 0);
    if (team_.rank == 0) clear_parameters(0);
    team_.barrier();
  }
  void copy_band(const T *from, T *to) const {
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    for (int i = 0; i < classes(); ++i)
      std::copy_n(from + i * image_.voxels() + begin, (sweep_.end() - sweep_.begin()) * size,
                  to + i * image_.voxels() + begin);
  }

  // Gradients of the parameters that only such problems have.
  void clear_parameters(double value) const {
    const int64_t taps = BackwardWorkspace<T>::kernel_size(p_);
    double *kernel = workspace_.kernel + b_ * taps;
    std::fill_n(kernel, taps, value);
    if (p_.td.on)
      workspace_.td[b_] = {value, value, grads_.td_kernel ? kernel : nullptr,
                           grads_.td_edge ? td_edge() : nullptr};
    std::fill_n(star_tau(), p_.star.count, value);
    std::fill_n(star_center(), p_.star.count * p_.grid.nd, value);
  }

  void fill_failed() {
    Base::fill_failed();
    if (p_.td.on && p_.td.has_edge) fill_band(td_edge(), 1, static_cast<T>(NAN));
    if (team_.rank != 0) return;
    clear_parameters(NAN);
    if (grads_.info) grads_.info[b_] = {saved_.status[b_], 0, NAN};
  }

  // ---- Iterates ----

  State slot(int64_t k) const {
    const int64_t star = b_ * star_size();
    StarIterate<T> g{};
    if (p_.star.count > 0)
      g = {saved_.star_slot(k) + star, p_.accelerate ? saved_.star_slot(k, 1) + star : nullptr};
    return {Base::slot(k), g, saved_.u_slot(k) + b_ * image_.plane()};
  }
  // The iterate after t iterations, which the current segment holds.
  State state_at(int64_t t) const {
    if (frozen_ || t == saved_.iterations[b_]) return slot(saved_.checkpoints);
    const int64_t n = p_.checkpoint_interval, k = t % n - 1;
    if (k < 0) return slot(t / n);
    StarIterate<T> g{};
    if (p_.star.count > 0)
      g = {buffers_.between_star.v + k * star_size(),
           p_.accelerate ? buffers_.between_star.g + k * star_size() : nullptr};
    return {this->between(k), g, buffers_.between_u + k * image_.plane()};
  }

  // base <- features with the force of the priors that keep u, made by u_t and the star duals v_t+1.
  void force(const T *u, const T *star_v) const {
    p_.td.on ? td_.force(u, base_) : copy_band(image_.features, base_);
    star_.force(base_, star_v, base_);
  }

  // Recomputes the iterates of t's segment that lie between checkpoints.
  void recompute_segment(int t, int steps) {
    const int64_t n = p_.checkpoint_interval, first = t / n * n, last = std::min<int64_t>(first + n, steps);
    for (int64_t k = first; k + 1 < last; ++k) {
      const State from = state_at(k), to = state_at(k + 1);
      if (team_.rank == 0) dual_shift(classes(), f(k + 1), params().eps, buffers_.shift);
      copy_band(from.u, to.u);
      star_.step(from.u, from.star, to.star, this->beta(k), nullptr);
      team_.barrier();
      force(from.u, to.star.v);
      sweep_.step(base_, to.u, nullptr, from.tv, to.tv, this->beta(k), buffers_.shift, false);
      team_.barrier();
    }
  }

  // ---- The adjoint of one iteration ----

  void unroll() {
    const int steps = saved_.iterations[b_];
    for (int t = steps - 1; t >= 0; --t) {
      if (t == steps - 1 || (t + 1) % p_.checkpoint_interval == 0) recompute_segment(t, steps);
      adjoint_of_u(t, t == steps - 1);
      adjoint_of_volume(t);
      adjoint_of_priors(t, this->beta(t), t + 1 < steps ? this->beta(t + 1) : 0);
    }
    adjoint_of_start(steps == 0);
  }

  // A: R from the gradient of u_t+1, and the volume adjoint from its sums.
  void adjoint_of_u(int t, bool last) {
    const T *u = state_at(t + 1).u;
    rows([&](int64_t s, int64_t r, int64_t offset) { adjoint_row(u, s, r, offset, last, params().eps); });
    team_.barrier();
    if (team_.rank != 0) return;
    this->adjoint_of_volume_step([&](int i, double lower, double upper) {
      if (frozen_) return resting_state(f(t)[i], lower, upper);
      const double mass = mass_log(t)[i];
      return VolumeState{volume_step(f(t)[i], mass, lower, upper, params().eps), mass};
    });
  }
  void adjoint_row(const T *u, int64_t s, int64_t r, int64_t offset, bool from_loss, double eps) const {
    if (r == 0) this->clear_sums(s);
    image_.rows.adjoint_softmax(
        this->softmax_row(s, r, offset, u, from_loss ? grad_u_ : buffers_.grad_u, p_.tv && !from_loss, eps));
  }
  // A dual that no longer moves rests on the bound that its sign tells, and w = u fills that bound.
  VolumeState resting_state(double f, double lower, double upper) const {
    if (excluded(upper) || (p_.volume == Volume::box && f == 0)) return {{f, Active::none}, 0};
    if (p_.volume == Volume::equality || f < 0 || lower == upper)
      return {{f, Active::upper}, std::log(upper)};
    return {{f, Active::lower}, std::log(lower)};
  }

  // B: the part of R that came through the masses, and the features' gradient.
  void adjoint_of_volume(int t) {
    const State now = state_at(t), next = state_at(t + 1);
    const bool rebuilds = volume() && !frozen_;
    if (rebuilds && team_.rank == 0) dual_shift(classes(), f(t), params().eps, buffers_.shift);
    team_.barrier();
    if (rebuilds) force(now.u, next.star.v);
    rows([&](int64_t s, int64_t r, int64_t offset) {
      if (r == 0) this->clear_sums(s);
      if (rebuilds) {
        const DualRow<T> dual =
            p_.tv ? image_.dual_row(next.tv.v, s, r, offset, sweep_.zeros()) : DualRow<T>{};
        image_.rows.logits(sweep_.shape(offset), base_ + offset, p_.tv ? &dual : nullptr,
                           static_cast<T>(1 / params().eps), buffers_.shift, base_ + offset);
      }
      this->adjoint_of_masses(frozen_ ? now.u : nullptr, s, offset);
      if (frozen_) image_.rows.add(sweep_.shape(offset), buffers_.grad_logits + offset, base_ + offset);
    });
    team_.barrier();
    if (team_.rank == 0) this->finish_masses();
  }

  // C: what R passes on to the duals, to u_t and to the parameters of the priors.
  void adjoint_of_priors(int t, double beta, double beta_next) {
    const State now = state_at(t), next = state_at(t + 1);
    const T *grad_logits = buffers_.grad_logits;
    if (p_.tv) this->adjoint_of_dual(now.u, now.tv.v, beta, beta_next);
    if (p_.td.on)
      td_.adjoint(grad_logits, buffers_.grad_u);
    else
      fill_band(buffers_.grad_u, classes(), 0);
    if (!frozen_) td_parameters(grad_logits, now.u);
    star_.adjoint(grad_logits, now.u, now.star.v, next.star.v, buffers_.grad_star_y, buffers_.grad_star_v,
                  beta, beta_next, wants_center(), star_tau());
    star_.adjoint_u(buffers_.grad_star_y, buffers_.grad_u);
    team_.barrier();
  }
  void td_parameters(const T *grad_logits, const T *u) const {
    const bool lam = grads_.td_lam != nullptr, sigma = grads_.td_sigma != nullptr;
    if (lam || sigma || grads_.td_kernel || grads_.td_edge)
      td_.parameters(grad_logits, u, lam, sigma, workspace_.td[b_]);
  }

  // u_0 = S((o - div q_0 - div(g_0 s) + f_0) / eps0).
  void adjoint_of_start(bool only_step) {
    const State first = state_at(0);
    rows([&](int64_t s, int64_t r, int64_t offset) {
      adjoint_row(first.u, s, r, offset, only_step, params().init_eps);
      this->add_to_features(offset);
    });
    team_.barrier();
    if (team_.rank == 0) scalars_.init_eps = -total(buffers_.slice_eps);
    if (!wants_center() || !p_.star.has_init) return;
    // The directions in div(g_0 s): a step from v = 0 at u = 0, whose own adjoint is 0.
    fill_band(base_, classes(), 0);
    team_.barrier();
    star_.adjoint(buffers_.grad_logits, base_, base_, first.star.v, buffers_.grad_star_y,
                  buffers_.grad_star_v, 0, 0, true, star_tau());
  }

  // ---- Implicit ----

  void iterate_frozen() {
    const int t = saved_.iterations[b_];
    fill_band(base_, classes(), 0);  // the sum of every R
    segprior_info info{SEGPRIOR_ITERATION_CAP, 0, 0};
    AdjointMomentum momentum;
    double first = 0;
    for (bool running = true; running;) {
      adjoint_of_u(t, info.iterations == 0);
      adjoint_of_volume(t);
      const double change = max_abs(buffers_.grad_logits);
      if (info.iterations == 0) first = change;
      const double residual = first > 0 ? change / first : 0;
      const bool converged = momentum.settled(residual <= p_.implicit_tolerance) || first == 0;
      info.residual = residual;
      if (converged) info.status = SEGPRIOR_CONVERGED;
      if (first == 0) break;
      if (p_.accelerate) momentum.advance();
      adjoint_of_priors(t, momentum.beta, momentum.beta_before);
      ++info.iterations;
      running = !converged && std::isfinite(residual) && info.iterations < p_.implicit_iterations;
    }
    td_parameters(base_, state_at(t).u);
    team_.barrier();
    if (team_.rank != 0) return;
    if (grads_.info) grads_.info[b_] = info;
    // Steps do not move the fixed point.
    scalars_.tau = 0;
    std::fill_n(star_tau(), p_.star.count, 0.0);
  }

  // max |field| over the image, all classes; the same on every thread. Collective.
  double max_abs(const T *field) const {
    const int64_t size = image_.slice_size();
    for (int64_t s = sweep_.begin(); s < sweep_.end(); ++s) {
      double &max = buffers_.slice_tau[s];
      max = 0;
      for (int i = 0; i < classes(); ++i)
        max = std::max<double>(max, image_.rows.max_abs(size, field + i * image_.voxels() + s * size));
    }
    team_.barrier();
    const double result = *std::max_element(buffers_.slice_tau, buffers_.slice_tau + image_.slices());
    team_.barrier();
    return result;
  }

  template <class F>
  void rows(const F &f) const {
    image_.for_rows(sweep_.begin(), sweep_.end(), f);
  }

  const bool frozen_;
  T *const base_;  // [I, J] features with a force, then logits
  const ThresholdForce<T> td_;
  const StarForce<T> star_;
};

}  // namespace

template <class T>
void backward_mixed(const Problem &p, Mode mode, const void *grad_u, const Grads &grads, void *workspace,
                    const void *saved_memory, int threads) {
  Arena saved_arena(const_cast<void *>(saved_memory));
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  for_images(threads, p.grid.batch, [&](const Team &team, int team_index, int64_t b) {
    Arena arena(workspace);
    const BackwardWorkspace<T> mine = BackwardWorkspace<T>::carve(p, mode, threads, team_index, arena);
    MixedBackward<T>(p, mode, static_cast<const T *>(grad_u), grads, mine, saved, team, b).run();
  });
  Arena arena(workspace);
  finish_batch<T>(p, grads, BackwardWorkspace<T>::carve(p, mode, threads, 0, arena));
}

template void backward_mixed<float>(const Problem &, Mode, const void *, const Grads &, void *, const void *,
                                    int);
template void backward_mixed<double>(const Problem &, Mode, const void *, const Grads &, void *, const void *,
                                     int);

}  // namespace segprior::softmax
