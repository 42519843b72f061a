// Forward iteration of the reference.
#include "tests/ref/softmax_ref.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace segprior::ref {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// One image of the problem.
class Image {
 public:
  Image(const Problem &p, int64_t b, Result &result)
      : p_(p), b_(b), result_(result), voxels_(p.voxels()), classes_(p.classes), nd_(p.nd()) {
    if (p.td.on) {
      correlation_ = std::make_unique<Correlation>(p, b);
      for (int64_t i = 0; i < classes_; ++i) kernels_.push_back(kernel_of(p, i));
    }
    directions_.resize(p.star.count());
    Array length;
    for (int64_t m = 0; m < p.star.count(); ++m) star_direction(p, b, m, directions_[m], length);
  }

  Trace run() {
    Trace trace;
    trace.status = start_status(p_, b_);
    if (trace.status == nonfinite_input || trace.status == breakdown || trace.status == invalid_parameter) {
      trace.residual = kNaN;
      return trace;
    }
    trace.iterates.push_back(start());
    iterate(trace);
    return trace;
  }

 private:
  const double *features() const { return &p_.features[b_ * classes_ * voxels_]; }
  // Of an edge field that may be absent or shared.
  double field(const Array &edge, int64_t x) const {
    if (edge.empty()) return 1;
    return edge[(static_cast<int64_t>(edge.size()) == voxels_ ? 0 : b_ * voxels_) + x];
  }
  double lower(int64_t i) const { return p_.lower[b_ * classes_ + i]; }
  double upper(int64_t i) const { return p_.upper[b_ * classes_ + i]; }
  bool excluded(int64_t i) const { return p_.volume != Volume::none && upper(i) == 0; }

  // div v + div(ahead s), added to r.
  void add_duals(const Array &v, const Array &ahead, Array &r) const {
    Array part(voxels_);
    for (int64_t i = 0; p_.tv && i < classes_; ++i) {
      divergence(p_, &v[i * nd_ * voxels_], part.data(), b_);
      for (int64_t x = 0; x < voxels_; ++x) r[i * voxels_ + x] += part[x];
    }
    Array along(nd_ * voxels_);
    for (int64_t m = 0; m < p_.star.count(); ++m) {
      for (int64_t k = 0; k < nd_ * voxels_; ++k)
        along[k] = ahead[m * voxels_ + k % voxels_] * directions_[m][k];
      divergence(p_, along.data(), part.data(), b_);
      for (int64_t x = 0; x < voxels_; ++x) r[p_.star.classes[m] * voxels_ + x] += part[x];
    }
  }

  // lam (e (k * (1 - u)) - k * (e u)).
  Array td_force(const Array &u) const {
    Array force(classes_ * voxels_), complement(voxels_), weighted(voxels_), first(voxels_), second(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      for (int64_t x = 0; x < voxels_; ++x) {
        complement[x] = 1 - u[i * voxels_ + x];  // Correlation leaves masked voxels out
        weighted[x] = p_.valid(b_, x) ? field(p_.td.edge, x) * u[i * voxels_ + x] : 0;
      }
      correlation_->apply(kernels_[i], complement.data(), first.data());
      correlation_->apply(kernels_[i], weighted.data(), second.data());
      for (int64_t x = 0; x < voxels_; ++x)
        if (p_.valid(b_, x))
          force[i * voxels_ + x] = p_.td.lam * (field(p_.td.edge, x) * first[x] - second[x]);
    }
    return force;
  }

  // S((o - r + f) / eps) of every valid voxel, 0 elsewhere.
  Array softmax(const Array &r, const Array &f, double eps) {
    Array out(classes_ * voxels_);
    for (int64_t x = 0; x < voxels_; ++x) {
      if (!p_.valid(b_, x)) continue;
      for (int64_t i = 0; i < classes_; ++i) {
        const int64_t at = i * voxels_ + x;
        out[at] = excluded(i) ? -kInf : (features()[at] - r[at] + f[i]) / eps;
      }
      double top = -kInf, sum = 0;
      for (int64_t i = 0; i < classes_; ++i) top = std::max(top, out[i * voxels_ + x]);
      for (int64_t i = 0; i < classes_; ++i) {
        double &z = out[i * voxels_ + x];
        if (z > -kInf) result_.max_logit = std::max(result_.max_logit, top - z);
        z = z > -kInf ? std::exp(z - top) : 0;
        sum += z;
      }
      for (int64_t i = 0; i < classes_; ++i) out[i * voxels_ + x] /= sum > 0 ? sum : 1;
    }
    return out;
  }

