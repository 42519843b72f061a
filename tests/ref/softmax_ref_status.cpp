// Which inputs the reference accepts.
#include <algorithm>
#include <cmath>

#include "tests/ref/softmax_ref.h"

namespace segprior::ref {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Facts of one input, gathered value by value.
struct Scan {
  bool in_domain = true, finite = true;
  double largest = 0;

  void any(double value) {  // a number that only has to be finite
    if (!std::isfinite(value)) finite = false;
    largest = std::max(largest, std::fabs(value));
  }
  void at_least_zero(double value) {
    if (!(value >= 0 && value < kInf)) in_domain = false;
    largest = std::max(largest, value);
  }
  void positive(double value) {
    if (!(value > 0 && value < kInf)) in_domain = false;
  }
};

}  // namespace

int start_status(const Problem &p, int64_t b) {
  const int64_t voxels = p.voxels(), classes = p.classes;
  const auto edge = [&](const Array &values, Scan &scan) {
    const int64_t from = static_cast<int64_t>(values.size()) == voxels ? 0 : b * voxels;
    for (int64_t x = 0; !values.empty() && x < voxels; ++x)
      if (p.valid(b, x)) scan.at_least_zero(values[from + x]);
    if (values.empty()) scan.largest = 1;
  };
  const auto excluded = [&](int64_t i) { return p.volume != Volume::none && p.upper[b * classes + i] == 0; };

  Scan scalars, tv_edge, td_edge, features, kernel, centers, init_tv, init_volume, init_star;
  scalars.positive(p.eps);
  if (p.tv) {
    scalars.at_least_zero(p.lam);
    scalars.positive(p.step());
    edge(p.edge, tv_edge);
  }
  if (p.td.on) {
    scalars.at_least_zero(p.td.lam);
    if (p.td.extent.empty()) scalars.positive(p.td.sigma);
    edge(p.td.edge, td_edge);
    for (double tap : p.td.kernel) kernel.any(tap);
  }
  double longest_step = 0;
  for (int64_t m = 0; m < p.star.count(); ++m) {
    scalars.positive(p.star_step(m));
    longest_step = std::max(longest_step, p.star_step(m));
    for (int d = 0; d < p.nd(); ++d) centers.any(p.star.center[(b * p.star.count() + m) * p.nd() + d]);
  }
  const double valid_voxels = static_cast<double>(p.valid_voxels(b));
  double sum_lower = 0, sum_upper = 0;
  if (p.volume != Volume::none) {
    for (int64_t i = 0; i < classes; ++i) {
      const double lower = p.lower[b * classes + i], upper = p.upper[b * classes + i];
      if (!(lower >= 0 && upper >= lower && lower < kInf)) scalars.in_domain = false;
      sum_lower += lower;
      sum_upper += upper;
    }
    if (sum_upper == 0 && valid_voxels > 0) scalars.in_domain = false;  // no class may have a voxel
  }
  for (int64_t k = 0; k < classes * voxels; ++k)
    if (p.valid(b, k % voxels)) features.any(p.features[b * classes * voxels + k]);
  for (int64_t k = 0; !p.init_tv.empty() && k < classes * p.nd() * voxels; ++k)
    if (p.valid(b, k % voxels)) init_tv.any(p.init_tv[b * classes * p.nd() * voxels + k]);
  for (int64_t i = 0; !p.init_volume.empty() && i < classes; ++i)
    if (!excluded(i)) init_volume.any(p.init_volume[b * classes + i]);
  for (int64_t k = 0; !p.star.init.empty() && k < p.star.count() * voxels; ++k) {
    const double value = p.star.init[b * p.star.count() * voxels + k];
    if (!p.valid(b, k % voxels)) continue;
    init_star.any(value);
    if (value < 0) scalars.in_domain = false;
  }

  if (!scalars.in_domain || !tv_edge.in_domain || !td_edge.in_domain) return invalid_parameter;
  for (const Scan *scan : {&features, &kernel, &centers, &init_tv, &init_volume, &init_star})
    if (!scan->finite) return nonfinite_input;

  // |o - r + f| must stay far from overflow.
  double inverse = 0, kernel_sum = 0;
  for (int d = 0; d < p.nd(); ++d) inverse += 1 / spacing_of(p, d);
  for (int64_t i = 0; p.td.on && i < classes; ++i) {
    double sum = 0;
    for (double tap : kernel_of(p, i).taps) sum += std::fabs(tap);
    kernel_sum = std::max(kernel_sum, sum);
  }
  const double dual = std::max(p.tv ? p.lam * tv_edge.largest : 0.0, init_tv.largest);
  const double star_dual = init_star.largest + p.iterations * longest_step * inverse;
  const double force = 2 * p.td.lam * kernel_sum * td_edge.largest +
                       2 * (dual + (p.star.count() > 0 ? star_dual : 0)) * inverse;
  const double init_eps = p.init_eps > 0 ? p.init_eps : p.eps, limit = p.single ? 1e30 : 1e280;
  if (!((features.largest + init_volume.largest + force) / std::min(p.eps, init_eps) < limit))
    return breakdown;

  const double slack = 0.5 + 1e-5 * valid_voxels;
  if (p.volume != Volume::none && (sum_lower > valid_voxels + slack || sum_upper < valid_voxels - slack))
    return infeasible_volume;
  return iteration_cap;
}

}  // namespace segprior::ref
