// The multigrid preconditioner of the CUDA backend: one V(1,1) cycle with damped Jacobi, operator-induced
// interpolation and Galerkin coarse operators, in float32. What a hierarchy is made of and how it is built;
// the cycle itself: softcut_cuda_multigrid_cycle.h. Derivation, storage and traffic: softcut.md.
#pragma once

#include <type_traits>

#include "kernels/softcut/softcut_cuda.h"

namespace segprior::softcut::cuda {

constexpr float kDamping = 0.8f;  // of Jacobi
// Jacobi divides by the diagonal, but by at least sum |a_ij| / kSpectrum: coarse matrices of rough ones may
// have positive off-diagonals, and D^-1 A then eigenvalues above 2 / kDamping, which make the cycle
// indefinite.
constexpr float kSpectrum = 2.4f;
constexpr float kLargest = 1e18f;      // of couplings and conductance, whose least is its inverse
constexpr int kMaxLevels = 32;         // a level has half the extents of the one before, rounded up
constexpr int64_t kTailPoints = 1024;  // levels of this size and below are one phase

// The arrays of a level have this many elements per matrix or system. Their sizes are multiples of the
// arena's alignment: those of one kind lie one after another, with no gap between levels.
SEGPRIOR_HD inline int64_t pitch_of(int64_t points) { return ceil_div(points, 64) * 64; }

// One level for all matrices. Axes of extent 1 do not count, and the fastest axis comes first.
struct Level {
  int64_t extent[3];
  int64_t pitch;
  // [M][slots][pitch]: inverse diagonal; and, but for level 0, where they are the caller's arrays: excess of
  // the diagonal over the couplings; couplings with the neighbours ahead; interpolation to the finer level.
  float *matrix;
  float *residual;    // [systems][pitch]; level 0: [M][pitch], of the set-up alone
  float *correction;  // [systems][pitch]; level 0: none

  int64_t points() const { return extent[0] * extent[1] * extent[2]; }
};

// Levels from `tail` on, at least 1, have at most kTailPoints points. The last has one.
struct Hierarchy {
  int nd;         // the axes that count, at least 1
  int family[3];  // of the edges along each of them
  int levels, tail;
  Level level[kMaxLevels];
};

// The shape of the hierarchy, its matrices carved from `saved`, and the vectors of a cycle from `workspace`
// (which hold nothing between calls).
Hierarchy carve_hierarchy(const Grid &, Arena &saved, Arena &workspace);

// Writes the matrices of all levels. A matrix that is not valid gets numbers without meaning.
template <class T>
void build_hierarchy(const Operator<T> &, const Hierarchy &, cudaStream_t);

// Calls f with the number of axes as an integral_constant, the first template argument of v_cycle().
template <class F>
void with_dimension(const Hierarchy &h, F f) {
  if (h.nd == 1) f(std::integral_constant<int, 1>());
  if (h.nd == 2) f(std::integral_constant<int, 2>());
  if (h.nd == 3) f(std::integral_constant<int, 3>());
}

}  // namespace segprior::softcut::cuda
