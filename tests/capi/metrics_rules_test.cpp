// The rules of metrics.h: what is rejected and how, what may be left out, and empty problems.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/capi/message.h"
#include "tests/capi/metrics_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

// Gives a tensor with classes another number of them, in its last `axes` axes.
void set_classes(MetricsTensor &t, int axes, int64_t classes) {
  for (int k = 1; k <= axes; ++k) t.shape[t.tensor.ndim - k] = classes;
  t.tensor.strides = nullptr;
}

using F = MetricsFunction;
using A = MetricsArguments;
using Opts = segprior_components_opts;

}  // namespace

TEST_CASE("metrics: tensors that are wrong [small]") {
  for (F function : kMetricsFunctions) check_tensors(function);
}

TEST_CASE("metrics: context, structs and sizes [small]") {
  for (F function : kMetricsFunctions)
    check_bad(function, {{"no context", SEGPRIOR_ERROR_NULL_POINTER, "context is NULL",
                          [](A &a) { a.context = nullptr; }}});
  for (F function : {F::confusion, F::fused})
    check_bad(function,
              {{"no inputs", SEGPRIOR_ERROR_NULL_POINTER, "inputs is NULL", [](A &a) { a.no_inputs = true; }},
               {"size of inputs", SEGPRIOR_ERROR_OPTIONS, "inputs.struct_size",
                [](A &a) { a.inputs.struct_size = 8; }}});
  check_bad(F::scores, {{"no outputs", SEGPRIOR_ERROR_NULL_POINTER, "outputs is NULL",
                         [](A &a) { a.no_outputs = true; }},
                        {"size of outputs", SEGPRIOR_ERROR_OPTIONS, "outputs.struct_size",
                         [](A &a) { a.outputs.struct_size = 0; }}});
  for (F function : {F::components, F::components_size})
    check_bad(
        function,
        {{"no opts", SEGPRIOR_ERROR_NULL_POINTER, "opts is NULL", [](A &a) { a.no_opts = true; }},
         {"size of opts", SEGPRIOR_ERROR_OPTIONS, "opts.struct_size", [](A &a) { a.opts.struct_size = 4; }},
         {"full", SEGPRIOR_ERROR_VALUE, "opts.full = 2", [](A &a) { a.opts.full = 2; }},
         {"by_value", SEGPRIOR_ERROR_VALUE, "opts.by_value = -1", [](A &a) { a.opts.by_value = -1; }}});
  check_bad(F::components_size,
            {{"no bytes", SEGPRIOR_ERROR_NULL_POINTER, "bytes is NULL", [](A &a) { a.bytes = nullptr; }}});
}

TEST_CASE("metrics: rules between arguments [small]") {
  check_bad(
      F::confusion,
      {{"prediction and scores", SEGPRIOR_ERROR_VALUE, "inputs.prediction excludes inputs.scores",
        [](A &a) { a.inputs.scores = a["inputs.prediction"].view(); }},
       {"no classes", SEGPRIOR_ERROR_SHAPE, "matrix: 0 classes",
        [](A &a) { set_classes(a["matrix"], 2, 0); }},
       {"too many classes", SEGPRIOR_ERROR_SHAPE, "matrix: 257 classes",
        [](A &a) { set_classes(a["matrix"], 2, 257); }},
       {"matrix of a shared batch", SEGPRIOR_ERROR_SHAPE, "matrix", [](A &a) { a["matrix"].shape[0] = 1; }},
       {"outputs overlap", SEGPRIOR_ERROR_OVERLAP, "invalid",
        [](A &a) { a["invalid"].tensor.data = a["matrix"].tensor.data; }}});
  check_bad(F::fused, {{"other number of classes", SEGPRIOR_ERROR_SHAPE, "inputs.scores: shape",
                        [](A &a) { set_classes(a["matrix"], 2, 2); }}});
  check_bad(F::geometry, {{"volumes of other classes", SEGPRIOR_ERROR_SHAPE, "faces",
                           [](A &a) { set_classes(a["volumes"], 1, 2); }}});
  check_bad(F::components,
            {{"class_count of all alike", SEGPRIOR_ERROR_VALUE,
              "class_count is given, which needs opts.by_value", [](A &a) { a.opts.by_value = 0; }},
             {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
              [](A &a) { --a.workspace_bytes; }},
             {"no workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace", [](A &a) { a.workspace = nullptr; }},
             {"odd workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
              [](A &a) { a.workspace = static_cast<char *>(a.workspace) + 8; }}});
}

