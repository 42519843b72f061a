// The CPU backend's passes over voxels, in highway's portable SIMD. This file is compiled once per target
// (foreach_target); the best one for the machine is chosen at run time. Only highway's headers are used, so
// nothing is linked.
#include "kernels/losses/losses_cpu_chunks.h"

#include <limits>
#include <type_traits>

#include "kernels/common/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/losses/losses_cpu_chunks.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#include "hwy/foreach_target.h"
// foreach_target must come first
#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/common/simd_exp-inl.h"
#include "kernels/losses/losses_cpu_backward-inl.h"
#include "kernels/losses/losses_cpu_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::losses {
namespace HWY_NAMESPACE {

template <class T>
const ChunkKernels<T> &table() {
  static const ChunkKernels<T> kernels{forward_chunk<T>, backward_chunk<T>};
  return kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::losses
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace segprior::losses {

template <class T>
const ChunkKernels<T> &chunk_kernels() {
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

template const ChunkKernels<float> &chunk_kernels<float>();
template const ChunkKernels<double> &chunk_kernels<double>();

}  // namespace segprior::losses
#endif
