// The bad-input tables of proposals.h: a valid call, of which one thing is spoilt, has to give the documented
// status, a message that names the argument, and untouched outputs. And what is valid though it looks odd.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/capi/message.h"
#include "tests/cases/proposals_cases.h"

using namespace segprior;
using namespace segprior::test;
using ref::proposals::Problem;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = INFINITY;
constexpr unsigned char kUntouched = 0x77;

// One valid call with every argument, which a test may spoil.
struct Arguments {
  explicit Arguments(Device &device)
      : device(device),
        call(device, ProposalCase{{5, 7}, 3, 2, ProposalBounds::boxes, 2, SEGPRIOR_FLOAT32, true}.problem(),
             settings()),
        context(device.context()),
        opts(&call.opts),
        inputs(&call.inputs),
        outputs(&call.outputs),
        workspace(call.workspace->data()),
        workspace_bytes(call.workspace->bytes()) {
    for (DeviceArray *array : written()) array->fill(kUntouched);
  }

  static ProposalSettings settings() {
    ProposalSettings s;
    s.dtype = SEGPRIOR_FLOAT32;
    s.poison = kUntouched;
    return s;
  }
  std::vector<DeviceArray *> written() {
    return {&call.proposal->memory(), &call.dual->memory(), &call.volume->memory(), call.info.get()};
  }
  bool untouched() {
    for (DeviceArray *array : written())
      if (array->content() != std::vector<unsigned char>(array->bytes(), kUntouched)) return false;
    return true;
  }
  segprior_status forward() {
    return segprior_proposal_forward(context, opts, inputs, outputs, workspace, workspace_bytes);
  }
  segprior_status size() {
    size_t bytes;
    return segprior_proposal_workspace_size(context, opts, inputs, &bytes);
  }

  Device &device;
  ProposalCall call;
  segprior_context *context;
  const segprior_proposal_opts *opts;
  const segprior_proposal_inputs *inputs;
  const segprior_proposal_outputs *outputs;
  void *workspace;
  size_t workspace_bytes;
  segprior_tensor edited;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];
};

using Spoil = std::function<void(Arguments &)>;

struct Bad {
  std::string what;
  segprior_status status;
  std::string names;  // what the message has to contain
  Spoil spoil;
  bool query = false;  // the size query has to refuse it as well
};

void check_bad(const std::vector<Bad> &table) {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const Bad &bad : table) {
      INFO(bad.what << ", on " << name_of(which));
      Arguments a(device);
      bad.spoil(a);
      for (bool query : {false, true}) {
        if (query && !bad.query) continue;
        CHECK((query ? a.size() : a.forward()) == bad.status);
        CHECK_MESSAGE(message_has(bad.names), std::string(segprior_last_error()));
      }
      device.synchronize();
      CHECK(a.untouched());
    }
    Arguments valid(device);
    CHECK_MESSAGE(valid.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    device.synchronize();
  }
}

using Slot = std::function<const segprior_tensor *&(Arguments &)>;

// A copy of the tensor argument, with contiguous strides, after `change`.
Spoil edit(const Slot &slot, const std::function<void(Arguments &)> &change) {
  return [=](Arguments &a) {
    a.edited = *slot(a);
    int64_t step = 1;
    for (int k = a.edited.ndim - 1; k >= 0; --k) {
      a.shape[k] = a.edited.shape[k];
      a.strides[k] = step;
      step *= a.shape[k];
    }
    a.edited.shape = a.shape;
    a.edited.strides = a.strides;
    change(a);
    slot(a) = &a.edited;
  };
}

struct Argument {
  std::string name;
  bool required, written;
  Slot slot;
};

std::vector<Argument> tensor_arguments() {
  using In = segprior_proposal_inputs;
  using Out = segprior_proposal_outputs;
  const auto in = [](const segprior_tensor *In::*member) -> Slot {
    return [=](Arguments &a) -> const segprior_tensor *& { return a.call.inputs.*member; };
  };
  const auto out = [](const segprior_tensor *Out::*member) -> Slot {
    return [=](Arguments &a) -> const segprior_tensor *& { return a.call.outputs.*member; };
  };
  return {
      {"inputs.logits", true, false, in(&In::logits)},       {"inputs.lower", false, false, in(&In::lower)},
      {"inputs.upper", false, false, in(&In::upper)},        {"inputs.mask", false, false, in(&In::mask)},
      {"outputs.proposal", true, true, out(&Out::proposal)}, {"outputs.dual", false, true, out(&Out::dual)},
      {"outputs.volume", false, true, out(&Out::volume)}};
}

