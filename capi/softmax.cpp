// include/segprior/softmax.h: checks every argument, then calls the backend of the context's device.
#include "segprior/softmax.h"

#include <cmath>
#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/options.h"
#include "capi/tensor.h"
#include "kernels/softmax/softmax.h"

namespace segprior::softmax {
namespace {

segprior_softmax_opts default_opts() {
  segprior_softmax_opts o{};
  o.struct_size = sizeof o;
  o.iterations = 30;
  o.check_interval = 10;
  o.eps = o.tv_lam = 1;
  for (double &h : o.spacing) h = 1;
  return o;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

void require(bool ok, const char *field, double value, const char *rule) {
  if (!ok)
    reject(SEGPRIOR_ERROR_VALUE, "opts." + std::string(field) + " = " + number(value) + " must be " + rule);
}

segprior_softmax_opts read_opts(const segprior_softmax_opts *given, bool eps_given, bool lam_given,
                                bool tau_given) {
  const segprior_softmax_opts o = read_struct(given, default_opts(), "opts");
  const auto flag = [](int32_t v) { return v == 0 || v == 1; };
  require(o.iterations >= 0, "iterations", o.iterations, ">= 0");
  require(flag(o.accelerate), "accelerate", o.accelerate, "0 or 1");
  require(o.tolerance >= 0 && std::isfinite(o.tolerance), "tolerance", o.tolerance, ">= 0 and finite");
  require(o.check_interval >= 1, "check_interval", o.check_interval, ">= 1");
  require(o.checkpoint_interval >= 0, "checkpoint_interval", o.checkpoint_interval, ">= 0");
  require(flag(o.tv), "tv", o.tv, "0 or 1");
  require(flag(o.backward_mode), "backward_mode", o.backward_mode,
          "SEGPRIOR_BACKWARD_LAST (0) or SEGPRIOR_BACKWARD_UNROLLED (1)");
  require(flag(o.accumulate), "accumulate", o.accumulate, "0 or 1");
  require(o.reserved == 0, "reserved", o.reserved, "0");
  require(eps_given || (o.eps > 0 && std::isfinite(o.eps)), "eps", o.eps, "> 0 and finite");
  require(o.init_eps >= 0 && std::isfinite(o.init_eps), "init_eps", o.init_eps, ">= 0 and finite");
  require(lam_given || (o.tv_lam >= 0 && std::isfinite(o.tv_lam)), "tv_lam", o.tv_lam, ">= 0 and finite");
  require(tau_given || (o.tv_tau >= 0 && std::isfinite(o.tv_tau)), "tv_tau", o.tv_tau, ">= 0 and finite");
  constexpr const char *kSpacing[3] = {"spacing[0]", "spacing[1]", "spacing[2]"};
  for (int d = 0; d < 3; ++d)
    require(o.spacing[d] > 0 && std::isfinite(o.spacing[d]), kSpacing[d], o.spacing[d], "> 0 and finite");
  return o;
}

// Axes of extent 1 in front turn 1-D and 2-D grids into the canonical (slice, row, column).
Grid read_grid(const segprior_tensor &features, const segprior_softmax_opts &o) {
  Grid g{};
  g.batch = features.shape[0];
  g.classes = features.shape[1];
  g.nd = features.ndim - 2;
  constexpr int kAxes[3][3] = {{2}, {0, 2}, {0, 1, 2}};
  for (int a = 0; a < 3; ++a) g.extent[a] = 1;
  for (int c = 0; c < g.nd; ++c) {
    const int axis = kAxes[g.nd - 1][c];
    g.axes[c] = axis;
    g.extent[axis] = features.shape[2 + c];
    g.inv_spacing[axis] = 1 / o.spacing[c];
  }
  return g;
}

// The shape [head..., *S].
Shape shape_of(const segprior_tensor &features, std::initializer_list<int64_t> head, bool with_space = true) {
  Shape shape{{}, 0};
  for (int64_t extent : head) shape.extent[shape.ndim++] = extent;
  for (int k = 2; with_space && k < features.ndim; ++k) shape.extent[shape.ndim++] = features.shape[k];
  return shape;
}

constexpr Shape kOne{{1}, 1};

// The checked arguments that forward, backward and the size queries have in common.
struct Call {
  segprior_softmax_opts opts;
  segprior_softmax_inputs inputs;
  Problem problem;
  Arguments arguments;
  Shape field, dual, per_class;  // shapes [B, I, *S], [B, I, nd, *S], [B, I]

  Call(const segprior_context &context, const segprior_softmax_opts *opts_in,
       const segprior_softmax_inputs *inputs_in, bool sizes_only)
      : arguments(context, sizes_only) {
    inputs = read_struct(inputs_in, segprior_softmax_inputs{}, "inputs");
    opts = read_opts(opts_in, inputs.eps, inputs.tv_lam, inputs.tv_tau);
    const void *features = arguments.lead("inputs.features", inputs.features, 3, 5);
    const segprior_tensor &o = *inputs.features;
    if (o.shape[1] < 1 || o.shape[1] > kMaxClasses)
      reject(SEGPRIOR_ERROR_SHAPE, "inputs.features: " + std::to_string(o.shape[1]) +
                                       " classes (axis 1) must be 1 to " + std::to_string(kMaxClasses));
    Problem &p = problem;
    p = {};
    p.features = features;
    p.grid = read_grid(o, opts);
    field = shape_of(o, {p.grid.batch, p.grid.classes});
    dual = shape_of(o, {p.grid.batch, p.grid.classes, p.grid.nd});
    per_class = shape_of(o, {p.grid.batch, p.grid.classes}, false);
    p.dtype = o.dtype == SEGPRIOR_FLOAT32 ? DType::f32 : DType::f64;
    p.iterations = opts.iterations;
    p.check_interval = opts.check_interval;
    p.checkpoint_interval = opts.checkpoint_interval;
    p.tolerance = opts.tolerance;
    p.init_eps = opts.init_eps;
    p.tv = opts.tv == 1;
    p.accelerate = p.tv && opts.accelerate == 1;  // the momentum is that of the TV dual
    read_inputs();
  }

  bool empty() const { return problem.grid.batch == 0 || problem.grid.voxels() == 0; }

 private:
  void read_inputs() {
    Problem &p = problem;
    p.eps = {arguments.input("inputs.eps", inputs.eps, kOne), opts.eps};
    p.lam = {arguments.input("inputs.tv_lam", inputs.tv_lam, kOne), opts.tv_lam};
    p.tau = {arguments.input("inputs.tv_tau", inputs.tv_tau, kOne), opts.tv_tau};
    // A size query has no data to point at, but must see that the step is not the default one.
    if (inputs.tv_tau && !p.tau.device) p.tau.host = 1;
    needs("inputs.tv_lam", inputs.tv_lam, p.tv, "opts.tv = 1");
    needs("inputs.tv_tau", inputs.tv_tau, p.tv, "opts.tv = 1");
    needs("inputs.tv_edge", inputs.tv_edge, p.tv, "opts.tv = 1");
    needs("inputs.init_tv_dual", inputs.init_tv_dual, p.tv, "opts.tv = 1");
    if (inputs.tv_edge) {
      p.has_edge = true;
      p.edge_shared = p.grid.batch != 1 && inputs.tv_edge->ndim > 0 && inputs.tv_edge->shape &&
                      inputs.tv_edge->shape[0] == 1;
      p.edge = arguments.input("inputs.tv_edge", inputs.tv_edge, edge_shape());
    }
    if (inputs.volume && (inputs.volume_lower || inputs.volume_upper))
      reject(SEGPRIOR_ERROR_VALUE, "inputs.volume excludes inputs.volume_lower and inputs.volume_upper");
    if (inputs.volume) {
      p.volume = Volume::equality;
      p.lower = p.upper = arguments.input("inputs.volume", inputs.volume, per_class);
    } else if (inputs.volume_lower || inputs.volume_upper) {
      p.volume = Volume::box;
      p.lower = arguments.input("inputs.volume_lower", inputs.volume_lower, per_class);
      p.upper = arguments.input("inputs.volume_upper", inputs.volume_upper, per_class);
    }
    needs("inputs.init_volume_dual", inputs.init_volume_dual, p.volume != Volume::none, "a volume prior");
    p.has_init_tv = inputs.init_tv_dual != nullptr;
    p.has_init_volume = inputs.init_volume_dual != nullptr;
    p.init_tv = arguments.input("inputs.init_tv_dual", inputs.init_tv_dual, dual);
    p.init_volume = arguments.input("inputs.init_volume_dual", inputs.init_volume_dual, per_class);
  }

 public:
  Shape edge_shape() const {
    return shape_of(*inputs.features, {problem.edge_shared ? 1 : problem.grid.batch});
  }

  static void needs(const char *name, const void *given, bool condition, const char *what) {
    if (given && !condition)
      reject(SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs " + what);
  }
};

const Backend &backend_of(const segprior_context &context) {
#if defined(SEGPRIOR_WITH_CUDA)
  if (context.device.type == SEGPRIOR_CUDA) return kCuda;
#endif
  (void)context;
  return kCpu;
}

size_t saved_bytes_of(const Problem &p) {
  Arena arena;
  if (p.dtype == DType::f32)
    carve_saved<float>(p, arena);
  else
    carve_saved<double>(p, arena);
  return arena.used();
}

void check_size(const char *name, size_t given, size_t needed) {
  if (given < needed)
    reject(SEGPRIOR_ERROR_BUFFER_TOO_SMALL, std::string(name) + " = " + std::to_string(given) +
                                                " is smaller than the needed " + std::to_string(needed));
}

Grads read_grads(Call &call, const segprior_softmax_grads *given) {
  const segprior_softmax_grads g = read_struct(given, segprior_softmax_grads{}, "grads");
  const segprior_softmax_inputs &in = call.inputs;
  const bool unrolled = call.opts.backward_mode == SEGPRIOR_BACKWARD_UNROLLED, tv = call.problem.tv;
  const struct {
    const char *name;
    const segprior_tensor *tensor;
    bool condition;
    const char *needs;
  } rules[] = {{"grads.init_eps", g.init_eps, call.opts.init_eps > 0, "opts.init_eps > 0"},
               {"grads.tv_lam", g.tv_lam, tv, "opts.tv = 1"},
               {"grads.tv_tau", g.tv_tau, tv, "opts.tv = 1"},
               {"grads.tv_edge", g.tv_edge, in.tv_edge != nullptr, "inputs.tv_edge"},
               {"grads.volume", g.volume, in.volume != nullptr, "inputs.volume"},
               {"grads.volume_lower", g.volume_lower, in.volume_lower != nullptr, "inputs.volume_lower"},
               {"grads.volume_upper", g.volume_upper, in.volume_upper != nullptr, "inputs.volume_upper"},
               {"grads.eps", g.eps, true, ""}};
  for (const auto &rule : rules) {
    Call::needs(rule.name, rule.tensor, unrolled, "opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED");
    Call::needs(rule.name, rule.tensor, rule.condition, rule.needs);
  }
  Arguments &a = call.arguments;
  Grads out{};
  out.accumulate = call.opts.accumulate == 1;
  out.features = a.output("grads.features", g.features, call.field);
  out.eps = a.output("grads.eps", g.eps, kOne);
  out.init_eps = a.output("grads.init_eps", g.init_eps, kOne);
  out.tv_lam = a.output("grads.tv_lam", g.tv_lam, kOne);
  out.tv_tau = a.output("grads.tv_tau", g.tv_tau, kOne);
  if (g.tv_edge) out.tv_edge = a.output("grads.tv_edge", g.tv_edge, call.edge_shape());
  out.volume_lower = a.output("grads.volume_lower", g.volume_lower, call.per_class);
  out.volume_upper = g.volume ? a.output("grads.volume", g.volume, call.per_class)
                              : a.output("grads.volume_upper", g.volume_upper, call.per_class);
  return out;
}

}  // namespace
}  // namespace segprior::softmax

using namespace segprior;
using namespace segprior::softmax;

segprior_status segprior_softmax_opts_init(segprior_softmax_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_softmax_workspace_size(segprior_context *context, const segprior_softmax_opts *opts,
                                                const segprior_softmax_inputs *inputs, size_t *forward_bytes,
                                                size_t *backward_bytes) {
  return guard([&] {
    const Use use(context);
    const Call call(*context, opts, inputs, true);
    const Backend &backend = backend_of(*context);
    const size_t none = 0;
    const size_t forward =
        call.empty() ? none : backend.forward_workspace(call.problem, context->cpu_threads());
    const size_t backward = call.empty() || call.opts.backward_mode == SEGPRIOR_BACKWARD_LAST
                                ? none
                                : backend.backward_workspace(call.problem, context->cpu_threads());
    if (forward_bytes) *forward_bytes = forward;
    if (backward_bytes) *backward_bytes = backward;
  });
}

segprior_status segprior_softmax_saved_size(segprior_context *context, const segprior_softmax_opts *opts,
                                            const segprior_softmax_inputs *inputs, size_t *saved_bytes) {
  return guard([&] {
    const Use use(context);
    const Call call(*context, opts, inputs, true);
    if (!saved_bytes) reject(SEGPRIOR_ERROR_NULL_POINTER, "saved_bytes is NULL");
    *saved_bytes = call.empty() ? 0 : saved_bytes_of(call.problem);
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
    const segprior_softmax_outputs given = read_struct(outputs, segprior_softmax_outputs{}, "outputs");
    const Problem &p = call.problem;
    Call::needs("outputs.tv_dual", given.tv_dual, p.tv, "opts.tv = 1");
    Call::needs("outputs.volume_dual", given.volume_dual, p.volume != Volume::none, "a volume prior");
    Arguments &a = call.arguments;
    Outputs out{};
    out.u = a.output("outputs.u", given.u, call.field, true);
    out.tv_dual = a.output("outputs.tv_dual", given.tv_dual, call.dual);
    out.volume_dual = a.output("outputs.volume_dual", given.volume_dual, call.per_class);
    if (call.empty()) return;
    if (given.info)
      out.info = static_cast<segprior_info *>(a.output_bytes(
          "outputs.info", given.info, p.grid.batch * sizeof(segprior_info), alignof(segprior_info)));
    const Backend &backend = backend_of(*context);
    const int threads = context->cpu_threads();
    const size_t needed = backend.forward_workspace(p, threads), saved_needed = saved_bytes_of(p);
    check_size("workspace_bytes", workspace_bytes, needed);
    check_size("saved_bytes", saved_bytes, saved_needed);
    a.output_bytes("workspace", workspace, needed, Arena::kAlignment);
    a.output_bytes("saved", saved, saved_needed, Arena::kAlignment);
    a.check_overlap();
    backend.forward(p, out, workspace, saved, threads, context->stream);
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
    const Mode mode = call.opts.backward_mode == SEGPRIOR_BACKWARD_LAST ? Mode::last : Mode::unrolled;
    if (mode == Mode::unrolled && p.checkpoint_interval == 0)
      reject(SEGPRIOR_ERROR_VALUE,
             "opts.checkpoint_interval = 0 must be >= 1 (as in forward) for SEGPRIOR_BACKWARD_UNROLLED");
    const void *u_data = a.input("u", u, call.field, mode == Mode::last);
    const void *grad_u_data = a.input("grad_u", grad_u, call.field, true);
    const Grads out = read_grads(call, grads);
    if (call.empty()) return;
    const Backend &backend = backend_of(*context);
    const int threads = context->cpu_threads();
    if (mode == Mode::unrolled) {
      const size_t needed = backend.backward_workspace(p, threads), saved_needed = saved_bytes_of(p);
      check_size("workspace_bytes", workspace_bytes, needed);
      check_size("saved_bytes", saved_bytes, saved_needed);
      a.output_bytes("workspace", workspace, needed, Arena::kAlignment);
      a.input_bytes("saved", saved, saved_needed, Arena::kAlignment);
    }
    a.check_overlap();
    backend.backward(p, mode, u_data, grad_u_data, out, workspace, saved, threads, context->stream);
  });
}
