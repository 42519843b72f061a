// Entropic softmax on CUDA, one forward iteration for any number of classes: one thread per voxel, a loop
// over the classes, no per-class state in registers.
//
// Bytes per voxel and class, float32, nd = 2 (what a cache of one tile cannot keep; the normalisers are 8
// bytes per voxel, over all classes):
//   normalise      read o, v                   12
//   update_dual    read o, v, write v          20   (+ 16 when accelerated: q)
//   update_volume  read o, v, twice            24   (volume prior only)
//   residual       read o, v twice             20   (checks only; and two times normalise)
#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
__device__ double scale_at(const Inputs<T> &in, int t) {
  return t == 0 ? in.coefficients->init_scale : in.coefficients->scale;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(Inputs<T> in, Gate gate, int t, const T *v, const double *f, Normaliser<T> *out) {
  const Work work = work_of(in.g);
  if (!active(gate, work.image) || work.x >= in.g.voxels) return;
  const Logits<T> z = logits_of(in, work.image, v, f, scale_at(in, t));
  out[work.image * in.g.voxels + work.x] = normaliser(z, site_of(in.g, work.x));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    update_dual_kernel(Inputs<T> in, Step<T> step, const Normaliser<T> *normalisers, double *restart) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (!active(step.gate, work.image)) return;
  double product = 0;
  if (work.x < g.voxels) {
    const Logits<T> z = logits_of<T>(in, work.image, step.from.v, step.f, scale_at(in, step.t));
    const T tau = static_cast<T>(in.coefficients->params.tau);
    const T beta = static_cast<T>(momentum_of(step.gate, work.image, g.batch));
    const T bound = bound_of(in, work.image, work.x, static_cast<T>(in.coefficients->params.lam));
    const Normaliser<T> *at = normalisers + work.image * g.voxels + work.x;
    const Site site = site_of(g, work.x);
    for (int i = 0; i < g.classes; ++i) {
      const int64_t base = (work.image * g.classes + i) * g.nd * g.voxels + work.x;
      const T u = softmax_value(z.at(i, site), *at);
      T y[3], square = 0;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        y[c] = step.from.v[base + c * g.voxels];
        if (!(site.last >> c & 1))
          y[c] -= tau * g.inv_h[c] * (softmax_value(z.at(i, ahead(g, site, c)), at[g.stride[c]]) - u);
        square += y[c] * y[c];
      }
      const T norm = sqrt(square), shrink = norm > bound ? bound / norm : T(1);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c >= g.nd) break;
        const int64_t k = base + c * g.voxels;
        const T q = y[c] * shrink;
        if (!in.accelerate) {
          step.to.v[k] = q;
          continue;
        }
        const T change = q - step.from.q[k];
        product += static_cast<double>(step.from.v[k] - q) * change;
        step.to.v[k] = q + beta * change;
        if (step.to.q) step.to.q[k] = q;
      }
    }
  }
  if (!restart) return;
  product = block_sum(product);
  if (threadIdx.x == 0) restart[work.image * g.chunks + work.chunk] = product;
}

