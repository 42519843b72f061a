// Reductions against the documented order, replayed on the host: equal bits for every block shape and thread
// order.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "fakecuda/control.h"
#include "kernels/common/cuda.h"
#include "reduce_kernels.h"

namespace {

using fakecuda::Order;

template <class T>
struct DeviceArray {
  T *data = nullptr;
  size_t count;
  explicit DeviceArray(const std::vector<T> &values) : count(values.size()) {
    segprior::check(cudaMalloc(&data, count * sizeof(T)), "cudaMalloc");
    segprior::check(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> values(count);
    segprior::check(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
};

// The order that reduce.h documents.
template <class T, class F>
T tree(std::vector<T> values, F op) {
  for (size_t step = 16; step > 0; step /= 2)
    for (size_t i = 0; i < step; ++i)
      if (i + step < values.size()) values[i] = op(values[i], values[i + step]);
  return values[0];
}

template <class T, class F>
T reference(const T *values, size_t count, F op) {
  std::vector<T> row;
  for (size_t w = 0; w < count; w += 32) row.push_back(tree(std::vector<T>(values + w, values + w + 32), op));
  return tree(row, op);
}

template <class T>
std::vector<T> some_values(size_t count, unsigned seed) {
  std::vector<T> values(count);
  uint64_t state = seed * 2654435761u + 12345;
  for (T &value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<T>(static_cast<double>(state >> 33) / 4294967296.0 - 0.25);
  }
  return values;
}

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

std::vector<dim3> shapes() {
  if (fakecuda::detects_races()) return {dim3(32), dim3(64), dim3(96), dim3(8, 4), dim3(16, 3, 2), dim3(256)};
  return {dim3(32),       dim3(64),      dim3(96),       dim3(128),    dim3(160),
          dim3(224),      dim3(256),     dim3(480),      dim3(512),    dim3(992),
          dim3(1024),     dim3(8, 4),    dim3(32, 8),    dim3(33, 32), dim3(1, 32),
          dim3(16, 3, 2), dim3(4, 4, 4), dim3(2, 8, 64), dim3(32, 32), dim3(5, 32, 2)};
}

void for_every_order(const std::function<void()> &run) {
  const auto order = [&](Order kind, uint64_t seed) {
    fakecuda::set_order(kind, seed);
    CAPTURE(seed);
    run();
  };
  order(Order::forward, 0);
  order(Order::reverse, 0);
  for (uint64_t seed = 1; seed <= 3; ++seed) order(Order::random, seed);
  fakecuda::set_order(Order::forward);
}

template <class T>
void check_blocks() {
  constexpr unsigned kBlocks = 2;
  for (dim3 shape : shapes()) {
    const size_t threads = size_t{shape.x} * shape.y * shape.z;
    if (threads > 1024) continue;
    CAPTURE(threads);
    const std::vector<T> values = some_values<T>(kBlocks * threads, static_cast<unsigned>(threads));
    const DeviceArray<T> in(values), out(std::vector<T>(4 * kBlocks));
    for_every_order([&] {
      reduce_blocks(kBlocks, shape, in.data, out.data);
      const std::vector<T> result = out.host();
      for (unsigned b = 0; b < kBlocks; ++b) {
        std::vector<T> mine(values.begin() + b * threads, values.begin() + (b + 1) * threads), squares;
        for (T value : mine) squares.push_back(value * value);
        const auto sum = [](T x, T y) { return x + y; };
        const auto max = [](T x, T y) { return x > y ? x : y; };
        CHECK(same_bits(result[4 * b], reference(mine.data(), threads, sum)));
        CHECK(same_bits(result[4 * b + 3], result[4 * b]));
        CHECK(result[4 * b + 1] == reference(mine.data(), threads, max));
        CHECK(same_bits(result[4 * b + 2], reference(squares.data(), threads, sum)));
      }
    });
  }
}

template <class T>
void check_grid() {
  for (unsigned blocks : {1u, 2u, 5u, 13u})
    for (dim3 shape : {dim3(32), dim3(96), dim3(8, 4, 2)}) {
      const size_t threads = size_t{shape.x} * shape.y * shape.z;
      const std::vector<T> values = some_values<T>(blocks * threads, blocks);
      const DeviceArray<T> in(values), partial{std::vector<T>(values.size())}, out{std::vector<T>(1)};
      const DeviceArray<unsigned> counter(std::vector<unsigned>{0});
      std::vector<T> row(threads, T(0));
      for (unsigned b = 0; b < blocks; ++b)
        for (size_t t = 0; t < threads; ++t) row[t] += values[b * threads + (t + 1) % threads];
      const T expected = reference(row.data(), threads, [](T x, T y) { return x + y; });
      for_every_order([&] {
        reduce_grid(blocks, shape, in.data, partial.data, counter.data, out.data);
        CHECK(same_bits(out.host()[0], expected));
        CHECK(counter.host()[0] == 0);
      });
    }
}

}  // namespace

TEST_CASE("block reductions have the documented order") {
  check_blocks<float>();
  check_blocks<double>();
}

TEST_CASE("the last block sees all blocks, and leaves its counter ready") {
  check_grid<float>();
  check_grid<double>();
}

TEST_CASE("NaN survives the maximum from every thread") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr unsigned kThreads = 96;
  for (unsigned where = 0; where < kThreads; ++where) {
    std::vector<float> values(kThreads, 1.0f);
    values[where] = nan;
    values[(where + 1) % kThreads] = 2.0f;
    const DeviceArray<float> in(values), out(std::vector<float>(4));
    reduce_blocks(1, dim3(kThreads), in.data, out.data);
    CHECK(std::isnan(out.host()[1]));
  }
}

TEST_CASE("the maximum of infinities and of negative values") {
  std::vector<float> values(64, -std::numeric_limits<float>::infinity());
  const DeviceArray<float> none(values);
  values[40] = -3;
  const DeviceArray<float> in(values), out(std::vector<float>(4));
  reduce_blocks(1, dim3(64), none.data, out.data);
  CHECK(out.host()[1] == -std::numeric_limits<float>::infinity());
  reduce_blocks(1, dim3(64), in.data, out.data);
  CHECK(out.host()[1] == -3);
}
