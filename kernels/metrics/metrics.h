// Internal contract of the scores: what capi/ hands to a backend, after every argument was checked. Public
// contract: include/segprior/metrics.h; algorithms: metrics.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/common/labels.h"
#include "kernels/common/storage.h"
#include "segprior/core.h"

namespace segprior::metrics {

constexpr int kMaxClasses = 256;  // of a confusion matrix
constexpr int kAxes = 3;

struct Confusion {
  int64_t batch, classes, voxels;
  LabelType label_type, prediction_type;
  Storage scores_are;
  int64_t ignore_label;
  bool mask_shared;
  const void *labels;               // [B, J]
  const void *prediction, *scores;  // [B, J] or [B, I, J]; the other is null
  const uint8_t *mask;              // [B, J] or [J]; null: none
  int64_t *matrix, *invalid;        // [B, I, I], [B] or null
};

// Null: not wanted.
struct Scores {
  int64_t count, classes;
  const int64_t *matrices;                  // [N, I, I]
  double *accuracy, *mean_iou, *mean_dice;  // [N]
  double *iou, *dice, *precision, *recall;  // [N, I]
};

struct Geometry {
  int64_t batch, classes;
  int64_t extent[kAxes];  // 1 before the first axis
  int axes;               // of the map: the last ones of `extent`
  LabelType type;
  bool mask_shared;
  const void *labels;        // [B, *S]
  const uint8_t *mask;       // [B, *S] or [*S]; null: none
  int64_t *volumes, *faces;  // [B, I], [B, I, axes]; null: not wanted

  SEGPRIOR_HD int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
};

struct Components {
  int64_t batch, classes;
  int64_t extent[kAxes];  // axes of extent 1 left out, 1 before the first
  LabelType type;
  bool full, by_value, mask_shared;
  int64_t background;
  const void *map;               // [B, *S]
  const uint8_t *mask;           // [B, *S] or [*S]; null: none
  int32_t *components;           // [B, *S]; null: not wanted, as the others
  int64_t *count, *class_count;  // [B], [B, I]

  SEGPRIOR_HD int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
};

// 2 a / (2 a + b) and its like: NaN for 0 / 0. The same expression on both backends: the same bits.
SEGPRIOR_HD inline double fraction(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

// One backend: CPU (metrics_cpu.cpp) or CUDA (metrics_cuda.cu). `stream` is a cudaStream_t, `threads` >= 1
// the CPU thread count; each backend ignores the other's. Problems may be empty, but have workspace only if
// not.
struct Backend {
  void (*confusion)(const Confusion &, int threads, void *stream);
  void (*scores)(const Scores &, int threads, void *stream);
  void (*geometry)(const Geometry &, int threads, void *stream);
  size_t (*components_workspace)(const Components &, int threads);
  void (*components)(const Components &, void *workspace, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::metrics