// Partial masses of w = S((o - div v_t+1 + f_t) / eps).
template <class T>
__global__ void __launch_bounds__(kThreads) mass_kernel(Inputs<T> in, Step<T> step) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (!active(step.gate, work.image)) return;
  const bool inside = work.x < g.voxels;
  const Logits<T> z = logits_of<T>(in, work.image, step.to.v, step.f, in.coefficients->scale);
  const Site site = site_of(g, inside ? work.x : 0);
  const Normaliser<T> n = normaliser(z, site);
  constexpr int kGroup = 4;  // classes per block reduction
  for (int first = 0; first < g.classes; first += kGroup) {
    double mass[kGroup];
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const int i = first + k;
      mass[k] = inside && i < g.classes ? softmax_value(z.at(i, site), n) : T(0);
    }
    block_reduce(mass, Sum());
    if (threadIdx.x != 0) continue;
    for (int k = 0; k < kGroup && first + k < g.classes; ++k)
      step.partials[(work.image * g.classes + first + k) * g.chunks + work.chunk] = mass[k];
  }
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
__global__ void __launch_bounds__(kThreads)
    residual_kernel(Inputs<T> in, Step<T> step, const Normaliser<T> *old_u, const Normaliser<T> *new_u,
                    double *out) {
  const Geometry<T> &g = in.g;
  const Work work = work_of(g);
  if (!active(step.gate, work.image)) return;
  double max = 0;
  if (work.x < g.voxels) {
    const Logits<T> before = logits_of<T>(in, work.image, step.from.v, step.f, scale_at(in, step.t));
    const Logits<T> after = logits_of<T>(in, work.image, step.to.v, step.f_next, in.coefficients->scale);
    const Site site = site_of(g, work.x);
    const Normaliser<T> a = old_u[work.image * g.voxels + work.x], b = new_u[work.image * g.voxels + work.x];
    for (int i = 0; i < g.classes; ++i) {
      const T change = softmax_value(after.at(i, site), b) - softmax_value(before.at(i, site), a);
      max = Max()(max, static_cast<double>(fabs(change)));
    }
  }
  max = block_max(max);
  if (threadIdx.x == 0) out[work.image * g.chunks + work.chunk] = max;
}

// One block per image.
__global__ void __launch_bounds__(kThreads) advance_kernel(Finish finish) {
  const bool running = finish.progress[blockIdx.x].running;
  __syncthreads();  // read by all before thread 0 changes it
  if (running) finish_image(finish, blockIdx.x);
}

}  // namespace

template <class T>
void normalise(const Inputs<T> &in, const Gate &gate, int t, const T *v, const double *f, Normaliser<T> *out,
               cudaStream_t stream) {
  launch("normalise", normalise_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in,
         gate, t, v, f, out);
}

template <class T>
void update_dual(const Inputs<T> &in, const Step<T> &step, const Normaliser<T> *normalisers, double *restart,
                 cudaStream_t stream) {
  launch("update_dual", update_dual_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in,
         step, normalisers, restart);
}

template <class T>
void update_volume(const Inputs<T> &in, const Step<T> &step, cudaStream_t stream) {
  launch("mass", mass_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, step);
  launch("volume", volume_kernel<T>, dim3(in.g.batch * in.g.classes), dim3(kThreads), 0, stream, in, step);
}

template <class T>
void residual(const Inputs<T> &in, const Step<T> &step, const Normaliser<T> *old_u,
              const Normaliser<T> *new_u, double *out, cudaStream_t stream) {
  launch("residual", residual_kernel<T>, dim3(in.g.batch * in.g.chunks), dim3(kThreads), 0, stream, in, step,
         old_u, new_u, out);
}

template <class T>
void advance_images(const Inputs<T> &in, const Finish &finish, cudaStream_t stream) {
  launch("advance", advance_kernel, dim3(in.g.batch), dim3(kThreads), 0, stream, finish);
}

template void normalise(const Inputs<float> &, const Gate &, int, const float *, const double *,
                        Normaliser<float> *, cudaStream_t);
template void normalise(const Inputs<double> &, const Gate &, int, const double *, const double *,
                        Normaliser<double> *, cudaStream_t);
template void update_dual(const Inputs<float> &, const Step<float> &, const Normaliser<float> *, double *,
                          cudaStream_t);
template void update_dual(const Inputs<double> &, const Step<double> &, const Normaliser<double> *, double *,
                          cudaStream_t);
template void update_volume(const Inputs<float> &, const Step<float> &, cudaStream_t);
template void update_volume(const Inputs<double> &, const Step<double> &, cudaStream_t);
template void residual(const Inputs<float> &, const Step<float> &, const Normaliser<float> *,
                       const Normaliser<float> *, double *, cudaStream_t);
template void residual(const Inputs<double> &, const Step<double> &, const Normaliser<double> *,
                       const Normaliser<double> *, double *, cudaStream_t);
template void advance_images(const Inputs<float> &, const Finish &, cudaStream_t);
template void advance_images(const Inputs<double> &, const Finish &, cudaStream_t);

}  // namespace segprior::softmax::cuda
