// Connected components on CUDA: trees of voxels (metrics_cuda_trees.cu), whose roots, the components' first
// voxels, are then numbered in raster order. Bytes per voxel: counting and numbering 4 + 4, writing 4 + 4.
#include "kernels/common/arena.h"
#include "kernels/metrics/metrics_cuda.h"

namespace segprior::metrics::cuda {
namespace {

constexpr int kScan = 2048;                         // voxels whose roots one block counts
constexpr int kPerWarp = kScan * kWarp / kThreads;  // of those, of one warp
constexpr int kEach = 8;                            // chunks that a thread scans at once
constexpr int kLocalClasses = 256;                  // whose components a block counts in shared memory

struct Workspace {
  // [B, J]. While trees grow: a voxel of the same tree with a smaller index, or itself at a root. Then -n at
  // the roots, n the component's number; while that is written, at more and more other voxels, too.
  int32_t *parent;
  int32_t *roots;  // [B, chunks]: of each kScan voxels; then: of all before them

  Workspace(Arena &arena, const Components &c)
      : parent(arena.take<int32_t>(c.batch, c.voxels())),
        roots(arena.take<int32_t>(c.batch, ceil_div(c.voxels(), kScan))) {}
};

// Bits of the voxels from v on that are roots, one per lane.
__device__ unsigned roots_from(const int32_t *parent, int64_t voxels, int64_t v) {
  const int64_t mine = v + threadIdx.x % kWarp;
  return __ballot_sync(kAllLanes, mine < voxels && parent[mine] == mine);
}

// Every warp of a block counts the roots of its own kPerWarp voxels; returns how many the warps before have,
// and in `all` the block's. Called by whole blocks.
__device__ int roots_before(const int32_t *parent, int64_t voxels, int64_t begin, int &all) {
  constexpr int kWarps = kThreads / kWarp;
  SEGPRIOR_SHARED(int, per_warp, kWarps);
  const int warp = threadIdx.x / kWarp;
  int count = 0, before = 0;
  for (int k = 0; k < kPerWarp; k += kWarp)
    count += __popc(roots_from(parent, voxels, begin + warp * kPerWarp + k));
  __syncthreads();  // the last call's results were read
  if (threadIdx.x % kWarp == 0) per_warp[warp] = count;
  __syncthreads();
  all = 0;
  for (int k = 0; k < kWarps; ++k) {
    before += k < warp ? per_warp[k] : 0;
    all += per_warp[k];
  }
  return before;
}

__global__ void __launch_bounds__(kThreads)
    count_kernel(int64_t voxels, int64_t chunks, int64_t jobs, const int32_t *parents, int32_t *roots) {
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t b = quotient(job, chunks);
    int all = 0;
    roots_before(parents + b * voxels, voxels, (job - b * chunks) * kScan, all);
    if (threadIdx.x == 0) roots[job] = all;
  }
}

// roots[b] becomes its exclusive prefix sum, kThreads * kEach chunks at a time; count [B] its sum.
__global__ void __launch_bounds__(kThreads)
    scan_kernel(int64_t batch, int64_t chunks, int32_t *roots, int64_t *count) {
  constexpr int kWarps = kThreads / kWarp;
  SEGPRIOR_SHARED(int, per_warp, kWarps);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
    int total = 0;
    for (int64_t first = 0; first < chunks; first += kThreads * kEach) {
      const int64_t at = first + static_cast<int64_t>(threadIdx.x) * kEach;
      int each[kEach], mine = 0;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        each[k] = at + k < chunks ? roots[b * chunks + at + k] : 0;
        mine += each[k];
      }
      int sum = mine;
      for (int step = 1; step < static_cast<int>(kWarp); step *= 2) {
        const int lower = __shfl_up_sync(kAllLanes, sum, step);
        if (lane >= step) sum += lower;
      }
      if (lane == kWarp - 1) per_warp[warp] = sum;
      __syncthreads();
      int before = total + sum - mine;
      for (int k = 0; k < kWarps; ++k) {
        before += k < warp ? per_warp[k] : 0;
        total += per_warp[k];
      }
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (at + k < chunks) roots[b * chunks + at + k] = before;
        before += each[k];
      }
      __syncthreads();
    }
    if (count && threadIdx.x == 0) count[b] = total;
  }
}