  Iterate start() {
    Iterate s;
    s.q.assign(p_.tv ? classes_ * nd_ * voxels_ : 0, 0.0);
    s.f.assign(classes_, 0.0);
    if (p_.tv && !p_.init_tv.empty())
      for (int64_t k = 0; k < classes_ * nd_ * voxels_; ++k) {
        // A component that points out of the grid or at a masked voxel belongs to no difference: it is 0.
        const int axis = static_cast<int>(k / voxels_ % nd_);
        s.q[k] = is_link(p_, b_, axis, k % voxels_) ? p_.init_tv[b_ * classes_ * nd_ * voxels_ + k] : 0;
      }
    s.g.assign(p_.star.count() * voxels_, 0.0);
    if (!p_.star.init.empty())
      for (size_t k = 0; k < s.g.size(); ++k)
        s.g[k] = p_.valid(b_, k % voxels_) ? p_.star.init[b_ * s.g.size() + k] : 0;
    if (p_.volume != Volume::none)
      for (int64_t i = 0; i < classes_; ++i) {
        if (!p_.init_volume.empty()) s.f[i] = p_.init_volume[b_ * classes_ + i];
        if (excluded(i)) s.f[i] = -kInf;
      }
    s.v = s.q;
    s.ahead = s.g;
    s.r.assign(classes_ * voxels_, 0.0);
    add_duals(s.v, s.ahead, s.r);
    s.u = softmax(s.r, s.f, p_.init_eps > 0 ? p_.init_eps : p_.eps);
    return s;
  }

