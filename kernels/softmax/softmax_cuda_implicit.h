// clang-format off
// Kernels of the implicit backward on CUDA for TV and volume: conjugate gradients on the system of the converged map, as in
// softmax_cpu_implicit.h and softmax.md. State and stopping of each image live on the device; the host queues
// all iterations, and kernels of images that are done return at once.
//
//   prepare    u; y_hat, mu and the diagonal of M; J u_bar with its sums        once
//   gradient   r = P grad w, or mp = P grad w + mu p with <p, mp>
//   jacobian   w = J(beta - div p) with its sums over the voxels
//   update     a += alpha p, r -= alpha mp, |r|^2, <r, z>
//   direction  p = z + direction p,  z = r / diagonal
//   finish     o_bar = J(u_bar - beta + div a), the gradients that follow from it
//
// Bytes per voxel, class and step, float32, nd = 2: jacobian u 8, p 16, w 4; gradient w 8, y_hat 16, mu 4, p 8,
// mp 8; update 32 + 16 + 4; direction 16 + 8 + 4: 152. Workspace: 5 nd + 4 numbers per voxel and class.
// clang-format on
#pragma once

#include "kernels/softmax/softmax_cuda_device.h"

namespace segprior::softmax::cuda {

// Progress of one image's solve.
struct ImplicitSolve {
  double rz, rhs, relative, alpha, direction;
  int32_t iterations, done, converged;
};

template <class T>
struct ImplicitSystem {
  const uint8_t *mask;  // null: all valid
  bool mask_shared;
  const T *q;  // [B, I, nd, J] final dual; null without TV
  const T *grad_u;
  T *u, *w, *mu, *diagonal;  // [B, I, J]; mu < 0: the dual is fixed
  T *unit, *a, *r, *p, *mp;  // [B, I, nd, J]; unit: y_hat where active, else 0
  double *sums;              // [B, I, chunks]
  double *dots;              // [B, 2, chunks]
  double *beta, *r_beta, *p_beta, *mp_beta, *diagonal_beta;  // [B, I]
  ImplicitSolve *solve;                                      // [B]
  int cap;
  double tolerance;
};

template <class T>
__device__ inline bool valid_at(const ImplicitSystem<T> &s, const Geometry<T> &g, int64_t image, int64_t x) {
  return !s.mask || s.mask[(s.mask_shared ? 0 : image * g.voxels) + x] != 0;
}

// Whether the difference of component c exists at a voxel.
template <class T>
__device__ inline bool linked(const ImplicitSystem<T> &s, const Geometry<T> &g, int64_t image,
                              const Site &site, int c) {
  if (site.last >> c & 1) return false;
  return valid_at(s, g, image, site.x) && valid_at(s, g, image, site.x + g.stride[c]);
}

template <class T>
__device__ inline T bound_at(const Inputs<T> &in, const ImplicitSystem<T> &s, int64_t image, int64_t x,
                             T lam) {
  return valid_at(s, in.g, image, x) ? bound_of(in, image, x, lam) : T(0);
}

// Final volume dual of class k = image * I + i.
template <class T>
__device__ inline double final_f(const Inputs<T> &in, const Adjoint<T> &adjoint, int64_t k) {
  return adjoint.f[adjoint.iterations[k / in.g.classes] * in.g.batch * in.g.classes + k];
}

// Whether a class's bound takes part: not excluded, and its multiplier on.
template <class T>
__device__ inline bool coupled(const Inputs<T> &in, const Adjoint<T> &adjoint, bool equality, int64_t k) {
  if (!in.has_volume) return false;
  const double f = final_f(in, adjoint, k);
  return isfinite(f) && (equality || f != 0);
}

// The voxel of a thread, for images that still iterate.
template <class T>
struct Here {
  Work work;
  bool active, inside;
  int64_t field, dual;  // offsets of class 0 at the voxel

  __device__ Here(const Inputs<T> &in, const Adjoint<T> &adjoint, const ImplicitSystem<T> &s, bool always)
      : work(work_of(in.g)),
        active(!failed(adjoint.status[work.image]) && (always || !s.solve[work.image].done)),
        inside(work.x < in.g.voxels),
        field(work.image * in.g.classes * in.g.voxels + work.x),
        dual(work.image * in.g.classes * in.g.nd * in.g.voxels + work.x) {}
};

// The block's part of two dot products over the image. Whole block.
template <class T>
__device__ inline void store_dots(const ImplicitSystem<T> &s, const Geometry<T> &g, const Work &work,
                                  double (&dots)[2]) {
  block_reduce(dots, Sum());
  if (threadIdx.x != 0) return;
  for (int k = 0; k < 2; ++k) s.dots[(work.image * 2 + k) * g.chunks + work.chunk] = dots[k];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    linearise_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, true);
  if (!here.active || !here.inside) return;
  const int64_t image = here.work.image, x = here.work.x;
  const Site site = site_of(g, x);
  const Params &params = in.coefficients->params;
  const T lam = static_cast<T>(params.lam), tau = static_cast<T>(params.tau),
          inv_eps = static_cast<T>(1 / params.eps);
  const T bound = bound_at(in, s, image, x, lam);
  for (int i = 0; i < g.classes; ++i) {
    const T *u = s.u + here.field + i * g.voxels;
    const int64_t at = here.dual + static_cast<int64_t>(i) * g.nd * g.voxels;
    T square = 0, along = 0, diagonal = 0;
    for (int c = 0; c < g.nd; ++c) {
      const bool link = linked(s, g, image, site, c);
      const T next = link ? u[g.stride[c]] : u[0], slope = g.inv_h[c] * (next - u[0]);
      const T y = s.q[at + c * g.voxels] - tau * slope;
      s.unit[at + c * g.voxels] = y;
      square += y * y;
      along -= y * slope;
      const T entry = g.inv_h[c] * g.inv_h[c] * inv_eps * (u[0] * (1 - u[0]) + next * (1 - next));
      if (link && entry > diagonal) diagonal = entry;
    }
    const T norm = sqrt(square), inverse = norm > bound ? 1 / norm : T(0);
    for (int c = 0; c < g.nd; ++c) s.unit[at + c * g.voxels] *= inverse;
    const T mu = bound > 0 ? (along * inverse > 0 ? along * inverse / bound : T(0)) : T(-1);
    const T floor = static_cast<T>(1e-6) * inv_eps;
    s.mu[here.field + i * g.voxels] = mu;
    s.diagonal[here.field + i * g.voxels] = (diagonal > floor ? diagonal : floor) + (mu > 0 ? mu : T(0));
  }
}

