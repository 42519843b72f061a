// Passes over voxels, in highway's portable SIMD. This file is compiled once per target (foreach_target); the
// best one for the machine is chosen at run time. Only highway's headers are used, so nothing is linked.
#include "kernels/proposals/proposals_cpu_rows.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/proposals/proposals_cpu_rows.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/highway.h"
#include "kernels/proposals/proposals_cpu_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::proposals {
namespace HWY_NAMESPACE {

template <class T>
const RowKernels<T> &table() {
  static const RowKernels<T> kernels{sums<T>, write<T>};
  return kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::proposals
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::proposals {

template <class T>
const RowKernels<T> &row_kernels() {
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

template const RowKernels<float> &row_kernels<float>();
template const RowKernels<double> &row_kernels<double>();

}  // namespace segprior::proposals
#endif
