// include/segprior/proposals.h: checks every argument, then calls the backend of the context's device.
#include "segprior/proposals.h"

#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "capi/tensor.h"
#include "kernels/common/arena.h"
#include "kernels/proposals/proposals.h"

namespace segprior::proposals {
namespace {

const Backend &backend_of(const segprior_context &context) {
#if defined(SEGPRIOR_WITH_CUDA)
  if (context.device.type == SEGPRIOR_CUDA) return kCuda;
#endif
  (void)context;
  return kCpu;
}

segprior_proposal_opts default_opts() {
  segprior_proposal_opts o{};
  o.struct_size = sizeof o;
  o.method = SEGPRIOR_PROPOSAL_EXACT;
  o.iterations = 500;
  o.step = 5e-5;
  o.tolerance = 1e-6;
  return o;
}

// The checked arguments of a call.
class Call {
 public:
  Call(const segprior_context &context, const segprior_proposal_opts *opts,
       const segprior_proposal_inputs *inputs, bool sizes_only)
      : arguments(context, sizes_only) {
    read_opts(read_struct(opts, default_opts(), "opts"));
    read_inputs(read_struct(inputs, segprior_proposal_inputs{}, "inputs"));
  }

  bool empty() const { return problem.batch == 0 || problem.voxels == 0; }
  Outputs read_outputs(const segprior_proposal_outputs *given);

  Problem problem{};
  Arguments arguments;

 private:
  void read_opts(const segprior_proposal_opts &o);
  void read_inputs(const segprior_proposal_inputs &in);
  const void *read_bounds(const char *name, const segprior_tensor *tensor, int64_t &rows);

  Shape field_, per_class_;  // [B, I, *S], [B, I]
};

void Call::read_opts(const segprior_proposal_opts &o) {
  require(o.method == SEGPRIOR_PROPOSAL_EXACT || o.method == SEGPRIOR_PROPOSAL_GRADIENT, "method", o.method,
          "SEGPRIOR_PROPOSAL_EXACT (0) or _GRADIENT (1)");
  require(o.iterations >= 0, "iterations", o.iterations, ">= 0");
  require(positive(o.step), "step", o.step, "> 0 and finite");
  require(not_negative(o.tolerance), "tolerance", o.tolerance, ">= 0 and finite");
  problem.method = static_cast<Method>(o.method);
  problem.iterations = o.iterations;
  problem.step = o.step;
  problem.tolerance = o.tolerance;
}

void Call::read_inputs(const segprior_proposal_inputs &in) {
  Problem &p = problem;
  p.logits = arguments.lead("inputs.logits", in.logits, 3, 5);
  field_ = shape_of(*in.logits);
  p.storage = storage_of(arguments.field_dtype());
  p.batch = field_.extent[0];
  p.classes = field_.extent[1];
  if (p.classes < 1 || p.classes > kMaxClasses)
    reject(SEGPRIOR_ERROR_SHAPE,
           "inputs.logits: " + std::to_string(p.classes) + " classes (axis 1); must be 1 to 256");
  per_class_ = {{p.batch, p.classes}, 2};
  Shape per_voxel{{p.batch}, field_.ndim - 1};
  for (int k = 2; k < field_.ndim; ++k) per_voxel.extent[k - 1] = field_.extent[k];
  p.voxels = voxels_of(field_, 2);
  p.lower = read_bounds("inputs.lower", in.lower, p.lower_rows);
  p.upper = read_bounds("inputs.upper", in.upper, p.upper_rows);
  p.has_mask = in.mask != nullptr;
  p.mask_shared = one_row(in.mask);
  if (p.mask_shared) per_voxel.extent[0] = 1;
  p.mask =
      static_cast<const uint8_t *>(arguments.input("inputs.mask", in.mask, per_voxel, false, Kind::mask));
}

const void *Call::read_bounds(const char *name, const segprior_tensor *tensor, int64_t &rows) {
  if (!tensor) return nullptr;
  rows = one_row(tensor) ? 1 : problem.batch;
  return arguments.input(name, tensor, {{rows, problem.classes}, 2});
}

Outputs Call::read_outputs(const segprior_proposal_outputs *given) {
  const segprior_proposal_outputs o = read_struct(given, segprior_proposal_outputs{}, "outputs");
  Outputs out{};
  out.proposal = arguments.output("outputs.proposal", o.proposal, field_, true, Kind::field);
  out.dual = arguments.output("outputs.dual", o.dual, per_class_);
  out.volume = arguments.output("outputs.volume", o.volume, per_class_);
  out.info = o.info;
  if (o.info)
    arguments.output_bytes("outputs.info", o.info, problem.batch * sizeof(segprior_info),
                           alignof(segprior_info));
  return out;
}

}  // namespace
}  // namespace segprior::proposals

using namespace segprior;
using namespace segprior::proposals;

segprior_status segprior_proposal_opts_init(segprior_proposal_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_proposal_workspace_size(segprior_context *context,
                                                 const segprior_proposal_opts *opts,
                                                 const segprior_proposal_inputs *inputs, size_t *bytes) {
  return guard([&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    if (!bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "bytes is NULL");
    const Call call(*context, opts, inputs, true);
    *bytes = call.empty() ? 0 : backend_of(*context).workspace(call.problem, context->cpu_threads());
  });
}

segprior_status segprior_proposal_forward(segprior_context *context, const segprior_proposal_opts *opts,
                                          const segprior_proposal_inputs *inputs,
                                          const segprior_proposal_outputs *outputs, void *workspace,
                                          size_t workspace_bytes) {
  return guard("segprior_proposal_forward", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    Call call(*context, opts, inputs, false);
    const Outputs out = call.read_outputs(outputs);
    if (call.empty()) {
      call.arguments.check_overlap();
      const Problem &p = call.problem;
      clear(*context, out.dual, p.batch * p.classes * call.arguments.parameter_size());
      clear(*context, out.volume, p.batch * p.classes * call.arguments.parameter_size());
      clear(*context, out.info, p.batch * sizeof(segprior_info));
      return;
    }
    const Backend &backend = backend_of(*context);
    const size_t needed = backend.workspace(call.problem, context->cpu_threads());
    check_size("workspace_bytes", workspace_bytes, needed);
    call.arguments.output_bytes("workspace", workspace, needed, Arena::kBaseAlignment);
    call.arguments.check_overlap();
    backend.forward(call.problem, out, workspace, context->cpu_threads(), context->stream);
  });
}
