#include "tests/support/proposals_call.h"

#include <cmath>
#include <stdexcept>

#include "tests/support/alloc_count.h"
#include "tests/support/random.h"

#if defined(SEGPRIOR_WITH_CUDA)
#include <cuda_runtime.h>  // says whether it is the fake one
#endif
#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

namespace segprior::test {

namespace {
segprior_tensor *view(const TensorPtr &tensor) { return tensor ? tensor->view() : nullptr; }
}  // namespace

segprior_proposal_opts proposal_opts() {
  segprior_proposal_opts opts;
  if (segprior_proposal_opts_init(&opts, sizeof opts) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  return opts;
}

TensorPtr ProposalCall::tensor(std::vector<int64_t> shape, int32_t dtype, const ref::Array *values) const {
  if (values && values->empty()) {
    bool empty = false;
    for (int64_t extent : shape) empty = empty || extent == 0;
    if (!empty) return nullptr;
  }
  auto made = std::make_unique<Tensor>(device_.which(), dtype, std::move(shape), settings_.canaries);
  made->memory().fill(settings_.poison);
  if (values && !values->empty()) made->set(*values);
  return made;
}

std::unique_ptr<DeviceArray> ProposalCall::buffer(size_t bytes) const {
  auto array = std::make_unique<DeviceArray>(device_.which(), bytes, settings_.canaries);
  array->fill(settings_.poison);
  return array;
}

ProposalCall::ProposalCall(Device &device, const ref::proposals::Problem &p, const ProposalSettings &settings)
    : opts(settings.opts), inputs{}, outputs{}, device_(device), settings_(settings) {
  std::vector<int64_t> field{p.batch, p.classes};
  field.insert(field.end(), p.spatial.begin(), p.spatial.end());
  const std::vector<int64_t> per_class{p.batch, p.classes};
  const auto bounds = [&](const ref::Array &values) {
    if (values.empty()) return TensorPtr();
    return tensor({static_cast<int64_t>(values.size()) / p.classes, p.classes}, settings.real_dtype(),
                  &values);
  };
  logits = tensor(field, settings.dtype, &p.logits);
  lower = bounds(p.lower);
  upper = bounds(p.upper);
  if (!p.mask.empty()) {
    std::vector<int64_t> shape = field;
    shape.erase(shape.begin() + 1);
    shape[0] = static_cast<int64_t>(p.mask.size()) / p.voxels();
    mask = tensor(shape, SEGPRIOR_UINT8, &p.mask);
  }
  proposal = tensor(field, settings.dtype, nullptr);
  dual = tensor(per_class, settings.real_dtype(), nullptr);
  volume = tensor(per_class, settings.real_dtype(), nullptr);
  info = buffer(static_cast<size_t>(p.batch) * sizeof(segprior_info));
  inputs = {sizeof inputs, view(logits), view(lower), view(upper), view(mask)};
  outputs = {sizeof outputs, view(proposal), view(dual), view(volume),
             info->bytes() ? static_cast<segprior_info *>(info->data()) : nullptr};
  allocate();
}

void ProposalCall::allocate() {
  size_t bytes = 0;
  if (segprior_proposal_workspace_size(device_.context(), &opts, &inputs, &bytes) != SEGPRIOR_OK)
    throw std::runtime_error(segprior_last_error());
  workspace = buffer(bytes);
}

segprior_status ProposalCall::forward() {
  segprior_status status;
  {
#if defined(FAKECUDA)
    const fakecuda::Forbid forbid(static_cast<cudaStream_t>(device_.stream()));
#endif
    const int64_t before = allocation_count();
    status = segprior_proposal_forward(device_.context(), &opts, &inputs, &outputs,
                                       workspace->bytes() ? workspace->data() : nullptr, workspace->bytes());
    allocations_ += allocation_count() - before;
#if defined(FAKECUDA)
    violations_.insert(violations_.end(), forbid.violations().begin(), forbid.violations().end());
#endif
  }
  device_.synchronize();
  return status;
}

std::vector<segprior_info> ProposalCall::infos() const {
  std::vector<segprior_info> host(info->bytes() / sizeof(segprior_info));
  const segprior_status status =
      segprior_info_read_sync(device_.context(), static_cast<const segprior_info *>(info->data()),
                              static_cast<int64_t>(host.size()), host.data());
  if (status != SEGPRIOR_OK) throw std::runtime_error(segprior_last_error());
  return host;
}

bool ProposalCall::canaries_intact() const {
  for (const TensorPtr *tensor : {&logits, &lower, &upper, &mask, &proposal, &dual, &volume})
    if (*tensor && !(*tensor)->memory().canaries_intact()) return false;
  return info->canaries_intact() && workspace->canaries_intact();
}

std::vector<unsigned char> ProposalCall::output_bytes() const {
  std::vector<unsigned char> all;
  for (const DeviceArray *array : {&proposal->memory(), &dual->memory(), &volume->memory(), info.get()}) {
    const std::vector<unsigned char> bytes = array->content();
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

ref::Array smooth_logits(const ref::proposals::Problem &shape, double scale, uint64_t seed) {
  Random random(seed);
  const int64_t n = shape.voxels();
  ref::Array values;
  for (int64_t k = 0; k < shape.batch * shape.classes; ++k) {
    const double phase = random.uniform(0, 6.28), level = random.uniform(-0.5, 0.5);
    ref::Array frequency;
    for (size_t d = 0; d < shape.spatial.size(); ++d) frequency.push_back(random.uniform(2, 9));
    for (int64_t x = 0; x < n; ++x) {
      double angle = phase;
      int64_t rest = x;
      for (size_t d = shape.spatial.size(); d-- > 0; rest /= shape.spatial[d])
        angle += frequency[d] * static_cast<double>(rest % shape.spatial[d]) /
                 static_cast<double>(shape.spatial[d]);
      values.push_back(scale * (std::cos(angle) + level + random.uniform(-0.2, 0.2)));
    }
  }
  return values;
}

ref::Array image_of(const ref::Array &values, int64_t b, int64_t batch) {
  const int64_t size = static_cast<int64_t>(values.size()) / batch;
  return ref::Array(values.begin() + b * size, values.begin() + (b + 1) * size);
}

}  // namespace segprior::test
