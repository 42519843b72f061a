// Backward through a threshold dynamics iteration in one kernel, on 1-D and 2-D grids without volumes, with
// the tiles of softmax_cuda_td_fused.h: the operator is self-adjoint, so
//
//   R = u_t+1 (ubar - <ubar, u_t+1>) / eps,  grad_features += R,  ubar <- 2 lam (k * R),
//   lambar += sum_x,i 2 u_t (k * R),         R on tile and halo, never stored
//
// Bytes per voxel and class, float32: u_t+1 4, ubar 4 + 4 written, grad_features 8, u_t 4 = 24 (the halo, and
// u_t+1 and ubar a second time, from the L2 cache). The mixed path's kernels move 40.
#pragma once

#include "kernels/softmax/softmax_cuda_td_fused.h"

namespace segprior::softmax::cuda {

template <class T>
struct TdAdjoint {
  const int32_t *iterations;  // [B]
  int t;
  const T *u, *u_next, *final_u;  // [B, I, J] u_t, u_t+1, and u_t+1 of an image that ended at t + 1
  const T *grad_u;                // ubar at an image's end
  const T *grad;                  // ubar else
  T *grad_next;                   // ubar of u_t, written
  T *grad_features;               // null: not wanted
  const T *taps;                  // as in TdStep
  int sizes[3];
  double
      *sums;  // [B, 2, tiles] over the iterations so far: R ln u, u (k * R); first written at an image's end
};

// No tiles: not served. `shared_memory` as in td_plan.
TdPlan td_adjoint_plan(const Problem &, size_t shared_memory);
template <class T>
void td_adjoint_step(const Inputs<T> &, const TdAdjoint<T> &, const TdPlan &, cudaStream_t);
// Adds the sums to the first partial sums of an image: eps_partials[image * eps_stride], lam_partials
// likewise; of images that did an iteration.
template <class T>
void td_adjoint_collect(const Inputs<T> &, const TdAdjoint<T> &, const TdPlan &, double *eps_partials,
                        int64_t eps_stride, double *lam_partials, int64_t lam_stride, cudaStream_t);

}  // namespace segprior::softmax::cuda
