// Stand-in for CUDA's cuda_runtime.h, so that unmodified .cu files compile with an ordinary C++ compiler and
// run on the CPU under the sanitizers. Each thread of a block is a fiber; see ../README.md for what is
// checked.
#pragma once

#if !defined(FAKECUDA)  // usually a compile definition of all that links the runtime
#define FAKECUDA 1
#endif

#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// A plain variable would get neither red zones nor poison.
#define __shared__ error_use_SEGPRIOR_SHARED_or_dynamic_shared_from_kernels_common_cuda_h

#include "fakecuda/types.h"
// After types.h
#include "fakecuda/device.h"
#include "fakecuda/runtime_api.h"
