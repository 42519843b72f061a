// Every kernel is a template over `Bug`: with false it is right and must pass every check, so that what the
// checker catches is the bug and nothing else.
#include "planted.h"

#include "kernels/common/reduce.h"

namespace {

using segprior::launch;
using segprior::thread_rank;

constexpr unsigned kThreads = 64, kBlocks = 3;

template <bool Bug>
__global__ void missing_barrier(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!Bug) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

// The second round overwrites what slow threads still read.
template <bool Bug>
__global__ void missing_barrier_before_reuse(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = in[threadIdx.x] * static_cast<float>(round + 1);
    __syncthreads();
    sum += tile[kThreads - 1 - threadIdx.x];
    if (!Bug) __syncthreads();
  }
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// A shuffle hands over values but orders no memory.
template <bool Bug>
__global__ void missing_warp_barrier(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  tile[threadIdx.x] = in[threadIdx.x];
  if (Bug)
    __shfl_sync(0xffffffffu, 0, 0);
  else
    __syncwarp();
  out[blockIdx.x * kThreads + threadIdx.x] = tile[threadIdx.x ^ 1];
}

template <bool Bug>
__global__ void global_race_between_blocks(const float *in, float *out) {
  const unsigned i = threadIdx.x;
  if (Bug)
    out[i] = in[i] + static_cast<float>(blockIdx.x);
  else
    out[blockIdx.x * kThreads + i] = in[i];
}

// Block b reads what block b - 1 wrote, past barriers that order nothing between blocks.
template <bool Bug>
__global__ void global_read_of_other_block(const float *in, float *out) {
  float *mine = out + blockIdx.x * kThreads, *other = Bug && blockIdx.x > 0 ? mine - kThreads : mine;
  mine[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  if (other[threadIdx.x] < 0) mine[0] = 1;
}

template <bool Bug>
__global__ void off_by_one_shared(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  SEGPRIOR_SHARED(float, other, kThreads);
  other[threadIdx.x] = 0;
  float *mine = tile + threadIdx.x + (Bug ? 1 : 0);
  *mine = in[threadIdx.x];
  out[blockIdx.x * kThreads + threadIdx.x] = *mine;
}

template <bool Bug>
__global__ void off_by_one_dynamic(const float *in, float *out) {
  float *tile = segprior::dynamic_shared<float>() - (Bug ? 1 : 0);
  tile[threadIdx.x] = in[threadIdx.x];
  out[blockIdx.x * kThreads + threadIdx.x] = tile[threadIdx.x];
}

template <bool Bug>
__global__ void off_by_one_global(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x + (Bug ? 1 : 0)];
}

template <bool Bug>
__global__ void divergent_barrier(const float *in, float *out) {
  if (!Bug || threadIdx.x < 40)
    __syncthreads();
  else
    __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
}

template <bool Bug>
__global__ void exited_before_barrier(const float *in, float *out) {
  if (Bug && threadIdx.x == 5) return;
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = in[threadIdx.x];
}

template <bool Bug>
__global__ void exited_before_shuffle(const float *in, float *out) {
  if (Bug && threadIdx.x >= kThreads - 3) return;
  out[blockIdx.x * kThreads + threadIdx.x] = __shfl_down_sync(0xffffffffu, in[threadIdx.x], 1);
}

template <bool Bug>
__global__ void barrier_against_shuffle(const float *in, float *out) {
  float value = in[threadIdx.x];
  if (threadIdx.x < 32 && (!Bug || threadIdx.x < 16)) value = __shfl_xor_sync(0xffffffffu, value, 1);
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = value;
}

template <bool Bug>
__global__ void mask_without_caller(const float *in, float *out) {
  out[blockIdx.x * kThreads + threadIdx.x] = __shfl_sync(Bug ? 0x7fffffffu : 0xffffffffu, in[threadIdx.x], 0);
}

template <bool Bug>
__global__ void different_masks(const float *in, float *out) {
  const unsigned mask = Bug && threadIdx.x % 32 < 8 ? 0x0000ffffu : 0xffffffffu;
  out[blockIdx.x * kThreads + threadIdx.x] = __shfl_sync(mask, in[threadIdx.x], 0);
}

template <bool Bug>
__global__ void shuffle_from_outside_the_mask(const float *in, float *out) {
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  const int from = Bug ? 0 : static_cast<int>(threadIdx.x % 32 / 16 * 16);
  out[blockIdx.x * kThreads + threadIdx.x] = __shfl_sync(half, in[threadIdx.x], from);
}

template <bool Bug>
__global__ void unwritten_shared(const float *in, float *out) {
  SEGPRIOR_SHARED(float, tile, kThreads);
  if (!Bug || threadIdx.x > 0) tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

template <bool Bug>
__global__ void order_dependent_sum(const float *in, float *out) {
  float *sum = out + blockIdx.x;
  const float value = in[threadIdx.x] * (threadIdx.x % 7 == 0 ? 1e7f : 1.1f);
  if (Bug) {
    if (threadIdx.x == 0) *sum = 0;
    __syncthreads();
    atomicAdd(sum, value);
  } else {
    const float total = segprior::block_sum(value);
    if (threadIdx.x == 0) *sum = total;
  }
}

// The last block adds up what all wrote. `Release` and `Acquire`: whether the two fences are there.
template <bool Release, bool Acquire>
__global__ void last_block_sum(const float *in, float *partial, unsigned *counter, float *out) {
  SEGPRIOR_SHARED(unsigned, is_last, 1);
  const float sum = segprior::block_sum(in[threadIdx.x]);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    if (Release) __threadfence();
    is_last[0] = atomicAdd(counter, 1u) == gridDim.x - 1;
    if (Acquire) __threadfence();
  }
  __syncthreads();
  if (is_last[0] && threadIdx.x < gridDim.x) out[threadIdx.x] = partial[threadIdx.x];
}

struct Buffers {
  float *in, *out, *partial;
  unsigned *counter;
  Buffers() {
    float host[kThreads];
    for (unsigned i = 0; i < kThreads; ++i) host[i] = 0.25f * static_cast<float>(i) + 1;
    segprior::check(cudaMalloc(&in, sizeof host), "in");
    segprior::check(cudaMalloc(&out, kBlocks * sizeof host), "out");
    segprior::check(cudaMalloc(&partial, kBlocks * sizeof(float)), "partial");
    segprior::check(cudaMalloc(&counter, sizeof(unsigned)), "counter");
    segprior::check(cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice), "copy");
    segprior::check(cudaMemset(out, 0, kBlocks * sizeof host), "fill");
    segprior::check(cudaMemset(counter, 0, sizeof(unsigned)), "fill");
  }
  ~Buffers() {
    cudaFree(in);
    cudaFree(out);
    cudaFree(partial);
    cudaFree(counter);
  }
  float sum() const {
    float host[kBlocks * kThreads], total = 0;
    segprior::check(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost), "copy");
    for (float value : host) total += value;
    return total;
  }
};

