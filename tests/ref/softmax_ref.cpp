// Forward iteration of the reference.
#include "tests/ref/softmax_ref.h"

#include <algorithm>
#include <cmath>

namespace segprior::ref {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double spacing_of(const Problem &p, int axis) { return p.spacing.empty() ? 1.0 : p.spacing[axis]; }

int64_t stride_of(const Problem &p, int axis) {
  int64_t stride = 1;
  for (int d = p.nd() - 1; d > axis; --d) stride *= p.spatial[d];
  return stride;
}

double inverse_square_spacing(const Problem &p) {
  double sum = 0;
  for (int d = 0; d < p.nd(); ++d) sum += 1 / (spacing_of(p, d) * spacing_of(p, d));
  return sum;
}

// One image of the problem.
class Image {
 public:
  Image(const Problem &p, int64_t b, Result &result)
      : p_(p), b_(b), result_(result), voxels_(p.voxels()), classes_(p.classes), nd_(p.nd()) {}

  Trace run() {
    Trace trace;
    trace.status = start_status();
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
  double edge(int64_t x) const {
    if (p_.edge.empty()) return 1;
    return p_.edge[(static_cast<int64_t>(p_.edge.size()) == voxels_ ? 0 : b_ * voxels_) + x];
  }
  double lower(int64_t i) const { return p_.lower[b_ * classes_ + i]; }
  double upper(int64_t i) const { return p_.upper[b_ * classes_ + i]; }
  bool excluded(int64_t i) const { return p_.volume != Volume::none && upper(i) == 0; }

  int start_status() const {
    bool valid = p_.eps > 0 && p_.eps < kInf;
    double max_edge = 0, max_feature = 0, max_init = 0, sum_lower = 0, sum_upper = 0, inverse = 0;
    if (p_.tv) {
      valid = valid && p_.lam >= 0 && p_.lam < kInf && p_.step() > 0 && p_.step() < kInf;
      for (int64_t x = 0; x < voxels_; ++x) {
        if (!(edge(x) >= 0 && edge(x) < kInf)) valid = false;
        max_edge = std::max(max_edge, edge(x));
      }
    }
    if (p_.volume != Volume::none)
      for (int64_t i = 0; i < classes_; ++i) {
        if (!(lower(i) >= 0 && upper(i) >= lower(i) && lower(i) < kInf)) valid = false;
        sum_lower += lower(i);
        sum_upper += upper(i);
      }
    if (!valid) return invalid_parameter;

    bool finite = true;
    for (int64_t k = 0; k < classes_ * voxels_; ++k) {
      if (!std::isfinite(features()[k])) finite = false;
      max_feature = std::max(max_feature, std::fabs(features()[k]));
    }
    if (!p_.init_tv.empty())
      for (int64_t k = 0; k < classes_ * nd_ * voxels_; ++k) {
        const double value = p_.init_tv[b_ * classes_ * nd_ * voxels_ + k];
        if (!std::isfinite(value)) finite = false;
        max_init = std::max(max_init, std::fabs(value));
      }
    if (!p_.init_volume.empty())
      for (int64_t i = 0; i < classes_; ++i)
        if (!excluded(i) && !std::isfinite(p_.init_volume[b_ * classes_ + i])) finite = false;
    if (!finite) return nonfinite_input;

    const double limit = p_.single ? 1e30 : 1e280;
    const double init_eps = p_.init_eps > 0 ? p_.init_eps : p_.eps;
    for (int d = 0; d < nd_; ++d) inverse += 1 / spacing_of(p_, d);
    const double dual = std::max(p_.tv ? p_.lam * max_edge : 0.0, max_init);
    if (!((max_feature + 2 * dual * inverse) / std::min(p_.eps, init_eps) < limit)) return breakdown;

    const double slack = 0.5 + 1e-5 * voxels_;
    if (p_.volume != Volume::none && (sum_lower > voxels_ + slack || sum_upper < voxels_ - slack))
      return infeasible_volume;
    return iteration_cap;
  }

  // S((o - div v + f) / eps) of every voxel.
  Array softmax(const Array &v, const Array &f, double eps) {
    Array out(classes_ * voxels_), r(voxels_);
    for (int64_t i = 0; i < classes_; ++i) {
      std::fill(r.begin(), r.end(), 0.0);
      if (p_.tv) divergence(p_, &v[i * nd_ * voxels_], r.data());
      for (int64_t x = 0; x < voxels_; ++x)
        out[i * voxels_ + x] = excluded(i) ? -kInf : (features()[i * voxels_ + x] - r[x] + f[i]) / eps;
    }
    for (int64_t x = 0; x < voxels_; ++x) {
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
        // A component at the far border points out of the grid: it belongs to no difference and counts as 0.
        const int axis = static_cast<int>(k / voxels_ % nd_);
        const int64_t n = p_.spatial[axis], along = k % voxels_ / stride_of(p_, axis) % n;
        s.q[k] = along + 1 < n ? p_.init_tv[b_ * classes_ * nd_ * voxels_ + k] : 0;
      }
    if (p_.volume != Volume::none)
      for (int64_t i = 0; i < classes_; ++i) {
        if (!p_.init_volume.empty()) s.f[i] = p_.init_volume[b_ * classes_ + i];
        if (excluded(i)) s.f[i] = -kInf;
      }
    s.v = s.q;
    s.u = softmax(s.v, s.f, p_.init_eps > 0 ? p_.init_eps : p_.eps);
    return s;
  }

  // q' = projection of v - tau grad u onto |q| <= lam e.
  void tv_step(const Iterate &from, Step &step, Array &q) {
    step.y.resize(from.v.size());
    q.resize(from.v.size());
    Array slope(nd_ * voxels_);
    const double smallest = p_.spacing.empty() ? 1 : *std::min_element(p_.spacing.begin(), p_.spacing.end());
    for (int64_t i = 0; i < classes_; ++i) {
      gradient(p_, &from.u[i * voxels_], slope.data());
      for (int64_t x = 0; x < voxels_; ++x) {
        double norm = 0;
        bool moves = false;  // false at the far corner, whose q touches nothing
        for (int d = 0; d < nd_; ++d) {
          const int64_t at = (i * nd_ + d) * voxels_ + x;
          step.y[at] = from.v[at] - p_.step() * slope[d * voxels_ + x];
          norm += step.y[at] * step.y[at];
          moves = moves || slope[d * voxels_ + x] != 0;
        }
        norm = std::sqrt(norm);
        const double b = p_.lam * edge(x);
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

  void volume_step(const Array &v, const Array &f, Step &step, Array &next) {
    step.w = softmax(v, f, p_.eps);
    step.mass.assign(classes_, 0.0);
    step.active.assign(classes_, 0);
    next = f;
    for (int64_t i = 0; i < classes_; ++i) {
      if (excluded(i)) continue;
      for (int64_t x = 0; x < voxels_; ++x) step.mass[i] += step.w[i * voxels_ + x];
      const double floor = p_.single ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
      const double level = std::log(std::max(step.mass[i], floor)) - f[i] / p_.eps;
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

  // <v - q', q' - q> > 0: the momentum points uphill.
  bool uphill(const Iterate &from, const Iterate &to) {
    double dot = 0, terms = 0;
    for (size_t k = 0; k < from.v.size(); ++k) {
      const double term = (from.v[k] - to.q[k]) * (to.q[k] - from.q[k]);
      dot += term;
      terms += std::fabs(term);
    }
    if (terms > 0) result_.margins.restart = std::min(result_.margins.restart, std::fabs(dot) / terms);
    return dot > 0;
  }

  void iterate(Trace &trace) {
    const int total = p_.iterations;
    double theta = 1;
    const bool accelerate = p_.accelerate && p_.tv;  // the momentum is that of q
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
      if (p_.tv) {
        tv_step(from, step, to.q);
        to.v = to.q;
        for (size_t k = 0; k < to.v.size(); ++k) to.v[k] += step.beta * (to.q[k] - from.q[k]);
        if (accelerate) restart = uphill(from, to);
      }
      to.f = from.f;
      if (p_.volume != Volume::none) volume_step(to.v, from.f, step, to.f);
      to.u = softmax(to.v, to.f, p_.eps);

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
};

}  // namespace

int64_t Problem::voxels() const {
  int64_t count = 1;
  for (int64_t n : spatial) count *= n;
  return count;
}

double Problem::step_slope() const { return 1 / ((accelerate ? 2 : 1) * inverse_square_spacing(*this)); }
double Problem::last_eps() const { return iterations == 0 && init_eps > 0 ? init_eps : eps; }
double Problem::step() const { return tau != 0 ? tau : eps * step_slope(); }

void gradient(const Problem &p, const double *u, double *q) {
  const int64_t voxels = p.voxels();
  for (int d = 0; d < p.nd(); ++d) {
    const int64_t stride = stride_of(p, d), n = p.spatial[d];
    for (int64_t x = 0; x < voxels; ++x)
      q[d * voxels + x] = x / stride % n + 1 < n ? (u[x + stride] - u[x]) / spacing_of(p, d) : 0;
  }
}

void divergence(const Problem &p, const double *q, double *r) {
  const int64_t voxels = p.voxels();
  std::fill_n(r, voxels, 0.0);
  for (int d = 0; d < p.nd(); ++d) {
    const int64_t stride = stride_of(p, d), n = p.spatial[d];
    for (int64_t x = 0; x < voxels; ++x) {
      const int64_t k = x / stride % n;
      const double here = k + 1 < n ? q[d * voxels + x] : 0, before = k > 0 ? q[d * voxels + x - stride] : 0;
      r[x] += (here - before) / spacing_of(p, d);
    }
  }
}

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
    result.images.push_back(std::move(trace));
  }
  return result;
}

}  // namespace segprior::ref
