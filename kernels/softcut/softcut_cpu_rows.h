// Row kernels of the CPU backend: everything that touches voxels, a few grid rows or a part of one a call.
// Compiled for several SIMD targets in softcut_cpu_rows.cpp; the control flow sees only this table.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/softcut/softcut_matrix.h"

namespace segprior::softcut {

enum class Stencil { one, two, two_diagonal, three };  // by the families that there are

// Columns [begin, end) of `lines` successive rows of `columns` voxels, and the edges that meet there. All
// pointers, vectors' too, are at column 0 of the first row. [0] is the next row or slice, [1] the previous
// one; where there is none for the span's only row, its step is 0 and its weights are zeros.
template <class T>
struct Span {
  Stencil stencil;
  int64_t lines, begin, end, columns;
  const T *column;
  const T *row[2], *slice[2], *diagonal[2], *anti[2];
  int64_t row_step[2], slice_step[2];
  const T *conductance;  // null: 1
};

// Sums over a span, in float within the span, double across spans.
struct Sums {
  double norm;      // of norm_term(r)
  double product;   // <r, D^-1 r>, or <r, r> without inverse diagonal
  double rhs_norm;  // of norm_term(scale * rhs)

  void operator+=(const Sums &more) {
    norm += more.norm;
    product += more.product;
    rhs_norm += more.rhs_norm;
  }
};

// What a matrix's numbers allow.
struct Inspection {
  bool valid;          // weights finite and >= 0, conductance finite and > 0
  double dominance;    // least d / diag
  double diagonal[2];  // least, largest
};

inline Inspection merge(const Inspection &a, const Inspection &b) {
  return {a.valid && b.valid,
          std::min(a.dominance, b.dominance),
          {std::min(a.diagonal[0], b.diagonal[0]), std::max(a.diagonal[1], b.diagonal[1])}};
}

// Out of a span's rows; null: not wanted.
template <class T>
struct EdgeRows {
  T *column, *row, *slice, *diagonal, *anti, *conductance;
};

template <class T>
struct RowKernels {
  // Also writes 1 / diag, if wanted. Each edge is looked at once, where it starts.
  Inspection (*inspect)(const Span<T> &, T *inverse_diagonal);
  // +Inf for NaN.
  T (*max_abs)(int64_t n, const T *in);
  // out = in / d; d null: in.
  void (*divide)(int64_t n, const T *in, const T *d, T *out);
  // r = scale (rhs - A x). inverse_diagonal null: none. r null: sums only.
  Sums (*residual)(const Span<T> &, Norm, T scale, const T *rhs, const T *x, const T *inverse_diagonal, T *r);
  // x += alpha p, then p = z + beta p; with an inverse diagonal z is multiplied by it. `first`: p = z alone.
  void (*direction)(int64_t n, bool first, T alpha, T beta, const T *z, const T *inverse_diagonal, T *p,
                    T *x);
  // q = A p; returns <p, q>.
  double (*apply)(const Span<T> &, const T *p, T *q);
  // r -= alpha q.
  Sums (*update)(int64_t n, Norm, T alpha, const T *q, const T *inverse_diagonal, T *r);
  // y += alpha x
  void (*add)(int64_t n, T alpha, const T *x, T *y);
  // other = x + momentum (x - other) + step D^-1 (rhs - A x).
  void (*chebyshev)(const Span<T> &, T momentum, T step, const T *rhs, const T *inverse_diagonal, const T *x,
                    T *other);
  // out = [out] - (l_a - l_b)(x_a - x_b) per edge to a next voxel, - l x per voxel. `add`: to what out holds.
  void (*gradients)(const Span<T> &, const T *l, const T *x, bool add, const EdgeRows<T> &out);
};

template <class T>
const RowKernels<T> &row_kernels();  // of the best SIMD target of this machine

}  // namespace segprior::softcut
