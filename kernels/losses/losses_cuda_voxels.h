// Device functions of the two passes over the voxels: reading and writing them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/common/half.h"
#include "kernels/losses/losses_cuda.h"
#include "kernels/losses/losses_math.h"

namespace segprior::losses::cuda {

// Voxels per thread and tile; threads of a block, at most.
template <class T, int K>
constexpr int kVoxels = sizeof(T) == sizeof(float) ? (K == kManyClasses ? 2 : 4) : (K > 2 ? 1 : 2);
template <int K>
constexpr int kBlockThreads = K == kManyClasses ? 1024
                              : K > 2           ? 512
                                                : 256;

__device__ inline double exp2_of(double x) { return exp2(x); }
__device__ inline float exp2_of(float x) {
#if defined(__CUDA_ARCH__)
  float y;  // one instruction; what would be less than 2^-126 is 0
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}
template <class T>
__device__ inline T exp_of(T x) {
  return exp2_of(x * T(1.4426950408889634074));
}
__device__ inline double log_of(double x) { return log(x); }
// One instruction; off by less than 2e-7 for x from 1 to 2, and by less than that times ln x beyond.
__device__ inline float log_of(float x) { return __log2f(x) * 0.69314718055994530942f; }
__device__ inline double inverse_of(double x) { return 1 / x; }
__device__ inline float inverse_of(float x) { return __fdividef(1.0f, x); }  // to one unit in the last place

// The conversions of half.h, by the instructions that devices have for binary16.
template <class Format>
__device__ inline float widen(uint16_t half) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Format, Half>) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
    return x;
  }
#endif
  return Format::widen(half);
}
template <class Format>
__device__ inline uint16_t narrow(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Format, Half>) {
    uint16_t half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
  }
#endif
  return Format::narrow(x);
}

template <class T, int K, int V>
__device__ inline void fill(T (&values)[K][V], T value) {
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v) values[k][v] = value;
}

// ---- A thread's voxels of a tile --------------------------------------------------------------------------

struct Run {
  int64_t first;
  int step, count;  // voxels first + v * step, v < count
};

template <int V>
__device__ inline Run run_of(const Grid &grid, int64_t voxels, int64_t tile) {
  const int64_t begin = tile * grid.tile;
  const int left = static_cast<int>(voxels - begin < grid.tile ? voxels - begin : grid.tile);
  const int column = static_cast<int>(threadIdx.y * kWarp + threadIdx.x), columns = grid.teams * kWarp;
  if (grid.vectors) return {begin + column * V, 1, column * V < left ? V : 0};
  int count = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) count += column + v * columns < left;
  return {begin + column, columns, count};
}

template <class Raw, int V>
struct alignas(sizeof(Raw) * V < 16 ? sizeof(Raw) * V : 16) Pack {
  Raw value[V];
};

template <int V, class Raw>
__device__ inline void load(const Raw *row, const Run &run, bool vectors, Raw (&out)[V]) {
  if (vectors) {
    Pack<Raw, V> pack{};
    if (run.count > 0) pack = *reinterpret_cast<const Pack<Raw, V> *>(row + run.first);
#pragma unroll
    for (int v = 0; v < V; ++v) out[v] = pack.value[v];
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) out[v] = v < run.count ? row[run.first + v * run.step] : Raw{};
  }
}

template <int V, class Raw>
__device__ inline void store(Raw *row, const Run &run, bool vectors, const Raw (&values)[V]) {
  if (vectors) {
    Pack<Raw, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.value[v] = values[v];
    if (run.count > 0) *reinterpret_cast<Pack<Raw, V> *>(row + run.first) = pack;
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < run.count) row[run.first + v * run.step] = values[v];
  }
}

// Rows of scores, of a soft target or of a gradient, [.][J], in the storage of the scores.
struct Rows {
  unsigned char *data;
  Storage storage;
  int64_t voxels;

  __device__ Rows(const Problem &p, const void *tensor, int64_t row)
      : data(const_cast<unsigned char *>(static_cast<const unsigned char *>(tensor)) +
             row * p.voxels *
                 (p.storage == Storage::f64   ? 8
                  : p.storage == Storage::f32 ? 4
                                              : 2)),
        storage(p.storage),
        voxels(p.voxels) {}

  // K rows from `first` on, of which `own` exist; the others of `out` stay. All are under way before the
  // first is used.
  template <class T, int K, int V>
  __device__ void read(int first, int own, const Run &run, bool vectors, T (&out)[K][V]) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (storage == Storage::f16) return read_halves<Half>(first, own, run, vectors, out);
      if (storage == Storage::bf16) return read_halves<Bfloat>(first, own, run, vectors, out);
    }
    const T *row = reinterpret_cast<const T *>(data) + first * voxels;
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (k < own) load(row + k * voxels, run, vectors, out[k]);
  }

  template <class T, int V>
  __device__ void write(int k, const Run &run, bool vectors, const T (&values)[V]) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (storage != Storage::f32) {
        uint16_t raw[V];
#pragma unroll
        for (int v = 0; v < V; ++v)
          raw[v] = storage == Storage::f16 ? narrow<Half>(values[v]) : narrow<Bfloat>(values[v]);
        return store(reinterpret_cast<uint16_t *>(data) + k * voxels, run, vectors, raw);
      }
    }
    store(reinterpret_cast<T *>(data) + k * voxels, run, vectors, values);
  }

 private:
  template <class Format, int K, int V>
  __device__ void read_halves(int first, int own, const Run &run, bool vectors, float (&out)[K][V]) const {
    const uint16_t *row = reinterpret_cast<const uint16_t *>(data) + first * voxels;
    uint16_t raw[K][V];
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (k < own) load(row + k * voxels, run, vectors, raw[k]);
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (k < own)
#pragma unroll
        for (int v = 0; v < V; ++v) out[k][v] = widen<Format>(raw[k][v]);
  }
};

