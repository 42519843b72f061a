// Scratch of the CPU's unrolled backward, and what happens after the last image: sums over the batch.
#pragma once

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"
#include "kernels/softmax/softmax_cpu_star.h"
#include "kernels/softmax/softmax_cpu_td.h"

namespace segprior::softmax {

// Gradients of one image's scalars, summed over its voxels and iterations; added over the batch at the end.
struct ScalarGrads {
  double eps, init_eps, lam, tau;
};

template <class T>
struct BackwardBuffers {
  Params *params;
  SweepBuffers<T> sweep;
  MaskBuffers<T> mask;
  T *logits, *u, *grad_logits;    // [I, J]: z_t+1, u_t, R
  T *grad_y, *grad_v;             // [I, nd, J]; grad_v when accelerated
  Iterate<T> between;             // [interval - 1] iterates of a segment, recomputed
  double *sums;                   // [slices][classes]
  double *slice_eps, *slice_tau;  // [slices]
  double *grad_f;                 // [classes]
  T *grad_w, *shift, *change;     // [classes]
  // Only of a problem that keeps u, which needs no `u` above.
  TdBuffers<T> td;
  StarBuffers<T> star;
  T *grad_u;                     // [I, J]: of u_t, without the part through TV
  T *grad_star_y, *grad_star_v;  // [M, J]; grad_star_v when accelerated
  T *between_u;                  // as `between`: [I, J] each
  StarIterate<T> between_star;   // [M, J] each

  static BackwardBuffers carve(const Problem &p, Mode mode, int threads, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t plane = g.classes * g.voxels(), dual = p.tv ? plane * g.nd : 0;
    BackwardBuffers b{};
    b.params = arena.take<Params>(1);
    b.sweep = SweepBuffers<T>::carve(p, threads, arena);
    b.mask = MaskBuffers<T>::carve(p, arena);
    b.logits = arena.take<T>(plane);
    b.u = arena.take<T>(p.keeps_u() ? 0 : plane);
    b.grad_logits = arena.take<T>(plane);
    b.grad_y = arena.take<T>(dual);
    b.grad_v = arena.take<T>(p.accelerate ? dual : 0);
    const bool recomputes = mode == Mode::unrolled;
    const int64_t between = recomputes ? std::max(std::min(p.checkpoint_interval, p.iterations) - 1, 0) : 0;
    b.between = {arena.take<T>(dual, between), arena.take<T>(p.accelerate ? dual : 0, between)};
    b.sums = arena.take<double>(g.extent[0] * g.classes);
    b.slice_eps = arena.take<double>(g.extent[0]);
    b.slice_tau = arena.take<double>(g.extent[0]);
    b.grad_f = arena.take<double>(g.classes);
    b.grad_w = arena.take<T>(g.classes);
    b.shift = arena.take<T>(g.classes);
    b.change = arena.take<T>(g.classes);
    if (!p.keeps_u()) return b;
    const int64_t star = p.star.count * g.voxels();
    if (p.td.on) b.td = TdBuffers<T>::carve(p, threads, true, arena);
    b.star = StarBuffers<T>::carve(p, true, arena);
    b.grad_u = arena.take<T>(plane);
    b.grad_star_y = arena.take<T>(star);
    b.grad_star_v = arena.take<T>(p.accelerate ? star : 0);
    b.between_u = arena.take<T>(plane, between);
    b.between_star = {arena.take<T>(star, between), arena.take<T>(p.accelerate ? star : 0, between)};
    return b;
  }
};

template <class T>
struct BackwardWorkspace {
  ScalarGrads *scalars;  // [B]
  T *grad_bound;         // [B, J] sum over classes and iterations of the gradient of lam e
  TdGrads<T> *td;        // [B]
  double *kernel;        // [B][I or 1, taps]
  T *td_edge;            // [B, J]
  double *star_tau;      // [B, M]
  double *star_center;   // [B, M, nd]
  BackwardBuffers<T> mine;

  static int64_t kernel_size(const Problem &p) {
    return p.td.on && !p.td.gaussian ? (p.td.per_class ? p.grid.classes : 1) * p.td.taps() : 0;
  }

  static BackwardWorkspace carve(const Problem &p, Mode mode, int threads, int team_index, Arena &arena) {
    const int64_t images = p.grid.batch;
    BackwardWorkspace w{};
    w.scalars = arena.take<ScalarGrads>(images);
    w.grad_bound = arena.take<T>(p.tv ? images * p.grid.voxels() : 0);
    w.td = arena.take<TdGrads<T>>(p.td.on ? images : 0);
    w.kernel = arena.take<double>(images * kernel_size(p));
    w.td_edge = arena.take<T>(p.td.on && p.td.has_edge ? images * p.grid.voxels() : 0);
    w.star_tau = arena.take<double>(images * p.star.count);
    w.star_center = arena.take<double>(images * p.star.count * p.grid.nd);
    for (int k = 0; k < team_count(threads, images); ++k) {
      const BackwardBuffers<T> b = BackwardBuffers<T>::carve(p, mode, team_size(threads, images), arena);
      if (k == team_index) w.mine = b;
    }
    return w;
  }
};

// Sums over the batch, in order; lam e is the bound, so its gradient splits into lam's and e's.
template <class T>
void finish_batch(const Problem &, const Grads &, const BackwardWorkspace<T> &);

}  // namespace segprior::softmax
