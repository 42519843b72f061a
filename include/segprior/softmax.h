/* clang-format off */
/* libsegprior, entropic softmax with composable priors.
 *
 *   u = argmin over the simplex of  -<o,u> + eps <u, ln u>
 *         + tv_lam sum_x e(x) |grad u|(x)             TV prior
 *         + td_lam <e' u, k * (1 - u)>                threshold dynamics prior
 *       subject to  lower_i <= sum_x u_i(x) <= upper_i        volume prior
 *                   s_m . grad u_i >= 0, i = star class m     star-shape prior
 *
 * by the unrolled dual iteration of [VPTV] Algorithm 1 (Li, Liu, Cui, Huang, Tai, "Volume preserving image
 * segmentation with entropic regularization optimal transport", arXiv 1909.09931) and of [STD] Algorithms 1-3
 * and section 3.8 (Liu, Wang, Tai, "Deep convolutional neural networks with spatial regularization, volume and
 * star-shape priori", arXiv 2002.03989), generalised to edge weights, physical voxel spacing, 1 to 3 axes,
 * two-sided volume bounds ([STD] 4.2), masks and any mix of the priors in one call. With S the softmax over
 * classes, q the TV dual, g_m the star duals and f the volume dual:
 *
 *   start:   q = 0, g = 0, f = 0 (or the warm start);   u = S((o - r + f) / eps0),  r = div q + div(g_m s_m)
 *   T times: r  =  td_lam (e' (k * (1 - u)) - k * (e' u))                   threshold dynamics ([STD] App. A)
 *            q  <- y min(1, tv_lam e / |y|)  with  y = q - tv_tau grad u;   r += div q      |y| over the axes
 *            g_m <- max(g_m - star_tau_m s_m . grad u_i, 0);                r_i += div(g_m s_m), i = class of m
 *            w   = S((o - r + f) / eps);     L_i = ln sum_x w_i - f_i / eps
 *            f_i <- min(eps (ln upper_i - L_i), max(eps (ln lower_i - L_i), 0))   volume prior
 *            u   = S((o - r + f) / eps)
 *
 * grad is the forward difference divided by the voxel spacing, 0 at the far border; div = -grad^T.
 * k * is the correlation with an odd-sized kernel and zero padding. s_m(x) = (c_m - x) / |c_m - x| in voxel
 * indices, 0 at the centre itself. With a mask, masked voxels take part in nothing: grad is 0 between a valid
 * and a masked voxel, k * sums over valid voxels only (of 1 - u too), no volume counts them; u is 0 there and
 * every gradient exactly 0, whatever the features hold.
 *
 * Shapes: B images, I classes (1 .. 256), M star classes, spatial axes *S (nd = 1, 2 or 3 of them), J = prod(S)
 * voxels. Features, u, grad_u and grads.features share one dtype: float32, float64, float16 or bfloat16. All
 * other tensors are of the features' dtype, or float32 if that has 16 bits; masks are uint8. With 16 bits the
 * arithmetic is float32: u and grads.features are what the float32 call on the same numbers gives, rounded to
 * nearest (half a unit in the last place: 2^-11 relative in float16, 2^-8 in bfloat16). All tensors live on the
 * context's device and are C-contiguous. An empty tensor (B = 0 or J = 0) is a valid call that does and writes
 * nothing.
 *
 * Calls are queued on the context's stream (CUDA) or done on return (CPU). They allocate nothing (apart from
 * the OpenMP runtime's threads, when a CPU call first needs them), never synchronise and touch no other stream:
 * they can be captured in a CUDA graph. Results are deterministic: the same bits run to run on one device, and
 * on the CPU for every thread count. Each image's result depends on that image alone, bit for bit.
 * Gradients are first order: the library has no second derivative (double backward) of this operator.
 */
/* clang-format on */
#ifndef SEGPRIOR_SOFTMAX_H
#define SEGPRIOR_SOFTMAX_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Options ------------------------------------------------------------------------------------------- */

/* What backward differentiates. */
enum {
  SEGPRIOR_BACKWARD_LAST = 0, /* duals held constant ("quasi dropout", [VPTV] 5.2); needs no saved state */
  SEGPRIOR_BACKWARD_UNROLLED = 1, /* exact adjoint of all iterations */
  SEGPRIOR_BACKWARD_IMPLICIT =
      2 /* derivative of the converged map (a fixed point of the iteration), from the
           final state alone; meaningful only if forward has converged. Conjugate
           gradients on the symmetric dual system for TV and volume alone; with
           threshold dynamics or star shapes the adjoint iteration at the frozen final
           state. No gradients for steps and eps0, which do not move the fixed point */
};

