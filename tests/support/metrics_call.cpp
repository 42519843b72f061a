#include "tests/support/metrics_call.h"

#include <stdexcept>

#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

namespace {

segprior_tensor *view(const TensorPtr &tensor) { return tensor ? tensor->view() : nullptr; }

}  // namespace

segprior_components_opts components_opts(bool full, bool by_value, int64_t background) {
  segprior_components_opts opts;
  if (segprior_components_opts_init(&opts, sizeof opts) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  opts.full = full;
  opts.by_value = by_value;
  opts.background = background;
  return opts;
}

std::vector<int64_t> shape_of(int64_t batch, const Ints &spatial, int64_t classes) {
  std::vector<int64_t> shape{batch};
  if (classes > 0) shape.push_back(classes);
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  return shape;
}

TensorPtr MetricsCall::input(int32_t dtype, std::vector<int64_t> shape, const ref::Array &values) const {
  return std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), values);
}

TensorPtr MetricsCall::output(int32_t dtype, std::vector<int64_t> shape) const {
  auto made = std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), settings_.canaries);
  made->memory().fill(settings_.poison);
  return made;
}

TensorPtr MetricsCall::map_of(const Map &map) const {
  return input(settings_.dtype, shape_of(map.batch, map.spatial),
               ref::Array(map.values.begin(), map.values.end()));
}

TensorPtr MetricsCall::mask_of(const Map &map) const {
  if (map.mask.empty()) return nullptr;
  const bool shared = map.mask.size() != map.values.size();
  return input(SEGPRIOR_UINT8, shape_of(shared ? 1 : map.batch, map.spatial),
               ref::Array(map.mask.begin(), map.mask.end()));
}

Ints MetricsCall::result(const TensorPtr &tensor) {
  if (!tensor->memory().canaries_intact()) violations_.push_back("an output was written beyond its ends");
  const ref::Array values = tensor->get();
  return Ints(values.begin(), values.end());
}

template <class F>
void MetricsCall::watch(const F &call) {
#if defined(FAKECUDA)
  const fakecuda::Forbid forbid(static_cast<cudaStream_t>(device_.stream()));
#endif
  const int64_t before = allocation_count();
  const segprior_status status = call();
  allocations_ += allocation_count() - before;
#if defined(FAKECUDA)
  violations_.insert(violations_.end(), forbid.violations().begin(), forbid.violations().end());
#endif
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  device_.synchronize();
}

ref::metrics::Confusion MetricsCall::confusion(const Map &labels, const Ints &prediction,
                                               const ref::Array &scores, int64_t classes,
                                               int64_t ignore_label) {
  const TensorPtr truth = map_of(labels), mask = mask_of(labels);
  const bool fused = !scores.empty();
  const TensorPtr predicted =
      fused ? input(settings_.prediction_dtype, shape_of(labels.batch, labels.spatial, classes), scores)
            : input(settings_.prediction_dtype, shape_of(labels.batch, labels.spatial),
                    ref::Array(prediction.begin(), prediction.end()));
  const TensorPtr matrix = output(SEGPRIOR_INT64, {labels.batch, classes, classes});
  const TensorPtr invalid = output(SEGPRIOR_INT64, {labels.batch});
  segprior_confusion_inputs inputs{};
  inputs.struct_size = sizeof inputs;
  inputs.labels = truth->view();
  (fused ? inputs.scores : inputs.prediction) = predicted->view();
  inputs.mask = view(mask);
  watch([&] {
    return segprior_confusion(device_.context(), &inputs, ignore_label, matrix->view(), invalid->view());
  });
  return {result(matrix), result(invalid)};
}

ref::metrics::Scores MetricsCall::scores(const Ints &matrices, int64_t classes) {
  const int64_t count = static_cast<int64_t>(matrices.size()) / (classes * classes);
  const TensorPtr given =
      input(SEGPRIOR_INT64, {count, classes, classes}, ref::Array(matrices.begin(), matrices.end()));
  TensorPtr each[3], of_class[4];
  for (TensorPtr &tensor : each) tensor = output(SEGPRIOR_FLOAT64, {count});
  for (TensorPtr &tensor : of_class) tensor = output(SEGPRIOR_FLOAT64, {count, classes});
  const segprior_confusion_scores_outputs outputs{sizeof(segprior_confusion_scores_outputs),
                                                  each[0]->view(),
                                                  of_class[0]->view(),
                                                  each[1]->view(),
                                                  of_class[1]->view(),
                                                  each[2]->view(),
                                                  of_class[2]->view(),
                                                  of_class[3]->view()};
  watch([&] { return segprior_confusion_scores(device_.context(), given->view(), &outputs); });
  for (const auto *list :
       {&each[0], &each[1], &each[2], &of_class[0], &of_class[1], &of_class[2], &of_class[3]})
    if (!(*list)->memory().canaries_intact()) violations_.push_back("an output was written beyond its ends");
  return {each[0]->get(), of_class[0]->get(), each[1]->get(),    of_class[1]->get(),
          each[2]->get(), of_class[2]->get(), of_class[3]->get()};
}

std::vector<Ints> MetricsCall::geometry(const Map &map, int64_t classes) {
  const TensorPtr labels = map_of(map), mask = mask_of(map);
  const TensorPtr volumes = output(SEGPRIOR_INT64, {map.batch, classes});
  const TensorPtr faces =
      output(SEGPRIOR_INT64, {map.batch, classes, static_cast<int64_t>(map.spatial.size())});
  watch([&] {
    return segprior_label_geometry(device_.context(), labels->view(), view(mask), volumes->view(),
                                   faces->view());
  });
  return {result(volumes), result(faces)};
}

ref::metrics::Components MetricsCall::components(const Map &map, segprior_components_opts opts,
                                                 int64_t classes) {
  const TensorPtr values = map_of(map), mask = mask_of(map);
  const TensorPtr numbers = output(SEGPRIOR_INT32, shape_of(map.batch, map.spatial));
  const TensorPtr count = output(SEGPRIOR_INT64, {map.batch});
  const TensorPtr class_count = opts.by_value ? output(SEGPRIOR_INT64, {map.batch, classes}) : nullptr;
  size_t bytes = 0;
  if (segprior_components_workspace_size(device_.context(), &opts, values->view(), view(mask), &bytes) !=
      SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  DeviceArray workspace(device_.which(), bytes, settings_.canaries);
  workspace.fill(settings_.poison);
  watch([&] {
    return segprior_components(device_.context(), &opts, values->view(), view(mask), numbers->view(),
                               count->view(), view(class_count), workspace.data(), bytes);
  });
  if (!workspace.canaries_intact()) violations_.push_back("the workspace was written beyond its ends");
  ref::metrics::Components c{result(numbers), result(count), {}};
  if (class_count) c.class_count = result(class_count);
  return c;
}

}  // namespace segprior::test
