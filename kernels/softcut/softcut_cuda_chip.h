// SoftCut on CUDA with a whole solve in one kernel, for systems whose search direction fits into shared
// memory: of one block (softcut_cuda_chip.cu), or of a thread-block cluster, whose blocks each have a band of
// the system (softcut_cuda_cluster.cu). Both run softcut_cuda_chip_solver.h.
//
// Shared memory of a block, in numbers of the call's dtype: the search direction (a voxel, and a slab of halo
// on either side), and the matrix where it fits: each family of edges and the conductance, padded to a voxel
// each. A matrix that does not fit is padded in the workspace, once for all its systems, and read through the
// L2 cache. Registers: per voxel the residual, A p and x; the largest systems keep x in global memory.
//
// Padded: the weight of a voxel's edge ahead lies at the voxel's own number, 0 where there is no such edge,
// and so does that behind, at the neighbour's. A step of the iteration then has no division and no branch:
// what lies outside of the grid has weight 0 and some finite value.
#pragma once

#include "kernels/softcut/softcut_cuda_stencil.h"

namespace segprior::softcut::cuda {

constexpr int kChipThreads = 512;  // at most; they have 128 registers each
// Voxels of a thread, at most, that need no more: with the matrix in shared memory, and with 64-bit pointers
// to it in global memory.
template <class T>
constexpr int kMostInside = sizeof(T) == sizeof(float) ? 32 : 10;
template <class T>
constexpr int kMostOutside = sizeof(T) == sizeof(float) ? 16 : 6;

// The padded matrix of `most` voxels: where the families, in the order of Neighbourhood, have the edge ahead
// of the first voxel. Offsets in numbers, after the stride numbers of the edges behind the first voxels.
struct PaddedMatrix {
  static constexpr int kMostFamilies = 4;
  int stride[kMostFamilies];  // from a voxel to its neighbour
  int64_t weights[kMostFamilies];
  int64_t conductance;
  int64_t numbers;  // in all
};

// How a system is cut: into slabs along its outermost axis longer than 1; a block has a band of them. Steps
// of edges are at most a slab long, or one voxel longer where the edge does not exist.
struct Bands {
  int blocks, slabs, slab /* voxels */, pad /* of the search direction, on either side */;
  int most;  // voxels of the largest band

  SEGPRIOR_HD int begin(int block) const {
    return static_cast<int>(static_cast<int64_t>(block) * slabs / blocks) * slab;
  }
  SEGPRIOR_HD int count(int block) const { return begin(block + 1) - begin(block); }
};

// One launch's parameters.
template <class T>
struct Chip {
  Operator<T> a;
  Bands bands;
  PaddedMatrix layout;  // of a band in shared memory; of all in `padded` otherwise
  const T *padded;      // [matrices][layout.numbers]; null: in shared memory
  bool jacobi;
  Solve<T> solve;
};

struct ChipPlan {
  bool serves;
  Bands bands;
  PaddedMatrix layout;
  bool inside;  // the matrix is in shared memory
  int per_thread, threads;
  size_t bytes;  // of dynamic shared memory
};

// What both paths need, whatever the size.
inline bool chip_knows(const Problem &p) {
  return !p.stop.batch &&
         (p.solver == Solver::automatic || p.solver == Solver::cg || p.solver == Solver::jacobi);
}

// softcut_cuda_chip.cu. With at most `per_thread` voxels a thread; serves = false if the device's shared
// memory does not hold that.
ChipPlan plan_chip(const Problem &, int blocks, int per_thread, bool inside);

template <class T>
Chip<T> chip_of(const Problem &p, const ChipPlan &plan, const Solve<T> &solve, const T *padded) {
  return {operator_of<T>(p), plan.bands, plan.layout, padded, p.solver != Solver::cg, solve};
}

// f(integral_constant): the least number of voxels of a thread that kernels are compiled for and is enough.
template <class T, int P = 4, class F>
void with_per_thread(int per_thread, F &&f) {
  constexpr int kNext = 2 * P < kMostInside<T> ? 2 * P : kMostInside<T>;
  if constexpr (P < kMostInside<T>)
    if (per_thread > P) return with_per_thread<T, kNext>(per_thread, f);
  f(std::integral_constant<int, P>());
}

}  // namespace segprior::softcut::cuda
