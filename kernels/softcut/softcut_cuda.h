// What the .cu files of SoftCut share: the matrices as kernels see them, how voxels are cut into tiles, and
// one solve. Every launch goes to the caller's stream; none waits, none allocates.
//
//   softcut_cuda.cu             workspaces, choice of the path, forward, backward, kCuda
//   softcut_cuda_exec.h         phases, and the two ways of running them
//   softcut_cuda_check*         which systems can be solved at all
//   softcut_cuda_cg*            conjugate gradients, on both executors
//   softcut_cuda_multigrid*     their preconditioner
//   softcut_cuda_chebyshev*     Chebyshev iteration
//   softcut_cuda_chip*, _cluster*  all iterations on one multiprocessor, or on a cluster of them
//   softcut_cuda_grads*         gradients of edges and conductance, right-hand sides of the double backward
//   softcut_cuda_csr.cu, _convert.cu  the matrix in compressed rows; 16-bit edges
#pragma once

#include <cuda_runtime.h>

#include "kernels/common/arena.h"
#include "kernels/common/cuda.h"
#include "kernels/softcut/softcut.h"
#include "kernels/softcut/softcut_cuda_exec.h"
#include "kernels/softcut/softcut_math.h"

namespace segprior::softcut::cuda {

// a / b of numbers >= 0. Hardly an extent needs 64 bits, and the compiler's division of 64 bits is a function
// call, which takes registers from the kernel around it: this one is slow and small.
SEGPRIOR_HD inline int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  int64_t result = 0, rest = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int bit = 62; bit >= 0; --bit) {
    rest = rest << 1 | (a >> bit & 1);
    if (rest >= b) rest -= b, result |= int64_t(1) << bit;
  }
  return result;
}

SEGPRIOR_HD inline int64_t ceil_div(int64_t a, int64_t b) { return quotient(a + b - 1, b); }

// A matrix's voxels in C order, cut into chunks: the tiles of phases that work voxel by voxel. It depends on
// the number of voxels alone, so that the sums of a system never depend on what else is in the batch. Few
// enough that every block can add a system's partial sums itself.
struct Chunks {
  int64_t count, size;
};
SEGPRIOR_HD inline Chunks chunks_of(int64_t voxels) {
  constexpr int64_t kMost = 512, kLeast = 4 * kBlock;
  int64_t size = ceil_div(ceil_div(voxels, kMost), kBlock) * kBlock;
  if (size < kLeast) size = kLeast;
  return {ceil_div(voxels, size), size};
}

// All M matrices; matrix m is at edges[f] + m * edge_count[f] and conductance + m * voxels. System m * rhs +
// r.
template <class T>
struct Operator {
  int64_t extent[3], voxels, matrices, rhs;
  int64_t edge_count[kFamilies];
  const T *edges[kFamilies];  // null where the family is not there
  const T *conductance;       // null: 1

  SEGPRIOR_HD int64_t systems() const { return matrices * rhs; }
};

template <class T>
Operator<T> operator_of(const Problem &p) {
  const Grid &g = p.grid;
  Operator<T> a{{g.extent[0], g.extent[1], g.extent[2]}, g.voxels(), g.matrices(), g.rhs(), {}, {}, nullptr};
  for (int f = 0; f < kFamilies; ++f) {
    a.edge_count[f] = g.edge_count(f);
    if (a.edge_count[f] > 0) a.edges[f] = static_cast<const T *>(p.edges[f]);
  }
  if (p.has_conductance) a.conductance = static_cast<const T *>(p.conductance);
  return a;
}

// One solve: forward's, backward's or one of the double backward's.
template <class T>
struct Solve {
  Stop stop;
  const T *rhs;   // [systems][J]
  const T *init;  // [systems][J]; null: rhs / d
  T *x;           // [systems][J]; may be no other array here
  // [systems] 0: to be solved; else why not (a failure of SEGPRIOR_*), and x becomes NaN. Afterwards how it
  // ended. Matrices and right-hand sides of systems to be solved are known to be valid and finite.
  int32_t *status;
  segprior_info *info;  // [systems]; null: not wanted
};

// Which kernels serve a problem. Throws where opts.path or opts.solver cannot be had. The same for all
// passes.
struct Plan {
  Path path;
  Solver solver;
};
Plan plan_of(const Problem &);

// ---- softcut_cuda_multigrid.h: struct Hierarchy ----
// The caller of v_cycle gives and gets:
template <class T>
struct CycleArgs {
  int64_t matrices, rhs;
  const int32_t *active;  // [systems] not 0: this system takes part. Others' z and rz stay as they are
  const double *scale;    // [systems] a power of two: |r * scale| <= 1. The cycle computes with float32
  const T *r;             // [systems][J]
  T *z;                   // [systems][J] M^-1 r (unscaled again)
  double *rz;             // [systems][chunks_of(J).count] partial sums of r z
};

// ---- softcut_cuda_chip.h, softcut_cuda_cluster.h ----
// CG, with or without the diagonal as preconditioner, of all systems in one launch, as `solve` below does.
// `serves` looks at opts.path only so far as to answer for this path; it may be asked with null data. An
// automatic solver means Jacobi here.
bool chip_serves(const Problem &);
size_t chip_workspace(const Problem &);
template <class T>
void chip_solve(const Problem &, const Solve<T> &, void *workspace, cudaStream_t);
bool cluster_serves(const Problem &);
size_t cluster_workspace(const Problem &);
template <class T>
void cluster_solve(const Problem &, const Solve<T> &, void *workspace, cudaStream_t);

}  // namespace segprior::softcut::cuda
