#include "tests/capi/bad_arguments.h"

#include <utility>

namespace segprior::test {

namespace {

constexpr unsigned char kUntouched = 0x77;

size_t element_size(int32_t dtype) {
  return dtype == SEGPRIOR_FLOAT64 ? 8 : dtype == SEGPRIOR_FLOAT32 ? 4 : dtype == SEGPRIOR_UINT8 ? 1 : 2;
}

size_t bytes_of(const segprior_tensor &t) {
  size_t bytes = element_size(t.dtype);
  for (int k = 0; k < t.ndim; ++k) bytes *= static_cast<size_t>(t.shape[k]);
  return bytes;
}

}  // namespace

CallArguments::CallArguments(Device &device, const Case &c, int32_t mode)
    : call(device, make_problem(c), settings_of(c)) {
  call.opts.backward_mode = mode;
  call.opts.implicit_iterations = 3;  // they need not converge
  call.allocate();
  REQUIRE(call.forward() == SEGPRIOR_OK);
  REQUIRE(call.backward(mode, make_grad_u(c)) == SEGPRIOR_OK);
  valid_ = {device.context(), call.opts, call.inputs, call.outputs, call.grads};
  reset();
}

void CallArguments::reset() {
  context = valid_.context;
  call.opts = valid_.opts;
  call.inputs = valid_.inputs;
  call.outputs = valid_.outputs;
  call.grads = valid_.grads;
  opts = &call.opts;
  inputs = &call.inputs;
  outputs = &call.outputs;
  grads = &call.grads;
  u = call.opts.backward_mode == SEGPRIOR_BACKWARD_LAST ? call.u->view() : nullptr;
  grad_u = call.grad_u->view();
  forward_workspace = call.forward_workspace->data();
  backward_workspace = call.backward_workspace->data();
  saved = call.saved->data();
  forward_bytes = call.forward_workspace->bytes();
  backward_bytes = call.backward_workspace->bytes();
  saved_bytes = call.saved->bytes();
  for (DeviceArray *array : written()) array->fill(kUntouched);
}

std::vector<DeviceArray *> CallArguments::written() {
  std::vector<DeviceArray *> all{&call.u->memory(), call.info.get(), call.backward_info.get()};
  for (const TensorPtr *tensor : {&call.tv_dual, &call.volume_dual, &call.star_dual})
    if (*tensor) all.push_back(&(*tensor)->memory());
  for (const auto &gradient : call.gradient_list()) all.push_back(&gradient.second->memory());
  return all;
}

bool CallArguments::untouched() {
  for (DeviceArray *array : written())
    if (array->content() != std::vector<unsigned char>(array->bytes(), kUntouched)) return false;
  return true;
}

segprior_status CallArguments::run(Function function) {
  size_t a = 0, b = 0;
  switch (function) {
    case Function::forward:
      return segprior_softmax_forward(context, opts, inputs, outputs, forward_workspace, forward_bytes, saved,
                                      saved_bytes);
    case Function::backward:
      return segprior_softmax_backward(context, opts, inputs, u, grad_u, grads, backward_workspace,
                                       backward_bytes, saved, saved_bytes);
    case Function::workspace_size:
      return segprior_softmax_workspace_size(context, opts, inputs, &a, &b);
    default:
      return segprior_softmax_saved_size(context, opts, inputs, &a);
  }
}

void check_bad(const Case &c, Function function, const std::vector<Bad> &table, int32_t mode) {
  const std::string functions[] = {"forward", "backward", "workspace_size", "saved_size"};
  for (segprior_device which : all_devices()) {
    Device device(which);
    CallArguments arguments(device, c, mode);
    for (const Bad &bad : table) {
      const std::string title =
          functions[static_cast<int>(function)] + ", " + bad.what + ", on " + name_of(which);
      INFO(title);
      arguments.reset();
      bad.spoil(arguments);
      CHECK(arguments.run(function) == bad.status);
      const std::string message = segprior_last_error();
      const bool named = message.find(bad.names) != std::string::npos;
      CHECK_MESSAGE(named, "the message \"" << message << "\" does not contain \"" << bad.names << "\"");
      device.synchronize();
      CHECK(arguments.untouched());
    }
  }
}

std::function<void(CallArguments &)> edit(std::function<Slot(CallArguments &)> slot,
                                          std::function<void(Edited &)> change) {
  return [=](CallArguments &a) {
    static thread_local Edited edited;
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

void check_tensor(const Case &c, Function function, const TensorArgument &argument) {
  Device cpu({SEGPRIOR_CPU, 0});
  CallArguments probe(cpu, c);
  const segprior_tensor given = *argument.slot(probe);
  const size_t bytes = bytes_of(given);
  const bool features = argument.name == "inputs.features", one_element = bytes == element_size(given.dtype);

  std::vector<Bad> table;
  const auto add = [&](const char *what, segprior_status status, std::function<void(Edited &)> change) {
    table.push_back({what, status, argument.name, edit(argument.slot, std::move(change))});
  };
  add("bad dtype", SEGPRIOR_ERROR_DTYPE, [](Edited &e) { e.tensor.dtype = 9; });
  add("too many axes", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = SEGPRIOR_MAX_NDIM + 1; });
  add("negative ndim", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = -1; });
  add("no axes", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = 0; });
  add("no shape", SEGPRIOR_ERROR_NULL_POINTER, [](Edited &e) { e.tensor.shape = nullptr; });
  add("negative extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[e.tensor.ndim - 1] = -2; });
  add("other device type", SEGPRIOR_ERROR_DEVICE,
      [](Edited &e) { e.tensor.device.type = 3 - e.tensor.device.type; });
  add("other device index", SEGPRIOR_ERROR_DEVICE, [](Edited &e) { e.tensor.device.index += 1; });
  add("unknown device type", SEGPRIOR_ERROR_DEVICE, [](Edited &e) { e.tensor.device.type = 77; });
  if (!features) {  // the features' shape and dtype are what the others are compared with
    for (int32_t dtype :
         {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64, SEGPRIOR_FLOAT16, SEGPRIOR_BFLOAT16, SEGPRIOR_UINT8})
      if (dtype != given.dtype)
        add("other dtype", SEGPRIOR_ERROR_DTYPE, [=](Edited &e) { e.tensor.dtype = dtype; });
    add("other extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[0] += 1; });
    add("other last extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[e.tensor.ndim - 1] += 1; });
    add("one axis more", SEGPRIOR_ERROR_SHAPE, [](Edited &e) {
      e.shape[e.tensor.ndim] = e.strides[e.tensor.ndim] = 1;
      e.tensor.ndim += 1;
    });
  }
  if (!one_element) {  // one element has no strides to speak of
    add("padded rows", SEGPRIOR_ERROR_STRIDES, [](Edited &e) { e.strides[0] += 1; });
    add("stride 0", SEGPRIOR_ERROR_STRIDES, [](Edited &e) { e.strides[0] = 0; });
  }
  if (given.ndim > 1)
    add("transposed", SEGPRIOR_ERROR_STRIDES,
        [](Edited &e) { std::swap(e.strides[e.tensor.ndim - 1], e.strides[e.tensor.ndim - 2]); });
  if (function == Function::forward || function == Function::backward) {
    add("no data", SEGPRIOR_ERROR_NULL_POINTER, [](Edited &e) { e.tensor.data = nullptr; });
    if (given.dtype != SEGPRIOR_UINT8)
      add("odd address", SEGPRIOR_ERROR_ALIGNMENT, [](Edited &e) { e.tensor.byte_offset = 1; });
  }
  if (argument.written) {
    table.push_back(
        {"shares memory with the features", SEGPRIOR_ERROR_OVERLAP, argument.name, [=](CallArguments &a) {
           void *data = a.call.features->view()->data;
           edit(argument.slot, [=](Edited &e) { e.tensor.data = data; })(a);
         }});
    table.push_back(
        {"shares memory with the workspace", SEGPRIOR_ERROR_OVERLAP, "workspace", [=](CallArguments &a) {
           const bool forward = function == Function::forward;
           char *space = static_cast<char *>(forward ? a.forward_workspace : a.backward_workspace);
           const size_t size = forward ? a.forward_bytes : a.backward_bytes;
           // Its last bytes, if the tensor is small enough to lie there.
           if (bytes <= 256) space += size / 256 * 256 - 256;
           edit(argument.slot, [=](Edited &e) { e.tensor.data = space; })(a);
         }});
  }
  if (argument.required)
    table.push_back({"NULL", SEGPRIOR_ERROR_NULL_POINTER, argument.name,
                     [=](CallArguments &a) { argument.slot(a) = nullptr; }});
  check_bad(c, function, table);
}

}  // namespace segprior::test
