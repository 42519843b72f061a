/* libsegprior in C++: scores of segmentations. Part of segprior.hpp; the contract is metrics.h's. */
#ifndef SEGPRIOR_CPP_METRICS_HPP
#define SEGPRIOR_CPP_METRICS_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/metrics.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

struct ConfusionInputs {
  View labels, prediction, scores, mask;

  segprior_confusion_inputs c() const {
    segprior_confusion_inputs in{};
    in.struct_size = sizeof in;
    in.labels = labels.c();
    in.prediction = prediction.c();
    in.scores = scores.c();
    in.mask = mask.c();
    return in;
  }
};

/* Pass {} for invalid where it is not wanted. */
inline Status confusion(const Context &context, const ConfusionInputs &inputs, int64_t ignore_label,
                        const MutableView &matrix, const MutableView &invalid) {
  const segprior_confusion_inputs in = inputs.c();
  return detail::finish(segprior_confusion(context.handle(), &in, ignore_label, matrix.c(), invalid.c()));
}

struct ConfusionScoresOutputs {
  MutableView accuracy, iou, mean_iou, dice, mean_dice, precision, recall;

  segprior_confusion_scores_outputs c() const {
    segprior_confusion_scores_outputs out{};
    out.struct_size = sizeof out;
    out.accuracy = accuracy.c();
    out.iou = iou.c();
    out.mean_iou = mean_iou.c();
    out.dice = dice.c();
    out.mean_dice = mean_dice.c();
    out.precision = precision.c();
    out.recall = recall.c();
    return out;
  }
};

inline Status confusion_scores(const Context &context, const View &matrices,
                               const ConfusionScoresOutputs &outputs) {
  const segprior_confusion_scores_outputs out = outputs.c();
  return detail::finish(segprior_confusion_scores(context.handle(), matrices.c(), &out));
}

/* Pass {} for a mask that there is not, and for counts that are not wanted. */
inline Status label_geometry(const Context &context, const View &labels, const View &mask,
                             const MutableView &volumes, const MutableView &faces) {
  return detail::finish(
      segprior_label_geometry(context.handle(), labels.c(), mask.c(), volumes.c(), faces.c()));
}

/* Starts with the defaults, as SoftmaxOptions. */
struct ComponentsOptions : segprior_components_opts {
  ComponentsOptions() : segprior_components_opts{} {
    segprior_components_opts_init(this, sizeof(segprior_components_opts));
  }
};

struct ComponentsInputs {
  View map, mask;
};

struct ComponentsOutputs {
  MutableView components, count, class_count;
};

/* Connected components. */
class Components : private detail::Operator {
 public:
  explicit Components(const Context &context) : Operator(context) {}
  explicit Components(const Context &&) = delete; /* it has to outlive this */

  ComponentsOptions options;
  ComponentsInputs inputs;
  ComponentsOutputs outputs;

  Status forward() {
    const segprior_tensor *map = inputs.map.c(), *mask = inputs.mask.c();
    return run(
        [&](std::size_t &workspace) {
          return segprior_components_workspace_size(context_, &options, map, mask, &workspace);
        },
        [&] {
          return segprior_components(context_, &options, map, mask, outputs.components.c(), outputs.count.c(),
                                     outputs.class_count.c(), workspace_.data(), workspace_.bytes());
        });
  }
};

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
