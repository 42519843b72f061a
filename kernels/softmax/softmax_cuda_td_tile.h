// Tiles of the fused threshold dynamics iterations: loading a class of tile and halo, and the two passes of
// the convolution within a plane.
#pragma once

#include "kernels/softmax/softmax_cuda_device.h"
#include "kernels/softmax/softmax_cuda_td_fused.h"

namespace segprior::softmax::cuda {

// As many values as one 16-byte access moves.
template <class T>
struct alignas(16) Wide {
  T value[16 / sizeof(T)];
};

// Tap d of an axis, d = -R .. R; 0 beyond the kernel.
template <class T, int R>
__device__ inline void load_taps(const T *taps, int size, T (&out)[2 * R + 1]) {
#pragma unroll
  for (int k = 0; k < 2 * R + 1; ++k) {
    const int from_first = k - R + size / 2;
    out[k] = from_first >= 0 && from_first < size ? taps[from_first] : T(0);
  }
}

// The voxels of tile and halo that one thread loads, class by class, and their softmax normalisers where what
// is loaded are logits.
template <class T, class Tile>
struct Cells {
  static constexpr int kCount = Tile::kCellsPerThread, kHalo = Tile::kRadius;
  static constexpr unsigned kOutside = UINT32_MAX;
  unsigned at[kCount];  // index within a plane
  Normaliser<T> softmax[kCount];
  T raw[kCount];

  static __device__ bool exists(int k) {
    return Tile::kCells % kTdThreads == 0 || static_cast<int>(threadIdx.x) + k * kTdThreads < Tile::kCells;
  }
  static __device__ int row(int k) { return (threadIdx.x + k * kTdThreads) / Tile::kStride - kHalo; }
  static __device__ int column(int k) { return (threadIdx.x + k * kTdThreads) % Tile::kStride - kHalo; }
  static __device__ bool inner(int k) {
    return row(k) >= 0 && row(k) < Tile::kRows && column(k) >= 0 && column(k) < Tile::kColumns;
  }

  __device__ void place(const TdPlan &plan, int y0, int x0) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int y = y0 + row(k), x = x0 + column(k);
      const bool inside = exists(k) && y >= 0 && y < plan.rows && x >= 0 && x < plan.columns;
      at[k] = inside ? y * plan.columns + x : kOutside;
    }
  }

  __device__ void load(const T *plane) {
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (at[k] != kOutside) raw[k] = plane[at[k]];
  }

  // The normalisers of the logits of one plane, `voxels` apart from class to class.
  __device__ void normalise(const T *logits, unsigned voxels, int classes, const double *f, T scale) {
    Online<T> online[kCount];
    for (int i = 0; i < classes; ++i) {
      const T shift = f ? static_cast<T>(f[i]) * scale : T(0);
#pragma unroll
      for (int k = 0; k < kCount; ++k)
        if (at[k] != kOutside) online[k].add(logits[i * voxels + at[k]] * scale + shift);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) softmax[k] = online[k].result();
  }

  // What was loaded into `cells` as u; with `saved` the tile's part of it there too.
  template <bool FromLogits>
  __device__ void store(T *cells, T scale, T shift, T *saved) const {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (!exists(k)) continue;
      T u = 0;
      if (at[k] != kOutside) {
        u = FromLogits ? softmax_value(raw[k] * scale + shift * scale, softmax[k]) : raw[k];
        if (saved && inner(k)) saved[at[k]] = u;
      }
      cells[threadIdx.x + k * kTdThreads] = u;
    }
  }
};

