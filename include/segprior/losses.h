/* clang-format off */
/* libsegprior, losses of segmentation: any weighted sum of five terms, in one pass over the scores.
 *
 * S(b, i, x) is the probability of class i at voxel x of image b, y the label and t_i the target (1 where y = i,
 * else 0, or the caller's soft target). m(x) is 0 at masked voxels, l(x) is m(x) without the voxels whose label
 * is not known. All sums are over the voxels of one image.
 *
 *   SIZE           V_i = sum_x m S_i;   w_i n (V_i - lower_i)^2  if V_i < lower_i,  w_i n (V_i - upper_i)^2  if
 *                  V_i > upper_i, else 0.  [CC] eq. 3; images that form one volume: V is summed over them first,
 *                  [CC] 4.4.  n = 1, or 1 / J as [CC]'s published code has it.
 *   CROSS_ENTROPY  w_i sum_x l t_i (-ln S_i)                                        partial labels: [CC] section 3
 *   FOCAL          w_i sum_x l t_i (1 - S_i)^g (-ln S_i)                            [SC] eq. 26
 *   DICE           w_i (1 - (2 sum_x l S_i t_i + r) / (sum_x l S_i^2 + sum_x l t_i^2 + d))      [SC] eq. 7; or,
 *                  dice_squared = 0, with plain sums of S_i and t_i in the denominator
 *   FOCAL_DICE     DICE with h(S_i) in the place of S_i: z = min(1, max(0, S_i - threshold + 1/2)),
 *                  h = z^g / (z^g + (1 - z)^g)                 [SC] eq. 28 and eq. 27, whose printed minus is wrong
 *
 * w_i are class weights, r and d the smoothing of the fraction. Where its denominator is 0, and in images without a
 * labelled voxel, the loss is 0. r > 0 with d = 0 is a bad idea: a class that hardly occurs then has a huge loss.
 * [CC]: Kervadec et al., "Constrained-CNN losses for weakly supervised segmentation", arXiv 1805.04628.
 * [SC]: SoftCut, see softcut.h.
 *
 * The scores are logits with S the softmax over the classes; or logits with S_i = 1 / (1 + exp(-z_i)), the
 * classes independent of one another; or probabilities, S itself. With independent classes a voxel's cross
 * entropy is binary, -t ln S - (1 - t) ln(1 - S), and FOCAL is t (1 - S)^g (-ln S) + (1 - t) S^g (-ln(1 - S)).
 *
 * Shapes: B images, I classes (1 .. 256), nd = 1, 2 or 3 spatial axes *S, J = prod(S) voxels. Scores and their
 * gradient: float32, float64, float16 or bfloat16. Other real tensors: of the scores' dtype, or float32 if that
 * has 16 bits. The arithmetic is that of the latter dtype; sums over voxels are float64, of blocks of at most 512
 * voxels (CPU) in the arithmetic's dtype. A float16 gradient overflows beyond 65504, as that of SIZE with n = 1
 * may. All tensors live on the context's device and are C-contiguous. B = 0 or J = 0 is a valid call: all results are 0.
 *
 * Calls are queued on the context's stream (CUDA) or done on return (CPU). They allocate nothing, never
 * synchronise and can be captured in a CUDA graph. Results are deterministic: the same bits run to run on one
 * device, and on the CPU for every thread count.
 *
 * An image fails if an unmasked score is NaN or Inf, a label is out of range, a soft target or a probability is
 * negative (or a target NaN, Inf, or, in uint8, above 1), or its bounds, group or class weights are not valid (lower > upper, NaN,
 * weight < 0 or not finite). Its values and gradients are then NaN and its info says why; so are sums that it
 * takes part in. The gradients of other images do not change, but for terms that pool images. Masked voxels take
 * part in nothing and have a gradient of exactly 0, whatever their scores hold. Labels, targets, masks and
 * groups are constants: no derivative with respect to them.
 */
/* clang-format on */
#ifndef SEGPRIOR_LOSSES_H
#define SEGPRIOR_LOSSES_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Options ------------------------------------------------------------------------------------------- */

/* The terms; indices of opts.weights and of the first axis of outputs.terms and outputs.items. */
enum {
  SEGPRIOR_LOSS_SIZE = 0,          /* the size penalty */
  SEGPRIOR_LOSS_CROSS_ENTROPY = 1, /* full or partial cross entropy */
  SEGPRIOR_LOSS_FOCAL = 2,         /* the focal loss */
  SEGPRIOR_LOSS_DICE = 3,          /* the Dice loss */
  SEGPRIOR_LOSS_FOCAL_DICE = 4,    /* the Dice loss of sharpened probabilities */
  SEGPRIOR_LOSS_TERMS = 5,         /* their number */
  SEGPRIOR_LOSS_CAPACITY = 8       /* slots of opts.weights, for terms of later versions */
};

/* How the scores become the probabilities S. */
enum {
  SEGPRIOR_ACTIVATION_SOFTMAX = 0, /* the scores are logits, S their softmax over the classes */
  SEGPRIOR_ACTIVATION_SIGMOID = 1, /* the scores are logits, S the logistic function of each */
  SEGPRIOR_ACTIVATION_NONE = 2     /* the scores are S */
};

