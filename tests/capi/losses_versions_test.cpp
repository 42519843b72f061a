// Structs of losses.h in the sizes of other versions: each as it was introduced, and one compiled with a
// header of the future.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/capi/message.h"
#include "tests/cases/losses_check.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Sizes of version 0.4, as numbers: a later change of a struct must not move them.
constexpr size_t kFirstOpts = 160, kFirstInputs = 80, kFirstOutputs = 48, kFirstCotangents = 40,
                 kFirstGrads = 40;

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

// The structs of both calls, each `more` bytes longer than in its first version.
struct Structs {
  Device &device;
  LossCall &call;
  Sized<segprior_loss_opts> opts;
  Sized<segprior_loss_inputs> inputs;
  Sized<segprior_loss_outputs> outputs;
  Sized<segprior_loss_cotangents> cotangents;
  Sized<segprior_loss_grads> grads;

  Structs(Device &on, LossCall &of, size_t more)
      : device(on),
        call(of),
        opts(of.opts, kFirstOpts + more),
        inputs(of.inputs, kFirstInputs + more),
        outputs(of.outputs, kFirstOutputs + more),
        cotangents(of.cotangents, kFirstCotangents + more),
        grads(of.grads, kFirstGrads + more) {}

  segprior_status forward() {
    const segprior_status status = segprior_loss_forward(
        device.context(), opts.get(), inputs.get(), outputs.get(), call.forward_workspace->data(),
        call.forward_workspace->bytes(), call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
  segprior_status backward() {
    const segprior_status status =
        segprior_loss_backward(device.context(), opts.get(), inputs.get(), cotangents.get(), grads.get(),
                               call.backward_workspace->data(), call.backward_workspace->bytes(),
                               call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
};

// Calls f with a finished call on every device.
template <class F>
void everywhere(const F &f) {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    LossCase c({4, 5}, 3, 2);
    c.f32().class_weights(5).bounds(LossCase::Rows::each, LossCase::Rows::each).groups();
    LossCall call(device, make_problem(c), settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(make_cotangents(c)) == SEGPRIOR_OK);
    f(device, call);
  }
}

std::vector<Tensor *> results(LossCall &call) {
  std::vector<Tensor *> all;
  for (const auto &list : {call.output_list(), call.gradient_list()})
    for (const auto &tensor : list) all.push_back(tensor.second);
  return all;
}

}  // namespace

TEST_CASE("losses structs of version 0.4 mean what they meant [small]") {
  everywhere([](Device &device, LossCall &call) {
    const auto expected = contents(call);
    for (Tensor *tensor : results(call)) tensor->memory().fill(0x77);
    call.info->fill(0x77);
    Structs structs(device, call, 0);
    CHECK_MESSAGE(structs.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK_MESSAGE(structs.backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK(contents(call) == expected);
    size_t bytes[3];
    CHECK(segprior_loss_workspace_size(device.context(), structs.opts.get(), structs.inputs.get(), &bytes[0],
                                       &bytes[1]) == SEGPRIOR_OK);
    CHECK(segprior_loss_saved_size(device.context(), structs.opts.get(), structs.inputs.get(), &bytes[2]) ==
          SEGPRIOR_OK);
    CHECK(bytes[0] == call.forward_workspace->bytes());
    CHECK(bytes[1] == call.backward_workspace->bytes());
    CHECK(bytes[2] == call.saved->bytes());
  });
}

TEST_CASE("losses opts_init writes exactly the caller's size [small]") {
  using Opts = segprior_loss_opts;
  Opts full;
  REQUIRE(segprior_loss_opts_init(&full, sizeof full) == SEGPRIOR_OK);
  uint64_t memory[sizeof(Opts) / 8 + 4];
  unsigned char *bytes = reinterpret_cast<unsigned char *>(memory);
  for (size_t size : {kFirstOpts, sizeof(Opts), sizeof(Opts) + 8, sizeof(Opts) + 24}) {
    std::memset(bytes, 0x5a, sizeof memory);
    REQUIRE(segprior_loss_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_OK);
    size_t written;
    std::memcpy(&written, bytes, sizeof written);
    CHECK(written == size);
    CHECK(std::memcmp(bytes + sizeof written, reinterpret_cast<unsigned char *>(&full) + sizeof written,
                      std::min(size, sizeof full) - sizeof written) == 0);
    for (size_t k = sizeof full; k < size; ++k) CHECK(bytes[k] == 0);
    for (size_t k = size; k < sizeof memory; ++k) CHECK(bytes[k] == 0x5a);
  }
  CHECK(segprior_loss_opts_init(nullptr, sizeof full) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("opts"));
  for (size_t size : {size_t(0), sizeof(size_t), kFirstOpts - 8, kFirstOpts + 1, sizeof(Opts) - 1,
                      sizeof(Opts) + 1, size_t(1) << 40}) {
    std::memset(bytes, 0x5a, sizeof memory);
    CHECK(segprior_loss_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_ERROR_OPTIONS);
    CHECK(message_has("struct_size = " + std::to_string(size)));
    for (size_t k = 0; k < sizeof memory; ++k) REQUIRE(bytes[k] == 0x5a);
  }
}

TEST_CASE("losses structs of a newer header: a zero tail is accepted, another one is not [small]") {
  everywhere([](Device &device, LossCall &call) {
    Structs newer(device, call, 24 + sizeof(segprior_loss_opts) - kFirstOpts);
    const auto works = [&] {
      CHECK_MESSAGE(newer.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_MESSAGE(newer.backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    };
    works();
    const auto refuses = [&](unsigned char &byte, const char *name, auto run) {
      byte = 1;
      for (Tensor *tensor : results(call)) tensor->memory().fill(0x77);
      CHECK(run() == SEGPRIOR_ERROR_OPTIONS);
      CHECK(message_has(name));
      for (Tensor *tensor : results(call))
        CHECK(tensor->memory().content() == std::vector<unsigned char>(tensor->memory().bytes(), 0x77));
      byte = 0;
    };
    const auto forward = [&] { return newer.forward(); };
    const auto backward = [&] { return newer.backward(); };
    refuses(newer.opts.from_end(23), "opts", forward);
    refuses(newer.opts.from_end(0), "opts", backward);
    refuses(newer.inputs.from_end(7), "inputs", forward);
    refuses(newer.inputs.from_end(7), "inputs", backward);
    refuses(newer.outputs.from_end(0), "outputs", forward);
    refuses(newer.cotangents.from_end(1), "cotangents", backward);
    refuses(newer.grads.from_end(23), "grads", backward);
    works();
  });
}

TEST_CASE("losses struct sizes that no version has are refused [small]") {
  everywhere([](Device &device, LossCall &call) {
    Structs structs(device, call, 0);
    const auto refuses = [&](auto &given, const char *name, size_t first, size_t now, auto run) {
      for (size_t size :
           {size_t(0), size_t(4), sizeof(size_t), first - 8, first + 1, now - 1, now + 4, size_t(1) << 60}) {
        given.claim(size);
        CHECK(run() == SEGPRIOR_ERROR_OPTIONS);
        CHECK(message_has(std::string(name) + ".struct_size = " + std::to_string(size)));
      }
      given.claim(first);
    };
    const auto forward = [&] { return structs.forward(); };
    const auto backward = [&] { return structs.backward(); };
    refuses(structs.opts, "opts", kFirstOpts, sizeof(segprior_loss_opts), forward);
    refuses(structs.opts, "opts", kFirstOpts, sizeof(segprior_loss_opts), backward);
    refuses(structs.inputs, "inputs", kFirstInputs, sizeof(segprior_loss_inputs), forward);
    refuses(structs.outputs, "outputs", kFirstOutputs, sizeof(segprior_loss_outputs), forward);
    refuses(structs.cotangents, "cotangents", kFirstCotangents, sizeof(segprior_loss_cotangents), backward);
    refuses(structs.grads, "grads", kFirstGrads, sizeof(segprior_loss_grads), backward);
  });
}