// cells [kHaloRows][kStride] -> convolved along rows [kHaloRows][kColumns].
template <class T, class Tile>
__device__ inline void convolve_rows(const T *cells, const T (&taps)[2 * Tile::kRadius + 1], T *convolved) {
  constexpr int kWide = Tile::kWide, kTaps = 2 * Tile::kRadius + 1;
  constexpr int kGroups = Tile::kColumns / kWide;  // of outputs of one row
  constexpr int kReads = (kWide + kTaps - 1 + kWide - 1) / kWide;
  for (int item = threadIdx.x; item < Tile::kHaloRows * kGroups; item += kTdThreads) {
    const int row = item / kGroups, group = item % kGroups;
    T window[kReads * kWide];
    const Wide<T> *source = reinterpret_cast<const Wide<T> *>(cells + row * Tile::kStride) + group;
#pragma unroll
    for (int k = 0; k < kReads; ++k) {
      const Wide<T> part = source[k];
#pragma unroll
      for (int j = 0; j < kWide; ++j) window[k * kWide + j] = part.value[j];
    }
    Wide<T> sums;
#pragma unroll
    for (int j = 0; j < kWide; ++j) {
      sums.value[j] = 0;
#pragma unroll
      for (int k = 0; k < kTaps; ++k) sums.value[j] += taps[k] * window[j + k];
    }
    reinterpret_cast<Wide<T> *>(convolved + row * Tile::kColumns)[group] = sums;
  }
}

// The other pass, for this thread's kPerThread voxels of one column from row `first` on.
template <class T, class Tile>
__device__ inline void convolve_column(const T *convolved, const T (&taps)[2 * Tile::kRadius + 1], int first,
                                       int column, T (&sums)[Tile::kPerThread]) {
  constexpr int kTaps = 2 * Tile::kRadius + 1, kPer = Tile::kPerThread;
#pragma unroll
  for (int j = 0; j < kPer; ++j) sums[j] = 0;
#pragma unroll
  for (int k = 0; k < kPer + kTaps - 1; ++k) {
    const T value = convolved[(first + k) * Tile::kColumns + column];
#pragma unroll
    for (int j = 0; j < kPer; ++j)
      if (k >= j && k - j < kTaps) sums[j] += taps[k >= j && k - j < kTaps ? k - j : 0] * value;
  }
}

// The softmax of one voxel in place, over classes that are `stride` apart.
template <class T>
__device__ inline void softmax_of_column(T *z, int stride, int classes) {
  T max = z[0], sum = 0;
  for (int i = 1; i < classes; ++i) max = z[i * stride] > max ? z[i * stride] : max;
  for (int i = 0; i < classes; ++i) sum += z[i * stride] = exp2_of(z[i * stride] - max);
  const T inverse = 1 / sum;
  for (int i = 0; i < classes; ++i) z[i * stride] *= inverse;
}

// Sum over a warp, in a fixed order; valid in lane 0.
__device__ inline double warp_sum(double value) {
  for (unsigned step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  return value;
}

// Whole block: partial masses of the w of a tile [I][voxels], and in the image's last block the end of the
// iteration.
template <class T>
__device__ inline void finish_tile(const Inputs<T> &in, const TdStep<T> &step, const Finish &finish,
                                   const TdPlan &plan, bool advance, unsigned *tickets, int64_t image,
                                   unsigned tile, const T *w, int voxels) {
  constexpr int kWarps = kTdThreads / 32;
  const int classes = in.g.classes, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (step.f) {
    __syncthreads();
    for (int i = warp; i < classes; i += kWarps) {
      T sum = 0;
      for (int k = lane; k < voxels; k += 32) sum += w[i * voxels + k];
      const double mass = warp_sum(sum);
      if (lane == 0) step.partials[(image * classes + i) * plan.tiles() + tile] = mass;
    }
  }
  if (!step.f && !advance) return;
  if (!last_block(tickets + image, plan.tiles())) return;
  for (int i = warp; step.f && i < classes; i += kWarps) {
    const double *partials = step.partials + (image * classes + i) * plan.tiles();
    double sum = 0;
    for (unsigned k = lane; k < plan.tiles(); k += 32) sum += partials[k];
    sum = warp_sum(sum);
    if (lane == 0) {
      const Step<T> volume{step.gate, step.t, {}, {}, step.f, step.f_next, step.log_mass, nullptr};
      finish_volume(in, volume, image * classes + i, sum);
    }
  }
  if (advance) finish_image(finish, image);
}

}  // namespace segprior::softmax::cuda
