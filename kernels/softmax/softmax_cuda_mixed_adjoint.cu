// Entropic softmax on CUDA, the mixed path: adjoints of the softmax, the volume step and the TV step. The
// formulas are those of softmax_cuda_adjoint.cu; those of the kept forces are in softmax_cuda_mixed_td.cu and
// softmax_cuda_mixed_star.cu. One thread per voxel, a loop over the classes. R is 0 at masked voxels.
//
// Bytes per voxel and class, float32, nd = 2, plain: softmax reads u, grad_field, grad_y 8, writes R: 20
// (grad_features 8 more without a volume prior); volume reads o - r, v_t+1 8, R and grad_features, writes
// both: 28; dual reads R, u, v 8, grad_y 8, writes grad_y 8: 32. When accelerated dual moves 16 more.
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) final_u_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (work.x >= g.voxels || failed(a.base.status[work.image])) return;
  const int t = a.base.iterations[work.image];
  const double *f = a.base.f ? a.base.f + t * g.batch * g.classes : nullptr;
  const Coefficients &c = *m.in.coefficients;
  const Logits<T> z =
      mixed_logits<T>(m, work.image, nullptr, a.base.final_v, f, t == 0 ? c.init_scale : c.scale);
  const Place place = place_of(m, work.image, work.x);
  const Normaliser<T> n = place.valid ? normaliser(z, place.site) : Normaliser<T>{0, 0};
  T *u = a.base.u + work.image * g.classes * g.voxels + work.x;
  for (int i = 0; i < g.classes; ++i)
    u[i * g.voxels] = place.valid ? softmax_value(z.at(i, place.site), n) : T(0);
}

template <class T>
__device__ void add_scalar(const MixedAdjoint<T> &a, const Geometry<T> &g, const Work &work, Scalars which,
                           double sum) {
  a.base.scalar_partials[(work.image * kScalars + which) * g.chunks + work.chunk] += sum;
}

template <class T>
__device__ void store_change(const MixedAdjoint<T> &a, const Geometry<T> &g, const Work &work, double max) {
  if (!a.frozen) return;
  max = block_max(max);
  if (threadIdx.x == 0) a.change[work.image * g.chunks + work.chunk] = max;
}

template <class T>
__global__ void __launch_bounds__(kThreads) softmax_kernel(Mixed<T> m, MixedAdjoint<T> a, bool start) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (failed(a.base.status[work.image])) return;
  if (!start && !active(a.gate, work.image)) return;
  const bool end = at_end(a, work.image), inside = work.x < g.voxels;
  const Place place = place_of(m, work.image, inside ? work.x : 0);
  const bool valid = inside && place.valid;
  const Params &p = m.in.coefficients->params;
  const int64_t base = work.image * g.classes * g.voxels, x = place.site.x;
  const T *u = (end ? a.final_u : a.u_next) + base + x;
  const T *grad_y = m.in.tv ? a.base.grad_y + base * g.nd : nullptr;
  const T tau = static_cast<T>(p.tau);
  // Gradient of u.
  const auto grad = [&](int i) {
    const int64_t k = base + i * g.voxels + x;
    if (end) return a.base.grad_u[k];
    T sum = a.grad_field ? a.grad_field[k] : T(0);
    if (grad_y) sum += tau * divergence(g, grad_y + i * g.nd * g.voxels, place.site);
    return sum;
  };
  T mean = 0;
  for (int i = 0; valid && i < g.classes; ++i) mean += grad(i) * u[i * g.voxels];

  const T inv_eps = static_cast<T>(1 / (start ? p.init_eps : p.eps));
  const bool complete = start || !m.in.has_volume;
  double log_sum = 0, max = 0;
  double *partials =
      complete ? nullptr : a.base.mass_partials + work.image * g.classes * g.chunks + work.chunk;
  ClassSums<T>::run(g.classes, partials, g.chunks, [&](int i) {
    if (!inside) return T(0);
    const T value = u[i * g.voxels], r = valid ? value * (grad(i) - mean) * inv_eps : T(0);
    const int64_t k = base + i * g.voxels + x;
    a.base.grad_logits[k] = r;
    if (complete && a.base.grad_features) a.base.grad_features[k] += r;
    if (complete && a.r_sum) a.r_sum[k] += r;
    log_sum += log_term(r, value);
    max = Max()(max, static_cast<double>(fabs(r)));
    return r;
  });
  log_sum = block_sum(log_sum);
  if (threadIdx.x == 0) add_scalar(a, g, work, start ? kStartSum : kEpsSum, log_sum);
  if (complete) store_change(a, g, work, max);
}

