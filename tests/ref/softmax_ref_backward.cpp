// Adjoint of the reference: every step of the forward iteration, differentiated alone, in reverse.
#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/ref/softmax_ref.h"

namespace segprior::ref {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class Adjoint {
 public:
  Adjoint(const Problem &p, int64_t b, const Trace &trace, Gradients &out)
      : p_(p),
        b_(b),
        trace_(trace),
        out_(out),
        voxels_(p.voxels()),
        classes_(p.classes),
        nd_(p.nd()),
        grad_r_(classes_ * voxels_),
        grad_f_(classes_),
        grad_v_(p.tv ? classes_ * nd_ * voxels_ : 0),
        grad_q_(grad_v_.size()),
        grad_ahead_(p.star.count() * voxels_),
        grad_g_(grad_ahead_.size()) {
    if (p.td.on) correlation_ = std::make_unique<Correlation>(p, b);
  }

  void run(const double *grad_u) {
    Array bar_u(grad_u, grad_u + classes_ * voxels_);
    for (int t = static_cast<int>(trace_.steps.size()) - 1; t >= 0; --t) {
      const Step &step = trace_.steps[t];
      const Iterate &from = trace_.iterates[t], &to = trace_.iterates[t + 1];
      std::fill(grad_r_.begin(), grad_r_.end(), 0.0);
      softmax(to.u, to.r, to.f, p_.eps, bar_u, out_.eps, out_.eps_terms);
      if (p_.volume != Volume::none) volume(step, from, to.r);
      std::fill(bar_u.begin(), bar_u.end(), 0.0);
      if (p_.td.on) threshold_dynamics(from, bar_u);
      if (p_.tv) tv(step, from, bar_u);
      for (int64_t m = 0; m < p_.star.count(); ++m) star(m, step, from, to, bar_u);
    }
    const Iterate &start = trace_.iterates[0];
    std::fill(grad_r_.begin(), grad_r_.end(), 0.0);
    if (p_.init_eps > 0)
      softmax(start.u, start.r, start.f, p_.init_eps, bar_u, out_.init_eps, out_.init_eps_terms);
    else
      softmax(start.u, start.r, start.f, p_.eps, bar_u, out_.eps, out_.eps_terms);
    // A warm start g is a constant, but div(g s) moves with the centre.
    for (int64_t m = 0; m < p_.star.count(); ++m) {
      Array grad_direction(nd_ * voxels_);
      force_direction(m, start, grad_direction);
      center(m, grad_direction);
    }
  }

 private:
  // u = S(z), z = (o - r + f) / eps: from the gradient of u to those of o, r, f and eps.
  void softmax(const Array &u, const Array &r, const Array &f, double eps, const Array &bar, double &bar_eps,
               double &bar_eps_terms) {
    Array z(classes_ * voxels_);
    for (int64_t i = 0; i < classes_; ++i)
      for (int64_t x = 0; x < voxels_; ++x) {
        const int64_t at = i * voxels_ + x;
        if (p_.valid(b_, x)) z[at] = (p_.features[b_ * classes_ * voxels_ + at] - r[at] + f[i]) / eps;
      }
    for (int64_t x = 0; x < voxels_; ++x) {
      if (!p_.valid(b_, x)) continue;  // u is the constant 0
      double mean = 0, top = -kInf;
      for (int64_t i = 0; i < classes_; ++i) {
        mean += bar[i * voxels_ + x] * u[i * voxels_ + x];
        top = std::max(top, z[i * voxels_ + x]);
      }
      for (int64_t i = 0; i < classes_; ++i) {
        const int64_t at = i * voxels_ + x;
        if (f[i] == -kInf) continue;
        const double bar_z = u[at] * (bar[at] - mean);
        out_.features[b_ * classes_ * voxels_ + at] += bar_z / eps;
        grad_r_[at] -= bar_z / eps;
        grad_f_[i] += bar_z / eps;
        // Shifting z by a constant changes nothing; `top` keeps the terms as small as an implementation can.
        bar_eps -= bar_z * (z[at] - top) / eps;
        bar_eps_terms += std::fabs(bar_z * (z[at] - top) / eps);
      }
    }
  }

