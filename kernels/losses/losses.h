// Internal contract of the losses: what capi/ hands to a backend, after every argument was checked.
// Notation and derivation: losses.md. Public contract: include/segprior/losses.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/common/labels.h"
#include "kernels/common/storage.h"
#include "segprior/core.h"
#include "segprior/losses.h"

namespace segprior::losses {

constexpr int kTerms = SEGPRIOR_LOSS_TERMS;
constexpr int kMaxClasses = 256;

enum class Scores { logits, sigmoid, probabilities };
// What tells the target: nothing (SIZE alone), a label map, or t itself, of the scores' storage or uint8.
enum class Target { none, labels, soft, one_hot };

// Device memory. Null data is legal in size queries only, so layouts look at the flags and counts, never at
// pointers.
struct Problem {
  int64_t batch, classes, voxels;
  Storage storage;  // of scores, their gradient and a soft target; other real tensors are of the arithmetic's
                    // dtype
  Scores scores_are;
  Target target;
  LabelType label_type;
  bool has_mask, mask_shared, has_labelled, labelled_shared, has_groups;
  int64_t weight_rows, lower_rows, upper_rows;  // rows of these tensors; 0: absent
  int64_t ignore_label;

  double weights[kTerms];  // of the terms in the total; 0: off
  bool mean, size_per_voxel, dice_squared, dice_batch;
  bool background;  // label 0 has no channel
  double smooth_nr, smooth_dr, focal_gamma, focal_dice_threshold, focal_dice_gamma, log_offset;

  const void *scores;                   // [B, I, J]
  const void *labels;                   // [B, J], or [B, I, J] of a soft target
  const uint8_t *mask, *labelled;       // [B, J] or [J]
  const void *class_weights;            // [weight_rows, I]
  const void *size_lower, *size_upper;  // [rows, I]
  const int32_t *size_groups;           // [B]

  SEGPRIOR_HD bool on(int term) const { return weights[term] != 0; }
};

// Null: not wanted.
struct Outputs {
  void *total, *terms, *items, *voxels;
  segprior_info *info;
};

// Null: zero.
struct Cotangents {
  const void *total, *terms, *items, *voxels;
};

// Null: not wanted.
struct Grads {
  void *scores, *class_weights, *size_lower, *size_upper;
  bool accumulate;
};

struct Bounds {
  int32_t kind;
  int64_t batch, classes, voxels;
  const int64_t *volumes;  // [B, I]
  double low, high;
  bool f64;
  void *lower, *upper;  // [B, I]
};

enum class Pass { forward, backward };

// One backend: CPU (losses_cpu.cpp) or CUDA (losses_cuda.cu). `stream` is a cudaStream_t, `threads` >= 1 the
// CPU thread count; each backend ignores the other's. `saved` of forward may be null. Problems have B * J >
// 0.
struct Backend {
  size_t (*workspace)(const Problem &, Pass, int threads);
  size_t (*saved)(const Problem &);
  void (*forward)(const Problem &, const Outputs &, void *workspace, void *saved, int threads, void *stream);
  void (*backward)(const Problem &, const Cotangents &, const Grads &, void *workspace, const void *saved,
                   int threads, void *stream);
  void (*bounds)(const Bounds &, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::losses
