// Walks the rows of a plane for threshold dynamics on the CPU: an output row is a sum over the rows around
// it, then a correlation along the columns of zero-padded rows (softmax_cpu_td_rows.h).
//
//   Gaussian: the rows of the slices around, weighted, make one row; in 3-D the last of these rows, kept in a
//   ring, are weighted once more; then the columns. Nothing is carried from slice to slice.
//   Given kernel: padded copies of the slices around are kept in a ring; size[0] size[1] of their rows, each
//   with its own taps, make one output row.
#pragma once

#include <algorithm>

#include "kernels/softmax/softmax_cpu_td.h"

namespace segprior::softmax {

constexpr int kTdRing = 16;                      // rows, more than kMaxTaps
constexpr int kTdMaxRows = kMaxTaps * kMaxTaps;  // of a given kernel

inline int td_channels(const ThresholdDynamics &td) { return td.has_edge ? 2 : 1; }

// Rows of a channel in a thread's scratch. Given kernel: the ring of slices. Gaussian: the padded row that
// enters the last correlation, and the ring.
inline int64_t td_channel_rows(const Problem &p) {
  if (p.td.gaussian) return 1 + (p.td.size[1] > 1 ? kTdRing : 0);
  return p.td.size[0] * p.grid.extent[1];
}

// One linear filter: taps per axis and, where wanted, their slopes d / d sigma (else null); or (axis[0] null)
// all taps of a given kernel.
template <class T>
struct TdTaps {
  const T *axis[3], *slopes[3], *given;
};

// What a given kernel reads of a plane: scale v, or scale v - m, and e v.
template <class T>
struct TdSource {
  const T *v, *edge;  // null: 1, none
  T scale;
  bool minus_valid;
};

// The rows that make one output row, and which row of the kernel goes with each.
template <class T>
struct TdKernelRows {
  int count = 0;
  const T *row[kTdMaxRows], *edge_row[kTdMaxRows];
  int index[kTdMaxRows];
};

// Walks the rows of a plane with one thread's scratch.
template <class T>
class TdWalk {
 public:
  TdWalk(const Image<T> &image, const TdBuffers<T> &buffers, const Team &team)
      : image_(image),
        buffers_(buffers),
        team_(team),
        td_(image.problem.td),
        padded_(td_padded(image.columns())),
        channel_(td_channel_rows(image.problem) * padded_),
        scratch_(buffers.scratch + team.rank * buffers.scratch_size + kTdPad) {}

  // use(offset, filter row) for the rows of slices [begin, end) of v (null: 1), with edge rows if `edge`.
  template <class Use>
  void filter(const T *v, const T *edge, const TdTaps<T> &taps, int64_t begin, int64_t end,
              const Use &use) const {
    if (taps.axis[0])
      return separable(v, edge, taps, begin, end, [&](int64_t offset) {
        const T *rows[] = {channel(0, 0)}, *edge_rows[] = {channel(0, 1)};
        use(offset, filter_row(offset, 1, rows, edge ? edge_rows : nullptr, &taps.axis[2]));
      });
    const int size = td_.size[2];
    kernel_rows({v, edge, 1, false}, begin, end, [&](int64_t offset, const TdKernelRows<T> &rows) {
      const T *row_taps[kTdMaxRows];
      for (int k = 0; k < rows.count; ++k) row_taps[k] = taps.given + rows.index[k] * size;
      use(offset, filter_row(offset, rows.count, rows.row, edge ? rows.edge_row : nullptr, row_taps));
    });
  }

  // The same on this thread's band.
  template <class Use>
  void filter_band(const T *v, const T *edge, const TdTaps<T> &taps, const Use &use) const {
    filter(v, edge, taps, team_.begin(image_.slices()), team_.end(image_.slices()), use);
  }