  // f' = f + eps (ln bound - ln sum w) where a bound is active, else a constant.
  void volume(const Step &step, const Iterate &from, const Array &r) {
    Array bar_w(classes_ * voxels_), bar_f(classes_);
    for (int64_t i = 0; i < classes_; ++i) {
      if (step.active[i] == 0) continue;
      const int64_t at = b_ * classes_ + i;
      const double bound = step.active[i] > 0 ? p_.upper[at] : p_.lower[at], bar = grad_f_[i];
      (step.active[i] > 0 ? out_.volume_upper : out_.volume_lower)[at] += bar * p_.eps / bound;
      out_.eps += bar * (std::log(bound) - std::log(step.mass[i]));
      out_.eps_terms += std::fabs(bar * (std::log(bound) - std::log(step.mass[i])));
      bar_f[i] = bar;
      for (int64_t x = 0; x < voxels_; ++x) bar_w[i * voxels_ + x] = -bar * p_.eps / step.mass[i];
    }
    grad_f_ = bar_f;
    softmax(step.w, r, from.f, p_.eps, bar_w, out_.eps, out_.eps_terms);
  }

  // r = lam (e (k * (1 - u)) - k * (e u)).
  void threshold_dynamics(const Iterate &from, Array &bar_u) {
    Array weighted(voxels_), first(voxels_), second(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      const Kernel kernel = kernel_of(p_, i);
      const double *u = &from.u[i * voxels_], *bar_r = &grad_r_[i * voxels_];
      const int64_t taps = correlation_->taps(), from_tap = p_.td.per_class() ? i * taps : 0;
      for (int64_t x = 0; x < voxels_; ++x)
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t y = correlation_->under(x, k);
          if (y < 0) continue;
          const double term = bar_r[x] * (edge(p_.td.edge, x) * (1 - u[y]) - edge(p_.td.edge, y) * u[y]),
                       by_tap = p_.td.lam * term;
          out_.td_lam += kernel.taps[k] * term;
          out_.td_lam_terms += std::fabs(kernel.taps[k] * term);
          if (p_.td.extent.empty()) {
            out_.td_sigma += kernel.slope[k] * by_tap;
            out_.td_sigma_terms += std::fabs(kernel.slope[k] * by_tap);
          } else {
            out_.td_kernel[from_tap + k] += by_tap;
            out_.td_kernel_terms[from_tap + k] += std::fabs(by_tap);
          }
        }
      for (int64_t x = 0; x < voxels_; ++x)
        weighted[x] = p_.valid(b_, x) ? edge(p_.td.edge, x) * bar_r[x] : 0;
      correlation_->transposed(kernel, weighted.data(), first.data());
      correlation_->transposed(kernel, bar_r, second.data());
      for (int64_t x = 0; x < voxels_; ++x)
        if (p_.valid(b_, x))
          bar_u[i * voxels_ + x] -= p_.td.lam * (first[x] + edge(p_.td.edge, x) * second[x]);
      if (p_.td.edge.empty()) continue;
      Array complement(voxels_);
      for (int64_t x = 0; x < voxels_; ++x) complement[x] = 1 - u[x];
      correlation_->apply(kernel, complement.data(), first.data());
      for (int64_t x = 0; x < voxels_; ++x)
        if (p_.valid(b_, x))
          out_.td_edge[edge_index(p_.td.edge, x)] += p_.td.lam * (bar_r[x] * first[x] - u[x] * second[x]);
    }
  }

  // v' = g' + beta (g' - g), g' = max(y, 0), y = v - tau s . grad u, r_i += div(v' s). The gradients that
  // later steps left are kept as in tv().
  void star(int64_t m, const Step &step, const Iterate &from, const Iterate &to, Array &bar_u) {
    const int64_t i = p_.star.classes[m];
    Array slope(nd_ * voxels_), change(nd_ * voxels_), along(nd_ * voxels_), r(voxels_), direction, length;
    star_direction(p_, b_, m, direction, length);
    Array grad_direction(nd_ * voxels_);
    force_direction(m, to, grad_direction);
    gradient(p_, &grad_r_[i * voxels_], change.data(), b_);
    gradient(p_, &from.u[i * voxels_], slope.data(), b_);
    for (int64_t x = 0; x < voxels_; ++x) {
      const int64_t at = m * voxels_ + x;
      double bar_v = grad_ahead_[at], rise = 0;
      for (int d = 0; d < nd_; ++d) {
        bar_v -= direction[d * voxels_ + x] * change[d * voxels_ + x];
        rise += direction[d * voxels_ + x] * slope[d * voxels_ + x];
      }
      const double bar_y = step.star_y[at] > 0 ? grad_g_[at] + (1 + step.beta) * bar_v : 0;
      grad_g_[at] = -step.beta * bar_v;
      grad_ahead_[at] = bar_y;
      out_.star_tau[m] -= bar_y * rise;
      out_.star_tau_terms[m] += std::fabs(bar_y * rise);
      for (int d = 0; d < nd_; ++d) {
        along[d * voxels_ + x] = bar_y * direction[d * voxels_ + x];
        grad_direction[d * voxels_ + x] -= p_.star_step(m) * bar_y * slope[d * voxels_ + x];
      }
    }
    divergence(p_, along.data(), r.data(), b_);
    for (int64_t x = 0; x < voxels_; ++x) bar_u[i * voxels_ + x] += p_.star_step(m) * r[x];
    center(m, grad_direction);
  }

