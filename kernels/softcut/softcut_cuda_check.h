// What stands before and after the iterations of every solver: which systems can be solved at all, the norms
// of their right-hand sides, and how good the result is.
#pragma once

#include "kernels/softcut/softcut_cuda_stencil.h"

namespace segprior::softcut::cuda {

// Where a system stands: running, or how it ended by the iteration's own account (SEGPRIOR_CONVERGED,
// _ITERATION_CAP, _BREAKDOWN, or the status that it came with).
enum : int32_t { kRunning = -1 };

SEGPRIOR_HD inline bool is_failure(int32_t status) {
  return status == SEGPRIOR_NONFINITE_INPUT || status == SEGPRIOR_BREAKDOWN ||
         status == SEGPRIOR_INVALID_PARAMETER;
}

struct Ending {
  int32_t status, iterations;
};

// A system's part in the sums of the batch rule.
struct BatchPart {
  double residual, rhs, voxels;
};

// What the phases of a solve share, whichever solver it is.
template <class T>
struct Frame {
  Operator<T> a;
  Stop stop;
  const T *rhs, *init;
  T *x;
  int32_t *status;
  segprior_info *info;
  // Workspace. Sums over voxels as partial sums [systems][chunks].
  double *rhs_norm, *rhs_abs;  // norm_term(rhs), |rhs|
  double *norm;                // norm_term(residual)
  BatchPart *parts;            // [systems]; null unless stop.batch
  Ending *ending;              // [systems]
  int32_t *remaining;          // systems that are running

  SEGPRIOR_HD double *sums_of(double *partials, int64_t system) const {
    return partials + system * chunks_of(a.voxels).count;
  }
};

// softcut_cuda_check.cu. Writes solve.status: what is wrong with the matrices, or, where `earlier` [systems]
// is given, which failures it knows of; and what is wrong with rhs and init.
template <class T>
void check_systems(const Operator<T> &, const Solve<T> &, const int32_t *earlier, cudaStream_t);

template <class T>
Frame<T> carve_frame(const Operator<T> &, const Solve<T> &, Arena &);

// Before the iterations: the sums of the right-hand sides; no system runs.
template <class T>
void start_frame(const Frame<T> &, cudaStream_t);

// After them: infos and final statuses from the residual of x, NaN for systems that failed.
template <class T>
void finish_frame(const Frame<T> &, const Grid &, cudaStream_t);

#if defined(__CUDACC__) || defined(FAKECUDA)

// parts[system] from the norm of its residual; a failed system has none.
template <class T>
struct SumBatch {
  int64_t tiles;  // systems
  Frame<T> frame;
  static constexpr const char *kName = "softcut_sum_batch";

  __device__ void operator()(int64_t system) const {
    if (threadIdx.x >= kWarp) return;
    const int64_t chunks = chunks_of(frame.a.voxels).count;
    const bool failed = frame.status[system] != 0 || frame.ending[system].status > SEGPRIOR_ITERATION_CAP;
    const double residual = warp_sum(frame.sums_of(frame.norm, system), chunks);
    const double rhs = warp_sum(frame.sums_of(frame.rhs_norm, system), chunks);
    const bool counts = !failed && isfinite(residual);
    if (threadIdx.x == 0)
      frame.parts[system] =
          counts ? BatchPart{residual, rhs, static_cast<double>(frame.a.voxels)} : BatchPart{0, 0, 0};
  }
};

// The residual of a batch, from its parts. All lanes of a warp call it and get it.
template <class T>
__device__ double batch_residual(const Frame<T> &frame) {
  BatchPart sum{0, 0, 0};
  for (int64_t n = threadIdx.x % kWarp; n < frame.a.systems(); n += kWarp) {
    sum.residual += frame.parts[n].residual;
    sum.rhs += frame.parts[n].rhs;
    sum.voxels += frame.parts[n].voxels;
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    sum.residual += __shfl_xor_sync(0xffffffffu, sum.residual, step);
    sum.rhs += __shfl_xor_sync(0xffffffffu, sum.rhs, step);
    sum.voxels += __shfl_xor_sync(0xffffffffu, sum.voxels, step);
  }
  return scaled_residual(frame.stop, sum.residual, sum.rhs, sum.voxels);
}

#endif

}  // namespace segprior::softcut::cuda
