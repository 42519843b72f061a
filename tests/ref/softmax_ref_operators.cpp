// Operators of the reference on one scalar field: differences, correlation, star directions.
#include <algorithm>
#include <cmath>

#include "tests/ref/softmax_ref.h"

namespace segprior::ref {

namespace {

int64_t stride_of(const Problem &p, int axis) {
  int64_t stride = 1;
  for (int d = p.nd() - 1; d > axis; --d) stride *= p.spatial[d];
  return stride;
}

int64_t index_along(const Problem &p, int axis, int64_t x) {
  return x / stride_of(p, axis) % p.spatial[axis];
}

}  // namespace

int64_t Problem::voxels() const {
  int64_t count = 1;
  for (int64_t n : spatial) count *= n;
  return count;
}

bool Problem::valid(int64_t b, int64_t x) const {
  if (mask.empty()) return true;
  return mask[(static_cast<int64_t>(mask.size()) == voxels() ? 0 : b * voxels()) + x] != 0;
}

int64_t Problem::valid_voxels(int64_t b) const {
  int64_t count = 0;
  for (int64_t x = 0; x < voxels(); ++x) count += valid(b, x);
  return count;
}

double spacing_of(const Problem &p, int axis) { return p.spacing.empty() ? 1.0 : p.spacing[axis]; }

double inverse_square_spacing(const Problem &p) {
  double sum = 0;
  for (int d = 0; d < p.nd(); ++d) sum += 1 / (spacing_of(p, d) * spacing_of(p, d));
  return sum;
}

// Default steps: the largest stable ones, 2 / L. Two dual fields share the limit; momentum needs 1 / L.
double Problem::step_slope() const {
  double slope = 1 / inverse_square_spacing(*this);
  if (star.count() > 0) slope /= 2;
  if (accelerate) slope /= 2;
  return slope;
}

double Problem::star_step_slope() const {
  double slope = (star.count() == 1 ? 2 : 1) / inverse_square_spacing(*this);
  if (tv) slope /= 2;
  if (accelerate) slope /= 2;
  return slope;
}

double Problem::last_eps() const { return iterations == 0 && init_eps > 0 ? init_eps : eps; }
double Problem::step() const { return tau != 0 ? tau : eps * step_slope(); }
double Problem::star_step(int64_t m) const {
  return star.tau.empty() ? eps * star_step_slope() : star.tau[m];
}

bool is_link(const Problem &p, int64_t b, int axis, int64_t x) {
  return index_along(p, axis, x) + 1 < p.spatial[axis] && p.valid(b, x) && p.valid(b, x + stride_of(p, axis));
}

void gradient(const Problem &p, const double *u, double *q, int64_t b) {
  const int64_t voxels = p.voxels();
  for (int d = 0; d < p.nd(); ++d) {
    const int64_t stride = stride_of(p, d);
    for (int64_t x = 0; x < voxels; ++x)
      q[d * voxels + x] = is_link(p, b, d, x) ? (u[x + stride] - u[x]) / spacing_of(p, d) : 0;
  }
}

void divergence(const Problem &p, const double *q, double *r, int64_t b) {
  const int64_t voxels = p.voxels();
  std::fill_n(r, voxels, 0.0);
  for (int d = 0; d < p.nd(); ++d) {
    const int64_t stride = stride_of(p, d);
    for (int64_t x = 0; x < voxels; ++x) {
      if (!is_link(p, b, d, x)) continue;
      r[x] += q[d * voxels + x] / spacing_of(p, d);
      r[x + stride] -= q[d * voxels + x] / spacing_of(p, d);
    }
  }
}

bool ThresholdDynamics::per_class() const {
  int64_t taps = 1;
  for (int64_t n : extent) taps *= n;
  return static_cast<int64_t>(kernel.size()) != taps;
}

Kernel kernel_of(const Problem &p, int64_t class_index) {
  Kernel kernel;
  if (!p.td.extent.empty()) {
    const int64_t taps = p.td.per_class() ? static_cast<int64_t>(p.td.kernel.size()) / p.classes
                                          : static_cast<int64_t>(p.td.kernel.size());
    const auto from = p.td.kernel.begin() + (p.td.per_class() ? class_index * taps : 0);
    kernel.taps.assign(from, from + taps);
    return kernel;
  }
  // exp(-|d|^2 / (2 sigma^2)) / sum over all taps. Its derivative: that of the exponential is itself times
  // |d|^2 / sigma^3, then the quotient rule.
  int64_t taps = 1;
  for (int d = 0; d < p.nd(); ++d) taps *= p.td.size;
  double sum = 0, slope_sum = 0;
  for (int64_t k = 0; k < taps; ++k) {
    double square = 0;
    for (int64_t rest = k, d = 0; d < p.nd(); ++d, rest /= p.td.size) {
      const double along = static_cast<double>(rest % p.td.size - p.td.size / 2);
      square += along * along;
    }
    const double sigma = p.td.sigma, value = std::exp(-square / (2 * sigma * sigma));
    kernel.taps.push_back(value);
    kernel.slope.push_back(value * square / (sigma * sigma * sigma));
    sum += value;
    slope_sum += kernel.slope.back();
  }
  for (int64_t k = 0; k < taps; ++k) {
    kernel.slope[k] = kernel.slope[k] / sum - kernel.taps[k] * slope_sum / (sum * sum);
    kernel.taps[k] /= sum;
  }
  return kernel;
}

Correlation::Correlation(const Problem &p, int64_t b) : voxels_(p.voxels()) {
  const std::vector<int64_t> extent =
      p.td.extent.empty() ? std::vector<int64_t>(p.nd(), p.td.size) : p.td.extent;
  for (int64_t n : extent) taps_ *= n;
  under_.assign(voxels_ * taps_, -1);
  for (int64_t x = 0; x < voxels_; ++x) {
    if (!p.valid(b, x)) continue;
    for (int64_t k = 0; k < taps_; ++k) {
      int64_t rest = k, at = 0;
      bool inside = true;
      for (int d = p.nd() - 1; d >= 0; --d) {  // the last axis is the fastest
        const int64_t along = index_along(p, d, x) + rest % extent[d] - extent[d] / 2;
        rest /= extent[d];
        inside = inside && along >= 0 && along < p.spatial[d];
        at += along * stride_of(p, d);
      }
      if (inside && p.valid(b, at)) under_[x * taps_ + k] = at;
    }
  }
}

void Correlation::apply(const Kernel &kernel, const double *in, double *out) const {
  for (int64_t x = 0; x < voxels_; ++x) {
    out[x] = 0;
    for (int64_t k = 0; k < taps_; ++k)
      if (under(x, k) >= 0) out[x] += kernel.taps[k] * in[under(x, k)];
  }
}

void Correlation::transposed(const Kernel &kernel, const double *in, double *out) const {
  std::fill_n(out, voxels_, 0.0);
  for (int64_t x = 0; x < voxels_; ++x)
    for (int64_t k = 0; k < taps_; ++k)
      if (under(x, k) >= 0) out[under(x, k)] += kernel.taps[k] * in[x];
}

void star_direction(const Problem &p, int64_t b, int64_t m, Array &direction, Array &length) {
  const int64_t voxels = p.voxels();
  direction.assign(p.nd() * voxels, 0.0);
  length.assign(voxels, 0.0);
  for (int64_t x = 0; x < voxels; ++x) {
    for (int d = 0; d < p.nd(); ++d) {
      const double offset =
          p.star.center[(b * p.star.count() + m) * p.nd() + d] - static_cast<double>(index_along(p, d, x));
      direction[d * voxels + x] = offset;
      length[x] += offset * offset;
    }
    length[x] = std::sqrt(length[x]);
    for (int d = 0; d < p.nd(); ++d)
      direction[d * voxels + x] = length[x] > 0 ? direction[d * voxels + x] / length[x] : 0;
  }
}

}  // namespace segprior::ref
