// The multigrid row kernels in highway's portable SIMD. Compiled once per target (foreach_target); the best
// one for the machine is chosen at run time. Only highway's headers are used, so nothing is linked.
#include "kernels/softcut/softcut_cpu_multigrid_rows.h"

#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softcut/softcut_cpu_multigrid_rows.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/highway.h"
#include "kernels/softcut/softcut_cpu_multigrid_build-inl.h"
#include "kernels/softcut/softcut_cpu_multigrid_cycle-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut::multigrid {
namespace HWY_NAMESPACE {

inline const RowKernels &table() {
  static const RowKernels kernels{start,    residual,         restrict_row,    correct,  relax,
                                  diagonal, interpolate_even, interpolate_odd, row_sums, galerkin};
  return kernels;
}
template <class T>
const BorderKernels<T> &border_table() {
  static const BorderKernels<T> kernels{max_abs<T>, load<T>, store<T>};
  return kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut::multigrid
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::softcut::multigrid {
namespace {

enum class Target { avx512, avx2, sse4, baseline };

Target best_target() {
#if HWY_ARCH_X86
  const bool sse4 =
      __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return Target::avx512;
  if (avx2) return Target::avx2;
  if (sse4) return Target::sse4;
#endif
  return Target::baseline;
}

}  // namespace

const RowKernels &row_kernels() {
  switch (best_target()) {
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512:
      return N_AVX3::table();
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return N_AVX2::table();
#endif
#if HWY_TARGETS & HWY_SSE4
    case Target::sse4:
      return N_SSE4::table();
#endif
    default:
      return HWY_NAMESPACE::table();
  }
}

template <class T>
const BorderKernels<T> &border_kernels() {
  switch (best_target()) {
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512:
      return N_AVX3::border_table<T>();
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return N_AVX2::border_table<T>();
#endif
#if HWY_TARGETS & HWY_SSE4
    case Target::sse4:
      return N_SSE4::border_table<T>();
#endif
    default:
      return HWY_NAMESPACE::border_table<T>();
  }
}

template const BorderKernels<float> &border_kernels<float>();
template const BorderKernels<double> &border_kernels<double>();

}  // namespace segprior::softcut::multigrid
#endif
