#include "kernels/softmax/softmax_cpu_scan.h"

namespace segprior::softmax {
namespace {

// Of threshold dynamics' kernel: the largest sum of |k| over the classes; infinite if a tap is not finite.
template <class T>
double kernel_sum(const Problem &p) {
  if (p.td.gaussian) return 1;
  const T *tap = static_cast<const T *>(p.td.kernel);
  double largest = 0;
  for (int64_t i = 0; i < (p.td.per_class ? p.grid.classes : 1); ++i) {
    double sum = 0;
    for (int k = 0; k < p.td.taps(); ++k) sum += std::abs(static_cast<double>(*tap++));
    largest = std::isfinite(sum) ? std::max(largest, sum) : INFINITY;
  }
  return largest;
}

}  // namespace

template <class T>
auto Scan<T>::range(const void *data, int64_t planes, bool want_negative) const -> Range {
  const T *field = static_cast<const T *>(data);
  const int64_t size = image_.slice_size();
  const auto over_rows = [&](const auto &f) {
    return max_over_slices(team_, image_.slices(), slice_max_, [&](int64_t s) {
      double result = 0;
      for (int64_t i = 0; i < planes; ++i)
        result = std::max<double>(result, f(field + i * image_.voxels() + s * size,
                                            image_.valid ? image_.valid + s * size : nullptr));
      return result;
    });
  };
  Range r{};
  r.largest = over_rows([&](const T *row, const T *valid) {
    if (!valid) return image_.rows.max_abs(size, row);
    T result = 0;
    for (int64_t x = 0; x < size; ++x) {
      const T value = valid[x] > 0 ? std::abs(row[x]) : T{0};
      result = std::max(result, std::isfinite(value) ? value : std::numeric_limits<T>::infinity());
    }
    return result;
  });
  if (want_negative)
    r.negative = over_rows([&](const T *row, const T *valid) {
                   int negative = 0;
                   for (int64_t x = 0; x < size; ++x) negative |= row[x] < 0 && (!valid || valid[x] > 0);
                   return negative;
                 }) > 0;
  return r;
}

template <class T>
int32_t Scan<T>::run(double voxels, double *f) const {
  const Grid &g = p_.grid;
  Magnitudes max{};
  max.feature = range(image_.features, g.classes, false).largest;
  max.edge = 1;
  bool valid = params_.valid, finite = true;
  const auto edge = [&](const T *field) {
    const Range r = range(field, 1, true);
    valid = valid && !r.negative && std::isfinite(r.largest);
    return r.largest;
  };
  if (image_.edge) max.edge = edge(image_.edge);
  if (p_.has_init_tv)
    max.init_tv =
        range(static_cast<const T *>(p_.init_tv) + image_.index * image_.dual_size(), g.classes * g.nd, false)
            .largest;
  if (p_.td.on) {
    const double td_edge = image_.td_edge ? edge(image_.td_edge) : 1, sum = kernel_sum<T>(p_);
    finite = finite && std::isfinite(sum);
    max.force += td_force(params_.td_lam, sum, td_edge);
  }
  if (p_.star.count > 0) {
    Range init{};
    const int64_t size = p_.star.count * image_.voxels();
    if (p_.star.has_init)
      init = range(static_cast<const T *>(p_.star.init) + image_.index * size, p_.star.count, true);
    valid = valid && star_.tau_valid() && !init.negative;
    finite = finite && star_.centers_finite() && std::isfinite(init.largest);
    max.force += star_force(init.largest, star_.max_tau(), p_.iterations, g.inv_spacing_sum());
  }
  if (team_.rank != 0) return SEGPRIOR_ITERATION_CAP;
  VolumeCheck check;
  const bool volume = p_.volume != Volume::none;
  const T *init = static_cast<const T *>(p_.init_volume);
  for (int64_t i = 0; i < g.classes; ++i) {
    const double upper = upper_bound<T>(p_, image_.index, i);
    f[i] = p_.has_init_volume ? init[image_.index * g.classes + i] : 0;
    if (!volume) continue;
    check.add(lower_bound<T>(p_, image_.index, i), upper);
    if (excluded(upper)) {
      f[i] = -INFINITY;
    } else {
      finite = finite && std::isfinite(f[i]);
      max.init_volume = std::max(max.init_volume, std::abs(f[i]));
    }
  }
  finite = finite && std::isfinite(max.feature) && std::isfinite(max.init_tv);
  valid = valid && (!volume || check.valid(voxels));
  const bool in = in_range(max, params_, g.inv_spacing_sum(), p_.tv, sizeof(T) == sizeof(float));
  return start_status(finite, valid, in, !volume || check.feasible(voxels));
}

template class Scan<float>;
template class Scan<double>;

}  // namespace segprior::softmax