// ---- Masks and targets ------------------------------------------------------------------------------------

template <int V>
struct Sites {
  bool valid[V], known[V];  // m, l
  int label[V];             // the class of a label map; negative where none or not known
};

template <int V, class Label>
__device__ inline void read_labels(const Problem &p, const Label *row, const Run &run, bool vectors,
                                   Sites<V> &sites, int &flags) {
  // What is compared has 32 bits; greater labels are all alike.
  constexpr bool kWide = sizeof(Label) > sizeof(int);
  constexpr int kLarge = 0x7fffffff, kNone = -1;
  const bool can_ignore = !kWide && p.ignore_label >= 0 && p.ignore_label <= kLarge;
  const int ignore = can_ignore ? static_cast<int>(p.ignore_label) : kNone;
  const int background = p.background, end = static_cast<int>(p.classes) + background;
  Label labels[V];
  load(row, run, vectors, labels);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    int y = static_cast<int>(labels[v]);
    if constexpr (kWide) {
      if (labels[v] > kLarge) y = kLarge;
      if (labels[v] < 0 || labels[v] == p.ignore_label) y = kNone;
    }
    const bool known = sites.known[v] && y >= 0 && y != ignore;
    if (known && y >= end) flags |= kInvalid;
    sites.known[v] = known;  // a label out of range counts as labelled, but is of no class
    sites.label[v] = known && y < end ? y - background : -1;
  }
}

// targets: whether a term needs them; if not, nothing is known, and neither labels nor `labelled` are read.
// flags: gets kInvalid for a label out of range.
template <int V>
__device__ inline Sites<V> sites_of(const Problem &p, int64_t image, const Run &run, bool vectors,
                                    bool targets, int &flags) {
  Sites<V> sites;
  uint8_t bytes[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sites.valid[v] = v < run.count;
  if (p.has_mask) {
    load(p.mask + (p.mask_shared ? 0 : image * p.voxels), run, vectors, bytes);
#pragma unroll
    for (int v = 0; v < V; ++v) sites.valid[v] = sites.valid[v] && bytes[v] != 0;
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sites.known[v] = targets && sites.valid[v];
  if (!targets) return sites;
  if (p.has_labelled) {
    load(p.labelled + (p.labelled_shared ? 0 : image * p.voxels), run, vectors, bytes);
#pragma unroll
    for (int v = 0; v < V; ++v) sites.known[v] = sites.known[v] && bytes[v] != 0;
  }
  if (p.target != Target::labels) return sites;
  const int64_t row = image * p.voxels;
  if (p.label_type == LabelType::u8)
    read_labels(p, static_cast<const uint8_t *>(p.labels) + row, run, vectors, sites, flags);
  else if (p.label_type == LabelType::i32)
    read_labels(p, static_cast<const int32_t *>(p.labels) + row, run, vectors, sites, flags);
  else
    read_labels(p, static_cast<const int64_t *>(p.labels) + row, run, vectors, sites, flags);
  return sites;
}

// t of one class; 0 where it is not known or out of range. flags: gets kInvalid for the latter.
template <int V, class T>
__device__ inline void targets_of(const Problem &p, int64_t image, int i, const Run &run, bool vectors,
                                  const Sites<V> &sites, T (&t)[V], int &flags) {
  if (p.target == Target::labels) {
#pragma unroll
    for (int v = 0; v < V; ++v) t[v] = static_cast<T>(sites.label[v] == i);
    return;
  }
  if (p.target == Target::soft) {
    T rows[1][V];
    Rows(p, p.labels, image * p.classes + i).read(0, 1, run, vectors, rows);
#pragma unroll
    for (int v = 0; v < V; ++v) t[v] = rows[0][v];
  } else {
    uint8_t bytes[V];
    const int64_t row = (image * p.classes + i) * p.voxels;
    load(static_cast<const uint8_t *>(p.labels) + row, run, vectors, bytes);
#pragma unroll
    for (int v = 0; v < V; ++v) t[v] = static_cast<T>(bytes[v]);
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (!sites.known[v]) t[v] = 0;
    const bool inside = t[v] >= 0 && t[v] - t[v] == 0 && (p.target == Target::soft || t[v] <= 1);
    if (!inside) {
      flags |= kInvalid;
      t[v] = 0;
    }
  }
}

}  // namespace segprior::losses::cuda
