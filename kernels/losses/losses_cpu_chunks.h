// What the CPU backend's vector code does with one chunk of an image, and the scratch it needs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/losses/losses.h"
#include "kernels/losses/losses_sums.h"

namespace segprior::losses {

// Voxels of a chunk: the unit of work, whose sums are kept apart and added in order. It does not depend on
// the number of threads, so neither do the results.
constexpr int64_t kChunk = 8192;

// Lanes of the widest vectors (64 bytes).
template <class T>
constexpr int64_t kLanes = 64 / sizeof(T);

// Voxels that are worked on at once: the rows of a block stay in the first two caches. Divides kChunk.
inline int64_t block_voxels(int64_t classes) { return classes <= 32 ? 512 : 256; }

// The conversions of half.h for storage that is T itself.
template <class T>
struct Same {
  static T widen(T value) { return value; }
  static T narrow(T value) { return value; }
};

// Rows of one number per voxel of a block.
enum Row {
  kValid,       // m, 0 or 1
  kKnown,       // l, 0 or 1
  kLabel,       // index of the labelled class; -1: none
  kMax,         // of the logits
  kScale,       // m / sum of the exponentials
  kLogSum,      // ln of the sum of exponentials
  kRest,        // sum of the exponentials but the largest one
  kTarget,      // l t of a class; so are the following
  kLogS,        // ln S
  kLogOther,    // ln(1 - S)
  kComplement,  // 1 - S
  kDot,         // sum over the classes of S dL/dS
  kVoxel,       // outputs.voxels, or its incoming gradient
  kRows
};

// One thread's scratch.
template <class T>
struct Scratch {
  int64_t block;
  T *values;     // [I][block]: exponentials, then S
  T *scores;     // [I][block]: scores in T, where they cannot be read in place; then gradients
  T *rows;       // [kRows][block]
  double *sums;  // [kSums][I][kLanes]

  Scratch(Arena &arena, const Problem &p)
      : block(block_voxels(p.classes)),
        values(arena.take<T>(p.classes * block)),
        scores(arena.take<T>(p.classes * block)),
        rows(arena.take<T>(kRows * block)),
        sums(arena.take<double>(kSums * p.classes * kLanes<T>)) {}

  T *row(Row which) const { return rows + which * block; }
};

// Voxels [begin, end) of an image.
template <class T>
struct Chunk {
  const Problem *problem;
  const Scratch<T> *scratch;
  int64_t image, begin, end;
};

template <class T>
struct ForwardChunk : Chunk<T> {
  double *sums;      // [kSums][I], all written
  double *labelled;  // sum of l
  int32_t *status;
  T *voxels;               // [J] of the image; null: not wanted
  const T *voxel_factors;  // [2][I]: of CROSS_ENTROPY and FOCAL in `voxels`
};

template <class T>
struct BackwardChunk : Chunk<T> {
  const T *coefficients;  // [kCoefficients][I] of the image
  bool failed;            // all gradients NaN
  const T *voxels;        // [J] of the image; null: 0
  void *grad;             // [I][J] of the image, in the scores' storage
  bool accumulate;
  bool stream;  // the gradient is too large to stay in a cache: it is written past them
};

template <class T>
struct ChunkKernels {
  void (*forward)(const ForwardChunk<T> &);
  void (*backward)(const BackwardChunk<T> &);
};

// losses_cpu_chunks.cpp: for the best instruction set of this machine.
template <class T>
const ChunkKernels<T> &chunk_kernels();

}  // namespace segprior::losses
