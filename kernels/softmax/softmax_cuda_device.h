// Device functions that the kernels of the entropic softmax share.
#pragma once

#include <cfloat>

#include "kernels/common/cuda.h"
#include "kernels/common/reduce.h"
#include "kernels/softmax/softmax_cuda.h"

namespace segprior::softmax::cuda {

__device__ inline float exp2_of(float x) { return exp2f(x); }
__device__ inline double exp2_of(double x) { return exp2(x); }
__device__ inline float lowest(float) { return -FLT_MAX; }
__device__ inline double lowest(double) { return -DBL_MAX; }

// Image and voxel of a thread of a voxel-by-voxel kernel.
struct Work {
  int64_t image, chunk, x;
};
template <class T>
__device__ inline Work work_of(const Geometry<T> &g) {
  const int64_t image = blockIdx.x / g.chunks, chunk = blockIdx.x - image * g.chunks;
  return {image, chunk, chunk * kThreads + threadIdx.x};
}

__device__ inline bool active(const Gate &gate, int64_t image) {
  return gate.progress ? gate.progress[image].running != 0 : gate.t < gate.iterations[image];
}
__device__ inline double momentum_of(const Gate &gate, int64_t image, int64_t batch) {
  if (gate.progress) return gate.progress[image].beta;
  return gate.momentum ? gate.momentum[gate.t * batch + image] : 0;
}

// A voxel and, as bit masks over the dual components, where it lies at a border of the grid.
struct Site {
  int64_t x;
  unsigned first, last, before_last;
};

template <class T>
__device__ inline Site site_of(const Geometry<T> &g, int64_t x) {
  Site s{x, 0, 0, 0};
  for (int c = 0; c < g.nd; ++c) {
    const int64_t k = x / g.stride[c] % g.extent[c];
    s.first |= static_cast<unsigned>(k == 0) << c;
    s.last |= static_cast<unsigned>(k + 1 == g.extent[c]) << c;
    s.before_last |= static_cast<unsigned>(k + 2 == g.extent[c]) << c;
  }
  return s;
}

// The next voxel along component c's axis; the site is not the last one there.
template <class T>
__device__ inline Site ahead(const Geometry<T> &g, const Site &s, int c) {
  const unsigned bit = 1u << c;
  return {s.x + g.stride[c], s.first & ~bit, (s.last & ~bit) | (s.before_last & bit), 0};
}

// div of one class's dual field p[nd][voxels].
template <class T>
__device__ inline T divergence(const Geometry<T> &g, const T *p, const Site &s) {
  T sum = 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= g.nd) break;
    const T *here = p + c * g.voxels + s.x;
    const T at = s.last >> c & 1 ? T(0) : here[0], before = s.first >> c & 1 ? T(0) : here[-g.stride[c]];
    sum += g.inv_h[c] * (at - before);
  }
  return sum;
}

// The logits z = (o - div v + f) log2(e) / eps of one image.
template <class T>
struct Logits {
  const Geometry<T> &g;
  const T *features, *v;  // v null: no TV
  const double *f;        // null: no volume prior
  T scale;

  __device__ T at(int64_t i, const Site &s) const {
    T value = features[i * g.voxels + s.x];
    if (v) value -= divergence(g, v + i * g.nd * g.voxels, s);
    return f ? value * scale + static_cast<T>(f[i]) * scale : value * scale;
  }
};

template <class T>
__device__ inline Logits<T> logits_of(const Inputs<T> &in, int64_t image, const T *v, const double *f,
                                      double scale) {
  const Geometry<T> &g = in.g;
  const int64_t size = g.classes * g.voxels;
  return {g, in.features + image * size, v ? v + image * size * g.nd : nullptr,
          f ? f + image * g.classes : nullptr, static_cast<T>(scale)};
}

// Running softmax normaliser. An excluded class has z = -Inf and adds nothing; at least one class is finite.
template <class T>
struct Online {
  T max = lowest(T()), sum = 0;

  // Factor for other sums that run along, relative to the same maximum.
  __device__ T add(T z) {
    if (z <= max) {
      sum += exp2_of(z - max);
      return 1;
    }
    const T factor = exp2_of(max - z);
    sum = sum * factor + 1;
    max = z;
    return factor;
  }
  __device__ Normaliser<T> result() const { return {max, 1 / sum}; }
};

template <class T>
__device__ inline Normaliser<T> normaliser(const Logits<T> &z, const Site &s) {
  Online<T> online;
  for (int i = 0; i < z.g.classes; ++i) online.add(z.at(i, s));
  return online.result();
}

template <class T>
__device__ inline T softmax_value(T z, const Normaliser<T> &n) {
  return exp2_of(z - n.max) * n.inv_sum;
}

template <class T>
__device__ inline double lower_of(const Inputs<T> &in, int64_t k) {
  return in.lower ? static_cast<double>(in.lower[k]) : 0.0;
}
template <class T>
__device__ inline double upper_of(const Inputs<T> &in, int64_t k) {
  return in.upper ? static_cast<double>(in.upper[k]) : INFINITY;
}

