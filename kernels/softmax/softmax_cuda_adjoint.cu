// clang-format off
// Entropic softmax on CUDA, one backward iteration for any number of classes: the exact adjoint of forward's
// step t, one thread per voxel, a loop over the classes. With R the gradient of the logits times 1 / eps,
// that is of o, of -div v and of f at once:
//
//   adjoint_softmax  R = u (u_bar - <u_bar, u>) / eps at t + 1, where u_bar = tau div y_bar, or grad_u at the end
//   adjoint_volume   the volume step's adjoint; needs the sums of R over the image
//   adjoint_mass     R += w (w_bar - <w_bar, w>) / eps;  grad_features += R;  u_t
//   collect_mass     f_bar += the sums of what adjoint_mass added
//   adjoint_dual     v_bar = y_bar + grad R, then the momentum's and the projection's adjoint: y_bar of t
// clang-format on
//
// Bytes per voxel and class, float32, nd = 2, plain: adjoint_softmax reads u and y_bar (a second time from
// cache), writes R: 16; adjoint_mass reads o, v_t+1, v_t (twice), R, grad_features, writes R, grad_features,
// u: 20 + 20 + 8 + 8 + 4 = 60 without a volume prior 44; adjoint_dual reads R, u, v, y_bar, writes y_bar: 32.
// When accelerated adjoint_dual also reads and writes grad_v: 16 more.
#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) final_u_kernel(Inputs<T> in, Adjoint<T> a) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels || failed(a.status[work.image])) return;
  const int t = a.iterations[work.image];
  const double *f = a.f ? a.f + t * g.batch * g.classes : nullptr;
  const double scale = t == 0 ? in.coefficients->init_scale : in.coefficients->scale;
  const Logits<T> z = logits_of(in, work.image, a.final_v, f, scale);
  const Site site = site_of(g, work.x);
  const Normaliser<T> n = normaliser(z, site);
  T *u = a.u + work.image * g.classes * g.voxels + work.x;
  for (int i = 0; i < g.classes; ++i) u[i * g.voxels] = softmax_value(z.at(i, site), n);
}

// This block's partial sum for one scalar.
template <class T>
__device__ double *scalar_partial(const Adjoint<T> &a, const Geometry<T> &g, const Work &work,
                                  Scalars which) {
  return a.scalar_partials + (work.image * kScalars + which) * g.chunks + work.chunk;
}

// Gradient of u at one voxel.
template <class T>
struct IncomingGrad {
  const Geometry<T> &g;
  const T *grad_u;  // of the image; null: tau div grad_y
  const T *grad_y;
  T tau;

  __device__ T at(int64_t i, const Site &s) const {
    if (grad_u) return grad_u[i * g.voxels + s.x];
    return grad_y ? tau * divergence(g, grad_y + i * g.nd * g.voxels, s) : T(0);
  }
};

// step: of u_t+1. start: of u_0; R goes straight to grad_features. end: of the final u, for the fused
// iterations, which need no stored R.
enum class At { step, start, end };

template <class T>
__global__ void __launch_bounds__(kThreads)
    adjoint_softmax_kernel(Inputs<T> in, Adjoint<T> a, int step_t, At where) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  const int done = a.iterations[work.image], t = where == At::end ? done - 1 : step_t;
  if (t >= done || failed(a.status[work.image])) return;
  if (where == At::end && done == 0) return;
  const bool at_start = where == At::start;
  if (at_start && a.fused > 0 && done > 0) return;  // part of the fused iteration 0
  const bool inside = work.x < g.voxels;
  const Site site = site_of(g, inside ? work.x : 0);
  const Params &p = in.coefficients->params;
  const int64_t base = work.image * g.classes * g.voxels;
  const IncomingGrad<T> grad{g, t + 1 == done ? a.grad_u + base : nullptr,
                             in.tv ? a.grad_y + base * g.nd : nullptr, static_cast<T>(p.tau)};
  const T *u = a.u + base + site.x;
  T mean = 0;
  for (int i = 0; i < g.classes; ++i) mean += grad.at(i, site) * u[i * g.voxels];

  const T inv_eps = static_cast<T>(1 / (at_start ? p.init_eps : p.eps));
  double log_sum = 0;
  double *partials =
      at_start || !in.has_volume ? nullptr : a.mass_partials + work.image * g.classes * g.chunks + work.chunk;
  ClassSums<T>::run(g.classes, partials, g.chunks, [&](int i) {
    if (!inside) return T(0);
    const T value = u[i * g.voxels], r = value * (grad.at(i, site) - mean) * inv_eps;
    const int64_t k = base + i * g.voxels + site.x;
    if (where == At::step) a.grad_logits[k] = r;
    if (at_start && a.grad_features) a.grad_features[k] += r;
    log_sum += log_term(r, value);
    return r;
  });
  log_sum = block_sum(log_sum);
  if (threadIdx.x == 0) *scalar_partial(a, g, work, at_start ? kStartSum : kEpsSum) += log_sum;
}

