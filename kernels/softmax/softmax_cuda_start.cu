// Entropic softmax on CUDA, what forward does around its iterations: resolve the parameters, scan the inputs,
// set the first iterate, write the outputs.
//
// Bytes per voxel and class, float32, nd axes: scan 4 (+ 4 nd warm start) + 4 nd written for iterate 0 (twice
// when accelerated); output 4 + 4 nd read twice (the second time mostly from cache), 4 + 4 nd written.
#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void resolve_kernel(ScalarArgs a, Coefficients *out) {
  const auto value = [](const void *device, double host) {
    return device ? static_cast<double>(*static_cast<const T *>(device)) : host;
  };
  GivenParams given = a.host;
  given.eps = value(a.eps, given.eps);
  given.lam = value(a.lam, given.lam);
  given.tau = value(a.tau, given.tau);
  given.td_lam = value(a.td_lam, given.td_lam);
  given.td_sigma = value(a.td_sigma, given.td_sigma);
  const Params p = resolve_params(given, a.rule);
  constexpr double kLog2E = 1.4426950408889634074;
  *out = {p, kLog2E / p.eps, kLog2E / p.init_eps};
}

// Partial maxima per block: |o|, edge (NaN if one is negative or NaN), |q| of the warm start.
template <class T>
__global__ void __launch_bounds__(kThreads) scan_kernel(Inputs<T> in, Start<T> start) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  double max[3] = {0, 0, 0};
  if (work.x < g.voxels) {
    const T *o = in.features + work.image * g.classes * g.voxels + work.x;
    for (int i = 0; i < g.classes; ++i) max[0] = Max()(max[0], static_cast<double>(fabs(o[i * g.voxels])));
    if (in.tv) {
      const double edge = bound_of(in, work.image, work.x, T(1));
      max[1] = edge >= 0 && edge < INFINITY ? edge : NAN;
      const int64_t base = work.image * g.classes * g.nd * g.voxels + work.x;
      const Site site = site_of(g, work.x);
      for (int k = 0; k < g.classes * g.nd; ++k) {
        const int64_t at = base + k * g.voxels;
        const T q = start.init_tv ? start.init_tv[at] : T(0);
        max[2] = Max()(max[2], static_cast<double>(fabs(q)));
        const bool outward = site.last >> (k % g.nd) & 1;  // points out of the grid: in no difference
        start.dual.v[at] = outward ? T(0) : q;
        if (start.dual.q) start.dual.q[at] = start.dual.v[at];
      }
    }
  }
  block_reduce(max, Max());
  if (threadIdx.x == 0)
    for (int k = 0; k < 3; ++k) start.partials[(work.image * 3 + k) * g.chunks + work.chunk] = max[k];
}

// One block per image: its volume duals and its status.
template <class T>
__global__ void __launch_bounds__(kThreads) start_kernel(Inputs<T> in, Start<T> start) {
  const Geometry<T> &g = in.g;
  const int64_t image = blockIdx.x;
  double max[3];
  for (int k = 0; k < 3; ++k) max[k] = max_of(start.partials + (image * 3 + k) * g.chunks, g.chunks);
  if (threadIdx.x != 0) return;

  begin_image(in, start, image, {max[0], max[1], max[2], 0}, static_cast<double>(g.voxels),
              isfinite(max[0]) && isfinite(max[2]), !isnan(max[1]));
}

// u and the duals of the final iterate; NaN for a failed image.
template <class T>
__global__ void __launch_bounds__(kThreads) output_kernel(Inputs<T> in, Results<T> out) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels) return;
  const Progress &progress = out.progress[work.image];
  const int64_t base = work.image * g.classes * g.voxels, duals = work.image * g.classes * g.nd * g.voxels;
  const T nan = static_cast<T>(NAN);
  if (failed(progress.status)) {
    for (int i = 0; i < g.classes; ++i) out.u[base + i * g.voxels + work.x] = nan;
    for (int k = 0; out.tv_dual && k < g.classes * g.nd; ++k)
      out.tv_dual[duals + k * g.voxels + work.x] = nan;
    return;
  }
  const int last = progress.iterations;
  const T *v = in.tv ? out.iterates.at(last, 0) : nullptr;
  const double scale = last == 0 ? in.coefficients->init_scale : in.coefficients->scale;
  const Logits<T> z = logits_of(in, work.image, v, out.f.at(last), scale);
  const Site site = site_of(g, work.x);
  const Normaliser<T> n = normaliser(z, site);
  for (int i = 0; i < g.classes; ++i) out.u[base + i * g.voxels + work.x] = softmax_value(z.at(i, site), n);
  if (!in.tv) return;

  const bool keep = out.iterates.interval > 0 && last < out.iterates.total;  // the last slot is elsewhere
  if (!keep && !out.tv_dual) return;
  for (int k = 0; k < g.classes * g.nd; ++k) {
    const int64_t at = duals + k * g.voxels + work.x;
    if (out.tv_dual) out.tv_dual[at] = v[at];
    for (int part = 0; keep && part < out.iterates.parts; ++part)
      out.iterates.at(out.iterates.total, part)[at] = v[at];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) report_kernel(Inputs<T> in, Results<T> out) {
  const int64_t image = blockIdx.x;
  const Progress &progress = out.progress[image];
  for (int i = threadIdx.x; out.volume_dual && i < in.g.classes; i += kThreads) {
    const int64_t k = image * in.g.classes + i;
    out.volume_dual[k] = static_cast<T>(failed(progress.status) ? NAN : out.f.at(progress.iterations)[k]);
  }
  if (threadIdx.x != 0) return;
  if (out.info) out.info[image] = {progress.status, progress.iterations, progress.residual};
  if (out.saved_iterations) out.saved_iterations[image] = progress.iterations;
  if (out.saved_status) out.saved_status[image] = progress.status;
}

}  // namespace

template <class T>
void resolve(const ScalarArgs &args, Coefficients *out, cudaStream_t stream) {
  launch("resolve", resolve_kernel<T>, dim3(1), dim3(1), 0, stream, args, out);
}

template <class T>
void start(const Inputs<T> &in, const Start<T> &start, cudaStream_t stream) {
  launch("scan", scan_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, start);
  launch("start", start_kernel<T>, dim3(in.g.batch), dim3(kThreads), 0, stream, in, start);
}

template <class T>
void finish(const Inputs<T> &in, const Results<T> &out, cudaStream_t stream) {
  launch("output", output_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, out);
  report(in, out, stream);
}

template <class T>
void report(const Inputs<T> &in, const Results<T> &out, cudaStream_t stream) {
  launch("report", report_kernel<T>, dim3(in.g.batch), dim3(kThreads), 0, stream, in, out);
}

template void resolve<float>(const ScalarArgs &, Coefficients *, cudaStream_t);
template void resolve<double>(const ScalarArgs &, Coefficients *, cudaStream_t);
template void start(const Inputs<float> &, const Start<float> &, cudaStream_t);
template void start(const Inputs<double> &, const Start<double> &, cudaStream_t);
template void finish(const Inputs<float> &, const Results<float> &, cudaStream_t);
template void finish(const Inputs<double> &, const Results<double> &, cudaStream_t);
template void report(const Inputs<float> &, const Results<float> &, cudaStream_t);
template void report(const Inputs<double> &, const Results<double> &, cudaStream_t);

}  // namespace segprior::softmax::cuda
