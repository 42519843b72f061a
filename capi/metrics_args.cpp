// Checks of every option and tensor of the calls of include/segprior/metrics.h.
#include "capi/metrics_args.h"

#include <string>

#include "capi/options.h"
#include "capi/rules.h"

namespace segprior::metrics {
namespace {

constexpr int kMapAxes = 1 + kAxes;  // of [B, *S] at most

const uint8_t *read_mask(Arguments &arguments, const char *name, const segprior_tensor *mask, Shape shape,
                         bool &shared) {
  shared = one_row(mask);
  if (shared) shape.extent[0] = 1;
  return static_cast<const uint8_t *>(arguments.input(name, mask, shape, false, Kind::mask));
}

// The extent of an axis of a tensor whose rank sets a shape; its other extents are checked with that shape.
int64_t extent_of(const char *name, const segprior_tensor &tensor, int ndim, int axis) {
  if (tensor.ndim != ndim)
    reject(SEGPRIOR_ERROR_SHAPE, std::string(name) + ": ndim = " + std::to_string(tensor.ndim) + " must be " +
                                     std::to_string(ndim));
  if (!tensor.shape) reject(SEGPRIOR_ERROR_NULL_POINTER, std::string(name) + ".shape is NULL");
  if (tensor.shape[axis] < 0)
    reject(SEGPRIOR_ERROR_SHAPE, std::string(name) + ": extent " + std::to_string(tensor.shape[axis]) +
                                     " of axis " + std::to_string(axis) + " is negative");
  return tensor.shape[axis];
}

void read_prediction(Arguments &arguments, const segprior_confusion_inputs &in, const Shape &map,
                     Confusion &c) {
  if (in.prediction && in.scores) reject(SEGPRIOR_ERROR_VALUE, "inputs.prediction excludes inputs.scores");
  if (!in.prediction && !in.scores)
    reject(SEGPRIOR_ERROR_NULL_POINTER,
           "inputs.prediction is NULL, and so is inputs.scores; one of them is needed");
  if (in.prediction) {
    c.prediction = arguments.labels("inputs.prediction", in.prediction, map);
    c.prediction_type = label_type(in.prediction->dtype);
    return;
  }
  c.scores = arguments.lead("inputs.scores", in.scores, 3, 1 + kMapAxes);
  c.scores_are = storage_of(arguments.field_dtype());
  Shape wanted{{map.extent[0], c.classes}, map.ndim + 1};
  for (int k = 1; k < map.ndim; ++k) wanted.extent[k + 1] = map.extent[k];
  const Shape given = shape_of(*in.scores);
  if (!(given == wanted))
    reject(SEGPRIOR_ERROR_SHAPE, "inputs.scores: shape " + given.text() + " must be " + wanted.text());
}

}  // namespace

Confusion read_confusion(const segprior_context &context, const segprior_confusion_inputs *inputs,
                         int64_t ignore_label, const segprior_tensor *matrix,
                         const segprior_tensor *invalid) {
  const segprior_confusion_inputs in = read_struct(inputs, segprior_confusion_inputs{}, "inputs");
  Arguments arguments(context, false);
  Confusion c{};
  c.labels = arguments.lead_labels("inputs.labels", in.labels, 2, kMapAxes);
  c.label_type = label_type(in.labels->dtype);
  c.ignore_label = ignore_label;
  const Shape map = shape_of(*in.labels);
  c.batch = map.extent[0];
  c.voxels = voxels_of(map, 1);
  if (!matrix) reject(SEGPRIOR_ERROR_NULL_POINTER, "matrix is NULL");
  c.classes = extent_of("matrix", *matrix, 3, 1);
  if (c.classes < 1 || c.classes > kMaxClasses)
    reject(SEGPRIOR_ERROR_SHAPE,
           "matrix: " + std::to_string(c.classes) + " classes (axis 1); must be 1 to 256");
  c.matrix = static_cast<int64_t *>(
      arguments.output("matrix", matrix, {{c.batch, c.classes, c.classes}, 3}, true, Kind::int64));
  read_prediction(arguments, in, map, c);
  c.mask = read_mask(arguments, "inputs.mask", in.mask, map, c.mask_shared);
  c.invalid =
      static_cast<int64_t *>(arguments.output("invalid", invalid, {{c.batch}, 1}, false, Kind::int64));
  arguments.check_overlap();
  return c;
}

Scores read_scores(const segprior_context &context, const segprior_tensor *matrices,
                   const segprior_confusion_scores_outputs *outputs) {
  const segprior_confusion_scores_outputs o =
      read_struct(outputs, segprior_confusion_scores_outputs{}, "outputs");
  if (!matrices) reject(SEGPRIOR_ERROR_NULL_POINTER, "matrices is NULL");
  Arguments arguments(context, false);
  Scores s{};
  s.count = extent_of("matrices", *matrices, 3, 0);
  s.classes = extent_of("matrices", *matrices, 3, 1);
  s.matrices = static_cast<const int64_t *>(
      arguments.input("matrices", matrices, {{s.count, s.classes, s.classes}, 3}, true, Kind::int64));
  const auto output = [&](const char *name, const segprior_tensor *tensor, const Shape &shape) {
    return static_cast<double *>(arguments.output(name, tensor, shape, false, Kind::float64));
  };
  const Shape each{{s.count}, 1}, classes{{s.count, s.classes}, 2};
  s.accuracy = output("outputs.accuracy", o.accuracy, each);
  s.iou = output("outputs.iou", o.iou, classes);
  s.mean_iou = output("outputs.mean_iou", o.mean_iou, each);
  s.dice = output("outputs.dice", o.dice, classes);
  s.mean_dice = output("outputs.mean_dice", o.mean_dice, each);
  s.precision = output("outputs.precision", o.precision, classes);
  s.recall = output("outputs.recall", o.recall, classes);
  arguments.check_overlap();
  return s;
}

Geometry read_geometry(const segprior_context &context, const segprior_tensor *labels,
                       const segprior_tensor *mask, const segprior_tensor *volumes,
                       const segprior_tensor *faces) {
  Arguments arguments(context, false);
  Geometry g{};
  g.labels = arguments.lead_labels("labels", labels, 2, kMapAxes);
  g.type = label_type(labels->dtype);
  const Shape map = shape_of(*labels);
  g.mask = read_mask(arguments, "mask", mask, map, g.mask_shared);
  g.batch = map.extent[0];
  g.axes = map.ndim - 1;
  for (int k = 0; k < kAxes; ++k) {
    const int axis = k - (kAxes - g.axes);
    g.extent[k] = axis < 0 ? 1 : map.extent[1 + axis];
  }
  if (voxels_of(map, 1) == 0) g.extent[0] = 0;
  if (volumes)
    g.classes = extent_of("volumes", *volumes, 2, 1);
  else if (faces)
    g.classes = extent_of("faces", *faces, 3, 1);
  if (g.classes > INT32_MAX - 2)
    reject(SEGPRIOR_ERROR_SIZE_OVERFLOW,
           std::to_string(g.classes) + " classes (axis 1 of volumes, faces); must be at most 2147483645");
  g.volumes = static_cast<int64_t *>(
      arguments.output("volumes", volumes, {{g.batch, g.classes}, 2}, false, Kind::int64));
  g.faces = static_cast<int64_t *>(
      arguments.output("faces", faces, {{g.batch, g.classes, g.axes}, 3}, false, Kind::int64));
  arguments.check_overlap();
  return g;
}

segprior_components_opts default_opts() {
  segprior_components_opts o{};
  o.struct_size = sizeof o;
  return o;
}

ComponentsCall::ComponentsCall(const segprior_context &context, const segprior_components_opts *opts,
                               const segprior_tensor *map, const segprior_tensor *mask, bool sizes_only)
    : arguments(context, sizes_only), problem{} {
  const segprior_components_opts o = read_struct(opts, default_opts(), "opts");
  require(flag(o.full), "full", o.full, "0 or 1");
  require(flag(o.by_value), "by_value", o.by_value, "0 or 1");
  Components &p = problem;
  p.full = o.full;
  p.by_value = o.by_value;
  p.background = o.background;
  p.map = arguments.lead_labels("map", map, 2, kMapAxes);
  p.type = label_type(map->dtype);
  map_ = shape_of(*map);
  p.mask = read_mask(arguments, "mask", mask, map_, p.mask_shared);
  p.batch = map_.extent[0];
  const int64_t voxels = voxels_of(map_, 1);
  if (voxels > INT32_MAX)
    reject(SEGPRIOR_ERROR_SIZE_OVERFLOW,
           "map: " + std::to_string(voxels) + " voxels of an image; must be at most 2147483647");
  int axis = kAxes;
  for (int64_t &extent : p.extent) extent = 1;
  for (int k = map_.ndim - 1; k >= 1; --k)
    if (map_.extent[k] != 1) p.extent[--axis] = map_.extent[k];
  if (voxels == 0) p.extent[0] = 0;
}

void ComponentsCall::read_outputs(const segprior_tensor *components, const segprior_tensor *count,
                                  const segprior_tensor *class_count) {
  Components &p = problem;
  needs("class_count", class_count, p.by_value, "opts.by_value");
  p.components = static_cast<int32_t *>(arguments.output("components", components, map_, false, Kind::int32));
  p.count = static_cast<int64_t *>(arguments.output("count", count, {{p.batch}, 1}, false, Kind::int64));
  if (!class_count) return;
  p.classes = extent_of("class_count", *class_count, 2, 1);
  p.class_count = static_cast<int64_t *>(
      arguments.output("class_count", class_count, {{p.batch, p.classes}, 2}, false, Kind::int64));
}

}  // namespace segprior::metrics
