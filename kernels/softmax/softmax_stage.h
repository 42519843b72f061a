// The borders of a call: between the caller's 16-bit or masked tensors, or compact saved state, and the
// float32 or float64 arrays that backends compute with. With none of these it hands everything through
// untouched.
#pragma once

#include "kernels/softmax/softmax.h"

namespace segprior::softmax {

size_t staged_forward_workspace(const Backend &, const Problem &, int threads);
size_t staged_backward_workspace(const Backend &, const Problem &, Mode, int threads);
size_t staged_saved_bytes(const Problem &);
void staged_forward(const Backend &, const Problem &, const Outputs &, void *workspace, void *saved,
                    int threads, void *stream);
void staged_backward(const Backend &, const Problem &, Mode, const void *u, const void *grad_u, const Grads &,
                     void *workspace, const void *saved, int threads, void *stream);

// Backend::load and Backend::store: softmax_stage_cpu.cpp, softmax_stage_cuda.cu.
void cpu_load(const Problem &, const void *tensor, void *array, int threads, void *stream);
void cpu_store(const Problem &, const void *array, void *tensor, int threads, void *stream);
namespace cuda {
void load(const Problem &, const void *tensor, void *array, int threads, void *stream);
void store(const Problem &, const void *array, void *tensor, int threads, void *stream);
}  // namespace cuda

}  // namespace segprior::softmax
