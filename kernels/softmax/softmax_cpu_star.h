// Star shapes on the CPU. Per star class m: p_m = g_m s_m is a vector field like a class's TV dual, with one
// scalar unknown.
//
//   y = v_m - tau_m s_m . grad u_i,  g_m <- max(y, 0),  v_m <- g_m + beta (g_m - g_m old),  i = class of m
//   force on the features of class i:  o_i - div(v_m s_m)
//
// The directions are kept as d_c = s_c / h_c, 0 where the gradient's component does not exist (far border,
// mask). Then s . grad u = sum_c d_c (u(x + e_c) - u(x)) and div(v s) = sum_c ((v d_c)(x) - (v d_c)(x - e_c))
// need no case distinction. [M, nd, J] of memory, read twice an iteration, save a root and a division each.
#pragma once

#include "kernels/softmax/softmax_cpu_sweep.h"

namespace segprior::softmax {

// The star duals of one image after some iterations: v, and the feasible g when accelerated (else null; v is
// g). [M, J].
template <class T>
struct StarIterate {
  T *v, *g;
};

// Scratch of one team.
template <class T>
struct StarBuffers {
  double *tau;        // [M]
  T *direction;       // d [M, nd, J]
  T *grad_direction;  // [M, nd, J] backward: gradient of d, summed over iterations
  double *partial;    // [slices][M][nd]

  static StarBuffers carve(const Problem &p, bool backward, Arena &arena) {
    const int64_t stars = p.star.count;
    StarBuffers b{};
    b.tau = arena.take<double>(stars);
    b.direction = arena.take<T>(stars * p.grid.nd * p.grid.voxels());
    b.grad_direction = arena.take<T>(backward ? stars * p.grid.nd * p.grid.voxels() : 0);
    b.partial = arena.take<double>(backward ? p.grid.extent[0] * stars * p.grid.nd : 0);
    return b;
  }
};

// Usable, and doing nothing, for a problem without star classes. Methods work on this thread's band of
// slices.
template <class T>
class StarForce {
 public:
  StarForce(const Image<T> &image, const Params &params, const StarBuffers<T> &buffers, const Team &team)
      : image_(image), params_(params), buffers_(buffers), team_(team) {}

  // Steps, directions, zero grad_direction. Once an image, after prepare_mask and the parameters. Collective;
  // ends with a barrier. Bad centres and steps do no harm: they show in the next two.
  void prepare() const;
  bool centers_finite() const;  // every centre of this image
  bool tau_valid() const;       // every step positive and finite
  double max_tau() const;

  // One step from `in` to `out` (which may be the same memory). Barrier before: u complete. `restart`
  // [slices] (null: not wanted) is overwritten by the sums of <v_in - g, g - g_in> / tau_m.
  void step(const T *u, const StarIterate<T> &in, const StarIterate<T> &out, double beta,
            double *restart) const;
  // base_i <- from_i - div(v_m s_m) for the star classes i; `from` may be base itself, or the features.
  // Barrier before: v of the slice before the band.
  void force(const T *from, const T *v, T *base) const;

  // Adjoint of one step and its force. R = gradient of (o - r + f); u = u_t, v_in = v_t (the step's input),
  // v_out = v_t+1. grad_y [M, J]: in: gradient of y_t+1 (0 first), out: of y_t; grad_v: accelerated, as in
  // AdjointDualRow, else null. Adds to the gradients of the directions if want_center. Collective (barriers
  // inside). Barrier before: R and u complete; grad_y is complete for adjoint_u on return.
  void adjoint(const T *grad_logits, const T *u, const T *v_in, const T *v_out, T *grad_y, T *grad_v,
               double beta, double beta_next, bool want_center,
               double *grad_tau /* [M], += by rank 0 */) const;
  // grad_u_i += tau_m div(grad_y_m s_m) for the star classes i.
  void adjoint_u(const T *grad_y, T *grad_u) const;
  // After the last `adjoint`: gradients of this image's centres [M, nd], overwritten by rank 0. Collective.
  void center_gradient(double *grad_center) const;

 private:
  int stars() const { return image_.problem.star.count; }
  int64_t class_offset(int m) const { return image_.problem.star.classes[m] * image_.voxels(); }
  // out_i <- from_i + scale div(field_m s_m).
  void add_divergence(int m, const T *field, double scale, const T *from, T *out) const;
  int64_t direction_offset(int m) const { return m * image_.grid().nd * image_.voxels(); }

  const Image<T> &image_;
  const Params &params_;
  const StarBuffers<T> &buffers_;
  const Team team_;
};

}  // namespace segprior::softmax
