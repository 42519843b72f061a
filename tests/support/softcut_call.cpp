#include "tests/support/softcut_call.h"

#include <stdexcept>

#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

using ref::softcut::kFamilies;
using ref::softcut::kFirstDiagonal;

namespace {

segprior_tensor *view(const TensorPtr &tensor) { return tensor ? tensor->view() : nullptr; }

void *data(const std::unique_ptr<DeviceArray> &array) { return array->bytes() ? array->data() : nullptr; }

segprior_info *info_data(const std::unique_ptr<DeviceArray> &array) {
  return static_cast<segprior_info *>(array->data());
}

template <class Structure>
void set_edges(Structure &structure, const EdgeTensors &tensors) {
  for (int f = 0; f < kFirstDiagonal; ++f) structure.edges[f] = view(tensors.of[f]);
  for (int d = 0; d < kFamilies - kFirstDiagonal; ++d)
    structure.diagonals[d] = view(tensors.of[kFirstDiagonal + d]);
}

}  // namespace

segprior_softcut_opts softcut_opts() {
  segprior_softcut_opts opts;
  if (segprior_softcut_opts_init(&opts, sizeof opts) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  return opts;
}

TensorPtr SoftcutCall::tensor(std::vector<int64_t> shape, int32_t dtype) const {
  auto made = std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), settings_.canaries);
  made->memory().fill(settings_.poison);
  return made;
}

EdgeTensors SoftcutCall::edge_tensors() const {
  EdgeTensors made;
  for (int f = 0; f < kFamilies; ++f) {
    if (!problem_.has(f)) continue;
    std::vector<int64_t> shape{problem_.batch, problem_.shared ? 1 : problem_.classes};
    for (int64_t n : problem_.edge_spatial(f)) shape.push_back(n);
    made.of[f] = tensor(shape, settings_.edge_dtype());
  }
  return made;
}

std::unique_ptr<DeviceArray> SoftcutCall::buffer(size_t bytes) const {
  auto array = std::make_unique<DeviceArray>(device_.which(), bytes, settings_.canaries);
  array->fill(settings_.poison);
  return array;
}

SoftcutCall::SoftcutCall(Device &device, const ref::softcut::Problem &p, const SoftcutSettings &settings)
    : opts(settings.opts),
      inputs{},
      outputs{},
      grads{},
      cotangents{},
      second_grads{},
      device_(device),
      settings_(settings),
      problem_(p),
      field_{p.batch, p.classes},
      conductance_shape_{p.batch, p.shared ? 1 : p.classes} {
  for (auto *shape : {&field_, &conductance_shape_})
    shape->insert(shape->end(), p.spatial.begin(), p.spatial.end());
  const auto field = [&] { return tensor(field_, settings_.dtype); };
  const auto input = [&](const ref::Array &values, const std::vector<int64_t> &shape) {
    if (values.empty()) return TensorPtr();
    TensorPtr made = tensor(shape, settings_.dtype);
    made->set(values);
    return made;
  };
  scores = field();
  scores->set(p.scores);
  edges = edge_tensors();
  for (int f = 0; f < kFamilies; ++f)
    if (edges.of[f]) edges.of[f]->set(p.weights.of[f]);
  conductance = input(p.conductance, conductance_shape_);
  init = input(p.init, field_);
  x = field();
  grad_x = field();
  l = field();
  grad_scores = field();
  grad_edges = edge_tensors();
  second_grad_x = field();
  second_scores = field();
  second_edges = edge_tensors();
  if (conductance) {
    grad_conductance = tensor(conductance_shape_, settings_.dtype);
    second_conductance = tensor(conductance_shape_, settings_.dtype);
  }
  const size_t infos = static_cast<size_t>(p.systems()) * sizeof(segprior_info);
  info = buffer(infos);
  backward_info = buffer(infos);
  second_info = buffer(2 * infos);

  inputs.struct_size = sizeof inputs;
  inputs.scores = view(scores);
  set_edges(inputs, edges);
  inputs.conductance = view(conductance);
  inputs.init = view(init);
  outputs = {sizeof outputs, view(x), info_data(info)};
  grads.struct_size = sizeof grads;
  grads.scores = view(grad_scores);
  set_edges(grads, grad_edges);
  grads.conductance = view(grad_conductance);
  grads.info = info_data(backward_info);
  second_grads.struct_size = sizeof second_grads;
  second_grads.grad_x = view(second_grad_x);
  second_grads.scores = view(second_scores);
  set_edges(second_grads, second_edges);
  second_grads.conductance = view(second_conductance);
  second_grads.info = info_data(second_info);
  allocate();
}

segprior_status SoftcutCall::query() {
  size_t bytes[4];
  const segprior_status status =
      segprior_softcut_workspace_size(device_.context(), &opts, &inputs, &bytes[0], &bytes[1], &bytes[2]);
  return status != SEGPRIOR_OK ? status
                               : segprior_softcut_saved_size(device_.context(), &opts, &inputs, &bytes[3]);
}

