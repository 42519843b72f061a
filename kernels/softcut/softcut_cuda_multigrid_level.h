// A level of the hierarchy as device code sees it: points, steps to neighbours, couplings. Of one matrix.
//
// The 3^nd offsets in {-1, 0, 1}^nd are numbered with the fastest axis as the last digit to base 3, -1 being
// digit 0. The middle number is the point itself; what comes after it is "ahead", and 3^nd - 1 - t is the
// offset opposite to t. A coupling g = -a_ij >= 0 is stored once, at the point whose neighbour is ahead.
#pragma once

#include "kernels/softcut/softcut_cuda_multigrid.h"

namespace segprior::softcut::cuda {

template <int ND>
constexpr int kOffsets = ND == 1   ? 3
                         : ND == 2 ? 9
                                   : 27;
template <int ND>
constexpr int kCentre = kOffsets<ND> / 2;  // the offset 0, and the number of couplings stored per point

SEGPRIOR_HD constexpr int power_of_three(int axis) { return axis == 0 ? 1 : axis == 1 ? 3 : 9; }
SEGPRIOR_HD constexpr int step_of(int offset, int axis) { return offset / power_of_three(axis) % 3 - 1; }

// Slots of Level::matrix.
enum Slots { kInverse, kExcess, kCouplings };
template <int ND>
constexpr int kWeights = kCouplings + kCentre<ND>;  // by offset; those of the centre, which are 1, left out
template <int ND>
constexpr int kSlots = kWeights<ND> + kOffsets<ND> - 1;
template <int ND>
SEGPRIOR_HD constexpr int weight_slot(int offset) {
  return kWeights<ND> + offset - (offset > kCentre<ND>);
}

// Coordinates are 32-bit: an axis has less than 2^31 voxels. Indices are not.
template <int ND>
struct Extents {
  int n[ND];

  SEGPRIOR_HD int64_t points() const {
    int64_t product = 1;
    for (int a = 0; a < ND; ++a) product *= n[a];
    return product;
  }
  // From a point's index to its neighbour's.
  SEGPRIOR_HD int64_t shift(int offset) const {
    int64_t sum = step_of(offset, 0);
    if (ND > 1) sum += static_cast<int64_t>(step_of(offset, 1)) * n[0];
    if (ND > 2) sum += static_cast<int64_t>(step_of(offset, 2)) * n[0] * n[1];
    return sum;
  }
};

template <int ND>
SEGPRIOR_HD Extents<ND> extents_of(const Level &level) {
  Extents<ND> e{};
  for (int a = 0; a < ND; ++a) e.n[a] = static_cast<int>(level.extent[a]);
  return e;
}

// A point by its coordinates, perhaps outside of the grid.
template <int ND>
struct Point {
  int at[ND];

  SEGPRIOR_HD Point stepped(int offset) const {
    Point q = *this;
    for (int a = 0; a < ND; ++a) q.at[a] += step_of(offset, a);
    return q;
  }
  SEGPRIOR_HD bool inside(const Extents<ND> &e) const {
    bool in = true;
    for (int a = 0; a < ND; ++a) in = in && at[a] >= 0 && at[a] < e.n[a];
    return in;
  }
  // Of a point inside: whether the neighbour is so too.
  SEGPRIOR_HD bool has_neighbour(int offset, const Extents<ND> &e) const {
    bool in = true;
    for (int a = 0; a < ND; ++a) {
      if (step_of(offset, a) < 0) in = in && at[a] > 0;
      if (step_of(offset, a) > 0) in = in && at[a] + 1 < e.n[a];
    }
    return in;
  }
  SEGPRIOR_HD int64_t index(const Extents<ND> &e) const {
    if (ND == 1) return at[0];
    int64_t row = at[1];
    if (ND == 3) row += static_cast<int64_t>(at[ND - 1]) * e.n[1];
    return row * e.n[0] + at[0];
  }
};

template <int ND>
SEGPRIOR_HD Point<ND> point_at(int64_t index, const Extents<ND> &e) {
  Point<ND> p{};
  for (int a = 0; a < ND - 1; ++a) {
    p.at[a] = static_cast<int>(index % e.n[a]);
    index /= e.n[a];
  }
  p.at[ND - 1] = static_cast<int>(index);
  return p;
}

// The fine point at a coarse one.
template <int ND>
__device__ inline Point<ND> doubled(Point<ND> p) {
#pragma unroll
  for (int a = 0; a < ND; ++a) p.at[a] *= 2;
  return p;
}

// The matrix of a coarse level.
template <int ND>
struct CoarseMatrix {
  Extents<ND> e;
  int64_t pitch;
  float *slots;  // [kSlots][pitch]

  SEGPRIOR_HD static constexpr bool has(int) { return true; }
  __device__ float *slot(int s) const { return slots + s * pitch; }
  __device__ float inverse(int64_t i) const { return slot(kInverse)[i]; }
  __device__ float excess(int64_t i) const { return slot(kExcess)[i]; }
  // Of point p, index i, with the neighbour at an offset other than 0, which is inside.
  __device__ float coupling(const Point<ND> &, int64_t i, int offset) const {
    const bool ahead = offset > kCentre<ND>;
    const int stored = ahead ? offset : kOffsets<ND> - 1 - offset;
    return slot(kCouplings + stored - kCentre<ND> - 1)[ahead ? i : i + e.shift(offset)];
  }
};

// The caller's matrix as level 0. Extreme numbers are cut so that no product of the set-up leaves float32's
// range.
template <int ND, class T>
struct FinestMatrix {
  Extents<ND> e;
  float *inverses;
  const T *edge[ND], *diagonal, *anti, *conductance;  // null: 0 for a coupling, 1 for the conductance

