/* clang-format off */
/* libsegprior, entropic softmax with composable priors.
 *
 *   u = argmin over the simplex of  -<o,u> + eps <u, ln u> + lam sum_x e(x) |grad u|(x)
 *       subject to  lower_i <= sum_x u_i(x) <= upper_i
 *
 * by the unrolled dual iteration of [VPTV] Algorithm 1 (Li, Liu, Cui, Huang, Tai, "Volume preserving image
 * segmentation with entropic regularization optimal transport", arXiv 1909.09931), generalised to an edge
 * weight e, physical voxel spacing, 1 to 3 axes and two-sided volume bounds (Liu, Wang, Tai, arXiv 2002.03989,
 * section 4.2). With S the softmax over classes, q the TV dual and f the volume dual:
 *
 *   start:   q = 0, f = 0 (or the warm start);   u = S((o - div q + f) / eps0)
 *   T times: q  <- y min(1, lam e / |y|)   with  y = q - tau grad u            TV prior; |y| over the axes
 *            w   = S((o - div q + f) / eps);     L_i = ln sum_x w_i - f_i / eps
 *            f_i <- min(eps (ln upper_i - L_i), max(eps (ln lower_i - L_i), 0))   volume prior
 *            u   = S((o - div q + f) / eps)
 *
 * grad is the forward difference divided by the voxel spacing, 0 at the far border; div = -grad^T.
 *
 * Shapes: B images, I classes (1 .. 256), spatial axes *S (1, 2 or 3 of them), J = prod(S) voxels. All tensors
 * of one call share the features' dtype (float32 or float64) and the context's device, and are C-contiguous.
 * An empty tensor (B = 0 or J = 0) is a valid call that does and writes nothing.
 *
 * Calls are queued on the context's stream (CUDA) or done on return (CPU). They allocate nothing (apart from
 * the OpenMP runtime's threads, when a CPU call first needs them), never synchronise and touch no other stream:
 * they can be captured in a CUDA graph. Results are deterministic: the same bits run to run on one device, and
 * on the CPU for every thread count. Each image's result depends on that image alone, bit for bit.
 */
/* clang-format on */
#ifndef SEGPRIOR_SOFTMAX_H
#define SEGPRIOR_SOFTMAX_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Options ------------------------------------------------------------------------------------------- */

enum {
  SEGPRIOR_BACKWARD_LAST = 0,    /* duals held constant ("quasi dropout", [VPTV] 5.2); needs no saved state */
  SEGPRIOR_BACKWARD_UNROLLED = 1 /* exact adjoint of all iterations */
};

/* Fill with segprior_softmax_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_softmax_opts {
  size_t struct_size;
  int32_t iterations;          /* T >= 0: the number of iterations, or their cap if tolerance > 0. 30 */
  int32_t accelerate;          /* 0: the papers' plain iteration. 1: Nesterov momentum with restart on q. 0 */
  double tolerance;            /* > 0: an image stops when max |u_t+1 - u_t| < tolerance at a check (when
                                       accelerated after one more iteration, without momentum). 0: never */
  int32_t check_interval;      /* >= 1: iterations between two checks of the tolerance. 10 */
  int32_t checkpoint_interval; /* what forward leaves in `saved` for the unrolled backward: 0 nothing, n >= 1
                                  the duals of every n-th iteration (1: all of them, nothing recomputed). 0 */
  int32_t tv;                  /* 1: with the TV prior. 0 */
  int32_t backward_mode;       /* SEGPRIOR_BACKWARD_LAST or _UNROLLED. _LAST */
  int32_t accumulate;          /* 1: backward adds to its outputs. 0: it overwrites them. 0 */
  int32_t reserved;            /* must be 0 */
  double eps;                  /* entropy weight, > 0; unused if inputs.eps is given. 1 */
  double init_eps;             /* eps0 of the start, > 0; 0: the same as eps. 0 */
  double tv_lam;               /* TV weight, >= 0; unused if inputs.tv_lam is given. 1 */
  double tv_tau;               /* dual step, > 0; 0: eps / sum_d h_d^-2, half of that when accelerated (the
                                  largest stable step); unused if inputs.tv_tau is given. 0 */
  double spacing[3]; /* h_d > 0, physical voxel size per spatial axis, in the order of the axes. 1 */
} segprior_softmax_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_softmax_opts) as the caller compiled it.
 */
SEGPRIOR_API segprior_status segprior_softmax_opts_init(segprior_softmax_opts *opts, size_t struct_size);

/* ---- Arguments ----------------------------------------------------------------------------------------- */

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_softmax_inputs), then the pointers. NULL:
 * absent. */
