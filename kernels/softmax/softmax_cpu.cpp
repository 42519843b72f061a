// The CPU backend's table: picks the element type and the backward mode.
#include "kernels/softmax/softmax_cpu.h"
#include "kernels/softmax/softmax_stage.h"

namespace segprior::softmax {
namespace {

template <class F>
auto with_type(DType dtype, const F &f) {
  return dtype == DType::f32 ? f(float{}) : f(double{});
}

size_t cpu_forward_workspace(const Problem &p, int threads) {
  return with_type(p.dtype, [&](auto t) { return forward_workspace<decltype(t)>(p, threads); });
}

bool conjugate_gradients(const Problem &p, Mode mode) {
  return mode == Mode::implicit && symmetric_implicit(p);
}

size_t cpu_backward_workspace(const Problem &p, Mode mode, int threads) {
  if (mode == Mode::last) return 0;
  return with_type(p.dtype, [&](auto t) {
    using T = decltype(t);
    return conjugate_gradients(p, mode) ? implicit_workspace<T>(p, threads)
                                        : backward_workspace<T>(p, mode, threads);
  });
}

void cpu_forward(const Problem &p, const Outputs &outputs, void *workspace, void *saved, int threads,
                 void *) {
  with_type(p.dtype, [&](auto t) { forward<decltype(t)>(p, outputs, workspace, saved, threads); });
}

void cpu_backward(const Problem &p, Mode mode, const void *u, const void *grad_u, const Grads &grads,
                  void *workspace, const void *saved, int threads, void *) {
  with_type(p.dtype, [&](auto t) {
    using T = decltype(t);
    if (mode == Mode::last)
      backward_last<T>(p, u, grad_u, grads, threads);
    else if (conjugate_gradients(p, mode))
      backward_implicit<T>(p, grad_u, grads, workspace, saved, threads);
    else if (p.keeps_u())
      backward_mixed<T>(p, mode, grad_u, grads, workspace, saved, threads);
    else
      backward_unrolled<T>(p, grad_u, grads, workspace, saved, threads);
  });
}

void cpu_pack(const Problem &p, const void *full, void *compact, int threads, void *) {
  with_type(p.dtype, [&](auto t) { pack<decltype(t)>(p, full, compact, threads); });
}
void cpu_unpack(const Problem &p, const void *compact, void *full, int threads, void *) {
  with_type(p.dtype, [&](auto t) { unpack<decltype(t)>(p, compact, full, threads); });
}

}  // namespace

const Backend kCpu{cpu_forward_workspace,
                   cpu_backward_workspace,
                   cpu_forward,
                   cpu_backward,
                   cpu_load,
                   cpu_store,
                   cpu_pack,
                   cpu_unpack};

}  // namespace segprior::softmax