/* Fill with segprior_softmax_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_softmax_opts {
  size_t struct_size;
  int32_t iterations; /* T >= 0: the number of iterations, or their cap if tolerance > 0. 30 */
  int32_t accelerate; /* 0: the papers' plain iteration. 1: Nesterov momentum with restart on q and g. 0 */
  double tolerance;   /* > 0: an image stops when max |u_t+1 - u_t| < tolerance at a check (when
                              accelerated after one more iteration, without momentum). 0: never */
  int32_t check_interval;      /* >= 1: iterations between two checks of the tolerance. 10 */
  int32_t checkpoint_interval; /* what forward leaves in `saved` for the unrolled backward: 0 nothing, n >= 1
                                  the state of every n-th iteration (1: all of them, nothing recomputed). The
                                  implicit backward needs n >= 1 and reads the last state alone: n = T is
                                  enough. 0 */
  int32_t tv;                  /* 1: with the TV prior. 0 */
  int32_t backward_mode;       /* SEGPRIOR_BACKWARD_LAST, _UNROLLED or _IMPLICIT. _LAST */
  int32_t accumulate;          /* 1: backward adds to its outputs. 0: it overwrites them. 0 */
  int32_t reserved;            /* must be 0 */
  double eps;                  /* entropy weight, > 0; unused if inputs.eps is given. 1 */
  double init_eps;             /* eps0 of the start, > 0; 0: the same as eps. 0 */
  double tv_lam;               /* TV weight, >= 0; unused if inputs.tv_lam is given. 1 */
  double tv_tau;               /* dual step, > 0; 0: eps / sum_d h_d^-2, half of that when accelerated (the
                                  largest stable step), half again with star classes; unused if inputs.tv_tau is
                                  given. 0 */
  double spacing[3]; /* h_d > 0, physical voxel size per spatial axis, in the order of the axes. 1 */
  /* since 0.2 */
  int32_t td; /* 1: with the threshold dynamics prior. 0 */
  int32_t
      td_size;   /* Gaussian kernel: voxels per axis, odd, 1 .. 15; unused if inputs.td_kernel is given. 7 */
  double td_lam; /* weight of threshold dynamics, >= 0; unused if inputs.td_lam is given. 1 */
  double td_sigma; /* width of the Gaussian in voxels, > 0; unused if inputs.td_sigma or .td_kernel is given.
                      5 */
  int32_t star_count;          /* M >= 0: number of star-shaped classes. 0 */
  int32_t path;                /* SEGPRIOR_PATH_AUTO, _STREAMING or _ON_CHIP; the CPU ignores it. _AUTO */
  const int32_t *star_classes; /* [M] distinct classes 0 .. I-1, host memory, read during the call */
  double star_tau; /* step of the star duals, > 0; 0: 2 eps / sum_d h_d^-2 for one star class, half of
                      that for several, and half again (of tv_tau's default too) if the TV prior is on
                      as well or when accelerated; unused if inputs.star_tau is given. 0 */
  int32_t implicit_iterations; /* cap of the implicit backward's iterations, >= 1. 1000 */
  int32_t compact_saved; /* 1: `saved` holds TV duals and u as 16-bit fixed point: about half the bytes. The
                            error of a dual component is <= tv_lam e / 32767, of u <= 1 / 131070; the full
                            state is in the workspaces meanwhile. Gradients: a projection decided by less
                            than this rounding takes the other side; relative to the largest entry 1e-5 to
                            1e-3 was seen, once 1e-2. Not with a warm start, nor accelerated
                            (SEGPRIOR_ERROR_NOT_SUPPORTED). 0 */
  double implicit_tolerance; /* > 0: an image's implicit backward stops when its residual, relative to its
                                start, is below it. With threshold dynamics or star shapes the residual is
                                the last term of a series, and the error the sum of all that would follow:
                                where it converges slowly 1e-6 may leave gradients wrong by some percent.
                                1e-6 */
} segprior_softmax_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_softmax_opts) as the caller compiled it.
 */
SEGPRIOR_API segprior_status segprior_softmax_opts_init(segprior_softmax_opts *opts, size_t struct_size);

/* ---- Arguments ----------------------------------------------------------------------------------------- */

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_softmax_inputs), then the pointers. NULL:
 * absent. */
typedef struct segprior_softmax_inputs {
  size_t struct_size;
  const segprior_tensor *features; /* o [B, I, *S]; required. Larger means more likely */
  const segprior_tensor *eps;      /* [1], > 0 */
  const segprior_tensor *tv_lam;   /* [1], >= 0 */
  const segprior_tensor *tv_tau;   /* [1], > 0 */
  const segprior_tensor *tv_edge;  /* e [B, *S], or [1, *S] shared by the batch; >= 0. Absent: 1 */
  const segprior_tensor *volume; /* [B, I] voxels, >= 0: sum_x u_i = volume_i. Excludes the next two. A class
                                    of volume (or upper bound) 0 is excluded: u_i = 0 exactly, all its
                                    gradients 0 */
  const segprior_tensor *volume_lower;     /* [B, I] voxels, >= 0. Absent with volume_upper present: 0 */
  const segprior_tensor *volume_upper;     /* [B, I] voxels, >= lower; +Inf: none. Absent with lower: +Inf */
  const segprior_tensor *init_tv_dual;     /* warm start q [B, I, nd, *S]; absent: 0. A constant in
                                                  backward. Components at the far border count as 0 */
  const segprior_tensor *init_volume_dual; /* warm start f [B, I]; absent: 0. A constant in backward */
  /* since 0.2 */
  const segprior_tensor *td_lam;   /* [1], >= 0 */
  const segprior_tensor *td_sigma; /* [1], > 0. Excludes td_kernel */
  const segprior_tensor
      *td_kernel; /* k [*K], or [I, *K] one per class: nd odd extents, each 1 .. 15, in the order
                     of the spatial axes; any finite values, applied as a correlation. Absent:
                     Gaussian exp(-|d|^2 / (2 sigma^2)) on td_size voxels per axis, sum 1 */
  const segprior_tensor *td_edge;     /* e' [B, *S], or [1, *S] shared by the batch; >= 0. Absent: 1 */
  const segprior_tensor *star_center; /* c [B, M, nd], in voxel indices (0 is the middle of the first voxel),
                                         any position, in float32 of magnitude < 1e18 (its square would
                                         overflow: s = 0); required if star_count > 0 */
  const segprior_tensor *star_tau;    /* [M], > 0 */
  const segprior_tensor
      *mask; /* uint8 [B, *S], or [1, *S] shared by the batch; 0: masked. Absent: all valid */
  const segprior_tensor
      *init_star_dual; /* warm start g [B, M, *S], >= 0; absent: 0. A constant in backward */
} segprior_softmax_inputs;

