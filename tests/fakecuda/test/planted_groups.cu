// Planted bugs of blocks that meet: cooperative grids and clusters. `Bug` as in planted.cu.
#include <cstdint>

#include "fakecuda/control.h"
#include "kernels/common/reduce.h"
#include "planted.h"

namespace {

using segprior::cluster_barrier;
using segprior::cluster_rank;
using segprior::cluster_shared;
using segprior::grid_barrier;

constexpr unsigned kThreads = 32, kBlocks = 4, kCluster = 2;

// Every block adds up what all have written.
template <bool Bug>
__global__ void missing_grid_barrier(const float *in, float *out) {
  const float sum = segprior::block_sum(in[threadIdx.x] * static_cast<float>(blockIdx.x + 1));
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
  if (!Bug) grid_barrier();
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += out[b];
  out[gridDim.x + blockIdx.x * kThreads + threadIdx.x] = total;
}

// The next round overwrites what slow blocks still read.
template <bool Bug>
__global__ void missing_grid_barrier_before_reuse(const float *in, float *out) {
  float sum = in[threadIdx.x];
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
    grid_barrier();
    sum += out[(blockIdx.x + 1) % gridDim.x];
    if (!Bug) grid_barrier();
  }
  out[gridDim.x + blockIdx.x * kThreads + threadIdx.x] = sum;
}

template <bool Bug>
__global__ void block_skips_grid_barrier(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
  if (!Bug || blockIdx.x != 2) grid_barrier();
}

template <bool Bug>
__global__ void thread_skips_grid_barrier(const float *in, float *out) {
  if (Bug && blockIdx.x == 1 && threadIdx.x == 5) return;
  grid_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
}

template <bool Bug>
__global__ void grid_barrier_against_block_barrier(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
  if (!Bug || threadIdx.x != 7) grid_barrier();
  __syncthreads();
}

template <bool Bug>
__global__ void divergent_grid_barrier(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
  if (!Bug || blockIdx.x == 0)
    grid_barrier();
  else
    grid_barrier();
}

// A barrier of the own block does not wait for the peer that writes.
template <bool Bug>
__global__ void missing_cluster_barrier(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  cluster_barrier();
  tile[threadIdx.x] = in[threadIdx.x];
  if (Bug)
    __syncthreads();
  else
    cluster_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = cluster_shared(tile, cluster_rank() ^ 1)[threadIdx.x];
  cluster_barrier();
}

// The peer's block may not run yet when its shared memory is written to.
template <bool Bug>
__global__ void peer_has_not_started(const float *in, float *out) {
  float *tile = segprior::dynamic_shared<float>();
  if (!Bug) cluster_barrier();
  cluster_shared(tile, cluster_rank() ^ 1)[threadIdx.x] = in[threadIdx.x];
  cluster_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = tile[threadIdx.x];
}

// A block that has ended takes its shared memory with it.
template <bool Bug>
__global__ void peer_has_ended(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  cluster_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = cluster_shared(tile, cluster_rank() ^ 1)[threadIdx.x];
  if (!Bug) cluster_barrier();
}

template <bool Bug>
__global__ void off_by_one_in_peer(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  cluster_barrier();
  cluster_shared(tile, cluster_rank() ^ 1)[threadIdx.x + (Bug ? 1 : 0)] = in[threadIdx.x];
  cluster_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = threadIdx.x > 0 ? tile[threadIdx.x] : 0;
}

template <bool Bug>
__global__ void block_skips_cluster_barrier(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
  if (!Bug || cluster_rank() == 0) cluster_barrier();
}

template <bool Bug>
__global__ void rank_outside_the_cluster(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  cluster_barrier();
  const unsigned peer = Bug ? cluster_rank() + 1 : cluster_rank() ^ 1;
  out[blockIdx.x * kThreads + threadIdx.x] = cluster_shared(tile, peer)[threadIdx.x];
  cluster_barrier();
}

template <bool Bug>
__global__ void mapped_address_is_not_shared(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  cluster_barrier();
  out[blockIdx.x * kThreads + threadIdx.x] = *cluster_shared(Bug ? in : tile + threadIdx.x, 0);
  cluster_barrier();
}

