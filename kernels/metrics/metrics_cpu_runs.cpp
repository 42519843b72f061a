// Rows of the CPU's connected components, 64 voxels at a time. Compiled once per SIMD target
// (foreach_target): for the vector loops, and for popcount. Only highway's headers are used, so nothing is
// linked.
#include "kernels/metrics/metrics_cpu_runs.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/metrics/metrics_cpu_runs.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::metrics {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kWord = 64;

// Bit k: byte k is not 0.
HWY_INLINE uint64_t bits_of(const uint8_t *bytes) {
  const hn::CappedTag<uint8_t, kWord> d;
  uint64_t word = 0;
  for (size_t k = 0; k < kWord; k += hn::Lanes(d)) {
    uint8_t bits[8] = {};
    hn::StoreMaskBits(d, hn::Ne(hn::LoadU(d, bytes + k), hn::Zero(d)), bits);
    uint64_t part;
    std::memcpy(&part, bits, sizeof part);
    word |= part << k;
  }
  return word;
}

HWY_INLINE int count_of(uint64_t word) { return __builtin_popcountll(word); }
HWY_INLINE uint64_t below(int bit) { return (uint64_t{1} << bit) - 1; }

template <class T>
void find(const Runs &runs, int64_t row, const T *values, const uint8_t *mask, T background,
          bool has_background, bool by_value) {
  uint64_t *inside = runs.inside + row * runs.words, *starts = runs.starts + row * runs.words;
  int32_t *first = runs.first + row * runs.words;
  const int32_t begin = static_cast<int32_t>(row * runs.capacity);
  int32_t next = begin;
  uint64_t before = 0;  // whether the voxel before the word is inside
  for (int64_t w = 0; w < runs.words; ++w) {
    const T *from = values + w * kWord;
    const int64_t count = std::min(kWord, runs.width - w * kWord);
    uint8_t flags[kWord], changes[kWord];
    if (count < kWord) std::memset(flags, 0, kWord);
    for (int64_t k = 0; k < count; ++k) flags[k] = !has_background | (from[k] != background);
    if (mask)
      for (int64_t k = 0; k < count; ++k) flags[k] &= mask[w * kWord + k] != 0;
    const uint64_t here = bits_of(flags);
    uint64_t begins = here & ~(here << 1 | before);
    if (by_value) {
      std::memset(changes, 0, kWord);
      changes[0] = w > 0 && from[0] != from[-1];
      for (int64_t k = 1; k < count; ++k) changes[k] = from[k] != from[k - 1];
      begins |= here & bits_of(changes);
    }
    before = here >> (kWord - 1);
    inside[w] = here;
    starts[w] = begins;
    first[w] = next;
    next += count_of(begins);
  }
  for (int32_t k = begin; k < next; ++k) runs.parent[k] = k;
}

// Joins two trees, shortening the paths on the way (Rem's algorithm): a parent has the smaller number.
HWY_INLINE void unite(int32_t *parent, int32_t a, int32_t b) {
  while (parent[a] != parent[b]) {
    if (parent[a] < parent[b]) std::swap(a, b);
    const int32_t above = parent[a];
    parent[a] = parent[b];
    if (above == a) return;
    a = above;
  }
}