template <void (*Kernel)(const float *, float *)>
float run() {
  Buffers b;
  launch("planted", Kernel, kBlocks, kThreads, kThreads * sizeof(float), nullptr, b.in, b.out);
  return b.sum();
}

template <bool Release, bool Acquire>
float run_last_block() {
  Buffers b;
  launch("planted", last_block_sum<Release, Acquire>, kBlocks, kThreads, 0, nullptr, b.in, b.partial,
         b.counter, b.out);
  return b.sum();
}

}  // namespace

#define PLANTED(kernel, caught, text) \
  { #kernel, caught, text, run < kernel < true>>, run < kernel < false>> }

const std::vector<Planted> &planted_bugs() {
  static const std::vector<Planted> bugs = [] {
    std::vector<Planted> all = {
        PLANTED(missing_barrier, Caught::race, ""),
        PLANTED(missing_barrier_before_reuse, Caught::race, ""),
        PLANTED(missing_warp_barrier, Caught::race, ""),
        PLANTED(global_race_between_blocks, Caught::race, ""),
        PLANTED(global_read_of_other_block, Caught::race, ""),
        {"last_block_without_fences", Caught::race, "", run_last_block<false, false>,
         run_last_block<true, true>},
        {"last_block_without_release", Caught::race, "", run_last_block<false, true>,
         run_last_block<true, true>},
        {"last_block_without_acquire", Caught::race, "", run_last_block<true, false>,
         run_last_block<true, true>},
        PLANTED(off_by_one_shared, Caught::address, "wrote outside of tile"),
        PLANTED(off_by_one_dynamic, Caught::address, "wrote outside of dynamic shared memory"),
        PLANTED(off_by_one_global, Caught::address, ""),
        PLANTED(divergent_barrier, Caught::breach, "divergent barrier: thread"),
        PLANTED(exited_before_barrier, Caught::breach, "thread (5, 0, 0) has exited"),
        PLANTED(exited_before_shuffle, Caught::breach, "which has exited"),
        PLANTED(barrier_against_shuffle, Caught::breach, "divergent warp: thread"),
        PLANTED(mask_without_caller, Caught::breach, "not named in its own mask 7fffffff"),
        PLANTED(different_masks, Caught::breach, "with mask 0000ffff"),
        PLANTED(shuffle_from_outside_the_mask, Caught::breach, "reads lane 0"),
        PLANTED(unwritten_shared, Caught::not_a_number, ""),
        PLANTED(order_dependent_sum, Caught::bits, ""),
    };
    const std::vector<Planted> groups = planted_group_bugs();
    all.insert(all.end(), groups.begin(), groups.end());
    return all;
  }();
  return bugs;
}