TEST_CASE("components: more voxels than numbers [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    const int64_t shape[] = {2, 1 << 16, 1 << 15};
    const segprior_tensor map{nullptr, which, SEGPRIOR_UINT8, 3, shape, nullptr, 0};
    Opts opts;
    REQUIRE(segprior_components_opts_init(&opts, sizeof opts) == SEGPRIOR_OK);
    size_t bytes = 1;
    CHECK(segprior_components_workspace_size(device.context(), &opts, &map, nullptr, &bytes) ==
          SEGPRIOR_ERROR_SIZE_OVERFLOW);
    CHECK(message_has("map: 2147483648 voxels"));
    CHECK(bytes == 1);
  }
}

TEST_CASE("metrics: outputs that are not wanted [small]") {
  for (segprior_device which : all_devices())
    for (F function : {F::confusion, F::fused, F::scores, F::geometry, F::components}) {
      Device device(which);
      A arguments(device, function);
      for (const std::string &name : arguments.names()) {
        INFO(name << " on " << name_of(which));
        arguments.reset();
        if (arguments[name].required) continue;
        arguments[name].given = false;  // this one alone
        CHECK(arguments.run() == SEGPRIOR_OK);
        arguments.reset();
        for (const std::string &other : arguments.names())  // all but this one
          arguments[other].given = arguments[other].required || other == name;
        CHECK(arguments.run() == SEGPRIOR_OK);
        device.synchronize();
      }
    }
}

TEST_CASE("metrics: empty problems [small]") {
  for (segprior_device which : all_devices())
    for (const std::vector<int64_t> &shape : {std::vector<int64_t>{0, 5, 7}, {2, 0, 7}, {2, 5, 0}}) {
      Device device(which);
      const int64_t batch = shape[0];
      INFO(name_of(which) << ", batch " << batch);
      Tensor map(which, SEGPRIOR_UINT8, shape), numbers(which, SEGPRIOR_INT32, shape);
      Tensor matrix(which, SEGPRIOR_INT64, {batch, 3, 3}, true),
          invalid(which, SEGPRIOR_INT64, {batch}, true);
      Tensor volumes(which, SEGPRIOR_INT64, {batch, 3}, true),
          faces(which, SEGPRIOR_INT64, {batch, 3, 2}, true);
      Tensor count(which, SEGPRIOR_INT64, {batch}, true), classes(which, SEGPRIOR_INT64, {batch, 3}, true);
      segprior_confusion_inputs inputs{};
      inputs.struct_size = sizeof inputs;
      inputs.labels = inputs.prediction = inputs.mask = map.view();
      CHECK(segprior_confusion(device.context(), &inputs, 255, matrix.view(), invalid.view()) == SEGPRIOR_OK);
      CHECK(segprior_label_geometry(device.context(), map.view(), map.view(), volumes.view(), faces.view()) ==
            SEGPRIOR_OK);
      Opts opts;
      REQUIRE(segprior_components_opts_init(&opts, sizeof opts) == SEGPRIOR_OK);
      opts.by_value = 1;
      size_t bytes = 1;
      CHECK(segprior_components_workspace_size(device.context(), &opts, map.view(), nullptr, &bytes) ==
            SEGPRIOR_OK);
      CHECK(bytes == 0);
      CHECK(segprior_components(device.context(), &opts, map.view(), nullptr, numbers.view(), count.view(),
                                classes.view(), nullptr, 0) == SEGPRIOR_OK);
      device.synchronize();
      for (const Tensor *output : {&matrix, &invalid, &volumes, &faces, &count, &classes}) {
        CHECK(output->get() == ref::Array(output->size(), 0.0));
        CHECK(output->memory().canaries_intact());
      }
    }
}

TEST_CASE("scores: no matrix, and matrices without classes [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (int64_t count : {0, 2}) {
      Tensor matrices(which, SEGPRIOR_INT64, {count, 0, 0}), mean(which, SEGPRIOR_FLOAT64, {count});
      mean.set(ref::Array(count, 1.0));
      segprior_confusion_scores_outputs outputs{};
      outputs.struct_size = sizeof outputs;
      outputs.mean_iou = mean.view();
      CHECK(segprior_confusion_scores(device.context(), matrices.view(), &outputs) == SEGPRIOR_OK);
      device.synchronize();
      for (double value : mean.get()) CHECK(std::isnan(value));
    }
  }
}
