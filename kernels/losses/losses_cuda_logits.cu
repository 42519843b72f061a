// The passes over the voxels for scores that are logits.
#include "kernels/losses/losses_cuda_backward.h"
#include "kernels/losses/losses_cuda_dispatch.h"
#include "kernels/losses/losses_cuda_forward.h"

namespace segprior::losses::cuda {

void forward_logits(const Forward &f, cudaStream_t stream) {
  dispatch(f.p, f.grid, [&](auto real, auto classes) {
    launch_forward<Scores::logits, decltype(real), decltype(classes)::value>(f, stream);
  });
}

void backward_logits(const Backward &b, cudaStream_t stream) {
  dispatch(b.p, b.grid, [&](auto real, auto classes) {
    launch_backward<Scores::logits, decltype(real), decltype(classes)::value>(b, stream);
  });
}

}  // namespace segprior::losses::cuda
