#include "group_kernels.h"

#include "kernels/common/reduce.h"

namespace {

using segprior::cluster_barrier;
using segprior::cluster_blocks;
using segprior::cluster_rank;
using segprior::cluster_shared;
using segprior::grid_barrier;

__global__ void grid_sum_kernel(const float *in, float *partial, float *out) {
  const unsigned threads = segprior::block_threads();
  const float sum = segprior::block_sum(in[blockIdx.x * threads + threadIdx.x]);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  grid_barrier();
  if (threadIdx.x > 0) return;
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
  out[blockIdx.x] = total;
}

__global__ void ring_kernel(int steps, float *values, float *other) {
  const unsigned count = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int step = 0; step < steps; ++step) {
    other[i] = 0.5f * (values[(i + count - 1) % count] + values[(i + 1) % count]);
    grid_barrier();
    float *swap = values;
    values = other;
    other = swap;
  }
}

__global__ void halo_kernel(const float *in, float *out) {
  float *tile = segprior::dynamic_shared<float>();
  const unsigned i = threadIdx.x, n = blockDim.x, rank = cluster_rank();
  tile[i] = in[blockIdx.x * n + i];
  cluster_barrier();
  float sum = tile[i];
  if (i > 0)
    sum += tile[i - 1];
  else if (rank > 0)
    sum += cluster_shared(tile, rank - 1)[n - 1];
  if (i + 1 < n)
    sum += tile[i + 1];
  else if (rank + 1 < cluster_blocks())
    sum += cluster_shared(tile, rank + 1)[0];
  out[blockIdx.x * n + i] = sum;
  cluster_barrier();
}

__device__ int *kept_word() {
  SEGPRIOR_SHARED(int, word, 1);
  return word;
}
__device__ double *kept_row() {
  SEGPRIOR_SHARED(double, row, 64);
  return row;
}

__global__ void gather_kernel(size_t dynamic_bytes, int *out) {
  unsigned char *bytes = segprior::dynamic_shared<unsigned char>();
  const unsigned rank = cluster_rank(), blocks = cluster_blocks();
  int *word;
  if (rank % 2) {
    kept_row()[threadIdx.x] = 0;
    word = kept_word();
  } else {
    word = kept_word();
    kept_row()[threadIdx.x] = 0;
  }
  if (threadIdx.x == 0) {
    bytes[0] = static_cast<unsigned char>(rank);
    bytes[dynamic_bytes - 1] = static_cast<unsigned char>(100 + rank);
    *word = static_cast<int>(1000 + blockIdx.x);
  }
  cluster_barrier();
  if (threadIdx.x < blocks) {
    const unsigned peer = threadIdx.x;
    int *mine = out + 3 * (blockIdx.x * blocks + peer);
    mine[0] = cluster_shared(bytes, peer)[0];
    mine[1] = *cluster_shared(bytes + dynamic_bytes - 1, peer);
    mine[2] = *cluster_shared(word, peer);
  }
  cluster_barrier();
}

}  // namespace

void grid_sum(unsigned blocks, unsigned threads, const float *in, float *partial, float *out) {
  segprior::launch_cooperative("grid_sum", grid_sum_kernel, blocks, threads, 0, nullptr, in, partial, out);
}
int grid_sum_blocks(unsigned threads, size_t dynamic_shared_bytes) {
  return segprior::cooperative_blocks(grid_sum_kernel, threads, dynamic_shared_bytes);
}

void ring_steps(unsigned blocks, unsigned threads, int steps, float *values, float *other) {
  segprior::launch_cooperative("ring_steps", ring_kernel, blocks, threads, 0, nullptr, steps, values, other);
}

void cluster_halo(unsigned blocks, unsigned threads, unsigned cluster_blocks, const float *in, float *out) {
  segprior::launch_cluster("cluster_halo", halo_kernel, blocks, threads, cluster_blocks,
                           threads * sizeof(float), nullptr, in, out);
}
bool cluster_halo_fits(unsigned threads, unsigned cluster_blocks, size_t dynamic_shared_bytes) {
  return segprior::clusters_fit(halo_kernel, threads, cluster_blocks, dynamic_shared_bytes);
}

void cluster_gather(unsigned clusters, unsigned threads, unsigned cluster_blocks, size_t dynamic_shared_bytes,
                    int *out) {
  segprior::launch_cluster("cluster_gather", gather_kernel, clusters * cluster_blocks, threads,
                           cluster_blocks, dynamic_shared_bytes, nullptr, dynamic_shared_bytes, out);
}
