// The CPU backend's two halves, and what both need.
#pragma once

#include "kernels/softmax/softmax_cpu_sweep.h"

namespace segprior::softmax {

template <class T>
double read_scalar(const Scalar &s) {
  return s.device ? static_cast<double>(*static_cast<const T *>(s.device)) : s.host;
}

template <class T>
Params read_params(const Problem &p) {
  return resolve_params(
      {read_scalar<T>(p.eps), p.init_eps, read_scalar<T>(p.lam), read_scalar<T>(p.tau),
       read_scalar<T>(p.td.lam), read_scalar<T>(p.td.sigma), p.default_tau(), p.tv, p.td.on, p.td.gaussian},
      step_rule(p));
}

// Bounds of class i of image b; without a volume prior they are never read.
template <class T>
double lower_bound(const Problem &p, int64_t b, int64_t i) {
  return p.lower ? static_cast<double>(static_cast<const T *>(p.lower)[b * p.grid.classes + i]) : 0;
}
template <class T>
double upper_bound(const Problem &p, int64_t b, int64_t i) {
  return p.upper ? static_cast<double>(static_cast<const T *>(p.upper)[b * p.grid.classes + i]) : INFINITY;
}

// f / eps, and the change of it; an excluded class keeps f = -inf, whose change is 0.
template <class T>
void dual_shift(int classes, const double *f, double eps, T *shift) {
  for (int i = 0; i < classes; ++i) shift[i] = static_cast<T>(f ? f[i] / eps : 0);
}
template <class T>
void dual_change(int classes, const double *f_new, const double *f_old, double eps, T *shift) {
  for (int i = 0; i < classes; ++i)
    shift[i] = static_cast<T>(std::isinf(f_old[i]) ? 0 : (f_new[i] - f_old[i]) / eps);
}

// softmax_pack_cpu.cpp
template <class T>
void pack(const Problem &, const void *full_saved, void *compact, int threads);
template <class T>
void unpack(const Problem &, const void *compact, void *full_saved, int threads);

template <class T>
size_t forward_workspace(const Problem &, int threads);
template <class T>
size_t backward_workspace(const Problem &, Mode, int threads);
template <class T>
void forward(const Problem &, const Outputs &, void *workspace, void *saved, int threads);
template <class T>
void backward_unrolled(const Problem &, const void *grad_u, const Grads &, void *workspace, const void *saved,
                       int threads);
// Unrolled or implicit backward of problems that keep u (threshold dynamics, star shapes); its workspace is
// backward_workspace.
template <class T>
void backward_mixed(const Problem &, Mode, const void *grad_u, const Grads &, void *workspace,
                    const void *saved, int threads);
// Implicit backward of TV and volume alone.
template <class T>
size_t implicit_workspace(const Problem &, int threads);
template <class T>
void backward_implicit(const Problem &, const void *grad_u, const Grads &, void *workspace, const void *saved,
                       int threads);
template <class T>
void backward_last(const Problem &, const void *u, const void *grad_u, const Grads &, int threads);

}  // namespace segprior::softmax
