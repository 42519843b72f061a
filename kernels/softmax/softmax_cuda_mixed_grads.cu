// Entropic softmax on CUDA, the mixed path: what backward does around its iterations. Clears and writes what
// softmax_cuda_grads.cu does not know, and keeps the books of the implicit backward's passes.
//
// Bytes: 4 per voxel and class to clear, 12 per voxel for the edge gradient; the rest is per block or image.
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) clear_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (threadIdx.x == 0) {
    for (int k = 0; a.td_partials && k < 2 * g.classes; ++k)
      a.td_partials[(work.image * 2 * g.classes + k) * g.chunks + work.chunk] = 0;
    for (int k = 0; k < m.star.count * (1 + g.nd); ++k)
      a.star_partials[(work.image * m.star.count * (1 + g.nd) + k) * g.chunks + work.chunk] = 0;
  }
  const int taps = g.classes * m.td.taps;
  for (int64_t k = work.x; a.td_kernel && k < taps; k += g.chunks * kThreads)
    a.td_kernel[work.image * taps + k] = 0;
  if (work.x >= g.voxels) return;
  if (a.td_edge) a.td_edge[work.image * g.voxels + work.x] = 0;
  // Threshold dynamics writes all of these fields in each iteration, stars their classes alone.
  for (int i = 0; i < g.classes; ++i) {
    const int64_t k = (work.image * g.classes + i) * g.voxels + work.x;
    if (a.grad_field && !m.td.on) a.grad_field[k] = 0;
    if (a.force && !m.td.on) a.force[k] = m.in.features[k];
    if (a.r_sum) a.r_sum[k] = 0;
  }
}

template <class T>
__device__ void store(void *out, int64_t at, bool accumulate, double value) {
  T *element = static_cast<T *>(out) + at;
  *element = static_cast<T>(accumulate ? static_cast<double>(*element) + value : value);
}

// One block per star class: the sum over the batch in order.
template <class T>
__global__ void __launch_bounds__(kThreads) star_tau_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const int64_t chunks = m.in.g.chunks;
  double total = 0;
  for (int64_t image = 0; image < m.in.g.batch; ++image) {
    const double *partials = a.star_partials + (image * m.star.count + blockIdx.x) * (1 + m.in.g.nd) * chunks;
    const double sum = sum_of(partials, chunks);
    total += failed(a.base.status[image]) ? NAN : sum;
  }
  if (threadIdx.x == 0) a.star_tau_sums[blockIdx.x] = total;
}

// One block.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scalars_kernel(Mixed<T> m, MixedAdjoint<T> a, MixedGradOutputs out) {
  const int64_t partials = m.in.g.classes * m.in.g.chunks;
  double td[2] = {0, 0};
  for (int64_t image = 0; a.td_partials && image < m.in.g.batch; ++image)
    for (int k = 0; k < 2; ++k) {
      const double sum = sum_of(a.td_partials + (image * 2 + k) * partials, partials);
      td[k] += failed(a.base.status[image]) ? NAN : sum;
    }
  if (threadIdx.x != 0) return;
  if (out.td_lam) store<T>(out.td_lam, 0, out.accumulate, td[0]);
  if (out.td_sigma) store<T>(out.td_sigma, 0, out.accumulate, m.in.coefficients->params.td_lam * td[1]);
  double eps = 0;
  for (int k = 0; k < m.star.count; ++k) {
    eps += a.star_tau_sums[k] * m.star.tau_slope;
    if (out.star_tau) store<T>(out.star_tau, k, out.accumulate, a.star_tau_sums[k]);
  }
  if (out.eps && out.tau_into_eps) store<T>(out.eps, 0, true, eps);  // adjoint_outputs wrote the rest
}

// One block per image and star class.
template <class T>
__global__ void __launch_bounds__(kThreads)
    center_kernel(Mixed<T> m, MixedAdjoint<T> a, MixedGradOutputs out) {
  const int64_t k = blockIdx.x, image = k / m.star.count, chunks = m.in.g.chunks;
  const int nd = m.in.g.nd;
  for (int c = 0; c < nd; ++c) {
    const double sum = sum_of(a.star_partials + (k * (1 + nd) + 1 + c) * chunks, chunks);
    if (threadIdx.x == 0)
      store<T>(out.star_center, k * nd + c, out.accumulate, failed(a.base.status[image]) ? NAN : sum);
  }
}

// One thread per element of the given kernel: the sum over images and, if shared, classes in order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    kernel_kernel(Mixed<T> m, MixedAdjoint<T> a, MixedGradOutputs out) {
  const int taps = m.td.taps, classes = m.in.g.classes;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= (m.td.per_class ? classes : 1) * static_cast<int64_t>(taps)) return;
  const int first = static_cast<int>(at / taps), end = m.td.per_class ? first + 1 : classes;
  double sum = 0;
  for (int64_t image = 0; image < m.in.g.batch; ++image)
    for (int i = first; i < end; ++i)
      sum += failed(a.base.status[image]) ? NAN : a.td_kernel[(image * classes + i) * taps + at % taps];
  store<T>(out.td_kernel, at, out.accumulate, m.in.coefficients->params.td_lam * sum);
}

// A shared edge: one thread per voxel of the one map, which adds up the batch in order.
template <class T>
__global__ void __launch_bounds__(kThreads) edge_kernel(Mixed<T> m, MixedAdjoint<T> a, MixedGradOutputs out) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels) return;
  const int64_t end = out.shared_edge ? g.batch : work.image + 1;
  double sum = 0;
  for (int64_t image = work.image; image < end; ++image)
    sum += failed(a.base.status[image]) ? NAN : static_cast<double>(a.td_edge[image * g.voxels + work.x]);
  store<T>(out.td_edge, work.image * g.voxels + work.x, out.accumulate,
           m.in.coefficients->params.td_lam * sum);
}