  // From r_i = ... + div(v' s): the gradient of s.
  void force_direction(int64_t m, const Iterate &to, Array &grad_direction) const {
    Array change(nd_ * voxels_);
    gradient(p_, &grad_r_[p_.star.classes[m] * voxels_], change.data(), b_);
    for (int64_t k = 0; k < nd_ * voxels_; ++k)
      grad_direction[k] -= to.ahead[m * voxels_ + k % voxels_] * change[k];
  }

  // s = (c - x) / |c - x|: ds/dc = (1 - s s^T) / |c - x|, 0 at the centre.
  void center(int64_t m, const Array &grad_direction) {
    Array s, length;
    star_direction(p_, b_, m, s, length);
    for (int64_t x = 0; x < voxels_; ++x) {
      if (length[x] == 0) continue;
      double along = 0;
      for (int d = 0; d < nd_; ++d) along += s[d * voxels_ + x] * grad_direction[d * voxels_ + x];
      for (int d = 0; d < nd_; ++d) {
        const int64_t at = (b_ * p_.star.count() + m) * nd_ + d;
        const double across = grad_direction[d * voxels_ + x] - along * s[d * voxels_ + x];
        out_.star_center[at] += across / length[x];
        out_.star_center_terms[at] += std::fabs(grad_direction[d * voxels_ + x] / length[x]);
      }
    }
  }

  // v' = q' + beta (q' - q), q' = projection of y = v - tau grad u. On entry grad_r_ is complete for this
  // step; grad_q_ holds what the next step's momentum left for q', and grad_v_ what its y left for v'.
  void tv(const Step &step, const Iterate &from, Array &bar_u) {
    Array slope(nd_ * voxels_), r(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &grad_r_[i * voxels_], slope.data(), b_);
      for (int64_t k = 0; k < nd_ * voxels_; ++k) grad_v_[i * nd_ * voxels_ + k] -= slope[k];
    }
    Array bar_old_q(grad_q_.size());
    for (size_t k = 0; k < grad_q_.size(); ++k) {
      grad_q_[k] += (1 + step.beta) * grad_v_[k];
      bar_old_q[k] = -step.beta * grad_v_[k];
    }
    Array &bar_y = grad_v_;  // y = v - ...: the gradient of y is that of the old v
    for (int64_t i = 0; i < classes_; ++i)
      for (int64_t x = 0; x < voxels_; ++x)
        if (p_.valid(b_, x)) project(step.y, i, x, bar_y);
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &from.u[i * voxels_], slope.data(), b_);
      for (int64_t k = 0; k < nd_ * voxels_; ++k) {
        const double term = bar_y[i * nd_ * voxels_ + k] * slope[k];
        out_.tv_tau -= term;
        out_.tv_tau_terms += std::fabs(term);
      }
      divergence(p_, &bar_y[i * nd_ * voxels_], r.data(), b_);
      for (int64_t x = 0; x < voxels_; ++x) bar_u[i * voxels_ + x] += p_.step() * r[x];
    }
    grad_q_ = bar_old_q;
  }

  // Of an edge field that may be absent or shared.
  int64_t edge_index(const Array &field, int64_t x) const {
    return (static_cast<int64_t>(field.size()) == voxels_ ? 0 : b_ * voxels_) + x;
  }
  double edge(const Array &field, int64_t x) const { return field.empty() ? 1 : field[edge_index(field, x)]; }

  void project(const Array &y, int64_t i, int64_t x, Array &bar_y) {
    const double e = edge(p_.edge, x), b = p_.lam * e;
    double norm = 0, along = 0;
    for (int d = 0; d < nd_; ++d) {
      const int64_t at = (i * nd_ + d) * voxels_ + x;
      norm += y[at] * y[at];
      along += y[at] * grad_q_[at];
    }
    norm = std::sqrt(norm);
    if (norm <= b) {
      for (int d = 0; d < nd_; ++d) {
        const int64_t at = (i * nd_ + d) * voxels_ + x;
        bar_y[at] = grad_q_[at];
      }
      return;
    }
    along /= norm;
    for (int d = 0; d < nd_; ++d) {
      const int64_t at = (i * nd_ + d) * voxels_ + x;
      bar_y[at] = b / norm * (grad_q_[at] - y[at] / norm * along);
    }
    out_.tv_lam += e * along;
    out_.tv_lam_terms += std::fabs(e * along);
    if (!p_.edge.empty()) out_.tv_edge[edge_index(p_.edge, x)] += p_.lam * along;
  }

  const Problem &p_;
  const int64_t b_;
  const Trace &trace_;
  Gradients &out_;
  const int64_t voxels_, classes_;
  const int nd_;
  Array grad_r_, grad_f_, grad_v_, grad_q_, grad_ahead_, grad_g_;
  std::unique_ptr<Correlation> correlation_;
};

}  // namespace

