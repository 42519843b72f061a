/* clang-format off */
/* libsegprior, proposals: the segmentation nearest to a network's that has the sizes it should have.
 *
 *   Q = argmin over the simplex of  KL(Q || P) = sum_(i, x) Q_i (ln Q_i - ln P_i)
 *       subject to  lower_i <= sum_x Q_i(x) <= upper_i,          P = softmax of the logits z
 *
 * the latent proposal of Pathak, Kraehenbuehl, Darrell, "Constrained convolutional neural networks for weakly
 * supervised segmentation", arXiv 1506.03648, the baseline of [CC] (losses.h). Its solution is
 * Q = S(z + f), with S the softmax over classes and one number f_i per image and class, the dual. Two ways to it:
 *
 *   GRADIENT  projected gradient ascent as in that paper, with both bounds: with multipliers a_i, b_i >= 0 that
 *             start at 0,  a_i <- max(0, a_i + step (lower_i - V_i)),  b_i <- max(0, b_i + step (V_i - upper_i)),
 *             f = a - b,  V_i = sum_x Q_i.
 *   EXACT     the volume dual of softmax.h, with eps = 1:  L_i = ln V_i - f_i,
 *             f_i <- min(ln upper_i - L_i, max(ln lower_i - L_i, 0)),  or, where it promises a larger gain of
 *             the dual objective, a damped Newton step of the same kind (kernels/proposals/proposals.md).
 *
 * Both end at the same Q. Each iteration reads the logits once (CUDA with more than 24 classes: twice). An image
 * stops when no V_i is outside its bounds by more than tolerance * J voxels, and, EXACT, no f_i with f_i < 0 (> 0)
 * has V_i below upper_i (above lower_i) by more than that either: GRADIENT, which starts from f = 0, stops at the
 * first Q that has the sizes, as the paper's does.
 *
 * Limits. GRADIENT: every step below 2/J converges; larger ones, such as the default where J > 40000, can overshoot
 * and oscillate. EXACT in float32 moves a dual by at most about 14 (a bound that nearly all voxels have to cross) to
 * 105 an iteration: gaps of thousands between logits can take more than the default iterations. In float32 with
 * logits of hundreds the default tolerance can be finer than z + f is rounded: ITERATION_CAP then, with a residual
 * that tells.
 *
 * Q is a constant target for the network (segprior_loss_inputs.target): the derivative of min KL(Q || P) with
 * respect to P is that of KL at fixed Q, which is that of the cross entropy with target Q. So there is no
 * backward call; Q as a differentiable function of z is segprior_softmax_forward with volume bounds.
 *
 * Shapes: B images, I classes (1 .. 256), 1 to 3 spatial axes *S, J = prod(S) voxels. Logits and Q: float32,
 * float64, float16 or bfloat16; bounds and duals of that dtype, or float32 if it has 16 bits. Queued on the
 * context's stream (CUDA) or done on return (CPU); no allocation, no synchronisation; deterministic. B = 0 or
 * J = 0 is a valid call; dual, volume and info are then 0. Masked voxels have Q = 0 and no part in V.
 */
/* clang-format on */
#ifndef SEGPRIOR_PROPOSALS_H
#define SEGPRIOR_PROPOSALS_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The two methods. */
enum {
  SEGPRIOR_PROPOSAL_EXACT = 0,   /* the volume dual, with Newton steps */
  SEGPRIOR_PROPOSAL_GRADIENT = 1 /* projected gradient ascent, as the paper's */
};

/* Fill with segprior_proposal_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_proposal_opts {
  size_t struct_size;
  int32_t method;     /* SEGPRIOR_PROPOSAL_EXACT or _GRADIENT. _EXACT */
  int32_t iterations; /* cap, >= 0. 500 */
  double step;        /* of _GRADIENT, > 0. 5e-5 */
  double tolerance;   /* >= 0, as a fraction of J. 1e-6 */
} segprior_proposal_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_proposal_opts) as the caller compiled
 * it. */
SEGPRIOR_API segprior_status segprior_proposal_opts_init(segprior_proposal_opts *opts, size_t struct_size);

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_proposal_inputs), then the pointers. */
typedef struct segprior_proposal_inputs {
  size_t struct_size;
  const segprior_tensor *logits; /* z [B, I, *S]; required. ln P will do */
  const segprior_tensor *lower;  /* [B, I], or [1, I] for all: voxels, >= 0. NULL: 0 */
  const segprior_tensor *upper;  /* [B, I], or [1, I] for all: voxels, >= lower; +Inf allowed. NULL: +Inf */
  const segprior_tensor *mask; /* uint8 [B, *S], or [1, *S] shared by the batch; 0: masked. NULL: all valid */
} segprior_proposal_inputs;

/* Outputs. NULL: not wanted. All are overwritten. */
typedef struct segprior_proposal_outputs {
  size_t struct_size;
  const segprior_tensor *proposal; /* Q [B, I, *S]; required */
  const segprior_tensor *dual;     /* f [B, I]; EXACT: -Inf for a class whose upper bound is 0 */
  const segprior_tensor *volume;   /* V [B, I], of Q */
  /* [B], device memory, 8-byte aligned. Status CONVERGED, ITERATION_CAP, NONFINITE_INPUT (a logit is NaN or
     Inf: all NaN), INVALID_PARAMETER (bounds NaN, negative or lower > upper, a lower bound Inf, or every
     upper bound 0 though a voxel is valid: all NaN), INFEASIBLE_VOLUME (the lower bounds sum to more, or the
     upper ones to less, than the valid voxels, by more than half a voxel and 1e-5 of them: Q as the
     iterations leave it; EXACT: what all f have in common is taken off), BREAKDOWN (z + f exceeds the
     floating-point range: all NaN). iterations: dual updates done. residual: how far V is outside the bounds,
     the largest over the classes, in voxels. */
  segprior_info *info;
} segprior_proposal_outputs;

/* Bytes of scratch; a workspace must be aligned to 64 bytes. Data pointers are not read. */
SEGPRIOR_API segprior_status segprior_proposal_workspace_size(segprior_context *context,
                                                              const segprior_proposal_opts *opts,
                                                              const segprior_proposal_inputs *inputs,
                                                              size_t *bytes);

/* Computes the proposal. Errors: every argument error of core.h; nothing is written then. */
SEGPRIOR_API segprior_status segprior_proposal_forward(segprior_context *context,
                                                       const segprior_proposal_opts *opts,
                                                       const segprior_proposal_inputs *inputs,
                                                       const segprior_proposal_outputs *outputs,
                                                       void *workspace, size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
#endif
