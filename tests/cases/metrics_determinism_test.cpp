// The calls of metrics.h: the same results for every thread count, whatever the buffers held before; nothing
// outside of the outputs is written, nothing is allocated. The cases for the race checker.
#include <doctest/doctest.h>

#include "tests/support/alloc_count.h"
#include "tests/support/metrics_call.h"
#include "tests/support/random.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr int64_t kClasses = 5;

Map sample(const Ints &spatial, int64_t batch, uint64_t seed, double density = 0.65) {
  Map map{batch, spatial, {}};
  Random random(seed);
  for (int64_t k = 0; k < batch * map.voxels(); ++k) {
    const bool inside = random.uniform(0, 1) < density;
    map.values.push_back(inside ? 1 + static_cast<int64_t>(random.bits() % 2) : 0);
    map.mask.push_back(random.bits() % 10 != 0);
  }
  return map;
}

// Everything that the calls write, by way of every kind of call.
std::vector<Ints> run(MetricsCall &call, const Map &map) {
  std::vector<Ints> all = call.geometry(map, kClasses);
  const auto counts = call.confusion(map, sample(map.spatial, map.batch, 99).values, {}, kClasses, 255);
  all.insert(all.end(), {counts.matrix, counts.invalid});
  for (bool full : {false, true})
    for (bool by_value : {false, true}) {
      const auto c = call.components(map, components_opts(full, by_value), kClasses);
      all.insert(all.end(), {c.components, c.count, c.class_count});
    }
  return all;
}

void check_buffers(const std::vector<Ints> &shapes) {
  for (segprior_device which : all_devices()) {
    Device device(which, 2);
    for (const Ints &spatial : shapes) {
      const Map map = sample(spatial, 2, 1);
      MetricsCall plain(device);
      const std::vector<Ints> first = run(plain, map);
      for (unsigned char poison : {0x00, 0x3c}) {
        MetricsSettings settings;
        settings.canaries = true;
        settings.poison = poison;
        MetricsCall call(device, settings);
        const bool same = run(call, map) == first;
        CHECK_MESSAGE(same, "other results on buffers that hold ", static_cast<int>(poison));
        CHECK(call.violations().empty());
      }
    }
  }
}

}  // namespace

TEST_CASE("metrics: results do not depend on what buffers held, tiny [small]") {
  check_buffers({{70}, {5, 33}, {3, 4, 9}});
}
TEST_CASE("metrics: results do not depend on what buffers held") {
  check_buffers({{1031}, {1, 65}, {65, 1}, {63, 65}, {9, 11, 67}});
}

TEST_CASE("metrics: the same results for every number of CPU threads") {
  for (const Ints &spatial : {Ints{1}, Ints{70001}, Ints{2, 3}, Ints{131, 127}, Ints{400, 401},
                              Ints{2, 90, 64}, Ints{24, 23, 65}, Ints{70, 2, 3}})
    for (int64_t batch : {1, 2, 7}) {
      const Map map = sample(spatial, batch, 3);
      Device one({SEGPRIOR_CPU, 0}, 1);
      MetricsCall alone(one);
      const std::vector<Ints> first = run(alone, map);
      for (int threads : {2, 3, 5, 13}) {
        Device device({SEGPRIOR_CPU, 0}, threads);
        MetricsCall call(device);
        const bool same = run(call, map) == first;
        CHECK_MESSAGE(same, threads, " threads give other results than one");
      }
    }
}

TEST_CASE("metrics: the calls do not allocate") {
  if (!can_count_allocations()) return;
  for (const Ints &spatial : {Ints{1031}, Ints{63, 65}, Ints{9, 11, 67}})
    for (int64_t batch : {1, 5}) {
      const Map map = sample(spatial, batch, 4);
      Device device({SEGPRIOR_CPU, 0}, 2);
      MetricsCall warm_up(device);  // starts OpenMP's threads
      run(warm_up, map);
      MetricsCall call(device);
      run(call, map);
      call.scores(Ints(kClasses * kClasses, 3), kClasses);
      CHECK(call.allocations() == 0);
    }
}