  // A Gaussian with its derivative in sigma, by the product rule: use(offset, filter row, the derivative's).
  template <class Use>
  void filter_slopes(const T *v, const T *edge, const TdTaps<T> &taps, int64_t begin, int64_t end,
                     const Use &use) const {
    separable(v, edge, taps, begin, end, [&](int64_t offset) {
      const T *rows[] = {channel(0, 0), channel(1, 0)}, *edge_rows[] = {channel(0, 1), channel(1, 1)};
      const T *row_taps[] = {taps.slopes[2], taps.axis[2]}, *const *of_edge = edge ? edge_rows : nullptr;
      use(offset, filter_row(offset, 1, rows, of_edge, &taps.axis[2]),
          filter_row(offset, 2, rows, of_edge, row_taps));
    });
  }

  // sums += gradient of a given kernel's taps from slices [begin, end), divided by lam. B u - e K is linear
  // in the kernel k: 2 k * u - k * m without edge, e (k * (u - m)) + k * (e u) with it.
  void kernel_gradient(const T *r, const T *u, const T *edge, int64_t begin, int64_t end,
                       double *sums) const {
    const int size = td_.size[2];
    T *product = scratch_ + td_channels(td_) * channel_;  // e R
    kernel_rows({u, edge, static_cast<T>(edge ? 1 : 2), true}, begin, end,
                [&](int64_t offset, const TdKernelRows<T> &rows) {
                  const T *factor = r + offset;
                  if (edge) {
                    image_.rows.td.weigh(image_.columns(), 1, r + offset, edge + offset, nullptr, product);
                    factor = product;
                  }
                  for (int k = 0; k < rows.count; ++k) {
                    double *to = sums + rows.index[k] * size;
                    image_.rows.td.correlate(image_.columns(), size, factor, rows.row[k], to);
                    if (edge)
                      image_.rows.td.correlate(image_.columns(), size, r + offset, rows.edge_row[k], to);
                  }
                });
  }

 private:
  TdFilterRow<T> filter_row(int64_t offset, int count, const T *const *rows, const T *const *edge_rows,
                            const T *const *taps) const {
    const T *edge = edge_rows ? image_.td_edge + offset : nullptr;
    return {image_.columns(), count, td_.size[2], rows, edge_rows, taps, edge, nullptr};
  }

  // Channels of the scratch: `slope` 1 holds derivatives, `edge` 1 what comes from e v. The first row of a
  // channel is the padded one.
  T *channel(int slope, int edge) const { return scratch_ + (slope * td_channels(td_) + edge) * channel_; }

  // use(offset) with the padded rows filled.
  template <class Use>
  void separable(const T *v, const T *edge, const TdTaps<T> &taps, int64_t begin, int64_t end,
                 const Use &use) const {
    const int64_t rows = image_.grid().extent[1], radius = td_.size[1] / 2;
    for (int64_t s = begin; s < end; ++s) {
      const int64_t slice = s * image_.slice_size();
      for (int64_t ahead = 0; ahead < rows + radius; ++ahead) {
        if (ahead < rows) {
          combine_slices(v, edge, taps.axis[0], s, ahead, 0);
          if (taps.slopes[0]) combine_slices(v, edge, taps.slopes[0], s, ahead, 1);
        }
        const int64_t r = ahead - radius;
        if (r < 0) continue;
        if (radius > 0)
          for (int of_edge = 0; of_edge < (edge ? 2 : 1); ++of_edge) combine_ring(taps, r, of_edge);
        use(slice + r * image_.columns());
      }
    }
  }

  // Row r of the slices around s, weighted; into the ring, or into the padded row if no ring is needed.
  void combine_slices(const T *v, const T *edge, const T *taps, int64_t s, int64_t r, int slope) const {
    const T *rows[kMaxTaps], *edge_rows[kMaxTaps];
    const int size = td_.size[0];
    for (int k = 0; k < size; ++k) {
      const int64_t from = s + k - size / 2;
      const int64_t offset = from * image_.slice_size() + r * image_.columns();
      const bool inside = from >= 0 && from < image_.slices();
      rows[k] = !inside ? buffers_.zeros : (v ? v + offset : buffers_.ones);
      edge_rows[k] = inside && edge ? edge + offset : buffers_.zeros;
    }
    const int64_t to = td_.size[1] > 1 ? in_ring(r) : 0;
    image_.rows.td.combine({image_.columns(), size, rows, edge ? edge_rows : nullptr, taps,
                            channel(slope, 0) + to, channel(slope, 1) + to});
  }

