// The CPU backend's table: picks the element type and the backward mode.
#include <string>

#include "kernels/common/error.h"
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

size_t cpu_backward_workspace(const Problem &p, Mode mode, int threads) {
  if (mode == Mode::last) return 0;
  return with_type(p.dtype, [&](auto t) { return backward_workspace<decltype(t)>(p, mode, threads); });
}

// What this backend does not compute yet, rather than a result without it.
void check_supported(const Problem &p, Mode mode) {
  const char *what = p.td.on                  ? "opts.td = 1"
                     : p.star.count > 0       ? "opts.star_count > 0"
                     : p.has_mask             ? "inputs.mask"
                     : mode == Mode::implicit ? "opts.backward_mode = SEGPRIOR_BACKWARD_IMPLICIT"
                                              : nullptr;
  if (what)
    throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED, std::string(what) + " is not supported by this version");
}

void cpu_forward(const Problem &p, const Outputs &outputs, void *workspace, void *saved, int threads,
                 void *) {
  check_supported(p, Mode::last);
  with_type(p.dtype, [&](auto t) { forward<decltype(t)>(p, outputs, workspace, saved, threads); });
}

void cpu_backward(const Problem &p, Mode mode, const void *u, const void *grad_u, const Grads &grads,
                  void *workspace, const void *saved, int threads, void *) {
  check_supported(p, mode);
  with_type(p.dtype, [&](auto t) {
    using T = decltype(t);
    if (mode == Mode::last)
      backward_last<T>(p, u, grad_u, grads, threads);
    else
      backward_unrolled<T>(p, grad_u, grads, workspace, saved, threads);
  });
}

}  // namespace

const Backend kCpu{
    cpu_forward_workspace, cpu_backward_workspace, cpu_forward, cpu_backward, cpu_load, cpu_store};

}  // namespace segprior::softmax
