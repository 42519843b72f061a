// Entropic softmax on CUDA, the mixed path: one forward iteration but for the forces of threshold dynamics
// and stars. One thread per voxel, a loop over the classes.
//
// Bytes per voxel and class, float32, nd = 2 ("base" is o, or o - r where forces are kept):
//   dual      read u 4, v 8, write v 8          20   (+ 16 when accelerated: q)
//   volume    read base 4, v 8                  12   (volume prior only)
//   softmax   read base 4, v 8, write u 4       16   (checks read u: 4 more)
// Without a TV prior the v terms go.
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) dual_kernel(Mixed<T> m, MixedStep<T> step) {
  const Inputs<T> &in = m.in;
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (!active(step.base.gate, work.image)) return;
  double product = 0;
  if (work.x < g.voxels) {
    const Place place = place_of(m, work.image, work.x);
    const Params &p = in.coefficients->params;
    const T tau = static_cast<T>(p.tau), lam = static_cast<T>(p.lam);
    const T beta = static_cast<T>(momentum_of(step.base.gate, work.image, g.batch));
    const T bound = place.valid ? bound_of(in, work.image, work.x, lam) : T(0);
    for (int i = 0; i < g.classes; ++i) {
      const int64_t scalar = (work.image * g.classes + i) * g.voxels;
      const int64_t base = (work.image * g.classes + i) * g.nd * g.voxels + work.x;
      T y[3], slope[3], square = 0;
      gradient(g, step.u + scalar, place.site, slope);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        y[c] = step.base.from.v[base + c * g.voxels] - tau * slope[c];
        square += y[c] * y[c];
      }
      const T norm = sqrt(square), shrink = norm > bound ? bound / norm : T(1);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        const int64_t k = base + c * g.voxels;
        const T q = y[c] * shrink;
        if (!in.accelerate) {
          step.base.to.v[k] = q;
          continue;
        }
        const T change = q - step.base.from.q[k];
        product += static_cast<double>(step.base.from.v[k] - q) * change;
        step.base.to.v[k] = q + beta * change;
        if (step.base.to.q) step.base.to.q[k] = q;
      }
    }
    // Several dual fields: each product counts by its step.
    if (m.star.count > 0) product /= p.tau;
  }
  if (!step.restart) return;
  product = block_sum(product);
  const int fields = m.star.count + 1;
  if (threadIdx.x == 0) step.restart[(work.image * fields + m.star.count) * g.chunks + work.chunk] = product;
}

// Partial masses of w = S((o - r + f_t) / eps) over the valid voxels.
template <class T>
__global__ void __launch_bounds__(kThreads) mass_kernel(Mixed<T> m, MixedStep<T> step) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(step.base.gate, work.image)) return;
  const bool inside = work.x < g.voxels;
  const Place place = place_of(m, work.image, inside ? work.x : 0);
  const Logits<T> z =
      mixed_logits<T>(m, work.image, step.force, step.base.to.v, step.base.f, m.in.coefficients->scale);
  const Normaliser<T> n = normaliser(z, place.site);
  double *partials = step.base.partials + work.image * g.classes * g.chunks + work.chunk;
  ClassSums<T>::run(g.classes, partials, g.chunks, [&](int i) {
    return inside && place.valid ? softmax_value(z.at(i, place.site), n) : T(0);
  });
}

// One block per image and class.
template <class T>
__global__ void __launch_bounds__(kThreads) volume_kernel(Inputs<T> in, Step<T> step) {
  const int64_t k = blockIdx.x;
  if (!active(step.gate, k / in.g.classes)) return;
  const double mass = sum_of(step.partials + k * in.g.chunks, in.g.chunks);
  if (threadIdx.x == 0) finish_volume(in, step, k, mass);
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) softmax_kernel(Mixed<T> m, SoftmaxStep<T> step) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!takes_part(step.gate, step.start, work.image)) return;
  double max = 0;
  if (work.x < g.voxels) {
    const Place place = place_of(m, work.image, work.x);
    const Coefficients &c = *m.in.coefficients;
    const Logits<T> z =
        mixed_logits(m, work.image, step.base, step.v, step.f, step.init_scale ? c.init_scale : c.scale);
    const Normaliser<T> n = place.valid ? normaliser(z, place.site) : Normaliser<T>{0, 0};
    for (int i = 0; i < g.classes; ++i) {
      const int64_t k = (work.image * g.classes + i) * g.voxels + work.x;
      const T u = place.valid ? softmax_value(z.at(i, place.site), n) : T(0);
      if (step.residual) max = Max()(max, static_cast<double>(fabs(u - step.old[k])));
      step.u[k] = u;
    }
  }
  if (!step.residual) return;
  max = block_max(max);
  if (threadIdx.x == 0) step.residual[work.image * g.chunks + work.chunk] = max;
}

}  // namespace

template <class T>
void MixedSteps<T>::dual(const Mixed<T> &m, const MixedStep<T> &step, cudaStream_t stream) {
  launch("mixed_dual", dual_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m,
         step);
}

template <class T>
void MixedSteps<T>::volume(const Mixed<T> &m, const MixedStep<T> &step, cudaStream_t stream) {
  const Geometry<T> &g = m.in.g;
  launch("mixed_mass", mass_kernel<T>, dim3(g.batch * g.chunks), dim3(kThreads), 0, stream, m, step);
  launch("volume", volume_kernel<T>, dim3(g.batch * g.classes), dim3(kThreads), 0, stream, m.in, step.base);
}

template <class T>
void MixedSteps<T>::softmax(const Mixed<T> &m, const SoftmaxStep<T> &step, cudaStream_t stream) {
  launch("mixed_softmax", softmax_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m,
         step);
}

template <class T>
void MixedSteps<T>::forces(const Mixed<T> &m, const MixedStep<T> &step, cudaStream_t stream) {
  if (m.td.on) MixedThreshold<T>::force(m, step.base.gate, step.u, step.force, stream);
  if (m.in.tv) dual(m, step, stream);
  if (m.star.count == 0) return;
  MixedStars<T>::step(m, step, stream);
  MixedStars<T>::force(
      m, {step.base.gate, false, step.star_next.v, nullptr, nullptr, step.base.t, step.force}, stream);
}

template struct MixedSteps<float>;
template struct MixedSteps<double>;

}  // namespace segprior::softmax::cuda
