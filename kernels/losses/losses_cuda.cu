// Losses on CUDA: the calls of losses.h, and the small kernels around the two passes over the voxels.
// Forward: pass, finish, and, if the voxel map is wanted, one that looks for failed images; backward:
// coefficients, pass.
#include <initializer_list>

#include "kernels/common/reduce.h"
#include "kernels/losses/losses_cuda.h"

namespace segprior::losses::cuda {

namespace {

constexpr int kThreads = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int classes_per_thread(int64_t classes) {
  if (classes <= 4) return static_cast<int>(classes);
  if (classes > 64) return kManyClasses;
  return classes <= 48 && ceil_div(classes, 3) * 3 < ceil_div(classes, 4) * 4 ? 3 : 4;
}

// About 4 blocks per multiprocessor of a large device, more only if a thread's sums would become too long. It
// depends on the sizes alone: so do the bits of the results, but for the alignment of the data.
Grid grid_of(const Problem &p, std::initializer_list<const void *> data) {
  constexpr int64_t kBlocks = 512, kMostTiles = 64;
  Grid grid;
  grid.thread_classes = classes_per_thread(p.classes);
  const int vector = p.storage == Storage::f64 ? (grid.thread_classes > 2 ? 1 : 2)
                                               : (grid.thread_classes == kManyClasses ? 2 : 4);
  grid.groups = static_cast<int>(ceil_div(p.classes, grid.thread_classes));
  grid.teams = grid.groups >= 8 ? 1 : 8 / grid.groups;
  grid.tile = kWarp * grid.teams * vector;
  const int64_t tiles = ceil_div(p.voxels, grid.tile), wanted = p.batch * tiles / kBlocks;
  grid.block_tiles = wanted < 1 ? 1 : wanted > kMostTiles ? kMostTiles : wanted;
  grid.chunks = ceil_div(tiles, grid.block_tiles);
  grid.vectors = p.voxels % vector == 0;
  for (const void *pointer : data)
    grid.vectors = grid.vectors && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  return grid;
}

// ---- Forward ----------------------------------------------------------------------------------------------

template <class T>
struct Finish {
  Problem p;
  unsigned sums;
  int64_t chunks;
  Partials partials;
  State state;
  Outputs out;
};

// Whole warp, valid in lane 0.
__device__ double warp_total(const double *values, int64_t count) {
  double total = 0;
  for (int64_t n = threadIdx.x % kWarp; n < count; n += kWarp) total += values[n];
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) total += __shfl_down_sync(0xffffffffu, total, step);
  return total;
}

// The last block: from the sums to the terms.
template <class T>
__device__ void finish_terms(const Finish<T> &f) {
  const Problem &p = f.p;
  const Numbers<T> numbers(p, f.state);
  const int64_t pairs = p.batch * p.classes;
  if (p.on(SEGPRIOR_LOSS_SIZE))
    for (int64_t n = threadIdx.x; n < pairs; n += kThreads) numbers.pool_volume(n / p.classes, n % p.classes);
  if (p.dice_batch)
    for (int64_t n = threadIdx.x; n < kSums * p.classes; n += kThreads)
      numbers.pool_batch(static_cast<int>(n / p.classes), n % p.classes);
  __syncthreads();
  for (int term = 0; term < kTerms; ++term) {
    double sums[2] = {0, 0};  // of items, of counts
    for (int64_t n = threadIdx.x; n < pairs; n += kThreads) {
      const int64_t row = n / p.classes, i = n % p.classes;
      const double item = numbers.item(term, row, i);
      if (f.out.items) static_cast<T *>(f.out.items)[term * pairs + n] = static_cast<T>(item);
      sums[0] += item;
      sums[1] += numbers.counted(term, row, i);
    }
    block_reduce(sums, segprior::Sum());
    if (threadIdx.x == 0) numbers.finish_term(term, sums[0], sums[1]);
  }
  if (threadIdx.x != 0) return;
  for (int term = 0; term < kTerms && f.out.terms; ++term)
    static_cast<T *>(f.out.terms)[term] = static_cast<T>(f.state.value[term]);
  if (f.out.total) *static_cast<T *>(f.out.total) = static_cast<T>(numbers.total());
}

// One block per image: adds up the partial sums, a warp per number; the last block goes on to the terms.
template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ Finish<T> f) {
  const Problem &p = f.p;
  const int64_t image = blockIdx.x;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const bool labels = p.target == Target::labels;
  for (int64_t n = warp; n < kSums * p.classes; n += kThreads / kWarp) {
    const int which = static_cast<int>(n / p.classes);
    const int from = labels && which == kTargetSquares ? kCount : which;  // t^2 = t
    const double *partials =
        f.partials.sums + ((image * kSums + from) * p.classes + n % p.classes) * f.chunks;
    const double total = f.sums >> from & 1 ? warp_total(partials, f.chunks) : 0;
    if (lane == 0) f.state.sums[image * kSums * p.classes + n] = total;
  }
  if (warp == 0) {
    const double total = warp_total(f.partials.labelled + image * f.chunks, f.chunks);
    if (lane == 0) f.state.labelled[image] = total;
  }
  int flags = 0;
  for (int64_t n = threadIdx.x; n < f.chunks; n += kThreads) flags |= f.partials.flags[image * f.chunks + n];
  const int nonfinite = __syncthreads_or(flags & kNonfinite), invalid = __syncthreads_or(flags & kInvalid);
  if (threadIdx.x == 0) {
    f.state.status[image] = nonfinite ? SEGPRIOR_NONFINITE_INPUT
                            : invalid ? SEGPRIOR_INVALID_PARAMETER
                                      : SEGPRIOR_CONVERGED;
    Numbers<T>(p, f.state).finish_image(image);
    if (f.out.info) f.out.info[image] = {f.state.status[image], 0, 0};
  }
  if (last_block(f.partials.ticket, gridDim.x)) finish_terms(f);
}

