// Entropic softmax on CUDA, what backward does around its iterations: clear the accumulators, write the
// gradients; and the whole backward with constant duals.
//
// Bytes per voxel and class, float32: last_softmax reads u and grad_u (a second time from cache), writes 4:
// 12; the edge gradient 4 / I read and written.
#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) clear_kernel(Inputs<T> in, Adjoint<T> a, bool accumulate) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (threadIdx.x == 0)
    for (int k = 0; k < kScalars; ++k)
      a.scalar_partials[(work.image * kScalars + k) * g.chunks + work.chunk] = 0;
  if (work.chunk == 0)
    for (int64_t k = threadIdx.x; k < kScalars * a.fused; k += kThreads)
      a.fused_scalars[work.image * kScalars * a.fused + k] = 0;
  if (in.has_volume && work.chunk == 0)
    for (int i = threadIdx.x; i < g.classes; i += kThreads)
      for (double *sums : {a.f_bar, a.w_bar, a.lower_bar, a.upper_bar, a.eps_bar})
        sums[work.image * g.classes + i] = 0;
  if (work.x >= g.voxels) return;
  if (a.grad_bound) a.grad_bound[work.image * g.voxels + work.x] = 0;
  const bool bad = failed(a.status[work.image]);
  if (!a.grad_features || (accumulate && !bad)) return;
  for (int i = 0; i < g.classes; ++i)
    a.grad_features[(work.image * g.classes + i) * g.voxels + work.x] = static_cast<T>(bad ? NAN : 0);
}

template <class T>
__device__ void store(T *out, bool accumulate, double value) {
  *out = static_cast<T>(accumulate ? static_cast<double>(*out) + value : value);
}

template <class T>
__global__ void __launch_bounds__(kThreads) lam_kernel(Inputs<T> in, Adjoint<T> a) {
  const Work work = work_of(in.g);
  double sum = 0;
  if (work.x < in.g.voxels) {
    const T bar = a.grad_bound[work.image * in.g.voxels + work.x];
    // The edge of a masked voxel may hold anything.
    sum = bar == 0 ? 0.0 : static_cast<double>(bound_of(in, work.image, work.x, T(1))) * bar;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.scalar_partials[(work.image * kScalars + kLamSum) * in.g.chunks + work.chunk] = sum;
}

// A shared edge: one thread per voxel of the one map, which adds up the batch in order.
template <class T>
__global__ void __launch_bounds__(kThreads) edge_kernel(Inputs<T> in, Adjoint<T> a, T *out, bool accumulate) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels) return;
  const int64_t end = in.edge_shared ? g.batch : work.image + 1;
  double sum = 0;
  for (int64_t image = work.image; image < end; ++image)
    sum += failed(a.status[image]) ? NAN : static_cast<double>(a.grad_bound[image * g.voxels + work.x]);
  store(out + work.image * g.voxels + work.x, accumulate, in.coefficients->params.lam * sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads) bounds_kernel(Inputs<T> in, Adjoint<T> a, GradOutputs<T> out) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= in.g.batch * in.g.classes) return;
  const bool bad = failed(a.status[k / in.g.classes]);
  if (out.lower) store(out.lower + k, out.accumulate, bad ? NAN : a.lower_bar[k]);
  if (out.upper) store(out.upper + k, out.accumulate, bad ? NAN : a.upper_bar[k]);
}

