// include/segprior/softcut.h: checks every argument, then calls the backend of the context's device.
#include "segprior/softcut.h"

#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "capi/softcut_args.h"
#include "kernels/softcut/softcut_stage.h"

namespace segprior::softcut {
namespace {

const Backend &backend_of(const segprior_context &context) {
#if defined(SEGPRIOR_WITH_CUDA)
  if (context.device.type == SEGPRIOR_CUDA) return kCuda;
#endif
  (void)context;
  return kCpu;
}

// Adds the scratch of a compute call to its arguments, after all tensors; nothing may overlap.
void check_workspace(Call &call, const segprior_context &context, Pass pass, void *workspace, size_t bytes) {
  const size_t needed = staged_workspace(backend_of(context), call.problem, pass, context.cpu_threads());
  check_size("workspace_bytes", bytes, needed);
  call.arguments.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
}

void check_saved(Call &call, const segprior_context &context, const void *saved, size_t bytes) {
  const size_t needed = backend_of(context).saved(call.problem);
  check_size("saved_bytes", bytes, needed);
  call.arguments.input_bytes("saved", saved, needed, Arena::kBaseAlignment);
}

int64_t entries_of(const Grid &g) {
  int64_t entries = g.voxels();
  for (int f = 0; f < kFamilies; ++f) entries += 2 * g.edge_count(f);
  return entries;
}

}  // namespace
}  // namespace segprior::softcut

using namespace segprior;
using namespace segprior::softcut;

segprior_status segprior_softcut_opts_init(segprior_softcut_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_softcut_workspace_size(segprior_context *context, const segprior_softcut_opts *opts,
                                                const segprior_softcut_inputs *inputs, size_t *forward_bytes,
                                                size_t *backward_bytes, size_t *double_backward_bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);  // CUDA: the path depends on the device
    const Call call(*context, read_opts(opts), inputs, true);
    const auto answer = [&](size_t *bytes, Pass pass) {
      if (bytes)
        *bytes = call.empty()
                     ? 0
                     : staged_workspace(backend_of(*context), call.problem, pass, context->cpu_threads());
    };
    answer(forward_bytes, Pass::forward);
    answer(backward_bytes, Pass::backward);
    answer(double_backward_bytes, Pass::double_backward);
  });
}

segprior_status segprior_softcut_saved_size(segprior_context *context, const segprior_softcut_opts *opts,
                                            const segprior_softcut_inputs *inputs, size_t *saved_bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Call call(*context, read_opts(opts), inputs, true);
    if (!saved_bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "saved_bytes is NULL");
    *saved_bytes = call.empty() ? 0 : backend_of(*context).saved(call.problem);
  });
}

segprior_status segprior_softcut_forward(segprior_context *context, const segprior_softcut_opts *opts,
                                         const segprior_softcut_inputs *inputs,
                                         const segprior_softcut_outputs *outputs, void *workspace,
                                         size_t workspace_bytes, void *saved, size_t saved_bytes) {
  return guard("segprior_softcut_forward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, read_opts(opts), inputs, false);
    const Outputs out = call.read_outputs(outputs);
    if (call.empty()) return;
    const Backend &backend = backend_of(*context);
    check_workspace(call, *context, Pass::forward, workspace, workspace_bytes);
    const size_t saved_needed = backend.saved(call.problem);
    check_size("saved_bytes", saved_bytes, saved_needed);
    call.arguments.output_bytes("saved", saved, saved_needed, Arena::kBaseAlignment);
    call.arguments.check_overlap();
    staged_forward(backend, call.problem, out, workspace, saved, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_softcut_backward(segprior_context *context, const segprior_softcut_opts *opts,
                                          const segprior_softcut_inputs *inputs, const segprior_tensor *x,
                                          const segprior_tensor *grad_x, const segprior_softcut_grads *grads,
                                          void *workspace, size_t workspace_bytes, const void *saved,
                                          size_t saved_bytes) {
  return guard("segprior_softcut_backward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, read_opts(opts), inputs, false);
    const void *x_data = call.read_field("x", x), *grad_x_data = call.read_field("grad_x", grad_x);
    const Grads out = call.read_grads(grads);
    if (call.empty()) return;
    check_workspace(call, *context, Pass::backward, workspace, workspace_bytes);
    check_saved(call, *context, saved, saved_bytes);
    call.arguments.check_overlap();
    staged_backward(backend_of(*context), call.problem, x_data, grad_x_data, out, workspace, saved,
                    context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_softcut_double_backward(segprior_context *context, const segprior_softcut_opts *opts,
                                                 const segprior_softcut_inputs *inputs,
                                                 const segprior_tensor *x, const segprior_tensor *grad_scores,
                                                 const segprior_softcut_cotangents *cotangents,
                                                 const segprior_softcut_second_grads *grads, void *workspace,
                                                 size_t workspace_bytes, const void *saved,
                                                 size_t saved_bytes) {
  return guard("segprior_softcut_double_backward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, read_opts(opts), inputs, false);
    const void *x_data = call.read_field("x", x), *l_data = call.read_field("grad_scores", grad_scores);
    const Cotangents in = call.read_cotangents(cotangents);
    const SecondGrads out = call.read_second_grads(grads);
    if (call.empty()) return;
    check_workspace(call, *context, Pass::double_backward, workspace, workspace_bytes);
    check_saved(call, *context, saved, saved_bytes);
    call.arguments.check_overlap();
    staged_double_backward(backend_of(*context), call.problem, x_data, l_data, in, out, workspace, saved,
                           context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_softcut_csr_size(segprior_context *context, const segprior_softcut_inputs *inputs,
                                          int64_t *entries) {
  return guard([&] {
    const Use use(context);
    const Call call(*context, default_opts(), inputs, true);
    if (!entries) reject(SEGPRIOR_ERROR_NULL_POINTER, "entries is NULL");
    *entries = call.empty() ? 0 : entries_of(call.problem.grid);
  });
}

segprior_status segprior_softcut_csr(segprior_context *context, const segprior_softcut_inputs *inputs,
                                     int32_t *row_offsets, int32_t *columns, const segprior_tensor *values) {
  return guard("segprior_softcut_csr", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, default_opts(), inputs, false);
    const Grid &g = call.problem.grid;
    const int64_t entries = call.empty() ? 0 : entries_of(g);
    if (entries > INT32_MAX)
      reject(SEGPRIOR_ERROR_SIZE_OVERFLOW,
             "entries = " + std::to_string(entries) + " must be less than 2^31, the range of `columns`");
    if (call.problem.storage != softcut::Storage::native)
      reject(SEGPRIOR_ERROR_NOT_SUPPORTED, "inputs.edges: the matrix of 16-bit edges is not exported");
    Arguments &a = call.arguments;
    void *out = a.output("values", values, {{g.matrices(), entries}, 2}, true);
    if (call.empty()) return;
    a.output_bytes("row_offsets", row_offsets, (g.voxels() + 1) * sizeof(int32_t), alignof(int32_t));
    a.output_bytes("columns", columns, entries * sizeof(int32_t), alignof(int32_t));
    a.check_overlap();
    backend_of(*context).csr(call.problem, row_offsets, columns, out, context->cpu_threads(),
                             context->stream);
  });
}
