// One problem of SoftCut on one device: tensors, options, workspaces, saved, and the calls on them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/softcut_ref.h"
#include "tests/support/device.h"

namespace segprior::test {

segprior_softcut_opts softcut_opts();  // the defaults

// What a ref::softcut::Problem does not say about a library call.
struct SoftcutSettings {
  segprior_softcut_opts opts = softcut_opts();
  int32_t dtype = SEGPRIOR_FLOAT64;
  int32_t weight_dtype = 0;  // 16 bits of edges and diagonals; 0: dtype
  bool canaries = false;
  unsigned char poison = kPoison;  // initial bytes of outputs, workspaces and saved

  int32_t edge_dtype() const { return weight_dtype ? weight_dtype : dtype; }
};

// Tensors like the edges, by family of the reference; null where the problem has none.
struct EdgeTensors {
  TensorPtr of[ref::softcut::kFamilies];
};

class SoftcutCall {
 public:
  SoftcutCall(Device &device, const ref::softcut::Problem &problem, const SoftcutSettings &settings);
  SoftcutCall(const SoftcutCall &) = delete;
  SoftcutCall &operator=(const SoftcutCall &) = delete;

  // Fields that tests may change before a call.
  segprior_softcut_opts opts;
  segprior_softcut_inputs inputs;
  segprior_softcut_outputs outputs;
  segprior_softcut_grads grads;
  segprior_softcut_cotangents cotangents;
  segprior_softcut_second_grads second_grads;

  TensorPtr scores, conductance, init, x, grad_x;
  EdgeTensors edges;
  TensorPtr grad_scores, grad_conductance;  // of backward
  EdgeTensors grad_edges;
  TensorPtr l, a, c;  // arguments of the double backward
  EdgeTensors b;
  TensorPtr second_grad_x, second_scores, second_conductance;  // y, z, ...
  EdgeTensors second_edges;
  std::unique_ptr<DeviceArray> info, backward_info, second_info, forward_workspace, backward_workspace,
      double_backward_workspace, saved;

  // Allocates the workspaces and saved of exactly the queried sizes. The constructor does so too; call it
  // again after a change of opts.
  void allocate();
  segprior_status query();  // the status of the size queries alone
  segprior_status forward();
  // Every gradient that the problem has, poisoned before the call unless it accumulates.
  segprior_status backward(const ref::Array &grad_x);
  // `l`: backward's grads.scores. An empty array among the cotangents is passed as NULL.
  segprior_status double_backward(const ref::Array &l, const ref::softcut::Gradients &cotangents);

  // All tensors that a call writes, with their names.
  std::vector<std::pair<const char *, Tensor *>> gradient_list() const;
  std::vector<std::pair<const char *, Tensor *>> second_list() const;

  std::vector<segprior_info> infos() const { return read(*info); }
  std::vector<segprior_info> backward_infos() const { return read(*backward_info); }
  std::vector<segprior_info> second_infos() const { return read(*second_info); }
  bool canaries_intact() const;

  // What the library did in the compute calls so far that it must not do: heap allocations (CPU; the first
  // calls of a thread count may start OpenMP's threads), CUDA allocations, waits and foreign streams (fake
  // runtime only).
  const std::vector<std::string> &violations() const { return violations_; }
  int64_t allocations() const { return allocations_; }

 private:
  TensorPtr tensor(std::vector<int64_t> shape, int32_t dtype) const;
  EdgeTensors edge_tensors() const;
  std::unique_ptr<DeviceArray> buffer(size_t bytes) const;
  std::vector<segprior_info> read(const DeviceArray &array) const;
  template <class F>
  segprior_status watched(const F &call);

  Device &device_;
  const SoftcutSettings settings_;
  const ref::softcut::Problem problem_;
  std::vector<int64_t> field_, conductance_shape_;
  std::vector<std::string> violations_;
  int64_t allocations_ = 0;
};

}  // namespace segprior::test
