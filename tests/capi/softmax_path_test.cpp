// SEGPRIOR_PATH_ON_CHIP is a demand: where it cannot be met, size query and forward say what is in the way,
// and forward writes nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/cases/cases.h"

using namespace segprior;
using namespace segprior::test;

namespace {

void check_refused(const Case &c, const std::string &reason) {
  for (segprior_device which : all_devices()) {
    if (which.type != SEGPRIOR_CUDA) continue;
    INFO(name_of(which) << ": " << c.text());
    Device device(which);
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    call.opts.path = SEGPRIOR_PATH_ON_CHIP;
    const auto refused = [&](segprior_status status) {
      CHECK(status == SEGPRIOR_ERROR_NOT_SUPPORTED);
      const std::string text = segprior_last_error();
      CHECK_MESSAGE(text.find("SEGPRIOR_PATH_ON_CHIP") != std::string::npos, text);
      CHECK_MESSAGE(text.find(reason) != std::string::npos, text);
    };
    size_t bytes = 0;
    refused(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, &bytes, nullptr));
    refused(call.forward());
    const auto content = call.u->memory().content();
    CHECK(std::all_of(content.begin(), content.end(), [](unsigned char byte) { return byte == kPoison; }));
  }
}

}  // namespace

TEST_CASE("on chip: an image that does not fit is refused with the sizes [small]") {
  check_refused(Case({96, 100}, 4).tv(0.3).iterations(2),
                "bytes of shared memory per image; this device has");
}

TEST_CASE("on chip: a prior that it does not serve is named [small]") {
  check_refused(Case({5, 6}, 3).td(0.5).iterations(2), "opts.td");
  check_refused(Case({5, 6}, 3).iterations(2), "without TV and volume prior");
}
