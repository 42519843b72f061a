// Device code of the difference form  d_a x_a + sum_b w_ab (x_a - x_b): where a voxel's edges are, and the
// walk of a block over the voxels of a tile.
#pragma once

#include "kernels/common/reduce.h"
#include "kernels/softcut/softcut_cuda.h"

namespace segprior::softcut::cuda {

// The neighbourhoods that kernels are compiled for. 1-D is a plane of one row.
enum class Shape { plane, plane_with_diagonals, space };

inline Shape shape_of(const Grid &g) {
  if (g.has[kDiagonal]) return Shape::plane_with_diagonals;
  return g.nd == 3 ? Shape::space : Shape::plane;
}

template <Shape shape>
using ShapeTag = std::integral_constant<Shape, shape>;

template <class F>
void with_shape(const Grid &g, F &&f) {
  switch (shape_of(g)) {
    case Shape::plane:
      return f(ShapeTag<Shape::plane>());
    case Shape::plane_with_diagonals:
      return f(ShapeTag<Shape::plane_with_diagonals>());
    case Shape::space:
      return f(ShapeTag<Shape::space>());
  }
}

// Families of a shape: the i-th.
template <Shape shape>
struct Neighbourhood;
template <>
struct Neighbourhood<Shape::plane> {
  static constexpr int kCount = 2;
  SEGPRIOR_HD static constexpr int family(int i) { return i == 0 ? kRow : kColumn; }
};
template <>
struct Neighbourhood<Shape::plane_with_diagonals> {
  static constexpr int kCount = 4;
  SEGPRIOR_HD static constexpr int family(int i) { return kRow + i; }
};
template <>
struct Neighbourhood<Shape::space> {
  static constexpr int kCount = 3;
  SEGPRIOR_HD static constexpr int family(int i) { return kSlice + i; }
};

// From a voxel to its neighbour in a family, as a difference of voxel numbers.
template <class T>
SEGPRIOR_HD int64_t stride_of(const Operator<T> &a, int family) {
  const int64_t row = a.extent[2];
  switch (family) {
    case kSlice:
      return a.extent[1] * row;
    case kRow:
      return row;
    case kDiagonal:
      return row + 1;
    case kAnti:
      return row - 1;
    default:
      return 1;
  }
}

#if defined(__CUDACC__) || defined(FAKECUDA)

// A voxel: its number in its matrix and its coordinates.
struct Site {
  int64_t v, z, y, x;
};

// The voxels begin + threadIdx.x, + kBlock, ... below `end`, without a division a step.
class Walk {
 public:
  template <class T>
  __device__ Walk(const Operator<T> &a, int64_t begin, int64_t end)
      : end_(end < a.voxels ? end : a.voxels), rows_(a.extent[1]), columns_(a.extent[2]) {
    site_ = split(begin + threadIdx.x);
    step_ = split(kBlock);
  }
  __device__ bool inside() const { return site_.v < end_; }
  __device__ const Site &site() const { return site_; }
  __device__ void next() {
    site_.v += kBlock;
    site_.x += step_.x;
    site_.y += step_.y;
    site_.z += step_.z;
    if (site_.x >= columns_) site_.x -= columns_, ++site_.y;
    if (site_.y >= rows_) site_.y -= rows_, ++site_.z;
  }

 private:
  __device__ Site split(int64_t v) const {
    const int64_t line = quotient(v, columns_), slice = quotient(line, rows_);
    return {v, slice, line - slice * rows_, v - line * columns_};
  }

  Site site_, step_;
  int64_t end_, rows_, columns_;
};

// Whether a voxel has a neighbour ahead (+ step) or behind (- step) in a family.
template <class T>
__device__ bool has_ahead(const Operator<T> &a, int family, const Site &s) {
  switch (family) {
    case kSlice:
      return s.z + 1 < a.extent[0];
    case kRow:
      return s.y + 1 < a.extent[1];
    case kDiagonal:
      return s.y + 1 < a.extent[1] && s.x + 1 < a.extent[2];
    case kAnti:
      return s.y + 1 < a.extent[1] && s.x > 0;
    default:
      return s.x + 1 < a.extent[2];
  }
}
template <class T>
__device__ bool has_behind(const Operator<T> &a, int family, const Site &s) {
  switch (family) {
    case kSlice:
      return s.z > 0;
    case kRow:
      return s.y > 0;
    case kDiagonal:
      return s.y > 0 && s.x > 0;
    case kAnti:
      return s.y > 0 && s.x + 1 < a.extent[2];
    default:
      return s.x > 0;
  }
}

// The number of a voxel's edge ahead in the family's array, which is shorter than the grid along its axes.
template <class T>
__device__ int64_t edge_ahead(const Operator<T> &a, int family, const Site &s) {
  switch (family) {
    case kSlice:
      return s.v;
    case kRow:
      return s.v - s.z * a.extent[2];
    case kDiagonal:
      return s.v - s.y;
    case kAnti:
      return s.v - s.y - 1;
    default:
      return s.v - (s.z * a.extent[1] + s.y);
  }
}
// The same behind: the edge ahead of the neighbour behind.
template <class T>
__device__ int64_t edge_behind(const Operator<T> &a, int family, const Site &s) {
  const int64_t columns = a.extent[2];
  switch (family) {
    case kSlice:
      return s.v - a.extent[1] * columns;
    case kRow:
      return s.v - columns - s.z * columns;
    case kDiagonal:
      return s.v - columns - s.y;
    case kAnti:
      return s.v - columns - s.y + 1;
    default:
      return s.v - 1 - (s.z * a.extent[1] + s.y);
  }
}

// The row of the matrix that belongs to a voxel. A neighbour outside the grid has weight 0 and is the voxel
// itself, so that its value may be read.
template <class T, Shape shape>
struct Row {
  using Families = Neighbourhood<shape>;
  T conductance, weight[2 * Families::kCount];
  int64_t neighbour[2 * Families::kCount];

