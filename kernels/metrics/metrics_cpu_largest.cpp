// The class of the largest score, for the CPU's confusion matrices: plain loops, compiled for several SIMD
// targets (foreach_target). Only highway's headers are used, so nothing is linked.
#include <algorithm>

#include "kernels/common/half.h"
#include "kernels/metrics/metrics_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/metrics/metrics_cpu_largest.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::metrics {
namespace HWY_NAMESPACE {

struct Same {
  template <class T>
  static HWY_INLINE T widen(T value) {
    return value;
  }
};

template <class Format, class From, class Real>
void largest(const void *scores, int64_t classes, int64_t stride, int64_t count, int32_t *__restrict out) {
  Real best[kBlock];
  std::fill_n(best, count, static_cast<Real>(__builtin_nan("")));
  std::fill_n(out, count, -1);
  for (int32_t i = 0; i < classes; ++i) {
    const From *__restrict from = static_cast<const From *>(scores) + i * stride;
    for (int64_t k = 0; k < count; ++k) {
      const Real value = Format::widen(from[k]);
      // The best so far is NaN only if nothing else was seen.
      const bool better = !(value <= best[k]) & (value == value);
      best[k] = better ? value : best[k];
      out[k] = better ? i : out[k];
    }
  }
}

Largest table(Storage storage) {
  switch (storage) {
    case Storage::f64:
      return largest<Same, double, double>;
    case Storage::f16:
      return largest<Half, uint16_t, float>;
    case Storage::bf16:
      return largest<Bfloat, uint16_t, float>;
    default:
      return largest<Same, float, float>;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::metrics
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::metrics {

Largest largest_of(Storage storage) {
#if HWY_ARCH_X86
  const bool sse4 =
      __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
#if HWY_TARGETS & HWY_AVX3
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return N_AVX3::table(storage);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (avx2) return N_AVX2::table(storage);
#endif
#if HWY_TARGETS & HWY_SSE4
  if (sse4) return N_SSE4::table(storage);
#endif
#endif
  return HWY_NAMESPACE::table(storage);
}

}  // namespace segprior::metrics
#endif
