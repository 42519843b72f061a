// How a cycle cuts levels into tiles, and where their points lie in a block's shared memory.
#pragma once

#include <algorithm>

#include "kernels/softcut/softcut_cuda_multigrid_level.h"

namespace segprior::softcut::cuda {

// A tile has one coarse point per thread and the fine points 2 I, 2 I + 1 around them.
template <int ND>
SEGPRIOR_HD constexpr int tile_extent(int axis) {
  if (ND == 1) return kBlock;
  if (ND == 2) return axis == 0 ? 32 : kBlock / 32;
  return axis == 0 ? 16 : 4;
}

// The tiles of one matrix. Their number over all matrices fits in 32 bits: a tile stands for kilobytes of the
// hierarchy.
template <int ND>
struct Tiling {
  unsigned count[ND];

  SEGPRIOR_HD explicit Tiling(const Extents<ND> &coarse) {
    for (int a = 0; a < ND; ++a)
      count[a] = (static_cast<unsigned>(coarse.n[a]) + tile_extent<ND>(a) - 1) / tile_extent<ND>(a);
  }
  SEGPRIOR_HD unsigned tiles() const {
    unsigned product = 1;
    for (int a = 0; a < ND; ++a) product *= count[a];
    return product;
  }
  // The first coarse point of a tile.
  __device__ Point<ND> first(unsigned tile) const {
    Point<ND> p{};
#pragma unroll
    for (int a = 0; a < ND; ++a) {
      p.at[a] = static_cast<int>(tile % count[a]) * tile_extent<ND>(a);
      tile /= count[a];
    }
    return p;
  }
};

// The fine points of a tile and a margin, in shared memory: `more` points more than the tile's on each axis.
template <int ND, int more>
struct Patch {
  SEGPRIOR_HD static constexpr int extent(int axis) { return 2 * tile_extent<ND>(axis) + more; }
  SEGPRIOR_HD static constexpr int stride(int axis) {
    int product = 1;
    for (int a = 0; a < axis; ++a) product *= extent(a);
    return product;
  }
  SEGPRIOR_HD static constexpr int size() { return stride(ND); }
  SEGPRIOR_HD static constexpr int local(int q, int axis) { return q / stride(axis) % extent(axis); }
  SEGPRIOR_HD static constexpr int step(int offset) {
    int sum = 0;
    for (int a = 0; a < ND; ++a) sum += step_of(offset, a) * stride(a);
    return sum;
  }
  // The point `q` of a patch that starts `margin` points before the tile.
  __device__ static Point<ND> point(const Point<ND> &first, int q, int margin) {
    Point<ND> p{};
#pragma unroll
    for (int a = 0; a < ND; ++a) p.at[a] = 2 * first.at[a] - margin + local(q, a);
    return p;
  }
  // The place here of point `q` of another patch that starts `shift` points later.
  template <class Other>
  __device__ static int place(int q, int shift) {
    int sum = 0;
#pragma unroll
    for (int a = 0; a < ND; ++a) sum += (Other::local(q, a) + shift) * stride(a);
    return sum;
  }
};

template <int ND>
using Smoothed = Patch<ND, 3>;  // what the residuals below need
template <int ND>
using Residuals = Patch<ND, 1>;  // what the coarse points of a tile take
template <int ND>
using Corrected = Patch<ND, 4>;  // the cells of the tile and those around them
template <int ND>
using Tile = Patch<ND, 0>;

// The cells of a tile, which are its coarse points, and those around them.
template <int ND>
struct Cells {
  SEGPRIOR_HD static constexpr int extent(int axis) { return tile_extent<ND>(axis) + 2; }
  SEGPRIOR_HD static constexpr int size() { return Corrected<ND>::size() >> ND; }
  SEGPRIOR_HD static constexpr int local(int q, int axis) {
    for (int a = 0; a < axis; ++a) q /= extent(a);
    return q % extent(axis);
  }
};

constexpr int kTailFloats = 2 * static_cast<int>(kTailPoints) + kMaxLevels;  // of all levels of a tail
template <int ND>
constexpr int kCycleFloats = std::max(Smoothed<ND>::size() + Residuals<ND>::size(),
                                      static_cast<int>(kTailPoints) + 2 * kTailFloats);

// One array for all phases of a cycle: a persistent kernel holds them all.
template <int ND>
__device__ inline float *cycle_memory() {
  SEGPRIOR_SHARED(float, memory, kCycleFloats<ND>);
  return memory;
}

}  // namespace segprior::softcut::cuda