// The voxel map of an image that failed.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fail_kernel(const __grid_constant__ Problem p, int64_t blocks, const int32_t *status, T *voxels) {
  const int64_t image = blockIdx.x / blocks, block = blockIdx.x - image * blocks;
  if (status[image] == SEGPRIOR_CONVERGED) return;
  const uint8_t *mask = p.has_mask ? p.mask + (p.mask_shared ? 0 : image * p.voxels) : nullptr;
  for (int64_t x = block * kThreads + threadIdx.x; x < p.voxels; x += blocks * kThreads)
    if (!mask || mask[x] != 0) voxels[image * p.voxels + x] = static_cast<T>(NAN);
}

// ---- Backward ---------------------------------------------------------------------------------------------

template <class T>
__device__ void put(void *out, int64_t at, double value, bool accumulate) {
  T &to = static_cast<T *>(out)[at];
  to = static_cast<T>(accumulate ? to + value : value);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(const __grid_constant__ Problem p, const __grid_constant__ State state,
                        const __grid_constant__ Incoming<T> in, Grads grads, T *coefficients) {
  const Numbers<T> numbers(p, state);
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = n / p.classes, i = n % p.classes;
  if (row < p.batch && grads.scores) numbers.coefficients(in, row, i, coefficients + n * kCoefficients, 1);
  if (grads.class_weights && row < p.weight_rows) {
    double sum = 0;
    for (int term = 0; term < kTerms; ++term)
      if (p.weight_rows == 1 || term == row) sum += numbers.weight_gradient(in, term, i);
    put<T>(grads.class_weights, n, sum, grads.accumulate);
  }
  // One row of bounds for all groups: their gradients in order.
  const auto bound = [&](void *out, int64_t rows, const auto &gradient) {
    if (!out || row >= rows) return;
    double sum = 0;
    for (int64_t g = row; g < (rows == 1 ? p.batch : row + 1); ++g) sum += gradient(g);
    put<T>(out, n, sum, grads.accumulate);
  };
  bound(grads.size_lower, p.lower_rows, [&](int64_t g) { return numbers.lower_gradient(in, g, i); });
  bound(grads.size_upper, p.upper_rows, [&](int64_t g) { return numbers.upper_gradient(in, g, i); });
}

// ---- Bounds -----------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads) bounds_kernel(Bounds b) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (n >= b.batch * b.classes) return;
  int64_t least = b.volumes[n], most = least;
  double lower = 0, upper = 0;
  if (least > 0) {
    for (int64_t k = n % b.classes; b.kind == SEGPRIOR_BOUNDS_COMMON && k < b.batch * b.classes;
         k += b.classes) {
      const int64_t volume = b.volumes[k];
      if (volume <= 0) continue;
      least = volume < least ? volume : least;
      most = volume > most ? volume : most;
    }
    const bool tags = b.kind == SEGPRIOR_BOUNDS_TAGS;
    lower = tags ? 1 : b.low * static_cast<double>(least);
    upper = tags ? static_cast<double>(b.voxels) : b.high * static_cast<double>(most);
  }
  static_cast<T *>(b.lower)[n] = static_cast<T>(lower);
  static_cast<T *>(b.upper)[n] = static_cast<T>(upper);
}

dim3 blocks_for(int64_t count) { return dim3(static_cast<unsigned>(ceil_div(count, kThreads))); }

// ---- Calls ------------------------------------------------------------------------------------------------

size_t saved_bytes(const Problem &p) {
  Arena arena;
  State(arena, p);
  return arena.used();
}

