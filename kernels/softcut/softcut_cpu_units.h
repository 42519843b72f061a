// How the CPU backend cuts a grid into units, the pieces of work of a thread: a few rows of a slice, one row,
// or a part of a long one. The cut depends on the grid alone, and sums are kept per unit and added in their
// order: results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/common/parallel.h"
#include "kernels/softcut/softcut_cpu_rows.h"

namespace segprior::softcut {

struct Unit {
  int64_t slice, row, lines, begin, end;  // columns [begin, end); all of them if lines > 1
};

class Units {
 public:
  explicit Units(const Grid &g) : rows_(g.extent[1]), columns_(g.extent[2]) {
    const int64_t most_parts = (columns_ + kMostColumns - 1) / kMostColumns;
    width_ = ((columns_ + most_parts - 1) / most_parts + kGranule - 1) / kGranule * kGranule;
    parts_ = (columns_ + width_ - 1) / width_;
    lines_ = parts_ > 1 ? 1 : std::max<int64_t>(1, std::min(rows_, kUnitVoxels / columns_));
    per_slice_ = (rows_ + lines_ - 1) / lines_ * parts_;
    count = g.extent[0] * per_slice_;
    const int64_t neighbour = g.extent[0] > 1 ? per_slice_ : per_slice_ > parts_ ? parts_ : 0;
    reach = std::max<int64_t>(1, neighbour + (parts_ > 1 ? 1 : 0));
    slab = std::max<int64_t>(1, kSlabVoxels / size(0));
  }

  Unit operator[](int64_t unit) const {
    const int64_t slice = unit / per_slice_, k = unit - slice * per_slice_;
    if (parts_ == 1) return {slice, k * lines_, std::min(lines_, rows_ - k * lines_), 0, columns_};
    const int64_t row = k / parts_, begin = (k - row * parts_) * width_;
    return {slice, row, 1, begin, std::min(columns_, begin + width_)};
  }
  // A unit's voxels follow one another.
  int64_t offset(int64_t unit) const {
    const Unit u = (*this)[unit];
    return (u.slice * rows_ + u.row) * columns_ + u.begin;
  }
  int64_t size(int64_t unit) const {
    const Unit u = (*this)[unit];
    return u.lines * (u.end - u.begin);
  }

  int64_t zeros() const { return lines_ * columns_; }  // the most weights a span reads from one array

  int64_t count, reach;  // the neighbours of unit u are in u - reach .. u + reach
  int64_t slab;          // right-hand sides take turns on so many units: weights come from memory once

 private:
  static constexpr int64_t kMostColumns = 2048, kGranule = 64, kUnitVoxels = 1024, kSlabVoxels = 4096;

  int64_t rows_, columns_, parts_, width_, lines_, per_slice_;
};

// The spans of a matrix. `zeros`: units.zeros() of them. `absent_conductance`: what a matrix without
// conductance has on its diagonal, 1 or 0.
template <class T>
class Spans {
 public:
  Spans(const Grid &g, const Units &units, const Matrix<T> &matrix, const T *zeros,
        int absent_conductance = 1)
      : grid_(g), units_(units), matrix_(matrix), zeros_(zeros), no_diagonal_(absent_conductance == 0) {
    stencil_ = g.nd == 1          ? Stencil::one
               : g.nd == 3        ? Stencil::three
               : g.has[kDiagonal] ? Stencil::two_diagonal
                                  : Stencil::two;
  }

  // f(span, offset of its column 0) over a unit: the first and the last row of a slice are spans of their
  // own.
  template <class F>
  void for_unit(int64_t unit, const F &f) const {
    const Unit u = units_[unit];
    const int64_t end = u.row + u.lines, rows = grid_.extent[1];
    for (int64_t row = u.row; row < end;) {
      const int64_t inner_end = std::min(end, rows - 1);
      const int64_t lines = row > 0 && inner_end > row ? inner_end - row : 1;
      f(span(u, row, lines), (u.slice * rows + row) * grid_.extent[2]);
      row += lines;
    }
  }

  // Merged over a unit; inverse_diagonal [J] may be null.
  Inspection inspect(const RowKernels<T> &kernels, int64_t unit, T *inverse_diagonal) const {
    Inspection all{true, 1, {std::numeric_limits<double>::max(), 0}};
    for_unit(unit, [&](const Span<T> &span, int64_t row) {
      all = merge(all, kernels.inspect(span, inverse_diagonal ? inverse_diagonal + row : nullptr));
    });
    return all;
  }

 private:
  Span<T> span(const Unit &u, int64_t y, int64_t lines) const {
    const int64_t rows = grid_.extent[1], columns = grid_.extent[2], z = u.slice, line = z * rows + y;
    Span<T> s;
    s.stencil = stencil_;
    s.lines = lines;
    s.begin = u.begin;
    s.end = u.end;
    s.columns = columns;
    s.conductance = matrix_.conductance ? matrix_.conductance + line * columns
                    : no_diagonal_      ? zeros_
                                        : nullptr;
    s.column = row_of(kColumn, line, columns - 1);
    for (int back = 0; back < 2; ++back) {
      const bool row = back ? y > 0 : y + 1 < rows, slice = back ? z > 0 : z + 1 < grid_.extent[0];
      s.row_step[back] = row ? columns : 0;
      s.slice_step[back] = slice ? rows * columns : 0;
      s.row[back] = row ? row_of(kRow, line - z - back, columns) : zeros_;
      s.slice[back] = slice ? row_of(kSlice, line - back * rows, columns) : zeros_;
      s.diagonal[back] = row ? row_of(kDiagonal, line - back, columns - 1) : zeros_;
      s.anti[back] = row ? row_of(kAnti, line - back, columns - 1) : zeros_;
    }
    return s;
  }
  const T *row_of(int family, int64_t line, int64_t pitch) const {
    return matrix_.edges[family] ? matrix_.edges[family] + line * pitch : zeros_;
  }

  const Grid &grid_;
  const Units &units_;
  Matrix<T> matrix_;
  const T *zeros_;
  bool no_diagonal_;
  Stencil stencil_;
};

}  // namespace segprior::softcut
