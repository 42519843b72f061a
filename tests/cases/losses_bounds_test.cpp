// segprior_size_bounds against its three formulas.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;
using ref::Array;

namespace {

struct Expected {
  Array lower, upper;
};

Expected expected(int kind, const Array &volumes, int64_t batch, int64_t classes, double voxels, double low,
                  double high) {
  Expected e;
  for (int64_t k = 0; k < batch * classes; ++k) {
    double least = volumes[k], most = volumes[k];
    for (int64_t b = 0; b < batch && kind == SEGPRIOR_BOUNDS_COMMON; ++b) {
      const double v = volumes[b * classes + k % classes];
      if (v == 0) continue;
      least = std::min(least, v);
      most = std::max(most, v);
    }
    const bool present = volumes[k] > 0, tags = kind == SEGPRIOR_BOUNDS_TAGS;
    e.lower.push_back(!present ? 0 : tags ? 1 : low * least);
    e.upper.push_back(!present ? 0 : tags ? voxels : high * most);
  }
  return e;
}

void check(Device &device, int kind, int32_t dtype, int64_t batch, int64_t classes, double low, double high) {
  INFO(name_of(device.which()) << ", kind " << kind << ", dtype " << dtype << ", " << batch << " x "
                               << classes);
  Random random(static_cast<uint64_t>(batch * 1000 + classes));
  Array volumes(batch * classes);
  for (double &v : volumes) v = random.bits() % 3 == 0 ? 0 : static_cast<double>(random.bits() % 100000000);
  const std::vector<int64_t> shape{batch, classes};
  Tensor given(device.which(), SEGPRIOR_INT64, shape, volumes, true),
      lower(device.which(), dtype, shape, true), upper(device.which(), dtype, shape, true);
  {
#if defined(FAKECUDA)
    const fakecuda::Forbid forbid(static_cast<cudaStream_t>(device.stream()));
#endif
    REQUIRE_MESSAGE(segprior_size_bounds(device.context(), kind, given.view(), 123456789, low, high,
                                         lower.view(), upper.view()) == SEGPRIOR_OK,
                    std::string(segprior_last_error()));
#if defined(FAKECUDA)
    CHECK(forbid.violations().empty());
#endif
  }
  device.synchronize();
  const Expected want = expected(kind, volumes, batch, classes, 123456789, low, high);
  const double unit = dtype == SEGPRIOR_FLOAT64 ? 0x1p-52 : 0x1p-23;
  const auto close = [&](const char *name, const Array &got, const Array &values) {
    REQUIRE(got.size() == values.size());
    for (size_t k = 0; k < got.size(); ++k)
      CHECK_MESSAGE(std::fabs(got[k] - values[k]) <= unit * values[k], name, " ", k, ": got ", got[k],
                    ", want ", values[k]);
  };
  close("lower", lower.get(), want.lower);
  close("upper", upper.get(), want.upper);
  CHECK(given.memory().canaries_intact());
  CHECK(lower.memory().canaries_intact());
  CHECK(upper.memory().canaries_intact());
}

}  // namespace

TEST_CASE("losses: size bounds from volumes [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (int kind : {SEGPRIOR_BOUNDS_TAGS, SEGPRIOR_BOUNDS_COMMON, SEGPRIOR_BOUNDS_INDIVIDUAL})
      for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64}) {
        for (int64_t batch : {0, 1, 2, 17})
          for (int64_t classes : {0, 1, 3, 21, 256}) check(device, kind, dtype, batch, classes, 0.9, 1.1);
        check(device, kind, dtype, 3, 5, 0, 0);
        check(device, kind, dtype, 3, 5, 2, 2);
        check(device, kind, dtype, 300, 7, 0.5, 1.5);  // images in more than one block
      }
  }
}

TEST_CASE("losses: size bounds, tiny [small] [race]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    check(device, SEGPRIOR_BOUNDS_COMMON, SEGPRIOR_FLOAT32, 5, 3, 0.9, 1.1);
  }
}

TEST_CASE("losses: bounds of an absent class leave no size to it [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const std::vector<int64_t> shape{1, 2};
    Tensor given(which, SEGPRIOR_INT64, shape, {0, 6}), lower(which, SEGPRIOR_FLOAT64, shape),
        upper(which, SEGPRIOR_FLOAT64, shape);
    for (int kind : {SEGPRIOR_BOUNDS_TAGS, SEGPRIOR_BOUNDS_COMMON, SEGPRIOR_BOUNDS_INDIVIDUAL}) {
      REQUIRE(segprior_size_bounds(device.context(), kind, given.view(), 10, 0.5, 2, lower.view(),
                                   upper.view()) == SEGPRIOR_OK);
      device.synchronize();
      CHECK(lower.get() == Array{0, kind == SEGPRIOR_BOUNDS_TAGS ? 1.0 : 3.0});
      CHECK(upper.get() == Array{0, kind == SEGPRIOR_BOUNDS_TAGS ? 10.0 : 12.0});
    }
  }
}
