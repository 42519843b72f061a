// What the table of the CPU backend (softcut_cpu.cpp) is made of.
#pragma once

#include "kernels/softcut/softcut.h"

namespace segprior::softcut {

template <class T>
void cpu_forward(const Problem &, const Outputs &, void *workspace, void *saved, int threads);
template <class T>
void cpu_backward(const Problem &, const void *x, const void *grad_x, const Grads &, void *workspace,
                  const void *saved, int threads);
template <class T>
void cpu_double_backward(const Problem &, const void *x, const void *grad_scores, const Cotangents &,
                         const SecondGrads &, void *workspace, const void *saved, int threads);
template <class T>
void cpu_csr(const Problem &, int32_t *row_offsets, int32_t *columns, T *values, int threads);
void cpu_widen(Storage, const void *from, float *to, int64_t count, int threads, void *stream);
void cpu_narrow(Storage, const float *from, void *to, int64_t count, int threads, void *stream);

// The workspace of a pass.
template <class T>
size_t cpu_workspace(const Problem &, Pass, int threads);

}  // namespace segprior::softcut
