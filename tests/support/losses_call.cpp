#include "tests/support/losses_call.h"

#include <stdexcept>

#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

namespace losses = ref::losses;
using ref::Array;
using Extents = std::vector<int64_t>;

namespace {

segprior_tensor *view(const TensorPtr &tensor) { return tensor ? tensor->view() : nullptr; }

void *data(const std::unique_ptr<DeviceArray> &array) { return array->bytes() ? array->data() : nullptr; }

Extents joined(Extents lead, const Extents &tail) {
  lead.insert(lead.end(), tail.begin(), tail.end());
  return lead;
}

// The extents of an array [rows, width] whose rows follow from its size.
Extents rows_of(const Array &values, int64_t width) {
  return {width > 0 ? static_cast<int64_t>(values.size()) / width : 0, width};
}

}  // namespace

segprior_loss_opts loss_opts(const losses::Problem &p) {
  segprior_loss_opts o;
  if (segprior_loss_opts_init(&o, sizeof o) != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  for (int k = 0; k < losses::kTerms; ++k) o.weights[k] = p.weights[k];
  o.activation = static_cast<int32_t>(p.scores_are);  // in the order of SEGPRIOR_ACTIVATION_*
  o.reduction = p.mean ? SEGPRIOR_REDUCTION_MEAN : SEGPRIOR_REDUCTION_SUM;
  o.ignore_label = p.ignore_label;
  o.size_per_voxel = p.size_per_voxel;
  o.dice_squared = p.dice_squared;
  o.dice_batch = p.dice_batch;
  o.background = p.background;
  o.dice_smooth_nr = p.smooth_nr;
  o.dice_smooth_dr = p.smooth_dr;
  o.focal_gamma = p.focal_gamma;
  o.focal_dice_threshold = p.focal_dice_threshold;
  o.focal_dice_gamma = p.focal_dice_gamma;
  o.log_offset = p.log_offset;
  return o;
}

TensorPtr LossCall::tensor(Extents shape, int32_t dtype) const {
  auto made = std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), settings_.canaries);
  made->memory().fill(settings_.poison);
  return made;
}

TensorPtr LossCall::input(const Array &values, Extents shape, int32_t dtype) const {
  if (values.empty()) return nullptr;
  TensorPtr made = tensor(std::move(shape), dtype);
  made->set(values);
  return made;
}

std::unique_ptr<DeviceArray> LossCall::buffer(size_t bytes) const {
  auto array = std::make_unique<DeviceArray>(device_.which(), bytes, settings_.canaries);
  array->fill(settings_.poison);
  return array;
}

LossCall::LossCall(Device &device, const losses::Problem &p, const LossSettings &settings)
    : opts(loss_opts(p)), inputs{}, outputs{}, cotangents{}, grads{}, device_(device), settings_(settings) {
  const int32_t dtype = settings.dtype, real = settings.parameter_dtype();
  const Extents field = joined({p.batch, p.classes}, p.spatial), plane = joined({p.batch}, p.spatial);
  const auto masked = [&](const Array &values) {
    Extents shape = plane;
    if (static_cast<int64_t>(values.size()) == p.voxels()) shape[0] = 1;
    return input(values, shape, SEGPRIOR_UINT8);
  };
  opts.accumulate = settings.accumulate;
  scores = tensor(field, dtype);
  scores->set(p.scores);
  labels = input(p.labels, plane, settings.label_dtype);
  target = input(p.target, field, settings.one_hot ? static_cast<int32_t>(SEGPRIOR_UINT8) : dtype);
  mask = masked(p.mask);
  labelled = masked(p.labelled);
  const Extents weights = rows_of(p.class_weights, p.classes);
  const Extents weight_shape = weights[0] == 1 ? Extents{p.classes} : weights;
  class_weights = input(p.class_weights, weight_shape, real);
  size_lower = input(p.size_lower, rows_of(p.size_lower, p.classes), real);
  size_upper = input(p.size_upper, rows_of(p.size_upper, p.classes), real);
  size_groups = input(p.size_groups, {p.batch}, SEGPRIOR_INT32);
  // Without labels, a problem whose voxels or images are none has no values to tell their presence.
  if (p.elements() == 0 && !target) labels = tensor(plane, settings.label_dtype);

  total = tensor({1}, real);
  terms = tensor({losses::kTerms}, real);
  items = tensor({losses::kTerms, p.batch, p.classes}, real);
  voxels = tensor(plane, real);
  info = buffer(static_cast<size_t>(p.batch) * sizeof(segprior_info));
  in_total = tensor({1}, real);
  in_terms = tensor({losses::kTerms}, real);
  in_items = tensor({losses::kTerms, p.batch, p.classes}, real);
  in_voxels = tensor(plane, real);
  grad_scores = tensor(field, dtype);
  if (class_weights) grad_class_weights = tensor(weight_shape, real);
  if (size_lower) grad_size_lower = tensor(rows_of(p.size_lower, p.classes), real);
  if (size_upper) grad_size_upper = tensor(rows_of(p.size_upper, p.classes), real);

  inputs = {sizeof inputs,  view(scores),        view(labels),     view(target),     view(mask),
            view(labelled), view(class_weights), view(size_lower), view(size_upper), view(size_groups)};
  outputs = {sizeof outputs, view(total),  view(terms),
             view(items),    view(voxels), static_cast<segprior_info *>(info->data())};
  cotangents.struct_size = sizeof cotangents;
  grads = {sizeof grads, view(grad_scores), view(grad_class_weights), view(grad_size_lower),
           view(grad_size_upper)};
  allocate();
}