// One block per image and class.
template <class T>
__global__ void __launch_bounds__(kThreads) adjoint_volume_kernel(Inputs<T> in, Adjoint<T> a, int t) {
  const Geometry<T> &g = in.g;
  const int64_t k = blockIdx.x, history = g.batch * g.classes;
  if (t >= a.iterations[k / g.classes]) return;
  const bool fused = a.fused > 0 && t + 1 < a.iterations[k / g.classes];
  const double sum =
      fused ? sum_of(a.fused_mass + k * a.fused, a.fused) : sum_of(a.mass_partials + k * g.chunks, g.chunks);
  if (threadIdx.x != 0) return;
  const double lower = lower_of(in, k), upper = upper_of(in, k), eps = in.coefficients->params.eps;
  const double mass_log = a.log_mass[t * history + k];
  const VolumeStep step = volume_step(a.f[t * history + k], mass_log, lower, upper, eps);
  const VolumeAdjoint adjoint = volume_adjoint(step, a.f_bar[k] + sum, mass_log, lower, upper, eps);
  a.w_bar[k] = adjoint.w;
  a.f_bar[k] = adjoint.dual;
  a.eps_bar[k] += adjoint.eps;
  if (step.active != Active::none)
    (step.active == Active::upper ? a.upper_bar : a.lower_bar)[k] += adjoint.bound;
}

template <class T>
__global__ void __launch_bounds__(kThreads) collect_mass_kernel(Inputs<T> in, Adjoint<T> a, int t) {
  const Geometry<T> &g = in.g;
  const int64_t k = blockIdx.x;
  if (t >= a.iterations[k / g.classes]) return;
  const double sum = sum_of(a.mass_partials + k * g.chunks, g.chunks);
  if (threadIdx.x == 0) a.f_bar[k] += sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adjoint_mass_kernel(Inputs<T> in, Adjoint<T> a, int t, const T *v, const T *v_next) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  const int done = a.iterations[work.image];
  if (t >= done) return;
  const bool inside = work.x < g.voxels;
  const Site site = site_of(g, inside ? work.x : 0);
  const Coefficients &c = *in.coefficients;
  const double *f = a.f ? a.f + t * g.batch * g.classes : nullptr;
  const Logits<T> z_u = logits_of(in, work.image, v, f, t == 0 ? c.init_scale : c.scale);
  const Logits<T> z_w = logits_of(in, work.image, t + 1 == done ? a.final_v : v_next, f, c.scale);
  const double *w_bar = a.w_bar + work.image * g.classes;
  const int64_t base = work.image * g.classes * g.voxels + site.x;

  Online<T> online_u, online_w;
  T mean = 0;
  for (int i = 0; i < g.classes; ++i) {
    online_u.add(z_u.at(i, site));
    if (!in.has_volume) continue;
    const T z = z_w.at(i, site);
    mean *= online_w.add(z);
    mean += static_cast<T>(w_bar[i]) * exp2_of(z - online_w.max);
  }
  const Normaliser<T> n_u = online_u.result(), n_w = online_w.result();
  mean *= n_w.inv_sum;

  const T inv_eps = static_cast<T>(1 / c.params.eps);
  double log_sum = 0;
  double *partials =
      in.has_volume ? a.mass_partials + work.image * g.classes * g.chunks + work.chunk : nullptr;
  ClassSums<T>::run(g.classes, partials, g.chunks, [&](int i) {
    if (!inside) return T(0);
    const int64_t k = base + i * g.voxels;
    T added = 0, r = a.grad_logits[k];
    if (in.has_volume) {
      const T w = softmax_value(z_w.at(i, site), n_w);
      added = w * (static_cast<T>(w_bar[i]) - mean) * inv_eps;
      r += added;
      a.grad_logits[k] = r;
      log_sum += log_term(added, w);
    }
    if (a.grad_features) a.grad_features[k] += r;
    a.u[k] = softmax_value(z_u.at(i, site), n_u);
    return added;
  });
  if (!in.has_volume) return;
  log_sum = block_sum(log_sum);
  if (threadIdx.x == 0) *scalar_partial(a, g, work, kEpsSum) += log_sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adjoint_dual_kernel(Inputs<T> in, Adjoint<T> a, int t, const T *v) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  const int done = a.iterations[work.image];
  if (t >= done) return;
  double tau_sum = 0;
  if (work.x < g.voxels) {
    const Params &p = in.coefficients->params;
    const bool end = t + 1 == done;  // nothing comes from later iterations yet
    const T tau = static_cast<T>(p.tau), bound = bound_of(in, work.image, work.x, static_cast<T>(p.lam));
    const T beta = static_cast<T>(in.accelerate ? a.momentum[t * g.batch + work.image] : 0);
    const T beta_next =
        static_cast<T>(in.accelerate && !end ? a.momentum[(t + 1) * g.batch + work.image] : 0);
    const Site site = site_of(g, work.x);
    T bound_sum = 0;
    for (int i = 0; i < g.classes; ++i) {
      const int64_t scalar = (work.image * g.classes + i) * g.voxels + work.x;
      const int64_t base = (work.image * g.classes + i) * g.nd * g.voxels + work.x;
      const T u = a.u[scalar], r = a.grad_logits[scalar];
      T y[3], bar[3], slope[3];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        const int64_t k = base + c * g.voxels;
        const bool last = site.last >> c & 1;
        slope[c] = last ? T(0) : g.inv_h[c] * (a.u[scalar + g.stride[c]] - u);
        y[c] = v[k] - tau * slope[c];
        T v_bar = last ? T(0) : g.inv_h[c] * (a.grad_logits[scalar + g.stride[c]] - r);
        if (!end) v_bar += a.grad_y[k];
        bar[c] = v_bar;
        if (in.accelerate) {
          bar[c] = (1 + beta) * v_bar - (end ? T(0) : beta_next * a.grad_v[k]);
          a.grad_v[k] = v_bar;
        }
      }
      bound_sum += projection_adjoint(g.nd, bound, y, bar);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        a.grad_y[base + c * g.voxels] = bar[c];
        tau_sum -= static_cast<double>(bar[c]) * slope[c];
      }
    }
    if (a.grad_bound) a.grad_bound[work.image * g.voxels + work.x] += bound_sum;
  }
  tau_sum = block_sum(tau_sum);
  if (threadIdx.x == 0) *scalar_partial(a, g, work, kTauSum) += tau_sum;
}

}  // namespace

