// The CPU backend's table: picks the element type and the backward mode.
#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {
namespace {

template <class F>
auto with_type(DType dtype, const F &f) {
  return dtype == DType::f32 ? f(float{}) : f(double{});
}

size_t cpu_forward_workspace(const Problem &p, int threads) {
  return with_type(p.dtype, [&](auto t) { return forward_workspace<decltype(t)>(p, threads); });
}

size_t cpu_backward_workspace(const Problem &p, int threads) {
  return with_type(p.dtype, [&](auto t) { return backward_workspace<decltype(t)>(p, threads); });
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
    else
      backward_unrolled<T>(p, grad_u, grads, workspace, saved, threads);
  });
}

}  // namespace

const Backend kCpu{cpu_forward_workspace, cpu_backward_workspace, cpu_forward, cpu_backward};

}  // namespace segprior::softmax