// Term of the eps gradient, sum z_bar ln u: as sum_i z_bar_i = 0, ln u may stand for the logit.
template <class T>
__device__ inline T log_term(T z_bar, T u) {
  return u > 0 ? z_bar * log(u) : T(0);
}

// lam e at a voxel.
template <class T>
__device__ inline T bound_of(const Inputs<T> &in, int64_t image, int64_t x, T lam) {
  return in.edge ? lam * in.edge[(in.edge_shared ? 0 : image * in.g.voxels) + x] : lam;
}

// Adjoint of q = y min(1, bound / |y|) for one dual vector of `nd` components: bar, the gradient of q,
// becomes that of y. Returns the gradient of the bound.
template <class T>
__device__ inline T projection_adjoint(int nd, T bound, const T (&y)[3], T (&bar)[3]) {
  T square = 0, along = 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= nd) break;
    square += y[c] * y[c];
    along += y[c] * bar[c];
  }
  const T norm = sqrt(square);
  if (!(norm > bound)) return 0;
  const T shrink = bound / norm, radial = along / square;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= nd) break;
    bar[c] = shrink * (bar[c] - y[c] * radial);
  }
  return along / norm;
}

// Whole block; the result is valid in thread 0. Fixed order.
__device__ inline double sum_of(const double *values, int64_t count) {
  double sum = 0;
  for (int64_t k = thread_rank(); k < count; k += block_threads()) sum += values[k];
  return block_sum(sum);
}
__device__ inline double max_of(const double *values, int64_t count) {
  double max = 0;
  for (int64_t k = thread_rank(); k < count; k += block_threads()) max = Max()(max, values[k]);
  return block_max(max);
}

// One thread: the new volume dual of class k = image * I + i from its mass.
template <class T>
__device__ inline void finish_volume(const Inputs<T> &in, const Step<T> &step, int64_t k, double mass) {
  const double mass_log = log_mass(mass, sizeof(T) == sizeof(float));
  if (step.log_mass) step.log_mass[k] = mass_log;
  step.f_next[k] =
      volume_step(step.f[k], mass_log, lower_of(in, k), upper_of(in, k), in.coefficients->params.eps).dual;
}

// Whole block: the end of an iteration of one image.
__device__ inline void finish_image(const Finish &finish, int64_t image) {
  double restart = 0, residual = 0;
  if (finish.restart) restart = sum_of(finish.restart + image * finish.restart_count, finish.restart_count);
  if (finish.residual)
    residual = max_of(finish.residual + image * finish.residual_count, finish.residual_count);
  if (thread_rank() != 0) return;
  Progress progress = finish.progress[image];
  advance(progress, finish.t, finish.total, finish.accelerate, restart > 0, finish.residual != nullptr,
          residual, finish.tolerance);
  finish.progress[image] = progress;
  if (finish.momentum) finish.momentum[image] = progress.beta;
}

// Partial sums over the block, class by class.
template <class T>
struct ClassSums {
  static constexpr int kGroup = 4;  // classes per block reduction

  // value(i) is called once per class, in order, by every thread.
  template <class F>
  __device__ static void run(int classes, double *partials, int64_t chunks, const F &value) {
    for (int first = 0; first < classes; first += kGroup) {
      double sums[kGroup];
      for (int k = 0; k < kGroup; ++k) sums[k] = first + k < classes ? value(first + k) : T(0);
      if (!partials) continue;
      block_reduce(sums, Sum());
      if (threadIdx.x != 0) continue;
      for (int k = 0; k < kGroup && first + k < classes; ++k) partials[(first + k) * chunks] = sums[k];
    }
  }
};

// One thread: the volume duals and the status of an image before its first iteration. `max`: the magnitudes
// found so far; `voxels`: the valid ones.
template <class T>
__device__ inline void begin_image(const Inputs<T> &in, const Start<T> &start, int64_t image, Magnitudes max,
                                   double voxels, bool finite, bool valid) {
  VolumeCheck volumes;
  max.init_volume = 0;
  for (int i = 0; in.has_volume && i < in.g.classes; ++i) {
    const int64_t k = image * in.g.classes + i;
    const double upper = upper_of(in, k);
    volumes.add(lower_of(in, k), upper);
    const double f = start.init_volume ? static_cast<double>(start.init_volume[k]) : 0;
    start.f[k] = excluded(upper) ? -INFINITY : f;
    if (excluded(upper)) continue;
    finite = finite && isfinite(f);
    max.init_volume = fmax(max.init_volume, fabs(f));
  }
  const Params &p = in.coefficients->params;
  const bool range = in_range(max, p, start.inv_spacing_sum, in.tv, sizeof(T) == sizeof(float));
  valid = valid && p.valid && (!in.has_volume || volumes.valid(voxels));
  const bool feasible = !in.has_volume || volumes.feasible(voxels);
  const Progress progress =
      start_progress(start_status(finite, valid, range, feasible), in.iterations, in.accelerate);
  start.progress[image] = progress;
  start.tickets[image] = 0;
  if (start.momentum) start.momentum[image] = progress.beta;
}

}  // namespace segprior::softmax::cuda
