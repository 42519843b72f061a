// Connected components against a flood fill: random maps of all densities, among them those where components
// just begin to span the image, and shapes that make union-finds join late and often.
#include <doctest/doctest.h>

#include <string>

#include "tests/support/metrics_call.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr int64_t kClasses = 4;

std::string text(const Ints &values) {
  std::string all;
  for (int64_t value : values) all += (all.empty() ? "" : " x ") + std::to_string(value);
  return all;
}

Map random_map(const Ints &spatial, int64_t batch, double density, uint64_t seed, int values = 3) {
  Map map{batch, spatial, {}};
  Random random(seed);
  for (int64_t k = 0; k < batch * map.voxels(); ++k) {
    const bool inside = random.uniform(0, 1) < density;
    map.values.push_back(inside ? 1 + static_cast<int64_t>(random.bits() % values) : 0);
  }
  return map;
}

// One image of a plane: f(y, x) says what is inside.
template <class F>
Map drawn(int64_t height, int64_t width, const F &f) {
  Map map{1, {height, width}, {}};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) map.values.push_back(f(y, x));
  return map;
}

// A way of width 1 from the corner inwards, its windings 1 apart: every row joins what seemed apart above.
Map spiral(int64_t size) {
  Map map{1, {size, size}, Ints(size * size)};
  const int64_t step[4][2] = {{0, 1}, {1, 0}, {0, -1}, {-1, 0}};
  int64_t y = 0, x = 0;
  const auto free = [&](int64_t r, int64_t c) {
    return r < 0 || c < 0 || r >= size || c >= size || map.values[r * size + c] == 0;
  };
  map.values[0] = 1;
  for (int turns = 0, direction = 0; turns < 2;) {
    const int64_t dy = step[direction][0], dx = step[direction][1], r = y + dy, c = x + dx;
    const bool on_board = r >= 0 && c >= 0 && r < size && c < size;
    if (on_board && free(r, c) && free(r + dy, c + dx)) {
      map.values[(y = r) * size + (x = c)] = 1;
      turns = 0;
    } else {
      direction = (direction + 1) % 4;
      ++turns;
    }
  }
  return map;
}

std::vector<Map> drawings(int64_t size) {
  return {
      spiral(size),
      drawn(size, size, [&](int64_t y, int64_t x) { return x % 2 == 0 || y == size - 1; }),  // combs
      drawn(size, size, [&](int64_t y, int64_t x) { return y % 2 == 0 || x == size - 1; }),
      drawn(size, size, [&](int64_t y, int64_t x) { return x % 2 == 0 || y == 0; }),
      // A snake, a chessboard, and stripes across both diagonals.
      drawn(size, size, [&](int64_t y, int64_t x) { return y % 2 == 0 || x == (y % 4 == 1 ? size - 1 : 0); }),
      drawn(size, size, [](int64_t y, int64_t x) { return (y + x) % 2; }),
      drawn(size, size, [](int64_t y, int64_t x) { return (y + x) % 3 == 0; }),
      drawn(size, size, [](int64_t y, int64_t x) { return (y + 2 * x) % 3 == 0; }),
      // Values side by side: no background, or diagonals of alternating values.
      drawn(size, size, [](int64_t y, int64_t x) { return 1 + (y / 3 + x / 5) % 3; }),
      drawn(size, size, [](int64_t y, int64_t x) { return 1 + (y + x) % 2; })};
}

void check(Device &device, const Map &map, bool full, bool by_value, const MetricsSettings &settings = {},
           int64_t background = 0) {
  INFO(name_of(device.which()) << ", " << map.batch << " of " << text(map.spatial) << ", full " << full
                               << ", by_value " << by_value << ", dtype " << settings.dtype << ", background "
                               << background);
  MetricsCall call(device, settings);
  const auto got = call.components(map, components_opts(full, by_value, background), kClasses);
  const auto want = ref::metrics::components(map, full, by_value, background, kClasses);
  const bool same = got.components == want.components;
  CHECK_MESSAGE(same, "the components differ");
  CHECK(got.count == want.count);
  if (by_value) CHECK(got.class_count == want.class_count);
  CHECK(call.violations().empty());
}

void check_all_ways(const Map &map, const MetricsSettings &settings = {}) {
  for (segprior_device which : all_devices()) {
    Device device(which, 2);
    for (bool full : {false, true})
      for (bool by_value : {false, true}) check(device, map, full, by_value, settings);
  }
}

void check_random(const std::vector<Ints> &shapes, const std::vector<double> &densities) {
  uint64_t seed = 0;
  for (const Ints &spatial : shapes)
    for (double density : densities)
      for (int64_t batch : {1, 3}) check_all_ways(random_map(spatial, batch, density, ++seed));
}

void check_masks(const Ints &spatial) {
  for (bool shared : {false, true}) {
    Map map = random_map(spatial, 3, 0.8, 7);
    const Map mask = random_map(spatial, shared ? 1 : 3, 0.7, 8);
    map.mask = mask.values;
    check_all_ways(map);
  }
}

}  // namespace

TEST_CASE("components: random maps, tiny [small]") {
  check_random({{1}, {33}, {1, 1}, {1, 65}, {65, 1}, {5, 37}, {3, 5, 7}}, {0, 0.407, 0.593, 1});
  check_random({{1100}, {35, 67}, {6, 9, 34}}, {0.593, 0.8});
}