// R += w (w_bar - <w_bar, w>) / eps, w = S((o - r + f_t) / eps) or, frozen, the final u, which it equals.
template <class T>
__global__ void __launch_bounds__(kThreads) mass_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image)) return;
  const bool inside = work.x < g.voxels;
  const Place place = place_of(m, work.image, inside ? work.x : 0);
  const bool valid = inside && place.valid;
  const Coefficients &c = *m.in.coefficients;
  const T *v = at_end(a, work.image) ? a.base.final_v : a.v_next;
  const Logits<T> z = mixed_logits<T>(m, work.image, a.force, v, a.f, c.scale);
  const double *w_bar = a.base.w_bar + work.image * g.classes;
  const int64_t base = work.image * g.classes * g.voxels + place.site.x;
  const Normaliser<T> n = valid && !a.frozen ? normaliser(z, place.site) : Normaliser<T>{0, 0};
  const auto w_at = [&](int i) {
    return a.frozen ? a.final_u[base + i * g.voxels] : softmax_value(z.at(i, place.site), n);
  };
  T mean = 0;
  for (int i = 0; valid && i < g.classes; ++i) mean += static_cast<T>(w_bar[i]) * w_at(i);

  const T inv_eps = static_cast<T>(1 / c.params.eps);
  double log_sum = 0, max = 0;
  double *partials = a.base.mass_partials + work.image * g.classes * g.chunks + work.chunk;
  ClassSums<T>::run(g.classes, partials, g.chunks, [&](int i) {
    if (!valid) return T(0);
    const int64_t k = base + i * g.voxels;
    const T w = w_at(i), added = w * (static_cast<T>(w_bar[i]) - mean) * inv_eps;
    const T r = a.base.grad_logits[k] + added;
    a.base.grad_logits[k] = r;
    if (a.base.grad_features) a.base.grad_features[k] += r;
    if (a.r_sum) a.r_sum[k] += r;
    log_sum += log_term(added, w);
    max = Max()(max, static_cast<double>(fabs(r)));
    return added;
  });
  log_sum = block_sum(log_sum);
  if (threadIdx.x == 0) add_scalar(a, g, work, kEpsSum, log_sum);
  store_change(a, g, work, max);
}

// One block per image and class: f_bar += the sums of what mass_kernel added.
template <class T>
__global__ void __launch_bounds__(kThreads) collect_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const int64_t k = blockIdx.x;
  if (!active(a.gate, k / g.classes)) return;
  const double sum = sum_of(a.base.mass_partials + k * g.chunks, g.chunks);
  if (threadIdx.x == 0) a.base.f_bar[k] += sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads) dual_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Inputs<T> &in = m.in;
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image)) return;
  double tau_sum = 0;
  if (work.x < g.voxels) {
    const Params &p = in.coefficients->params;
    const bool end = at_end(a, work.image);
    const Place place = place_of(m, work.image, work.x);
    const T tau = static_cast<T>(p.tau);
    const T bound = place.valid ? bound_of(in, work.image, work.x, static_cast<T>(p.lam)) : T(0);
    const bool momentum = a.base.grad_v != nullptr;
    const Betas betas = momentum ? betas_of(a, work.image, g.batch, end) : Betas{0, 0};
    const T beta = static_cast<T>(betas.now), beta_next = static_cast<T>(betas.next);
    T bound_sum = 0;
    for (int i = 0; i < g.classes; ++i) {
      const int64_t scalar = (work.image * g.classes + i) * g.voxels;
      const int64_t base = (work.image * g.classes + i) * g.nd * g.voxels + work.x;
      T y[3], bar[3], slope[3], r_slope[3];
      gradient(g, a.u + scalar, place.site, slope);
      gradient(g, a.base.grad_logits + scalar, place.site, r_slope);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        const int64_t k = base + c * g.voxels;
        y[c] = a.v[k] - tau * slope[c];
        const T v_bar = end ? r_slope[c] : r_slope[c] + a.base.grad_y[k];
        bar[c] = v_bar;
        if (momentum) {
          bar[c] = (1 + beta) * v_bar - (end ? T(0) : beta_next * a.base.grad_v[k]);
          a.base.grad_v[k] = v_bar;
        }
      }
      bound_sum += projection_adjoint(g.nd, bound, y, bar);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        a.base.grad_y[base + c * g.voxels] = bar[c];
        tau_sum -= static_cast<double>(bar[c]) * slope[c];
      }
    }
    if (a.base.grad_bound) a.base.grad_bound[work.image * g.voxels + work.x] += bound_sum;
  }
  tau_sum = block_sum(tau_sum);
  if (threadIdx.x == 0) add_scalar(a, g, work, kTauSum, tau_sum);
}

}  // namespace

template <class T>
void MixedAdjoints<T>::final_u(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  launch("mixed_final_u", final_u_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m,
         a);
}

template <class T>
void MixedAdjoints<T>::softmax(const Mixed<T> &m, const MixedAdjoint<T> &a, bool start, cudaStream_t stream) {
  launch("mixed_adjoint_softmax", softmax_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0,
         stream, m, a, start);
}

template <class T>
void MixedAdjoints<T>::volume(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  const Geometry<T> &g = m.in.g;
  const dim3 threads(kThreads);
  adjoint_volume(m.in, a.base, a.frozen ? 0 : a.t, stream);
  launch("mixed_adjoint_mass", mass_kernel<T>, dim3(g.batch * g.chunks), threads, 0, stream, m, a);
  launch("mixed_collect", collect_kernel<T>, dim3(g.batch * g.classes), threads, 0, stream, m, a);
}

template <class T>
void MixedAdjoints<T>::dual(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  launch("mixed_adjoint_dual", dual_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream,
         m, a);
}

template struct MixedAdjoints<float>;
template struct MixedAdjoints<double>;

}  // namespace segprior::softmax::cuda
