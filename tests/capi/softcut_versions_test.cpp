// Structs of softcut.h in the sizes of other versions: each as it was introduced, and one compiled with a
// header of the future.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/capi/headers.h"
#include "tests/capi/message.h"
#include "tests/cases/softcut_cases.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Sizes of version 0.3, as numbers: a later change of a struct must not move them.
constexpr size_t kFirstOpts = 56, kFirstInputs = 72, kFirstOutputs = 24, kFirstGrads = 72,
                 kFirstCotangents = 64, kFirstSecond = 80;

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

// The structs of the three calls, each `more` bytes longer than in its first version.
struct Structs {
  Device &device;
  SoftcutCall &call;
  Sized<segprior_softcut_opts> opts;
  Sized<segprior_softcut_inputs> inputs;
  Sized<segprior_softcut_outputs> outputs;
  Sized<segprior_softcut_grads> grads;
  Sized<segprior_softcut_cotangents> cotangents;
  Sized<segprior_softcut_second_grads> second_grads;

  Structs(Device &on, SoftcutCall &of, size_t more)
      : device(on),
        call(of),
        opts(of.opts, kFirstOpts + more),
        inputs(of.inputs, kFirstInputs + more),
        outputs(of.outputs, kFirstOutputs + more),
        grads(of.grads, kFirstGrads + more),
        cotangents(of.cotangents, kFirstCotangents + more),
        second_grads(of.second_grads, kFirstSecond + more) {}

