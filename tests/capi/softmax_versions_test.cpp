// Structs of softmax.h in the sizes of other versions: a caller compiled with the header of version 0.1, and
// one compiled with a header of the future.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/capi/message.h"
#include "tests/cases/cases.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Opts = segprior_softmax_opts;
using Inputs = segprior_softmax_inputs;
using Outputs = segprior_softmax_outputs;
using Grads = segprior_softmax_grads;

// Sizes of version 0.1, as numbers: a later change of a struct must not move them.
constexpr size_t kFirstOpts = 104, kFirstInputs = 88, kFirstOutputs = 40, kFirstGrads = 80;

Case small_case() {
  Case c({5, 7}, 3, 2);
  return c.tv(0.3).equal().iterations(3);
}

// A struct of exactly `size` bytes on the heap, where a sanitizer sees the first byte beyond it: the front of
// `known`, and zeros after it.
template <class S>
class Sized {
 public:
  Sized(const S &known, size_t size) : bytes_((size + 7) / 8), size_(size) {
    std::memcpy(bytes_.data(), &known, std::min(size, sizeof known));
    claim(size);
  }
  S *get() { return reinterpret_cast<S *>(bytes_.data()); }
  void claim(size_t size) { std::memcpy(bytes_.data(), &size, sizeof size); }
  unsigned char &from_end(size_t k) {
    return reinterpret_cast<unsigned char *>(bytes_.data())[size_ - 1 - k];
  }

 private:
  std::vector<uint64_t> bytes_;
  size_t size_;
};

// The four structs of one call in given sizes.
struct Structs {
  Sized<Opts> opts;
  Sized<Inputs> inputs;
  Sized<Outputs> outputs;
  Sized<Grads> grads;

  Structs(SoftmaxCall &call, size_t opts_size, size_t inputs_size, size_t outputs_size, size_t grads_size)
      : opts(call.opts, opts_size),
        inputs(call.inputs, inputs_size),
        outputs(call.outputs, outputs_size),
        grads(call.grads, grads_size) {}

