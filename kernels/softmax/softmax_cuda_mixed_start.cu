// Entropic softmax on CUDA, the mixed path: what a call does before and after its iterations.
//
// Bytes per voxel and class, float32, nd axes: scan 4, + 4 nd read and written per part of a TV dual, + 4 / I
// per star dual, + 4 for the copy of o that the force starts from; output 0 to 8 for u (it usually lies where
// it belongs), 8 nd for a dual that is wanted.
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

// One block. Steps of the stars and the largest sum of |k_i|.
template <class T>
__global__ void __launch_bounds__(kThreads) prepare_kernel(Mixed<T> m) {
  const StarView<T> &star = m.star;
  const double eps = m.in.coefficients->params.eps;
  double invalid = 0, largest = 0, kernel_sum = m.td.gaussian ? 1 : 0;
  for (int k = threadIdx.x; k < star.count; k += kThreads) {
    const double given = star.given_tau ? static_cast<double>(star.given_tau[k]) : star.host_tau;
    const double tau = star.default_tau ? eps * star.tau_slope : given;
    star.tau[k] = tau;
    if (!(tau > 0 && tau < INFINITY)) invalid = 1;
    largest = Max()(largest, tau);
  }
  const int kernels = !m.td.on || m.td.gaussian ? 0 : m.td.per_class ? m.in.g.classes : 1;
  for (int i = threadIdx.x; i < kernels; i += kThreads) {
    double sum = 0;
    for (int k = 0; k < m.td.taps; ++k)
      sum += fabs(static_cast<double>(m.td.kernel[static_cast<int64_t>(i) * m.td.taps + k]));
    kernel_sum = Max()(kernel_sum, sum);
  }
  double values[3] = {invalid, largest, kernel_sum};
  block_reduce(values, Max());
  if (threadIdx.x == 0) *m.prepared = {values[2], values[1], values[0] == 0};
}

// What one voxel's inputs say, the worst of all voxels. Masked voxels say nothing.
enum Scanned { kFeature, kTvEdge, kInitTv, kTdEdge, kInitStar, kNegativeStar, kMaxima };
constexpr int kValid = kMaxima;  // the number of valid voxels
static_assert(kScanned == kMaxima + 1, "");

// An edge weight, or NaN if it is not in its domain.
template <class T>
__device__ double checked_edge(const T *edge, int64_t at) {
  if (!edge) return 1;
  const double value = edge[at];
  return value >= 0 && value < INFINITY ? value : NAN;
}

template <class T>
__global__ void __launch_bounds__(kThreads) scan_kernel(Mixed<T> m, MixedStart<T> start) {
  const Inputs<T> &in = m.in;
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  double max[kMaxima] = {}, valid = 0;
  if (work.x < g.voxels) {
    const Place place = place_of(m, work.image, work.x);
    valid = place.valid ? 1 : 0;
    for (int i = 0; i < g.classes; ++i) {
      const int64_t k = (work.image * g.classes + i) * g.voxels + work.x;
      if (place.valid) max[kFeature] = Max()(max[kFeature], static_cast<double>(fabs(in.features[k])));
      if (start.force) start.force[k] = in.features[k];
    }
    if (in.tv) {
      if (place.valid)
        max[kTvEdge] = checked_edge(in.edge, (in.edge_shared ? 0 : work.image * g.voxels) + work.x);
      const int64_t base = work.image * g.classes * g.nd * g.voxels + work.x;
      for (int k = 0; k < g.classes * g.nd; ++k) {
        const int64_t at = base + k * g.voxels;
        const T q = place.valid && start.base.init_tv ? start.base.init_tv[at] : T(0);
        max[kInitTv] = Max()(max[kInitTv], static_cast<double>(fabs(q)));
        const T kept = place.site.last >> (k % g.nd) & 1 ? T(0) : q;
        start.base.dual.v[at] = kept;
        if (start.base.dual.q) start.base.dual.q[at] = kept;
      }
    }
    if (m.td.on && place.valid)
      max[kTdEdge] = checked_edge(m.td.given_edge, work.image * m.td.given_stride + work.x);
    for (int k = 0; k < m.star.count; ++k) {
      const int64_t at = (work.image * m.star.count + k) * g.voxels + work.x;
      const T value = place.valid && start.init_star ? start.init_star[at] : T(0);
      max[kInitStar] = Max()(max[kInitStar], static_cast<double>(fabs(value)));
      if (value < 0) max[kNegativeStar] = 1;
      start.star.v[at] = value;
      if (start.star.q) start.star.q[at] = value;
    }
  }
  block_reduce(max, Max());
  valid = block_sum(valid);
  if (threadIdx.x != 0) return;
  double *partials = start.partials + work.image * kScanned * g.chunks + work.chunk;
  for (int k = 0; k < kMaxima; ++k) partials[k * g.chunks] = max[k];
  partials[kValid * g.chunks] = valid;
}

