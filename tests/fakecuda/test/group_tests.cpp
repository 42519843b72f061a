// Cooperative grids and clusters: right results in every order of the threads, limits and refusals. What the
// checker finds in wrong kernels is tested with the planted bugs.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "fakecuda/control.h"
#include "group_kernels.h"
#include "kernels/common/cuda.h"

namespace {

using fakecuda::Order;

struct Device {
  Device(int major, int minor) { fakecuda::set_compute_capability(major, minor); }
  ~Device() { fakecuda::set_compute_capability(8, 0); }
};

template <class T>
struct DeviceArray {
  T *data = nullptr;
  size_t count;
  explicit DeviceArray(size_t count) : count(count) {
    segprior::check(cudaMalloc(&data, count * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T> &values) : DeviceArray(values.size()) {
    segprior::check(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(count);
    segprior::check(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
};

void in_every_order(const std::function<void()> &check) {
  const std::pair<Order, uint64_t> orders[] = {
      {Order::forward, 0}, {Order::reverse, 0}, {Order::random, 1}, {Order::random, 2}};
  for (const auto &[order, seed] : orders) {
    fakecuda::set_order(order, seed);
    const std::string name = fakecuda::order_text();
    CAPTURE(name);
    check();
  }
  fakecuda::set_order(Order::forward);
}

std::vector<float> small_integers(size_t count) {  // sums of them are exact
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i * 7 % 13) - 4;
  return values;
}

void check_grid_sum(unsigned blocks, unsigned threads) {
  const std::vector<float> values = small_integers(size_t{blocks} * threads);
  float expected = 0;
  for (float value : values) expected += value;
  DeviceArray<float> in(values), partial(blocks), out(blocks);
  grid_sum(blocks, threads, in.data, partial.data, out.data);
  for (float sum : out.host()) CHECK(sum == expected);
}

void check_ring(unsigned blocks, unsigned threads) {
  constexpr int kSteps = 6;
  const size_t count = size_t{blocks} * threads;
  const std::vector<float> start = small_integers(count);
  std::vector<float> expected = start, next(count);
  for (int step = 0; step < kSteps; ++step) {
    for (size_t i = 0; i < count; ++i)
      next[i] = 0.5f * (expected[(i + count - 1) % count] + expected[(i + 1) % count]);
    expected.swap(next);
  }
  DeviceArray<float> values(start), other(count);
  ring_steps(blocks, threads, kSteps, values.data, other.data);
  CHECK(values.host() == expected);
}

void check_halo(unsigned blocks, unsigned threads, unsigned cluster_blocks) {
  CAPTURE(threads);
  CAPTURE(cluster_blocks);
  const std::vector<float> values = small_integers(size_t{blocks} * threads);
  DeviceArray<float> in(values), out(values.size());
  cluster_halo(blocks, threads, cluster_blocks, in.data, out.data);
  const std::vector<float> result = out.host();
  const size_t run = size_t{cluster_blocks} * threads;
  size_t wrong = 0;
  for (size_t i = 0; i < values.size(); ++i)
    wrong +=
        result[i] != values[i] + (i % run > 0 ? values[i - 1] : 0) + (i % run + 1 < run ? values[i + 1] : 0);
  CHECK(wrong == 0);
}

std::string refusal(const std::function<void()> &call) {
  fakecuda::expect_errors(true);
  std::string text;
  try {
    call();
  } catch (const segprior::Error &error) {
    text = error.what();
  }
  fakecuda::expect_errors(false);
  CHECK(cudaGetLastError() == cudaSuccess);
  return text;
}

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a sum over the grid in two phases") {
  in_every_order([] {
    check_grid_sum(1, 64);
    check_grid_sum(2, 96);
    check_grid_sum(5, 32);
  });
}

TEST_CASE("steps on a ring, a grid barrier between them") {
  in_every_order([] {
    check_ring(3, 32);
    check_ring(70, 3);  // more blocks than sets of sync objects
  });
}

TEST_CASE("halo exchange within clusters") {
  Device device(9, 0);
  in_every_order([] {
    check_halo(3, 40, 1);
    check_halo(6, 40, 2);
    check_halo(9, 32, 3);
    check_halo(16, 14, 8);
    check_halo(32, 7, 16);
  });
}

TEST_CASE("a peer's arrays are found whatever the order of their first use") {
  Device device(9, 0);
  constexpr unsigned kClusters = 2, kCluster = 4;
  in_every_order([] {
    DeviceArray<int> out(3 * kClusters * kCluster * kCluster);
    cluster_gather(kClusters, 40, kCluster, 227 * 1024 - 64 * 8 - 4, out.data);
    const std::vector<int> seen = out.host();
    for (unsigned b = 0; b < kClusters * kCluster; ++b)
      for (unsigned peer = 0; peer < kCluster; ++peer) {
        const int *pair = &seen[3 * (b * kCluster + peer)];
        CHECK(pair[0] == static_cast<int>(peer));
        CHECK(pair[1] == static_cast<int>(100 + peer));
        CHECK(pair[2] == static_cast<int>(1000 + b / kCluster * kCluster + peer));
      }
  });
}

TEST_CASE("how many blocks of a cooperative grid fit") {
  CHECK(grid_sum_blocks(256, 0) == 24);
  CHECK(grid_sum_blocks(1024, 0) == 6);
  CHECK(grid_sum_blocks(256, 100 * 1024) == 3);
  CHECK(grid_sum_blocks(256, 163 * 1024) == 3);
  CHECK(grid_sum_blocks(256, 163 * 1024 + 1) == 0);
  fakecuda::set_multiprocessors(5);
  CHECK(grid_sum_blocks(256, 0) == 40);
  fakecuda::set_multiprocessors(3);
  {
    Device newer(9, 0);
    CHECK(grid_sum_blocks(256, 227 * 1024) == 3);
    CHECK(grid_sum_blocks(256, 227 * 1024 + 1) == 0);
  }
  CHECK(grid_sum_blocks(256, 163 * 1024 + 1) == 0);  // the opt-in of the newer device does not stay
  CHECK(cudaGetLastError() == cudaSuccess);

  DeviceArray<float> in(small_integers(25 * 256)), partial(25), out(25);
  CHECK(contains(refusal([&] { grid_sum(25, 256, in.data, partial.data, out.data); }),
                 "grid_sum: cudaErrorCooperativeLaunchTooLarge"));
  if (!fakecuda::detects_races()) check_grid_sum(24, 256);
}

TEST_CASE("which clusters fit") {
  CHECK(!cluster_halo_fits(64, 2, 0));
  CHECK(!cluster_halo_fits(64, 1, 0));
  CHECK(cudaGetLastError() == cudaSuccess);
  DeviceArray<float> in(small_integers(18 * 1024)), out(18 * 1024);
  CHECK(contains(refusal([&] { cluster_halo(2, 64, 2, in.data, out.data); }), "cudaErrorNotSupported"));

  Device device(9, 0);
  for (unsigned blocks : {1u, 2u, 3u, 8u, 16u}) {
    CHECK(cluster_halo_fits(64, blocks, 0));
    CHECK(cluster_halo_fits(1024, blocks, 227 * 1024));
  }
  CHECK(!cluster_halo_fits(64, 0, 0));
  CHECK(!cluster_halo_fits(64, 17, 0));
  CHECK(!cluster_halo_fits(64, 2, 227 * 1024 + 1));
  CHECK(cudaGetLastError() == cudaSuccess);

  CHECK(contains(refusal([&] { cluster_halo(3, 64, 2, in.data, out.data); }), "cudaErrorInvalidClusterSize"));
  CHECK(
      contains(refusal([&] { cluster_halo(17, 64, 17, in.data, out.data); }), "cudaErrorInvalidClusterSize"));
}

TEST_CASE("the largest clusters") {
  Device device(9, 0);
  if (fakecuda::detects_races()) {
    check_halo(16, 32, 16);
    DeviceArray<float> in(16 * 1024), out(16 * 1024);
    CHECK(contains(refusal([&] { cluster_halo(16, 1024, 16, in.data, out.data); }),
                   "too many threads at once: 16 blocks of 1024"));
  } else {
    check_halo(16, 256, 16);
    check_halo(16, 1024, 16);
  }
}
