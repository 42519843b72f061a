// The exported matrix against the reference, which enters every pair of voxels in a table.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/cases/softcut_cases.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_csr(const SoftcutCase &c, Device &device) {
  INFO(c.text() << " on " << name_of(device.which()));
  const ref::softcut::Problem p = make_problem(c);
  const ref::softcut::Csr want = ref::softcut::csr(p);
  SoftcutCall call(device, p, settings_of(c));
  int64_t entries = 0;
  REQUIRE(segprior_softcut_csr_size(device.context(), &call.inputs, &entries) == SEGPRIOR_OK);
  REQUIRE(entries == static_cast<int64_t>(want.columns.size()));
  DeviceArray row_offsets(device.which(), (p.voxels() + 1) * sizeof(int32_t), true),
      columns(device.which(), entries * sizeof(int32_t), true);
  Tensor values(device.which(), c.dtype(), {p.matrices(), entries}, true);
  const segprior_status status =
      segprior_softcut_csr(device.context(), &call.inputs, static_cast<int32_t *>(row_offsets.data()),
                           static_cast<int32_t *>(columns.data()), values.view());
  REQUIRE_MESSAGE(status == SEGPRIOR_OK, std::string(segprior_last_error()));
  device.synchronize();
  const auto integers = [](const DeviceArray &array) {
    std::vector<int32_t> host(array.bytes() / sizeof(int32_t));
    array.download(host.data());
    return host;
  };
  CHECK(integers(row_offsets) == want.row_offsets);
  CHECK(integers(columns) == want.columns);
  // Diagonals are sums of up to nine terms.
  CHECK_CLOSE("values", values.get(), want.values, 10 * c.unit() * max_abs(want.values));
  CHECK(row_offsets.canaries_intact());
  CHECK(columns.canaries_intact());
  CHECK(values.memory().canaries_intact());
}

}  // namespace

TEST_CASE("softcut: the exported matrix [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (bool shared : {false, true}) {
      const auto check = [&](SoftcutCase c) { check_csr(shared ? c.shared() : c, device); };
      check(SoftcutCase({1}, 2));
      check(SoftcutCase({37}, 2, 2).f32().conductance(2));
      check(SoftcutCase({1, 1}, 1).diagonals());
      check(SoftcutCase({1, 9}, 2).diagonals());
      check(SoftcutCase({9, 1}, 2));
      check(SoftcutCase({2, 2}, 2).diagonals().conductance(3));
      check(SoftcutCase({7, 9}, 2, 2).f32());
      check(SoftcutCase({17, 19}, 3, 2).diagonals().conductance(2));
      check(SoftcutCase({3, 1, 4}, 1));
      check(SoftcutCase({4, 5, 6}, 2, 2).f32().conductance(2).weights(1, SoftcutCase::Weights::cut));
    }
  }
}
