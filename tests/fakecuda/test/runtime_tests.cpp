// The host API: memory, limits, errors, injected failures and the guard of the compute path.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "fakecuda/control.h"
#include "kernels/common/cuda.h"

namespace {

__global__ void write_index(int *out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(threadIdx.x);
}

__global__ void use_dynamic(float *out, size_t count) {
  float *shared = segprior::dynamic_shared<float>();
  for (size_t i = threadIdx.x; i < count; i += blockDim.x) shared[i] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[count - 1];
}

struct Params {
  int64_t offset;
  double scale[100];
};
__global__ void by_value(Params p, const float *null, double *out, int64_t n) {
  if (!null) out[threadIdx.x] = p.scale[threadIdx.x] + static_cast<double>(p.offset + n);
}

segprior_status status_of(const std::function<void()> &call, const std::string &part) {
  try {
    call();
  } catch (const segprior::Error &error) {
    CAPTURE(error.what());
    CHECK(std::string(error.what()).find(part) != std::string::npos);
    return error.status;
  }
  return SEGPRIOR_OK;
}

void launch_with(dim3 grid, dim3 block, size_t dynamic_bytes = 0, cudaStream_t stream = nullptr) {
  int *out;
  segprior::check(cudaMalloc(&out, 1024 * sizeof(int)), "cudaMalloc");
  struct Free {
    int *p;
    ~Free() { cudaFree(p); }
  } free{out};
  segprior::launch("write_index", write_index, grid, block, dynamic_bytes, stream, out);
}

}  // namespace

