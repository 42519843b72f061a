// Entropic softmax on CUDA, star shapes of the mixed path. Per star class m: g_m s_m is a vector field like a
// class's TV dual, with one scalar unknown. s_m is computed from the centre where it is needed (a root and a
// division a voxel). One thread per voxel and star class.
//
// Bytes per voxel and star class, float32: step reads u 4 and v 4, writes v 4 (+ 8 when accelerated); force
// reads v 4 and o (or the force so far) 4, writes 4: 24 in all. Backward: adjoint reads u, R, v_t, v_t+1,
// grad_y, writes grad_y: 24 (+ 8 when accelerated), adjoint_u reads grad_y, reads and writes grad_field: 12.
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

// s . grad of a scalar field, with `slope` = grad.
template <class T>
__device__ T along(const T (&direction)[3], const T (&slope)[3]) {
  return direction[0] * slope[0] + direction[1] * slope[1] + direction[2] * slope[2];
}

// Where a thread's star field and its class's scalar field begin.
template <class T>
struct StarWork {
  int star;
  int64_t field, scalar;

  __device__ StarWork(const Mixed<T> &m, const Work &work)
      : star(blockIdx.y),
        field((work.image * m.star.count + star) * m.in.g.voxels),
        scalar((work.image * m.in.g.classes + m.star.classes[star]) * m.in.g.voxels) {}
};

template <class T>
__global__ void __launch_bounds__(kThreads) step_kernel(Mixed<T> m, MixedStep<T> step) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(step.base.gate, work.image)) return;
  const StarWork<T> at(m, work);
  double product = 0;
  if (work.x < g.voxels) {
    const Place place = place_of(m, work.image, work.x);
    const double tau = m.star.tau[at.star];
    T offset[3], direction[3], slope[3];
    star_offset(m, work.image, at.star, place, offset);
    star_direction(3, offset, direction);
    gradient(g, step.u + at.scalar, place.site, slope);
    const int64_t k = at.field + work.x;
    const T v = step.star.v[k], y = v - static_cast<T>(tau) * along(direction, slope);
    const T dual = y > 0 ? y : T(0);
    if (m.in.accelerate) {
      const T beta = static_cast<T>(momentum_of(step.base.gate, work.image, g.batch));
      const T change = dual - step.star.q[k];
      product = static_cast<double>(v - dual) * change / tau;
      step.star_next.v[k] = dual + beta * change;
      if (step.star_next.q) step.star_next.q[k] = dual;
    } else {
      step.star_next.v[k] = dual;
    }
  }
  if (!step.restart) return;
  product = block_sum(product);
  const int fields = m.star.count + (m.in.tv ? 1 : 0);
  if (threadIdx.x == 0) step.restart[(work.image * fields + at.star) * g.chunks + work.chunk] = product;
}

template <class T>
__global__ void __launch_bounds__(kThreads) force_kernel(Mixed<T> m, typename MixedStars<T>::Force f) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!takes_part(f.gate, f.start, work.image) || work.x >= g.voxels) return;
  const StarWork<T> at(m, work);
  const Place place = place_of(m, work.image, work.x);
  const T *v = f.iterations && f.t + 1 == f.iterations[work.image] ? f.final_v : f.v;
  T offset[3];
  star_offset(m, work.image, at.star, place, offset);
  const int64_t k = at.scalar + work.x;
  const T from = m.td.on ? f.force[k] : m.in.features[k];
  f.force[k] = from - star_divergence(g, v + at.field, offset, place.site);
}

// One voxel's part of the centre's gradient: s_bar is that of s there.
template <class T>
__device__ void center_sums(const T (&offset)[3], const T (&s_bar)[3], double (&sums)[3]) {
  T direction[3], grad_center[3];
  const T length = star_direction(3, offset, direction);
  star_direction_adjoint(3, length, direction, s_bar, grad_center);
#pragma unroll
  for (int c = 0; c < 3; ++c) sums[c] = grad_center[c];
}

// Adds a block's sums to its partial sums.
template <class T>
__device__ void add_sums(const Mixed<T> &m, const MixedAdjoint<T> &a, const Work &work, int star, double tau,
                         const double (&center)[3]) {
  const Geometry<T> &g = m.in.g;
  double sums[4] = {tau, center[0], center[1], center[2]};
  block_reduce(sums, Sum());
  if (threadIdx.x != 0) return;
  double *partials =
      a.star_partials + (work.image * m.star.count + star) * (1 + g.nd) * g.chunks + work.chunk;
#pragma unroll
  for (int c = 0; c < 4; ++c)
    if (c <= g.nd) partials[c * g.chunks] += sums[c];
}

