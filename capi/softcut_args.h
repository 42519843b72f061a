// The checked arguments of the SoftCut calls. Every rule of include/segprior/softcut.h about options and
// tensors is in softcut_args.cpp.
#pragma once

#include "capi/tensor.h"
#include "kernels/softcut/softcut.h"
#include "segprior/softcut.h"

namespace segprior::softcut {

segprior_softcut_opts default_opts();

// What forward, the backward calls, the size queries and the export of the matrix have in common.
class Call {
 public:
  Call(const segprior_context &context, const segprior_softcut_opts &opts,
       const segprior_softcut_inputs *inputs, bool sizes_only);

  bool empty() const { return problem.grid.systems() == 0 || problem.grid.voxels() == 0; }
  const void *read_field(const char *name, const segprior_tensor *tensor) {
    return arguments.input(name, tensor, field, true);
  }
  Outputs read_outputs(const segprior_softcut_outputs *given);
  Grads read_grads(const segprior_softcut_grads *given);
  Cotangents read_cotangents(const segprior_softcut_cotangents *given);
  SecondGrads read_second_grads(const segprior_softcut_second_grads *given);

  segprior_softcut_inputs inputs;
  Problem problem;
  Arguments arguments;
  Shape field;  // [B, K, *S]

 private:
  void read_edges();
  const void *read_weight(const char *name, const segprior_tensor *tensor, const Shape &shape, bool required);
  Shape edge_shape(int family) const;
  // The tensors like inputs.edges and .diagonals of gradients and cotangents: read(family, name, tensor).
  template <class Structure, class Read>
  void read_families(const char *const (&names)[5], const Structure &given, const Read &read);
  void *write_conductance(const segprior_tensor *tensor);
  segprior_info *read_info(segprior_info *given, const char *name, int64_t count);

  bool accumulate_;
};

segprior_softcut_opts read_opts(const segprior_softcut_opts *opts);

}  // namespace segprior::softcut
