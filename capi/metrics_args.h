// The checked arguments of the calls of include/segprior/metrics.h; every rule about them is in
// metrics_args.cpp.
#pragma once

#include "capi/tensor.h"
#include "kernels/metrics/metrics.h"
#include "segprior/metrics.h"

namespace segprior::metrics {

segprior_components_opts default_opts();

Confusion read_confusion(const segprior_context &, const segprior_confusion_inputs *, int64_t ignore_label,
                         const segprior_tensor *matrix, const segprior_tensor *invalid);
Scores read_scores(const segprior_context &, const segprior_tensor *matrices,
                   const segprior_confusion_scores_outputs *);
Geometry read_geometry(const segprior_context &, const segprior_tensor *labels, const segprior_tensor *mask,
                       const segprior_tensor *volumes, const segprior_tensor *faces);

// What the call and its size query have in common.
struct ComponentsCall {
  ComponentsCall(const segprior_context &, const segprior_components_opts *, const segprior_tensor *map,
                 const segprior_tensor *mask, bool sizes_only);

  void read_outputs(const segprior_tensor *components, const segprior_tensor *count,
                    const segprior_tensor *class_count);
  bool empty() const { return problem.batch == 0 || problem.voxels() == 0; }

  Arguments arguments;
  Components problem;

 private:
  Shape map_;  // [B, *S]
};

}  // namespace segprior::metrics
