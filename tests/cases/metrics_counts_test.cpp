// Confusion matrices and their scores, volumes and faces, against plain loops. Counts are exact; scores are
// quotients of exact numbers, and their means sums in one order: no tolerance anywhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/support/compare.h"
#include "tests/support/metrics_call.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;

namespace {

constexpr double kNaN = NAN;

// Labels low .. high; blocks of equal ones if `smooth`, as in real segmentations.
Map random_labels(const Ints &spatial, int64_t batch, int64_t low, int64_t high, uint64_t seed,
                  bool smooth = false) {
  Map map{batch, spatial, {}};
  Random random(seed);
  int64_t last = low;
  for (int64_t k = 0; k < batch * map.voxels(); ++k) {
    if (!smooth || random.bits() % 50 == 0)
      last = low + static_cast<int64_t>(random.bits() % static_cast<uint64_t>(high - low + 1));
    map.values.push_back(last);
  }
  return map;
}

Ints random_mask(int64_t count, uint64_t seed) {
  Random random(seed);
  Ints mask;
  for (int64_t k = 0; k < count; ++k) mask.push_back(random.bits() % 4 != 0);
  return mask;
}

std::string title(const Device &device, const Map &map, int64_t classes) {
  std::string text = name_of(device.which()) + ", " + std::to_string(classes) + " classes, batch " +
                     std::to_string(map.batch) + ", spatial";
  for (int64_t extent : map.spatial) text += " " + std::to_string(extent);
  return text;
}

void check_confusion(const Map &labels, const Ints &prediction, int64_t classes, int64_t ignore,
                     const MetricsSettings &settings = {}) {
  const auto want = ref::metrics::confusion(labels, prediction, classes, ignore);
  for (segprior_device which : all_devices()) {
    Device device(which, 2);
    INFO(title(device, labels, classes));
    MetricsCall call(device, settings);
    const auto got = call.confusion(labels, prediction, {}, classes, ignore);
    CHECK(got.matrix == want.matrix);
    CHECK(got.invalid == want.invalid);
    CHECK(call.violations().empty());
  }
}

void check_confusions(const std::vector<Ints> &shapes) {
  uint64_t seed = 0;
  for (const Ints &spatial : shapes)
    for (int64_t classes : {1, 2, 3, 21, 64, 65, 256})
      for (bool smooth : {false, true}) {
        Map labels = random_labels(spatial, 3, 0, std::min<int64_t>(classes + 1, 255), ++seed, smooth);
        const Map prediction =
            random_labels(spatial, 3, 0, std::min<int64_t>(classes + 1, 255), ++seed, smooth);
        check_confusion(labels, prediction.values, classes, classes + 1);
        labels.mask = random_mask(labels.voxels() * 3, seed);
        check_confusion(labels, prediction.values, classes, -1);
        labels.mask = random_mask(labels.voxels(), seed);
        check_confusion(labels, prediction.values, classes, 0);
      }
}

void check_fused(const Ints &spatial, int64_t classes, int32_t dtype) {
  Map labels = random_labels(spatial, 2, 0, classes, 3);
  labels.mask = random_mask(labels.voxels(), 4);
  Random random(5);
  Array scores = rounded(random.array(2 * classes * labels.voxels(), -3, 3), dtype);
  // Ties, infinities, NaN, and voxels that have nothing else.
  const double special[] = {1, 1, -INFINITY, INFINITY, kNaN, 0, -0.0};
  for (double &score : scores)
    if (random.bits() % 3 == 0) score = special[random.bits() % 7];
  const int64_t voxels = labels.voxels();
  for (int64_t v = 0; v < voxels; v += 3)
    for (int64_t i = 0; i < classes; ++i) scores[i * voxels + v] = v % 2 == 0 ? kNaN : -INFINITY;
  const Ints prediction = ref::metrics::largest(scores, 2, classes);
  const auto want = ref::metrics::confusion(labels, prediction, classes, 255);
  MetricsSettings settings;
  settings.prediction_dtype = dtype;
  for (segprior_device which : all_devices()) {
    Device device(which, 2);
    INFO(title(device, labels, classes) << ", dtype of the scores " << dtype);
    MetricsCall call(device, settings);
    const auto got = call.confusion(labels, {}, scores, classes, 255);
    CHECK(got.matrix == want.matrix);
    CHECK(got.invalid == want.invalid);
    CHECK(call.violations().empty());
  }
}

void check_geometry(const Map &map, int64_t classes, const MetricsSettings &settings = {}) {
  const Ints volumes = ref::metrics::volumes(map, classes), faces = ref::metrics::faces(map, classes);
  for (segprior_device which : all_devices()) {
    Device device(which, 2);
    INFO(title(device, map, classes));
    MetricsCall call(device, settings);
    const std::vector<Ints> got = call.geometry(map, classes);
    CHECK(got[0] == volumes);
    CHECK(got[1] == faces);
    CHECK(call.violations().empty());
  }
}

void check_geometries(const std::vector<Ints> &shapes) {
  uint64_t seed = 40;
  for (const Ints &spatial : shapes)
    for (int64_t classes : {1, 2, 3, 21, 64, 200})
      for (bool smooth : {false, true}) {
        Map map = random_labels(spatial, 2, 0, std::min<int64_t>(classes, 255), ++seed, smooth);
        check_geometry(map, classes);
        map.mask = random_mask(map.voxels() * 2, ++seed);
        check_geometry(map, classes);
        map.mask = random_mask(map.voxels(), ++seed);
        check_geometry(map, classes);
      }
}

constexpr int32_t kLabelTypes[] = {SEGPRIOR_UINT8, SEGPRIOR_INT32, SEGPRIOR_INT64};
constexpr int32_t kScoreTypes[] = {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64, SEGPRIOR_FLOAT16, SEGPRIOR_BFLOAT16};

}  // namespace