  __device__ Row(const Operator<T> &a, int64_t matrix, const Site &s) {
    conductance = a.conductance ? a.conductance[matrix * a.voxels + s.v] : T(1);
#pragma unroll
    for (int i = 0; i < Families::kCount; ++i) {
      const int f = Families::family(i);
      const T *edges = a.edges[f] + matrix * a.edge_count[f];
      const int64_t stride = stride_of(a, f);
      const bool ahead = has_ahead(a, f, s), behind = has_behind(a, f, s);
      weight[2 * i] = ahead ? edges[edge_ahead(a, f, s)] : T(0);
      weight[2 * i + 1] = behind ? edges[edge_behind(a, f, s)] : T(0);
      neighbour[2 * i] = ahead ? s.v + stride : s.v;
      neighbour[2 * i + 1] = behind ? s.v - stride : s.v;
    }
  }

  __device__ T diagonal() const {
    T sum = conductance;
#pragma unroll
    for (int i = 0; i < 2 * Families::kCount; ++i) sum += weight[i];
    return sum;
  }

  // Of the vector whose entries value(voxel) gives; `own` is that of the voxel itself.
  template <class Value>
  __device__ T apply(T own, const Value &value) const {
    T sum = conductance * own;
#pragma unroll
    for (int i = 0; i < 2 * Families::kCount; ++i) sum += weight[i] * (own - value(neighbour[i]));
    return sum;
  }
};

// ---- Tiles: a chunk of voxels for up to kGroup systems of one matrix, which share its loads ----

constexpr int kGroup = 4;
constexpr int kWarp = 32;
static_assert(kGroup * kWarp <= kBlock, "a warp for each system of a tile");

SEGPRIOR_HD inline int64_t groups_of(int64_t rhs) { return ceil_div(rhs, kGroup); }

template <class T>
SEGPRIOR_HD int64_t tiles_of(const Operator<T> &a) {
  return a.matrices * groups_of(a.rhs) * chunks_of(a.voxels).count;
}

struct SystemTile {
  int64_t matrix, chunk, chunks, begin, end;
  int64_t system;  // the first
  int systems;
  bool leads;         // the tile that writes what its systems have one of
  bool leads_matrix;  // ... and its matrix

  template <class T>
  __device__ SystemTile(const Operator<T> &a, int64_t tile) {
    const Chunks c = chunks_of(a.voxels);
    const int64_t groups = groups_of(a.rhs), rest = quotient(tile, c.count);
    chunks = c.count;
    chunk = tile - rest * c.count;
    matrix = quotient(rest, groups);
    const int64_t first = (rest - matrix * groups) * kGroup;
    begin = chunk * c.size;
    end = begin + c.size;
    system = matrix * a.rhs + first;
    systems = static_cast<int>(a.rhs - first < kGroup ? a.rhs - first : kGroup);
    leads = chunk == 0;
    leads_matrix = first == 0;
  }
};

// The sum of `count` numbers in an order that depends on the count alone. All lanes of a warp call it and get
// it.
__device__ inline double warp_sum(const double *values, int64_t count) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kWarp; i < count; i += kWarp) sum += values[i];
  for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

// sums[i] += value in registers: the loop over a tile's systems stays a loop, since unrolled it takes twice
// the registers.
__device__ inline void add_to(double (&sums)[kGroup], int i, double value) {
#pragma unroll
  for (int k = 0; k < kGroup; ++k)
    if (k == i) sums[k] += value;
}

// Leaves this tile's part of a sum of each of its systems at partials[system][chunk].
__device__ inline void store_sums(const SystemTile &tile, double (&sums)[kGroup], double *partials) {
  block_reduce(sums, Sum());
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 0; i < kGroup; ++i)
    if (i < tile.systems) partials[(tile.system + i) * tile.chunks + tile.chunk] = sums[i];
}

#endif

}  // namespace segprior::softcut::cuda