enum class Kind { plain, cooperative, cluster };

template <void (*Kernel)(const float *, float *), Kind kind, int capability>
float run() {
  struct Device {
    Device() { fakecuda::set_compute_capability(capability / 10, capability % 10); }
    ~Device() { fakecuda::set_compute_capability(8, 0); }
  } device;
  struct Array {
    float *data = nullptr;
    explicit Array(size_t count) { segprior::check(cudaMalloc(&data, count * sizeof(float)), "array"); }
    ~Array() { cudaFree(data); }
  };
  constexpr size_t kOut = kBlocks + kBlocks * kThreads;
  Array in(kThreads), out(kOut);
  float host[kOut] = {};
  segprior::check(cudaMemset(out.data, 0, sizeof host), "fill");
  for (unsigned i = 0; i < kThreads; ++i) host[i] = 0.25f * static_cast<float>(i) + 1;
  segprior::check(cudaMemcpy(in.data, host, kThreads * sizeof(float), cudaMemcpyHostToDevice), "copy");
  constexpr size_t kDynamic = kThreads * sizeof(float);
  if (kind == Kind::plain)
    segprior::launch("planted", Kernel, kBlocks, kThreads, kDynamic, nullptr, in.data, out.data);
  else if (kind == Kind::cooperative)
    segprior::launch_cooperative("planted", Kernel, kBlocks, kThreads, kDynamic, nullptr, in.data, out.data);
  else
    segprior::launch_cluster("planted", Kernel, kBlocks, kThreads, kCluster, kDynamic, nullptr, in.data,
                             out.data);
  segprior::check(cudaMemcpy(host, out.data, sizeof host, cudaMemcpyDeviceToHost), "copy");
  float total = 0;
  for (float value : host) total += value;
  return total;
}

}  // namespace

#define GRID(kernel, caught, text)                                                              \
  {                                                                                             \
#kernel, caught, text, run < kernel < true>, Kind::cooperative, 80>, run < kernel < false>, \
        Kind::cooperative, 80>                                                                  \
  }
#define CLUSTER(kernel, caught, text)                                                                      \
  {                                                                                                        \
#kernel, caught, text, run < kernel < true>, Kind::cluster, 90>, run < kernel < false>, Kind::cluster, \
        90>                                                                                                \
  }

std::vector<Planted> planted_group_bugs() {
  return {
      GRID(missing_grid_barrier, Caught::race, ""),
      GRID(missing_grid_barrier_before_reuse, Caught::race, ""),
      GRID(block_skips_grid_barrier, Caught::breach, "96 of 128 threads wait in grid barrier"),
      GRID(thread_skips_grid_barrier, Caught::breach, "thread (5, 0, 0) of block (1, 0, 0) has exited"),
      GRID(grid_barrier_against_block_barrier, Caught::breach, "divergent barrier: thread"),
      GRID(divergent_grid_barrier, Caught::breach, "divergent barrier: thread"),
      {"grid_barrier_without_cooperative_launch", Caught::breach, "the launch is not cooperative",
       run<missing_grid_barrier<false>, Kind::plain, 80>,
       run<missing_grid_barrier<false>, Kind::cooperative, 80>},
      CLUSTER(missing_cluster_barrier, Caught::race, ""),
      CLUSTER(peer_has_not_started, Caught::race, ""),
      CLUSTER(peer_has_not_started, Caught::address, ""),
      CLUSTER(peer_has_ended, Caught::race, ""),
      CLUSTER(peer_has_ended, Caught::address, ""),
      CLUSTER(off_by_one_in_peer, Caught::address, "wrote outside of tile"),
      CLUSTER(block_skips_cluster_barrier, Caught::breach, "32 of 64 threads wait in cluster barrier"),
      CLUSTER(rank_outside_the_cluster, Caught::breach, "asks for block 2 of a cluster of 2"),
      CLUSTER(mapped_address_is_not_shared, Caught::breach, "not in its own shared memory"),
      {"cluster_barrier_before_sm_90", Caught::breach, "only sm_90",
       run<missing_cluster_barrier<false>, Kind::plain, 80>,
       run<missing_cluster_barrier<false>, Kind::cluster, 90>},
  };
}
