// The CPU backward's parts that do not iterate: sums over the batch, and the last-softmax mode.
#include "kernels/softmax/softmax_cpu_grads.h"

namespace segprior::softmax {
namespace {

template <class T>
void add_scalar(void *grad, bool accumulate, double value) {
  if (!grad) return;
  T &out = *static_cast<T *>(grad);
  out = static_cast<T>(value + (accumulate ? out : 0));
}

// `n` numbers per image, times `scale`: added over the batch if `shared`, else image by image.
template <class T, class V>
void add_fields(void *grad, const Problem &p, const Grads &grads, const V *values, int64_t n, bool shared,
                double scale) {
  if (!grad) return;
  T *out = static_cast<T *>(grad);
  const int64_t fields = shared ? 1 : p.grid.batch, images = shared ? p.grid.batch : 1;
  for (int64_t k = 0; k < fields; ++k)
    for (int64_t x = 0; x < n; ++x) {
      double total = 0;
      for (int64_t b = 0; b < images; ++b) total += values[(k + b) * n + x];
      T &to = out[k * n + x];
      to = static_cast<T>(scale * total + (grads.accumulate ? to : 0));
    }
}

}  // namespace

template <class T>
void finish_batch(const Problem &p, const Grads &grads, const BackwardWorkspace<T> &w) {
  const Params params = read_params<T>(p);
  const int64_t voxels = p.grid.voxels(), stars = p.star.count;
  ScalarGrads sum{};
  double td_lam = 0, td_sigma = 0, star_tau = 0;
  for (int64_t b = 0; b < p.grid.batch; ++b) {
    sum.eps += w.scalars[b].eps;
    sum.init_eps += w.scalars[b].init_eps;
    sum.lam += w.scalars[b].lam;
    sum.tau += w.scalars[b].tau;
    if (w.td) td_lam += w.td[b].lam, td_sigma += w.td[b].sigma;
    for (int64_t m = 0; w.star_tau && m < stars; ++m) star_tau += w.star_tau[b * stars + m];
  }
  if (p.tv && p.default_tau()) sum.eps += sum.tau * step_rule(p).tau_slope();
  if (stars > 0 && p.star.default_tau()) sum.eps += star_tau * step_rule(p).star_tau_slope();
  if (!(p.init_eps > 0)) sum.eps += sum.init_eps;
  add_scalar<T>(grads.eps, grads.accumulate, sum.eps);
  add_scalar<T>(grads.init_eps, grads.accumulate, sum.init_eps);
  add_scalar<T>(grads.tv_lam, grads.accumulate, sum.lam);
  add_scalar<T>(grads.tv_tau, grads.accumulate, sum.tau);
  add_scalar<T>(grads.td_lam, grads.accumulate, td_lam);
  add_scalar<T>(grads.td_sigma, grads.accumulate, td_sigma);
  add_fields<T>(grads.tv_edge, p, grads, w.grad_bound, voxels, p.edge_shared, params.lam);
  add_fields<T>(grads.td_kernel, p, grads, w.kernel, BackwardWorkspace<T>::kernel_size(p), true, 1);
  add_fields<T>(grads.td_edge, p, grads, w.td_edge, voxels, p.td.edge_shared, 1);
  add_fields<T>(grads.star_tau, p, grads, w.star_tau, stars, true, 1);
  add_fields<T>(grads.star_center, p, grads, w.star_center, stars * p.grid.nd, false, 1);
}

// grad_features = u (grad_u - <grad_u, u>) / eps: the duals are constants.
template <class T>
void backward_last(const Problem &p, const void *u, const void *grad_u, const Grads &grads, int threads) {
  if (!grads.features) return;
  const Grid &g = p.grid;
  const double eps = read_scalar<T>(last_eps(p));
  const int64_t voxels = g.voxels(), chunk = 4096, chunks = (voxels + chunk - 1) / chunk;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t job = 0; job < g.batch * chunks; ++job) {
    const int64_t base = job / chunks * g.classes * voxels, begin = job % chunks * chunk;
    const T *prob = static_cast<const T *>(u) + base, *grad = static_cast<const T *>(grad_u) + base;
    T *out = static_cast<T *>(grads.features) + base;
    for (int64_t x = begin; x < std::min(begin + chunk, voxels); ++x) {
      T dot = 0;
      for (int64_t i = 0; i < g.classes; ++i) dot += prob[i * voxels + x] * grad[i * voxels + x];
      for (int64_t i = 0; i < g.classes; ++i) {
        const int64_t at = i * voxels + x;
        const T value = prob[at] * (grad[at] - dot) * static_cast<T>(1 / eps);
        out[at] = grads.accumulate ? out[at] + value : value;
      }
    }
  }
}

template void finish_batch<float>(const Problem &, const Grads &, const BackwardWorkspace<float> &);
template void finish_batch<double>(const Problem &, const Grads &, const BackwardWorkspace<double> &);
template void backward_last<float>(const Problem &, const void *, const void *, const Grads &, int);
template void backward_last<double>(const Problem &, const void *, const void *, const Grads &, int);

}  // namespace segprior::softmax
