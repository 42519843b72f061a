// Entropic softmax on CUDA with threshold dynamics and, if wanted, volumes: one iteration in one kernel, for
// Gaussian kernels on any grid and any number of classes for which a tile fits into shared memory.
//
// 1-D and 2-D grids: a block owns a tile of 64 columns. Class by class it loads u_t with a halo of R voxels
// into shared memory, convolves rows, then columns, and leaves the logit o + 2 lam (k * u) of its voxels in
// shared memory (the part of the force that all classes share, -lam k * 1, changes no softmax). At the end
// come the softmax over the classes and the new u. Two barriers a class; the next class is loaded meanwhile.
// 3-D grids: a block owns a tile of 32 columns and marches along the slices of a segment; what the two passes
// made of the last 2 R + 1 slices stays in shared memory for the third.
//
// With volumes u_t+1 needs f_t+1, which needs the sum over the image that the kernel is computing. So the
// iterate in memory is the logits without f: a kernel takes softmaxes of what it reads, f_t being known by
// then, once per voxel of tile and halo. The first kernel does so in any case, with the features as logits.
//
// Bytes per voxel and class, float32: features 4, iterate 4 + 4 written = 12 (and 4 for a saved u). The halo
// comes from the L2 cache: with 7 taps the tile is read 1.5 times in 2-D (16 rows) and 2.4 times in 3-D, and
// that twice with volumes.
#pragma once

#include "kernels/softmax/softmax_cuda.h"

namespace segprior::softmax::cuda {

constexpr int kTdThreads = 256;
constexpr int kTdSegment = 16;  // slices that a block of a 3-D grid marches along

// The part of a plane that a block owns; a thread has P voxels of one column. R: largest |d| of a tap.
template <class T, int R, int P, int Columns>
struct TdTile {
  static constexpr int kRadius = R, kPerThread = P, kColumns = Columns;
  static constexpr int kRows = P * (kTdThreads / kColumns), kVoxels = kRows * kColumns;
  static constexpr int kWide = 16 / sizeof(T);  // of a vector access
  static constexpr int kHaloRows = kRows + 2 * R;
  static constexpr int kStride = (kColumns + 2 * R + kWide - 1) / kWide * kWide;
  static constexpr int kCells = kHaloRows * kStride;
  static constexpr int kCellsPerThread = (kCells + kTdThreads - 1) / kTdThreads;

  // Fields of the tile's size in shared memory: logits; 3-D: and w summed over slices, and the last slices.
  static SEGPRIOR_HD constexpr int64_t fields(int64_t classes, bool deep) {
    return classes * (deep ? 2 * R + 3 : 1);
  }
  static constexpr size_t shared_bytes(int64_t classes, bool deep) {
    return (fields(classes, deep) * kVoxels + kCells + kHaloRows * kColumns) * sizeof(T);
  }
};

template <class T, int R, int P>
using FlatTile = TdTile<T, R, P, 64>;
template <class T, int R>
using DeepTile = TdTile<T, R, 2, 32>;  // of 3-D grids

struct TdPlan {
  bool deep;               // 3-D
  int radius, per_thread;  // R, P of the tile
  int slices, rows, columns;
  int segments, tiles_y, tiles_x;
  size_t shared_bytes;

  SEGPRIOR_HD unsigned tiles() const { return segments * tiles_y * tiles_x; }
};

// How a problem's tiles look; no tiles: the fused iteration does not serve it. `shared_memory`: what a block
// of the device can have.
TdPlan td_plan(const Problem &, size_t shared_memory);

// One iteration.
template <class T>
struct TdStep {
  Gate gate;
  int t;
  bool from_logits;
  const T *from;  // [B, I, J] u_t, or o - r of it
  T *to;          // [B, I, J] u_t+1; with a volume prior o - r of it
  T *u;           // [B, I, J] u_t is wanted here too; null: not
  const T *taps;  // [3][kMaxTaps], per canonical axis, starting at d = -size / 2
  int sizes[3];
  const double *f;  // [B, I] f_t; null without a volume prior
  double *f_next;
  double *log_mass;  // [B, I]; null: not recorded
  double *partials;  // [B, I, tiles]
};

// If `advance` it ends with the end of the iteration of each image, else only the volume dual is finished.
template <class T>
void td_fused_step(const Inputs<T> &, const TdStep<T> &, const Finish &, const TdPlan &, bool advance,
                   unsigned *tickets, cudaStream_t);
template <class T>
void td_fused_step_3d(const Inputs<T> &, const TdStep<T> &, const Finish &, const TdPlan &, bool advance,
                      unsigned *tickets, cudaStream_t);

// ---- softmax_cuda_td_loop.cu ----
// A whole forward call. It leaves in `saved` what the other forwards leave.
bool td_fused_serves(const Problem &);
size_t td_fused_workspace(const Problem &);
void td_fused_forward(const Problem &, const Outputs &, void *workspace, void *saved, cudaStream_t);

}  // namespace segprior::softmax::cuda