// Numbers the roots, and counts them by value.
__global__ void __launch_bounds__(kThreads)
    number_kernel(Components c, int64_t chunks, int64_t jobs, int32_t *parents, const int32_t *roots) {
  SEGPRIOR_SHARED(unsigned, local, kLocalClasses);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t voxels = c.voxels();
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t b = quotient(job, chunks), begin = (job - b * chunks) * kScan;
    int32_t *parent = parents + b * voxels;
    if (c.class_count) local[threadIdx.x] = 0;
    int all = 0, number = roots[job] + roots_before(parent, voxels, begin, all);
    for (int k = 0; k < kPerWarp; k += kWarp) {
      const int64_t v = begin + warp * kPerWarp + k;
      const unsigned bits = roots_from(parent, voxels, v);
      if (bits >> lane & 1) {
        parent[v + lane] = -(number + __popc(bits & upto(lane)));
        const int64_t value = c.class_count ? label_at(c.map, c.type, b * voxels + v + lane) : -1;
        if (value >= 0 && value < c.classes) {
          if (value < kLocalClasses)
            atomicAdd(&local[value], 1u);
          else
            add_to(&c.class_count[b * c.classes + value], 1);
        }
      }
      number += __popc(bits);
    }
    if (!c.class_count) continue;
    __syncthreads();
    const unsigned found = local[threadIdx.x];
    if (found > 0) add_to(&c.class_count[b * c.classes + threadIdx.x], found);
    __syncthreads();
  }
}

// A voxel's parent, mostly the root of its tile, may be far below the root of the tree: who has walked up
// leaves the number at the parent, where the tile's other walks then end.
__global__ void __launch_bounds__(kThreads)
    write_kernel(int64_t voxels, int64_t chunks, int64_t jobs, int32_t *parents, int32_t *components) {
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t b = quotient(job, chunks), begin = (job - b * chunks) * kScan;
    const int64_t end = begin + kScan < voxels ? begin + kScan : voxels;
    int32_t *parent = parents + b * voxels;
    for (int64_t v = begin + threadIdx.x; v < end; v += kThreads) {
      const int32_t above = load(parent + v);
      int32_t node = above < 0 ? above : load(parent + above);
      if (node >= 0) {
        while (node >= 0) node = load(parent + node);
        atomicMin(&parent[above], node);
      }
      components[b * voxels + v] = node == kOutside ? 0 : -node;
    }
  }
}

}  // namespace

size_t components_workspace(const Components &c, int) {
  Arena arena;
  const Workspace w(arena, c);
  return arena.used();
}

void components(const Components &c, void *workspace, int, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  clear(c.class_count, c.batch * c.classes, queue);
  const int64_t voxels = c.voxels(), chunks = ceil_div(voxels, kScan), jobs = c.batch * chunks;
  if (jobs == 0) return clear(c.count, c.batch, queue);
  Arena arena(workspace);
  const Workspace w(arena, c);
  grow_trees(c, w.parent, queue);
  const dim3 grid = grid_of(jobs), block(kThreads);
  launch("components_count", count_kernel, grid, block, 0, queue, voxels, chunks, jobs, w.parent, w.roots);
  launch("components_scan", scan_kernel, grid_of(c.batch), block, 0, queue, c.batch, chunks, w.roots,
         c.count);
  if (!c.components && !c.class_count) return;
  launch("components_number", number_kernel, grid, block, 0, queue, c, chunks, jobs, w.parent, w.roots);
  if (c.components)
    launch("components_write", write_kernel, grid, block, 0, queue, voxels, chunks, jobs, w.parent,
           c.components);
}

}  // namespace segprior::metrics::cuda
