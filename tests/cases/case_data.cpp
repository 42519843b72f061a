// What a case stands for: its expression and its data.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "tests/cases/cases.h"
#include "tests/support/random.h"

namespace segprior::test {

namespace {

using Edge = Case::Edge;
using Volumes = Case::Volumes;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

ref::Array volumes_of(Random &random, const Case &c, const ref::Problem &p) {
  ref::Array all;
  for (int64_t b = 0; b < c.batch_; ++b) {
    ref::Array image = random.array(c.classes_, 0.4, 1.6);
    if (c.volumes_ == Volumes::equal_zero) image[b % c.classes_] = 0;
    double sum = 0;
    for (double value : image) sum += value;
    for (double value : image) all.push_back(value * static_cast<double>(p.valid_voxels(b)) / sum);
  }
  return all;
}

std::vector<uint8_t> mask_of(const Case &c, int64_t voxels) {
  std::vector<uint8_t> mask;
  Random random(c.seed_ + 4000);
  const int64_t images = c.mask_ == Case::Mask::none ? 0 : c.mask_ == Case::Mask::shared ? 1 : c.batch_;
  for (int64_t b = 0; b < images; ++b) {
    for (int64_t x = 0; x < voxels; ++x) mask.push_back(random.bits() % 4 != 0);
    mask[b * voxels + static_cast<int64_t>(random.bits() % voxels)] = 1;  // never none at all
  }
  return mask;
}

ref::Array edge_of(Random &random, Edge kind, const Case &c, int64_t voxels) {
  if (kind == Edge::none) return {};
  ref::Array edge = random.array((kind == Edge::shared ? 1 : c.batch_) * voxels, 0.1, 1.5);
  for (size_t k = 0; k < edge.size(); k += 5) edge[k] = 0;  // cut edges are legal
  return edge;
}

void add_volumes(Random &random, const Case &c, int32_t dtype, ref::Problem &p) {
  if (c.volumes_ == Volumes::none) return;
  const ref::Array centre = volumes_of(random, c, p);
  if (c.volumes_ == Volumes::equal || c.volumes_ == Volumes::equal_zero) {
    p.volume = ref::Volume::equality;
    p.upper = p.lower = rounded(centre, dtype);
    return;
  }
  p.volume = ref::Volume::box;
  for (size_t k = 0; k < centre.size(); ++k) {
    const bool open = c.volumes_ == Volumes::box_open;
    double lower = centre[k] * random.uniform(0.3, 1.0), upper = centre[k] * random.uniform(1.0, 1.8);
    if (c.volumes_ == Volumes::upper || (open && k % 3 == 0)) lower = 0;
    if (c.volumes_ == Volumes::lower || (open && k % 4 == 1)) upper = kInf;
    if (open && k % 7 == 3) lower = upper = 0;
    p.lower.push_back(lower);
    p.upper.push_back(upper);
  }
  p.lower = rounded(p.lower, dtype);
  p.upper = rounded(p.upper, dtype);
}

void add_threshold_dynamics(const Case &c, int32_t dtype, ref::Problem &p) {
  Random random(c.seed_ + 5000);
  p.td.on = c.td_;
  p.td.size = c.td_size_;
  p.td.edge = rounded(edge_of(random, c.td_edge_, c, p.voxels()), dtype);
  if (c.kernel_ == Case::Kernel::gaussian) return;
  p.td.extent = c.kernel_extent_;
  int64_t taps = 1;
  for (int64_t n : p.td.extent) taps *= n;
  for (int64_t i = 0; i < (c.kernel_ == Case::Kernel::per_class ? c.classes_ : 1); ++i) {
    ref::Array kernel = random.array(taps, -0.3, 1);
    double sum = 0;
    for (double tap : kernel) sum += std::fabs(tap);
    for (double tap : kernel) p.td.kernel.push_back(tap / sum);
  }
  p.td.kernel = rounded(p.td.kernel, dtype);
}

void add_stars(const Case &c, int32_t dtype, ref::Problem &p) {
  Random random(c.seed_ + 6000);
  p.star.classes = c.stars_;
  for (int64_t k = 0; k < c.batch_ * p.star.count(); ++k)
    for (int64_t n : p.spatial) {
      const double last = static_cast<double>(n - 1);
      const double inside = std::floor(random.uniform(0, static_cast<double>(n)));
      switch (c.centers_) {
        case Case::Centers::random:
          p.star.center.push_back(random.uniform(-1, last + 1));
          break;
        case Case::Centers::on_voxel:
          p.star.center.push_back(inside);
          break;
        case Case::Centers::between:
          p.star.center.push_back(inside + 0.5);
          break;
        case Case::Centers::outside:
          p.star.center.push_back(k % 2 ? -2.25 : last + 3.5);
          break;
      }
    }
  p.star.center = rounded(p.star.center, dtype);
  for (int64_t m = 0; c.star_tau_ > 0 && m < p.star.count(); ++m)
    p.star.tau.push_back(c.star_tau_ * (1 + 0.5 * static_cast<double>(m)));
  // As an option one step is float64.
  if (p.star.count() > 1 || c.device_scalars_) p.star.tau = rounded(p.star.tau, dtype);
  if (c.warm_start_)
    p.star.init = rounded(random.array(c.batch_ * p.star.count() * p.voxels(), 0, 0.3), dtype);
}

// NaN at the masked voxels of an array [B, ..., *S].
void spoil_masked(const ref::Problem &p, ref::Array &values) {
  const int64_t voxels = p.voxels(), per_image = static_cast<int64_t>(values.size()) / p.batch;
  for (int64_t k = 0; k < static_cast<int64_t>(values.size()); ++k) {
    bool read = false;  // by an image; an array may be shared where the mask is not
    for (int64_t b = 0; b < p.batch; ++b)
      if (per_image < voxels || k / per_image == b) read = read || p.valid(b, k % voxels);
    if (!read) values[k] = kNaN;
  }
}

}  // namespace

int64_t Case::elements() const {
  int64_t count = batch_ * classes_;
  for (int64_t n : spatial_) count *= n;
  return count;
}

std::string Case::text() const {
  std::ostringstream out;
  const auto numbers = [&](const auto &values) {
    const char *separator = "{";
    for (auto value : values) out << separator << value, separator = ", ";
    out << "}";
  };
  const auto kind = [&](const char *call, const char *type, auto value, std::vector<const char *> names) {
    if (static_cast<int>(value) != 0)
      out << "." << call << "(" << type << "::" << names[static_cast<int>(value)] << ")";
  };
  out << "Case(";
  numbers(spatial_);
  out << ", " << classes_ << ", " << batch_ << ")";
  if (!name_.empty()) out << ".name(\"" << name_ << "\")";
  if (small_dtype_)
    out << (small_dtype_ == SEGPRIOR_FLOAT16 ? ".f16()" : ".bf16()");
  else if (float32_)
    out << ".f32()";
  if (eps_ != 0.5) out << ".eps(" << eps_ << ")";
  if (init_eps_ != 0) out << ".init_eps(" << init_eps_ << ")";
  if (tv_) out << ".tv(" << lam_ << ", " << tau_ << ")";
  const std::vector<const char *> edges{"none", "per_image", "shared"};
  kind("edge", "Edge", edge_, edges);
  if (td_) out << ".td(" << td_lam_ << ", " << td_size_ << ", " << td_sigma_ << ")";
  if (kernel_ != Kernel::gaussian) {
    out << ".td_kernel(";
    numbers(kernel_extent_);
    out << (kernel_ == Kernel::per_class ? ", true)" : ")");
  }
  kind("td_edge", "Edge", td_edge_, edges);
  if (!stars_.empty()) {
    out << ".star(";
    numbers(stars_);
    out << ", " << star_tau_ << ")";
  }
  kind("centers", "Centers", centers_, {"random", "on_voxel", "between", "outside"});
  kind("volumes", "Volumes", volumes_, {"none", "equal", "equal_zero", "box", "box_open", "lower", "upper"});
  kind("mask", "Mask", mask_, edges);
  if (!spacing_.empty()) {
    out << ".spacing(";
    numbers(spacing_);
    out << ")";
  }
  out << ".iterations(" << iterations_ << ")";
  if (tolerance_ > 0) out << ".tolerance(" << tolerance_ << ", " << check_interval_ << ")";
  if (accelerate_) out << ".accelerate()";
  if (checkpoint_ != 1) out << ".checkpoint(" << checkpoint_ << ")";
  if (warm_start_) out << ".warm_start()";
  if (accumulate_) out << ".accumulate()";
  if (device_scalars_) out << ".device_scalars()";
  if (path_ != SEGPRIOR_PATH_AUTO) out << ".path(" << path_ << ")";
  if (implicit_) out << ".implicit()";
  out << ".seed(" << seed_ << ")";
  return out.str();
}

ref::Problem make_problem(const Case &c) {
  ref::Problem p;
  const int32_t dtype = c.float32_ ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;  // of all but the features
  Random random(c.seed_);
  p.batch = c.batch_;
  p.classes = c.classes_;
  p.spatial = c.spatial_;
  p.spacing = c.spacing_;
  p.tv = c.tv_;
  p.accelerate = c.accelerate_;
  p.iterations = c.iterations_;
  p.check_interval = c.check_interval_;
  p.tolerance = c.tolerance_;
  p.single = c.float32_;
  p.init_eps = c.init_eps_;
  // Scalars given as tensors have the call's dtype; those in the options are float64.
  const auto scalar = [&](double value) { return c.device_scalars_ ? rounded({value}, dtype)[0] : value; };
  p.eps = scalar(c.eps_);
  p.lam = scalar(c.lam_);
  p.tau = scalar(c.tau_);
  p.td.lam = scalar(c.td_lam_);
  p.td.sigma = scalar(c.td_sigma_);
  const int64_t voxels = p.voxels();
  p.mask = mask_of(c, voxels);
  // The images differ in contrast, so that they stop at different iterations.
  for (int64_t b = 0; b < c.batch_; ++b) {
    const ref::Array image = random.array(c.classes_ * voxels, -1.0 - b, 1.0 + b);
    p.features.insert(p.features.end(), image.begin(), image.end());
  }
  p.features = rounded(p.features, c.dtype());
  p.edge = rounded(edge_of(random, c.edge_, c, voxels), dtype);
  add_volumes(random, c, dtype, p);
  if (c.warm_start_) {
    if (p.tv) p.init_tv = rounded(random.array(c.elements() * p.nd(), -0.3, 0.3), dtype);
    if (p.volume != ref::Volume::none)
      p.init_volume = rounded(random.array(c.batch_ * c.classes_, -0.3, 0.3), dtype);
  }
  if (c.td_) add_threshold_dynamics(c, dtype, p);
  if (!c.stars_.empty()) add_stars(c, dtype, p);
  if (!p.mask.empty())
    for (ref::Array *values : {&p.features, &p.edge, &p.init_tv, &p.td.edge, &p.star.init})
      spoil_masked(p, *values);
  return p;
}

ref::Array make_grad_u(const Case &c) {
  Random random(c.seed_ + 1000);
  ref::Array grad_u = rounded(random.array(c.elements(), -1, 1), c.dtype());
  ref::Problem p;
  p.batch = c.batch_;
  p.spatial = c.spatial_;
  p.mask = mask_of(c, p.voxels());
  if (!p.mask.empty()) spoil_masked(p, grad_u);
  return grad_u;
}

CallSettings settings_of(const Case &c) {
  CallSettings settings;
  settings.dtype = c.dtype();
  settings.path = c.path_;
  settings.checkpoint_interval = c.checkpoint_;
  settings.device_scalars = c.device_scalars_;
  settings.pass_lower = c.volumes_ != Volumes::upper;
  settings.pass_upper = c.volumes_ != Volumes::lower;
  return settings;
}

}  // namespace segprior::test