  // q' = projection of v - tau grad u onto |q| <= lam e.
  void tv_step(const Iterate &from, Step &step, Array &q) {
    step.y.assign(from.v.size(), 0.0);
    q.assign(from.v.size(), 0.0);
    Array slope(nd_ * voxels_);
    const double smallest = p_.spacing.empty() ? 1 : *std::min_element(p_.spacing.begin(), p_.spacing.end());
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &from.u[i * voxels_], slope.data(), b_);
      for (int64_t x = 0; x < voxels_; ++x) {
        if (!p_.valid(b_, x)) continue;  // y and q stay 0
        double norm = 0;
        bool moves = false;  // false at the far corner, whose q touches nothing
        for (int d = 0; d < nd_; ++d) {
          const int64_t at = (i * nd_ + d) * voxels_ + x;
          step.y[at] = from.v[at] - p_.step() * slope[d * voxels_ + x];
          norm += step.y[at] * step.y[at];
          moves = moves || slope[d * voxels_ + x] != 0;
        }
        norm = std::sqrt(norm);
        const double b = p_.lam * field(p_.edge, x);
        // With b = 0 only the direction of y matters; it is lost where y is rounding noise.
        const double scale = b > 0 ? norm + b : p_.step() / smallest;
        if (moves)
          result_.margins.projection = std::min(result_.margins.projection, std::fabs(norm - b) / scale);
        for (int d = 0; d < nd_; ++d) {
          const int64_t at = (i * nd_ + d) * voxels_ + x;
          q[at] = norm <= b ? step.y[at] : step.y[at] * (b / norm);
        }
      }
    }
  }

  // g' = max(ahead - tau s . grad u, 0).
  void star_step(const Iterate &from, Step &step, Array &g) {
    step.star_y.assign(from.g.size(), 0.0);
    g.assign(from.g.size(), 0.0);
    Array slope(nd_ * voxels_);
    const double smallest = p_.spacing.empty() ? 1 : *std::min_element(p_.spacing.begin(), p_.spacing.end());
    for (int64_t m = 0; m < p_.star.count(); ++m) {
      gradient(p_, &from.u[p_.star.classes[m] * voxels_], slope.data(), b_);
      for (int64_t x = 0; x < voxels_; ++x) {
        const int64_t at = m * voxels_ + x;
        double rise = 0;
        bool moves = false;  // false where g touches nothing: at the centre, in the far corner
        for (int d = 0; d < nd_; ++d) {
          const double along = directions_[m][d * voxels_ + x];
          rise += along * slope[d * voxels_ + x];
          moves = moves || (along != 0 && is_link(p_, b_, d, x));
        }
        step.star_y[at] = from.ahead[at] - p_.star_step(m) * rise;
        g[at] = std::max(step.star_y[at], 0.0);
        const double scale = std::fabs(from.ahead[at]) + p_.star_step(m) / smallest;
        if (moves) result_.margins.star = std::min(result_.margins.star, std::fabs(step.star_y[at]) / scale);
      }
    }
  }

  void volume_step(const Array &r, const Array &f, Step &step, Array &next) {
    step.w = softmax(r, f, p_.eps);
    step.mass.assign(classes_, 0.0);
    step.active.assign(classes_, 0);
    next = f;
    for (int64_t i = 0; i < classes_; ++i) {
      if (excluded(i)) continue;
      for (int64_t x = 0; x < voxels_; ++x) step.mass[i] += step.w[i * voxels_ + x];
      const double floor = p_.single ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
      step.mass[i] = std::max(step.mass[i], floor);
      const double level = std::log(step.mass[i]) - f[i] / p_.eps;
      const double at_lower = p_.eps * (std::log(lower(i)) - level);
      const double at_upper = p_.eps * (std::log(upper(i)) - level);
      if (p_.volume == Volume::equality) {
        next[i] = at_upper;
        step.active[i] = 1;
      } else if (at_upper <= std::max(at_lower, 0.0)) {
        next[i] = at_upper;
        step.active[i] = 1;
      } else if (at_lower > 0) {
        next[i] = at_lower;
        step.active[i] = -1;
      } else {
        next[i] = 0;
      }
      if (p_.volume == Volume::box) {
        double distance = std::min(std::fabs(at_lower), std::fabs(at_upper));
        if (upper(i) > lower(i)) distance = std::min(distance, std::fabs(at_upper - at_lower));
        result_.margins.bound = std::min(result_.margins.bound, distance / p_.eps);
      }
    }
  }

  // <v - q', q' - q> / tau summed over the dual fields > 0: the momentum points uphill.
  bool uphill(const Iterate &from, const Iterate &to) {
    double dot = 0, terms = 0;
    const auto add = [&](double ahead, double next, double last, double tau) {
      const double term = (ahead - next) * (next - last) / tau;
      dot += term;
      terms += std::fabs(term);
    };
    for (size_t k = 0; k < from.q.size(); ++k) add(from.v[k], to.q[k], from.q[k], p_.step());
    for (size_t k = 0; k < from.g.size(); ++k)
      add(from.ahead[k], to.g[k], from.g[k], p_.star_step(k / voxels_));
    if (terms > 0) result_.margins.restart = std::min(result_.margins.restart, std::fabs(dot) / terms);
    return dot > 0;
  }

  void iterate(Trace &trace) {
    const int total = p_.iterations;
    double theta = 1;
    const bool accelerate = p_.accelerate && (p_.tv || p_.star.count() > 0);  // of q and g
    bool restart = false, reached = false, last = total == 1;
    for (int t = 0; t < total; ++t) {
      const Iterate &from = trace.iterates.back();
      Iterate to;
      Step step;
      if (accelerate && !last) {
        if (restart) {
          theta = 1;
          ++trace.restarts;
        }
        const double next = (1 + std::sqrt(1 + 4 * theta * theta)) / 2;
        step.beta = (theta - 1) / next;
        theta = next;
      }
      if (p_.td.on)
        to.r = td_force(from.u);
      else
        to.r.assign(classes_ * voxels_, 0.0);
      if (p_.tv) tv_step(from, step, to.q);
      star_step(from, step, to.g);
      to.v = to.q;
      to.ahead = to.g;
      for (size_t k = 0; k < to.v.size(); ++k) to.v[k] += step.beta * (to.q[k] - from.q[k]);
      for (size_t k = 0; k < to.g.size(); ++k) to.ahead[k] += step.beta * (to.g[k] - from.g[k]);
      if (accelerate) restart = uphill(from, to);
      add_duals(to.v, to.ahead, to.r);
      to.f = from.f;
      if (p_.volume != Volume::none) volume_step(to.r, from.f, step, to.f);
      to.u = softmax(to.r, to.f, p_.eps);

      double residual = 0;
      for (size_t k = 0; k < to.u.size(); ++k) residual = std::max(residual, std::fabs(to.u[k] - from.u[k]));
      trace.steps.push_back(std::move(step));
      trace.iterates.push_back(std::move(to));

      const bool check = t + 1 == total || (p_.tolerance > 0 && (t + 1) % p_.check_interval == 0);
      // An accelerated image does one more iteration after the check that stops it. That one's residual,
      // which may be above the tolerance again, is not the one that decided.
      if (check && !reached) {
        trace.residual = residual;
        if (p_.tolerance > 0)
          result_.margins.stop =
              std::min(result_.margins.stop, std::fabs(residual - p_.tolerance) / p_.tolerance);
        reached = residual < p_.tolerance;
        if (reached && trace.status == iteration_cap) trace.status = converged;
      }
      if (last || (reached && !accelerate)) break;
      last = reached || t + 2 == total;
    }
  }

  const Problem &p_;
  const int64_t b_;
  Result &result_;
  const int64_t voxels_, classes_;
  const int nd_;
  std::unique_ptr<Correlation> correlation_;
  std::vector<Kernel> kernels_;    // [I]
  std::vector<Array> directions_;  // [M], each [nd, *S]
};

}  // namespace

Result forward(const Problem &p) {
  Result result;
  const int64_t plane = p.classes * p.voxels();
  for (int64_t b = 0; b < p.batch; ++b) {
    Trace trace = Image(p, b, result).run();
    const auto append = [](Array &to, const Array &from, int64_t count, bool failed) {
      if (failed)
        to.insert(to.end(), count, kNaN);
      else
        to.insert(to.end(), from.begin(), from.end());
    };
    const bool failed = trace.iterates.empty();
    const Iterate end = failed ? Iterate{} : trace.iterates.back();
    append(result.u, end.u, plane, failed);
    if (p.tv) append(result.tv_dual, end.q, plane * p.nd(), failed);
    if (p.volume != Volume::none) append(result.volume_dual, end.f, p.classes, failed);
    append(result.star_dual, end.g, p.star.count() * p.voxels(), failed);
    result.images.push_back(std::move(trace));
  }
  return result;
}

}  // namespace segprior::ref