/* Outputs of forward. NULL: not wanted. All are overwritten. None may overlap another argument. */
typedef struct segprior_softmax_outputs {
  size_t struct_size;
  const segprior_tensor *u;           /* [B, I, *S]; required */
  const segprior_tensor *tv_dual;     /* q [B, I, nd, *S]; only with opts.tv */
  const segprior_tensor *volume_dual; /* f [B, I]; only with a volume prior; -Inf for an excluded class */
  segprior_info *info;                /* [B], device memory, 8-byte aligned */
  /* since 0.2 */
  const segprior_tensor *star_dual; /* g [B, M, *S]; only with star classes */
} segprior_softmax_outputs;

/* Gradients written by backward. NULL: not wanted. All but `features` need SEGPRIOR_BACKWARD_UNROLLED or
 * _IMPLICIT; init_eps, tv_tau and star_tau need _UNROLLED. Implicit gradients of volumes are fixed only up to
 * a constant per image, since sum_i volume_i = J. */
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
  /* since 0.2 */
  const segprior_tensor *td_lam;      /* [1] */
  const segprior_tensor *td_sigma;    /* [1]; not with inputs.td_kernel */
  const segprior_tensor *td_kernel;   /* as inputs.td_kernel, which must be present */
  const segprior_tensor *td_edge;     /* as inputs.td_edge, which must be present */
  const segprior_tensor *star_tau;    /* [M]; the partial derivative, also where it is the default */
  const segprior_tensor *star_center; /* [B, M, nd] */
  segprior_info
      *info; /* [B], device memory, 8-byte aligned, only with _IMPLICIT: status converged or iteration
                cap (or forward's failure), iterations and relative residual of the adjoint solve */
} segprior_softmax_grads;

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* Bytes of scratch that forward and backward need. Only the presence, shapes, dtypes and device of `inputs`
 * are read, not their data (data pointers may be NULL). Either result pointer may be NULL. A workspace must
 * be aligned to 64 bytes (256 before 0.5), may be shared by successive calls on one stream and holds nothing
 * between calls. Backward needs little with backward_mode = _LAST, and none without a mask and 16-bit
 * features: set the mode before asking. */
SEGPRIOR_API segprior_status segprior_softmax_workspace_size(segprior_context *context,
                                                             const segprior_softmax_opts *opts,
                                                             const segprior_softmax_inputs *inputs,
                                                             size_t *forward_bytes, size_t *backward_bytes);

/* Bytes of `saved` that forward leaves for the unrolled backward with this checkpoint_interval n:
 * about (T/n + 1) * nd * sizeof(dtype) per voxel and class with the TV prior, twice that when accelerated,
 * and with threshold dynamics or star classes (T/n + 1) * sizeof(dtype) more for u; 0 if n = 0. */
SEGPRIOR_API segprior_status segprior_softmax_saved_size(segprior_context *context,
                                                         const segprior_softmax_opts *opts,
                                                         const segprior_softmax_inputs *inputs,
                                                         size_t *saved_bytes);

/* Computes u. `workspace` and `saved` are device memory, 64-byte aligned, of at least the queried sizes;
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
 * `u` [B, I, *S]: forward's output; required by _LAST, unused (may be NULL) by the other modes.
 * `saved`: what forward wrote, unchanged; required by _UNROLLED and _IMPLICIT (checkpoint_interval >= 1),
 * unused by _LAST. An image that failed in forward has NaN gradients; sums over the batch that include it are
 * NaN too. */
SEGPRIOR_API segprior_status segprior_softmax_backward(
    segprior_context *context, const segprior_softmax_opts *opts, const segprior_softmax_inputs *inputs,
    const segprior_tensor *u, const segprior_tensor *grad_u, const segprior_softmax_grads *grads,
    void *workspace, size_t workspace_bytes, const void *saved, size_t saved_bytes);

#ifdef __cplusplus
}
#endif
#endif
