// The checked arguments of the loss calls. Every rule of include/segprior/losses.h about options and tensors
// is in losses_args.cpp.
#pragma once

#include "capi/tensor.h"
#include "kernels/losses/losses.h"
#include "segprior/losses.h"

namespace segprior::losses {

segprior_loss_opts default_opts();

// What forward, backward and the size queries have in common.
class Call {
 public:
  Call(const segprior_context &context, const segprior_loss_opts *opts, const segprior_loss_inputs *inputs,
       bool sizes_only);

  bool empty() const { return problem.batch == 0 || problem.voxels == 0; }
  Outputs read_outputs(const segprior_loss_outputs *given);
  Cotangents read_cotangents(const segprior_loss_cotangents *given);
  Grads read_grads(const segprior_loss_grads *given, const Cotangents &cotangents);

  segprior_loss_opts opts;
  segprior_loss_inputs inputs;
  Problem problem;
  Arguments arguments;

 private:
  void read_labels();
  void read_parameters();
  const uint8_t *read_mask(const char *name, const segprior_tensor *tensor, bool &has, bool &shared);
  const void *read_bounds(const char *name, const segprior_tensor *tensor, int64_t &rows);

  Shape field_, per_voxel_, terms_, items_;  // [B, I, *S], [B, *S], [5], [5, B, I]
};

}  // namespace segprior::losses
