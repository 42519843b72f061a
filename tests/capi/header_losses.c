/* losses.h alone, in C99: the struct layouts are part of the ABI. */
#include "segprior/losses.h"

#include "tests/capi/headers.h"

int segprior_test_losses_header(void) {
  segprior_loss_opts opts;
  int k;
  if (segprior_loss_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.activation != SEGPRIOR_ACTIVATION_SOFTMAX) return 2;
  for (k = 0; k < SEGPRIOR_LOSS_TERMS; ++k)
    if (opts.weights[k] != 0) return 3;
  if (opts.reduction != SEGPRIOR_REDUCTION_SUM || opts.ignore_label != 255 || opts.accumulate != 0) return 4;
  if (opts.size_per_voxel != 0 || opts.dice_squared != 1 || opts.dice_batch != 0) return 5;
  if (opts.dice_smooth_nr != 1e-5 || opts.dice_smooth_dr != 1e-5) return 6;
  if (opts.focal_gamma != 2 || opts.focal_dice_threshold != 0.5 || opts.focal_dice_gamma != 2) return 7;
  if (opts.log_offset != 1e-10) return 8;
  if (SEGPRIOR_LOSS_TERMS != 5 || SEGPRIOR_LOSS_SIZE != 0 || SEGPRIOR_LOSS_CROSS_ENTROPY != 1) return 9;
  if (SEGPRIOR_LOSS_FOCAL != 2 || SEGPRIOR_LOSS_DICE != 3 || SEGPRIOR_LOSS_FOCAL_DICE != 4) return 10;
  if (offsetof(segprior_loss_opts, weights) != sizeof(size_t)) return 11;
  if (offsetof(segprior_loss_inputs, scores) != sizeof(size_t)) return 12;
  if (sizeof(segprior_loss_inputs) != sizeof(size_t) + 9 * sizeof(void *)) return 13;
  if (sizeof(segprior_loss_outputs) != sizeof(size_t) + 5 * sizeof(void *)) return 14;
  if (sizeof(segprior_loss_cotangents) != sizeof(size_t) + 4 * sizeof(void *)) return 15;
  if (sizeof(segprior_loss_grads) != sizeof(size_t) + 4 * sizeof(void *)) return 16;
  if (SEGPRIOR_BOUNDS_TAGS != 0 || SEGPRIOR_BOUNDS_COMMON != 1 || SEGPRIOR_BOUNDS_INDIVIDUAL != 2) return 17;
  return 0;
}
