/* libsegprior, scores of segmentations: exact integer counts on label maps, and what follows from them.
 *
 * Label maps are [B, *S], 1 to 3 spatial axes, uint8, int32 or int64. Masks are uint8 [B, *S], or [1, *S]
 * shared by the batch; voxels where they are 0 count nowhere (NULL: all count). Counts are int64. All tensors
 * live on the context's device and are C-contiguous. Calls are queued on the context's stream (CUDA) or done
 * on return (CPU); they allocate nothing and never synchronise. Results are exact, hence the same on every
 * device and for every thread count. B = 0 or no voxels is a valid call; counts are then 0.
 */
#ifndef SEGPRIOR_METRICS_H
#define SEGPRIOR_METRICS_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Confusion matrix and what follows from it --------------------------------------------------------- */

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_confusion_inputs), then the pointers. */
typedef struct segprior_confusion_inputs {
  size_t struct_size;
  const segprior_tensor
      *labels; /* the truth [B, *S]; required. Negative ones are not known, and not counted */
  /* Exactly one of these two. */
  const segprior_tensor *prediction; /* [B, *S] */
  const segprior_tensor *scores; /* [B, I, *S], float32, float64, float16 or bfloat16: the prediction is the
                                    class of the largest, the first of equals */
  const segprior_tensor *mask;   /* NULL: all voxels count */
} segprior_confusion_inputs;

/* Counts voxels: matrix [B, I, I], int64, I = 1 .. 256, is overwritten with the number of voxels of image b
 * with label i (rows) that are predicted as class j (columns). invalid [B], int64, or NULL: the number of
 * voxels that the matrix does not count because label or prediction is out of range, or all scores are NaN.
 * Voxels with a negative label or ignore_label (255 by custom; -1: none besides) are not known and count
 * nowhere. */
SEGPRIOR_API segprior_status segprior_confusion(segprior_context *context,
                                                const segprior_confusion_inputs *inputs, int64_t ignore_label,
                                                const segprior_tensor *matrix,
                                                const segprior_tensor *invalid);

/* Outputs of segprior_confusion_scores, float64, NULL: not wanted. With tp the diagonal of a matrix, fn and
 * fp the rest of its row and column; where a fraction is 0 / 0 (the class does not occur), it is NaN. */
typedef struct segprior_confusion_scores_outputs {
  size_t struct_size;
  const segprior_tensor *accuracy;  /* [N]: sum tp / all */
  const segprior_tensor *iou;       /* [N, I]: tp / (tp + fp + fn) */
  const segprior_tensor *mean_iou;  /* [N]: over the classes whose IoU is not NaN; NaN if there is none */
  const segprior_tensor *dice;      /* [N, I]: 2 tp / (2 tp + fp + fn), the Dice score (DSC) */
  const segprior_tensor *mean_dice; /* [N]: as mean_iou */
  const segprior_tensor *precision; /* [N, I]: tp / (tp + fp): |L n G| / |L|, L the segmentation and G the
                                       truth, what [VPTV] calls its Dice distance */
  const segprior_tensor *recall;    /* [N, I]: tp / (tp + fn): |L n G| / |G| */
} segprior_confusion_scores_outputs;

/* Scores of each of N confusion matrices [N, I, I], int64; those of a data set are the scores of the sum of
 * its matrices. */
SEGPRIOR_API segprior_status segprior_confusion_scores(segprior_context *context,
                                                       const segprior_tensor *matrices,
                                                       const segprior_confusion_scores_outputs *outputs);

/* ---- Volumes and boundaries ---------------------------------------------------------------------------- */

/* Counts of a label map, overwritten; NULL: not wanted. volumes [B, I], int64: the voxels of each class.
 * faces [B, I, nd], int64: pairs of neighbours along each axis, both valid, of which exactly one is of class
 * i. The boundary's length (area) is sum_d faces_d times the area of a voxel's face across axis d; labels
 * outside 0 .. I-1 are of no class. I is at most 2^31 - 3 (SEGPRIOR_ERROR_SIZE_OVERFLOW). */
SEGPRIOR_API segprior_status segprior_label_geometry(segprior_context *context, const segprior_tensor *labels,
                                                     const segprior_tensor *mask,
                                                     const segprior_tensor *volumes,
                                                     const segprior_tensor *faces);

/* ---- Connected components ------------------------------------------------------------------------------ */

/* Fill with segprior_components_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_components_opts {
  size_t struct_size;
  int32_t full;       /* neighbours of a voxel: 0 across faces (4 in 2-D, 6 in 3-D), 1 also across edges and
                         corners (8, 26). 0 */
  int32_t by_value;   /* 0: all voxels that are not background are alike. 1: voxels of different values are
                         never in one component. 0 */
  int64_t background; /* the value of voxels that are in no component. 0 */
} segprior_components_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_components_opts) as the caller compiled
 * it. */
SEGPRIOR_API segprior_status segprior_components_opts_init(segprior_components_opts *opts,
                                                           size_t struct_size);

/* Bytes of scratch; a workspace must be aligned to 64 bytes. Data pointers are not read. */
SEGPRIOR_API segprior_status segprior_components_workspace_size(segprior_context *context,
                                                                const segprior_components_opts *opts,
                                                                const segprior_tensor *map,
                                                                const segprior_tensor *mask, size_t *bytes);

/* Connected components of each image of a label map. Outputs are overwritten; NULL: not wanted.
 * components [B, *S], int32: 0 in the background and where masked, else 1 .. count, numbered in the order of
 * the components' first voxels. count [B], int64. class_count [B, I], int64: the components whose value is i,
 * "# distinct figures" of SoftCut's paper; needs by_value. At most 2^31 - 1 voxels per image
 * (SEGPRIOR_ERROR_SIZE_OVERFLOW). */
SEGPRIOR_API segprior_status segprior_components(
    segprior_context *context, const segprior_components_opts *opts, const segprior_tensor *map,
    const segprior_tensor *mask, const segprior_tensor *components, const segprior_tensor *count,
    const segprior_tensor *class_count, void *workspace, size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
#endif
