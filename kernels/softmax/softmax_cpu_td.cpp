// Threshold dynamics on the CPU: taps and K, force, adjoint, gradients. Each is a walk over the rows of every
// class's plane (softmax_cpu_td_walk.h) with its own row kernel at the end.
#include "kernels/softmax/softmax_cpu_td.h"

#include <algorithm>

#include "kernels/softmax/softmax_cpu_td_walk.h"

namespace segprior::softmax {
namespace {

constexpr int64_t kMinJobs = 64;  // if the image has that many slices
constexpr int kSums = 2;          // of a job: lam, sigma; a given kernel's taps follow

// Sums over an image are split into jobs, a class and a chunk of slices each. The split depends on the
// problem alone, so the sums do not depend on the number of threads.
struct Jobs {
  int64_t slices, chunks, count;

  explicit Jobs(const Grid &g)
      : slices(g.extent[0]),
        chunks(std::max<int64_t>(1, std::min(slices, (kMinJobs + g.classes - 1) / g.classes))),
        count(g.classes * chunks) {}
  int64_t class_of(int64_t job) const { return job / chunks; }
  int64_t begin(int64_t job) const { return slices * (job % chunks) / chunks; }
  int64_t end(int64_t job) const { return slices * (job % chunks + 1) / chunks; }
};

int sums_per_job(const ThresholdDynamics &td) { return kSums + (td.gaussian ? 0 : td.taps()); }

// The filter of class i, or its transpose.
template <class T>
TdTaps<T> class_taps(const ThresholdDynamics &td, const TdBuffers<T> &b, int64_t i, bool transposed) {
  TdTaps<T> taps{};
  if (!td.gaussian)
    taps.given = (transposed ? b.flipped : b.taps) + (td.per_class ? i * td.taps() : 0);
  else
    for (int axis = 0; axis < 3; ++axis) taps.axis[axis] = b.taps + axis * kMaxTaps;
  return taps;
}

template <class T>
TdTaps<T> with_slopes(TdTaps<T> taps, const TdBuffers<T> &b) {
  for (int axis = 0; axis < 3; ++axis) taps.slopes[axis] = b.slopes + axis * kMaxTaps;
  return taps;
}

}  // namespace

template <class T>
TdBuffers<T> TdBuffers<T>::carve(const Problem &p, int threads, bool backward, Arena &arena) {
  TdBuffers b{};
  if (!p.td.on) return b;
  const ThresholdDynamics &td = p.td;
  const Grid &g = p.grid;
  const int64_t kernels = td.per_class ? g.classes : 1, columns = g.extent[2];
  b.taps = arena.take<T>(td.gaussian ? 3 * kMaxTaps : kernels * td.taps());
  b.flipped = arena.take<T>(td.gaussian ? 0 : kernels * td.taps());
  b.slopes = arena.take<T>(td.gaussian ? 3 * kMaxTaps : 0);
  b.kernel_sum = arena.take<T>(g.voxels(), kernels);
  b.slope_sum = arena.take<T>(backward && td.gaussian ? g.voxels() : 0);
  b.zeros = arena.take<T>(columns);
  b.ones = arena.take<T>(columns);
  // Backward: channels of the derivative in sigma, or one more row for e R in the given kernel's gradient.
  const int64_t rows = td_channels(td) * td_channel_rows(p), more = td.gaussian ? rows : 1;
  b.scratch_size = (rows + (backward ? more : 0)) * td_padded(columns);
  b.scratch = arena.take<T>(b.scratch_size, threads);
  b.partial = arena.take<double>(backward ? Jobs(g).count * sums_per_job(td) : 0);
  return b;
}

template <class T>
void ThresholdForce<T>::prepare() const {
  const ThresholdDynamics &td = image_.problem.td;
  const int64_t columns = image_.columns(), voxels = image_.voxels();
  team_.barrier();
  std::fill_n(buffers_.scratch + team_.rank * buffers_.scratch_size, buffers_.scratch_size, T{0});
  if (team_.rank == 0) {
    std::fill_n(buffers_.zeros, columns, T{0});
    std::fill_n(buffers_.ones, columns, T{1});
    if (td.gaussian) {
      for (int axis = 0; axis < 3; ++axis) {
        double tap[kMaxTaps], slope[kMaxTaps];
        gaussian_taps(params_.td_sigma, td.size[axis], tap, slope);
        std::copy_n(tap, td.size[axis], buffers_.taps + axis * kMaxTaps);
        std::copy_n(slope, td.size[axis], buffers_.slopes + axis * kMaxTaps);
      }
    } else {
      const int64_t size = td.taps(), kernels = td.per_class ? image_.grid().classes : 1;
      const T *kernel = static_cast<const T *>(td.kernel);
      std::copy_n(kernel, kernels * size, buffers_.taps);
      for (int64_t i = 0; i < kernels; ++i)
        std::reverse_copy(kernel + i * size, kernel + (i + 1) * size, buffers_.flipped + i * size);
    }
  }
  team_.barrier();
  // Half of B m, which without edge rows is 2 k * m.
  const TdWalk<T> walk(image_, buffers_, team_);
  const auto store = [&](const TdFilterRow<T> &row, T *out) {
    image_.rows.td.apply(row, static_cast<T>(0.5), nullptr, out);
  };
  for (int64_t i = 0; i < (td.per_class ? image_.grid().classes : 1); ++i)
    walk.filter_band(image_.valid, nullptr, class_taps(td, buffers_, i, false),
                     [&](int64_t offset, const TdFilterRow<T> &row) {
                       store(row, buffers_.kernel_sum + i * voxels + offset);
                     });
  if (buffers_.slope_sum)
    walk.filter_slopes(image_.valid, nullptr, with_slopes(class_taps(td, buffers_, 0, false), buffers_),
                       team_.begin(image_.slices()), team_.end(image_.slices()),
                       [&](int64_t offset, const TdFilterRow<T> &, const TdFilterRow<T> &slope) {
                         store(slope, buffers_.slope_sum + offset);
                       });
  team_.barrier();
}

template <class T>
const T *ThresholdForce<T>::kernel_sum(int64_t i) const {
  return buffers_.kernel_sum + (image_.problem.td.per_class ? i * image_.voxels() : 0);
}

template <class T>
void ThresholdForce<T>::force(const T *u, T *base) const {
  const TdWalk<T> walk(image_, buffers_, team_);
  const T lam = static_cast<T>(params_.td_lam);
  for (int64_t i = 0; i < image_.grid().classes; ++i) {
    const int64_t plane = i * image_.voxels();
    const T *sum = kernel_sum(i);
    walk.filter_band(u + plane, image_.td_edge, class_taps(image_.problem.td, buffers_, i, false),
                     [&](int64_t offset, TdFilterRow<T> row) {
                       row.kernel_sum = sum + offset;
                       image_.rows.td.apply(row, lam, image_.features + plane + offset,
                                            base + plane + offset);
                     });
  }
}

template <class T>
void ThresholdForce<T>::adjoint(const T *grad_logits, T *grad_u) const {
  const TdWalk<T> walk(image_, buffers_, team_);
  const T lam = static_cast<T>(params_.td_lam);
  for (int64_t i = 0; i < image_.grid().classes; ++i) {
    const int64_t plane = i * image_.voxels();
    walk.filter_band(grad_logits + plane, image_.td_edge, class_taps(image_.problem.td, buffers_, i, true),
                     [&](int64_t offset, const TdFilterRow<T> &row) {
                       image_.rows.td.apply(row, lam, nullptr, grad_u + plane + offset);
                     });
  }
}

// e_bar = lam sum_i R_i (k_i * u_i - K_i) + u_i (k_i^T * R_i)
template <class T>
void ThresholdForce<T>::edge_gradient(const T *grad_logits, const T *u, T *grad_edge) const {
  const ThresholdDynamics &td = image_.problem.td;
  const TdWalk<T> walk(image_, buffers_, team_);
  const T lam = static_cast<T>(params_.td_lam);
  for (int64_t i = 0; i < image_.grid().classes; ++i) {
    const T *u_i = u + i * image_.voxels(), *r_i = grad_logits + i * image_.voxels(), *sum = kernel_sum(i);
    walk.filter_band(u_i, nullptr, class_taps(td, buffers_, i, false),
                     [&](int64_t offset, TdFilterRow<T> row) {
                       row.kernel_sum = sum + offset;
                       image_.rows.td.add_product(row, lam, r_i + offset, grad_edge + offset);
                     });
    walk.filter_band(r_i, nullptr, class_taps(td, buffers_, i, true),
                     [&](int64_t offset, const TdFilterRow<T> &row) {
                       image_.rows.td.add_product(row, lam, u_i + offset, grad_edge + offset);
                     });
  }
}

// Sums of one job: sum R (B u - e K) for lam; the same with d k / d sigma for sigma; the taps of a given
// kernel.
template <class T>
void ThresholdForce<T>::job_sums(const T *grad_logits, const T *u, int64_t job, bool want_lam,
                                 bool want_sigma, bool want_kernel) const {
  const ThresholdDynamics &td = image_.problem.td;
  const Jobs jobs(image_.grid());
  const int64_t i = jobs.class_of(job), begin = jobs.begin(job), end = jobs.end(job);
  const T *u_i = u + i * image_.voxels(), *r_i = grad_logits + i * image_.voxels(), *edge = image_.td_edge;
  double *sums = buffers_.partial + job * sums_per_job(td);
  std::fill_n(sums, sums_per_job(td), 0.0);
  const TdWalk<T> walk(image_, buffers_, team_);
  const TdTaps<T> taps = class_taps(td, buffers_, i, false);
  const auto dot = [&](int64_t offset, TdFilterRow<T> row, const T *kernel_sums) {
    row.kernel_sum = kernel_sums + offset;
    return image_.rows.td.dot(row, r_i + offset);
  };
  const auto add_lam = [&](int64_t offset, const TdFilterRow<T> &row) {
    sums[0] += dot(offset, row, kernel_sum(i));
  };
  if (want_sigma)
    walk.filter_slopes(u_i, edge, with_slopes(taps, buffers_), begin, end,
                       [&](int64_t offset, const TdFilterRow<T> &row, const TdFilterRow<T> &slope) {
                         if (want_lam) add_lam(offset, row);
                         sums[1] += dot(offset, slope, buffers_.slope_sum);
                       });
  else if (want_lam)
    walk.filter(u_i, edge, taps, begin, end, add_lam);
  if (want_kernel) walk.kernel_gradient(r_i, u_i, edge, begin, end, sums + kSums);
}

template <class T>
void ThresholdForce<T>::parameters(const T *grad_logits, const T *u, bool want_lam, bool want_sigma,
                                   TdGrads<T> &grads) const {
  const ThresholdDynamics &td = image_.problem.td;
  const Jobs jobs(image_.grid());
  const bool want_kernel = grads.kernel != nullptr;
  team_.barrier();
  if (grads.edge) edge_gradient(grad_logits, u, grads.edge);
  if (want_lam || want_sigma || want_kernel)
    for (int64_t job = team_.begin(jobs.count); job < team_.end(jobs.count); ++job)
      job_sums(grad_logits, u, job, want_lam, want_sigma, want_kernel);
  team_.barrier();
  if (team_.rank != 0) return;
  for (int64_t job = 0; job < jobs.count; ++job) {
    const double *sums = buffers_.partial + job * sums_per_job(td);
    if (want_lam) grads.lam += sums[0];
    if (want_sigma) grads.sigma += params_.td_lam * sums[1];
    if (!want_kernel) continue;
    double *kernel = grads.kernel + (td.per_class ? jobs.class_of(job) * td.taps() : 0);
    for (int k = 0; k < td.taps(); ++k) kernel[k] += params_.td_lam * sums[kSums + k];
  }
}

template struct TdBuffers<float>;
template struct TdBuffers<double>;
template class ThresholdForce<float>;
template class ThresholdForce<double>;

}  // namespace segprior::softmax
