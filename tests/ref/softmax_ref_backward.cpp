// Adjoint of the reference: every step of the forward iteration, differentiated alone, in reverse.
#include <algorithm>
#include <cmath>

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
        grad_q_(grad_v_.size()) {}

  void run(const double *grad_u) {
    Array bar_u(grad_u, grad_u + classes_ * voxels_);
    for (int t = static_cast<int>(trace_.steps.size()) - 1; t >= 0; --t) {
      const Step &step = trace_.steps[t];
      const Iterate &from = trace_.iterates[t], &to = trace_.iterates[t + 1];
      std::fill(grad_r_.begin(), grad_r_.end(), 0.0);
      softmax(to.u, to.v, to.f, p_.eps, bar_u, out_.eps, out_.eps_terms);
      if (p_.volume != Volume::none) volume(step, from, to.v);
      std::fill(bar_u.begin(), bar_u.end(), 0.0);
      if (p_.tv) tv(step, from, bar_u);
    }
    const Iterate &start = trace_.iterates[0];
    if (p_.init_eps > 0)
      softmax(start.u, start.v, start.f, p_.init_eps, bar_u, out_.init_eps, out_.init_eps_terms);
    else
      softmax(start.u, start.v, start.f, p_.eps, bar_u, out_.eps, out_.eps_terms);
  }

 private:
  // u = S(z), z = (o - div v + f) / eps: from the gradient of u to those of o, r = div v, f and eps.
  void softmax(const Array &u, const Array &v, const Array &f, double eps, const Array &bar, double &bar_eps,
               double &bar_eps_terms) {
    Array z(classes_ * voxels_), r(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      std::fill(r.begin(), r.end(), 0.0);
      if (p_.tv) divergence(p_, &v[i * nd_ * voxels_], r.data());
      for (int64_t x = 0; x < voxels_; ++x) {
        const int64_t at = i * voxels_ + x;
        z[at] = (p_.features[b_ * classes_ * voxels_ + at] - r[x] + f[i]) / eps;
      }
    }
    for (int64_t x = 0; x < voxels_; ++x) {
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
  void volume(const Step &step, const Iterate &from, const Array &v) {
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
    softmax(step.w, v, from.f, p_.eps, bar_w, out_.eps, out_.eps_terms);
  }

  // v' = q' + beta (q' - q), q' = projection of y = v - tau grad u. On entry grad_r_ is complete for this
  // step; grad_q_ holds what the next step's momentum left for q', and grad_v_ what its y left for v'.
  void tv(const Step &step, const Iterate &from, Array &bar_u) {
    Array slope(nd_ * voxels_), r(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &grad_r_[i * voxels_], slope.data());
      for (int64_t k = 0; k < nd_ * voxels_; ++k) grad_v_[i * nd_ * voxels_ + k] -= slope[k];
    }
    Array bar_old_q(grad_q_.size());
    for (size_t k = 0; k < grad_q_.size(); ++k) {
      grad_q_[k] += (1 + step.beta) * grad_v_[k];
      bar_old_q[k] = -step.beta * grad_v_[k];
    }
    Array &bar_y = grad_v_;  // y = v - ...: the gradient of y is that of the old v
    for (int64_t i = 0; i < classes_; ++i)
      for (int64_t x = 0; x < voxels_; ++x) project(step.y, i, x, bar_y);
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &from.u[i * voxels_], slope.data());
      for (int64_t k = 0; k < nd_ * voxels_; ++k) {
        const double term = bar_y[i * nd_ * voxels_ + k] * slope[k];
        out_.tv_tau -= term;
        out_.tv_tau_terms += std::fabs(term);
      }
      divergence(p_, &bar_y[i * nd_ * voxels_], r.data());
      for (int64_t x = 0; x < voxels_; ++x) bar_u[i * voxels_ + x] += p_.step() * r[x];
    }
    grad_q_ = bar_old_q;
  }

  void project(const Array &y, int64_t i, int64_t x, Array &bar_y) {
    const bool shared = static_cast<int64_t>(p_.edge.size()) == voxels_;
    const int64_t at_edge = (shared ? 0 : b_ * voxels_) + x;
    const double e = p_.edge.empty() ? 1 : p_.edge[at_edge], b = p_.lam * e;
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
    if (!p_.edge.empty()) out_.tv_edge[at_edge] += p_.lam * along;
  }

  const Problem &p_;
  const int64_t b_;
  const Trace &trace_;
  Gradients &out_;
  const int64_t voxels_, classes_;
  const int nd_;
  Array grad_r_, grad_f_, grad_v_, grad_q_;
};

}  // namespace

Gradients backward_unrolled(const Problem &p, const Result &result, const Array &grad_u) {
  Gradients g;
  const int64_t plane = p.classes * p.voxels();
  g.features.assign(p.features.size(), 0.0);
  g.tv_edge.assign(p.edge.size(), 0.0);
  if (p.volume != Volume::none) {
    g.volume_lower.assign(p.lower.size(), 0.0);
    g.volume_upper.assign(p.upper.size(), 0.0);
  }
  for (int64_t b = 0; b < p.batch; ++b) {
    if (!result.images[b].iterates.empty()) {
      Adjoint(p, b, result.images[b], g).run(&grad_u[b * plane]);
      continue;
    }
    std::fill_n(&g.features[b * plane], plane, kNaN);
    g.eps = g.init_eps = g.tv_lam = g.tv_tau = kNaN;
    if (!g.tv_edge.empty()) {
      const int64_t voxels = p.voxels();
      const bool shared = static_cast<int64_t>(p.edge.size()) == voxels;
      std::fill_n(&g.tv_edge[shared ? 0 : b * voxels], voxels, kNaN);
    }
    if (p.volume != Volume::none) {
      std::fill_n(&g.volume_lower[b * p.classes], p.classes, kNaN);
      std::fill_n(&g.volume_upper[b * p.classes], p.classes, kNaN);
    }
  }
  if (p.tv && p.tau == 0) {
    g.eps += g.tv_tau * p.step_slope();
    g.eps_terms += g.tv_tau_terms * p.step_slope();
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