void LossCall::allocate() {
  size_t forward_bytes = 0, backward_bytes = 0, saved_bytes = 0;
  if (segprior_loss_workspace_size(device_.context(), &opts, &inputs, &forward_bytes, &backward_bytes) !=
          SEGPRIOR_OK ||
      segprior_loss_saved_size(device_.context(), &opts, &inputs, &saved_bytes) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  forward_workspace = buffer(forward_bytes);
  backward_workspace = buffer(backward_bytes);
  saved = buffer(saved_bytes);
}

template <class F>
segprior_status LossCall::watched(const F &call) {
#if defined(FAKECUDA)
  const fakecuda::Forbid forbid(static_cast<cudaStream_t>(device_.stream()));
#endif
  const int64_t before = allocation_count();
  const segprior_status status = call();
  allocations_ += allocation_count() - before;
#if defined(FAKECUDA)
  violations_.insert(violations_.end(), forbid.violations().begin(), forbid.violations().end());
#endif
  return status;
}

segprior_status LossCall::forward() {
  const segprior_status status = watched([&] {
    return segprior_loss_forward(device_.context(), &opts, &inputs, &outputs, data(forward_workspace),
                                 forward_workspace->bytes(), data(saved), saved->bytes());
  });
  device_.synchronize();
  return status;
}

segprior_status LossCall::backward(const losses::Cotangents &given) {
  const auto set = [](TensorPtr &made, const Array &values) {
    if (!values.empty()) made->set(values);
    return values.empty() ? nullptr : made->view();
  };
  cotangents = {sizeof cotangents, set(in_total, given.total), set(in_terms, given.terms),
                set(in_items, given.items), set(in_voxels, given.voxels)};
  segprior_loss_grads wanted = grads;
  if (cotangents.voxels) wanted.class_weights = nullptr;
  if (!opts.accumulate)
    for (const auto &gradient : gradient_list()) gradient.second->memory().fill(settings_.poison);
  const segprior_status status = watched([&] {
    return segprior_loss_backward(device_.context(), &opts, &inputs, &cotangents, &wanted,
                                  data(backward_workspace), backward_workspace->bytes(), data(saved),
                                  saved->bytes());
  });
  device_.synchronize();
  return status;
}

NamedTensors LossCall::output_list() const {
  return {{"total", total.get()}, {"terms", terms.get()}, {"items", items.get()}, {"voxels", voxels.get()}};
}

NamedTensors LossCall::gradient_list() const {
  NamedTensors list{{"grads.scores", grad_scores.get()}};
  if (grad_class_weights) list.emplace_back("grads.class_weights", grad_class_weights.get());
  if (grad_size_lower) list.emplace_back("grads.size_lower", grad_size_lower.get());
  if (grad_size_upper) list.emplace_back("grads.size_upper", grad_size_upper.get());
  return list;
}

std::vector<segprior_info> LossCall::infos() const {
  std::vector<segprior_info> host(info->bytes() / sizeof(segprior_info));
  const segprior_status status =
      segprior_info_read_sync(device_.context(), static_cast<const segprior_info *>(info->data()),
                              static_cast<int64_t>(host.size()), host.data());
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  return host;
}

bool LossCall::canaries_intact() const {
  for (const TensorPtr *tensor : {&scores, &labels, &target, &mask, &labelled, &class_weights, &size_lower,
                                  &size_upper, &size_groups, &in_total, &in_terms, &in_items, &in_voxels})
    if (*tensor && !(*tensor)->memory().canaries_intact()) return false;
  for (const auto &list : {output_list(), gradient_list()})
    for (const auto &tensor : list)
      if (!tensor.second->memory().canaries_intact()) return false;
  for (const auto *array : {&info, &forward_workspace, &backward_workspace, &saved})
    if (!(*array)->canaries_intact()) return false;
  return true;
}

}  // namespace segprior::test