  segprior_status forward() {
    const segprior_status status = segprior_softcut_forward(
        device.context(), opts.get(), inputs.get(), outputs.get(), call.forward_workspace->data(),
        call.forward_workspace->bytes(), call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
  segprior_status backward() {
    const segprior_status status =
        segprior_softcut_backward(device.context(), opts.get(), inputs.get(), call.x->view(),
                                  call.grad_x->view(), grads.get(), call.backward_workspace->data(),
                                  call.backward_workspace->bytes(), call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
  segprior_status double_backward() {
    const segprior_status status = segprior_softcut_double_backward(
        device.context(), opts.get(), inputs.get(), call.x->view(), call.l->view(), cotangents.get(),
        second_grads.get(), call.double_backward_workspace->data(), call.double_backward_workspace->bytes(),
        call.saved->data(), call.saved->bytes());
    device.synchronize();
    return status;
  }
};

std::vector<Tensor *> results(SoftcutCall &call) {
  std::vector<Tensor *> all{call.x.get()};
  for (const auto &list : {call.gradient_list(), call.second_list()})
    for (const auto &gradient : list) all.push_back(gradient.second);
  return all;
}

// Calls f with a solved problem on every device.
template <class F>
void everywhere(const F &f) {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const SoftcutCase c = SoftcutCase({4, 5}, 2, 2).f32().diagonals().conductance(2).init().tolerance(1e-3);
    SoftcutCall call(device, make_problem(c), settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(make_grad_x(c)) == SEGPRIOR_OK);
    REQUIRE(call.double_backward(call.grad_scores->get(), make_cotangents(c)) == SEGPRIOR_OK);
    f(device, call);
  }
}

}  // namespace

TEST_CASE("softcut.h compiles as C99 [small]") { CHECK(segprior_test_softcut_header() == 0); }

TEST_CASE("softcut structs of version 0.3 mean what they meant [small]") {
  everywhere([](Device &device, SoftcutCall &call) {
    std::vector<std::vector<unsigned char>> expected;
    for (Tensor *tensor : results(call)) {
      expected.push_back(tensor->memory().content());
      tensor->memory().fill(0x77);
    }
    Structs structs(device, call, 0);
    CHECK_MESSAGE(structs.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK_MESSAGE(structs.backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK_MESSAGE(structs.double_backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    size_t k = 0;
    for (Tensor *tensor : results(call)) CHECK(tensor->memory().content() == expected[k++]);
    size_t bytes[4];
    CHECK(segprior_softcut_workspace_size(device.context(), structs.opts.get(), structs.inputs.get(),
                                          &bytes[0], &bytes[1], &bytes[2]) == SEGPRIOR_OK);
    CHECK(segprior_softcut_saved_size(device.context(), structs.opts.get(), structs.inputs.get(),
                                      &bytes[3]) == SEGPRIOR_OK);
    CHECK(bytes[0] == call.forward_workspace->bytes());
    CHECK(bytes[1] == call.backward_workspace->bytes());
    CHECK(bytes[2] == call.double_backward_workspace->bytes());
    CHECK(bytes[3] == call.saved->bytes());
  });
}

TEST_CASE("softcut opts_init writes exactly the caller's size [small]") {
  using Opts = segprior_softcut_opts;
  Opts full;
  REQUIRE(segprior_softcut_opts_init(&full, sizeof full) == SEGPRIOR_OK);
  uint64_t memory[sizeof(Opts) / 8 + 4];
  unsigned char *bytes = reinterpret_cast<unsigned char *>(memory);
  for (size_t size : {kFirstOpts, sizeof(Opts), sizeof(Opts) + 8, sizeof(Opts) + 24}) {
    std::memset(bytes, 0x5a, sizeof memory);
    REQUIRE(segprior_softcut_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_OK);
    size_t written;
    std::memcpy(&written, bytes, sizeof written);
    CHECK(written == size);
    CHECK(std::memcmp(bytes + sizeof written, reinterpret_cast<unsigned char *>(&full) + sizeof written,
                      std::min(size, sizeof full) - sizeof written) == 0);
    for (size_t k = sizeof full; k < size; ++k) CHECK(bytes[k] == 0);
    for (size_t k = size; k < sizeof memory; ++k) CHECK(bytes[k] == 0x5a);
  }
  CHECK(segprior_softcut_opts_init(nullptr, sizeof full) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("opts"));
  for (size_t size : {size_t(0), sizeof(size_t), kFirstOpts - 8, kFirstOpts + 1, sizeof(Opts) - 1,
                      sizeof(Opts) + 1, size_t(1) << 40}) {
    std::memset(bytes, 0x5a, sizeof memory);
    CHECK(segprior_softcut_opts_init(reinterpret_cast<Opts *>(bytes), size) == SEGPRIOR_ERROR_OPTIONS);
    CHECK(message_has("struct_size = " + std::to_string(size)));
    for (size_t k = 0; k < sizeof memory; ++k) REQUIRE(bytes[k] == 0x5a);
  }
}

TEST_CASE("softcut structs of a newer header: a zero tail is accepted, another one is not [small]") {
  everywhere([](Device &device, SoftcutCall &call) {
    Structs newer(device, call, 24 + sizeof(segprior_softcut_opts) - kFirstOpts);
    const auto works = [&] {
      CHECK_MESSAGE(newer.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_MESSAGE(newer.backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_MESSAGE(newer.double_backward() == SEGPRIOR_OK, std::string(segprior_last_error()));
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
    const auto double_backward = [&] { return newer.double_backward(); };
    refuses(newer.opts.from_end(23), "opts", forward);
    refuses(newer.opts.from_end(0), "opts", double_backward);
    refuses(newer.inputs.from_end(7), "inputs", forward);
    refuses(newer.inputs.from_end(7), "inputs", backward);
    refuses(newer.outputs.from_end(0), "outputs", forward);
    refuses(newer.grads.from_end(23), "grads", backward);
    refuses(newer.cotangents.from_end(1), "cotangents", double_backward);
    refuses(newer.second_grads.from_end(8), "grads", double_backward);
    works();
  });
}

TEST_CASE("softcut struct sizes that no version has are refused [small]") {
  everywhere([](Device &device, SoftcutCall &call) {
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
    const auto double_backward = [&] { return structs.double_backward(); };
    refuses(structs.opts, "opts", kFirstOpts, sizeof(segprior_softcut_opts), forward);
    refuses(structs.inputs, "inputs", kFirstInputs, sizeof(segprior_softcut_inputs), forward);
    refuses(structs.outputs, "outputs", kFirstOutputs, sizeof(segprior_softcut_outputs), forward);
    refuses(structs.grads, "grads", kFirstGrads, sizeof(segprior_softcut_grads), backward);
    refuses(structs.cotangents, "cotangents", kFirstCotangents, sizeof(segprior_softcut_cotangents),
            double_backward);
    refuses(structs.second_grads, "grads", kFirstSecond, sizeof(segprior_softcut_second_grads),
            double_backward);
  });
}