  int64_t in_ring(int64_t row) const { return (1 + row % kTdRing) * padded_; }

  // The padded row r from the rows around it in the ring. The derivative is that of the slices with the taps,
  // and the slices with the taps' derivative.
  void combine_ring(const TdTaps<T> &taps, int64_t r, int edge) const {
    const T *rows[2 * kMaxTaps];
    T both[2 * kMaxTaps];
    const int size = td_.size[1];
    for (int slope = 0; slope < (taps.slopes[1] ? 2 : 1); ++slope)
      for (int k = 0; k < size; ++k) {
        const int64_t from = r + k - size / 2;
        const bool inside = from >= 0 && from < image_.grid().extent[1];
        rows[slope * size + k] = inside ? channel(slope, edge) + in_ring(from) : buffers_.zeros;
        both[slope * size + k] = slope ? taps.axis[1][k] : (taps.slopes[1] ? taps.slopes[1][k] : 0);
      }
    const int64_t columns = image_.columns();
    image_.rows.td.combine({columns, size, rows, nullptr, taps.axis[1], channel(0, edge), nullptr});
    if (taps.slopes[1])
      image_.rows.td.combine({columns, 2 * size, rows, nullptr, both, channel(1, edge), nullptr});
  }

  template <class Use>
  void kernel_rows(const TdSource<T> &source, int64_t begin, int64_t end, const Use &use) const {
    const int64_t radius = td_.size[0] / 2, all = image_.grid().extent[1];
    int64_t copied = std::max<int64_t>(begin - radius, 0);
    for (int64_t s = begin; s < end; ++s) {
      for (; copied < std::min(s + radius + 1, image_.slices()); ++copied) copy_slice(source, copied);
      for (int64_t r = 0; r < all; ++r) {
        TdKernelRows<T> rows;
        for (int k = 0; k < td_.size[0] * td_.size[1]; ++k) {
          const int64_t slice = s + k / td_.size[1] - radius, row = r + k % td_.size[1] - td_.size[1] / 2;
          if (slice < 0 || slice >= image_.slices() || row < 0 || row >= all) continue;
          T *const copy = copied_row(slice, row);
          rows.row[rows.count] = copy;
          rows.edge_row[rows.count] = copy + channel_;
          rows.index[rows.count++] = k;
        }
        use(s * image_.slice_size() + r * image_.columns(), rows);
      }
    }
  }

  T *copied_row(int64_t slice, int64_t row) const {
    return scratch_ + (slice % td_.size[0] * image_.grid().extent[1] + row) * padded_;
  }

  void copy_slice(const TdSource<T> &source, int64_t slice) const {
    image_.for_rows(slice, slice + 1, [&](int64_t, int64_t r, int64_t offset) {
      const T *v = source.v ? source.v + offset : buffers_.ones;
      const T *valid = image_.valid ? image_.valid + offset : buffers_.ones;
      T *copy = copied_row(slice, r);
      image_.rows.td.weigh(image_.columns(), source.scale, v, nullptr, source.minus_valid ? valid : nullptr,
                           copy);
      if (source.edge)
        image_.rows.td.weigh(image_.columns(), 1, v, source.edge + offset, nullptr, copy + channel_);
    });
  }

  const Image<T> &image_;
  const TdBuffers<T> &buffers_;
  const Team team_;
  const ThresholdDynamics &td_;
  const int64_t padded_, channel_;
  T *const scratch_;
};

}  // namespace segprior::softmax
