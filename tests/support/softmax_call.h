// One problem of the softmax operator on one device: tensors, options, workspace, and the calls on them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/softmax_ref.h"
#include "tests/support/device.h"

namespace segprior::test {

// What a ref::Problem does not say about a library call.
struct CallSettings {
  int32_t dtype = SEGPRIOR_FLOAT64;
  int checkpoint_interval = 1;
  bool device_scalars = false;                // eps, lam, tau as tensors instead of options
  bool pass_lower = true, pass_upper = true;  // box volumes: which bounds are given
  bool canaries = false;
  unsigned char poison = kPoison;  // initial bytes of outputs, workspace and saved
};

struct GradientTensors {  // null where the problem has no such gradient
  TensorPtr features, eps, init_eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper;
};

class SoftmaxCall {
 public:
  SoftmaxCall(Device &device, const ref::Problem &problem, const CallSettings &settings);

  // Fields that tests may change before a call.
  segprior_softmax_opts opts;
  segprior_softmax_inputs inputs;
  segprior_softmax_outputs outputs;
  segprior_softmax_grads grads;

  TensorPtr features, eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper, init_tv_dual,
      init_volume_dual;
  TensorPtr u, tv_dual, volume_dual;
  std::unique_ptr<DeviceArray> info, forward_workspace, backward_workspace, saved;
  TensorPtr grad_u;
  GradientTensors gradients;

  // Allocates both workspaces and saved of exactly the queried sizes. The constructor does so too; call it
  // again after a change of opts.
  void allocate();
  segprior_status forward();
  // Every gradient the problem has (last: features alone), poisoned before the call unless it accumulates.
  // The workspace is exactly as large as the size query says for this mode.
  segprior_status backward(int32_t mode, const ref::Array &grad_u);

  // All gradient tensors the problem has, with their names.
  std::vector<std::pair<const char *, Tensor *>> gradient_list() const;

  std::vector<segprior_info> infos() const;
  bool canaries_intact() const;

  // What the library did in the compute calls so far that it must not do: heap allocations (CPU; the first
  // calls of a thread count may start OpenMP's threads), CUDA allocations, waits and foreign streams (fake
  // runtime only).
  const std::vector<std::string> &violations() const { return violations_; }
  int64_t allocations() const { return allocations_; }

 private:
  TensorPtr output(std::vector<int64_t> shape) const;
  std::unique_ptr<DeviceArray> buffer(size_t bytes) const;
  template <class F>
  segprior_status watched(const F &call);

  Device &device_;
  const CallSettings settings_;
  std::vector<std::string> violations_;
  int64_t allocations_ = 0;
  bool replaced_intact_ = true;  // the canaries of workspaces that another mode's replaced
};

}  // namespace segprior::test