/* How a term becomes one number. */
enum {
  SEGPRIOR_REDUCTION_SUM = 0, /* over images (groups) and classes */
  /* The sum divided by, for CROSS_ENTROPY and FOCAL, sum_(b, x, i) l w_i t_i (the number of labelled voxels
     if all weights are 1; with independent classes the labelled voxels times the classes whose weight is not
     0); for DICE and FOCAL_DICE, the number of pairs of an image with labelled voxels and a class whose
     weight is not 0; for SIZE, the number of pairs of a group and a class whose weight is not 0 that have a
     bound (lower > 0 or upper < Inf). 0 where that is 0. */
  SEGPRIOR_REDUCTION_MEAN = 1
};

/* Fill with segprior_loss_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_loss_opts {
  size_t struct_size;
  double weights[SEGPRIOR_LOSS_CAPACITY]; /* of the terms in outputs.total, any finite value; those beyond
                                             SEGPRIOR_LOSS_TERMS must be 0. A term of weight 0 is off: it is
                                             not computed, and its terms and items are 0. 0 */
  int32_t activation;                     /* SEGPRIOR_ACTIVATION_SOFTMAX, _SIGMOID or _NONE. _SOFTMAX */
  int32_t reduction;                      /* SEGPRIOR_REDUCTION_SUM or _MEAN. _SUM */
  int64_t ignore_label; /* this label, and every negative one, means: not known. With 256 classes the default
                           is a class: set another. 255 */
  int32_t accumulate;   /* 1: backward adds to its outputs. 0: it overwrites them. 0 */
  int32_t size_per_voxel; /* 0: n = 1. 1: n = 1 / J. 0 */
  int32_t dice_squared;   /* 1: squares in the denominators of DICE and FOCAL_DICE. 0: plain sums. 1 */
  int32_t dice_batch;     /* 1: DICE and FOCAL_DICE take the batch as one image. 0: each image. 0 */
  int32_t background;     /* _SIGMOID only. 0: label y is the class y. 1: label 0 is a background that has no
                             channel, and label y > 0 the class y - 1, as for a network with one channel and
                             labels 0, 1. 0 */
  int32_t reserved;       /* must be 0 */
  double dice_smooth_nr;  /* r >= 0. 1e-5 */
  double dice_smooth_dr;  /* d >= 0. 1e-5 */
  double focal_gamma;     /* g of FOCAL, >= 0. 2 */
  double focal_dice_threshold; /* 0 .. 1. 0.5 */
  double focal_dice_gamma;     /* g of FOCAL_DICE, >= 1. 2 */
  double log_offset; /* >= 0; for probabilities, ln S is ln(S + log_offset), as [CC]'s published code
                        has it: a probability of 0 is no infinite loss. 1e-10 */
} segprior_loss_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_loss_opts) as the caller compiled it. */
SEGPRIOR_API segprior_status segprior_loss_opts_init(segprior_loss_opts *opts, size_t struct_size);

/* ---- Arguments ----------------------------------------------------------------------------------------- */

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_loss_inputs), then the pointers. NULL: absent.
 */
typedef struct segprior_loss_inputs {
  size_t struct_size;
  const segprior_tensor *scores; /* [B, I, *S]; required */
  /* Exactly one of the next two is needed by every term but SIZE, which alone needs neither. */
  const segprior_tensor *labels; /* y [B, *S], uint8, int32 or int64: 0 .. I-1 (with opts.background 0 .. I),
                                    or not known */
  const segprior_tensor *target; /* t [B, I, *S], of the scores' dtype, >= 0 (independent classes: 0 .. 1), or
                                    uint8, 0 or 1: soft labels */
  const segprior_tensor
      *mask; /* uint8 [B, *S], or [1, *S] shared by the batch; 0: masked. Absent: all valid */
  const segprior_tensor *labelled; /* uint8, likewise; 0: the label is not known. Absent: known where labels
                                      do not say otherwise */
  const segprior_tensor
      *class_weights;                /* w [I] for all terms, or [SEGPRIOR_LOSS_TERMS, I]; >= 0. Absent: 1 */
  const segprior_tensor *size_lower; /* [G, I] voxels, or [1, I] for all; -Inf allowed. Absent: 0 */
  const segprior_tensor *size_upper; /* [G, I] voxels, or [1, I] for all; +Inf allowed. Absent: +Inf */
  const segprior_tensor
      *size_groups; /* int32 [B], 0 .. B-1: images of one group form one volume, whose size is
                       bounded; bounds are then [B, I], of which the rows of groups without
                       images are not read. Absent: each image is its own group, G = B */
} segprior_loss_inputs;