template <class T>
void adjoint_final_u(const Inputs<T> &in, const Adjoint<T> &a, cudaStream_t stream) {
  launch("final_u", final_u_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, a);
}

template <class T>
void adjoint_step(const Inputs<T> &in, const Adjoint<T> &a, int t, const T *v, const T *v_next,
                  cudaStream_t stream) {
  const dim3 voxels(in.g.batch * in.g.chunks), classes(in.g.batch * in.g.classes), threads(kThreads);
  launch("adjoint_softmax", adjoint_softmax_kernel<T>, voxels, threads, 0, stream, in, a, t, At::step);
  if (in.has_volume) adjoint_volume(in, a, t, stream);
  launch("adjoint_mass", adjoint_mass_kernel<T>, voxels, threads, 0, stream, in, a, t, v, v_next);
  if (in.has_volume) launch("collect_mass", collect_mass_kernel<T>, classes, threads, 0, stream, in, a, t);
  if (in.tv) launch("adjoint_dual", adjoint_dual_kernel<T>, voxels, threads, 0, stream, in, a, t, v);
}

template <class T>
void adjoint_start(const Inputs<T> &in, const Adjoint<T> &a, cudaStream_t stream) {
  launch("adjoint_start", adjoint_softmax_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0,
         stream, in, a, -1, At::start);
}

template <class T>
void adjoint_end(const Inputs<T> &in, const Adjoint<T> &a, cudaStream_t stream) {
  launch("adjoint_end", adjoint_softmax_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream,
         in, a, 0, At::end);
}

template <class T>
void adjoint_volume(const Inputs<T> &in, const Adjoint<T> &a, int t, cudaStream_t stream) {
  launch("adjoint_volume", adjoint_volume_kernel<T>, dim3(in.g.batch * in.g.classes), dim3(kThreads), 0,
         stream, in, a, t);
}

template void adjoint_end(const Inputs<float> &, const Adjoint<float> &, cudaStream_t);
template void adjoint_end(const Inputs<double> &, const Adjoint<double> &, cudaStream_t);
template void adjoint_volume(const Inputs<float> &, const Adjoint<float> &, int, cudaStream_t);
template void adjoint_volume(const Inputs<double> &, const Adjoint<double> &, int, cudaStream_t);
template void adjoint_final_u(const Inputs<float> &, const Adjoint<float> &, cudaStream_t);
template void adjoint_final_u(const Inputs<double> &, const Adjoint<double> &, cudaStream_t);
template void adjoint_step(const Inputs<float> &, const Adjoint<float> &, int, const float *, const float *,
                           cudaStream_t);
template void adjoint_step(const Inputs<double> &, const Adjoint<double> &, int, const double *,
                           const double *, cudaStream_t);
template void adjoint_start(const Inputs<float> &, const Adjoint<float> &, cudaStream_t);
template void adjoint_start(const Inputs<double> &, const Adjoint<double> &, cudaStream_t);

}  // namespace segprior::softmax::cuda
