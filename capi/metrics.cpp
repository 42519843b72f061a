// include/segprior/metrics.h: checks every argument, then calls the backend of the context's device.
#include "segprior/metrics.h"

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/metrics_args.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "kernels/common/arena.h"

namespace segprior::metrics {
namespace {

const Backend &backend_of(const segprior_context &context) {
#if defined(SEGPRIOR_WITH_CUDA)
  if (context.device.type == SEGPRIOR_CUDA) return kCuda;
#endif
  (void)context;
  return kCpu;
}

size_t workspace_of(const segprior_context &context, const ComponentsCall &call) {
  return call.empty() ? 0 : backend_of(context).components_workspace(call.problem, context.cpu_threads());
}

}  // namespace
}  // namespace segprior::metrics

using namespace segprior;
using namespace segprior::metrics;

segprior_status segprior_confusion(segprior_context *context, const segprior_confusion_inputs *inputs,
                                   int64_t ignore_label, const segprior_tensor *matrix,
                                   const segprior_tensor *invalid) {
  return guard("segprior_confusion", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Confusion problem = read_confusion(*context, inputs, ignore_label, matrix, invalid);
    backend_of(*context).confusion(problem, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_confusion_scores(segprior_context *context, const segprior_tensor *matrices,
                                          const segprior_confusion_scores_outputs *outputs) {
  return guard("segprior_confusion_scores", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Scores problem = read_scores(*context, matrices, outputs);
    backend_of(*context).scores(problem, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_label_geometry(segprior_context *context, const segprior_tensor *labels,
                                        const segprior_tensor *mask, const segprior_tensor *volumes,
                                        const segprior_tensor *faces) {
  return guard("segprior_label_geometry", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Geometry problem = read_geometry(*context, labels, mask, volumes, faces);
    backend_of(*context).geometry(problem, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_components_opts_init(segprior_components_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_components_workspace_size(segprior_context *context,
                                                   const segprior_components_opts *opts,
                                                   const segprior_tensor *map, const segprior_tensor *mask,
                                                   size_t *bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const ComponentsCall call(*context, opts, map, mask, true);
    if (!bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "bytes is NULL");
    *bytes = workspace_of(*context, call);
  });
}

segprior_status segprior_components(segprior_context *context, const segprior_components_opts *opts,
                                    const segprior_tensor *map, const segprior_tensor *mask,
                                    const segprior_tensor *components, const segprior_tensor *count,
                                    const segprior_tensor *class_count, void *workspace,
                                    size_t workspace_bytes) {
  return guard("segprior_components", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    ComponentsCall call(*context, opts, map, mask, false);
    call.read_outputs(components, count, class_count);
    const size_t needed = workspace_of(*context, call);
    check_size("workspace_bytes", workspace_bytes, needed);
    call.arguments.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
    call.arguments.check_overlap();
    backend_of(*context).components(call.problem, workspace, context->cpu_threads(), context->stream);
  });
}