template <class T>
void join(const Runs &runs, int64_t row, int64_t earlier, bool full, const T *values) {
  const uint64_t *inside = runs.inside + row * runs.words, *starts = runs.starts + row * runs.words;
  const uint64_t *inside0 = runs.inside + earlier * runs.words, *starts0 = runs.starts + earlier * runs.words;
  const int32_t *first = runs.first + row * runs.words, *first0 = runs.first + earlier * runs.words;
  int32_t *parent = runs.parent;
  uint64_t before = 0, before0 = 0;
  for (int64_t w = 0; w < runs.words; ++w) {
    const uint64_t c = inside[w], s = starts[w], c0 = inside0[w], s0 = starts0[w];
    // The runs that hold bit k, or, with at = below(k), the bit before it.
    const auto run = [&](uint64_t at) { return first[w] + count_of(s & at) - 1; };
    const auto run0 = [&](uint64_t at) { return first0[w] + count_of(s0 & at) - 1; };
    const auto alike = [&](int64_t k, int64_t k0) {
      const int64_t x = w * kWord;
      return !values || values[row * runs.width + x + k] == values[earlier * runs.width + x + k0];
    };
    // Every pair of touching runs meets first where one of the two begins.
    if (!full) {
      for (uint64_t meet = (s & c0) | (s0 & c); meet; meet &= meet - 1) {
        const int k = __builtin_ctzll(meet);
        const uint64_t upto = below(k) << 1 | 1;
        if (alike(k, k)) unite(parent, run(upto), run0(upto));
      }
    } else {
      const uint64_t left = c << 1 | before, left0 = c0 << 1 | before0;
      // A run begins below a run, or right below the end of one (of two, if they have different values).
      for (uint64_t meet = s & (c0 | left0); meet; meet &= meet - 1) {
        const int k = __builtin_ctzll(meet);
        const uint64_t upto = below(k) << 1 | 1;
        const bool straight = c0 >> k & 1;
        if (alike(k, straight ? k : k - 1)) unite(parent, run(upto), run0(upto));
      }
      for (uint64_t meet = s & left0 & s0; meet; meet &= meet - 1) {
        const int k = __builtin_ctzll(meet);
        if (alike(k, k - 1)) unite(parent, run(below(k) << 1 | 1), run0(below(k)));
      }
      // A run of the earlier row begins above a run that has begun, or right after its end.
      for (uint64_t meet = s0 & left; meet; meet &= meet - 1) {
        const int k = __builtin_ctzll(meet);
        if (alike(k - 1, k)) unite(parent, run(below(k)), run0(below(k) << 1 | 1));
      }
      before = c >> (kWord - 1);
      before0 = c0 >> (kWord - 1);
    }
  }
}

// out[begin, end) = value, and possibly more up to `limit`, which is written later.
HWY_INLINE void fill(int32_t *out, int64_t begin, int64_t end, int64_t limit, int32_t value) {
  const hn::CappedTag<int32_t, 8> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto vector = hn::Set(d, value);
  while (begin + 8 <= limit) {
    for (int64_t k = 0; k < 8; k += lanes) hn::StoreU(vector, d, out + begin + k);
    begin += 8;
    if (begin >= end) return;
  }
  for (; begin < end; ++begin) out[begin] = value;
}

template <class T>
void write(const Runs &runs, int64_t row, int32_t *components) {
  const uint64_t *inside = runs.inside + row * runs.words, *starts = runs.starts + row * runs.words;
  int32_t *out = components + row * runs.width;
  int32_t next = static_cast<int32_t>(row * runs.capacity), number = 0;
  int64_t begin = 0;
  uint64_t before = 0;
  for (int64_t w = 0; w < runs.words; ++w) {
    const uint64_t ends = ~inside[w] & (inside[w] << 1 | before);
    before = inside[w] >> (kWord - 1);
    for (uint64_t turns = starts[w] | ends; turns; turns &= turns - 1) {
      const int k = __builtin_ctzll(turns);
      const int64_t x = w * kWord + k;
      if (x >= runs.width) break;
      fill(out, begin, x, runs.width, number);
      begin = x;
      number = 0;
      if (starts[w] >> k & 1) {
        int32_t node = runs.parent[next++];
        while (node >= 0) node = runs.parent[node];
        number = -node;
      }
    }
  }
  fill(out, begin, runs.width, runs.width, number);
}

template <class T>
const RunKernels<T> &table() {
  static const RunKernels<T> kernels{find<T>, join<T>, write<T>};
  return kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::metrics
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::metrics {

template <class T>
const RunKernels<T> &run_kernels() {
#if HWY_ARCH_X86
  const bool sse4 =
      __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
#if HWY_TARGETS & HWY_AVX3
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return N_AVX3::table<T>();
#endif
#if HWY_TARGETS & HWY_AVX2
  if (avx2) return N_AVX2::table<T>();
#endif
#if HWY_TARGETS & HWY_SSE4
  if (sse4) return N_SSE4::table<T>();
#endif
#endif
  return HWY_NAMESPACE::table<T>();
}

template const RunKernels<uint8_t> &run_kernels<uint8_t>();
template const RunKernels<int32_t> &run_kernels<int32_t>();
template const RunKernels<int64_t> &run_kernels<int64_t>();

}  // namespace segprior::metrics
#endif
