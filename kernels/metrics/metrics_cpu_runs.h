// The rows of one image as runs of voxels that belong together, and the trees that join them: what the
// threads of the CPU's connected components share. Functions of metrics_cpu_runs.cpp, compiled for several
// SIMD targets.
#pragma once

#include "kernels/metrics/metrics.h"

namespace segprior::metrics {

// A run is a longest sequence of voxels of a row that are in one component for being next to each other. Runs
// are numbered in raster order with gaps: row r has numbers from r * capacity on. Bits and words: voxel x of
// a row is bit x % 64 of word x / 64.
struct Runs {
  int64_t rows, width, words;  // words: of a row
  int64_t capacity;            // the most runs that a row can have
  uint64_t *inside;            // [rows, words]: in a component
  uint64_t *starts;            // [rows, words]: the first of a run
  int32_t *first;              // [rows, words]: the number of the next run that begins in or after the word
  // [rows * capacity]. While trees grow: a run of the same tree with a smaller number, or itself at a root,
  // which hence is the first run of its component. Then -n where the component's number n is known, 1 the
  // first.
  int32_t *parent;
};

template <class T>
struct RunKernels {
  // Finds the runs of a row, each its own tree. `mask` may be null. `background` is of no voxel if
  // !has_background.
  void (*find)(const Runs &, int64_t row, const T *values, const uint8_t *mask, T background,
               bool has_background, bool by_value);
  // Joins the trees of touching runs of a row and an earlier one. `values`: of the image; null: all alike.
  void (*join)(const Runs &, int64_t row, int64_t earlier, bool full, const T *values);
  // Component numbers of a row, once all parents of the image lead to a negative one.
  void (*write)(const Runs &, int64_t row, int32_t *components);
};

template <class T>
const RunKernels<T> &run_kernels();

}  // namespace segprior::metrics
