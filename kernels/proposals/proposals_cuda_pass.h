// Passes over the voxels of one chunk: the sums, and Q. A thread per voxel. With up to kMax classes a voxel's
// logits stay in registers; with more (kMax = 0) they are read twice, the second time mostly from a cache.
#pragma once

#include <cfloat>

#include "kernels/common/cuda.h"
#include "kernels/common/half.h"
#include "kernels/common/reduce.h"
#include "kernels/proposals/proposals_cuda.h"

namespace segprior::proposals::cuda {

// Reads and writes one storage type as T.
template <Storage storage>
struct Element;
template <>
struct Element<Storage::f32> {
  using T = float;
  using Stored = float;
  __device__ static T widen(Stored value) { return value; }
  __device__ static Stored narrow(T value) { return value; }
};
template <>
struct Element<Storage::f64> {
  using T = double;
  using Stored = double;
  __device__ static T widen(Stored value) { return value; }
  __device__ static Stored narrow(T value) { return value; }
};
template <>
struct Element<Storage::f16> {
  using T = float;
  using Stored = uint16_t;
  __device__ static T widen(Stored value) { return Half::widen(value); }
  __device__ static Stored narrow(T value) { return Half::narrow(value); }
};
template <>
struct Element<Storage::bf16> {
  using T = float;
  using Stored = uint16_t;
  __device__ static T widen(Stored value) { return Bfloat::widen(value); }
  __device__ static Stored narrow(T value) { return Bfloat::narrow(value); }
};

__device__ inline float exp_of(float x) { return expf(x); }
__device__ inline double exp_of(double x) { return exp(x); }
__device__ inline float lowest(float) { return -FLT_MAX; }
__device__ inline double lowest(double) { return -DBL_MAX; }

// One chunk of one image.
template <class E>
struct Chunk {
  using T = typename E::T;
  using Stored = typename E::Stored;
  int64_t voxels, begin, end;
  int classes;
  const Stored *logits;  // [I, J]
  const uint8_t *mask;   // [J] or null
  const T *dual;         // [I], shared memory

  __device__ bool valid(int64_t x) const { return x < end && (!mask || mask[x] != 0); }
  __device__ T logit(int64_t i, int64_t x) const { return E::widen(logits[i * voxels + x]); }
};

// Whole block. Ends with a barrier, and needs one before the next call.
template <class E>
__device__ inline Chunk<E> chunk_at(const Args &a, int64_t image, int64_t chunk) {
  using T = typename E::T;
  SEGPRIOR_SHARED(T, dual, kMaxClasses);
  const Problem &p = a.p;
  if (threadIdx.x < p.classes) dual[threadIdx.x] = static_cast<T>(a.dual[image * p.classes + threadIdx.x]);
  __syncthreads();
  const int64_t begin = chunk * a.chunk, end = begin + a.chunk < p.voxels ? begin + a.chunk : p.voxels;
  return {p.voxels,
          begin,
          end,
          static_cast<int>(p.classes),
          static_cast<const typename E::Stored *>(p.logits) + image * p.classes * p.voxels,
          p.has_mask ? p.mask + (p.mask_shared ? 0 : image * p.voxels) : nullptr,
          dual};
}

// z <- exp(z + f - max); returns 1 / sum over the classes. finite: += 0, or NaN if a logit is not finite.
template <class E, int kMax>
__device__ inline typename E::T exponentials(const Chunk<E> &c, typename E::T (&z)[kMax],
                                             typename E::T &finite) {
  using T = typename E::T;
  T max = lowest(T()), sum = 0;
#pragma unroll
  for (int i = 0; i < kMax; ++i) {
    if (i >= c.classes) break;
    finite += z[i] - z[i];
    z[i] += c.dual[i];
    max = z[i] > max ? z[i] : max;
  }
#pragma unroll
  for (int i = 0; i < kMax; ++i) {
    if (i >= c.classes) break;
    z[i] = exp_of(z[i] - max);
    sum += z[i];
  }
  return 1 / sum;
}

// Softmax of one voxel for any number of classes: max and 1 / sum.
template <class T>
struct Normaliser {
  T max, inverse;
};
template <class E>
__device__ inline Normaliser<typename E::T> normaliser(const Chunk<E> &c, int64_t x, typename E::T &finite) {
  using T = typename E::T;
  T max = lowest(T()), sum = 0;
  for (int i = 0; i < c.classes; ++i) {
    const T logit = c.logit(i, x), z = logit + c.dual[i];
    finite += logit - logit;
    if (z > max) {
      sum = sum * exp_of(max - z) + 1;
      max = z;
    } else {
      sum += exp_of(z - max);
    }
  }
  return {max, 1 / sum};
}

// Where one chunk's sums go: [sums_of(I)], a.chunks apart.
struct Parts {
  double *out;
  int64_t stride, classes;