void SoftcutCall::allocate() {
  size_t forward_bytes = 0, backward_bytes = 0, double_bytes = 0, saved_bytes = 0;
  // Nothing is allocated for a request that is not supported; the compute calls say so themselves.
  const segprior_status status = query();
  if (status != SEGPRIOR_OK && status != SEGPRIOR_ERROR_NOT_SUPPORTED)
    throw std::runtime_error(segprior_last_error());
  if (status == SEGPRIOR_OK) {
    segprior_softcut_workspace_size(device_.context(), &opts, &inputs, &forward_bytes, &backward_bytes,
                                    &double_bytes);
    segprior_softcut_saved_size(device_.context(), &opts, &inputs, &saved_bytes);
  }
  forward_workspace = buffer(forward_bytes);
  backward_workspace = buffer(backward_bytes);
  double_backward_workspace = buffer(double_bytes);
  saved = buffer(saved_bytes);
}

template <class F>
segprior_status SoftcutCall::watched(const F &call) {
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

segprior_status SoftcutCall::forward() {
  const segprior_status status = watched([&] {
    return segprior_softcut_forward(device_.context(), &opts, &inputs, &outputs, data(forward_workspace),
                                    forward_workspace->bytes(), data(saved), saved->bytes());
  });
  device_.synchronize();
  return status;
}

segprior_status SoftcutCall::backward(const ref::Array &grad_x_values) {
  grad_x->set(grad_x_values);
  if (!opts.accumulate)
    for (const auto &gradient : gradient_list()) gradient.second->memory().fill(settings_.poison);
  backward_info->fill(settings_.poison);
  const segprior_status status = watched([&] {
    return segprior_softcut_backward(device_.context(), &opts, &inputs, x->view(), grad_x->view(), &grads,
                                     data(backward_workspace), backward_workspace->bytes(), data(saved),
                                     saved->bytes());
  });
  device_.synchronize();
  return status;
}

segprior_status SoftcutCall::double_backward(const ref::Array &l_values,
                                             const ref::softcut::Gradients &given) {
  const auto set = [&](TensorPtr &made, const ref::Array &values, const std::vector<int64_t> &shape) {
    if (!values.empty() && !made) made = tensor(shape, settings_.dtype);
    if (!values.empty()) made->set(values);
    return values.empty() ? nullptr : made->view();
  };
  cotangents = {};
  cotangents.struct_size = sizeof cotangents;
  l->set(l_values);
  cotangents.scores = set(a, given.scores, field_);
  cotangents.conductance = set(c, given.conductance, conductance_shape_);
  b = edge_tensors();
  for (int f = 0; f < kFamilies; ++f)
    if (given.edges.of[f].empty())
      b.of[f].reset();
    else
      b.of[f]->set(given.edges.of[f]);
  set_edges(cotangents, b);
  if (!opts.accumulate)
    for (const auto &gradient : second_list()) gradient.second->memory().fill(settings_.poison);
  second_info->fill(settings_.poison);
  const segprior_status status = watched([&] {
    return segprior_softcut_double_backward(device_.context(), &opts, &inputs, x->view(), l->view(),
                                            &cotangents, &second_grads, data(double_backward_workspace),
                                            double_backward_workspace->bytes(), data(saved), saved->bytes());
  });
  device_.synchronize();
  return status;
}

namespace {

constexpr const char *kEdgeNames[kFamilies] = {"grads.edges[0]", "grads.edges[1]", "grads.edges[2]",
                                               "grads.diagonals[0]", "grads.diagonals[1]"};

void add_edges(std::vector<std::pair<const char *, Tensor *>> &list, const EdgeTensors &tensors) {
  for (int f = 0; f < kFamilies; ++f)
    if (tensors.of[f]) list.emplace_back(kEdgeNames[f], tensors.of[f].get());
}

}  // namespace

std::vector<std::pair<const char *, Tensor *>> SoftcutCall::gradient_list() const {
  std::vector<std::pair<const char *, Tensor *>> list{{"grads.scores", grad_scores.get()}};
  add_edges(list, grad_edges);
  if (grad_conductance) list.emplace_back("grads.conductance", grad_conductance.get());
  return list;
}

std::vector<std::pair<const char *, Tensor *>> SoftcutCall::second_list() const {
  std::vector<std::pair<const char *, Tensor *>> list{{"grads.grad_x", second_grad_x.get()},
                                                      {"grads.scores", second_scores.get()}};
  add_edges(list, second_edges);
  if (second_conductance) list.emplace_back("grads.conductance", second_conductance.get());
  return list;
}

std::vector<segprior_info> SoftcutCall::read(const DeviceArray &array) const {
  std::vector<segprior_info> host(array.bytes() / sizeof(segprior_info));
  const segprior_status status =
      segprior_info_read_sync(device_.context(), static_cast<const segprior_info *>(array.data()),
                              static_cast<int64_t>(host.size()), host.data());
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  return host;
}

bool SoftcutCall::canaries_intact() const {
  for (const TensorPtr *tensor : {&scores, &conductance, &init, &x, &grad_x, &l, &a, &c})
    if (*tensor && !(*tensor)->memory().canaries_intact()) return false;
  for (const EdgeTensors *tensors : {&edges, &b})
    for (const TensorPtr &tensor : tensors->of)
      if (tensor && !tensor->memory().canaries_intact()) return false;
  for (const auto &list : {gradient_list(), second_list()})
    for (const auto &gradient : list)
      if (!gradient.second->memory().canaries_intact()) return false;
  for (const auto *array : {&info, &backward_info, &second_info, &forward_workspace, &backward_workspace,
                            &double_backward_workspace, &saved})
    if (!(*array)->canaries_intact()) return false;
  return true;
}

}  // namespace segprior::test