// One block per image.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) start_kernel(Mixed<T> m, MixedStart<T> start) {
  const Geometry<T> &g = m.in.g;
  const int64_t image = blockIdx.x;
  const double *partials = start.partials + image * kScanned * g.chunks;
  double max[kMaxima];
  for (int k = 0; k < kMaxima; ++k) max[k] = max_of(partials + k * g.chunks, g.chunks);
  const double voxels = sum_of(partials + kValid * g.chunks, g.chunks);
  if (threadIdx.x != 0) return;
  const Prepared &prepared = *m.prepared;
  bool finite = isfinite(max[kFeature]) && isfinite(max[kInitTv]) && isfinite(max[kInitStar]) &&
                isfinite(prepared.kernel_sum);
  for (int k = 0; k < m.star.count * g.nd; ++k)
    finite = finite && isfinite(m.star.center[image * m.star.count * g.nd + k]);
  const bool valid =
      !isnan(max[kTvEdge]) && !isnan(max[kTdEdge]) && max[kNegativeStar] == 0 && prepared.star_valid;
  Magnitudes magnitudes{max[kFeature], max[kTvEdge], max[kInitTv], 0};
  if (m.td.on)
    magnitudes.force += td_force(m.in.coefficients->params.td_lam, prepared.kernel_sum, max[kTdEdge]);
  if (m.star.count > 0)
    magnitudes.force +=
        star_force(max[kInitStar], prepared.star_tau, m.in.iterations, start.base.inv_spacing_sum);
  begin_image(m.in, start.base, image, magnitudes, voxels, finite, valid);
}

// From an iterate to an output and, where the image ended before the last iteration, to the last slot.
template <class T>
__device__ void keep(const Iterates<T> &iterates, int last, T *out, int64_t at) {
  const T value = iterates.at(last, 0)[at];
  if (out) out[at] = value;
  if (iterates.interval == 0 || last == iterates.total) return;
  for (int part = 0; part < iterates.parts; ++part) iterates.at(iterates.total, part)[at] = value;
}

template <class T>
__global__ void __launch_bounds__(kThreads) output_kernel(Mixed<T> m, MixedResults<T> out) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels) return;
  const Progress &progress = out.base.progress[work.image];
  const bool bad = failed(progress.status);
  // Entry `field` of this voxel, of `fields` per image.
  const auto write = [&](const Iterates<T> &iterates, T *array, int fields) {
    for (int field = 0; field < fields; ++field) {
      const int64_t at = (work.image * fields + field) * g.voxels + work.x;
      if (!bad) keep(iterates, progress.iterations, array, at);
      if (bad && array) array[at] = static_cast<T>(NAN);
    }
  };
  write(out.u, out.base.u, g.classes);
  if (m.in.tv) write(out.base.iterates, out.base.tv_dual, g.classes * g.nd);
  if (m.star.count > 0) write(out.star, out.star_dual, m.star.count);
}

}  // namespace

template <class T>
void MixedCall<T>::prepare(const Mixed<T> &m, cudaStream_t stream) {
  launch("prepare", prepare_kernel<T>, dim3(1), dim3(kThreads), 0, stream, m);
  if (m.td.on) MixedThreshold<T>::prepare(m, stream);
}

template <class T>
void MixedCall<T>::start(const Mixed<T> &m, const MixedStart<T> &start, cudaStream_t stream) {
  const Geometry<T> &g = m.in.g;
  launch("mixed_scan", scan_kernel<T>, dim3(g.batch * g.chunks), dim3(kThreads), 0, stream, m, start);
  launch("mixed_start", start_kernel<T>, dim3(g.batch), dim3(kThreads), 0, stream, m, start);
}

template <class T>
void MixedCall<T>::finish(const Mixed<T> &m, const MixedResults<T> &out, cudaStream_t stream) {
  launch("mixed_output", output_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m,
         out);
  report(m.in, out.base, stream);
}

template struct MixedCall<float>;
template struct MixedCall<double>;

}  // namespace segprior::softmax::cuda