void add_faults(const Argument &argument, std::vector<Bad> &table) {
  const bool input = !argument.written, lead = argument.name == "inputs.logits";
  const auto add = [&](const std::string &what, segprior_status status,
                       const std::function<void(Arguments &)> &change, bool query) {
    table.push_back(
        {argument.name + ": " + what, status, argument.name, edit(argument.slot, change), query && input});
  };
  add(
      "bad dtype", SEGPRIOR_ERROR_DTYPE, [](Arguments &a) { a.edited.dtype = 9; }, true);
  add(
      "negative ndim", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.edited.ndim = -1; }, true);
  add(
      "too many axes", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.edited.ndim = 9; }, true);
  add(
      "no shape", SEGPRIOR_ERROR_NULL_POINTER, [](Arguments &a) { a.edited.shape = nullptr; }, true);
  add(
      "negative extent", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.shape[a.edited.ndim - 1] = -2; }, true);
  add(
      "other device", SEGPRIOR_ERROR_DEVICE, [](Arguments &a) { a.edited.device.index += 1; }, true);
  add(
      "padded rows", SEGPRIOR_ERROR_STRIDES, [](Arguments &a) { a.strides[0] += 1; }, true);
  add(
      "transposed", SEGPRIOR_ERROR_STRIDES,
      [](Arguments &a) { std::swap(a.strides[a.edited.ndim - 1], a.strides[a.edited.ndim - 2]); }, true);
  add(
      "no data", SEGPRIOR_ERROR_NULL_POINTER, [](Arguments &a) { a.edited.data = nullptr; }, false);
  if (argument.name != "inputs.mask")
    add(
        "odd address", SEGPRIOR_ERROR_ALIGNMENT, [](Arguments &a) { a.edited.byte_offset = 1; }, false);
  if (!lead) {
    add(
        "other dtype", SEGPRIOR_ERROR_DTYPE, [](Arguments &a) { a.edited.dtype = SEGPRIOR_FLOAT64; }, true);
    add(
        "batch of 3", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.shape[0] = 3; }, true);
    add(
        "other last extent", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.shape[a.edited.ndim - 1] += 1; },
        true);
    add(
        "one axis less", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.edited.ndim -= 1; }, true);
  } else {
    add(
        "no spatial axis", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.edited.ndim = 2; }, true);
    add(
        "no class", SEGPRIOR_ERROR_SHAPE, [](Arguments &a) { a.shape[1] = 0; }, true);
    add(
        "257 classes", SEGPRIOR_ERROR_SHAPE,
        [](Arguments &a) { a.shape[1] = 257, a.edited.strides = nullptr; }, true);
    add(
        "too large", SEGPRIOR_ERROR_SIZE_OVERFLOW,
        [](Arguments &a) { a.shape[2] = a.shape[3] = int64_t{1} << 31; }, true);
  }
  if (argument.written) {
    add(
        "shares memory with the logits", SEGPRIOR_ERROR_OVERLAP,
        [](Arguments &a) { a.edited.data = a.call.logits->view()->data; }, false);
    add(
        "shares memory with the workspace", SEGPRIOR_ERROR_OVERLAP,
        [](Arguments &a) { a.edited.data = a.workspace; }, false);
  }
  if (argument.required)
    table.push_back({argument.name + " NULL", SEGPRIOR_ERROR_NULL_POINTER, argument.name,
                     [=](Arguments &a) { argument.slot(a) = nullptr; }, input});
}

}  // namespace

TEST_CASE("proposals options: values outside their range [small]") {
  using Opts = segprior_proposal_opts;
  std::vector<Bad> table;
  const auto add = [&](const std::string &name, const std::function<void(Opts &)> &change) {
    table.push_back({name, SEGPRIOR_ERROR_VALUE, "opts." + name + " = ",
                     [=](Arguments &a) { change(a.call.opts); }, true});
  };
  for (int32_t value : {-1, 2}) add("method", [=](Opts &o) { o.method = value; });
  add("iterations", [](Opts &o) { o.iterations = -1; });
  for (double value : {0.0, -1.0, kNaN, kInf}) add("step", [=](Opts &o) { o.step = value; });
  for (double value : {-1e-9, kNaN, kInf}) add("tolerance", [=](Opts &o) { o.tolerance = value; });
  for (size_t size : {sizeof(Opts) - 8, sizeof(Opts) + 1, size_t{0}, size_t{1} << 20})
    table.push_back({"opts.struct_size", SEGPRIOR_ERROR_OPTIONS, "opts.struct_size",
                     [=](Arguments &a) { a.call.opts.struct_size = size; }, true});
  table.push_back({"inputs.struct_size", SEGPRIOR_ERROR_OPTIONS, "inputs.struct_size",
                   [](Arguments &a) { a.call.inputs.struct_size = 0; }, true});
  table.push_back({"outputs.struct_size", SEGPRIOR_ERROR_OPTIONS, "outputs.struct_size",
                   [](Arguments &a) { a.call.outputs.struct_size = 0; }});
  check_bad(table);
}

