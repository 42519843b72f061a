// Internal contract of the proposals: what capi/ hands to a backend, after every argument was checked.
// Derivation: proposals.md. Public contract: include/segprior/proposals.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/storage.h"
#include "segprior/core.h"
#include "segprior/proposals.h"

namespace segprior::proposals {

constexpr int kMaxClasses = 256;

enum class Method { exact, gradient };  // the order of the public enumerators

// Device memory. Null data is legal in size queries only, so layouts look at the flags and counts, never at
// pointers.
struct Problem {
  int64_t batch, classes, voxels;
  Storage storage;  // of logits and Q; bounds, duals and volumes are of the arithmetic's dtype
  Method method;
  int32_t iterations;
  double step, tolerance;
  bool has_mask, mask_shared;
  int64_t lower_rows, upper_rows;  // rows of these tensors; 0: absent

  const void *logits;         // [B, I, J]
  const void *lower, *upper;  // [rows, I]
  const uint8_t *mask;        // [B, J] or [J]
};

// Null: not wanted.
struct Outputs {
  void *proposal;       // [B, I, J]
  void *dual, *volume;  // [B, I]
  segprior_info *info;  // [B]
};

// One backend: CPU (proposals_cpu.cpp) or CUDA (proposals_cuda.cu). `stream` is a cudaStream_t, `threads` >=
// 1 the CPU thread count; each backend ignores the other's. Problems have B * J > 0.
struct Backend {
  size_t (*workspace)(const Problem &, int threads);
  void (*forward)(const Problem &, const Outputs &, void *workspace, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::proposals
