#include "tests/support/softmax_call.h"

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

namespace {

std::vector<int64_t> concat(std::vector<int64_t> head, const std::vector<int64_t> &tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

segprior_tensor *view(const TensorPtr &tensor) { return tensor ? tensor->view() : nullptr; }

}  // namespace

TensorPtr SoftmaxCall::output(std::vector<int64_t> shape, int32_t dtype) const {
  auto tensor = std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), settings_.canaries);
  tensor->memory().fill(settings_.poison);
  return tensor;
}

SoftmaxCall::SoftmaxCall(Device &device, const ref::Problem &p, const CallSettings &settings)
    : inputs{}, outputs{}, grads{}, device_(device), settings_(settings), star_classes_(p.star.classes) {
  read_options(p);
  make_inputs(p);
  make_outputs(p);
  allocate();
}

void SoftmaxCall::read_options(const ref::Problem &p) {
  if (segprior_softmax_opts_init(&opts, sizeof opts) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  opts.iterations = p.iterations;
  opts.accelerate = p.accelerate;
  opts.tolerance = p.tolerance;
  opts.check_interval = p.check_interval;
  opts.checkpoint_interval = settings_.checkpoint_interval;
  opts.tv = p.tv;
  if (settings_.checkpoint_interval > 0) opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED;
  opts.eps = p.eps;
  opts.init_eps = p.init_eps;
  opts.tv_lam = p.lam;
  opts.tv_tau = p.tau;
  for (size_t d = 0; d < p.spacing.size(); ++d) opts.spacing[d] = p.spacing[d];
  opts.td = p.td.on;
  opts.td_size = p.td.size;
  opts.td_lam = p.td.lam;
  opts.td_sigma = p.td.sigma;
  opts.star_count = static_cast<int32_t>(p.star.count());
  opts.star_classes = star_classes_.empty() ? nullptr : star_classes_.data();
  opts.path = settings_.path;
  opts.implicit_iterations = settings_.implicit_iterations;
  opts.implicit_tolerance = settings_.implicit_tolerance;
}

void SoftmaxCall::make_inputs(const ref::Problem &p) {
  const auto input = [&](std::vector<int64_t> shape, const ref::Array &values) {
    return std::make_unique<Tensor>(device_.which(), settings_.parameter_dtype(), std::move(shape), values,
                                    settings_.canaries);
  };
  // [B, *S], or [1, *S] shared by the batch.
  const auto shape_of_field = [&](size_t size) {
    return concat({static_cast<int64_t>(size) == p.voxels() ? 1 : p.batch}, p.spatial);
  };
  const auto edge = [&](const ref::Array &values) { return input(shape_of_field(values.size()), values); };
  const std::vector<int64_t> classes{p.batch, p.classes};

  features = std::make_unique<Tensor>(device_.which(), settings_.dtype, concat(classes, p.spatial),
                                      p.features, settings_.canaries);
  if (settings_.device_scalars) {  // the options are unused then
    eps = input({1}, {p.eps});
    opts.eps = -1;
    if (p.tv) {
      tv_lam = input({1}, {p.lam});
      opts.tv_lam = -1;
      if (p.tau != 0) tv_tau = input({1}, {p.tau});
    }
    if (p.td.on) {
      td_lam = input({1}, {p.td.lam});
      opts.td_lam = -1;
      if (p.td.extent.empty()) {
        td_sigma = input({1}, {p.td.sigma});
        opts.td_sigma = -1;
      }
    }
  }
  if (!p.edge.empty()) tv_edge = edge(p.edge);
  if (p.volume == ref::Volume::equality) volume = input(classes, p.upper);
  if (p.volume == ref::Volume::box) {
    if (settings_.pass_lower) volume_lower = input(classes, p.lower);
    if (settings_.pass_upper) volume_upper = input(classes, p.upper);
  }
  if (!p.init_tv.empty()) init_tv_dual = input(concat({p.batch, p.classes, p.nd()}, p.spatial), p.init_tv);
  if (!p.init_volume.empty()) init_volume_dual = input(classes, p.init_volume);
  if (!p.td.extent.empty())
    td_kernel = input(p.td.per_class() ? concat({p.classes}, p.td.extent) : p.td.extent, p.td.kernel);
  if (!p.td.edge.empty()) td_edge = edge(p.td.edge);
  if (p.star.count() > 0) star_center = input({p.batch, p.star.count(), p.nd()}, p.star.center);
  const bool one_step =
      std::adjacent_find(p.star.tau.begin(), p.star.tau.end(), std::not_equal_to<>()) == p.star.tau.end();
  if (!p.star.tau.empty() && one_step && !settings_.device_scalars)
    opts.star_tau = p.star.tau[0];
  else if (!p.star.tau.empty())
    star_tau = input({p.star.count()}, p.star.tau);
  if (!p.star.init.empty()) init_star_dual = input(concat({p.batch, p.star.count()}, p.spatial), p.star.init);
  if (!p.mask.empty())
    mask = std::make_unique<Tensor>(device_.which(), SEGPRIOR_UINT8, shape_of_field(p.mask.size()),
                                    ref::Array(p.mask.begin(), p.mask.end()), settings_.canaries);

  inputs.struct_size = sizeof inputs;
  inputs.features = view(features);
  inputs.eps = view(eps);
  inputs.tv_lam = view(tv_lam);
  inputs.tv_tau = view(tv_tau);
  inputs.tv_edge = view(tv_edge);
  inputs.volume = view(volume);
  inputs.volume_lower = view(volume_lower);
  inputs.volume_upper = view(volume_upper);
  inputs.init_tv_dual = view(init_tv_dual);
  inputs.init_volume_dual = view(init_volume_dual);
  inputs.td_lam = view(td_lam);
  inputs.td_sigma = view(td_sigma);
  inputs.td_kernel = view(td_kernel);
  inputs.td_edge = view(td_edge);
  inputs.star_center = view(star_center);
  inputs.star_tau = view(star_tau);
  inputs.mask = view(mask);
  inputs.init_star_dual = view(init_star_dual);
}

void SoftmaxCall::make_outputs(const ref::Problem &p) {
  const std::vector<int64_t> classes{p.batch, p.classes}, field = concat(classes, p.spatial);
  const auto parameter = [&](std::vector<int64_t> shape) {
    return output(std::move(shape), settings_.parameter_dtype());
  };
  const auto like = [&](const TensorPtr &tensor) {
    if (!tensor) return TensorPtr();
    const segprior_tensor &given = *tensor->view();
    return parameter(std::vector<int64_t>(given.shape, given.shape + given.ndim));
  };
  u = output(field, settings_.dtype);
  if (p.tv) tv_dual = parameter(concat({p.batch, p.classes, p.nd()}, p.spatial));
  if (p.volume != ref::Volume::none) volume_dual = parameter(classes);
  if (p.star.count() > 0) star_dual = parameter(concat({p.batch, p.star.count()}, p.spatial));
  for (auto *array : {&info, &backward_info}) {
    *array =
        std::make_unique<DeviceArray>(device_.which(), p.batch * sizeof(segprior_info), settings_.canaries);
    (*array)->fill(settings_.poison);
  }
  outputs.struct_size = sizeof outputs;
  outputs.u = view(u);
  outputs.tv_dual = view(tv_dual);
  outputs.volume_dual = view(volume_dual);
  outputs.star_dual = view(star_dual);
  outputs.info = static_cast<segprior_info *>(info->data());

  grad_u = output(field, settings_.dtype);
  GradientTensors &g = gradients;
  g.features = output(field, settings_.dtype);
  g.eps = parameter({1});
  if (p.init_eps > 0) g.init_eps = parameter({1});
  if (p.tv) {
    g.tv_lam = parameter({1});
    g.tv_tau = parameter({1});
  }
  g.tv_edge = like(tv_edge);
  g.volume = like(volume);
  g.volume_lower = like(volume_lower);
  g.volume_upper = like(volume_upper);
  if (p.td.on) g.td_lam = parameter({1});
  if (p.td.on && !td_kernel) g.td_sigma = parameter({1});
  g.td_kernel = like(td_kernel);
  g.td_edge = like(td_edge);
  if (p.star.count() > 0) g.star_tau = parameter({p.star.count()});
  g.star_center = like(star_center);
}

std::unique_ptr<DeviceArray> SoftmaxCall::buffer(size_t bytes) const {
  auto array = std::make_unique<DeviceArray>(device_.which(), bytes, settings_.canaries);
  array->fill(settings_.poison);
  return array;
}

void SoftmaxCall::allocate() {
  size_t forward_bytes = 0, backward_bytes = 0, saved_bytes = 0;
  const segprior_status status =
      segprior_softmax_workspace_size(device_.context(), &opts, &inputs, &forward_bytes, &backward_bytes);
  const segprior_status saved_status =
      segprior_softmax_saved_size(device_.context(), &opts, &inputs, &saved_bytes);
  if (status != SEGPRIOR_OK || saved_status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  forward_workspace = buffer(forward_bytes);
  backward_workspace = buffer(backward_bytes);
  saved = buffer(saved_bytes);
}

template <class F>
segprior_status SoftmaxCall::watched(const F &call) {
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

segprior_status SoftmaxCall::forward() {
  const segprior_status status = watched([&] {
    return segprior_softmax_forward(device_.context(), &opts, &inputs, &outputs, forward_workspace->data(),
                                    forward_workspace->bytes(), saved->bytes() ? saved->data() : nullptr,
                                    saved->bytes());
  });
  device_.synchronize();
  return status;
}

segprior_status SoftmaxCall::backward(int32_t mode, const ref::Array &grad_u_values) {
  grad_u->set(grad_u_values);
  if (!opts.accumulate)
    for (const auto &gradient : gradient_list()) gradient.second->memory().fill(settings_.poison);
  const GradientTensors &g = gradients;
  const bool unrolled = mode == SEGPRIOR_BACKWARD_UNROLLED, all = mode != SEGPRIOR_BACKWARD_LAST;
  grads = {};
  grads.struct_size = sizeof grads;
  grads.features = view(g.features);
  if (unrolled) {  // gradients of the iteration, not of its fixed point
    grads.init_eps = view(g.init_eps);
    grads.tv_tau = view(g.tv_tau);
    grads.star_tau = view(g.star_tau);
  }
  if (all) {
    grads.eps = view(g.eps);
    grads.tv_lam = view(g.tv_lam);
    grads.tv_edge = view(g.tv_edge);
    grads.volume = view(g.volume);
    grads.volume_lower = view(g.volume_lower);
    grads.volume_upper = view(g.volume_upper);
    grads.td_lam = view(g.td_lam);
    grads.td_sigma = view(g.td_sigma);
    grads.td_kernel = view(g.td_kernel);
    grads.td_edge = view(g.td_edge);
    grads.star_center = view(g.star_center);
  }
  if (mode == SEGPRIOR_BACKWARD_IMPLICIT) {
    backward_info->fill(settings_.poison);
    grads.info = static_cast<segprior_info *>(backward_info->data());
  }
  opts.backward_mode = mode;
  size_t bytes = 0;
  if (segprior_softmax_workspace_size(device_.context(), &opts, &inputs, nullptr, &bytes) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  if (bytes != backward_workspace->bytes()) {
    replaced_intact_ = replaced_intact_ && backward_workspace->canaries_intact();
    backward_workspace = buffer(bytes);
  }
  const bool keep = all && saved->bytes() > 0;
  const segprior_status status = watched([&] {
    return segprior_softmax_backward(device_.context(), &opts, &inputs, all ? nullptr : u->view(),
                                     grad_u->view(), &grads, bytes ? backward_workspace->data() : nullptr,
                                     bytes, keep ? saved->data() : nullptr, keep ? saved->bytes() : 0);
  });
  device_.synchronize();
  return status;
}

std::vector<std::pair<const char *, Tensor *>> SoftmaxCall::gradient_list(int32_t mode) const {
  const GradientTensors &g = gradients;
  const struct {
    const char *name;
    const TensorPtr &tensor;
    bool of_the_steps;  // of the iteration, not of its fixed point
  } all[] = {
      {"grads.features", g.features, false},
      {"grads.eps", g.eps, false},
      {"grads.init_eps", g.init_eps, true},
      {"grads.tv_lam", g.tv_lam, false},
      {"grads.tv_tau", g.tv_tau, true},
      {"grads.tv_edge", g.tv_edge, false},
      {"grads.volume", g.volume, false},
      {"grads.volume_lower", g.volume_lower, false},
      {"grads.volume_upper", g.volume_upper, false},
      {"grads.td_lam", g.td_lam, false},
      {"grads.td_sigma", g.td_sigma, false},
      {"grads.td_kernel", g.td_kernel, false},
      {"grads.td_edge", g.td_edge, false},
      {"grads.star_tau", g.star_tau, true},
      {"grads.star_center", g.star_center, false},
  };
  std::vector<std::pair<const char *, Tensor *>> present;
  for (const auto &entry : all)
    if (entry.tensor && !(mode == SEGPRIOR_BACKWARD_IMPLICIT && entry.of_the_steps) &&
        !(mode == SEGPRIOR_BACKWARD_LAST && &entry.tensor != &g.features))
      present.emplace_back(entry.name, entry.tensor.get());
  return present;
}

std::vector<segprior_info> SoftmaxCall::read(const DeviceArray &array) const {
  std::vector<segprior_info> host(array.bytes() / sizeof(segprior_info));
  const segprior_status status =
      segprior_info_read_sync(device_.context(), static_cast<const segprior_info *>(array.data()),
                              static_cast<int64_t>(host.size()), host.data());
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  return host;
}

std::vector<segprior_info> SoftmaxCall::infos() const { return read(*info); }
std::vector<segprior_info> SoftmaxCall::backward_infos() const { return read(*backward_info); }

bool SoftmaxCall::canaries_intact() const {
  for (const TensorPtr *tensor : {&features,
                                  &eps,
                                  &tv_lam,
                                  &tv_tau,
                                  &tv_edge,
                                  &volume,
                                  &volume_lower,
                                  &volume_upper,
                                  &init_tv_dual,
                                  &init_volume_dual,
                                  &td_lam,
                                  &td_sigma,
                                  &td_kernel,
                                  &td_edge,
                                  &star_center,
                                  &star_tau,
                                  &mask,
                                  &init_star_dual,
                                  &u,
                                  &tv_dual,
                                  &volume_dual,
                                  &star_dual,
                                  &grad_u})
    if (*tensor && !(*tensor)->memory().canaries_intact()) return false;
  for (const auto &gradient : gradient_list())
    if (!gradient.second->memory().canaries_intact()) return false;
  for (const auto *array : {&info, &backward_info, &forward_workspace, &backward_workspace, &saved})
    if (!(*array)->canaries_intact()) return false;
  return replaced_intact_;
}

}  // namespace segprior::test
