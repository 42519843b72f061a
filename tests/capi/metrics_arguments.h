// The bad-input tables of metrics.h: one valid call of each function, of which a test spoils one thing. It
// has to give the documented status, a message that names the argument, and untouched outputs.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/device.h"

namespace segprior::test {

enum class MetricsFunction { confusion, fused, scores, geometry, components, components_size };
constexpr MetricsFunction kMetricsFunctions[] = {
    MetricsFunction::confusion, MetricsFunction::fused,      MetricsFunction::scores,
    MetricsFunction::geometry,  MetricsFunction::components, MetricsFunction::components_size};

// A tensor of the call under the name that messages give it.
struct MetricsTensor {
  segprior_tensor tensor;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];
  bool given, written, required;

  const segprior_tensor *view() const { return given ? &tensor : nullptr; }
};

class MetricsArguments {
 public:
  MetricsArguments(Device &device, MetricsFunction function);

  void reset();  // to the valid call
  segprior_status run();
  bool untouched() const;
  MetricsTensor &operator[](const std::string &name) { return tensors_.at(name); }
  std::vector<std::string> names() const;

  segprior_context *context;
  segprior_confusion_inputs inputs;           // its tensors are taken from the list
  segprior_confusion_scores_outputs outputs;  // likewise
  segprior_components_opts opts;
  void *workspace;
  size_t workspace_bytes;
  size_t *bytes;
  bool no_inputs, no_opts, no_outputs;

 private:
  void add(const std::string &name, int32_t dtype, std::vector<int64_t> shape, bool written, bool required);

  Device &device_;
  MetricsFunction function_;
  std::map<std::string, TensorPtr> memory_;
  std::map<std::string, MetricsTensor> tensors_, valid_;
  std::unique_ptr<DeviceArray> workspace_;
  size_t size_ = 0, answer_ = 0;
};

struct MetricsBad {
  std::string what;
  segprior_status status;
  std::string names;  // what the message has to contain
  std::function<void(MetricsArguments &)> spoil;
};

// On every device; the valid call has to pass afterwards.
void check_bad(MetricsFunction function, const std::vector<MetricsBad> &table);

// Spoils every tensor of the function in every way a tensor can be wrong.
void check_tensors(MetricsFunction function);

}  // namespace segprior::test
