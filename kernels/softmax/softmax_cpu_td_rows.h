// Row kernels of threshold dynamics on the CPU: correlations of one row of one class. Members of RowKernels.
//
// A padded row has at least kTdPad zeros before and after its columns, so that no tap needs a branch at the
// border; what lies outside the grid on the other axes is a row of zeros, or left out of the list.
#pragma once

#include <cstdint>

namespace segprior::softmax {

constexpr int64_t kTdPad = 16;  // elements; more than half of kMaxTaps, and a multiple of the vector

// Elements of a padded row, and of the gap between two of them.
inline int64_t td_padded(int64_t columns) { return (columns + kTdPad - 1) / kTdPad * kTdPad + 2 * kTdPad; }

// out = sum_k taps[k] rows[k]; with edge rows also edge_out = sum_k taps[k] (edge_rows[k] rows[k]).
template <class T>
struct TdCombineRow {
  int64_t columns;
  int count;
  const T *const *rows;
  const T *const *edge_rows;  // null: none
  const T *taps;
  T *out, *edge_out;
};

// h = sum_k correlation of rows[k] with taps[k][0 .. size), and the same of the edge rows, h_e. What the
// kernels below take from it, for one row of B v - e K:
//   without edge rows 2 h - K, with edge rows e (h - K) + h_e.
template <class T>
struct TdFilterRow {
  int64_t columns;
  int count, size;
  const T *const *rows;       // padded: v
  const T *const *edge_rows;  // padded: e v; null: none
  const T *const *taps;
  const T *edge;        // e; with edge rows
  const T *kernel_sum;  // K; null: 0
};

template <class T>
struct TdRowKernels {
  void (*combine)(const TdCombineRow<T> &);
  // out = from + scale (B v - e K); `from` null: 0, or out itself.
  void (*apply)(const TdFilterRow<T> &, T scale, const T *from, T *out);
  // sum of factor (B v - e K)
  double (*dot)(const TdFilterRow<T> &, const T *factor);
  // out += scale factor (h - K)
  void (*add_product)(const TdFilterRow<T> &, T scale, const T *factor, T *out);
  // sums[c] += sum_x factor(x) row(x + c - size / 2), row padded
  void (*correlate)(int64_t columns, int size, const T *factor, const T *row, double *sums);
  // out = scale v e - minus; null: e = 1, minus = 0
  void (*weigh)(int64_t columns, T scale, const T *v, const T *edge, const T *minus, T *out);
};

}  // namespace segprior::softmax
