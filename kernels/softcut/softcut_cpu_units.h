// How the CPU backend cuts a grid into units, the pieces of work of a row kernel: rows, or parts of long
// ones. The cut depends on the grid alone, and sums are kept per unit and added in their order: results do
// not depend on the number of threads.
#pragma once

#include <algorithm>

#include "kernels/common/parallel.h"
#include "kernels/softcut/softcut_cpu_rows.h"

namespace segprior::softcut {

class Units {
 public:
  explicit Units(const Grid &g)
      : rows_(g.extent[1]), columns_(g.extent[2]), parts_((columns_ + kMostColumns - 1) / kMostColumns) {
    width_ = ((columns_ + parts_ - 1) / parts_ + kGranule - 1) / kGranule * kGranule;
    parts_ = (columns_ + width_ - 1) / width_;
    count = g.extent[0] * rows_ * parts_;
    const int64_t neighbour = g.extent[0] > 1 ? rows_ * parts_ : rows_ > 1 ? parts_ : 0;
    reach = std::max<int64_t>(1, neighbour + (parts_ > 1 ? 1 : 0));
    // Right-hand sides take turns on slabs of units, so that weights come from memory once.
    slab = std::max<int64_t>(1, kSlabVoxels / width_);
  }

  int64_t line(int64_t unit) const { return parts_ == 1 ? unit : unit / parts_; }  // slice * rows + row
  int64_t begin(int64_t unit) const { return (unit - line(unit) * parts_) * width_; }
  int64_t end(int64_t unit) const { return std::min(columns_, begin(unit) + width_); }
  int64_t row_offset(int64_t unit) const { return line(unit) * columns_; }
  int64_t offset(int64_t unit) const { return row_offset(unit) + begin(unit); }  // of the first voxel
  int64_t size(int64_t unit) const { return end(unit) - begin(unit); }

  int64_t count, reach, slab;  // the neighbours of unit u are in u - reach .. u + reach

 private:
  static constexpr int64_t kMostColumns = 2048, kGranule = 64, kSlabVoxels = 4096;

  int64_t rows_, columns_, parts_, width_;
};

// The spans of a matrix. `zeros`: a row of them. `absent_conductance`: what a matrix without conductance has
// on its diagonal, 1 or 0.
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

  Span<T> operator()(int64_t unit) const {
    const int64_t line = units_.line(unit), rows = grid_.extent[1], columns = grid_.extent[2];
    const int64_t z = grid_.extent[0] > 1 ? line / rows : 0, y = line - z * rows;
    Span<T> s;
    s.stencil = stencil_;
    s.begin = units_.begin(unit);
    s.end = units_.end(unit);
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

 private:
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