TEST_CASE("metrics: nothing races [race]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    MetricsCall call(device);
    for (const Ints &spatial : {Ints{1100}, Ints{34, 35}, Ints{5, 9, 33}}) {
      const Map map = sample(spatial, 1, 5, 0.8);
      for (bool by_value : {false, true}) {
        const auto got = call.components(map, components_opts(true, by_value), kClasses);
        const auto want = ref::metrics::components(map, true, by_value, 0, kClasses);
        const bool same = got.components == want.components && got.count == want.count;
        CHECK(same);
      }
    }
    const Map map = sample({300}, 2, 6);
    CHECK(call.geometry(map, kClasses)[1] == ref::metrics::faces(map, kClasses));
    call.confusion(map, map.values, {}, kClasses, 255);
    call.scores(Ints(kClasses * kClasses, 3), kClasses);
    CHECK(call.violations().empty());
  }
}

#if defined(FAKECUDA)
TEST_CASE("metrics: the same results for every order of CUDA's blocks [small]") {
  using fakecuda::Order;
  Device device({SEGPRIOR_CUDA, 0});
  for (const Ints &spatial : {Ints{5000}, Ints{40, 200}, Ints{9, 17, 70}}) {
    const Map map = sample(spatial, 1, 7, 0.9);  // most of it hangs together, across all tiles
    for (bool full : {false, true}) {
      const auto want = ref::metrics::components(map, full, false, 0, kClasses);
      for (Order order : {Order::reverse, Order::random}) {
        fakecuda::set_order(order, 1);
        MetricsCall call(device);
        const auto got = call.components(map, components_opts(full, false), kClasses);
        const bool same = got.components == want.components && got.count == want.count;
        CHECK_MESSAGE(same, "other components in the order ", fakecuda::order_text());
      }
    }
  }
  fakecuda::set_order(Order::forward);
}

TEST_CASE("metrics: launches of a call [small]") {
  Device device({SEGPRIOR_CUDA, 0});
  MetricsCall call(device);
  const auto launches = [](const auto &function) {
    const uint64_t before = fakecuda::launch_count();
    function();
    return fakecuda::launch_count() - before;
  };
  const auto components = [&](const Map &map, bool by_value) {
    return launches([&] { call.components(map, components_opts(true, by_value), kClasses); });
  };
  // The count without the numbers.
  const auto count_alone = [&](const Map &map) {
    Tensor values(device.which(), SEGPRIOR_UINT8, shape_of(map.batch, map.spatial),
                  ref::Array(map.values.begin(), map.values.end()));
    Tensor count(device.which(), SEGPRIOR_INT64, {map.batch});
    const segprior_components_opts opts = components_opts(true, false);
    size_t bytes = 0;
    REQUIRE(segprior_components_workspace_size(device.context(), &opts, values.view(), nullptr, &bytes) ==
            SEGPRIOR_OK);
    DeviceArray workspace(device.which(), bytes);
    const uint64_t number = launches([&] {
      REQUIRE(segprior_components(device.context(), &opts, values.view(), nullptr, nullptr, count.view(),
                                  nullptr, workspace.data(), bytes) == SEGPRIOR_OK);
    });
    device.synchronize();
    const auto want = ref::metrics::components(map, true, false, 0, kClasses);
    const ref::Array got = count.get();
    CHECK(Ints(got.begin(), got.end()) == want.count);
    return number;
  };
  Map one_tile = sample({32, 32}, 2, 8, 0.3), tiles = sample({32, 33}, 2, 8, 0.3);
  one_tile.mask.clear();
  tiles.mask.clear();
  for (bool by_value : {false, true}) {
    CHECK(components(tiles, by_value) == 6);
    CHECK(components(one_tile, by_value) == 5);
  }
  CHECK(count_alone(tiles) == 4);
  CHECK(count_alone(one_tile) == 3);
  CHECK(launches([&] { call.confusion(tiles, tiles.values, {}, kClasses, 255); }) == 1);
  CHECK(launches([&] { call.geometry(tiles, kClasses); }) == 1);
  CHECK(launches([&] { call.scores(Ints(3 * kClasses * kClasses, 3), kClasses); }) == 1);
}
#endif