// One block: the scalars, summed over the batch in order.
template <class T>
__global__ void __launch_bounds__(kThreads) scalars_kernel(Inputs<T> in, Adjoint<T> a, GradOutputs<T> out) {
  const Geometry<T> &g = in.g;
  double eps = 0, init_eps = 0, tau = 0, lam = 0;
  for (int64_t image = 0; image < g.batch; ++image) {
    double sums[kScalars];
    for (int k = 0; k < kScalars; ++k) {
      sums[k] = sum_of(a.scalar_partials + (image * kScalars + k) * g.chunks, g.chunks);
      if (a.fused > 0) sums[k] += sum_of(a.fused_scalars + (image * kScalars + k) * a.fused, a.fused);
      if (failed(a.status[image])) sums[k] = NAN;
    }
    eps -= sums[kEpsSum];
    if (in.has_volume) eps += sum_of(a.eps_bar + image * g.classes, g.classes);
    init_eps -= sums[kStartSum];
    tau += sums[kTauSum];
    lam += sums[kLamSum];
  }
  if (threadIdx.x != 0) return;
  if (!out.separate_init_eps) eps += init_eps;
  if (out.default_tau) eps += tau * out.tau_slope;
  if (out.eps) store(out.eps, out.accumulate, eps);
  if (out.init_eps) store(out.init_eps, out.accumulate, init_eps);
  if (out.tau) store(out.tau, out.accumulate, tau);
  if (out.lam) store(out.lam, out.accumulate, lam);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    last_softmax_kernel(Geometry<T> g, Scalar eps, const T *u, const T *grad_u, T *grad_features,
                        bool accumulate) {
  const Work work = work_of(g);
  if (work.x >= g.voxels) return;
  const int64_t base = work.image * g.classes * g.voxels + work.x;
  const double given = eps.device ? static_cast<double>(*static_cast<const T *>(eps.device)) : eps.host;
  const T inv_eps = static_cast<T>(1 / given);
  T mean = 0;
  for (int i = 0; i < g.classes; ++i) mean += u[base + i * g.voxels] * grad_u[base + i * g.voxels];
  for (int i = 0; i < g.classes; ++i) {
    const int64_t k = base + i * g.voxels;
    const T grad = u[k] * (grad_u[k] - mean) * inv_eps;
    grad_features[k] = accumulate ? grad_features[k] + grad : grad;
  }
}

}  // namespace

template <class T>
void adjoint_clear(const Inputs<T> &in, const Adjoint<T> &a, bool accumulate, cudaStream_t stream) {
  launch("clear", clear_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, a,
         accumulate);
}

template <class T>
void adjoint_outputs(const Inputs<T> &in, const Adjoint<T> &a, const GradOutputs<T> &out,
                     cudaStream_t stream) {
  const Geometry<T> &g = in.g;
  const dim3 threads(kThreads);
  if (out.lam) launch("lam", lam_kernel<T>, dim3(g.batch * g.chunks), threads, 0, stream, in, a);
  if (out.edge)
    launch("edge", edge_kernel<T>, dim3((in.edge_shared ? 1 : g.batch) * g.chunks), threads, 0, stream, in, a,
           out.edge, out.accumulate);
  if (out.lower || out.upper)
    launch("bounds", bounds_kernel<T>, dim3(ceil_div(g.batch * g.classes, kThreads)), threads, 0, stream, in,
           a, out);
  if (out.eps || out.init_eps || out.lam || out.tau)
    launch("scalars", scalars_kernel<T>, dim3(1), threads, 0, stream, in, a, out);
}

template <class T>
void last_softmax(const Geometry<T> &g, const Scalar &eps, const T *u, const T *grad_u, T *grad_features,
                  bool accumulate, cudaStream_t stream) {
  launch("last_softmax", last_softmax_kernel<T>, dim3(g.batch * g.chunks), dim3(kThreads), 0, stream, g, eps,
         u, grad_u, grad_features, accumulate);
}

template void adjoint_clear(const Inputs<float> &, const Adjoint<float> &, bool, cudaStream_t);
template void adjoint_clear(const Inputs<double> &, const Adjoint<double> &, bool, cudaStream_t);
template void adjoint_outputs(const Inputs<float> &, const Adjoint<float> &, const GradOutputs<float> &,
                              cudaStream_t);
template void adjoint_outputs(const Inputs<double> &, const Adjoint<double> &, const GradOutputs<double> &,
                              cudaStream_t);
template void last_softmax(const Geometry<float> &, const Scalar &, const float *, const float *, float *,
                           bool, cudaStream_t);
template void last_softmax(const Geometry<double> &, const Scalar &, const double *, const double *, double *,
                           bool, cudaStream_t);

}  // namespace segprior::softmax::cuda
