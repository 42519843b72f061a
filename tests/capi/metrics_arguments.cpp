#include "tests/capi/metrics_arguments.h"

#include <doctest/doctest.h>

#include <utility>

#include "tests/capi/message.h"

namespace segprior::test {

namespace {

constexpr unsigned char kUntouched = 0x77;
constexpr int64_t kBatch = 2, kClasses = 3, kHeight = 5, kWidth = 7;

}  // namespace

MetricsArguments::MetricsArguments(Device &device, MetricsFunction function)
    : device_(device), function_(function) {
  using F = MetricsFunction;
  const std::vector<int64_t> map{kBatch, kHeight, kWidth};
  if (function == F::confusion || function == F::fused) {
    add("inputs.labels", SEGPRIOR_INT32, map, false, true);
    if (function == F::fused)
      add("inputs.scores", SEGPRIOR_FLOAT32, {kBatch, kClasses, kHeight, kWidth}, false, true);
    else
      add("inputs.prediction", SEGPRIOR_INT32, map, false, true);
    add("inputs.mask", SEGPRIOR_UINT8, map, false, false);
    add("matrix", SEGPRIOR_INT64, {kBatch, kClasses, kClasses}, true, true);
    add("invalid", SEGPRIOR_INT64, {kBatch}, true, false);
  } else if (function == F::scores) {
    add("matrices", SEGPRIOR_INT64, {kBatch, kClasses, kClasses}, false, true);
    for (const char *name : {"outputs.accuracy", "outputs.mean_iou", "outputs.mean_dice"})
      add(name, SEGPRIOR_FLOAT64, {kBatch}, true, false);
    for (const char *name : {"outputs.iou", "outputs.dice", "outputs.precision", "outputs.recall"})
      add(name, SEGPRIOR_FLOAT64, {kBatch, kClasses}, true, false);
  } else if (function == F::geometry) {
    add("labels", SEGPRIOR_INT32, map, false, true);
    add("mask", SEGPRIOR_UINT8, map, false, false);
    add("volumes", SEGPRIOR_INT64, {kBatch, kClasses}, true, false);
    add("faces", SEGPRIOR_INT64, {kBatch, kClasses, 2}, true, false);
  } else {
    add("map", SEGPRIOR_INT32, map, false, true);
    add("mask", SEGPRIOR_UINT8, map, false, false);
    if (function == F::components) {
      add("components", SEGPRIOR_INT32, map, true, false);
      add("count", SEGPRIOR_INT64, {kBatch}, true, false);
      add("class_count", SEGPRIOR_INT64, {kBatch, kClasses}, true, false);
    }
  }
  REQUIRE(segprior_components_opts_init(&opts, sizeof opts) == SEGPRIOR_OK);
  opts.by_value = 1;
  if (function == F::components || function == F::components_size)
    REQUIRE(segprior_components_workspace_size(device.context(), &opts, memory_.at("map")->view(),
                                               memory_.at("mask")->view(), &size_) == SEGPRIOR_OK);
  workspace_ = std::make_unique<DeviceArray>(device.which(), size_ + 256);
  reset();
}

void MetricsArguments::add(const std::string &name, int32_t dtype, std::vector<int64_t> shape, bool written,
                           bool required) {
  auto memory = std::make_unique<Tensor>(device_.which(), dtype, shape);
  memory->memory().fill(0);
  MetricsTensor &t = valid_[name];
  t = {*memory->view(), {}, {}, true, written, required};
  int64_t step = 1;
  for (int k = t.tensor.ndim - 1; k >= 0; --k) {
    t.shape[k] = shape[k];
    t.strides[k] = step;
    step *= shape[k];
  }
  memory_[name] = std::move(memory);
}

void MetricsArguments::reset() {
  context = device_.context();
  inputs = {};
  inputs.struct_size = sizeof inputs;
  outputs = {};
  outputs.struct_size = sizeof outputs;
  opts = {};
  opts.struct_size = sizeof opts;
  opts.by_value = 1;
  workspace = workspace_->data();
  workspace_bytes = size_;
  bytes = &answer_;
  no_inputs = no_opts = no_outputs = false;
  tensors_ = valid_;
  for (auto &entry : tensors_) {
    entry.second.tensor.shape = entry.second.shape;
    entry.second.tensor.strides = entry.second.strides;
    if (entry.second.written) memory_.at(entry.first)->memory().fill(kUntouched);
  }
}

bool MetricsArguments::untouched() const {
  for (const auto &entry : valid_) {
    if (!entry.second.written) continue;
    const DeviceArray &array = memory_.at(entry.first)->memory();
    if (array.content() != std::vector<unsigned char>(array.bytes(), kUntouched)) return false;
  }
  return true;
}

std::vector<std::string> MetricsArguments::names() const {
  std::vector<std::string> list;
  for (const auto &entry : valid_) list.push_back(entry.first);
  return list;
}

segprior_status MetricsArguments::run() {
  const auto view = [&](const char *name) {
    return tensors_.count(name) ? tensors_.at(name).view() : nullptr;
  };
  switch (function_) {
    case MetricsFunction::confusion:
    case MetricsFunction::fused:
      inputs.labels = view("inputs.labels");
      if (!inputs.prediction) inputs.prediction = view("inputs.prediction");
      if (!inputs.scores) inputs.scores = view("inputs.scores");
      inputs.mask = view("inputs.mask");
      return segprior_confusion(context, no_inputs ? nullptr : &inputs, 255, view("matrix"), view("invalid"));
    case MetricsFunction::scores:
      outputs.accuracy = view("outputs.accuracy");
      outputs.iou = view("outputs.iou");
      outputs.mean_iou = view("outputs.mean_iou");
      outputs.dice = view("outputs.dice");
      outputs.mean_dice = view("outputs.mean_dice");
      outputs.precision = view("outputs.precision");
      outputs.recall = view("outputs.recall");
      return segprior_confusion_scores(context, view("matrices"), no_outputs ? nullptr : &outputs);
    case MetricsFunction::geometry:
      return segprior_label_geometry(context, view("labels"), view("mask"), view("volumes"), view("faces"));
    case MetricsFunction::components:
      return segprior_components(context, no_opts ? nullptr : &opts, view("map"), view("mask"),
                                 view("components"), view("count"), view("class_count"), workspace,
                                 workspace_bytes);
    default:
      return segprior_components_workspace_size(context, no_opts ? nullptr : &opts, view("map"), view("mask"),
                                                bytes);
  }
}

void check_bad(MetricsFunction function, const std::vector<MetricsBad> &table) {
  const std::string functions[] = {"confusion", "confusion, fused", "scores",
                                   "geometry",  "components",       "components_workspace_size"};
  for (segprior_device which : all_devices()) {
    Device device(which);
    MetricsArguments arguments(device, function);
    for (const MetricsBad &bad : table) {
      INFO(functions[static_cast<int>(function)] << ", " << bad.what << ", on " << name_of(which));
      arguments.reset();
      bad.spoil(arguments);
      CHECK(arguments.run() == bad.status);
      CHECK_MESSAGE(message_has(bad.names), "the message \"", std::string(segprior_last_error()),
                    "\" does not contain \"", bad.names, "\"");
      device.synchronize();
      CHECK(arguments.untouched());
    }
    arguments.reset();
    CHECK_MESSAGE(arguments.run() == SEGPRIOR_OK, std::string(segprior_last_error()));
    device.synchronize();
  }
}

namespace {

// Every way in which a tensor argument, valid as given, can be wrong.
void add_faults(MetricsFunction function, const std::string &name, const MetricsTensor &valid,
                std::vector<MetricsBad> &table) {
  const auto add = [&](const char *what, segprior_status status,
                       std::function<void(MetricsTensor &)> change) {
    table.push_back({name + ": " + what, status, name, [=](MetricsArguments &a) { change(a[name]); }});
  };
  // The labels' shape is what the others are compared with; the matrix, or the first count, has the classes.
  const bool lead = name == "inputs.labels" || name == "labels" || name == "map" || name == "matrices";
  const bool labels = lead ? name != "matrices" : name == "inputs.prediction";
  const bool scores = name == "inputs.scores";
  add("bad dtype", SEGPRIOR_ERROR_DTYPE, [](MetricsTensor &t) { t.tensor.dtype = 9; });
  add("other dtype", SEGPRIOR_ERROR_DTYPE, [=](MetricsTensor &t) {
    t.tensor.dtype = labels ? SEGPRIOR_FLOAT32 : scores ? SEGPRIOR_INT32 : SEGPRIOR_FLOAT16;
  });
  add("too many axes", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.tensor.ndim = SEGPRIOR_MAX_NDIM + 1; });
  add("negative ndim", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.tensor.ndim = -1; });
  add("no axes", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.tensor.ndim = 0; });
  add("no shape", SEGPRIOR_ERROR_NULL_POINTER, [](MetricsTensor &t) { t.tensor.shape = nullptr; });
  add("negative extent", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.shape[t.tensor.ndim - 1] = -2; });
  add("other device type", SEGPRIOR_ERROR_DEVICE,
      [](MetricsTensor &t) { t.tensor.device.type = 3 - t.tensor.device.type; });
  add("other device index", SEGPRIOR_ERROR_DEVICE, [](MetricsTensor &t) { t.tensor.device.index += 1; });
  if (!lead) {
    add("other batch", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.shape[0] += 1; });
    add("one axis more", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) {
      t.shape[t.tensor.ndim] = t.strides[t.tensor.ndim] = 1;
      t.tensor.ndim += 1;
    });
    // These have the classes, as many as they like.
    if (name != "volumes" && name != "class_count")
      add("other last extent", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) {
        t.shape[t.tensor.ndim - 1] += 1;
        t.tensor.strides = nullptr;
      });
  } else {
    add("too few axes", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.tensor.ndim = 1; });
    add("too many spatial axes", SEGPRIOR_ERROR_SHAPE, [](MetricsTensor &t) { t.tensor.ndim = 5; });
  }
  if (valid.tensor.ndim > 1) {
    add("transposed", SEGPRIOR_ERROR_STRIDES,
        [](MetricsTensor &t) { std::swap(t.strides[t.tensor.ndim - 1], t.strides[t.tensor.ndim - 2]); });
    add("padded", SEGPRIOR_ERROR_STRIDES, [](MetricsTensor &t) { t.strides[0] += 1; });
  }
  if (function != MetricsFunction::components_size) {
    add("no data", SEGPRIOR_ERROR_NULL_POINTER, [](MetricsTensor &t) { t.tensor.data = nullptr; });
    if (valid.tensor.dtype != SEGPRIOR_UINT8)
      add("odd address", SEGPRIOR_ERROR_ALIGNMENT, [](MetricsTensor &t) { t.tensor.byte_offset = 1; });
  }
  if (valid.required) add("NULL", SEGPRIOR_ERROR_NULL_POINTER, [](MetricsTensor &t) { t.given = false; });
  if (!valid.written) return;
  const std::string read = function == MetricsFunction::scores       ? "matrices"
                           : function == MetricsFunction::geometry   ? "labels"
                           : function == MetricsFunction::components ? "map"
                                                                     : "inputs.labels";
  table.push_back({name + " shares memory with " + read, SEGPRIOR_ERROR_OVERLAP, name,
                   [=](MetricsArguments &a) { a[name].tensor.data = a[read].tensor.data; }});
  if (function == MetricsFunction::components)
    table.push_back({name + " shares memory with the workspace", SEGPRIOR_ERROR_OVERLAP, "workspace",
                     [=](MetricsArguments &a) { a[name].tensor.data = a.workspace; }});
}

}  // namespace

void check_tensors(MetricsFunction function) {
  Device cpu({SEGPRIOR_CPU, 0});
  MetricsArguments probe(cpu, function);
  std::vector<MetricsBad> table;
  for (const std::string &name : probe.names()) add_faults(function, name, probe[name], table);
  check_bad(function, table);
}

}  // namespace segprior::test