/* Outputs of forward. NULL: not wanted. All are overwritten. None may overlap another argument. */
typedef struct segprior_loss_outputs {
  size_t struct_size;
  const segprior_tensor *total; /* [1]: sum_k weights[k] terms[k] */
  const segprior_tensor *terms; /* [SEGPRIOR_LOSS_TERMS]: each term reduced, without its weight */
  /* [SEGPRIOR_LOSS_TERMS, B, I]: each term unreduced. SIZE has its groups, and with dice_batch DICE and
     FOCAL_DICE the whole batch in row 0, in the rows of the images; unused rows are 0. */
  const segprior_tensor *items;
  const segprior_tensor *voxels; /* [B, *S]: weights[k] times the loss of each voxel, summed over
                                    CROSS_ENTROPY and FOCAL; 0 where masked or not labelled */
  segprior_info *info; /* [B], device memory, 8-byte aligned: status SEGPRIOR_CONVERGED, _NONFINITE_INPUT or
                          _INVALID_PARAMETER; iterations and residual are 0 */
} segprior_loss_outputs;

/* Incoming gradients of backward: of a scalar function with respect to the outputs. NULL: 0. */
typedef struct segprior_loss_cotangents {
  size_t struct_size;
  const segprior_tensor *total;  /* [1] */
  const segprior_tensor *terms;  /* [SEGPRIOR_LOSS_TERMS] */
  const segprior_tensor *items;  /* [SEGPRIOR_LOSS_TERMS, B, I] */
  const segprior_tensor *voxels; /* [B, *S] */
} segprior_loss_cotangents;

/* Gradients written by backward. NULL: not wanted. */
typedef struct segprior_loss_grads {
  size_t struct_size;
  const segprior_tensor *scores;        /* [B, I, *S], the scores' dtype */
  const segprior_tensor *class_weights; /* as inputs.class_weights, which must be present. Not together with
                                           an incoming gradient of voxels: SEGPRIOR_ERROR_NOT_SUPPORTED */
  const segprior_tensor *size_lower;    /* as inputs.size_lower, which must be present */
  const segprior_tensor *size_upper;    /* as inputs.size_upper, which must be present */
} segprior_loss_grads;

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* Bytes of scratch of forward and backward, and of what forward leaves for backward (about 10 float64 numbers
 * per image and class). Only the presence, shapes, dtypes and device of `inputs` are read, not their data.
 * forward_bytes and backward_bytes may be NULL. Workspace and saved must be aligned to 64 bytes. */
SEGPRIOR_API segprior_status segprior_loss_workspace_size(segprior_context *context,
                                                          const segprior_loss_opts *opts,
                                                          const segprior_loss_inputs *inputs,
                                                          size_t *forward_bytes, size_t *backward_bytes);

/* Bytes of `saved`, see segprior_loss_workspace_size. */
SEGPRIOR_API segprior_status segprior_loss_saved_size(segprior_context *context,
                                                      const segprior_loss_opts *opts,
                                                      const segprior_loss_inputs *inputs,
                                                      size_t *saved_bytes);

/* Computes the loss. Reads the scores once, whatever the terms: 4 bytes per voxel and class in float32, and
 * one per voxel for labels of one byte. `saved` may be NULL: no backward call will follow. Errors: every
 * argument error of core.h; nothing is written then. */
SEGPRIOR_API segprior_status segprior_loss_forward(segprior_context *context, const segprior_loss_opts *opts,
                                                   const segprior_loss_inputs *inputs,
                                                   const segprior_loss_outputs *outputs, void *workspace,
                                                   size_t workspace_bytes, void *saved, size_t saved_bytes);

/* Gradients of a scalar function of the outputs. `opts` and `inputs` are those of the forward call
 * (accumulate may differ), `saved` is what it wrote. Reads the scores once more and writes their gradient. */
SEGPRIOR_API segprior_status segprior_loss_backward(segprior_context *context, const segprior_loss_opts *opts,
                                                    const segprior_loss_inputs *inputs,
                                                    const segprior_loss_cotangents *cotangents,
                                                    const segprior_loss_grads *grads, void *workspace,
                                                    size_t workspace_bytes, const void *saved,
                                                    size_t saved_bytes);

/* ---- Size bounds --------------------------------------------------------------------------------------- */

/* How segprior_size_bounds makes bounds from the true sizes V of the classes; J is the number of voxels. A
 * class with V = 0 in an image is absent there, and has the bounds 0, 0 ([CC] eq. 5). */
enum {
  SEGPRIOR_BOUNDS_TAGS = 0,   /* 1, J: only whether the class is there is known ([CC] eq. 5) */
  SEGPRIOR_BOUNDS_COMMON = 1, /* low * min V, high * max V over the images that have the class ([CC] eq. 6) */
  SEGPRIOR_BOUNDS_INDIVIDUAL = 2 /* low * V, high * V ([CC] eq. 7) */
};

/* Writes lower and upper [B, I] (float32 or float64, both the same) from volumes V [B, I], int64, as
 * segprior_label_geometry counts them. voxels = J >= 0, > 0 for tags, whose upper bound it is; low and high,
 * the factors (0.9 and 1.1 in [CC]), are finite with 0 <= low <= high. Needs no workspace. */
SEGPRIOR_API segprior_status segprior_size_bounds(segprior_context *context, int32_t kind,
                                                  const segprior_tensor *volumes, int64_t voxels, double low,
                                                  double high, const segprior_tensor *lower,
                                                  const segprior_tensor *upper);

#ifdef __cplusplus
}
#endif
#endif
