// Warp operations, votes, atomics and shared memory against their definitions in the CUDA programming guide.
#include <doctest/doctest.h>

#include <vector>

#include "fakecuda/control.h"
#include "kernels/common/cuda.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;

// Runs `kernel(out)` on one block and brings out[0 .. count) back.
std::vector<int> run(void (*kernel)(int *), unsigned threads, size_t count, unsigned blocks = 1,
                     size_t dynamic_bytes = 0) {
  int *out;
  segprior::check(cudaMalloc(&out, count * sizeof(int)), "cudaMalloc");
  segprior::check(cudaMemset(out, 0, count * sizeof(int)), "cudaMemset");
  segprior::launch("test", kernel, blocks, threads, dynamic_bytes, nullptr, out);
  std::vector<int> host(count);
  segprior::check(cudaMemcpy(host.data(), out, count * sizeof(int), cudaMemcpyDeviceToHost), "cudaMemcpy");
  cudaFree(out);
  return host;
}

void in_every_order(void (*check)()) {
  fakecuda::set_order(fakecuda::Order::forward);
  check();
  fakecuda::set_order(fakecuda::Order::reverse);
  check();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    fakecuda::set_order(fakecuda::Order::random, seed);
    check();
  }
  fakecuda::set_order(fakecuda::Order::forward);
}

__global__ void shuffles(int *out) {
  const int lane = static_cast<int>(threadIdx.x), value = 100 + lane;
  int *mine = out + 8 * lane;
  mine[0] = __shfl_sync(kFull, value, 7);
  mine[1] = __shfl_sync(kFull, value, lane + 5);  // wraps around
  mine[2] = __shfl_up_sync(kFull, value, 3);
  mine[3] = __shfl_down_sync(kFull, value, 3);
  mine[4] = __shfl_xor_sync(kFull, value, 9);
  mine[5] = __shfl_down_sync(kFull, value, 3, 8);
  mine[6] = __shfl_up_sync(kFull, value, 3, 8);
  mine[7] = __shfl_sync(kFull, value, 2, 8);
}

__global__ void votes(int *out) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  out[8 * t] = static_cast<int>(__ballot_sync(kFull, lane % 3 == 0));
  out[8 * t + 1] = __any_sync(kFull, lane == 31);
  out[8 * t + 2] = __all_sync(kFull, lane < 31);
  out[8 * t + 3] = __syncthreads_count(t % 5 == 0);
  out[8 * t + 4] = __syncthreads_or(t == 40);
  out[8 * t + 5] = __syncthreads_and(t != 40);
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  out[8 * t + 6] = static_cast<int>(__ballot_sync(half, lane % 2));
  out[8 * t + 7] = __all_sync(half, lane < 16);
}

__global__ void atomics(int *out) {
  const int t = static_cast<int>(threadIdx.x);
  atomicAdd(&out[0], t);
  atomicMax(&out[1], t);
  atomicMin(&out[2], -t);
  atomicInc(reinterpret_cast<unsigned *>(&out[3]), 9);
  for (int old = 0, seen;; old = seen) {
    seen = atomicCAS(&out[4], old, old + 2);
    if (seen == old) break;
  }
  atomicAdd(reinterpret_cast<float *>(&out[5]), 0.5f);
  if (atomicExch(&out[6], 1) == 0) atomicAdd(&out[7], 1);
}

__global__ void exchange_in_warp(int *out) {
  SEGPRIOR_SHARED(int, tile, 64);
  const unsigned t = threadIdx.x;
  int sum = 0;
  for (int round = 1; round <= 3; ++round) {
    tile[t] = round * static_cast<int>(t);
    __syncwarp();
    sum += tile[t ^ 5];
    __syncwarp();
  }
  out[t] = sum;
}

template <class T, int N>
__device__ int tile_value(int value) {
  SEGPRIOR_SHARED(T, tile, N);
  if (threadIdx.x < N) tile[threadIdx.x] = static_cast<T>(value);
  __syncthreads();
  const int sum = static_cast<int>(tile[0]) + static_cast<int>(tile[N - 1]);
  __syncthreads();
  return sum;
}

