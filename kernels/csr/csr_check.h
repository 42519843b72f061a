// The rules that a matrix in compressed rows must obey, one row at a time: the same on both backends.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/host_device.h"

namespace segprior::csr {

template <class T>
struct Matrix {
  int64_t rows, entries;
  const int32_t *row_offsets, *columns;
  const T *values;
};

enum Rule { kObeyed, kOffsets, kColumnRange, kColumnOrder, kDiagonal, kFinite };

// The first rule that the row breaks. Reads nothing outside of the arrays, whatever they hold.
template <class T>
SEGPRIOR_HD Rule broken_rule(const Matrix<T> &a, int64_t row) {
  const int32_t begin = a.row_offsets[row], end = a.row_offsets[row + 1];
  if (begin < 0 || end < begin || end > a.entries || (row == 0 && begin != 0) ||
      (row == a.rows - 1 && end != a.entries))
    return kOffsets;
  bool diagonal = false;
  for (int32_t k = begin; k < end; ++k) {
    const int32_t column = a.columns[k];
    if (column < 0 || column >= a.rows) return kColumnRange;
    if (k > begin && column <= a.columns[k - 1]) return kColumnOrder;
    if (!std::isfinite(a.values[k])) return kFinite;
    diagonal |= column == row;
  }
  return diagonal ? kObeyed : kDiagonal;
}

// Throws Error for the rule that `row` breaks.
[[noreturn]] void reject_row(int64_t row, Rule rule);

}  // namespace segprior::csr
