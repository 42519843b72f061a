// Losses on CUDA: how the voxels are spread over threads, and what the kernels hand to one another.
//
// A block has `groups` x `teams` warps. The warps of one group own the same kClasses classes, the teams split
// the voxels: a tile has 32 * teams * kVoxels of them. Up to 4 classes there is one group, and a voxel's
// classes are registers of one thread; with more, a tile's groups exchange the maximum and the sum of their
// exponentials in shared memory. Scores are read once, whatever the number of classes, and sums over voxels
// stay with the thread that owns the class.
#pragma once

#include "kernels/common/cuda.h"
#include "kernels/losses/losses_sums.h"

namespace segprior::losses::cuda {

constexpr int kWarp = 32;
// Of one thread, where there are more than 64 classes; else at most 4.
constexpr int kManyClasses = 8;

struct Grid {
  int thread_classes, groups, teams;
  int64_t tile;         // voxels
  int64_t block_tiles;  // consecutive tiles of one block
  int64_t chunks;       // blocks of one image
  bool vectors;         // kVoxels consecutive voxels a thread, loaded at once

  SEGPRIOR_HD unsigned warps() const { return static_cast<unsigned>(groups * teams); }
  dim3 block() const { return dim3(kWarp, static_cast<unsigned>(teams), static_cast<unsigned>(groups)); }
};

// Bits of the sums that the terms need.
unsigned sums_of(const Problem &p);

// What the pass over the voxels leaves: per block, then added up by finish().
enum Flag { kNonfinite = 1, kInvalid = 2 };
struct Partials {
  double *sums;  // [B][kSums][I][chunks]; not those that sums_of() leaves out, nor kTargetSquares of labels
  double *labelled;  // [B][chunks]
  int32_t *flags;    // [B][chunks]
  unsigned *ticket;  // 0 when the pass has ended

  Partials(Arena &arena, const Problem &p, int64_t chunks)
      : sums(arena.take<double>(p.batch * p.classes * kSums, chunks)),
        labelled(arena.take<double>(p.batch, chunks)),
        flags(arena.take<int32_t>(p.batch, chunks)),
        ticket(arena.take<unsigned>(1)) {}
};

struct Forward {
  Problem p;
  Grid grid;
  unsigned sums;
  Partials partials;
  State state;
  void *voxels;  // [B][J], or null
};

struct Backward {
  Problem p;
  Grid grid;
  const void *coefficients;  // [B][kCoefficients][I]
  const int32_t *status;     // [B]
  const void *voxels;        // incoming gradient [B][J], or null
  void *grad_scores;
  bool accumulate;
};

// One file each, as they take long to compile.
void forward_logits(const Forward &f, cudaStream_t stream);
void forward_sigmoid(const Forward &f, cudaStream_t stream);
void forward_probabilities(const Forward &f, cudaStream_t stream);
void backward_logits(const Backward &b, cudaStream_t stream);
void backward_sigmoid(const Backward &b, cudaStream_t stream);
void backward_probabilities(const Backward &b, cudaStream_t stream);

}  // namespace segprior::losses::cuda
