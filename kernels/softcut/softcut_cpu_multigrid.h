// The multigrid preconditioner of the CPU backend: one V(1,1) cycle with damped Jacobi, operator-induced
// interpolation and Galerkin coarse operators, all in float32. Derivation, storage and traffic: softcut.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/parallel.h"
#include "kernels/softcut/softcut_matrix.h"

namespace segprior::softcut {

// The hierarchy of one matrix. Depends on the grid's shape alone, and is position independent: it may be
// copied.
size_t hierarchy_bytes(const Grid &);

// Scratch of a team of at most `threads` threads, for build_hierarchy and for cycles with up to `rhs`
// right-hand sides. Holds nothing between calls.
size_t cycle_scratch_bytes(const Grid &, int64_t rhs, int threads);

// Writes the hierarchy of a valid matrix (weights >= 0, conductance > 0, all finite). All threads of the team
// call it; done for all of them when it returns. `hierarchy` and `scratch` are 64-byte aligned.
template <class T>
void build_hierarchy(const Team &, const Grid &, const Matrix<T> &, void *hierarchy, void *scratch);

// z_r = M^-1 r_r and dots[r] = <r_r, z_r> for the right-hand sides with active[r]; the others are left alone.
// Arrays are [rhs][J]; r and z must not overlap; the threads of the team share `active` and `dots`. M is
// symmetric positive definite but for float32 rounding. Float32 residuals should be of a system scaled to its
// right-hand side: beyond 1e30 the sums of coarse levels overflow. Float64 ones may have any size. All
// threads of the team call it, when r is complete; done for all of them when it returns.
template <class T>
void cycle(const Team &, const Grid &, const void *hierarchy, int64_t rhs, const bool *active, const T *r,
           T *z, double *dots, void *scratch);

}  // namespace segprior::softcut
