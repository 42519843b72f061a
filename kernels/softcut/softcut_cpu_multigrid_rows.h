// Row kernels of the multigrid preconditioner: everything that touches voxels, one row a call. Compiled for
// several SIMD targets in softcut_cpu_multigrid_rows.cpp. Rows are padded (softcut_cpu_multigrid_levels.h):
// kernels work on whole vectors and may read and write the padding, which stays zero. "Split" rows are a pair
// of half rows, the even columns and the odd ones. In all of them the arithmetic of a voxel does not depend
// on its place in a vector.
#pragma once

#include <cstdint>

#include "kernels/softcut/softcut_cpu_multigrid_levels.h"

namespace segprior::softcut::multigrid {

// sum over the neighbours of g * e: couplings and values of a row's neighbours, each shifted so that index x
// is that of the voxel x. The value rows are those of the first right-hand side; another one's lie `shift`
// floats further.
struct Neighbours {
  int count;
  const float *g[kDirections - 1], *e[kDirections - 1];
};

struct SplitRow {
  float *even, *odd;
};

// The coarse rows around a fine row and its weights towards them.
struct Prolongation {
  Weights<float> weights;
  int64_t pitch;           // of the weights' corners
  const float *coarse[4];  // null in the first: no correction
};

// The fine rows under a coarse row, and their weights towards it.
struct Restriction {
  int count;
  const float *values_even[9], *values_odd[9];
  const float *even[9], *left[9], *right[9];
};

// Interpolation weights of one fine row, to be computed. Per direction the row's couplings; per direction
// within the neighbouring rows (slab step, row step) -1..1: the weights of that row and its deficits.
struct InterpolationRow {
  int nd;
  bool odd_slab, odd_row;
  int64_t columns;  // coarse
  int64_t pitch;    // of the weights' corners
  const float *g[kDirections], *excess;
  Weights<float> weights[3][3];
  SplitRow deficit[3][3];
};

// One term of the coarse couplings P^T A P: through a fine row i below the coarse row (weights towards it:
// p_*), its couplings to the fine row n, and that row's weights towards another coarse row (q_*).
struct GalerkinTerm {
  int64_t columns;  // coarse
  const float *p_even, *p_left, *p_right;
  const float *a[3];  // couplings of the row i to columns -1, 0, 1 of the row n; the side ones may be null
  const float *q_even, *q_left, *q_right;
  float *coupling[3];  // += to columns -1, 0, 1; the first two may be null
};

struct RowKernels {
  // e = relaxation * r.
  void (*start)(int64_t columns, const float *relaxation, const float *r, float *e);
  // The residual after `start`: keep * r + sum g e.
  void (*residual)(int64_t columns, const Neighbours &, int64_t shift, const float *keep, const float *r,
                   SplitRow out);
  void (*restrict_row)(int64_t columns, const Restriction &, int64_t shift, float *coarse);
  // e = relaxation * r + the interpolated coarse values.
  void (*correct)(int64_t columns, const Prolongation &, int64_t shift, const float *relaxation,
                  const float *r, float *e);
  // One sweep of damped Jacobi: keep * e + relaxation * (r + sum g e_neighbour).
  void (*relax)(int64_t columns, const Neighbours &, int64_t shift, const float *relaxation,
                const float *keep, const float *r, const float *e, float *out);

  // A level's relaxation and keep, and -diagonal; returns the largest sum |g| / diagonal.
  float (*diagonal)(int64_t columns, const Neighbours &, const float *excess, float *relaxation, float *keep,
                    float *minus_diagonal);
  // Weights of the even voxels, then (which need those) of the odd ones; deficits 1 - sum of weights of both.
  void (*interpolate_even)(const InterpolationRow &);
  void (*interpolate_odd)(const InterpolationRow &);
  // A (P 1) from the deficits: s (1 - deficit) + sum g (deficit of the neighbour - deficit).
  void (*row_sums)(const InterpolationRow &, SplitRow out);
  void (*galerkin)(const GalerkinTerm &);
};
const RowKernels &row_kernels();

// Between the caller's rows, which are not padded, and ours.
template <class T>
struct BorderKernels {
  T (*max_abs)(int64_t n, const T *values);
  // to = from * scale.
  void (*load)(int64_t columns, const T *from, T scale, float *to);
  // to = from * scale; returns <r, to>.
  double (*store)(int64_t columns, const float *from, T scale, const T *r, T *to);
};
template <class T>
const BorderKernels<T> &border_kernels();

}  // namespace segprior::softcut::multigrid