enum class Right { incoming, direction, result };

// w = J v with v = u_bar, beta - div p, or u_bar - beta + div a; and the sums of w per class.
template <class T>
__global__ void __launch_bounds__(kThreads)
    jacobian_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s, Right right) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, right != Right::direction);
  if (!here.active) return;
  const Site site = site_of(g, here.inside ? here.work.x : 0);
  const T inv_eps = static_cast<T>(1 / in.coefficients->params.eps);
  const T sign = right == Right::result ? T(-1) : T(1);
  const double *beta = right == Right::direction ? s.p_beta : s.beta;
  const T *dual = right == Right::direction ? s.p : s.a;
  const auto value = [&](int i) {
    T v = right == Right::direction ? T(0) : s.grad_u[here.field + i * g.voxels];
    if (right == Right::incoming) return v;
    v += sign * static_cast<T>(beta[here.work.image * g.classes + i]);
    const int64_t base = (here.work.image * g.classes + i) * g.nd * g.voxels;
    return in.tv ? v - sign * divergence(g, dual + base, site) : v;
  };
  T mean = 0;
  for (int i = 0; here.inside && i < g.classes; ++i) mean += s.u[here.field + i * g.voxels] * value(i);
  for (int i = 0; i < g.classes; ++i) {
    double w = 0;
    if (here.inside) {
      const int64_t k = here.field + i * g.voxels;
      s.w[k] = s.u[k] * (value(i) - mean) * inv_eps;
      w = s.w[k];
    }
    if (!in.has_volume) continue;
    w = block_sum(w);
    if (threadIdx.x == 0) s.sums[(here.work.image * g.classes + i) * g.chunks + here.work.chunk] = w;
  }
}

// At the start: r = P grad w, p = z, and <r, r>, <r, z>; later mp = P grad w + mu p, and <p, mp>.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s, bool start) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, start);
  if (!here.active) return;
  double dots[2] = {0, 0};
  const Site site = site_of(g, here.inside ? here.work.x : 0);
  for (int i = 0; in.tv && here.inside && i < g.classes; ++i) {
    const T *w = s.w + here.field + i * g.voxels;
    const T mu = s.mu[here.field + i * g.voxels], diagonal = s.diagonal[here.field + i * g.voxels];
    const int64_t at = here.dual + static_cast<int64_t>(i) * g.nd * g.voxels;
    T slope[3] = {}, along = 0;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= g.nd) break;
      if (linked(s, g, here.work.image, site, c)) slope[c] = g.inv_h[c] * (w[g.stride[c]] - w[0]);
      along += s.unit[at + c * g.voxels] * slope[c];
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= g.nd) break;
      const int64_t k = at + c * g.voxels;
      const T projected = mu < 0 ? T(0) : slope[c] - s.unit[k] * along;
      if (start) {
        s.a[k] = 0;
        s.r[k] = projected;
        s.p[k] = projected / diagonal;
        dots[0] += static_cast<double>(projected) * projected;
        dots[1] += static_cast<double>(projected) * s.p[k];
      } else {
        const T product = mu < 0 ? T(0) : projected + mu * s.p[k];
        s.mp[k] = product;
        dots[0] += static_cast<double>(s.p[k]) * product;
      }
    }
  }
  store_dots(s, g, here.work, dots);
}

// a += alpha p, r -= alpha mp, and <r, r>, <r, z>.
template <class T>
__global__ void __launch_bounds__(kThreads)
    update_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, false);
  if (!here.active) return;
  double dots[2] = {0, 0};
  const T alpha = static_cast<T>(s.solve[here.work.image].alpha);
  for (int i = 0; in.tv && here.inside && i < g.classes; ++i)
    for (int c = 0; c < g.nd; ++c) {
      const int64_t k = here.dual + (static_cast<int64_t>(i) * g.nd + c) * g.voxels;
      s.a[k] += alpha * s.p[k];
      const T r = s.r[k] -= alpha * s.mp[k];
      dots[0] += static_cast<double>(r) * r;
      dots[1] += static_cast<double>(r) * (r / s.diagonal[here.field + i * g.voxels]);
    }
  store_dots(s, g, here.work, dots);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    direction_kernel(Inputs<T> in, Adjoint<T> adjoint, ImplicitSystem<T> s) {
  const Geometry<T> &g = in.g;
  const Here<T> here(in, adjoint, s, false);
  if (!here.active || !here.inside) return;
  const T direction = static_cast<T>(s.solve[here.work.image].direction);
  for (int i = 0; i < g.classes; ++i)
    for (int c = 0; c < g.nd; ++c) {
      const int64_t k = here.dual + (static_cast<int64_t>(i) * g.nd + c) * g.voxels;
      s.p[k] = s.r[k] / s.diagonal[here.field + i * g.voxels] + direction * s.p[k];
    }
}

}  // namespace segprior::softmax::cuda
