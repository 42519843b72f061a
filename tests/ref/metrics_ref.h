// The scores of metrics.h, written as plainly as possible: loops over voxels, and a flood fill with a queue.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/ref/array.h"

namespace segprior::ref::metrics {

using Ints = std::vector<int64_t>;

// A label map [batch, spatial]. mask: empty, or of the map, or of one image.
struct Map {
  int64_t batch;
  Ints spatial, values, mask = {};

  int64_t voxels() const;
  bool counts(int64_t b, int64_t v) const;  // as far as the mask is concerned
};

struct Confusion {
  Ints matrix, invalid;  // [B, I, I], [B]
};
Confusion confusion(const Map &labels, const Ints &prediction, int64_t classes, int64_t ignore_label);

// The class of the largest score of every voxel; -1 where all are NaN. scores [B, I, J].
Ints largest(const Array &scores, int64_t batch, int64_t classes);

struct Scores {
  Array accuracy, iou, mean_iou, dice, mean_dice, precision, recall;
};
Scores scores(const Ints &matrices, int64_t classes);

Ints volumes(const Map &, int64_t classes);  // [B, I]
Ints faces(const Map &, int64_t classes);    // [B, I, axes]

struct Components {
  Ints components, count, class_count;  // [B, J], [B], [B, I]
};
Components components(const Map &, bool full, bool by_value, int64_t background, int64_t classes);

}  // namespace segprior::ref::metrics
