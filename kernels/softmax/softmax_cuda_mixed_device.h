// Device functions of the mixed path: voxels with masks, star directions.
#pragma once

#include "kernels/softmax/softmax_cuda_device.h"
#include "kernels/softmax/softmax_cuda_mixed.h"

namespace segprior::softmax::cuda {

// Least blocks per multiprocessor, for kernels that ptxas otherwise squeezes into fewer registers, with
// spills.
constexpr int kBlocks = 2;

// A voxel, its coordinates by dual component, and its links: site.last and site.first have a bit where there
// is no link ahead or behind, at a border of the grid or of the mask. A masked voxel has no links.
struct Place {
  Site site;
  int64_t at[3];
  bool valid;
};

template <class T>
__device__ inline bool valid_at(const Mixed<T> &m, int64_t image, int64_t x) {
  return !m.mask || m.mask[image * m.mask_stride + x] != 0;
}

template <class T>
__device__ inline Place place_of(const Mixed<T> &m, int64_t image, int64_t x) {
  const Geometry<T> &g = m.in.g;
  Place p{{x, 0, 0, 0}, {0, 0, 0}, valid_at(m, image, x)};
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= g.nd) break;
    p.at[c] = x / g.stride[c] % g.extent[c];
    const bool ahead = p.valid && p.at[c] + 1 < g.extent[c] && valid_at(m, image, x + g.stride[c]);
    const bool behind = p.valid && p.at[c] > 0 && valid_at(m, image, x - g.stride[c]);
    p.site.last |= static_cast<unsigned>(!ahead) << c;
    p.site.first |= static_cast<unsigned>(!behind) << c;
  }
  return p;
}

// The logits of one image; base: o - r of the kept forces, or null for o.
template <class T>
__device__ inline Logits<T> mixed_logits(const Mixed<T> &m, int64_t image, const T *base, const T *v,
                                         const double *f, double scale) {
  const Geometry<T> &g = m.in.g;
  const int64_t size = g.classes * g.voxels;
  return {g, (base ? base : m.in.features) + image * size, v ? v + image * size * g.nd : nullptr,
          f ? f + image * g.classes : nullptr, static_cast<T>(scale)};
}

// grad of a scalar field at one voxel.
template <class T>
__device__ inline void gradient(const Geometry<T> &g, const T *field, const Site &s, T (&slope)[3]) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    slope[c] = c >= g.nd || (s.last >> c & 1) ? T(0) : g.inv_h[c] * (field[s.x + g.stride[c]] - field[s.x]);
}

// c_m - x of star m; components beyond nd are 0.
template <class T>
__device__ inline void star_offset(const Mixed<T> &m, int64_t image, int star, const Place &p,
                                   T (&offset)[3]) {
  const int nd = m.in.g.nd;
  const T *center = m.star.center + (image * m.star.count + star) * nd;
#pragma unroll
  for (int c = 0; c < 3; ++c) offset[c] = c < nd ? center[c] - static_cast<T>(p.at[c]) : T(0);
}

// div(field s) at one voxel: p = field s is a vector field with one scalar unknown.
template <class T>
__device__ inline T star_divergence(const Geometry<T> &g, const T *field, const T (&offset)[3],
                                    const Site &s) {
  T here[3], sum = 0;
  star_direction(3, offset, here);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= g.nd) break;
    T flow = s.last >> c & 1 ? T(0) : field[s.x] * here[c];
    if (!(s.first >> c & 1)) {
      T behind[3] = {offset[0], offset[1], offset[2]}, direction[3];
      behind[c] += 1;
      star_direction(3, behind, direction);
      flow -= field[s.x - g.stride[c]] * direction[c];
    }
    sum += g.inv_h[c] * flow;
  }
  return sum;
}

// Whether an image takes part in a launch for its start, or by the gate.
__device__ inline bool takes_part(const Gate &gate, bool start, int64_t image) {
  return start ? !failed(gate.progress[image].status) : active(gate, image);
}

// Backward: whether nothing later comes into this image's iteration.
template <class T>
__device__ inline bool at_end(const MixedAdjoint<T> &a, int64_t image) {
  return a.frozen ? a.t == 0 : a.t + 1 == a.base.iterations[image];
}

// beta of the adjoint's iteration, and of the one after it (in forward's order).
struct Betas {
  double now, next;
};
template <class T>
__device__ inline Betas betas_of(const MixedAdjoint<T> &a, int64_t image, int64_t batch, bool end) {
  if (a.frozen) return {a.pass_momentum[image].beta, a.pass_momentum[image].beta_before};
  const double *momentum = a.base.momentum + a.t * batch + image;
  return {momentum[0], end ? 0 : momentum[batch]};
}

}  // namespace segprior::softmax::cuda
