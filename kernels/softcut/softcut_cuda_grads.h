// Gradients of edges and conductance from a solve's result, and the right-hand sides of the double backward.
// Derivation: softcut.md.
#pragma once

#include "kernels/softcut/softcut_cuda.h"

namespace segprior::softcut::cuda {

// For the sum over pairs and, where classes share a matrix, over classes in their order:
//   edges[a, b] = -(left_a - left_b) (right_a - right_b),   conductance[a] = -left_a right_a
// Null: not wanted. The second pair may be null.
template <class T>
struct MatrixGrads {
  const T *left[2], *right[2];  // [systems][J]
  T *edges[kFamilies], *conductance;
  bool accumulate;
};
template <class T>
void matrix_grads(const Grid &, const Operator<T> &, const MatrixGrads<T> &, cudaStream_t);

// sum[i] += values[i]
template <class T>
void add(T *sum, const T *values, int64_t count, cudaStream_t);

// out = constant - A(b, c) x for the matrix with weights b and conductance c; null: zero.
template <class T>
struct CotangentRhs {
  const T *constant, *x;  // [systems][J]
  const T *edges[kFamilies], *conductance;
  T *out;
};
template <class T>
void cotangent_rhs(const Grid &, const Operator<T> &, const CotangentRhs<T> &, cudaStream_t);

// The solution for right-hand sides that vanish: 0, or NaN for a system that failed earlier; and its info.
template <class T>
void zero_solution(const Operator<T> &, const int32_t *earlier, T *x, segprior_info *, cudaStream_t);

}  // namespace segprior::softcut::cuda
