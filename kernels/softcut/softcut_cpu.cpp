// The CPU backend's table: picks the element type.
#include "kernels/softcut/softcut_cpu.h"

#include "kernels/softcut/softcut_cpu_solve.h"

namespace segprior::softcut {
namespace {

template <class F>
auto with_type(const Problem &p, const F &f) {
  return p.dtype == DType::f32 ? f(float{}) : f(double{});
}

size_t workspace(const Problem &p, Pass pass, int threads) {
  return with_type(p, [&](auto t) { return cpu_workspace<decltype(t)>(p, pass, threads); });
}

size_t saved_bytes(const Problem &p) {
  Arena arena;
  Saved::carve(p, arena);
  return arena.used();
}

void forward(const Problem &p, const Outputs &out, void *workspace, void *saved, int threads, void *) {
  with_type(p, [&](auto t) { cpu_forward<decltype(t)>(p, out, workspace, saved, threads); });
}

void backward(const Problem &p, const void *x, const void *grad_x, const Grads &grads, void *workspace,
              const void *saved, int threads, void *) {
  with_type(p, [&](auto t) { cpu_backward<decltype(t)>(p, x, grad_x, grads, workspace, saved, threads); });
}

void double_backward(const Problem &p, const void *x, const void *grad_scores, const Cotangents &in,
                     const SecondGrads &out, void *workspace, const void *saved, int threads, void *) {
  with_type(p, [&](auto t) {
    cpu_double_backward<decltype(t)>(p, x, grad_scores, in, out, workspace, saved, threads);
  });
}

void csr(const Problem &p, int32_t *row_offsets, int32_t *columns, void *values, int threads, void *) {
  with_type(p,
            [&](auto t) { cpu_csr(p, row_offsets, columns, static_cast<decltype(t) *>(values), threads); });
}

}  // namespace

const Backend kCpu{workspace, saved_bytes, forward, backward, double_backward, csr, cpu_widen, cpu_narrow};

}  // namespace segprior::softcut