  __device__ void put(int64_t k, double value) const { out[k * stride] = value; }
  __device__ void put_class(int64_t i, double volume, double spread) const {
    put(kVolume * classes + i, volume);
    put(kSpread * classes + i, spread);
  }
  __device__ void put_image(double valid, double finite) const {
    put(kPerClass * classes + kValid, valid);
    put(kPerClass * classes + kFinite, finite);
  }
};

// Up to kMax classes, kVoxels voxels of a thread in flight.
template <class E, int kMax, int kVoxels>
__device__ inline void sums_in_registers(const Chunk<E> &c, const Parts &parts) {
  using T = typename E::T;
  T volume[kMax] = {}, spread[kMax] = {}, valid = 0, finite = 0;
  for (int64_t from = c.begin + threadIdx.x; from < c.end; from += kVoxels * kBlock) {
    T z[kVoxels][kMax];
    bool on[kVoxels];
#pragma unroll
    for (int v = 0; v < kVoxels; ++v) {
      on[v] = c.valid(from + v * kBlock);
#pragma unroll
      for (int i = 0; i < kMax; ++i) {
        if (i >= c.classes) break;
        z[v][i] = on[v] ? c.logit(i, from + v * kBlock) : T(0);
      }
    }
#pragma unroll
    for (int v = 0; v < kVoxels; ++v) {
      const T inverse = on[v] ? exponentials<E, kMax>(c, z[v], finite) : T(0);
      valid += on[v];
#pragma unroll
      for (int i = 0; i < kMax; ++i) {
        if (i >= c.classes) break;
        const T q = z[v][i] * inverse;
        volume[i] += q;
        spread[i] += q - q * q;
      }
    }
  }
  // A few classes at a time: registers, and the barriers of a reduction.
  constexpr int kTogether = 4;
#pragma unroll
  for (int from = 0; from < kMax; from += kTogether) {
    if (from >= c.classes) break;
    double values[2 * kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      values[2 * k] = volume[from + k];
      values[2 * k + 1] = spread[from + k];
    }
    block_reduce(values, Sum());
    if (threadIdx.x == 0)
      for (int k = 0; k < kTogether && from + k < c.classes; ++k)
        parts.put_class(from + k, values[2 * k], values[2 * k + 1]);
  }
  double rest[2] = {static_cast<double>(valid), static_cast<double>(finite)};
  block_reduce(rest, Sum());
  if (threadIdx.x == 0) parts.put_image(rest[0], rest[1]);
}

// Any number of classes. Dynamic shared memory: a volume and a spread per warp and class.
template <class E>
__device__ inline void sums_of_many(const Chunk<E> &c, const Parts &parts) {
  using T = typename E::T;
  constexpr int kWarp = 32, kWarps = kBlock / kWarp, kVoxels = 4;
  double *all = dynamic_shared<double>();  // [kWarps][I][2]
  const int lane = threadIdx.x % kWarp;
  double *mine = all + static_cast<int64_t>(threadIdx.x / kWarp) * c.classes * 2;
  for (int i = lane; i < 2 * c.classes; i += kWarp) mine[i] = 0;
  __syncwarp();
  T valid = 0, finite = 0;
  for (int64_t block = c.begin; block < c.end; block += kVoxels * kBlock) {
    Normaliser<T> n[kVoxels];
    bool on[kVoxels];
#pragma unroll
    for (int v = 0; v < kVoxels; ++v) {
      const int64_t x = block + v * kBlock + threadIdx.x;
      on[v] = c.valid(x);
      n[v] = on[v] ? normaliser(c, x, finite) : Normaliser<T>{0, 0};
      valid += on[v];
    }
    for (int i = 0; i < c.classes; ++i) {
      T volume = 0, spread = 0;
#pragma unroll
      for (int v = 0; v < kVoxels; ++v) {
        if (!on[v]) continue;
        const T z = c.logit(i, block + v * kBlock + threadIdx.x) + c.dual[i];
        const T q = exp_of(z - n[v].max) * n[v].inverse;
        volume += q;
        spread += q - q * q;
      }
      for (unsigned step = kWarp / 2; step > 0; step /= 2) {
        volume += __shfl_down_sync(0xffffffffu, volume, step);
        spread += __shfl_down_sync(0xffffffffu, spread, step);
      }
      if (lane == 0) {
        mine[2 * i] += volume;
        mine[2 * i + 1] += spread;
      }
    }
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < c.classes) {
    double volume = 0, spread = 0;
    for (int w = 0; w < kWarps; ++w) {
      volume += all[(w * c.classes + threadIdx.x) * 2];
      spread += all[(w * c.classes + threadIdx.x) * 2 + 1];
    }
    parts.put_class(threadIdx.x, volume, spread);
  }
  double rest[2] = {static_cast<double>(valid), static_cast<double>(finite)};
  block_reduce(rest, Sum());
  if (threadIdx.x == 0) parts.put_image(rest[0], rest[1]);
}

// Q of one chunk; NaN if the image failed.
template <class E, int kMax>
__device__ inline void write_proposal(const Chunk<E> &c, bool bad,
                                      typename E::Stored *proposal /* [I, J] */) {
  using T = typename E::T;
  T unused = 0;
  for (int64_t x = c.begin + threadIdx.x; x < c.end; x += kBlock) {
    if (bad || !c.valid(x)) {
      const typename E::Stored value = E::narrow(bad ? static_cast<T>(NAN) : T(0));
      for (int i = 0; i < c.classes; ++i) proposal[i * c.voxels + x] = value;
    } else if constexpr (kMax > 0) {
      T z[kMax];
#pragma unroll
      for (int i = 0; i < kMax; ++i) {
        if (i >= c.classes) break;
        z[i] = c.logit(i, x);
      }
      const T inverse = exponentials<E, kMax>(c, z, unused);
#pragma unroll
      for (int i = 0; i < kMax; ++i) {
        if (i >= c.classes) break;
        proposal[i * c.voxels + x] = E::narrow(z[i] * inverse);
      }
    } else {
      const Normaliser<T> n = normaliser(c, x, unused);
      for (int i = 0; i < c.classes; ++i) {
        const T z = c.logit(i, x) + c.dual[i];
        proposal[i * c.voxels + x] = E::narrow(exp_of(z - n.max) * n.inverse);
      }
    }
  }
}

}  // namespace segprior::proposals::cuda
