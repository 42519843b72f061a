// Threshold dynamics on the CPU: the linear operator behind its force, and that operator's gradients.
//
//   r_i = lam (e (k_i * (m (1 - u_i))) - k_i * (e u_i)),  m the mask (1: valid), e = 0 at masked voxels, u
//   too
//       = lam (e K_i - B_i u_i),   K_i = k_i * m,   B_i v = e (k_i * v) + k_i * (e v)
//
// so the force on the features, o - r, is o + lam (B u - e K). B^T is B with the kernel flipped: forward and
// backward are one function. Without an edge weight (and with or without a mask) B v = 2 k * v at valid
// voxels. At masked voxels force and adjoint are finite and mean nothing.
//
// Bytes per voxel and class of force, float32: read u 4, o 4, write base 4; K and e are shared by the classes
// (K is not if the kernels are not). A row of u is read again for each tap of the first axis, from cache.
#pragma once

#include "kernels/softmax/softmax_cpu_sweep.h"

namespace segprior::softmax {

// Gradients of one image's threshold dynamics, summed over voxels and iterations.
template <class T>
struct TdGrads {
  double lam, sigma;
  double *kernel;  // [I or 1, taps]; null: not wanted
  T *edge;         // [J] of this image; null: not wanted
};

// Scratch of one team. All null without threshold dynamics.
template <class T>
struct TdBuffers {
  T *taps;          // Gaussian: [3][kMaxTaps] per canonical axis; else [I or 1, taps]
  T *flipped;       // given kernel: each of its kernels in reverse order
  T *slopes;        // Gaussian, backward: d taps / d sigma
  T *kernel_sum;    // K [I or 1, J]
  T *slope_sum;     // Gaussian, backward: d K / d sigma [J]
  T *zeros, *ones;  // [columns]
  T *scratch;       // scratch_size per thread
  int64_t scratch_size;
  double *partial;  // backward: sums of lam, sigma and the taps of every job

  static TdBuffers carve(const Problem &p, int threads, bool backward, Arena &arena);
};

template <class T>
class ThresholdForce {
 public:
  ThresholdForce(const Image<T> &image, const Params &params, const TdBuffers<T> &buffers, const Team &team)
      : image_(image), params_(params), buffers_(buffers), team_(team) {}

  // Taps and K. Once an image, after prepare_mask and before anything else. Collective: every thread of the
  // team calls it; it begins and ends with a barrier.
  void prepare() const;

  // base <- o + lam (B u - e K) on this thread's band of slices. Reads u of other bands: the caller has a
  // barrier before (u complete) and after (before anyone reads base of another band or overwrites u).
  void force(const T *u, T *base) const;

  // grad_u <- lam B^T R on this thread's band (overwrites), R = gradient of (o - r + f). Barriers as above.
  void adjoint(const T *grad_logits, T *grad_u) const;

  // Adds the gradients of one iteration: R as above, u = u_t that made r. Collective: it begins with a
  // barrier and returns after another, when nobody reads R and u any more. `grads` of rank 0 holds the scalar
  // and kernel sums; the edge's is written band by band.
  void parameters(const T *grad_logits, const T *u, bool want_lam, bool want_sigma, TdGrads<T> &grads) const;

 private:
  const T *kernel_sum(int64_t i) const;  // K of class i
  void edge_gradient(const T *grad_logits, const T *u, T *grad_edge) const;
  void job_sums(const T *grad_logits, const T *u, int64_t job, bool want_lam, bool want_sigma,
                bool want_kernel) const;

  const Image<T> &image_;
  const Params &params_;
  const TdBuffers<T> &buffers_;
  const Team team_;
};

}  // namespace segprior::softmax
