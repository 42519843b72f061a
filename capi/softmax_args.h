// The checked arguments of the softmax calls. Every rule of include/segprior/softmax.h about options and
// tensors is in softmax_args.cpp.
#pragma once

#include "capi/tensor.h"
#include "kernels/softmax/softmax.h"
#include "segprior/softmax.h"

namespace segprior::softmax {

segprior_softmax_opts default_opts();

// Sizes of the first version's structs: the least that a caller can have.
constexpr size_t kOldestOpts = offsetof(segprior_softmax_opts, td);
constexpr size_t kOldestInputs = offsetof(segprior_softmax_inputs, td_lam);
constexpr size_t kOldestOutputs = offsetof(segprior_softmax_outputs, star_dual);
constexpr size_t kOldestGrads = offsetof(segprior_softmax_grads, td_lam);

// What forward, backward and the size queries have in common.
class Call {
 public:
  Call(const segprior_context &context, const segprior_softmax_opts *opts,
       const segprior_softmax_inputs *inputs, bool sizes_only);

  bool empty() const { return problem.grid.batch == 0 || problem.grid.voxels() == 0; }
  Mode mode() const;
  Outputs read_outputs(const segprior_softmax_outputs *given);
  Grads read_grads(const segprior_softmax_grads *given);

  segprior_softmax_opts opts;
  segprior_softmax_inputs inputs;
  Problem problem;
  Arguments arguments;
  Shape field;  // [B, I, *S]

 private:
  void read_tv();
  void read_volume();
  void read_threshold_dynamics();
  void read_kernel();
  void read_stars();
  const void *read_shareable(const char *name, const segprior_tensor *tensor, bool &shared, Kind kind);

  Shape dual, per_class, star_field;  // [B, I, nd, *S], [B, I], [B, M, *S]
};

}  // namespace segprior::softmax
