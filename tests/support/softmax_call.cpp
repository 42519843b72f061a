#include "tests/support/softmax_call.h"

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

TensorPtr SoftmaxCall::output(std::vector<int64_t> shape) const {
  auto tensor =
      std::make_unique<Tensor>(device_.which(), settings_.dtype, std::move(shape), settings_.canaries);
  tensor->memory().fill(settings_.poison);
  return tensor;
}

SoftmaxCall::SoftmaxCall(Device &device, const ref::Problem &p, const CallSettings &settings)
    : inputs{}, outputs{}, grads{}, device_(device), settings_(settings) {
  const auto input = [&](std::vector<int64_t> shape, const ref::Array &values) {
    return std::make_unique<Tensor>(device.which(), settings.dtype, std::move(shape), values,
                                    settings.canaries);
  };
  const std::vector<int64_t> classes{p.batch, p.classes},
      field = concat(classes, p.spatial), dual = concat({p.batch, p.classes, p.nd()}, p.spatial);

  if (segprior_softmax_opts_init(&opts, sizeof opts) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  opts.iterations = p.iterations;
  opts.accelerate = p.accelerate;
  opts.tolerance = p.tolerance;
  opts.check_interval = p.check_interval;
  opts.checkpoint_interval = settings.checkpoint_interval;
  opts.tv = p.tv;
  if (settings.checkpoint_interval > 0) opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED;
  opts.eps = p.eps;
  opts.init_eps = p.init_eps;
  opts.tv_lam = p.lam;
  opts.tv_tau = p.tau;
  for (size_t d = 0; d < p.spacing.size(); ++d) opts.spacing[d] = p.spacing[d];

  features = input(field, p.features);
  if (settings.device_scalars) {
    eps = input({1}, {p.eps});
    opts.eps = -1;  // unused then
    if (p.tv) {
      tv_lam = input({1}, {p.lam});
      opts.tv_lam = -1;
      if (p.tau != 0) tv_tau = input({1}, {p.tau});
    }
  }
  if (!p.edge.empty()) {
    const int64_t images = static_cast<int64_t>(p.edge.size()) == p.voxels() ? 1 : p.batch;
    tv_edge = input(concat({images}, p.spatial), p.edge);
  }
  if (p.volume == ref::Volume::equality) volume = input(classes, p.upper);
  if (p.volume == ref::Volume::box) {
    if (settings.pass_lower) volume_lower = input(classes, p.lower);
    if (settings.pass_upper) volume_upper = input(classes, p.upper);
  }
  if (!p.init_tv.empty()) init_tv_dual = input(dual, p.init_tv);
  if (!p.init_volume.empty()) init_volume_dual = input(classes, p.init_volume);

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

  u = output(field);
  if (p.tv) tv_dual = output(dual);
  if (p.volume != ref::Volume::none) volume_dual = output(classes);
  info = std::make_unique<DeviceArray>(device.which(), p.batch * sizeof(segprior_info), settings.canaries);
  info->fill(settings.poison);
  outputs.struct_size = sizeof outputs;
  outputs.u = view(u);
  outputs.tv_dual = view(tv_dual);
  outputs.volume_dual = view(volume_dual);
  outputs.info = static_cast<segprior_info *>(info->data());

  grad_u = output(field);
  GradientTensors &g = gradients;
  g.features = output(field);
  g.eps = output({1});
  if (p.init_eps > 0) g.init_eps = output({1});
  if (p.tv) {
    g.tv_lam = output({1});
    g.tv_tau = output({1});
  }
  if (tv_edge)
    g.tv_edge = output(std::vector<int64_t>(tv_edge->view()->shape, tv_edge->view()->shape + 1 + p.nd()));
  if (volume) g.volume = output(classes);
  if (volume_lower) g.volume_lower = output(classes);
  if (volume_upper) g.volume_upper = output(classes);

  allocate();
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
  const bool unrolled = mode == SEGPRIOR_BACKWARD_UNROLLED;
  const GradientTensors &g = gradients;
  grads = {};
  grads.struct_size = sizeof grads;
  grads.features = view(g.features);
  if (unrolled) {
    grads.eps = view(g.eps);
    grads.init_eps = view(g.init_eps);
    grads.tv_lam = view(g.tv_lam);
    grads.tv_tau = view(g.tv_tau);
    grads.tv_edge = view(g.tv_edge);
    grads.volume = view(g.volume);
    grads.volume_lower = view(g.volume_lower);
    grads.volume_upper = view(g.volume_upper);
  }
  opts.backward_mode = mode;
  size_t bytes = 0;
  if (segprior_softmax_workspace_size(device_.context(), &opts, &inputs, nullptr, &bytes) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  if (bytes != backward_workspace->bytes()) {
    replaced_intact_ = replaced_intact_ && backward_workspace->canaries_intact();
    backward_workspace = buffer(bytes);
  }
  const bool keep = unrolled && saved->bytes() > 0;
  const segprior_status status = watched([&] {
    return segprior_softmax_backward(device_.context(), &opts, &inputs, unrolled ? nullptr : u->view(),
                                     grad_u->view(), &grads, bytes ? backward_workspace->data() : nullptr,
                                     bytes, keep ? saved->data() : nullptr, keep ? saved->bytes() : 0);
  });
  device_.synchronize();
  return status;
}

std::vector<std::pair<const char *, Tensor *>> SoftmaxCall::gradient_list() const {
  const GradientTensors &g = gradients;
  std::vector<std::pair<const char *, Tensor *>> all{
      {"grads.features", g.features.get()},
      {"grads.eps", g.eps.get()},
      {"grads.init_eps", g.init_eps.get()},
      {"grads.tv_lam", g.tv_lam.get()},
      {"grads.tv_tau", g.tv_tau.get()},
      {"grads.tv_edge", g.tv_edge.get()},
      {"grads.volume", g.volume.get()},
      {"grads.volume_lower", g.volume_lower.get()},
      {"grads.volume_upper", g.volume_upper.get()},
  };
  std::vector<std::pair<const char *, Tensor *>> present;
  for (const auto &entry : all)
    if (entry.second) present.push_back(entry);
  return present;
}

std::vector<segprior_info> SoftmaxCall::infos() const {
  std::vector<segprior_info> host(info->bytes() / sizeof(segprior_info));
  const segprior_status status = segprior_info_read_sync(device_.context(), outputs.info,
                                                         static_cast<int64_t>(host.size()), host.data());
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  return host;
}

bool SoftmaxCall::canaries_intact() const {
  for (const Tensor *tensor :
       {features.get(), eps.get(), tv_lam.get(), tv_tau.get(), tv_edge.get(), volume.get(),
        volume_lower.get(), volume_upper.get(), init_tv_dual.get(), init_volume_dual.get(), u.get(),
        tv_dual.get(), volume_dual.get(), grad_u.get()})
    if (tensor && !tensor->memory().canaries_intact()) return false;
  for (const auto &gradient : gradient_list())
    if (!gradient.second->memory().canaries_intact()) return false;
  return replaced_intact_ && info->canaries_intact() && forward_workspace->canaries_intact() &&
         backward_workspace->canaries_intact() && saved->canaries_intact();
}

}  // namespace segprior::test
