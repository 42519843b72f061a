// Scratch of the CPU's unrolled backward, and what happens after the last image: sums over the batch.
#pragma once

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {

// Gradients of one image's scalars, summed over its voxels and iterations; added over the batch at the end.
struct ScalarGrads {
  double eps, init_eps, lam, tau;
};

template <class T>
struct BackwardBuffers {
  Params *params;
  SweepBuffers<T> sweep;
  T *logits, *u, *grad_logits;    // [I, J]: z_t+1, u_t, R
  T *grad_y, *grad_v;             // [I, nd, J]; grad_v when accelerated
  Iterate<T> between;             // [interval - 1] iterates of a segment, recomputed
  double *sums;                   // [slices][classes]
  double *slice_eps, *slice_tau;  // [slices]
  double *grad_f;                 // [classes]
  T *grad_w, *shift, *change;     // [classes]

  static BackwardBuffers carve(const Problem &p, int threads, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t plane = g.classes * g.voxels(), dual = p.tv ? plane * g.nd : 0;
    BackwardBuffers b{};
    b.params = arena.take<Params>(1);
    b.sweep = SweepBuffers<T>::carve(p, threads, arena);
    b.logits = arena.take<T>(plane);
    b.u = arena.take<T>(plane);
    b.grad_logits = arena.take<T>(plane);
    b.grad_y = arena.take<T>(dual);
    b.grad_v = arena.take<T>(p.accelerate ? dual : 0);
    const int64_t between =
        p.tv && p.checkpoint_interval > 0 ? std::min(p.checkpoint_interval, p.iterations) - 1 : 0;
    b.between = {arena.take<T>(dual, std::max<int64_t>(between, 0)),
                 arena.take<T>(p.accelerate ? dual : 0, std::max<int64_t>(between, 0))};
    b.sums = arena.take<double>(g.extent[0] * g.classes);
    b.slice_eps = arena.take<double>(g.extent[0]);
    b.slice_tau = arena.take<double>(g.extent[0]);
    b.grad_f = arena.take<double>(g.classes);
    b.grad_w = arena.take<T>(g.classes);
    b.shift = arena.take<T>(g.classes);
    b.change = arena.take<T>(g.classes);
    return b;
  }
};

template <class T>
struct BackwardWorkspace {
  ScalarGrads *scalars;  // [B]
  T *grad_bound;         // [B, J] sum over classes and iterations of the gradient of lam e
  BackwardBuffers<T> mine;

  static BackwardWorkspace carve(const Problem &p, int threads, int team_index, Arena &arena) {
    const int64_t images = p.grid.batch;
    BackwardWorkspace w{};
    w.scalars = arena.take<ScalarGrads>(images);
    w.grad_bound = arena.take<T>(p.tv ? images * p.grid.voxels() : 0);
    for (int k = 0; k < team_count(threads, images); ++k) {
      const BackwardBuffers<T> b = BackwardBuffers<T>::carve(p, team_size(threads, images), arena);
      if (k == team_index) w.mine = b;
    }
    return w;
  }
};

// Sums over the batch, in order; lam e is the bound, so its gradient splits into lam's and e's.
template <class T>
void finish_batch(const Problem &, const Grads &, const BackwardWorkspace<T> &);

}  // namespace segprior::softmax
