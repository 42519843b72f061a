// The matrix in compressed rows, on CUDA. A thread per voxel writes its row: where it begins follows from the
// grid's shape, without a scan.
#include "kernels/softcut/softcut_cuda_stencil.h"

namespace segprior::softcut::cuda {

namespace {

struct Range {
  int64_t begin, end;
};

// How many voxels before `s` in C order lie in a box.
__device__ int64_t count_before(const Site &s, const Range &slices, const Range &rows, const Range &columns) {
  const auto below = [](int64_t at, const Range &range) {
    const int64_t count = (at < range.end ? at : range.end) - range.begin;
    return count > 0 ? count : 0;
  };
  const auto within = [](int64_t at, const Range &range) { return at >= range.begin && at < range.end; };
  const int64_t row = columns.end - columns.begin, slice = (rows.end - rows.begin) * row;
  int64_t count = below(s.z, slices) * slice;
  if (!within(s.z, slices)) return count;
  count += below(s.y, rows) * row;
  return within(s.y, rows) ? count + below(s.x, columns) : count;
}

// The order of the columns of a row: the families behind, the voxel itself, the families ahead.
template <Shape shape>
struct Order;
template <>
struct Order<Shape::plane> {
  SEGPRIOR_HD static constexpr int ahead(int i) { return i == 0 ? kColumn : kRow; }
};
template <>
struct Order<Shape::plane_with_diagonals> {
  SEGPRIOR_HD static constexpr int ahead(int i) {
    return i == 0 ? kColumn : i == 1 ? kAnti : i == 2 ? kRow : kDiagonal;
  }
};
template <>
struct Order<Shape::space> {
  SEGPRIOR_HD static constexpr int ahead(int i) { return i == 0 ? kColumn : i == 1 ? kRow : kSlice; }
};

template <class T, Shape shape>
struct WriteRows {
  int64_t tiles;  // matrices * chunks
  Operator<T> a;
  int64_t entries;
  int32_t *row_offsets, *columns;
  T *values;
  static constexpr const char *kName = "softcut_csr";

  __device__ void operator()(int64_t tile) const {
    constexpr int kCount = Neighbourhood<shape>::kCount;
    const Chunks chunks = chunks_of(a.voxels);
    const int64_t matrix = quotient(tile, chunks.count), begin = (tile - matrix * chunks.count) * chunks.size;
    const bool leads = matrix == 0;  // the pattern is the same for all matrices
    for (Walk walk(a, begin, begin + chunks.size); walk.inside(); walk.next()) {
      const Site &s = walk.site();
      int64_t at = s.v;
#pragma unroll
      for (int i = 0; i < kCount; ++i) at += edge_ends_before(Order<shape>::ahead(i), s);
      if (leads) {
        row_offsets[s.v] = static_cast<int32_t>(at);
        if (s.v == a.voxels - 1) row_offsets[a.voxels] = static_cast<int32_t>(entries);
      }
      const Row<T, shape> row(a, matrix, s);
      const auto put = [&](int64_t column, T value) {
        if (leads) columns[at] = static_cast<int32_t>(column);
        values[matrix * entries + at++] = value;
      };
#pragma unroll
      for (int i = kCount - 1; i >= 0; --i) {
        const int f = Order<shape>::ahead(i);
        if (has_behind(a, f, s))
          put(s.v - stride_of(a, f), -a.edges[f][matrix * a.edge_count[f] + edge_behind(a, f, s)]);
      }
      put(s.v, row.diagonal());
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int f = Order<shape>::ahead(i);
        if (has_ahead(a, f, s))
          put(s.v + stride_of(a, f), -a.edges[f][matrix * a.edge_count[f] + edge_ahead(a, f, s)]);
      }
    }
  }

  // Entries off the diagonal, of one family, in the rows before the voxel's.
  __device__ int64_t edge_ends_before(int family, const Site &s) const {
    const int64_t n0 = a.extent[0], n1 = a.extent[1], n2 = a.extent[2];
    const Range all0{0, n0}, all1{0, n1}, all2{0, n2};
    switch (family) {
      case kSlice:
        return count_before(s, {0, n0 - 1}, all1, all2) + count_before(s, {1, n0}, all1, all2);
      case kRow:
        return count_before(s, all0, {0, n1 - 1}, all2) + count_before(s, all0, {1, n1}, all2);
      case kDiagonal:
        return count_before(s, all0, {0, n1 - 1}, {0, n2 - 1}) + count_before(s, all0, {1, n1}, {1, n2});
      case kAnti:
        return count_before(s, all0, {0, n1 - 1}, {1, n2}) + count_before(s, all0, {1, n1}, {0, n2 - 1});
      default:
        return count_before(s, all0, all1, {0, n2 - 1}) + count_before(s, all0, all1, {1, n2});
    }
  }
};

template <class T>
void csr_as(const Problem &p, int32_t *row_offsets, int32_t *columns, void *values, cudaStream_t stream) {
  const Operator<T> a = operator_of<T>(p);
  int64_t entries = a.voxels;
  for (int f = 0; f < kFamilies; ++f) entries += 2 * a.edge_count[f];
  with_shape(p.grid, [&](auto shape) {
    StreamingExecutor(nullptr, stream)
        .run(WriteRows<T, shape.value>{a.matrices * chunks_of(a.voxels).count, a, entries, row_offsets,
                                       columns, static_cast<T *>(values)});
  });
}

}  // namespace

void csr(const Problem &p, int32_t *row_offsets, int32_t *columns, void *values, int, void *stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (p.dtype == DType::f32)
    csr_as<float>(p, row_offsets, columns, values, queue);
  else
    csr_as<double>(p, row_offsets, columns, values, queue);
}

}  // namespace segprior::softcut::cuda