size_t workspace_bytes(const Problem &p, Pass pass, int) {
  Arena arena;
  if (pass == Pass::forward) {
    Partials(arena, p, grid_of(p, {}).chunks);
    State(arena, p);
  } else {
    arena.take<double>(p.batch * p.classes, kCoefficients);
  }
  return arena.used();
}

template <class T>
void forward_in(const Problem &p, const Outputs &out, void *workspace, void *saved, cudaStream_t stream) {
  const Grid grid = grid_of(p, {p.scores, p.labels, p.mask, p.labelled, out.voxels});
  Arena arena(workspace);
  const Partials partials(arena, p, grid.chunks);
  Arena kept(saved);
  const State state(saved ? kept : arena, p);
  const Forward pass{p, grid, sums_of(p), partials, state, out.voxels};
  if (p.scores_are == Scores::logits)
    forward_logits(pass, stream);
  else if (p.scores_are == Scores::sigmoid)
    forward_sigmoid(pass, stream);
  else
    forward_probabilities(pass, stream);
  launch("losses_finish", finish_kernel<T>, dim3(static_cast<unsigned>(p.batch)), dim3(kThreads), 0, stream,
         Finish<T>{p, pass.sums, grid.chunks, partials, state, out});
  if (!out.voxels) return;
  const int64_t blocks = ceil_div(p.voxels, 64 * kThreads);  // of an image
  launch("losses_fail", fail_kernel<T>, dim3(static_cast<unsigned>(p.batch * blocks)), dim3(kThreads), 0,
         stream, p, blocks, state.status, static_cast<T *>(out.voxels));
}

template <class T>
void backward_in(const Problem &p, const Cotangents &given, const Grads &grads, void *workspace,
                 const void *saved, cudaStream_t stream) {
  Arena kept(const_cast<void *>(saved));
  const State state(kept, p);
  Arena arena(workspace);
  T *coefficients = arena.take<T>(p.batch * p.classes, kCoefficients);
  const Incoming<T> in{static_cast<const T *>(given.total), static_cast<const T *>(given.terms),
                       static_cast<const T *>(given.items)};
  const int64_t rows = p.batch > p.weight_rows ? p.batch : p.weight_rows;
  launch("losses_coefficients", coefficients_kernel<T>, blocks_for(rows * p.classes), dim3(kThreads), 0,
         stream, p, state, in, grads, coefficients);
  if (!grads.scores) return;
  const Grid grid = grid_of(p, {p.scores, p.labels, p.mask, p.labelled, given.voxels, grads.scores});
  const Backward pass{p, grid, coefficients, state.status, given.voxels, grads.scores, grads.accumulate};
  if (p.scores_are == Scores::logits)
    backward_logits(pass, stream);
  else if (p.scores_are == Scores::sigmoid)
    backward_sigmoid(pass, stream);
  else
    backward_probabilities(pass, stream);
}

void forward(const Problem &p, const Outputs &out, void *workspace, void *saved, int, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  p.storage == Storage::f64 ? forward_in<double>(p, out, workspace, saved, queue)
                            : forward_in<float>(p, out, workspace, saved, queue);
}

void backward(const Problem &p, const Cotangents &in, const Grads &grads, void *workspace, const void *saved,
              int, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  p.storage == Storage::f64 ? backward_in<double>(p, in, grads, workspace, saved, queue)
                            : backward_in<float>(p, in, grads, workspace, saved, queue);
}

void bounds(const Bounds &b, int, void *stream) {
  launch("losses_bounds", b.f64 ? bounds_kernel<double> : bounds_kernel<float>,
         blocks_for(b.batch * b.classes), dim3(kThreads), 0, static_cast<cudaStream_t>(stream), b);
}

}  // namespace

unsigned sums_of(const Problem &p) {
  const bool dice = p.on(SEGPRIOR_LOSS_DICE), sharp = p.on(SEGPRIOR_LOSS_FOCAL_DICE);
  const bool entropy = p.on(SEGPRIOR_LOSS_CROSS_ENTROPY), focal = p.on(SEGPRIOR_LOSS_FOCAL);
  const bool targets = dice || sharp || entropy || focal;
  unsigned sums = 0;
  const auto need = [&](Sum sum, bool needed) { sums |= static_cast<unsigned>(needed) << sum; };
  need(kVolume, p.on(SEGPRIOR_LOSS_SIZE));
  need(kCount, targets);
  need(kTargetSquares, targets && p.target != Target::labels);
  need(kOverlap, dice);
  need(kSquares, dice);
  need(kFocalOverlap, sharp);
  need(kFocalSquares, sharp);
  need(kEntropy, entropy);
  need(kFocalLoss, focal);
  return sums;
}

}  // namespace segprior::losses::cuda

namespace segprior::losses {

const Backend kCuda = {cuda::workspace_bytes, cuda::saved_bytes, cuda::forward, cuda::backward, cuda::bounds};

}  // namespace segprior::losses
