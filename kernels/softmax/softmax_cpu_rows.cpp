// Row kernels of the CPU backend, in highway's portable SIMD. This file is compiled once per target
// (foreach_target); the best one for the machine is chosen at run time. Only highway's headers are used, so
// nothing is linked.
#include "kernels/softmax/softmax_cpu_rows.h"

#include <cmath>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax/softmax_cpu_rows.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/common/simd_exp-inl.h"
#include "kernels/softmax/softmax_cpu_adjoint-inl.h"
#include "kernels/softmax/softmax_cpu_star-inl.h"
#include "kernels/softmax/softmax_cpu_step-inl.h"
#include "kernels/softmax/softmax_cpu_td-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {

template <class T>
const RowKernels<T> &table() {
  static const RowKernels<T> kernels{softmax<T>,
                                     logits<T>,
                                     step<T>,
                                     step_halo<T>,
                                     adjoint_softmax<T>,
                                     adjoint_volume<T>,
                                     adjoint_dual<T>,
                                     add<T>,
                                     max_abs<T>,
                                     max_difference<T>,
                                     star_directions<T>,
                                     star_step<T>,
                                     star_divergence<T>,
                                     star_adjoint<T>,
                                     td_table<T>()};
  return kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::softmax {

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

}  // namespace segprior::softmax
#endif
