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
  int32_t dtype = SEGPRIOR_FLOAT64;  // of features, u, grad_u and grads.features; others: parameter_dtype()
  int32_t path = SEGPRIOR_PATH_AUTO;
  int checkpoint_interval = 1;
  bool device_scalars = false;                // eps, lam, tau as tensors instead of options
  bool pass_lower = true, pass_upper = true;  // box volumes: which bounds are given
  bool canaries = false;
  unsigned char poison = kPoison;  // initial bytes of outputs, workspace and saved
  int implicit_iterations = 1000;
  double implicit_tolerance = 1e-6;

  int32_t parameter_dtype() const { return dtype == SEGPRIOR_FLOAT64 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32; }
};

struct GradientTensors {  // null where the problem has no such gradient
  TensorPtr features, eps, init_eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper, td_lam,
      td_sigma, td_kernel, td_edge, star_tau, star_center;
};

class SoftmaxCall {
 public:
  SoftmaxCall(Device &device, const ref::Problem &problem, const CallSettings &settings);
  SoftmaxCall(const SoftmaxCall &) = delete;
  SoftmaxCall &operator=(const SoftmaxCall &) = delete;

  // Fields that tests may change before a call.
  segprior_softmax_opts opts;
  segprior_softmax_inputs inputs;
  segprior_softmax_outputs outputs;
  segprior_softmax_grads grads;

  TensorPtr features, eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper, init_tv_dual,
      init_volume_dual, td_lam, td_sigma, td_kernel, td_edge, star_center, star_tau, mask, init_star_dual;
  TensorPtr u, tv_dual, volume_dual, star_dual;
  std::unique_ptr<DeviceArray> info, backward_info, forward_workspace, backward_workspace, saved;
  TensorPtr grad_u;
  GradientTensors gradients;

  // Allocates both workspaces and saved of exactly the queried sizes. The constructor does so too; call it
  // again after a change of opts.
  void allocate();
  segprior_status forward();
  // Every gradient that the problem has in this mode (last: features alone), poisoned before the call unless
  // it accumulates.
  // The workspace is exactly as large as the size query says for this mode.
  segprior_status backward(int32_t mode, const ref::Array &grad_u);

  // The gradient tensors that the problem has in a mode, with their names.
  std::vector<std::pair<const char *, Tensor *>> gradient_list(
      int32_t mode = SEGPRIOR_BACKWARD_UNROLLED) const;

  std::vector<segprior_info> infos() const;           // of forward
  std::vector<segprior_info> backward_infos() const;  // of the implicit backward
  bool canaries_intact() const;

  // What the library did in the compute calls so far that it must not do: heap allocations (CPU; the first
  // calls of a thread count may start OpenMP's threads), CUDA allocations, waits and foreign streams (fake
  // runtime only).
  const std::vector<std::string> &violations() const { return violations_; }
  int64_t allocations() const { return allocations_; }

 private:
  void read_options(const ref::Problem &problem);
  void make_inputs(const ref::Problem &problem);
  void make_outputs(const ref::Problem &problem);
  TensorPtr output(std::vector<int64_t> shape, int32_t dtype) const;
  std::vector<segprior_info> read(const DeviceArray &array) const;
  std::unique_ptr<DeviceArray> buffer(size_t bytes) const;
  template <class F>
  segprior_status watched(const F &call);

  Device &device_;
  const CallSettings settings_;
  std::vector<int32_t> star_classes_;  // opts points here
  std::vector<std::string> violations_;
  int64_t allocations_ = 0;
  bool replaced_intact_ = true;  // the canaries of workspaces that another mode's replaced
};

}  // namespace segprior::test
