// Passes over the voxels of one image on the CPU: kernels in SIMD, chosen for the machine at run time.
#pragma once

#include <cstdint>

#include "kernels/proposals/proposals.h"

namespace segprior::proposals {

// Voxels whose sums are kept apart. Fixed: results do not depend on the number of threads.
constexpr int64_t kChunk = 4096;

// Columns that are worked on at once: their logits stay in the first or second level of the cache.
template <class T>
constexpr int64_t block_columns(int64_t classes) {
  const int64_t fit = 32768 / (static_cast<int64_t>(sizeof(T)) * classes) / 64 * 64;
  return fit < 64 ? 64 : fit > kChunk ? kChunk : fit;
}
// Elements of one thread's scratch: a block of all classes, and four rows.
template <class T>
constexpr int64_t scratch_size(int64_t classes) {
  return (classes + 4) * block_columns<T>(classes);
}

template <class T>
struct Image {
  int64_t classes, voxels;
  Storage storage;
  const void *logits;   // [I, J]
  const uint8_t *mask;  // [J]; null: all valid
  const T *dual;        // [I]
};

template <class T>
struct RowKernels {
  // The sums (proposals_math.h) of voxels [begin, end).
  void (*sums)(const Image<T> &, int64_t begin, int64_t end, T *scratch, double *sums);
  // Q [I, J] of the same voxels.
  void (*write)(const Image<T> &, int64_t begin, int64_t end, T *scratch, void *proposal);
};

// The kernels for the best instruction set of this machine.
template <class T>
const RowKernels<T> &row_kernels();

}  // namespace segprior::proposals
