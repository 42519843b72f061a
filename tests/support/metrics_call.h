// The calls of metrics.h on one device, with outputs and workspace that hold known bytes before.
#pragma once

#include <string>
#include <vector>

#include "tests/ref/metrics_ref.h"
#include "tests/support/device.h"

namespace segprior::test {

using ref::metrics::Ints;
using ref::metrics::Map;

struct MetricsSettings {
  int32_t dtype = SEGPRIOR_UINT8;             // of label maps
  int32_t prediction_dtype = SEGPRIOR_UINT8;  // of a predicted map, or of scores
  bool canaries = false;
  unsigned char poison = kPoison;
};

class MetricsCall {
 public:
  explicit MetricsCall(Device &device, const MetricsSettings &settings = {})
      : device_(device), settings_(settings) {}

  // `scores` [B, I, J], if not empty, stands in for the prediction.
  ref::metrics::Confusion confusion(const Map &labels, const Ints &prediction, const ref::Array &scores,
                                    int64_t classes, int64_t ignore_label);
  ref::metrics::Scores scores(const Ints &matrices, int64_t classes);
  // Volumes, faces.
  std::vector<Ints> geometry(const Map &, int64_t classes);
  ref::metrics::Components components(const Map &, segprior_components_opts opts, int64_t classes);

  int64_t allocations() const { return allocations_; }  // in the library, of all calls
  // What the fake runtime found forbidden on the compute path, and outputs that were written beyond their
  // end.
  const std::vector<std::string> &violations() const { return violations_; }

 private:
  TensorPtr input(int32_t dtype, std::vector<int64_t> shape, const ref::Array &values) const;
  TensorPtr output(int32_t dtype, std::vector<int64_t> shape) const;
  TensorPtr map_of(const Map &) const;
  TensorPtr mask_of(const Map &) const;
  Ints result(const TensorPtr &);

  template <class F>
  void watch(const F &call);

  Device &device_;
  MetricsSettings settings_;
  int64_t allocations_ = 0;
  std::vector<std::string> violations_;
};

segprior_components_opts components_opts(bool full, bool by_value, int64_t background = 0);

// [B, S] or [1, S] of a mask, [B, S] of a map, [B, I, S] of scores.
std::vector<int64_t> shape_of(int64_t batch, const Ints &spatial, int64_t classes = 0);

}  // namespace segprior::test