__global__ void shared_arrays(int *out) {
  int *dynamic = segprior::dynamic_shared<int>();
  dynamic[threadIdx.x] = static_cast<int>(threadIdx.x);
  const int value = static_cast<int>(threadIdx.x + blockIdx.x);
  const int a = tile_value<int, 8>(value), b = tile_value<double, 8>(value), c = tile_value<int, 5>(value);
  if (threadIdx.x == 0) out[blockIdx.x] = 10000 * a + 100 * b + c + 1000000 * dynamic[31];
}

__global__ void indices(int *out) {
  const unsigned rank = segprior::thread_rank(), per_block = segprior::block_threads();
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * per_block + rank] =
      static_cast<int>(10000 * block + 100 * threadIdx.z + 10 * threadIdx.y + threadIdx.x);
}

}  // namespace

TEST_CASE("shuffles") {
  in_every_order([] {
    const std::vector<int> r = run(shuffles, 32, 8 * 32);
    for (int lane = 0; lane < 32; ++lane) {
      CAPTURE(lane);
      CHECK(r[8 * lane] == 107);
      CHECK(r[8 * lane + 1] == 100 + (lane + 5) % 32);
      CHECK(r[8 * lane + 2] == 100 + (lane < 3 ? lane : lane - 3));
      CHECK(r[8 * lane + 3] == 100 + (lane + 3 > 31 ? lane : lane + 3));
      CHECK(r[8 * lane + 4] == 100 + (lane ^ 9));
      CHECK(r[8 * lane + 5] == 100 + (lane % 8 + 3 > 7 ? lane : lane + 3));
      CHECK(r[8 * lane + 6] == 100 + (lane % 8 < 3 ? lane : lane - 3));
      CHECK(r[8 * lane + 7] == 100 + lane / 8 * 8 + 2);
    }
  });
}

TEST_CASE("votes") {
  in_every_order([] {
    const std::vector<int> r = run(votes, 64, 8 * 64);
    for (int t = 0; t < 64; ++t) {
      CAPTURE(t);
      CHECK(static_cast<unsigned>(r[8 * t]) == 0x49249249u);
      CHECK(r[8 * t + 1] == 1);
      CHECK(r[8 * t + 2] == 0);
      CHECK(r[8 * t + 3] == 13);
      CHECK(r[8 * t + 4] == 1);
      CHECK(r[8 * t + 5] == 0);
      CHECK(static_cast<unsigned>(r[8 * t + 6]) == (t % 32 < 16 ? 0x0000aaaau : 0xaaaa0000u));
      CHECK(r[8 * t + 7] == (t % 32 < 16 ? 1 : 0));
    }
  });
}

TEST_CASE("atomics") {
  in_every_order([] {
    const std::vector<int> r = run(atomics, 96, 8);
    CHECK(r[0] == 95 * 96 / 2);
    CHECK(r[1] == 95);
    CHECK(r[2] == -95);
    CHECK(r[3] == 96 % 10);
    CHECK(r[4] == 2 * 96);
    CHECK(__int_as_float(r[5]) == 48);
    CHECK(r[7] == 1);
  });
}

TEST_CASE("a warp exchanges through shared memory") {
  in_every_order([] {
    const std::vector<int> r = run(exchange_in_warp, 64, 64);
    for (int t = 0; t < 64; ++t) CHECK(r[t] == 6 * (t ^ 5));
  });
}

TEST_CASE("one shared array per instantiation, the same for all threads of a block, fresh for every block") {
  in_every_order([] {
    const std::vector<int> r = run(shared_arrays, 32, 3, 3, 32 * sizeof(int));
    for (int b = 0; b < 3; ++b) CHECK(r[b] == 31000000 + 10000 * (7 + 2 * b) + 100 * (7 + 2 * b) + 4 + 2 * b);
  });
}

TEST_CASE("indices of blocks and threads") {
  int *out;
  segprior::check(cudaMalloc(&out, 12 * 24 * sizeof(int)), "cudaMalloc");
  segprior::launch("indices", indices, dim3(2, 3, 2), dim3(4, 3, 2), 0, nullptr, out);
  for (int block = 0; block < 12; ++block)
    for (int t = 0; t < 24; ++t)
      CHECK(out[24 * block + t] == 10000 * block + 100 * (t / 12) + 10 * (t / 4 % 3) + t % 4);
  cudaFree(out);
}
