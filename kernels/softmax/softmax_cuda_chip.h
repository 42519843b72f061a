// Entropic softmax on CUDA with all iterations in one kernel, for images whose state fits into the shared
// memory of one block: u, v and (accelerated) q, and the features if there is room. One block is one image;
// only it waits for its own reductions, and no iteration touches global memory, but for features that did not
// fit and for what `saved` keeps. Serves TV and volumes, plain and accelerated, with masks, on any grid.
//
// Shared memory per voxel and class, float32: u 4, v 4 nd, q 4 nd when accelerated, features 4; per voxel 1
// byte of links, and 8 with more than kMostUnrolled classes and volumes. Global memory per voxel, class and
// iteration: 0, or 4 (from the L2 cache) if the features did not fit.
#pragma once

#include "kernels/softmax/softmax_cuda.h"

namespace segprior::softmax::cuda {

// What a block of the current device can have at most.
size_t shared_memory_per_block();

struct ChipPlan {
  bool features_inside;  // features in shared memory too
  int threads;
  size_t bytes;  // of shared memory, needed
};
// Of a problem whose priors the kernel knows.
ChipPlan chip_plan(const Problem &, size_t shared_memory);

// Whether the call takes the kernel. Throws Error if the problem demands it and it does not fit.
bool takes_chip(const Problem &);

// The iterations of a call.
template <class T>
struct Chip {
  Iterates<T> iterates;  // iterate 0 lies there; the last one will
  VolumeDuals f;
  double *log_mass;  // [T, B, I] or null
  double *momentum;  // [T, B] or null
  Progress *progress;
  const uint8_t *mask;  // null: every voxel is valid
  int64_t mask_stride;  // from image to image; 0: shared
  T *u;                 // [B, I, J] the final u is wanted; null: not
  int check_interval;   // 0: never
  bool report;          // a residual after the last iteration
  double tolerance;
};
template <class T>
void chip_iterations(const Grid &, const Inputs<T> &, const Chip<T> &, const ChipPlan &, cudaStream_t);

}  // namespace segprior::softmax::cuda