TEST_CASE("components: random maps") {
  const std::vector<double> densities{0, 0.01, 0.1, 0.3, 0.407, 0.5, 0.593, 0.7, 0.9, 1};
  check_random({{1}, {2}, {31}, {63}, {64}, {65}, {127}, {1000}}, densities);
  check_random(
      {{1, 1}, {1, 97}, {97, 1}, {2, 64}, {31, 33}, {33, 31}, {63, 64}, {64, 65}, {65, 128}, {101, 103}},
      densities);
  check_random(
      {{1, 1, 1}, {1, 33, 65}, {31, 1, 65}, {31, 33, 1}, {2, 2, 2}, {5, 31, 67}, {17, 13, 11}, {9, 9, 130}},
      densities);
}

TEST_CASE("components: shapes that join late, tiny [small]") {
  for (const Map &map : drawings(37)) check_all_ways(map);
}

TEST_CASE("components: shapes that join late") {
  for (int64_t size : {1, 2, 31, 64, 65, 129})
    for (const Map &map : drawings(size)) check_all_ways(map);
}

TEST_CASE("components: masks, tiny [small]") { check_masks({9, 35}); }
TEST_CASE("components: masks") {
  check_masks({131});
  check_masks({33, 65});
  check_masks({7, 11, 66});
}

TEST_CASE("components: every pattern of two rows at the border of CUDA's tiles [small]") {
  // 2 x 2 voxels on both sides of x = 32, alone in their three rows, which tiles of 32 rows cut everywhere.
  constexpr int kPatterns = 81;
  Map map{1, {3 * kPatterns, 34}, Ints(3 * kPatterns * 34)};
  for (int64_t pattern = 0; pattern < kPatterns; ++pattern)
    for (int64_t k = 0, digits = pattern; k < 4; ++k, digits /= 3)
      map.values[(3 * pattern + k / 2) * 34 + 31 + k % 2] = digits % 3;
  check_all_ways(map);
  // The same patterns of masks: what is masked has values that would join.
  for (int64_t &value : map.values) {
    map.mask.push_back(value != 0);
    if (value == 0) value = 1;
  }
  check_all_ways(map);
}

TEST_CASE("components: every pattern of two slices at the border of CUDA's tiles [small]") {
  // 2 x 2 x 2 voxels as above, within a tile of 4 slices and across two.
  constexpr int kPatterns = 256, kHeight = 3 * kPatterns;
  Map map{1, {6, kHeight, 34}, Ints(6 * kHeight * 34)};
  for (int64_t first : {0, 3})
    for (int64_t pattern = 0; pattern < kPatterns; ++pattern)
      for (int64_t k = 0; k < 8; ++k) {
        const int64_t z = first + k / 4, y = 3 * pattern + k / 2 % 2;
        map.values[(z * kHeight + y) * 34 + 31 + k % 2] = pattern >> k & 1;
      }
  check_all_ways(map);
}

TEST_CASE("components: more voxels than CUDA counts at once") {
  constexpr int64_t kScan = 2048 * 256 * 8;  // voxels whose counts one round sums up
  for (int64_t width : {int64_t{600001}, kScan, kScan + 1}) {
    Map map{1, {1, width}, Ints(width)};
    for (int64_t v = 0; v < width; ++v) map.values[v] = v + 1 == width || v % 700 < 350 + v % 3;
    for (segprior_device which : all_devices()) {
      Device device(which, 2);
      check(device, map, false, false);
    }
  }
}

TEST_CASE("components: every label dtype and background [small]") {
  for (int32_t dtype : {SEGPRIOR_UINT8, SEGPRIOR_INT32, SEGPRIOR_INT64})
    for (const Ints &spatial : {Ints{67}, Ints{5, 33}, Ints{3, 4, 9}}) {
      Map map = random_map(spatial, 2, 0.6, 5);
      MetricsSettings settings;
      settings.dtype = dtype;
      std::vector<int64_t> backgrounds{0, 2, 255, 256, -1, INT64_MAX};  // some that no voxel has
      if (dtype != SEGPRIOR_UINT8) {
        for (int64_t &value : map.values)
          if (value == 3) value = -5;
        backgrounds.push_back(-5);
      }
      if (dtype == SEGPRIOR_INT64) {  // equal in their lower halves
        for (int64_t &value : map.values)
          if (value == 2) value = (int64_t{1} << 32) + 1;
        backgrounds.push_back((int64_t{1} << 32) + 1);
      }
      for (segprior_device which : all_devices()) {
        Device device(which, 2);
        for (int64_t background : backgrounds)
          for (bool by_value : {false, true}) check(device, map, true, by_value, settings, background);
      }
    }
}

TEST_CASE("components: numbers follow the first voxels, whatever joins them later [small]") {
  // 1 . 2 . 1    The last row joins the outer ones: their number is that of the first.
  // 1 . . . 1
  // 1 1 1 1 1
  const Map map{1, {3, 5}, {7, 0, 7, 0, 7, 7, 0, 0, 0, 7, 7, 7, 7, 7, 7}};
  for (segprior_device which : all_devices()) {
    Device device(which);
    MetricsCall call(device);
    const auto got = call.components(map, components_opts(false, false), kClasses);
    CHECK(got.components == Ints{1, 0, 2, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1});
    CHECK(got.count == Ints{2});
  }
}
