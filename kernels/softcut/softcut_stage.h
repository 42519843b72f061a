// The borders of a call: 16-bit edges become float32 arrays at the front of the workspace, and the gradients
// of edges are rounded back. With native edges every call is handed through untouched.
#pragma once

#include "kernels/softcut/softcut.h"

namespace segprior::softcut {

size_t staged_workspace(const Backend &, const Problem &, Pass, int threads);
void staged_forward(const Backend &, const Problem &, const Outputs &, void *workspace, void *saved,
                    int threads, void *stream);
void staged_backward(const Backend &, const Problem &, const void *x, const void *grad_x, const Grads &,
                     void *workspace, const void *saved, int threads, void *stream);
void staged_double_backward(const Backend &, const Problem &, const void *x, const void *grad_scores,
                            const Cotangents &, const SecondGrads &, void *workspace, const void *saved,
                            int threads, void *stream);

}  // namespace segprior::softcut
