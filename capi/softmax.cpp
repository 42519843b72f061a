// include/segprior/softmax.h: checks every argument, then calls the backend of the context's device.
#include "segprior/softmax.h"

#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "capi/softmax_args.h"
#include "kernels/softmax/softmax_stage.h"

namespace segprior::softmax {
namespace {

const Backend &backend_of(const segprior_context &context) {
#if defined(SEGPRIOR_WITH_CUDA)
  if (context.device.type == SEGPRIOR_CUDA) return kCuda;
#endif
  (void)context;
  return kCpu;
}

}  // namespace
}  // namespace segprior::softmax

using namespace segprior;
using namespace segprior::softmax;

segprior_status segprior_softmax_opts_init(segprior_softmax_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts", kOldestOpts); });
}

segprior_status segprior_softmax_workspace_size(segprior_context *context, const segprior_softmax_opts *opts,
                                                const segprior_softmax_inputs *inputs, size_t *forward_bytes,
                                                size_t *backward_bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);  // CUDA: the path depends on the device
    const Call call(*context, opts, inputs, true);
    const Backend &backend = backend_of(*context);
    const int threads = context->cpu_threads();
    const size_t none = 0;
    if (forward_bytes)
      *forward_bytes = call.empty() ? none : staged_forward_workspace(backend, call.problem, threads);
    if (backward_bytes)
      *backward_bytes =
          call.empty() ? none : staged_backward_workspace(backend, call.problem, call.mode(), threads);
  });
}

segprior_status segprior_softmax_saved_size(segprior_context *context, const segprior_softmax_opts *opts,
                                            const segprior_softmax_inputs *inputs, size_t *saved_bytes) {
  return guard([&] {
    const Use use(context);
    const Call call(*context, opts, inputs, true);
    if (!saved_bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "saved_bytes is NULL");
    *saved_bytes = call.empty() ? 0 : staged_saved_bytes(call.problem);
  });
}

segprior_status segprior_softmax_forward(segprior_context *context, const segprior_softmax_opts *opts,
                                         const segprior_softmax_inputs *inputs,
                                         const segprior_softmax_outputs *outputs, void *workspace,
                                         size_t workspace_bytes, void *saved, size_t saved_bytes) {
  return guard("segprior_softmax_forward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, opts, inputs, false);
    const Problem &p = call.problem;
    Arguments &a = call.arguments;
    const Outputs out = call.read_outputs(outputs);
    if (call.empty()) return;
    const Backend &backend = backend_of(*context);
    const int threads = context->cpu_threads();
    const size_t needed = staged_forward_workspace(backend, p, threads), saved_needed = staged_saved_bytes(p);
    check_size("workspace_bytes", workspace_bytes, needed);
    check_size("saved_bytes", saved_bytes, saved_needed);
    a.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
    a.output_bytes("saved", saved, saved_needed, Arena::kBaseAlignment);
    a.check_overlap();
    staged_forward(backend, p, out, workspace, saved, threads, context->stream);
  });
}

segprior_status segprior_softmax_backward(segprior_context *context, const segprior_softmax_opts *opts,
                                          const segprior_softmax_inputs *inputs, const segprior_tensor *u,
                                          const segprior_tensor *grad_u, const segprior_softmax_grads *grads,
                                          void *workspace, size_t workspace_bytes, const void *saved,
                                          size_t saved_bytes) {
  return guard("segprior_softmax_backward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, opts, inputs, false);
    Arguments &a = call.arguments;
    const Problem &p = call.problem;
    const Mode mode = call.mode();
    if (mode != Mode::last && p.checkpoint_interval == 0)
      reject(SEGPRIOR_ERROR_VALUE,
             "opts.checkpoint_interval = 0 must be >= 1 (as in forward) for SEGPRIOR_BACKWARD_UNROLLED and "
             "SEGPRIOR_BACKWARD_IMPLICIT");
    const void *u_data = a.input("u", u, call.field, mode == Mode::last, Kind::field);
    const void *grad_u_data = a.input("grad_u", grad_u, call.field, true, Kind::field);
    const Grads out = call.read_grads(grads);
    if (call.empty()) return;
    const Backend &backend = backend_of(*context);
    const int threads = context->cpu_threads();
    const size_t needed = staged_backward_workspace(backend, p, mode, threads);
    check_size("workspace_bytes", workspace_bytes, needed);
    if (needed > 0) a.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
    if (mode != Mode::last) {
      const size_t saved_needed = staged_saved_bytes(p);
      check_size("saved_bytes", saved_bytes, saved_needed);
      a.input_bytes("saved", saved, saved_needed, Arena::kBaseAlignment);
    }
    a.check_overlap();
    staged_backward(backend, p, mode, u_data, grad_u_data, out, workspace, saved, threads, context->stream);
  });
}