// ---- Passes of the implicit backward ----

// One block per image and class: f and ln sum u of the final iterate; and the image's state.
template <class T>
__global__ void __launch_bounds__(kThreads)
    begin_passes_kernel(Mixed<T> m, MixedAdjoint<T> a, Passes passes) {
  const Geometry<T> &g = m.in.g;
  const int64_t k = blockIdx.x, image = k / g.classes;
  const bool bad = failed(a.base.status[image]);
  if (threadIdx.x == 0 && k % g.classes == 0) {
    passes.running[image] = bad ? 0 : 1;
    passes.done[image] = 0;
    passes.first[image] = 0;
    passes.residual[image] = bad ? NAN : 0;
    if (passes.momentum) {
      passes.momentum[image] = {};
      passes.momentum[image].advance();
    }
  }
  if (bad || !m.in.has_volume) return;
  double sum = 0;
  for (int64_t x = threadIdx.x; x < g.voxels; x += kThreads) sum += a.final_u[k * g.voxels + x];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  passes.f[k] = passes.history[passes.iterations[image] * g.batch * g.classes + k];
  passes.log_mass[k] = log_mass(sum, sizeof(T) == sizeof(float));
}

// One block per image.
template <class T>
__global__ void __launch_bounds__(kThreads)
    end_pass_kernel(Mixed<T> m, MixedAdjoint<T> a, Passes passes, double tolerance) {
  const int64_t image = blockIdx.x, chunks = m.in.g.chunks;
  const bool running = passes.running[image] != 0;
  __syncthreads();  // read by all before thread 0 changes it
  if (!running) return;
  const double change = max_of(a.change + image * chunks, chunks);
  if (threadIdx.x != 0) return;
  if (a.t == 0) passes.first[image] = change;
  const double first = passes.first[image], residual = first == 0 ? 0 : change / first;
  passes.done[image] = first == 0 ? 0 : a.t + 1;
  passes.residual[image] = residual;
  bool settled = residual <= tolerance;
  if (passes.momentum) {
    settled = passes.momentum[image].settled(settled);
    passes.momentum[image].advance();
  }
  // What is not finite ends it too.
  if (settled || !(residual < INFINITY)) passes.running[image] = 0;
}

template <class T>
__global__ void report_kernel(Mixed<T> m, MixedAdjoint<T> a, Passes passes, double tolerance,
                              segprior_info *info) {
  const int64_t image = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (image >= m.in.g.batch) return;
  const int32_t forward = a.base.status[image];
  const bool converged = !passes.running[image] && passes.residual[image] <= tolerance;
  const int32_t own = converged ? SEGPRIOR_CONVERGED : SEGPRIOR_ITERATION_CAP;
  info[image] = {failed(forward) ? forward : own, passes.done[image], passes.residual[image]};
}

}  // namespace

template <class T>
void MixedGrads<T>::clear(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  launch("mixed_clear", clear_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m, a);
}

template <class T>
void MixedGrads<T>::outputs(const Mixed<T> &m, const MixedAdjoint<T> &a, const MixedGradOutputs &out,
                            cudaStream_t stream) {
  const Geometry<T> &g = m.in.g;
  const dim3 threads(kThreads);
  if (m.star.count > 0) launch("star_tau", star_tau_kernel<T>, dim3(m.star.count), threads, 0, stream, m, a);
  launch("mixed_scalars", scalars_kernel<T>, dim3(1), threads, 0, stream, m, a, out);
  if (out.star_center)
    launch("star_center", center_kernel<T>, dim3(g.batch * m.star.count), threads, 0, stream, m, a, out);
  if (out.td_kernel)
    launch("td_kernel", kernel_kernel<T>,
           dim3(ceil_div((m.td.per_class ? g.classes : 1) * m.td.taps, kThreads)), threads, 0, stream, m, a,
           out);
  if (out.td_edge)
    launch("td_edge", edge_kernel<T>, dim3((out.shared_edge ? 1 : g.batch) * g.chunks), threads, 0, stream, m,
           a, out);
}

template <class T>
void MixedGrads<T>::begin_passes(const Mixed<T> &m, const MixedAdjoint<T> &a, const Passes &passes,
                                 cudaStream_t stream) {
  launch("begin_passes", begin_passes_kernel<T>, dim3(m.in.g.batch * m.in.g.classes), dim3(kThreads), 0,
         stream, m, a, passes);
}

template <class T>
void MixedGrads<T>::end_pass(const Mixed<T> &m, const MixedAdjoint<T> &a, const Passes &passes,
                             double tolerance, cudaStream_t stream) {
  launch("end_pass", end_pass_kernel<T>, dim3(m.in.g.batch), dim3(kThreads), 0, stream, m, a, passes,
         tolerance);
}

template <class T>
void MixedGrads<T>::report(const Mixed<T> &m, const MixedAdjoint<T> &a, const Passes &passes,
                           double tolerance, segprior_info *info, cudaStream_t stream) {
  launch("report_passes", report_kernel<T>, dim3(ceil_div(m.in.g.batch, kThreads)), dim3(kThreads), 0, stream,
         m, a, passes, tolerance, info);
}

template struct MixedGrads<float>;
template struct MixedGrads<double>;

}  // namespace segprior::softmax::cuda