TEST_CASE("confusion: label maps, tiny [small]") { check_confusions({{1}, {31}, {5, 33}, {3, 2, 7}}); }
TEST_CASE("confusion: label maps") {
  check_confusions({{1}, {33}, {1031}, {70001}, {31, 33}, {257, 311}, {5, 17, 19}});
}

TEST_CASE("confusion: every label dtype, and labels far out of range [small]") {
  for (int32_t dtype : kLabelTypes)
    for (int32_t other : kLabelTypes) {
      Map labels = random_labels({5, 31}, 2, 0, 5, 1);
      Ints prediction = random_labels({5, 31}, 2, 0, 5, 2).values;
      const int64_t far[] = {-1, INT32_MIN, INT32_MAX, int64_t{1} << 32, -(int64_t{1} << 40), INT64_MIN};
      const auto spoil = [&](Ints &values, int32_t type) {
        const int count = type == SEGPRIOR_UINT8 ? 0 : type == SEGPRIOR_INT32 ? 3 : 6;
        for (size_t k = 0; count > 0 && k < values.size(); k += 7) values[k] = far[k / 7 % count];
      };
      spoil(labels.values, dtype);
      spoil(prediction, other);
      MetricsSettings settings;
      settings.dtype = dtype;
      settings.prediction_dtype = other;
      const int64_t wide = int64_t{1} << 32;  // and 2 in the lower half
      for (int64_t ignore : {int64_t{255}, int64_t{2}, int64_t{-1}, int64_t{INT32_MAX}, wide + 2, 2 - wide})
        check_confusion(labels, prediction, 5, ignore, settings);
    }
}

TEST_CASE("confusion: the largest score of every dtype, tiny [small]") {
  for (int32_t dtype : kScoreTypes)
    for (int64_t classes : {1, 2, 3, 21}) check_fused({3, 11}, classes, dtype);
}
TEST_CASE("confusion: the largest score of every dtype") {
  for (int32_t dtype : kScoreTypes)
    for (int64_t classes : {1, 2, 3, 21, 64, 100})
      for (const Ints &spatial : {Ints{1}, Ints{2053}, Ints{31, 33}, Ints{3, 5, 129}})
        check_fused(spatial, classes, dtype);
}

TEST_CASE("scores of confusion matrices [small]") {
  Random random(11);
  for (int64_t classes : {1, 2, 3, 21, 64, 300})
    for (int64_t count : {1, 5}) {
      Ints matrices;
      for (int64_t k = 0; k < count * classes * classes; ++k)
        matrices.push_back(static_cast<int64_t>(random.bits() % 1000000));
      // A class that does not occur, and an empty matrix.
      for (int64_t j = 0; j < classes; ++j) matrices[j] = matrices[j * classes] = 0;
      if (count > 1) std::fill(matrices.end() - classes * classes, matrices.end(), 0);
      const auto want = ref::metrics::scores(matrices, classes);
      for (segprior_device which : all_devices()) {
        Device device(which, 2);
        INFO(name_of(which) << ", " << classes << " classes, " << count << " matrices");
        MetricsCall call(device);
        const auto got = call.scores(matrices, classes);
        CHECK_CLOSE("accuracy", got.accuracy, want.accuracy, 0);
        CHECK_CLOSE("iou", got.iou, want.iou, 0);
        CHECK_CLOSE("mean_iou", got.mean_iou, want.mean_iou, 0);
        CHECK_CLOSE("dice", got.dice, want.dice, 0);
        CHECK_CLOSE("mean_dice", got.mean_dice, want.mean_dice, 0);
        CHECK_CLOSE("precision", got.precision, want.precision, 0);
        CHECK_CLOSE("recall", got.recall, want.recall, 0);
        CHECK(call.violations().empty());
      }
    }
}

TEST_CASE("scores: a matrix by hand [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    MetricsCall call(device);
    const auto got = call.scores({3, 1, 2, 4}, 2);  // class 0: tp 3, fn 1, fp 2; class 1: tp 4, fn 2, fp 1
    CHECK(got.accuracy == Array{0.7});
    CHECK(got.iou == Array{3.0 / 6, 4.0 / 7});
    CHECK(got.dice == Array{6.0 / 9, 8.0 / 11});
    CHECK(got.precision == Array{3.0 / 5, 4.0 / 5});
    CHECK(got.recall == Array{3.0 / 4, 4.0 / 6});
  }
}

TEST_CASE("geometry: volumes and faces, tiny [small]") { check_geometries({{1}, {33}, {5, 31}, {3, 2, 7}}); }
TEST_CASE("geometry: volumes and faces") {
  check_geometries(
      {{1}, {2}, {70001}, {1, 97}, {97, 1}, {31, 33}, {129, 1031}, {5, 17, 19}, {7, 1, 9}, {64, 37, 41}});
}

TEST_CASE("geometry: every label dtype, many classes [small]") {
  for (int32_t dtype : kLabelTypes)
    for (int64_t classes : {3, 300, 9000}) {
      Map map = random_labels({7, 31}, 2, 0, dtype == SEGPRIOR_UINT8 ? 255 : classes, 9);
      if (dtype != SEGPRIOR_UINT8) map.values[5] = -1, map.values[6] = INT32_MAX;
      if (dtype == SEGPRIOR_INT64) map.values[7] = int64_t{1} << 32;
      MetricsSettings settings;
      settings.dtype = dtype;
      check_geometry(map, classes, settings);
    }
}
