// Threshold dynamics on the CPU: the linear operator behind its force, and that operator's gradients.
//
//   r_i = lam (e (k_i * (m (1 - u_i))) - k_i * (e u_i)),  m the mask (1: valid), e = 0 at masked voxels, u
//   too
//       = lam (e K_i - B_i u_i),   K_i = k_i * m,   B_i v = e (k_i * v) + k_i * (e v)
//
// so the force on the features, o - r, is o + lam (B u - e K). B^T is B with the kernel flipped: forward and
// backward are one function. Without an edge weight (and with or without a mask) B v = 2 k * v at valid
// voxels.
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

// Scratch of one team.
template <class T>
struct TdBuffers {
  T *taps;        // separable: [3][kMaxTaps] per canonical axis; else [I or 1, taps]
  T *slopes;      // [3][kMaxTaps]: d taps / d sigma
  T *kernel_sum;  // K [I or 1, J]
  T *scratch;     // per thread
  int64_t scratch_size;
  double *partial;  // per slice sums

  static TdBuffers carve(const Problem &p, int threads, bool backward, Arena &arena);
};

template <class T>
class ThresholdForce {
 public:
  ThresholdForce(const Image<T> &image, const Params &params, const TdBuffers<T> &buffers, const Team &team);

  // Taps and K. Once an image, before anything else. Collective: every thread of the team calls it; it begins
  // and ends with a barrier.
  void prepare() const;

  // base <- o + lam (B u - e K) on this thread's band of slices. Reads u of other bands: the caller has a
  // barrier before (u complete) and after (before anyone reads base of another band or overwrites u).
  void force(const T *u, T *base) const;

  // grad_u <- lam B^T R on this thread's band (overwrites), R = gradient of (o - r + f). Barriers as above.
  void adjoint(const T *grad_logits, T *grad_u) const;

  // Adds the gradients of one iteration: R as above, u = u_t that made r. Collective. `grads` of rank 0 holds
  // the scalar and kernel sums; the edge's is written band by band.
  void parameters(const T *grad_logits, const T *u, bool want_lam, bool want_sigma, TdGrads<T> &grads) const;

 private:
  const Image<T> &image_;
  const Params &params_;
  const TdBuffers<T> &buffers_;
  const Team team_;
};

}  // namespace segprior::softmax