typedef struct segprior_softmax_inputs {
  size_t struct_size;
  const segprior_tensor *features;     /* o [B, I, *S]; required. Larger means more likely */
  const segprior_tensor *eps;          /* [1], > 0 */
  const segprior_tensor *tv_lam;       /* [1], >= 0 */
  const segprior_tensor *tv_tau;       /* [1], > 0 */
  const segprior_tensor *tv_edge;      /* e [B, *S], or [1, *S] shared by the batch; >= 0. Absent: 1 */
  const segprior_tensor *volume;       /* [B, I] voxels, >= 0: sum_x u_i = volume_i. Excludes the next two */
  const segprior_tensor *volume_lower; /* [B, I] voxels, >= 0. Absent with volume_upper present: 0 */
  const segprior_tensor *volume_upper; /* [B, I] voxels, >= lower; +Inf: none. Absent with lower: +Inf */
  const segprior_tensor *init_tv_dual; /* warm start q [B, I, nd, *S]; absent: 0. A constant in
                                              backward. Components at the far border count as 0 */
  const segprior_tensor *init_volume_dual; /* warm start f [B, I]; absent: 0. A constant in backward */
} segprior_softmax_inputs;
/* A class with volume (or upper bound) 0 is excluded: u_i = 0 exactly, all its gradients 0. */

/* Outputs of forward. NULL: not wanted. All are overwritten. None may overlap another argument. */
typedef struct segprior_softmax_outputs {
  size_t struct_size;
  const segprior_tensor *u;           /* [B, I, *S]; required */
  const segprior_tensor *tv_dual;     /* q [B, I, nd, *S]; only with opts.tv */
  const segprior_tensor *volume_dual; /* f [B, I]; only with a volume prior; -Inf for an excluded class */
  segprior_info *info;                /* [B], device memory, 8-byte aligned */
} segprior_softmax_outputs;

/* Gradients written by backward. NULL: not wanted. All but `features` need SEGPRIOR_BACKWARD_UNROLLED. */
typedef struct segprior_softmax_grads {
  size_t struct_size;
  const segprior_tensor *features; /* [B, I, *S] */
  const segprior_tensor *eps;      /* [1]; where eps0 or tau default to a multiple of eps, their part is in */
  const segprior_tensor *init_eps; /* [1]; only if opts.init_eps > 0 */
  const segprior_tensor *tv_lam;   /* [1] */
  const segprior_tensor *tv_tau;   /* [1]; the partial derivative, also where tau is the default */
  const segprior_tensor *tv_edge;  /* as inputs.tv_edge, which must be present */
  const segprior_tensor *volume;   /* [B, I]; needs inputs.volume */
  const segprior_tensor *volume_lower; /* [B, I]; needs inputs.volume_lower */
  const segprior_tensor *volume_upper; /* [B, I]; needs inputs.volume_upper */
} segprior_softmax_grads;

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* Bytes of scratch that forward and backward need. Only the presence, shapes, dtypes and device of `inputs`
 * are read, not their data (data pointers may be NULL). Either result pointer may be NULL. A workspace must
 * be aligned to 256 bytes, may be shared by successive calls on one stream and holds nothing between calls.
 * Backward needs none with backward_mode = _LAST: set the mode before asking. */
SEGPRIOR_API segprior_status segprior_softmax_workspace_size(segprior_context *context,
                                                             const segprior_softmax_opts *opts,
                                                             const segprior_softmax_inputs *inputs,
                                                             size_t *forward_bytes, size_t *backward_bytes);

/* Bytes of `saved` that forward leaves for the unrolled backward with this checkpoint_interval n:
 * about (T/n + 1) * nd * sizeof(dtype) per voxel and class, twice that when accelerated; 0 if n = 0. */
SEGPRIOR_API segprior_status segprior_softmax_saved_size(segprior_context *context,
                                                         const segprior_softmax_opts *opts,
                                                         const segprior_softmax_inputs *inputs,
                                                         size_t *saved_bytes);

/* Computes u. `workspace` and `saved` are device memory, 256-byte aligned, of at least the queried sizes;
 * `saved` may be NULL when its size is 0. Bytes moved on CUDA, float32, per voxel, class and iteration: see
 * kernels/softmax/softmax.md. Errors: every argument error of core.h; nothing is written then. */
SEGPRIOR_API segprior_status segprior_softmax_forward(segprior_context *context,
                                                      const segprior_softmax_opts *opts,
                                                      const segprior_softmax_inputs *inputs,
                                                      const segprior_softmax_outputs *outputs,
                                                      void *workspace, size_t workspace_bytes, void *saved,
                                                      size_t saved_bytes);

/* Gradients of a scalar loss whose gradient with respect to u is grad_u [B, I, *S].
 * `opts` and `inputs` are those of the forward call (backward_mode and accumulate may differ).
 * `u` [B, I, *S]: forward's output; required by _LAST, unused (may be NULL) by _UNROLLED.
 * `saved`: what forward wrote, unchanged; required by _UNROLLED (checkpoint_interval >= 1), unused by _LAST.
 * An image that failed in forward has NaN gradients; sums over the batch that include it are NaN too. */
SEGPRIOR_API segprior_status segprior_softmax_backward(
    segprior_context *context, const segprior_softmax_opts *opts, const segprior_softmax_inputs *inputs,
    const segprior_tensor *u, const segprior_tensor *grad_u, const segprior_softmax_grads *grads,
    void *workspace, size_t workspace_bytes, const void *saved, size_t saved_bytes);

#ifdef __cplusplus
}
#endif
#endif
