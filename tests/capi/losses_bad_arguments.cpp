#include "tests/capi/losses_bad_arguments.h"

#include <utility>

namespace segprior::test {

namespace {

constexpr unsigned char kUntouched = 0x77;
using Kind = LossTensorArgument::Kind;

}  // namespace

LossArguments::LossArguments(Device &device, const LossCase &c)
    : call(device, make_problem(c), settings_of(c)),
      volumes_(device.which(), SEGPRIOR_INT64, {2, 3}, {1, 2, 3, 4, 5, 6}),
      lower_(device.which(), c.parameter_dtype(), {2, 3}),
      upper_(device.which(), c.parameter_dtype(), {2, 3}) {
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(call.backward(make_cotangents(c)) == SEGPRIOR_OK, std::string(segprior_last_error()));
  valid_ = {device.context(), call.opts, call.inputs, call.outputs, call.cotangents, call.grads};
  if (call.cotangents.voxels) valid_.grads.class_weights = nullptr;
  reset();
}

void LossArguments::reset() {
  context = valid_.context;
  call.opts = valid_.opts;
  call.inputs = valid_.inputs;
  call.outputs = valid_.outputs;
  call.cotangents = valid_.cotangents;
  call.grads = valid_.grads;
  opts = &call.opts;
  inputs = &call.inputs;
  outputs = &call.outputs;
  cotangents = &call.cotangents;
  grads = &call.grads;
  const DeviceArray *const arrays[] = {call.forward_workspace.get(), call.backward_workspace.get()};
  for (int k = 0; k < 2; ++k) {
    workspace[k] = arrays[k]->data();
    workspace_bytes[k] = arrays[k]->bytes();
  }
  saved = call.saved->data();
  saved_bytes = call.saved->bytes();
  saved_answer = &answer_;
  kind = SEGPRIOR_BOUNDS_INDIVIDUAL;
  bound_voxels = 100;
  low = 0.9;
  high = 1.1;
  volumes = volumes_.view();
  lower = lower_.view();
  upper = upper_.view();
  for (DeviceArray *array : written()) array->fill(kUntouched);
}

std::vector<DeviceArray *> LossArguments::written() {
  std::vector<DeviceArray *> all{call.info.get(), &lower_.memory(), &upper_.memory()};
  for (const auto &list : {call.output_list(), call.gradient_list()})
    for (const auto &tensor : list) all.push_back(&tensor.second->memory());
  return all;
}

bool LossArguments::untouched() {
  for (DeviceArray *array : written())
    if (array->content() != std::vector<unsigned char>(array->bytes(), kUntouched)) return false;
  return true;
}

segprior_status LossArguments::run(LossFunction function) {
  size_t bytes[2];
  switch (function) {
    case LossFunction::forward:
      return segprior_loss_forward(context, opts, inputs, outputs, workspace[0], workspace_bytes[0], saved,
                                   saved_bytes);
    case LossFunction::backward:
      return segprior_loss_backward(context, opts, inputs, cotangents, grads, workspace[1],
                                    workspace_bytes[1], saved, saved_bytes);
    case LossFunction::workspace_size:
      return segprior_loss_workspace_size(context, opts, inputs, &bytes[0], &bytes[1]);
    case LossFunction::saved_size:
      return segprior_loss_saved_size(context, opts, inputs, saved_answer);
    default:
      return segprior_size_bounds(context, kind, volumes, bound_voxels, low, high, lower, upper);
  }
}

void check_bad(const LossCase &c, LossFunction function, const std::vector<LossBad> &table) {
  const std::string functions[] = {"forward", "backward", "workspace_size", "saved_size", "size_bounds"};
  for (segprior_device which : all_devices()) {
    Device device(which);
    LossArguments arguments(device, c);
    for (const LossBad &bad : table) {
      INFO(functions[static_cast<int>(function)] << ", " << bad.what << ", on " << name_of(which));
      arguments.reset();
      bad.spoil(arguments);
      CHECK(arguments.run(function) == bad.status);
      const std::string message = segprior_last_error();
      const bool named = message.find(bad.names) != std::string::npos;
      CHECK_MESSAGE(named, "the message \"" << message << "\" does not contain \"" << bad.names << "\"");
      device.synchronize();
      CHECK(arguments.untouched());
    }
    arguments.reset();
    CHECK_MESSAGE(arguments.run(function) == SEGPRIOR_OK, std::string(segprior_last_error()));
    device.synchronize();
  }
}

std::function<void(LossArguments &)> edit(const LossSlot &slot,
                                          std::function<void(LossEditedTensor &)> change) {
  return [=](LossArguments &a) {
    static thread_local LossEditedTensor edited;
    edited.tensor = *slot(a);
    int64_t step = 1;
    for (int k = edited.tensor.ndim - 1; k >= 0; --k) {
      edited.shape[k] = edited.tensor.shape[k];
      edited.strides[k] = step;
      step *= edited.shape[k];
    }
    edited.tensor.shape = edited.shape;
    edited.tensor.strides = edited.strides;
    change(edited);
    slot(a) = &edited.tensor;
  };
}

namespace {

// The dtypes that an argument of a call with scores of `field` may not have.
std::vector<int32_t> wrong_dtypes(Kind kind, int32_t given, int32_t field) {
  std::vector<int32_t> wrong{0, 8, -1};
  for (int32_t dtype = SEGPRIOR_FLOAT32; dtype <= SEGPRIOR_INT64; ++dtype) {
    bool right = dtype == given;
    if (kind == Kind::label) right = dtype >= SEGPRIOR_UINT8;
    if (kind == Kind::target) right = dtype == field || dtype == SEGPRIOR_UINT8;
    if (!right) wrong.push_back(dtype);
  }
  return wrong;
}

// Every way in which a tensor argument, valid as given, can be wrong.
void add_faults(const segprior_tensor &given, int32_t field, LossFunction function,
                const LossTensorArgument &argument, std::vector<LossBad> &table) {
  // The lead's shape and dtype are what the others are compared with.
  const bool lead = argument.name == "inputs.scores" || argument.name == "lower";
  const auto add = [&](const std::string &what, segprior_status status,
                       std::function<void(LossEditedTensor &)> change) {
    table.push_back(
        {argument.name + ": " + what, status, argument.name, edit(argument.slot, std::move(change))});
  };
  for (int32_t dtype : wrong_dtypes(argument.kind, given.dtype, field)) {
    if (lead && dtype >= SEGPRIOR_FLOAT32 && dtype <= SEGPRIOR_BFLOAT16) continue;
    add("dtype " + std::to_string(dtype), SEGPRIOR_ERROR_DTYPE,
        [=](LossEditedTensor &e) { e.tensor.dtype = dtype; });
  }
  add("too many axes", SEGPRIOR_ERROR_SHAPE,
      [](LossEditedTensor &e) { e.tensor.ndim = SEGPRIOR_MAX_NDIM + 1; });
  add("negative ndim", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) { e.tensor.ndim = -1; });
  add("no axes", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) { e.tensor.ndim = 0; });
  add("no shape", SEGPRIOR_ERROR_NULL_POINTER, [](LossEditedTensor &e) { e.tensor.shape = nullptr; });
  add("negative extent", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) { e.shape[e.tensor.ndim - 1] = -2; });
  add("other device type", SEGPRIOR_ERROR_DEVICE,
      [](LossEditedTensor &e) { e.tensor.device.type = 3 - e.tensor.device.type; });
  add("other device index", SEGPRIOR_ERROR_DEVICE, [](LossEditedTensor &e) { e.tensor.device.index += 1; });
  if (!lead) {
    for (int axis = 0; axis < given.ndim; ++axis)
      add("other extent of axis " + std::to_string(axis), SEGPRIOR_ERROR_SHAPE,
          [=](LossEditedTensor &e) { e.shape[axis] += 3; });
    add("one axis more", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) {
      e.shape[e.tensor.ndim] = e.strides[e.tensor.ndim] = 1;
      e.tensor.ndim += 1;
    });
  }
  if (given.ndim > 1) {
    add("padded rows", SEGPRIOR_ERROR_STRIDES,
        [](LossEditedTensor &e) { e.strides[e.tensor.ndim - 2] += 1; });
    add("transposed", SEGPRIOR_ERROR_STRIDES,
        [](LossEditedTensor &e) { std::swap(e.strides[e.tensor.ndim - 1], e.strides[e.tensor.ndim - 2]); });
  }
  if (given.shape[given.ndim - 1] > 1)
    add("stride 0", SEGPRIOR_ERROR_STRIDES, [](LossEditedTensor &e) { e.strides[e.tensor.ndim - 1] = 0; });
  const bool sizes_only = function == LossFunction::workspace_size || function == LossFunction::saved_size;
  if (!sizes_only) {
    add("no data", SEGPRIOR_ERROR_NULL_POINTER, [](LossEditedTensor &e) { e.tensor.data = nullptr; });
    if (given.dtype != SEGPRIOR_UINT8)
      add("odd address", SEGPRIOR_ERROR_ALIGNMENT, [](LossEditedTensor &e) { e.tensor.byte_offset = 1; });
  }
  if (argument.written && function != LossFunction::bounds) {
    const int k = static_cast<int>(function);
    table.push_back({argument.name + ": shares memory with the scores", SEGPRIOR_ERROR_OVERLAP, argument.name,
                     [=](LossArguments &a) {
                       void *data = a.call.scores->view()->data;
                       edit(argument.slot, [=](LossEditedTensor &e) { e.tensor.data = data; })(a);
                     }});
    // A tensor larger than the buffer also reaches into what lies behind it: which of the two is named, is
    // open.
    table.push_back({argument.name + ": shares memory with the workspace", SEGPRIOR_ERROR_OVERLAP,
                     argument.name, [=](LossArguments &a) {
                       void *data = a.workspace[k];
                       edit(argument.slot, [=](LossEditedTensor &e) { e.tensor.data = data; })(a);
                     }});
    table.push_back({argument.name + ": shares memory with saved", SEGPRIOR_ERROR_OVERLAP, argument.name,
                     [=](LossArguments &a) {
                       void *data = a.saved;
                       edit(argument.slot, [=](LossEditedTensor &e) { e.tensor.data = data; })(a);
                     }});
  }
  if (argument.required)
    table.push_back({argument.name + ": NULL", SEGPRIOR_ERROR_NULL_POINTER, argument.name,
                     [=](LossArguments &a) { argument.slot(a) = nullptr; }});
}

}  // namespace

void check_tensors(const LossCase &c, LossFunction function,
                   const std::vector<LossTensorArgument> &arguments) {
  Device cpu({SEGPRIOR_CPU, 0});
  LossArguments probe(cpu, c);
  std::vector<LossBad> table;
  for (const LossTensorArgument &argument : arguments)
    add_faults(*argument.slot(probe), c.dtype_, function, argument, table);
  check_bad(c, function, table);
}

}  // namespace segprior::test