Gradients backward_unrolled(const Problem &p, const Result &result, const Array &grad_u) {
  Gradients g;
  const int64_t plane = p.classes * p.voxels();
  g.features.assign(p.features.size(), 0.0);
  g.tv_edge.assign(p.edge.size(), 0.0);
  g.volume_lower.assign(p.lower.size(), 0.0);
  g.volume_upper.assign(p.upper.size(), 0.0);
  g.td_kernel.assign(p.td.kernel.size(), 0.0);
  g.td_kernel_terms = g.td_kernel;
  g.td_edge.assign(p.td.edge.size(), 0.0);
  g.star_tau.assign(p.star.count(), 0.0);
  g.star_tau_terms = g.star_tau;
  g.star_center.assign(p.star.center.size(), 0.0);
  g.star_center_terms = g.star_center;
  for (int64_t b = 0; b < p.batch; ++b) {
    if (!result.images[b].iterates.empty()) {
      Adjoint(p, b, result.images[b], g).run(&grad_u[b * plane]);
      continue;
    }
    // A failed image: its own part of every gradient, all of what is summed over the batch.
    const auto fail = [&](Array &values, int64_t per_image) {
      const bool own = static_cast<int64_t>(values.size()) == p.batch * per_image;
      std::fill_n(values.begin() + (own ? b * per_image : 0),
                  own ? per_image : static_cast<int64_t>(values.size()), kNaN);
    };
    fail(g.features, plane);
    g.eps = g.init_eps = g.tv_lam = g.tv_tau = g.td_lam = g.td_sigma = kNaN;
    fail(g.tv_edge, p.voxels());
    fail(g.td_edge, p.voxels());
    fail(g.volume_lower, p.classes);
    fail(g.volume_upper, p.classes);
    fail(g.star_center, p.star.count() * p.nd());
    std::fill(g.td_kernel.begin(), g.td_kernel.end(), kNaN);
    std::fill(g.star_tau.begin(), g.star_tau.end(), kNaN);
  }
  if (p.tv && p.tau == 0) {
    g.eps += g.tv_tau * p.step_slope();
    g.eps_terms += g.tv_tau_terms * p.step_slope();
  }
  for (int64_t m = 0; p.star.tau.empty() && m < p.star.count(); ++m) {
    g.eps += g.star_tau[m] * p.star_step_slope();
    g.eps_terms += g.star_tau_terms[m] * p.star_step_slope();
  }
  if (p.volume == Volume::equality) g.volume = g.volume_upper;
  return g;
}

Array backward_last(const Problem &p, const Array &u, const Array &grad_u) {
  Array out(u.size());
  const double eps = p.last_eps();
  const int64_t voxels = p.voxels(), plane = p.classes * voxels;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t x = 0; x < voxels; ++x) {
      if (!p.valid(b, x)) continue;
      double mean = 0;
      for (int64_t i = 0; i < p.classes; ++i) {
        const int64_t at = b * plane + i * voxels + x;
        mean += u[at] * grad_u[at];
      }
      for (int64_t i = 0; i < p.classes; ++i) {
        const int64_t at = b * plane + i * voxels + x;
        out[at] = u[at] * (grad_u[at] - mean) / eps;
      }
    }
  return out;
}

}  // namespace segprior::ref