  segprior_status forward(Device &device, SoftmaxCall &call) {
    const segprior_status status = segprior_softmax_forward(
        device.context(), opts.get(), inputs.get(), outputs.get(), call.forward_workspace->data(),
        call.forward_workspace->bytes(), call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
  segprior_status backward(Device &device, SoftmaxCall &call) {
    const segprior_status status =
        segprior_softmax_backward(device.context(), opts.get(), inputs.get(), nullptr, call.grad_u->view(),
                                  grads.get(), call.backward_workspace->data(),
                                  call.backward_workspace->bytes(), call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
};

std::vector<std::vector<unsigned char>> results(SoftmaxCall &call) {
  std::vector<std::vector<unsigned char>> all{call.u->memory().content(), call.tv_dual->memory().content()};
  for (const auto &gradient : call.gradient_list()) all.push_back(gradient.second->memory().content());
  return all;
}

}  // namespace

TEST_CASE("structs of version 0.1 mean what they meant [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const Case c = small_case();
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
    const auto expected = results(call);

    for (size_t more : {size_t(0), size_t(8), size_t(16)}) {  // and of a version between
      for (Tensor *tensor : {call.u.get(), call.tv_dual.get()}) tensor->memory().fill(0x77);
      for (const auto &gradient : call.gradient_list()) gradient.second->memory().fill(0x77);
      const size_t outputs_size = std::min(kFirstOutputs + more, sizeof(Outputs));
      Structs structs(call, kFirstOpts + more, kFirstInputs + more, outputs_size, kFirstGrads + more);
      CHECK_MESSAGE(structs.forward(device, call) == SEGPRIOR_OK, segprior_last_error());
      CHECK_MESSAGE(structs.backward(device, call) == SEGPRIOR_OK, segprior_last_error());
      CHECK(results(call) == expected);
      size_t forward = 0, saved = 0;
      CHECK(segprior_softmax_workspace_size(device.context(), structs.opts.get(), structs.inputs.get(),
                                            &forward, nullptr) == SEGPRIOR_OK);
      CHECK(segprior_softmax_saved_size(device.context(), structs.opts.get(), structs.inputs.get(), &saved) ==
            SEGPRIOR_OK);
      CHECK(forward == call.forward_workspace->bytes());
      CHECK(saved == call.saved->bytes());
    }
  }
}

TEST_CASE("opts_init writes exactly the caller's size [small]") {
  Opts full;
  REQUIRE(segprior_softmax_opts_init(&full, sizeof full) == SEGPRIOR_OK);
  uint64_t memory[sizeof(Opts) / 8 + 4];
  unsigned char *bytes = reinterpret_cast<unsigned char *>(memory);
  for (size_t size : {kFirstOpts, kFirstOpts + 8, sizeof(Opts), sizeof(Opts) + 8, sizeof(Opts) + 24}) {
    std::memset(bytes, 0x5a, sizeof memory);
    REQUIRE(segprior_softmax_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_OK);
    size_t written;
    std::memcpy(&written, bytes, sizeof written);
    CHECK(written == size);
    CHECK(std::memcmp(bytes + sizeof written, reinterpret_cast<unsigned char *>(&full) + sizeof written,
                      std::min(size, sizeof full) - sizeof written) == 0);
    for (size_t k = sizeof full; k < size; ++k) CHECK(bytes[k] == 0);
    for (size_t k = size; k < sizeof memory; ++k) CHECK(bytes[k] == 0x5a);
  }
  CHECK(segprior_softmax_opts_init(nullptr, sizeof full) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("opts"));
  for (size_t size : {size_t(0), sizeof(size_t), kFirstOpts - 8, kFirstOpts + 1, sizeof(Opts) - 1,
                      sizeof(Opts) + 1, size_t(1) << 40}) {
    std::memset(bytes, 0x5a, sizeof memory);
    CHECK(segprior_softmax_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_ERROR_OPTIONS);
    CHECK(message_has("struct_size = " + std::to_string(size)));
    for (size_t k = 0; k < sizeof memory; ++k) REQUIRE(bytes[k] == 0x5a);
  }
}

TEST_CASE("structs of a newer header: a zero tail is accepted, another one is not [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const Case c = small_case();
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    call.grads.struct_size = sizeof call.grads;
    call.grads.features = call.gradients.features->view();
    call.grad_u->set(make_grad_u(c));
    Structs newer(call, sizeof(Opts) + 24, sizeof(Inputs) + 24, sizeof(Outputs) + 24, sizeof(Grads) + 24);
    CHECK_MESSAGE(newer.forward(device, call) == SEGPRIOR_OK, segprior_last_error());
    CHECK_MESSAGE(newer.backward(device, call) == SEGPRIOR_OK, segprior_last_error());
    const auto rejected = [&](unsigned char &byte, const char *name) {
      byte = 1;
      call.u->memory().fill(0x77);
      CHECK(newer.forward(device, call) == SEGPRIOR_ERROR_OPTIONS);
      CHECK(message_has(name));
      CHECK(call.u->memory().content() == std::vector<unsigned char>(call.u->memory().bytes(), 0x77));
      byte = 0;
    };
    rejected(newer.opts.from_end(23), "opts");
    rejected(newer.opts.from_end(0), "opts");
    rejected(newer.inputs.from_end(7), "inputs");
    rejected(newer.outputs.from_end(0), "outputs");
    CHECK(newer.forward(device, call) == SEGPRIOR_OK);
    newer.grads.from_end(23) = 1;
    CHECK(newer.backward(device, call) == SEGPRIOR_ERROR_OPTIONS);
    CHECK(message_has("grads"));
  }
}

TEST_CASE("struct sizes that no version has are refused [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const Case c = small_case();
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    call.grads.struct_size = sizeof call.grads;
    Structs structs(call, sizeof(Opts), sizeof(Inputs), sizeof(Outputs), sizeof(Grads));
    const auto refuses = [&](auto &given, const char *name, size_t first, size_t now, auto run) {
      for (size_t size :
           {size_t(0), size_t(4), sizeof(size_t), first - 8, first + 1, now - 1, now + 4, size_t(1) << 60}) {
        given.claim(size);
        CHECK(run() == SEGPRIOR_ERROR_OPTIONS);
        CHECK(message_has(std::string(name) + ".struct_size = " + std::to_string(size)));
      }
      given.claim(now);
    };
    const auto forward = [&] { return structs.forward(device, call); };
    const auto backward = [&] { return structs.backward(device, call); };
    refuses(structs.opts, "opts", kFirstOpts, sizeof(Opts), forward);
    refuses(structs.inputs, "inputs", kFirstInputs, sizeof(Inputs), forward);
    refuses(structs.outputs, "outputs", kFirstOutputs, sizeof(Outputs), forward);
    refuses(structs.grads, "grads", kFirstGrads, sizeof(Grads), backward);
  }
}