TEST_CASE("proposals arguments: pointers and buffers [small]") {
  const auto info = [](void *at) { return static_cast<segprior_info *>(at); };
  check_bad({
      {"context", SEGPRIOR_ERROR_NULL_POINTER, "context", [](Arguments &a) { a.context = nullptr; }, true},
      {"opts", SEGPRIOR_ERROR_NULL_POINTER, "opts", [](Arguments &a) { a.opts = nullptr; }, true},
      {"inputs", SEGPRIOR_ERROR_NULL_POINTER, "inputs", [](Arguments &a) { a.inputs = nullptr; }, true},
      {"outputs", SEGPRIOR_ERROR_NULL_POINTER, "outputs", [](Arguments &a) { a.outputs = nullptr; }},
      {"workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace", [](Arguments &a) { a.workspace = nullptr; }},
      {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL,
       "workspace_bytes = ", [](Arguments &a) { a.workspace_bytes -= 1; }},
      {"odd workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
       [](Arguments &a) { a.workspace = static_cast<char *>(a.workspace) + 8; }},
      {"odd info", SEGPRIOR_ERROR_ALIGNMENT, "outputs.info",
       [=](Arguments &a) { a.call.outputs.info = info(static_cast<char *>(a.call.info->data()) + 4); }},
      {"info in the workspace", SEGPRIOR_ERROR_OVERLAP, "outputs.info",
       [=](Arguments &a) { a.call.outputs.info = info(a.workspace); }},
  });
  for (segprior_device which : all_devices()) {
    Device device(which);
    Arguments a(device);
    CHECK(segprior_proposal_workspace_size(a.context, a.opts, a.inputs, nullptr) ==
          SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(message_has("bytes is NULL"));
  }
  CHECK(segprior_proposal_opts_init(nullptr, sizeof(segprior_proposal_opts)) == SEGPRIOR_ERROR_NULL_POINTER);
  segprior_proposal_opts opts;
  CHECK(segprior_proposal_opts_init(&opts, 3) == SEGPRIOR_ERROR_OPTIONS);
}

TEST_CASE("proposals arguments: every tensor, every way to be wrong [small]") {
  std::vector<Bad> table;
  for (const Argument &argument : tensor_arguments()) add_faults(argument, table);
  check_bad(table);
}

TEST_CASE("proposals structs of a newer caller [small]") {
  struct Newer {
    segprior_proposal_opts opts;
    int64_t tail;
  };
  for (segprior_device which : all_devices()) {
    Device device(which);
    Arguments a(device);
    Newer newer{a.call.opts, 0};
    newer.opts.struct_size = sizeof newer;
    a.opts = &newer.opts;
    CHECK(a.forward() == SEGPRIOR_OK);
    newer.tail = 1;
    CHECK(a.forward() == SEGPRIOR_ERROR_OPTIONS);
    device.synchronize();
  }
}

TEST_CASE("proposals: an empty batch or image is a valid call; its small results are 0 [small]") {
  for (segprior_device which : all_devices())
    for (bool no_image : {false, true}) {
      Device device(which);
      Problem p;
      p.batch = no_image ? 0 : 2;
      p.classes = 3;
      p.spatial = {4, no_image ? 5 : 0};
      ProposalCall call(device, p, Arguments::settings());
      CHECK(call.workspace->bytes() == 0);
      CHECK_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      for (const DeviceArray *array : {&call.dual->memory(), &call.volume->memory()})
        CHECK(array->content() == std::vector<unsigned char>(array->bytes(), 0));
      CHECK(call.info->content() == std::vector<unsigned char>(call.info->bytes(), 0));
    }
}

TEST_CASE("proposals: size queries read no data [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    Arguments a(device);
    for (TensorPtr *tensor : {&a.call.logits, &a.call.lower, &a.call.upper, &a.call.mask})
      (*tensor)->view()->data = nullptr;
    size_t bytes = 0;
    CHECK(segprior_proposal_workspace_size(a.context, a.opts, a.inputs, &bytes) == SEGPRIOR_OK);
    CHECK(bytes == a.workspace_bytes);
  }
}
