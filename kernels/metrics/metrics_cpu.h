// What the CPU backend of the scores is made of.
#pragma once

#include "kernels/metrics/metrics.h"

namespace segprior::metrics {

// metrics_cpu_counts.cpp
void confusion_cpu(const Confusion &, int threads, void *stream);
void geometry_cpu(const Geometry &, int threads, void *stream);

constexpr int64_t kBlock = 1024;  // voxels that are counted at once

// The class of the largest of `classes` scores, which lie `stride` apart, for each of `count` <= kBlock
// voxels: the first of equals; -1: all are NaN. metrics_cpu_largest.cpp
using Largest = void (*)(const void *scores, int64_t classes, int64_t stride, int64_t count, int32_t *out);
Largest largest_of(Storage);

// metrics_cpu_components.cpp
size_t components_workspace_cpu(const Components &, int threads);
void components_cpu(const Components &, void *workspace, int threads, void *stream);

// f(pointer of the labels' own type).
template <class F>
void with_labels(LabelType type, const void *labels, const F &f) {
  if (type == LabelType::u8) return f(static_cast<const uint8_t *>(labels));
  if (type == LabelType::i32) return f(static_cast<const int32_t *>(labels));
  f(static_cast<const int64_t *>(labels));
}

// Integers: exact in any order, hence the same for every thread count.
inline void add_to(int64_t &sum, int64_t value) {
  if (value != 0) __atomic_fetch_add(&sum, value, __ATOMIC_RELAXED);
}

}  // namespace segprior::metrics
