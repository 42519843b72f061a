// The proposals on CUDA. A pass over the voxels leaves one row of sums per chunk; the block that finishes an
// image's last chunk computes the image's next duals. No host in the loop: all passes in one cooperative
// kernel, with one grid barrier each, or, where the device has none or the passes are few, a launch per pass;
// blocks of an image that stopped end at once.
//
// Bytes per voxel and class, float32: 4 a pass (I > 24: 8, the second 4 from a cache where a tile of 1024
// voxels fits there), 8 to write Q.
#include <algorithm>

#include "kernels/common/cuda.h"
#include "kernels/proposals/proposals_cuda.h"
#include "kernels/proposals/proposals_cuda_pass.h"
#include "kernels/proposals/proposals_cuda_update.h"

namespace segprior::proposals {
namespace cuda {
namespace {

constexpr int kFewPasses = 3;  // a launch each: no gain expected from one kernel (not measured)

__global__ void __launch_bounds__(kBlock) start_kernel(Args a) {
  const Problem &p = a.p;
  const int64_t image = blockIdx.x, i = threadIdx.x, k = image * p.classes + i;
  if (i == 0) {
    a.state[image] = {1, SEGPRIOR_ITERATION_CAP, 0, 0};
    a.tickets[image] = 0;
    if (image == 0) a.running[0] = a.running[1] = a.running[2] = 0;
  }
  if (i >= p.classes) return;
  const bool f64 = p.storage == Storage::f64;
  const Bounds b = f64 ? bounds_of<double>(p, image, i) : bounds_of<float>(p, image, i);
  a.dual[k] = excluded(p.method, b) ? -INFINITY : 0.0;
  if (a.multipliers) a.multipliers[k] = {0, 0};
}

// Whole block: the sums of one chunk and, in the image's last block, the update. `running` as for update().
template <class E, int kMax, int kVoxels>
__device__ inline void pass(const Args &a, int64_t item, unsigned *running) {
  const int64_t image = item / a.chunks, chunk = item - image * a.chunks;
  if (!a.state[image].running) return;
  const Chunk<E> c = chunk_at<E>(a, image, chunk);
  const int64_t count = sums_of(a.p.classes);
  const Parts parts{a.parts + image * count * a.chunks + chunk, a.chunks, a.p.classes};
  if constexpr (kMax > 0)
    sums_in_registers<E, kMax, kVoxels>(c, parts);
  else
    sums_of_many(c, parts);
  if (last_block(a.tickets + image, static_cast<unsigned>(a.chunks)))
    update<typename E::T>(a, image, running);
}

template <class E, int kMax, int kVoxels>
__global__ void __launch_bounds__(kBlock) pass_kernel(Args a) {
  pass<E, kMax, kVoxels>(a, blockIdx.x, nullptr);
}

// Two blocks on a multiprocessor, where the sums in float64 do not take all registers.
template <class E, int kMax, int kVoxels>
__global__ void __launch_bounds__(kBlock, sizeof(typename E::T) == sizeof(float) ? 2 : 1)
    persistent_kernel(Args a) {
  const int64_t items = a.p.batch * a.chunks;
  for (int t = 0;; t = (t + 1) % 3) {
    // The count of the next pass: it was read before the last barrier, and is added to after the next one.
    if (blockIdx.x == 0 && threadIdx.x == 0) a.running[(t + 1) % 3] = 0;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x)
      pass<E, kMax, kVoxels>(a, item, a.running + t);
    grid_barrier();
    if (a.running[t] == 0) return;
  }
}

template <class E, int kMax>
__global__ void __launch_bounds__(kBlock) write_kernel(Args a, Outputs out) {
  const Problem &p = a.p;
  const int64_t image = blockIdx.x / a.chunks, chunk = blockIdx.x - image * a.chunks;
  const State state = a.state[image];
  const bool bad = failed(state.status);
  const Chunk<E> c = chunk_at<E>(a, image, chunk);
  write_proposal<E, kMax>(c, bad,
                          static_cast<typename E::Stored *>(out.proposal) + image * p.classes * p.voxels);
  if (chunk != 0) return;
  using T = typename E::T;
  const int64_t i = threadIdx.x, k = image * p.classes + i;
  if (i == 0 && out.info) out.info[image] = {state.status, state.iterations, bad ? NAN : state.residual};
  if (i >= p.classes) return;
  if (out.dual) static_cast<T *>(out.dual)[k] = static_cast<T>(bad ? NAN : a.dual[k]);
  const double volume = a.sums[image * sums_of(p.classes) + kVolume * p.classes + i];
  if (out.volume) static_cast<T *>(out.volume)[k] = static_cast<T>(bad ? NAN : volume);
}

template <class E, int kMax, int kVoxels>
void run(const Args &a, const Outputs &out, cudaStream_t stream) {
  const Problem &p = a.p;
  const dim3 block(kBlock), grid(static_cast<unsigned>(p.batch * a.chunks));
  const size_t shared = kMax > 0 ? 0 : kBlock / 32 * p.classes * 2 * sizeof(double);
  launch("proposals_start", start_kernel, dim3(static_cast<unsigned>(p.batch)), block, 0, stream, a);
  const auto persistent = persistent_kernel<E, kMax, kVoxels>;
  const int64_t passes = static_cast<int64_t>(p.iterations) + 1;
  const int64_t fit = passes > kFewPasses ? cooperative_blocks(persistent, kBlock, shared) : 0;
  if (fit > 0)
    launch_cooperative("proposals_persistent", persistent,
                       dim3(static_cast<unsigned>(std::min<int64_t>(fit, grid.x))), block, shared, stream, a);
  else
    for (int64_t t = 0; t < passes; ++t)
      launch("proposals_pass", pass_kernel<E, kMax, kVoxels>, grid, block, shared, stream, a);
  launch("proposals_write", write_kernel<E, kMax>, grid, block, 0, stream, a, out);
}

template <Storage storage>
void run_storage(const Args &a, const Outputs &out, cudaStream_t stream) {
  using E = Element<storage>;
  if (a.p.classes <= 4) return run<E, 4, 4>(a, out, stream);
  if (a.p.classes <= 24) return run<E, 24, 1>(a, out, stream);
  run<E, 0, 1>(a, out, stream);
}

size_t workspace_size(const Problem &p, int) {
  Arena arena;
  Args(p, arena);
  return arena.used();
}

void forward(const Problem &p, const Outputs &out, void *workspace, int, void *stream_pointer) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  Arena arena(workspace);
  const Args a(p, arena);
  switch (p.storage) {
    case Storage::f32:
      return run_storage<Storage::f32>(a, out, stream);
    case Storage::f64:
      return run_storage<Storage::f64>(a, out, stream);
    case Storage::f16:
      return run_storage<Storage::f16>(a, out, stream);
    case Storage::bf16:
      return run_storage<Storage::bf16>(a, out, stream);
  }
}

}  // namespace
}  // namespace cuda

const Backend kCuda{cuda::workspace_size, cuda::forward};

}  // namespace segprior::proposals
