// One problem of the losses on one device: tensors, options, workspaces, saved, and the calls on them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/losses_ref.h"
#include "tests/support/device.h"

namespace segprior::test {

// The defaults, with what a problem of the reference says.
segprior_loss_opts loss_opts(const ref::losses::Problem &problem);

// What a ref::losses::Problem does not say about a library call.
struct LossSettings {
  int32_t dtype = SEGPRIOR_FLOAT64;
  int32_t label_dtype = SEGPRIOR_UINT8;
  bool one_hot = false;  // the target is uint8
  bool accumulate = false;
  bool canaries = false;
  unsigned char poison = kPoison;  // initial bytes of outputs, workspaces and saved

  // Of all real tensors but the scores, their gradient and a soft target.
  int32_t parameter_dtype() const { return dtype == SEGPRIOR_FLOAT64 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32; }
};

using NamedTensors = std::vector<std::pair<const char *, Tensor *>>;

class LossCall {
 public:
  LossCall(Device &device, const ref::losses::Problem &problem, const LossSettings &settings);
  LossCall(const LossCall &) = delete;
  LossCall &operator=(const LossCall &) = delete;

  // Fields that tests may change before a call.
  segprior_loss_opts opts;
  segprior_loss_inputs inputs;
  segprior_loss_outputs outputs;
  segprior_loss_cotangents cotangents;
  segprior_loss_grads grads;

  // Null where the problem has none.
  TensorPtr scores, labels, target, mask, labelled, class_weights, size_lower, size_upper, size_groups;
  TensorPtr total, terms, items, voxels;
  TensorPtr in_total, in_terms, in_items, in_voxels;  // cotangents
  TensorPtr grad_scores, grad_class_weights, grad_size_lower, grad_size_upper;
  std::unique_ptr<DeviceArray> info, forward_workspace, backward_workspace, saved;

  // Allocates the workspaces and saved of exactly the queried sizes. The constructor does so too; call it
  // again after a change of opts.
  void allocate();
  segprior_status forward();
  // Every gradient that grads names, poisoned before the call unless it accumulates. An empty array of the
  // cotangents is passed as NULL; with those of the voxels goes no gradient of the class weights.
  segprior_status backward(const ref::losses::Cotangents &given);

  // All tensors that a call writes, with their names.
  NamedTensors output_list() const;
  NamedTensors gradient_list() const;

  std::vector<segprior_info> infos() const;
  bool canaries_intact() const;

  // What the library did in the compute calls so far that it must not do: heap allocations (CPU; the first
  // calls of a thread count may start OpenMP's threads), CUDA allocations, waits and foreign streams (fake
  // runtime only).
  const std::vector<std::string> &violations() const { return violations_; }
  int64_t allocations() const { return allocations_; }

 private:
  TensorPtr tensor(std::vector<int64_t> shape, int32_t dtype) const;
  TensorPtr input(const ref::Array &values, std::vector<int64_t> shape, int32_t dtype) const;
  std::unique_ptr<DeviceArray> buffer(size_t bytes) const;
  template <class F>
  segprior_status watched(const F &call);

  Device &device_;
  const LossSettings settings_;
  std::vector<std::string> violations_;
  int64_t allocations_ = 0;
};

}  // namespace segprior::test
