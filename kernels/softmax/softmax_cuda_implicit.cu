// Entropic softmax on CUDA, implicit backward of TV and volume alone.
#include "kernels/common/error.h"
#include "kernels/softmax/softmax_cuda.h"

namespace segprior::softmax::cuda {

namespace {

[[noreturn]] void not_supported() {
  throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
              "SEGPRIOR_BACKWARD_IMPLICIT without threshold dynamics or star shapes is not supported by this "
              "version");
}

}  // namespace

size_t implicit_workspace(const Problem &) { not_supported(); }

void backward_implicit(const Problem &, const void *, const Grads &, void *, const void *, cudaStream_t) {
  not_supported();
}

}  // namespace segprior::softmax::cuda
