// Checks of every option and tensor of the loss calls.
#include "capi/losses_args.h"

#include <cfloat>
#include <cmath>
#include <string>

#include "capi/options.h"
#include "capi/rules.h"

namespace segprior::losses {
namespace {

constexpr const char *kWeights[kTerms] = {"weights[SIZE]", "weights[CROSS_ENTROPY]", "weights[FOCAL]",
                                          "weights[DICE]", "weights[FOCAL_DICE]"};

segprior_loss_opts read_opts(const segprior_loss_opts *given) {
  const segprior_loss_opts o = read_struct(given, default_opts(), "opts");
  for (int k = 0; k < kTerms; ++k) require(std::isfinite(o.weights[k]), kWeights[k], o.weights[k], "finite");
  for (int k = kTerms; k < SEGPRIOR_LOSS_CAPACITY; ++k)
    require(o.weights[k] == 0, "weights beyond SEGPRIOR_LOSS_TERMS", o.weights[k], "0");
  require(o.activation >= SEGPRIOR_ACTIVATION_SOFTMAX && o.activation <= SEGPRIOR_ACTIVATION_NONE,
          "activation", o.activation, "SEGPRIOR_ACTIVATION_SOFTMAX (0), _SIGMOID (1) or _NONE (2)");
  require(o.reduction == SEGPRIOR_REDUCTION_SUM || o.reduction == SEGPRIOR_REDUCTION_MEAN, "reduction",
          o.reduction, "SEGPRIOR_REDUCTION_SUM (0) or _MEAN (1)");
  require(flag(o.accumulate), "accumulate", o.accumulate, "0 or 1");
  require(flag(o.size_per_voxel), "size_per_voxel", o.size_per_voxel, "0 or 1");
  require(flag(o.dice_squared), "dice_squared", o.dice_squared, "0 or 1");
  require(flag(o.dice_batch), "dice_batch", o.dice_batch, "0 or 1");
  require(flag(o.background), "background", o.background, "0 or 1");
  require(o.background == 0 || o.activation == SEGPRIOR_ACTIVATION_SIGMOID, "background", o.background,
          "0 unless opts.activation is SEGPRIOR_ACTIVATION_SIGMOID (1)");
  require(o.reserved == 0, "reserved", o.reserved, "0");
  require(not_negative(o.dice_smooth_nr), "dice_smooth_nr", o.dice_smooth_nr, ">= 0 and finite");
  require(not_negative(o.dice_smooth_dr), "dice_smooth_dr", o.dice_smooth_dr, ">= 0 and finite");
  require(not_negative(o.focal_gamma), "focal_gamma", o.focal_gamma, ">= 0 and finite");
  require(o.focal_dice_threshold >= 0 && o.focal_dice_threshold <= 1, "focal_dice_threshold",
          o.focal_dice_threshold, "0 to 1");
  require(o.focal_dice_gamma >= 1 && std::isfinite(o.focal_dice_gamma), "focal_dice_gamma",
          o.focal_dice_gamma, ">= 1 and finite");
  require(not_negative(o.log_offset), "log_offset", o.log_offset, ">= 0 and finite");
  return o;
}

// What float32 arithmetic has to hold.
void check_float32(const segprior_loss_opts &o) {
  for (int k = 0; k < kTerms; ++k)
    require(std::fabs(o.weights[k]) <= FLT_MAX, kWeights[k], o.weights[k], "in the range of float32");
  require(o.log_offset == 0 || (o.log_offset >= FLT_MIN && o.log_offset <= FLT_MAX), "log_offset",
          o.log_offset, "0 or a normal number of float32");
}

// Options of Problem that are copied as they are.
Problem problem_of(const segprior_loss_opts &o) {
  Problem p{};
  for (int k = 0; k < kTerms; ++k) p.weights[k] = o.weights[k];
  p.scores_are = static_cast<Scores>(o.activation);  // the enumerators are in the same order
  p.ignore_label = o.ignore_label;
  p.mean = o.reduction == SEGPRIOR_REDUCTION_MEAN;
  p.size_per_voxel = o.size_per_voxel;
  p.dice_squared = o.dice_squared;
  p.dice_batch = o.dice_batch;
  p.background = o.background;
  p.smooth_nr = o.dice_smooth_nr;
  p.smooth_dr = o.dice_smooth_dr;
  p.focal_gamma = o.focal_gamma;
  p.focal_dice_threshold = o.focal_dice_threshold;
  p.focal_dice_gamma = o.focal_dice_gamma;
  p.log_offset = o.log_offset;
  return p;
}

}  // namespace

segprior_loss_opts default_opts() {
  segprior_loss_opts o{};
  o.struct_size = sizeof o;
  o.ignore_label = 255;
  o.dice_squared = 1;
  o.dice_smooth_nr = o.dice_smooth_dr = 1e-5;
  o.focal_gamma = 2;
  o.focal_dice_threshold = 0.5;
  o.focal_dice_gamma = 2;
  o.log_offset = 1e-10;
  return o;
}

Call::Call(const segprior_context &context, const segprior_loss_opts *given_opts,
           const segprior_loss_inputs *given_inputs, bool sizes_only)
    : opts(read_opts(given_opts)),
      inputs(read_struct(given_inputs, segprior_loss_inputs{}, "inputs")),
      problem(problem_of(opts)),
      arguments(context, sizes_only) {
  Problem &p = problem;
  p.scores = arguments.lead("inputs.scores", inputs.scores, 3, 5);
  field_ = shape_of(*inputs.scores);
  p.storage = storage_of(arguments.field_dtype());
  if (p.storage != Storage::f64) check_float32(opts);
  p.batch = field_.extent[0];
  p.classes = field_.extent[1];
  if (p.classes < 1 || p.classes > kMaxClasses)
    reject(SEGPRIOR_ERROR_SHAPE,
           "inputs.scores: " + std::to_string(p.classes) + " classes (axis 1); must be 1 to 256");
  per_voxel_ = {{p.batch}, field_.ndim - 1};
  for (int k = 2; k < field_.ndim; ++k) per_voxel_.extent[k - 1] = field_.extent[k];
  p.voxels = voxels_of(field_, 2);
  terms_ = {{kTerms}, 1};
  items_ = {{kTerms, p.batch, p.classes}, 3};
  read_labels();
  read_parameters();
}

void Call::read_labels() {
  Problem &p = problem;
  const segprior_tensor *labels = inputs.labels, *target = inputs.target;
  if (labels && target) reject(SEGPRIOR_ERROR_VALUE, "inputs.labels excludes inputs.target");
  bool needed = false;
  for (int k = 0; k < kTerms; ++k) needed |= k != SEGPRIOR_LOSS_SIZE && p.on(k);
  if (needed && !labels && !target)
    reject(SEGPRIOR_ERROR_NULL_POINTER,
           "inputs.labels is NULL, and so is inputs.target; every term but SIZE needs one of them");
  p.target = Target::none;
  if (labels) {
    p.labels = arguments.labels("inputs.labels", labels, per_voxel_);
    p.label_type = label_type(labels->dtype);
    p.target = Target::labels;
  }
  if (target) {
    p.labels = arguments.field_or_mask("inputs.target", target, field_);
    p.target = target->dtype == SEGPRIOR_UINT8 ? Target::one_hot : Target::soft;
  }
  p.mask = read_mask("inputs.mask", inputs.mask, p.has_mask, p.mask_shared);
  p.labelled = read_mask("inputs.labelled", inputs.labelled, p.has_labelled, p.labelled_shared);
}

const uint8_t *Call::read_mask(const char *name, const segprior_tensor *tensor, bool &has, bool &shared) {
  has = tensor != nullptr;
  shared = one_row(tensor);
  Shape shape = per_voxel_;
  if (shared) shape.extent[0] = 1;
  return static_cast<const uint8_t *>(arguments.input(name, tensor, shape, false, Kind::mask));
}

void Call::read_parameters() {
  Problem &p = problem;
  const segprior_tensor *weights = inputs.class_weights;
  if (weights) {
    p.weight_rows = weights->ndim == 2 ? kTerms : 1;
    const Shape shape = p.weight_rows > 1 ? Shape{{kTerms, p.classes}, 2} : Shape{{p.classes}, 1};
    p.class_weights = arguments.input("inputs.class_weights", weights, shape);
  }
  p.size_lower = read_bounds("inputs.size_lower", inputs.size_lower, p.lower_rows);
  p.size_upper = read_bounds("inputs.size_upper", inputs.size_upper, p.upper_rows);
  if (p.on(SEGPRIOR_LOSS_SIZE) && !inputs.size_lower && !inputs.size_upper)
    reject(SEGPRIOR_ERROR_NULL_POINTER,
           "inputs.size_lower is NULL, and so is inputs.size_upper; SIZE needs one of them");
  p.has_groups = inputs.size_groups != nullptr;
  p.size_groups = static_cast<const int32_t *>(
      arguments.input("inputs.size_groups", inputs.size_groups, {{p.batch}, 1}, false, Kind::int32));
}

const void *Call::read_bounds(const char *name, const segprior_tensor *tensor, int64_t &rows) {
  if (!tensor) return nullptr;
  rows = one_row(tensor) ? 1 : problem.batch;
  return arguments.input(name, tensor, {{rows, problem.classes}, 2});
}

Outputs Call::read_outputs(const segprior_loss_outputs *given) {
  const segprior_loss_outputs o = read_struct(given, segprior_loss_outputs{}, "outputs");
  Outputs out{};
  out.total = arguments.output("outputs.total", o.total, {{1}, 1});
  out.terms = arguments.output("outputs.terms", o.terms, terms_);
  out.items = arguments.output("outputs.items", o.items, items_);
  out.voxels = arguments.output("outputs.voxels", o.voxels, per_voxel_);
  out.info = o.info;
  if (o.info)
    arguments.output_bytes("outputs.info", o.info, problem.batch * sizeof(segprior_info),
                           alignof(segprior_info));
  return out;
}

Cotangents Call::read_cotangents(const segprior_loss_cotangents *given) {
  const segprior_loss_cotangents c = read_struct(given, segprior_loss_cotangents{}, "cotangents");
  Cotangents in{};
  in.total = arguments.input("cotangents.total", c.total, {{1}, 1});
  in.terms = arguments.input("cotangents.terms", c.terms, terms_);
  in.items = arguments.input("cotangents.items", c.items, items_);
  in.voxels = arguments.input("cotangents.voxels", c.voxels, per_voxel_);
  return in;
}

Grads Call::read_grads(const segprior_loss_grads *given, const Cotangents &cotangents) {
  const segprior_loss_grads g = read_struct(given, segprior_loss_grads{}, "grads");
  const Problem &p = problem;
  needs("grads.class_weights", g.class_weights, inputs.class_weights, "inputs.class_weights");
  needs("grads.size_lower", g.size_lower, inputs.size_lower, "inputs.size_lower");
  needs("grads.size_upper", g.size_upper, inputs.size_upper, "inputs.size_upper");
  if (g.class_weights && cotangents.voxels)
    reject(SEGPRIOR_ERROR_NOT_SUPPORTED,
           "grads.class_weights together with cotangents.voxels is not supported");
  Grads out{};
  out.scores = arguments.output("grads.scores", g.scores, field_, false, Kind::field);
  const Shape weights = p.weight_rows > 1 ? Shape{{kTerms, p.classes}, 2} : Shape{{p.classes}, 1};
  out.class_weights = arguments.output("grads.class_weights", g.class_weights, weights);
  out.size_lower = arguments.output("grads.size_lower", g.size_lower, {{p.lower_rows, p.classes}, 2});
  out.size_upper = arguments.output("grads.size_upper", g.size_upper, {{p.upper_rows, p.classes}, 2});
  out.accumulate = opts.accumulate;
  return out;
}

}  // namespace segprior::losses
