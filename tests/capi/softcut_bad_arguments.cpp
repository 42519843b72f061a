#include "tests/capi/softcut_bad_arguments.h"

#include <utility>

namespace segprior::test {

namespace {

constexpr unsigned char kUntouched = 0x77;

size_t element_size(int32_t dtype) {
  return dtype == SEGPRIOR_FLOAT64 ? 8 : dtype == SEGPRIOR_FLOAT32 ? 4 : 2;
}

size_t bytes_of(const segprior_tensor &t) {
  size_t bytes = element_size(t.dtype);
  for (int k = 0; k < t.ndim; ++k) bytes *= static_cast<size_t>(t.shape[k]);
  return bytes;
}

}  // namespace

SoftcutArguments::SoftcutArguments(Device &device, const SoftcutCase &c)
    : call(device, make_problem(c), settings_of(c)) {
  REQUIRE(call.forward() == SEGPRIOR_OK);
  REQUIRE(call.backward(make_grad_x(c)) == SEGPRIOR_OK);
  REQUIRE(call.double_backward(call.grad_scores->get(), make_cotangents(c)) == SEGPRIOR_OK);
  REQUIRE(segprior_softcut_csr_size(device.context(), &call.inputs, &entry_count_) == SEGPRIOR_OK);
  const ref::softcut::Problem p = make_problem(c);
  values_ =
      std::make_unique<Tensor>(device.which(), c.dtype(), std::vector<int64_t>{p.matrices(), entry_count_});
  row_offsets_ = std::make_unique<DeviceArray>(device.which(), (p.voxels() + 1) * sizeof(int32_t));
  columns_ = std::make_unique<DeviceArray>(device.which(), entry_count_ * sizeof(int32_t));
  valid_ = {device.context(), call.opts,       call.inputs,      call.outputs,
            call.grads,       call.cotangents, call.second_grads};
  reset();
}

void SoftcutArguments::reset() {
  context = valid_.context;
  call.opts = valid_.opts;
  call.inputs = valid_.inputs;
  call.outputs = valid_.outputs;
  call.grads = valid_.grads;
  call.cotangents = valid_.cotangents;
  call.second_grads = valid_.second_grads;
  opts = &call.opts;
  inputs = &call.inputs;
  outputs = &call.outputs;
  grads = &call.grads;
  cotangents = &call.cotangents;
  second_grads = &call.second_grads;
  x = call.x->view();
  grad_x = call.grad_x->view();
  grad_scores = call.l->view();
  values = values_->view();
  const DeviceArray *const arrays[] = {call.forward_workspace.get(), call.backward_workspace.get(),
                                       call.double_backward_workspace.get()};
  for (int k = 0; k < 3; ++k) {
    workspace[k] = arrays[k]->data();
    workspace_bytes[k] = arrays[k]->bytes();
  }
  saved = call.saved->data();
  saved_bytes = call.saved->bytes();
  row_offsets = static_cast<int32_t *>(row_offsets_->data());
  columns = static_cast<int32_t *>(columns_->data());
  entries = &entry_count_;
  for (DeviceArray *array : written()) array->fill(kUntouched);
}

std::vector<DeviceArray *> SoftcutArguments::written() {
  std::vector<DeviceArray *> all{&call.x->memory(),      call.info.get(),    call.backward_info.get(),
                                 call.second_info.get(), &values_->memory(), row_offsets_.get(),
                                 columns_.get()};
  for (const auto &list : {call.gradient_list(), call.second_list()})
    for (const auto &gradient : list) all.push_back(&gradient.second->memory());
  return all;
}

bool SoftcutArguments::untouched() {
  for (DeviceArray *array : written())
    if (array->content() != std::vector<unsigned char>(array->bytes(), kUntouched)) return false;
  return true;
}

segprior_status SoftcutArguments::run(SoftcutFunction function) {
  size_t bytes[4];
  switch (function) {
    case SoftcutFunction::forward:
      return segprior_softcut_forward(context, opts, inputs, outputs, workspace[0], workspace_bytes[0], saved,
                                      saved_bytes);
    case SoftcutFunction::backward:
      return segprior_softcut_backward(context, opts, inputs, x, grad_x, grads, workspace[1],
                                       workspace_bytes[1], saved, saved_bytes);
    case SoftcutFunction::double_backward:
      return segprior_softcut_double_backward(context, opts, inputs, x, grad_scores, cotangents, second_grads,
                                              workspace[2], workspace_bytes[2], saved, saved_bytes);
    case SoftcutFunction::workspace_size:
      return segprior_softcut_workspace_size(context, opts, inputs, &bytes[0], &bytes[1], &bytes[2]);
    case SoftcutFunction::saved_size:
      return segprior_softcut_saved_size(context, opts, inputs, &bytes[3]);
    case SoftcutFunction::csr:
      return segprior_softcut_csr(context, inputs, row_offsets, columns, values);
    default:
      return segprior_softcut_csr_size(context, inputs, entries);
  }
}

void check_bad(const SoftcutCase &c, SoftcutFunction function, const std::vector<SoftcutBad> &table) {
  const std::string functions[] = {"forward",    "backward", "double_backward", "workspace_size",
                                   "saved_size", "csr",      "csr_size"};
  for (segprior_device which : all_devices()) {
    Device device(which);
    SoftcutArguments arguments(device, c);
    for (const SoftcutBad &bad : table) {
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
  }
}

std::function<void(SoftcutArguments &)> edit(
    const std::function<const segprior_tensor *&(SoftcutArguments &)> &slot,
    std::function<void(EditedTensor &)> change) {
  return [=](SoftcutArguments &a) {
    static thread_local EditedTensor edited;
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

// Every way in which a tensor argument, valid as given, can be wrong.
void add_faults(const segprior_tensor &given, SoftcutFunction function, const SoftcutTensorArgument &argument,
                std::vector<SoftcutBad> &table) {
  const size_t bytes = bytes_of(given);
  const bool lead = argument.name == "inputs.scores";
  const auto add = [&](const char *what, segprior_status status, std::function<void(EditedTensor &)> change) {
    table.push_back(
        {argument.name + ": " + what, status, argument.name, edit(argument.slot, std::move(change))});
  };
  add("bad dtype", SEGPRIOR_ERROR_DTYPE, [](EditedTensor &e) { e.tensor.dtype = 9; });
  add("masks' dtype", SEGPRIOR_ERROR_DTYPE, [](EditedTensor &e) { e.tensor.dtype = SEGPRIOR_UINT8; });
  add("too many axes", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.tensor.ndim = SEGPRIOR_MAX_NDIM + 1; });
  add("negative ndim", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.tensor.ndim = -1; });
  add("no axes", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.tensor.ndim = 0; });
  add("no shape", SEGPRIOR_ERROR_NULL_POINTER, [](EditedTensor &e) { e.tensor.shape = nullptr; });
  add("negative extent", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.shape[e.tensor.ndim - 1] = -2; });
  add("other device type", SEGPRIOR_ERROR_DEVICE,
      [](EditedTensor &e) { e.tensor.device.type = 3 - e.tensor.device.type; });
  add("other device index", SEGPRIOR_ERROR_DEVICE, [](EditedTensor &e) { e.tensor.device.index += 1; });
  if (!lead) {  // the scores' shape and dtype are what the others are compared with
    // What has 16 bits is decided by the first edges: softcut_rules_test.cpp.
    const int32_t other = given.dtype == SEGPRIOR_FLOAT32 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32;
    add("other dtype", SEGPRIOR_ERROR_DTYPE, [=](EditedTensor &e) { e.tensor.dtype = other; });
    add("other extent", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.shape[0] += 1; });
    add("other last extent", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.shape[e.tensor.ndim - 1] += 1; });
    if (given.ndim > 2) {
      add("other number of classes", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.shape[1] += 2; });
      add("other first spatial extent", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) { e.shape[2] += 1; });
    }
    add("one axis more", SEGPRIOR_ERROR_SHAPE, [](EditedTensor &e) {
      e.shape[e.tensor.ndim] = e.strides[e.tensor.ndim] = 1;
      e.tensor.ndim += 1;
    });
  }
  add("padded rows", SEGPRIOR_ERROR_STRIDES, [](EditedTensor &e) { e.strides[0] += 1; });
  add("stride 0", SEGPRIOR_ERROR_STRIDES, [](EditedTensor &e) { e.strides[0] = 0; });
  add("transposed", SEGPRIOR_ERROR_STRIDES,
      [](EditedTensor &e) { std::swap(e.strides[e.tensor.ndim - 1], e.strides[e.tensor.ndim - 2]); });
  const bool sizes_only = function == SoftcutFunction::workspace_size ||
                          function == SoftcutFunction::saved_size || function == SoftcutFunction::csr_size;
  if (!sizes_only) {
    add("no data", SEGPRIOR_ERROR_NULL_POINTER, [](EditedTensor &e) { e.tensor.data = nullptr; });
    add("odd address", SEGPRIOR_ERROR_ALIGNMENT, [](EditedTensor &e) { e.tensor.byte_offset = 1; });
  }
  if (argument.written) {
    table.push_back(
        {"shares memory with the scores", SEGPRIOR_ERROR_OVERLAP, argument.name, [=](SoftcutArguments &a) {
           void *data = a.call.scores->view()->data;
           edit(argument.slot, [=](EditedTensor &e) { e.tensor.data = data; })(a);
         }});
    if (function != SoftcutFunction::csr)
      table.push_back(
          {"shares memory with the workspace", SEGPRIOR_ERROR_OVERLAP, "workspace", [=](SoftcutArguments &a) {
             const int k = static_cast<int>(function);
             char *space = static_cast<char *>(a.workspace[k]);
             // Its last bytes, if the tensor is small enough to lie there.
             if (bytes <= 256) space += a.workspace_bytes[k] / 256 * 256 - 256;
             edit(argument.slot, [=](EditedTensor &e) { e.tensor.data = space; })(a);
           }});
  }
  if (argument.required)
    table.push_back({"NULL", SEGPRIOR_ERROR_NULL_POINTER, argument.name,
                     [=](SoftcutArguments &a) { argument.slot(a) = nullptr; }});
}

}  // namespace

void check_tensors(const SoftcutCase &c, SoftcutFunction function,
                   const std::vector<SoftcutTensorArgument> &arguments) {
  Device cpu({SEGPRIOR_CPU, 0});
  SoftcutArguments probe(cpu, c);
  std::vector<SoftcutBad> table;
  for (const SoftcutTensorArgument &argument : arguments)
    add_faults(*argument.slot(probe), function, argument, table);
  check_bad(c, function, table);
}

}  // namespace segprior::test