  // Whether there can be couplings at this offset: edges along axes, and the diagonals in 2-D.
  SEGPRIOR_HD static constexpr bool has(int offset) {
    int steps = 0;
    for (int a = 0; a < ND; ++a) steps += step_of(offset, a) != 0;
    return ND < 3 || steps <= 1;
  }
  __device__ float inverse(int64_t i) const { return inverses[i]; }
  __device__ float excess(int64_t i) const {
    return conductance ? fmaxf(load(conductance, i), 1 / kLargest) : 1.0f;
  }
  __device__ float coupling(const Point<ND> &p, int64_t i, int offset) const {
    const bool ahead = offset > kCentre<ND>;
    const int stored = ahead ? offset : kOffsets<ND> - 1 - offset;
    if (!ahead) i += e.shift(offset);
    if constexpr (ND == 1) return load(edge[0], i);
    // Arrays along the fastest axis have one entry less in each row, those along the middle axis one row less
    // in each plane.
    if constexpr (ND == 2) {
      const int row = p.at[1] + (ahead ? 0 : step_of(offset, 1));
      if (stored == kCentre<2> + 1) return load(edge[0], i - row);
      if (stored == kCentre<2> + 2) return load(anti, i - row - 1);
      if (stored == kCentre<2> + 3) return load(edge[1], i);
      return load(diagonal, i - row);
    }
    if constexpr (ND == 3) {
      if (stored == kCentre<3> + 1)
        return load(edge[0], i - p.at[1] - static_cast<int64_t>(p.at[2]) * e.n[1]);
      if (stored == kCentre<3> + 3) return load(edge[1], i - static_cast<int64_t>(p.at[2]) * e.n[0]);
      if (stored == kCentre<3> + 9) return load(edge[2], i);
    }
    return 0.0f;
  }
  __device__ static float load(const T *array, int64_t i) {
    return array ? fminf(static_cast<float>(array[i]), kLargest) : 0.0f;
  }
};

// Levels for all matrices, as phases hold them.
template <int ND>
struct Coarse {
  using Matrix = CoarseMatrix<ND>;
  Extents<ND> e;
  int64_t pitch;
  float *matrices, *residual, *correction;

  __device__ float *inverses(int64_t m) const { return matrix(m).slot(kInverse); }
  __device__ Matrix matrix(int64_t m) const { return {e, pitch, matrices + m * kSlots<ND> * pitch}; }
};

// The level after it, of M matrices: levels lie one after another.
template <int ND>
SEGPRIOR_HD Coarse<ND> next_level(const Coarse<ND> &level, int64_t matrices) {
  Coarse<ND> next = level;
  for (int a = 0; a < ND; ++a) next.e.n[a] = (level.e.n[a] + 1) / 2;
  next.pitch = pitch_of(next.e.points());
  next.matrices += matrices * kSlots<ND> * level.pitch;
  next.residual = next.correction = nullptr;
  return next;
}

template <int ND>
SEGPRIOR_HD Coarse<ND> coarse_of(const Level &level) {
  return {extents_of<ND>(level), level.pitch, level.matrix, level.residual, level.correction};
}

template <int ND, class T>
struct Finest {
  using Matrix = FinestMatrix<ND, T>;
  Extents<ND> e;
  int64_t pitch;
  float *inverse;
  int64_t edge_count[ND], diagonal_count, voxels;
  const T *edge[ND], *diagonal, *anti, *conductance;

  __device__ float *inverses(int64_t m) const { return inverse + m * pitch; }
  __device__ Matrix matrix(int64_t m) const {
    Matrix a{};
    a.e = e;
    a.inverses = inverses(m);
#pragma unroll
    for (int c = 0; c < ND; ++c) a.edge[c] = edge[c] ? edge[c] + m * edge_count[c] : nullptr;
    if (diagonal) a.diagonal = diagonal + m * diagonal_count;
    if (anti) a.anti = anti + m * diagonal_count;
    if (conductance) a.conductance = conductance + m * voxels;
    return a;
  }
};

template <int ND, class T>
SEGPRIOR_HD Finest<ND, T> finest_of(const Operator<T> &a, const Hierarchy &h) {
  Finest<ND, T> f{};
  f.e = extents_of<ND>(h.level[0]);
  f.pitch = h.level[0].pitch;
  f.inverse = h.level[0].matrix;
  for (int c = 0; c < ND; ++c) {
    f.edge_count[c] = a.edge_count[h.family[c]];
    f.edge[c] = a.edges[h.family[c]];
  }
  f.diagonal_count = a.edge_count[kDiagonal];
  f.diagonal = a.edges[kDiagonal];
  f.anti = a.edges[kAnti];
  f.conductance = a.conductance;
  f.voxels = a.voxels;
  return f;
}

}  // namespace segprior::softcut::cuda
