// Checks of every option and tensor of the softmax calls.
#include "capi/softmax_args.h"

#include <string>

#include "capi/options.h"
#include "capi/rules.h"

namespace segprior::softmax {
namespace {

void excludes(const char *name, const void *given, const char *other, const void *other_given) {
  if (given && other_given) reject(SEGPRIOR_ERROR_VALUE, std::string(name) + " excludes " + other);
}

// The rules of the options; one whose tensor is given is unused.
void check_opts(const segprior_softmax_opts &o, const segprior_softmax_inputs &in) {
  require(o.iterations >= 0, "iterations", o.iterations, ">= 0");
  require(flag(o.accelerate), "accelerate", o.accelerate, "0 or 1");
  require(not_negative(o.tolerance), "tolerance", o.tolerance, ">= 0 and finite");
  require(o.check_interval >= 1, "check_interval", o.check_interval, ">= 1");
  require(o.checkpoint_interval >= 0, "checkpoint_interval", o.checkpoint_interval, ">= 0");
  require(flag(o.tv), "tv", o.tv, "0 or 1");
  require(o.backward_mode >= SEGPRIOR_BACKWARD_LAST && o.backward_mode <= SEGPRIOR_BACKWARD_IMPLICIT,
          "backward_mode", o.backward_mode,
          "SEGPRIOR_BACKWARD_LAST (0), SEGPRIOR_BACKWARD_UNROLLED (1) or SEGPRIOR_BACKWARD_IMPLICIT (2)");
  require(flag(o.accumulate), "accumulate", o.accumulate, "0 or 1");
  require(o.reserved == 0, "reserved", o.reserved, "0");
  require(in.eps || positive(o.eps), "eps", o.eps, "> 0 and finite");
  require(not_negative(o.init_eps), "init_eps", o.init_eps, ">= 0 and finite");
  require(in.tv_lam || not_negative(o.tv_lam), "tv_lam", o.tv_lam, ">= 0 and finite");
  require(in.tv_tau || not_negative(o.tv_tau), "tv_tau", o.tv_tau, ">= 0 and finite");
  constexpr const char *kSpacing[3] = {"spacing[0]", "spacing[1]", "spacing[2]"};
  for (int d = 0; d < 3; ++d) require(positive(o.spacing[d]), kSpacing[d], o.spacing[d], "> 0 and finite");

  require(flag(o.td), "td", o.td, "0 or 1");
  require(in.td_kernel || (o.td_size % 2 == 1 && o.td_size >= 1 && o.td_size <= kMaxTaps), "td_size",
          o.td_size, "odd, 1 to 15");
  require(in.td_lam || not_negative(o.td_lam), "td_lam", o.td_lam, ">= 0 and finite");
  require(in.td_sigma || in.td_kernel || positive(o.td_sigma), "td_sigma", o.td_sigma, "> 0 and finite");
  require(o.star_count >= 0 && o.star_count <= kMaxClasses, "star_count", o.star_count, "0 to 256");
  require(o.path >= SEGPRIOR_PATH_AUTO && o.path <= SEGPRIOR_PATH_ON_CHIP, "path", o.path,
          "SEGPRIOR_PATH_AUTO (0), _STREAMING (1) or _ON_CHIP (2)");
  require(in.star_tau || not_negative(o.star_tau), "star_tau", o.star_tau, ">= 0 and finite");
  require(o.implicit_iterations >= 1, "implicit_iterations", o.implicit_iterations, ">= 1");
  require(flag(o.compact_saved), "compact_saved", o.compact_saved, "0 or 1");
  require(positive(o.implicit_tolerance), "implicit_tolerance", o.implicit_tolerance, "> 0 and finite");
}

constexpr int kAxes[3][3] = {{2}, {0, 2}, {0, 1, 2}};

// Axes of extent 1 in front turn 1-D and 2-D grids into the canonical (slice, row, column).
Grid read_grid(const segprior_tensor &features, const segprior_softmax_opts &o) {
  Grid g{};
  g.batch = features.shape[0];
  g.classes = features.shape[1];
  g.nd = features.ndim - 2;
  for (int a = 0; a < 3; ++a) g.extent[a] = 1;
  for (int c = 0; c < g.nd; ++c) {
    const int axis = kAxes[g.nd - 1][c];
    g.axes[c] = axis;
    g.extent[axis] = features.shape[2 + c];
    g.inv_spacing[axis] = 1 / o.spacing[c];
  }
  return g;
}

using segprior::shape_of;

// The shape [head..., *S].
Shape shape_of(const segprior_tensor &features, std::initializer_list<int64_t> head, bool with_space = true) {
  Shape shape{{}, 0};
  for (int64_t extent : head) shape.extent[shape.ndim++] = extent;
  for (int k = 2; with_space && k < features.ndim; ++k) shape.extent[shape.ndim++] = features.shape[k];
  return shape;
}

constexpr Shape kOne{{1}, 1};

}  // namespace

segprior_softmax_opts default_opts() {
  segprior_softmax_opts o{};
  o.struct_size = sizeof o;
  o.iterations = 30;
  o.check_interval = 10;
  o.eps = o.tv_lam = o.td_lam = 1;
  for (double &h : o.spacing) h = 1;
  o.td_size = 7;
  o.td_sigma = 5;
  o.implicit_iterations = 1000;
  o.implicit_tolerance = 1e-6;
  return o;
}

Call::Call(const segprior_context &context, const segprior_softmax_opts *opts_in,
           const segprior_softmax_inputs *inputs_in, bool sizes_only)
    : arguments(context, sizes_only) {
  inputs = read_struct(inputs_in, segprior_softmax_inputs{}, "inputs", kOldestInputs);
  opts = read_struct(opts_in, default_opts(), "opts", kOldestOpts);
  check_opts(opts, inputs);
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
  p.dtype = arguments.dtype() == SEGPRIOR_FLOAT32 ? DType::f32 : DType::f64;
  p.storage = o.dtype == SEGPRIOR_FLOAT16    ? Storage::f16
              : o.dtype == SEGPRIOR_BFLOAT16 ? Storage::bf16
                                             : Storage::native;
  p.iterations = opts.iterations;
  p.check_interval = opts.check_interval;
  p.checkpoint_interval = opts.checkpoint_interval;
  p.tolerance = opts.tolerance;
  p.init_eps = opts.init_eps;
  p.path = static_cast<Path>(opts.path);
  p.implicit_iterations = opts.implicit_iterations;
  p.implicit_tolerance = opts.implicit_tolerance;
  p.tv = opts.tv == 1;
  p.accelerate = (p.tv || opts.star_count > 0) && opts.accelerate == 1;  // the momentum is that of q and g
  p.eps = {arguments.input("inputs.eps", inputs.eps, kOne), opts.eps};
  read_tv();
  read_volume();
  read_threshold_dynamics();
  read_stars();
  p.compact_saved = opts.compact_saved == 1;
  // The fixed point's bounds are those of a dual that the plain iteration has made.
  if (p.compact_saved && (p.has_init_tv || p.has_init_volume || p.star.has_init))
    reject(SEGPRIOR_ERROR_NOT_SUPPORTED, "opts.compact_saved = 1 cannot be combined with a warm start");
  if (p.compact_saved && p.accelerate)
    reject(SEGPRIOR_ERROR_NOT_SUPPORTED,
           "opts.compact_saved = 1 cannot be combined with opts.accelerate = 1");
  if (inputs.mask) {
    p.has_mask = true;
    p.mask =
        static_cast<const uint8_t *>(read_shareable("inputs.mask", inputs.mask, p.mask_shared, Kind::mask));
  }
}

Mode Call::mode() const {
  return opts.backward_mode == SEGPRIOR_BACKWARD_LAST       ? Mode::last
         : opts.backward_mode == SEGPRIOR_BACKWARD_UNROLLED ? Mode::unrolled
                                                            : Mode::implicit;
}

// A field [B, *S], or [1, *S] shared by the batch.
const void *Call::read_shareable(const char *name, const segprior_tensor *tensor, bool &shared, Kind kind) {
  shared = problem.grid.batch != 1 && tensor->ndim > 0 && tensor->shape && tensor->shape[0] == 1;
  return arguments.input(name, tensor, shape_of(*inputs.features, {shared ? 1 : problem.grid.batch}), false,
                         kind);
}

void Call::read_tv() {
  Problem &p = problem;
  needs("inputs.tv_lam", inputs.tv_lam, p.tv, "opts.tv = 1");
  needs("inputs.tv_tau", inputs.tv_tau, p.tv, "opts.tv = 1");
  needs("inputs.tv_edge", inputs.tv_edge, p.tv, "opts.tv = 1");
  needs("inputs.init_tv_dual", inputs.init_tv_dual, p.tv, "opts.tv = 1");
  p.lam = {arguments.input("inputs.tv_lam", inputs.tv_lam, kOne), opts.tv_lam};
  p.tau = {arguments.input("inputs.tv_tau", inputs.tv_tau, kOne), opts.tv_tau};
  // A size query has no data to point at, but must see that the step is not the default one.
  if (inputs.tv_tau && !p.tau.device) p.tau.host = 1;
  p.has_edge = inputs.tv_edge != nullptr;
  if (p.has_edge) p.edge = read_shareable("inputs.tv_edge", inputs.tv_edge, p.edge_shared, Kind::parameter);
  p.has_init_tv = inputs.init_tv_dual != nullptr;
  p.init_tv = arguments.input("inputs.init_tv_dual", inputs.init_tv_dual, dual);
}

void Call::read_volume() {
  Problem &p = problem;
  excludes("inputs.volume", inputs.volume, "inputs.volume_lower and inputs.volume_upper",
           inputs.volume_lower ? inputs.volume_lower : inputs.volume_upper);
  if (inputs.volume) {
    p.volume = Volume::equality;
    p.lower = p.upper = arguments.input("inputs.volume", inputs.volume, per_class);
  } else if (inputs.volume_lower || inputs.volume_upper) {
    p.volume = Volume::box;
    p.lower = arguments.input("inputs.volume_lower", inputs.volume_lower, per_class);
    p.upper = arguments.input("inputs.volume_upper", inputs.volume_upper, per_class);
  }
  needs("inputs.init_volume_dual", inputs.init_volume_dual, p.volume != Volume::none, "a volume prior");
  p.has_init_volume = inputs.init_volume_dual != nullptr;
  p.init_volume = arguments.input("inputs.init_volume_dual", inputs.init_volume_dual, per_class);
}

void Call::read_threshold_dynamics() {
  ThresholdDynamics &td = problem.td;
  td.on = opts.td == 1;
  const struct {
    const char *name;
    const segprior_tensor *tensor;
  } tensors[] = {{"inputs.td_lam", inputs.td_lam},
                 {"inputs.td_sigma", inputs.td_sigma},
                 {"inputs.td_kernel", inputs.td_kernel},
                 {"inputs.td_edge", inputs.td_edge}};
  for (const auto &t : tensors) needs(t.name, t.tensor, td.on, "opts.td = 1");
  for (int &extent : td.size) extent = 1;
  if (!td.on) return;
  excludes("inputs.td_sigma", inputs.td_sigma, "inputs.td_kernel", inputs.td_kernel);
  td.lam = {arguments.input("inputs.td_lam", inputs.td_lam, kOne), opts.td_lam};
  td.sigma = {arguments.input("inputs.td_sigma", inputs.td_sigma, kOne), opts.td_sigma};
  td.gaussian = inputs.td_kernel == nullptr;
  if (td.gaussian)
    for (int c = 0; c < problem.grid.nd; ++c) td.size[problem.grid.axes[c]] = opts.td_size;
  else
    read_kernel();
  td.has_edge = inputs.td_edge != nullptr;
  if (td.has_edge)
    td.edge = read_shareable("inputs.td_edge", inputs.td_edge, td.edge_shared, Kind::parameter);
}

void Call::read_kernel() {
  ThresholdDynamics &td = problem.td;
  const Grid &g = problem.grid;
  const segprior_tensor &kernel = *inputs.td_kernel;
  const auto name = [] { return std::string("inputs.td_kernel"); };  // a call that is right allocates nothing
  if (kernel.ndim != g.nd && kernel.ndim != g.nd + 1)
    reject(SEGPRIOR_ERROR_SHAPE, name() + ": ndim = " + std::to_string(kernel.ndim) + " must be " +
                                     std::to_string(g.nd) + ", or " + std::to_string(g.nd + 1) +
                                     " with one kernel per class");
  if (!kernel.shape) reject(SEGPRIOR_ERROR_NULL_POINTER, name() + ".shape is NULL");
  td.per_class = kernel.ndim == g.nd + 1;
  const int64_t *extents = kernel.shape + (td.per_class ? 1 : 0);
  if (td.per_class && kernel.shape[0] != g.classes)
    reject(SEGPRIOR_ERROR_SHAPE, name() + ": extent " + std::to_string(kernel.shape[0]) +
                                     " of axis 0 must be the number of classes " + std::to_string(g.classes));
  for (int c = 0; c < g.nd; ++c) {
    if (extents[c] % 2 != 1 || extents[c] > kMaxTaps)
      reject(SEGPRIOR_ERROR_SHAPE, name() + ": extent " + std::to_string(extents[c]) + " of spatial axis " +
                                       std::to_string(c) + " must be odd, 1 to 15");
    td.size[g.axes[c]] = static_cast<int>(extents[c]);
  }
  td.kernel = arguments.input("inputs.td_kernel", &kernel, shape_of(kernel));
}

void Call::read_stars() {
  Stars &star = problem.star;
  const Grid &g = problem.grid;
  star.count = opts.star_count;
  const struct {
    const char *name;
    const segprior_tensor *tensor;
  } tensors[] = {{"inputs.star_center", inputs.star_center},
                 {"inputs.star_tau", inputs.star_tau},
                 {"inputs.init_star_dual", inputs.init_star_dual}};
  for (const auto &t : tensors) needs(t.name, t.tensor, star.count > 0, "opts.star_count > 0");
  if (star.count == 0) return;
  if (!opts.star_classes)
    reject(SEGPRIOR_ERROR_NULL_POINTER,
           "opts.star_classes is NULL, but opts.star_count is " + std::to_string(star.count));
  bool seen[kMaxClasses] = {};
  require(star.count <= g.classes, "star_count", star.count, "at most the number of classes");
  for (int m = 0; m < star.count; ++m) {
    const int32_t value = opts.star_classes[m];
    const auto name = [&] {
      return "opts.star_classes[" + std::to_string(m) + "] = " + std::to_string(value);
    };
    if (value < 0 || value >= g.classes)
      reject(SEGPRIOR_ERROR_VALUE, name() + " must be 0 to " + std::to_string(g.classes - 1));
    if (seen[value]) reject(SEGPRIOR_ERROR_VALUE, name() + " must not be repeated");
    seen[value] = true;
    star.classes[m] = static_cast<int16_t>(value);
  }
  star_field = shape_of(*inputs.features, {g.batch, star.count});
  star.center =
      arguments.input("inputs.star_center", inputs.star_center, {{g.batch, star.count, g.nd}, 3}, true);
  star.has_tau = inputs.star_tau != nullptr;
  star.tau = arguments.input("inputs.star_tau", inputs.star_tau, {{star.count}, 1});
  star.tau_host = opts.star_tau;
  star.has_init = inputs.init_star_dual != nullptr;
  star.init = arguments.input("inputs.init_star_dual", inputs.init_star_dual, star_field);
}

Outputs Call::read_outputs(const segprior_softmax_outputs *given_outputs) {
  const segprior_softmax_outputs given =
      read_struct(given_outputs, segprior_softmax_outputs{}, "outputs", kOldestOutputs);
  needs("outputs.tv_dual", given.tv_dual, problem.tv, "opts.tv = 1");
  needs("outputs.volume_dual", given.volume_dual, problem.volume != Volume::none, "a volume prior");
  needs("outputs.star_dual", given.star_dual, problem.star.count > 0, "opts.star_count > 0");
  Arguments &a = arguments;
  Outputs out{};
  out.u = a.output("outputs.u", given.u, field, true, Kind::field);
  out.tv_dual = a.output("outputs.tv_dual", given.tv_dual, dual);
  out.volume_dual = a.output("outputs.volume_dual", given.volume_dual, per_class);
  out.star_dual = a.output("outputs.star_dual", given.star_dual, star_field);
  if (given.info && !empty())
    out.info = static_cast<segprior_info *>(a.output_bytes(
        "outputs.info", given.info, problem.grid.batch * sizeof(segprior_info), alignof(segprior_info)));
  return out;
}

Grads Call::read_grads(const segprior_softmax_grads *given) {
  const segprior_softmax_grads g = read_struct(given, segprior_softmax_grads{}, "grads", kOldestGrads);
  const Problem &p = problem;
  const bool td = p.td.on, star = p.star.count > 0, unrolled = mode() == Mode::unrolled;
  constexpr const char *kTv = "opts.tv = 1", *kTd = "opts.td = 1", *kStar = "opts.star_count > 0";
  const struct {
    const char *name;
    const void *given;
    bool condition;
    const char *needs;
    bool of_the_steps;  // of the iteration, not of its fixed point
  } rules[] = {
      {"grads.eps", g.eps, true, "", false},
      {"grads.init_eps", g.init_eps, opts.init_eps > 0, "opts.init_eps > 0", true},
      {"grads.tv_lam", g.tv_lam, p.tv, kTv, false},
      {"grads.tv_tau", g.tv_tau, p.tv, kTv, true},
      {"grads.tv_edge", g.tv_edge, p.has_edge, "inputs.tv_edge", false},
      {"grads.volume", g.volume, inputs.volume != nullptr, "inputs.volume", false},
      {"grads.volume_lower", g.volume_lower, inputs.volume_lower != nullptr, "inputs.volume_lower", false},
      {"grads.volume_upper", g.volume_upper, inputs.volume_upper != nullptr, "inputs.volume_upper", false},
      {"grads.td_lam", g.td_lam, td, kTd, false},
      {"grads.td_sigma", g.td_sigma, td && p.td.gaussian, "opts.td = 1 without inputs.td_kernel", false},
      {"grads.td_kernel", g.td_kernel, inputs.td_kernel != nullptr, "inputs.td_kernel", false},
      {"grads.td_edge", g.td_edge, inputs.td_edge != nullptr, "inputs.td_edge", false},
      {"grads.star_tau", g.star_tau, star, kStar, true},
      {"grads.star_center", g.star_center, star, kStar, false}};
  for (const auto &rule : rules) {
    if (mode() == Mode::last)
      needs(rule.name, rule.given, false,
            "opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED or SEGPRIOR_BACKWARD_IMPLICIT");
    if (rule.of_the_steps)
      needs(rule.name, rule.given, unrolled, "opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED");
    needs(rule.name, rule.given, rule.condition, rule.needs);
  }
  needs("grads.info", g.info, mode() == Mode::implicit, "opts.backward_mode = SEGPRIOR_BACKWARD_IMPLICIT");
  Arguments &a = arguments;
  const auto like = [&](const char *name, const segprior_tensor *tensor, const segprior_tensor *input) {
    return tensor ? a.output(name, tensor, shape_of(*input)) : nullptr;
  };
  Grads out{};
  out.accumulate = opts.accumulate == 1;
  out.features = a.output("grads.features", g.features, field, false, Kind::field);
  out.eps = a.output("grads.eps", g.eps, kOne);
  out.init_eps = a.output("grads.init_eps", g.init_eps, kOne);
  out.tv_lam = a.output("grads.tv_lam", g.tv_lam, kOne);
  out.tv_tau = a.output("grads.tv_tau", g.tv_tau, kOne);
  out.tv_edge = like("grads.tv_edge", g.tv_edge, inputs.tv_edge);
  out.volume_lower = a.output("grads.volume_lower", g.volume_lower, per_class);
  out.volume_upper = g.volume ? a.output("grads.volume", g.volume, per_class)
                              : a.output("grads.volume_upper", g.volume_upper, per_class);
  out.td_lam = a.output("grads.td_lam", g.td_lam, kOne);
  out.td_sigma = a.output("grads.td_sigma", g.td_sigma, kOne);
  out.td_kernel = like("grads.td_kernel", g.td_kernel, inputs.td_kernel);
  out.td_edge = like("grads.td_edge", g.td_edge, inputs.td_edge);
  out.star_tau = a.output("grads.star_tau", g.star_tau, {{p.star.count}, 1});
  out.star_center =
      a.output("grads.star_center", g.star_center, {{p.grid.batch, p.star.count, p.grid.nd}, 3});
  if (g.info && !empty())
    out.info = static_cast<segprior_info *>(
        a.output_bytes("grads.info", g.info, p.grid.batch * sizeof(segprior_info), alignof(segprior_info)));
  return out;
}

}  // namespace segprior::softmax
