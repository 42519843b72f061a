// include/segprior/losses.h: checks every argument, then calls the backend of the context's device.
#include "segprior/losses.h"

#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/losses_args.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "kernels/common/arena.h"

namespace segprior::losses {
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
  const size_t needed = backend_of(context).workspace(call.problem, pass, context.cpu_threads());
  check_size("workspace_bytes", bytes, needed);
  call.arguments.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
}

}  // namespace
}  // namespace segprior::losses

using namespace segprior;
using namespace segprior::losses;

segprior_status segprior_loss_opts_init(segprior_loss_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_loss_workspace_size(segprior_context *context, const segprior_loss_opts *opts,
                                             const segprior_loss_inputs *inputs, size_t *forward_bytes,
                                             size_t *backward_bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Call call(*context, opts, inputs, true);
    const auto answer = [&](size_t *bytes, Pass pass) {
      if (bytes)
        *bytes =
            call.empty() ? 0 : backend_of(*context).workspace(call.problem, pass, context->cpu_threads());
    };
    answer(forward_bytes, Pass::forward);
    answer(backward_bytes, Pass::backward);
  });
}

segprior_status segprior_loss_saved_size(segprior_context *context, const segprior_loss_opts *opts,
                                         const segprior_loss_inputs *inputs, size_t *saved_bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const Call call(*context, opts, inputs, true);
    if (!saved_bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "saved_bytes is NULL");
    *saved_bytes = call.empty() ? 0 : backend_of(*context).saved(call.problem);
  });
}

segprior_status segprior_loss_forward(segprior_context *context, const segprior_loss_opts *opts,
                                      const segprior_loss_inputs *inputs,
                                      const segprior_loss_outputs *outputs, void *workspace,
                                      size_t workspace_bytes, void *saved, size_t saved_bytes) {
  return guard("segprior_loss_forward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, opts, inputs, false);
    const Outputs out = call.read_outputs(outputs);
    const Problem &p = call.problem;
    if (call.empty()) {  // every output is 0
      call.arguments.check_overlap();
      const size_t real = call.arguments.parameter_size();
      clear(*context, out.total, real);
      clear(*context, out.terms, kTerms * real);
      clear(*context, out.items, kTerms * p.batch * p.classes * real);
      clear(*context, out.info, p.batch * sizeof(segprior_info));
      return;
    }
    check_workspace(call, *context, Pass::forward, workspace, workspace_bytes);
    if (saved) {
      const size_t needed = backend_of(*context).saved(p);
      check_size("saved_bytes", saved_bytes, needed);
      call.arguments.output_bytes("saved", saved, needed, Arena::kBaseAlignment);
    }
    call.arguments.check_overlap();
    backend_of(*context).forward(p, out, workspace, saved, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_loss_backward(segprior_context *context, const segprior_loss_opts *opts,
                                       const segprior_loss_inputs *inputs,
                                       const segprior_loss_cotangents *cotangents,
                                       const segprior_loss_grads *grads, void *workspace,
                                       size_t workspace_bytes, const void *saved, size_t saved_bytes) {
  return guard("segprior_loss_backward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, opts, inputs, false);
    const Cotangents in = call.read_cotangents(cotangents);
    const Grads out = call.read_grads(grads, in);
    const Problem &p = call.problem;
    if (call.empty()) {
      call.arguments.check_overlap();
      if (out.accumulate) return;
      const size_t real = call.arguments.parameter_size();
      clear(*context, out.class_weights, p.weight_rows * p.classes * real);
      clear(*context, out.size_lower, p.lower_rows * p.classes * real);
      clear(*context, out.size_upper, p.upper_rows * p.classes * real);
      return;
    }
    check_workspace(call, *context, Pass::backward, workspace, workspace_bytes);
    const size_t needed = backend_of(*context).saved(p);
    check_size("saved_bytes", saved_bytes, needed);
    call.arguments.input_bytes("saved", saved, needed, Arena::kBaseAlignment);
    call.arguments.check_overlap();
    backend_of(*context).backward(p, in, out, workspace, saved, context->cpu_threads(), context->stream);
  });
}

segprior_status segprior_size_bounds(segprior_context *context, int32_t kind, const segprior_tensor *volumes,
                                     int64_t voxels, double low, double high, const segprior_tensor *lower,
                                     const segprior_tensor *upper) {
  return guard("segprior_size_bounds", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const auto rule = [](bool ok, const char *name, double value, const char *text) {
      if (!ok) reject(SEGPRIOR_ERROR_VALUE, std::string(name) + " = " + number(value) + " must be " + text);
    };
    rule(kind >= SEGPRIOR_BOUNDS_TAGS && kind <= SEGPRIOR_BOUNDS_INDIVIDUAL, "kind", kind,
         "SEGPRIOR_BOUNDS_TAGS (0), _COMMON (1) or _INDIVIDUAL (2)");
    rule(voxels >= (kind == SEGPRIOR_BOUNDS_TAGS), "voxels", static_cast<double>(voxels),
         kind == SEGPRIOR_BOUNDS_TAGS ? ">= 1 for SEGPRIOR_BOUNDS_TAGS" : ">= 0");
    rule(not_negative(low), "low", low, ">= 0 and finite");
    rule(high >= low && not_negative(high), "high", high, ">= low and finite");
    Arguments a(*context, false);
    Bounds b{};
    b.lower = a.lead_output("lower", lower, 2, 2);
    if (a.field_dtype() != a.dtype())
      reject(SEGPRIOR_ERROR_DTYPE, "lower: dtype = " + std::to_string(lower->dtype) +
                                       " must be SEGPRIOR_FLOAT32 (1) or SEGPRIOR_FLOAT64 (2)");
    const Shape shape = shape_of(*lower);
    b.upper = a.output("upper", upper, shape, true);
    b.volumes = static_cast<const int64_t *>(a.input("volumes", volumes, shape, true, Kind::int64));
    a.check_overlap();
    b.kind = kind;
    b.batch = shape.extent[0];
    b.classes = shape.extent[1];
    b.voxels = voxels;
    b.low = low;
    b.high = high;
    b.f64 = a.dtype() == SEGPRIOR_FLOAT64;
    if (b.batch == 0 || b.classes == 0) return;
    backend_of(*context).bounds(b, context->cpu_threads(), context->stream);
  });
}
