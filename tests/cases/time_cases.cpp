// Times cases: each is the same problem that the tests compare with the reference.
#include "tests/cases/time_cases.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "tests/cases/check.h"

namespace segprior::test {
namespace {

struct Times {
  double median, minimum;  // milliseconds
};

// Repeats a call for about a fifth of a second, after a warm-up.
template <class Call>
Times time(const Device &device, const Call &call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> runs;
  double total = 0;
  for (int k = 0; k < 3 || (total < 200 && k < 1000); ++k) {
    const Clock::time_point start = Clock::now();
    call();
    device.synchronize();
    const double elapsed = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    if (k == 0) continue;
    runs.push_back(elapsed);
    total += elapsed;
  }
  std::sort(runs.begin(), runs.end());
  return {runs[runs.size() / 2], runs[0]};
}

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

bool time_case(Device &device, const Case &c) {
  SoftmaxCall call(device, make_problem(c), settings_of(c));
  // The first calls set up everything that the timed ones repeat.
  if (call.forward() != SEGPRIOR_OK) return false;
  if (call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) != SEGPRIOR_OK) return false;
  const auto data = [](const std::unique_ptr<DeviceArray> &array) {
    return array->bytes() ? array->data() : nullptr;
  };
  const Times forward = time(device, [&] {
    segprior_softmax_forward(device.context(), &call.opts, &call.inputs, &call.outputs,
                             data(call.forward_workspace), call.forward_workspace->bytes(), data(call.saved),
                             call.saved->bytes());
  });
  const Times backward = time(device, [&] {
    segprior_softmax_backward(device.context(), &call.opts, &call.inputs, nullptr, call.grad_u->view(),
                              &call.grads, data(call.backward_workspace), call.backward_workspace->bytes(),
                              data(call.saved), call.saved->bytes());
  });
  const double work = static_cast<double>(c.elements()) * std::max(c.iterations_, 1);
  std::printf(
      "{\"device\": \"%s\", \"case\": %s, \"forward_ms\": %.4f, \"forward_min_ms\": %.4f, "
      "\"forward_ns_per_voxel_class_iteration\": %.3f, \"backward_ms\": %.4f, \"backward_min_ms\": %.4f}\n",
      device.which().type == SEGPRIOR_CPU ? "cpu" : "cuda", quoted(c.text()).c_str(), forward.median,
      forward.minimum, forward.median * 1e6 / work, backward.median, backward.minimum);
  return true;
}

}  // namespace

int time_cases(const std::string &text) {
  bool matched = false, ok = true;
  for (const segprior_device which : all_devices()) {
    Device device(which);
    for (const Case &c : softmax_cases()) {
      if (c.checkpoint_ == 0 || c.text().find(text) == std::string::npos || !serves(device, c)) continue;
      matched = true;
      if (time_case(device, c)) continue;
      std::fprintf(stderr, "%s: %s\n", c.text().c_str(), segprior_last_error());
      ok = false;
    }
  }
  if (!matched) std::fprintf(stderr, "no case contains \"%s\"\n", text.c_str());
  return matched && ok ? 0 : 1;
}

}  // namespace segprior::test