// Adjoint of the step and of its force: with v_bar = grad_y of t + 1 + s . grad R,
//   g_bar = (1 + beta_t) v_bar - beta_t+1 v_bar of t + 1;  grad_y = g_bar where y > 0, else 0
//   tau_bar -= grad_y s . grad u;  s_bar = v_t+1 grad R - tau grad_y grad u, which gives the centre's.
template <class T>
__global__ void __launch_bounds__(kThreads) adjoint_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image)) return;
  const StarWork<T> at(m, work);
  double tau_sum = 0, center[3] = {};
  if (work.x < g.voxels) {
    const bool end = at_end(a, work.image);
    const Place place = place_of(m, work.image, work.x);
    const T tau = static_cast<T>(m.star.tau[at.star]);
    const int64_t k = at.field + work.x;
    T offset[3], direction[3], slope[3], r_slope[3];
    star_offset(m, work.image, at.star, place, offset);
    star_direction(3, offset, direction);
    gradient(g, a.u + at.scalar, place.site, slope);
    gradient(g, a.base.grad_logits + at.scalar, place.site, r_slope);

    const T v_bar = along(direction, r_slope) + (end ? T(0) : a.star_grad_y[k]);
    T g_bar = v_bar;
    if (a.star_grad_v) {
      const Betas beta = betas_of(a, work.image, g.batch, end);
      g_bar *= 1 + static_cast<T>(beta.now);
      if (!end) g_bar -= static_cast<T>(beta.next) * a.star_grad_v[k];
      a.star_grad_v[k] = v_bar;
    }
    const T rise = along(direction, slope);
    const T y_bar = a.star_v[k] - tau * rise > 0 ? g_bar : T(0);
    a.star_grad_y[k] = y_bar;
    tau_sum = -static_cast<double>(y_bar) * rise;
    const T v_next = (end ? a.final_star_v : a.star_v_next)[k];
#pragma unroll
    for (int c = 0; c < 3; ++c) slope[c] = v_next * r_slope[c] - tau * y_bar * slope[c];  // s_bar
    center_sums(offset, slope, center);
  }
  add_sums(m, a, work, at.star, tau_sum, center);
}

// Of the start: the force of the warm start, s_bar = v_0 grad R.
template <class T>
__global__ void __launch_bounds__(kThreads) adjoint_start_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (failed(a.base.status[work.image])) return;
  const StarWork<T> at(m, work);
  double center[3] = {};
  if (work.x < g.voxels) {
    const Place place = place_of(m, work.image, work.x);
    T offset[3], s_bar[3];
    star_offset(m, work.image, at.star, place, offset);
    gradient(g, a.base.grad_logits + at.scalar, place.site, s_bar);
#pragma unroll
    for (int c = 0; c < 3; ++c) s_bar[c] *= a.star_v[at.field + work.x];
    center_sums(offset, s_bar, center);
  }
  add_sums(m, a, work, at.star, 0, center);
}

template <class T>
__global__ void __launch_bounds__(kThreads) adjoint_u_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image) || work.x >= g.voxels) return;
  const StarWork<T> at(m, work);
  const Place place = place_of(m, work.image, work.x);
  T offset[3];
  star_offset(m, work.image, at.star, place, offset);
  const T added =
      static_cast<T>(m.star.tau[at.star]) * star_divergence(g, a.star_grad_y + at.field, offset, place.site);
  const int64_t k = at.scalar + work.x;
  a.grad_field[k] = m.td.on ? a.grad_field[k] + added : added;
}

template <class T>
dim3 star_grid(const Mixed<T> &m) {
  return dim3(static_cast<unsigned>(m.in.g.batch * m.in.g.chunks), m.star.count);
}

}  // namespace

template <class T>
void MixedStars<T>::step(const Mixed<T> &m, const MixedStep<T> &step, cudaStream_t stream) {
  launch("star_step", step_kernel<T>, star_grid(m), dim3(kThreads), 0, stream, m, step);
}

template <class T>
void MixedStars<T>::force(const Mixed<T> &m, const Force &force, cudaStream_t stream) {
  launch("star_force", force_kernel<T>, star_grid(m), dim3(kThreads), 0, stream, m, force);
}

template <class T>
void MixedStars<T>::adjoint(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  launch("star_adjoint", adjoint_kernel<T>, star_grid(m), dim3(kThreads), 0, stream, m, a);
  launch("star_adjoint_u", adjoint_u_kernel<T>, star_grid(m), dim3(kThreads), 0, stream, m, a);
}

template <class T>
void MixedStars<T>::adjoint_start(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  launch("star_adjoint_start", adjoint_start_kernel<T>, star_grid(m), dim3(kThreads), 0, stream, m, a);
}

template struct MixedStars<float>;
template struct MixedStars<double>;

}  // namespace segprior::softmax::cuda