TEST_CASE("device memory is poisoned, and told from host memory") {
  float *device;
  REQUIRE(cudaMalloc(&device, 100 * sizeof(float)) == cudaSuccess);
  std::vector<float> host(100);
  REQUIRE(cudaMemcpy(host.data(), device, 400, cudaMemcpyDeviceToHost) == cudaSuccess);
  for (float value : host) CHECK(std::isnan(value));

  cudaPointerAttributes attributes;
  REQUIRE(cudaPointerGetAttributes(&attributes, device + 99) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeDevice);
  CHECK(attributes.device == 0);
  REQUIRE(cudaPointerGetAttributes(&attributes, device + 100) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  REQUIRE(cudaPointerGetAttributes(&attributes, host.data()) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  void *pinned;
  REQUIRE(cudaMallocHost(&pinned, 16) == cudaSuccess);
  REQUIRE(cudaPointerGetAttributes(&attributes, pinned) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeHost);
  CHECK(cudaFree(pinned) == cudaErrorInvalidValue);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);

  CHECK(cudaMemcpy(device, host.data(), 401, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(device, host.data(), 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(host.data(), 0, 400) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaFree(device) == cudaSuccess);
  CHECK(cudaFree(device) == cudaErrorInvalidValue);
  cudaGetLastError();
  CHECK(fakecuda::live_allocations() == 0);
}

TEST_CASE("the limits of a launch") {
  CHECK(status_of([] { launch_with(1, 1025); }, "write_index: cudaErrorInvalidConfiguration") ==
        SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, dim3(32, 33)); }, "InvalidConfiguration") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, dim3(1, 1, 65)); }, "InvalidConfiguration") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, 0); }, "InvalidConfiguration") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(dim3(1, 65536), 32); }, "InvalidConfiguration") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(dim3(1, 1, 65536), 32); }, "InvalidConfiguration") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, 32, 163 * 1024 + 1); }, "InvalidValue") == SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, 32, 163 * 1024); }, "") == SEGPRIOR_OK);
  CHECK(status_of([] { launch_with(1, 1024); }, "") == SEGPRIOR_OK);
  CHECK(cudaGetLastError() == cudaSuccess);

  const uint64_t before = fakecuda::launch_count();
  CHECK(status_of([] { launch_with(dim3(1, 0), 32); }, "") == SEGPRIOR_OK);
  CHECK(fakecuda::launch_count() == before);

  cudaLaunchConfig_t config;
  config.dynamicSmemBytes = 48 * 1024 + 1;  // without opting in
  CHECK(cudaLaunchKernelEx(&config, by_value, Params{}, nullptr, nullptr, 0) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("large dynamic shared memory and large parameters") {
  float *out;
  REQUIRE(cudaMalloc(&out, 64 * sizeof(float)) == cudaSuccess);
  const size_t count = 100 * 1024 / sizeof(float);
  segprior::launch("use_dynamic", use_dynamic, 1, 64, count * sizeof(float), nullptr, out, count);
  CHECK(out[63] == 1);
  cudaFree(out);

  double *doubles;
  REQUIRE(cudaMalloc(&doubles, 100 * sizeof(double)) == cudaSuccess);
  Params p{};
  p.offset = 5;
  for (int i = 0; i < 100; ++i) p.scale[i] = i;
  segprior::launch("by_value", by_value, 1, 100, 0, nullptr, p, nullptr, doubles, 7);
  for (int i = 0; i < 100; ++i) CHECK(doubles[i] == i + 12);
  cudaFree(doubles);
}

TEST_CASE("the compute path's guard") {
  cudaStream_t mine, foreign;
  REQUIRE(cudaStreamCreate(&mine) == cudaSuccess);
  REQUIRE(cudaStreamCreateWithFlags(&foreign, cudaStreamNonBlocking) == cudaSuccess);
  int *device, host = 0;
  REQUIRE(cudaMalloc(&device, 64 * sizeof(int)) == cudaSuccess);
  const auto violations = [&](const std::function<void()> &call) {
    fakecuda::Forbid guard(mine);
    call();
    return guard.violations().size();
  };
  cudaStreamCaptureStatus capture;
  CHECK(violations([&] { segprior::launch("write_index", write_index, 1, 64, 0, mine, device); }) == 0);
  CHECK(violations([&] { cudaMemsetAsync(device, 0, 64, mine); }) == 0);
  CHECK(violations([&] { cudaMemcpyAsync(device, device + 32, 64, cudaMemcpyDeviceToDevice, mine); }) == 0);
  CHECK(violations([&] { cudaStreamIsCapturing(mine, &capture); }) == 0);
  CHECK(violations([&] { segprior::launch("write_index", write_index, 1, 64, 0, nullptr, device); }) == 1);
  CHECK(violations([&] { segprior::launch("write_index", write_index, 1, 64, 0, foreign, device); }) == 1);
  CHECK(violations([&] { cudaMemset(device, 0, 64); }) == 1);
  CHECK(violations([&] { cudaMemcpy(&host, device, 4, cudaMemcpyDeviceToHost); }) == 1);
  CHECK(violations([&] { cudaMemcpyAsync(&host, device, 4, cudaMemcpyDeviceToHost, mine); }) == 1);
  CHECK(violations([&] { cudaStreamSynchronize(mine); }) == 1);
  CHECK(violations([&] { cudaDeviceSynchronize(); }) == 1);
  void *more = nullptr;
  CHECK(violations([&] { cudaMalloc(&more, 4); }) == 1);
  CHECK(violations([&] { cudaFree(more); }) == 1);
  CHECK(cudaMalloc(&more, 4) == cudaSuccess);  // the guard is gone
  cudaFree(more);
  cudaFree(device);
  CHECK(cudaStreamDestroy(foreign) == cudaSuccess);
  CHECK(cudaStreamDestroy(mine) == cudaSuccess);
  CHECK(cudaStreamSynchronize(mine) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  CHECK(fakecuda::live_streams() == 0);
}

TEST_CASE("failures on demand") {
  void *memory;
  fakecuda::fail_allocation(2);
  CHECK(cudaMalloc(&memory, 8) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(status_of([&] { segprior::check(cudaMalloc(&memory, 8), "workspace"); },
                  "workspace: cudaErrorMemoryAllocation") == SEGPRIOR_ERROR_OUT_OF_MEMORY);
  CHECK(memory == nullptr);
  CHECK(cudaGetLastError() == cudaSuccess);

  fakecuda::fail_launch(1);
  CHECK(status_of([] { launch_with(1, 32); }, "write_index: cudaErrorLaunchOutOfResources") ==
        SEGPRIOR_ERROR_CUDA);
  CHECK(status_of([] { launch_with(1, 32); }, "") == SEGPRIOR_OK);

  fakecuda::set_sticky_error(cudaErrorIllegalAddress);
  CHECK(status_of([] { launch_with(1, 32); }, "cudaErrorIllegalAddress") == SEGPRIOR_ERROR_CUDA);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  fakecuda::set_sticky_error(cudaSuccess);
  CHECK(status_of([] { launch_with(1, 32); }, "") == SEGPRIOR_OK);

  fakecuda::set_device_count(0);
  int count = 5;
  CHECK(status_of([&] { segprior::check(cudaGetDeviceCount(&count), "devices"); }, "cudaErrorNoDevice") ==
        SEGPRIOR_ERROR_NO_DEVICE);
  CHECK(count == 0);
  fakecuda::set_device_count(1);
  cudaGetLastError();
  CHECK(fakecuda::live_allocations() == 0);
}

TEST_CASE("the device describes itself consistently") {
  int value, blocks;
  cudaDeviceProp properties;
  REQUIRE(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  REQUIRE(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess);
  CHECK(value == properties.multiProcessorCount);
  REQUIRE(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
  CHECK(value == 163 * 1024);
  REQUIRE(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, write_index, 256, 0) == cudaSuccess);
  CHECK(blocks == 8);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
  CHECK(cudaGetDeviceProperties(&properties, 1) == cudaErrorInvalidDevice);
  cudaGetLastError();
}

TEST_CASE("several host threads launch at once") {
  std::vector<std::thread> threads;
  std::vector<int> good(4);
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([k, &good] {
      int *out;
      if (cudaMalloc(&out, 128 * sizeof(int)) != cudaSuccess) return;
      for (int round = 0; round < 5; ++round)
        segprior::launch("write_index", write_index, 2, 64, 0, nullptr, out);
      good[k] = out[127] == 63 && out[64] == 0;
      cudaFree(out);
    });
  for (std::thread &thread : threads) thread.join();
  for (int ok : good) CHECK(ok);
}
