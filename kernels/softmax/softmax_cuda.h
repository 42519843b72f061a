// What the .cu files of the entropic softmax share on the host side: the arguments of the kernels and the
// functions that launch them. Every launch goes to the caller's stream; none waits, none allocates.
//
//   softmax_cuda.cu           workspaces, host loops, kCuda
//   softmax_cuda_start.cu     parameters, scan of the inputs, outputs
//   softmax_cuda_step.cu      one forward iteration, any number of classes
//   softmax_cuda_fused*.cu    one iteration, forward or backward, in one kernel, few classes
//   softmax_cuda_adjoint.cu   one backward iteration, any number of classes
//   softmax_cuda_grads.cu     what backward does before and after its iterations
//   softmax_cuda_chip.cu      all iterations of a small image in one block: softmax_cuda_chip.h
//   softmax_cuda_td_*.cu      threshold dynamics, alone or with volumes, in one kernel an iteration
//   softmax_cuda_mixed*.cu    threshold dynamics, star shapes, masks: softmax_cuda_mixed.h
//   softmax_cuda_implicit.cu  implicit backward by conjugate gradients
#pragma once

#include <cuda_runtime.h>

#include "kernels/softmax/softmax.h"
#include "kernels/softmax/softmax_math.h"

namespace segprior::softmax::cuda {

// Kernels that work voxel by voxel have one thread per voxel of an image and `chunks` blocks per image, so
// that a partial sum of one image never depends on another image.
constexpr int kThreads = 256;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The grid as kernels see it: extents and strides by dual component, not by axis.
template <class T>
struct Geometry {
  int64_t batch, voxels, chunks;
  int classes, nd;
  int64_t extent[3], stride[3];
  T inv_h[3];
};

template <class T>
Geometry<T> geometry_of(const Grid &grid) {
  Geometry<T> g{grid.batch,
                grid.voxels(),
                ceil_div(grid.voxels(), kThreads),
                static_cast<int>(grid.classes),
                grid.nd,
                {},
                {},
                {}};
  const int64_t stride[3] = {grid.extent[1] * grid.extent[2], grid.extent[2], 1};
  for (int c = 0; c < g.nd; ++c) {
    g.extent[c] = grid.extent[grid.axes[c]];
    g.stride[c] = stride[grid.axes[c]];
    g.inv_h[c] = static_cast<T>(grid.inv_spacing[grid.axes[c]]);
  }
  return g;
}

// Scalar parameters, resolved on the device once a call. Softmaxes are computed to base 2.
struct Coefficients {
  Params params;
  double scale, init_scale;  // log2(e) / eps, log2(e) / init_eps
};

// The inputs of one call, all in device memory.
template <class T>
struct Inputs {
  Geometry<T> g;
  bool tv, accelerate, has_volume;
  int iterations;
  const T *features;
  const T *edge;  // null: 1
  bool edge_shared;
  const T *lower, *upper;  // null: 0, +Inf
  const Coefficients *coefficients;
};

template <class T>
Inputs<T> inputs_of(const Problem &p, const Coefficients *coefficients) {
  const auto array = [](const void *data) { return static_cast<const T *>(data); };
  return {geometry_of<T>(p.grid),
          p.tv,
          p.accelerate,
          p.volume != Volume::none,
          p.iterations,
          array(p.features),
          array(p.edge),
          p.edge_shared,
          array(p.lower),
          array(p.upper),
          coefficients};
}

inline int parts_of(const Problem &p) { return p.tv ? (p.accelerate ? 2 : 1) : 0; }
inline int64_t dual_size(const Grid &g) { return g.batch * g.classes * g.nd * g.voxels(); }

// Which images take part in a launch, and their momentum. Forward: those still running. Backward: those that
// did at least `t + 1` iterations, with the momentum that forward recorded.
struct Gate {
  const Progress *progress;
  const int32_t *iterations;
  const double *momentum;
  int t;
};

// An iterate in device memory: the point v and, when accelerated, the feasible q. Null without TV.
template <class T>
struct Dual {
  T *v, *q;
};

// Normalisation of one voxel's softmax: u_i = exp2(z_i - max) * inv_sum.
template <class T>
struct Normaliser {
  T max, inv_sum;
};

// Where forward keeps its iterates: in the slots of `saved` where they belong there, else alternating between
// two buffers, or all in one.
template <class T>
struct Iterates {
  T *slots, *work;
  int64_t part_size;
  int parts, interval, total;  // interval 0: nothing is saved
  int buffers = 2;

  SEGPRIOR_HD T *at(int64_t k, int part) const {
    if (interval > 0 && (k == total || k % interval == 0)) {
      const int64_t slot = k == total ? (total + interval - 1) / interval : k / interval;
      return slots + (slot * parts + part) * part_size;
    }
    return work + (k % buffers * parts + part) * part_size;
  }
  Dual<T> dual(int64_t k) const {
    if (parts == 0) return {nullptr, nullptr};
    return {at(k, 0), parts == 2 ? at(k, 1) : nullptr};
  }
};

// f after k iterations: a history of `period` = T + 1 entries, or two that alternate.
struct VolumeDuals {
  double *values;
  int period;
  int64_t stride;  // B * I

  SEGPRIOR_HD double *at(int64_t k) const { return values ? values + k % period * stride : nullptr; }
};

// One forward iteration.
template <class T>
struct Step {
  Gate gate;
  int t;
  Dual<T> from, to;
  const double *f;  // [B, I] f_t; null without a volume prior
  double *f_next;
  double *log_mass;  // [B, I]; null: not recorded
  double *partials;  // [B, I or 1, blocks per image]
};

// End of an iteration of one image.
struct Finish {
  Progress *progress;
  double *momentum;            // [B] of iteration t + 1; null: not recorded
  double *restart, *residual;  // [B, count] partial sums and maxima; null: not of this iteration
  int64_t restart_count, residual_count;
  int t, total;
  bool accelerate;
  double tolerance;
};

// ---- softmax_cuda_start.cu ----
// softmax_pack_cuda.cu
template <class T>
void pack(const Problem &, const void *full_saved, void *compact, cudaStream_t);
template <class T>
void unpack(const Problem &, const void *compact, void *full_saved, cudaStream_t);

struct ScalarArgs {
  const void *eps, *lam, *tau, *td_lam, *td_sigma;  // device values or null
  GivenParams host;
  StepRule rule;
};
template <class T>
void resolve(const ScalarArgs &, Coefficients *, cudaStream_t);
template <class T>
void resolve_parameters(const Problem &p, Coefficients *out, cudaStream_t stream) {
  resolve<T>({p.eps.device,
              p.lam.device,
              p.tau.device,
              p.td.lam.device,
              p.td.sigma.device,
              {p.eps.host, p.init_eps, p.lam.host, p.tau.host, p.td.lam.host, p.td.sigma.host,
               p.default_tau(), p.tv, p.td.on, p.td.gaussian},
              step_rule(p)},
             out, stream);
}

template <class T>
struct Start {
  const T *init_tv, *init_volume;
  Dual<T> dual;      // iterate 0, written
  double *f;         // [B, I] f_0, written
  double *partials;  // [B, 3, chunks]
  Progress *progress;
  double *momentum;   // [B] of iteration 0; null: not recorded
  unsigned *tickets;  // [B], cleared
  double inv_spacing_sum;
};
template <class T>
void start(const Inputs<T> &, const Start<T> &, cudaStream_t);

template <class T>
struct Results {
  T *u, *tv_dual, *volume_dual;
  segprior_info *info;
  int32_t *saved_iterations, *saved_status;
  Iterates<T> iterates;
  VolumeDuals f;
  const Progress *progress;
};
template <class T>
void finish(const Inputs<T> &, const Results<T> &, cudaStream_t);
// The part of finish() that is per image: volume duals, info, what backward needs to know.
template <class T>
void report(const Inputs<T> &, const Results<T> &, cudaStream_t);

// ---- softmax_cuda_step.cu ----
// Normalisers of u_t = S((o - div v + f) / eps); with init_eps if t == 0.
template <class T>
void normalise(const Inputs<T> &, const Gate &, int t, const T *v, const double *f, Normaliser<T> *,
               cudaStream_t);
// The new dual; leaves the partial restart products in `partials` (unless null). Needs u_t's normalisers.
template <class T>
void update_dual(const Inputs<T> &, const Step<T> &, const Normaliser<T> *, double *restart, cudaStream_t);
template <class T>
void update_volume(const Inputs<T> &, const Step<T> &, cudaStream_t);
// Partial maxima [B, chunks] of |u_t+1 - u_t|.
template <class T>
void residual(const Inputs<T> &, const Step<T> &, const Normaliser<T> *old_u, const Normaliser<T> *new_u,
              double *residual, cudaStream_t);
template <class T>
void advance_images(const Inputs<T> &, const Finish &, cudaStream_t);

// ---- softmax_cuda_fused.h ----
// Partial sums per image and class of the fused iteration; 0: it does not serve this problem.
int64_t fused_partials(const Problem &);
// One whole iteration; if `advance` it ends with advance_images, else only the volume dual is finished.
template <class T>
void fused_step(const Grid &, const Inputs<T> &, const Step<T> &, const Finish &, bool advance,
                unsigned *tickets, cudaStream_t);
template <class T>
void fused_step_3d(const Grid &, const Inputs<T> &, const Step<T> &, const Finish &, bool advance,
                   unsigned *tickets, cudaStream_t);

// ---- softmax_cuda_adjoint.cu, softmax_cuda_grads.cu ----
// Scratch and inputs of the unrolled backward. A "v at t" is `final_v` for an image that ended at t.
template <class T>
struct Adjoint {
  const int32_t *iterations, *status;     // [B]
  const double *f, *log_mass, *momentum;  // histories
  const T *final_v;                       // last slot
  const T *grad_u;
  T *u, *grad_logits;                       // [B, I, J]
  T *grad_y, *grad_v;                       // [B, I, nd, J]; grad_v only when accelerated
  T *grad_bound;                            // [B, J] gradient of lam e; null: not wanted
  T *grad_features;                         // null: not wanted
  double *mass_partials;                    // [B, I, chunks]
  double *scalar_partials;                  // [B, kScalars, chunks]
  double *f_bar, *w_bar;                    // [B, I]
  double *lower_bar, *upper_bar, *eps_bar;  // [B, I]
  // Of the fused iteration alone: what it writes while it reads the field above, and its partial sums.
  T *next_grad_y, *next_grad_v;
  double *fused_mass;     // [B, I, fused]
  double *fused_scalars;  // [B, kScalars, fused]
  int64_t fused;          // 0: generic iterations
};

// Partial sums of the scalars' gradients. The eps sums come without their sign.
enum Scalars { kEpsSum, kStartSum, kTauSum, kLamSum, kScalars };

// u_T of every image into adjoint.u.
template <class T>
void adjoint_final_u(const Inputs<T> &, const Adjoint<T> &, cudaStream_t);
// Backward through iteration t; `v` is v_t, `v_next` is v_t+1.
template <class T>
void adjoint_step(const Inputs<T> &, const Adjoint<T> &, int t, const T *v, const T *v_next, cudaStream_t);
// Through the start u_0; after fused iterations only of the images that did none.
template <class T>
void adjoint_start(const Inputs<T> &, const Adjoint<T> &, cudaStream_t);
// The same with the fused iteration: first adjoint_end, then the steps.
template <class T>
void adjoint_end(const Inputs<T> &, const Adjoint<T> &, cudaStream_t);
template <class T>
void adjoint_volume(const Inputs<T> &, const Adjoint<T> &, int t, cudaStream_t);
template <class T>
void fused_adjoint_step(const Grid &, const Inputs<T> &, const Adjoint<T> &, int t, const T *v,
                        const T *v_next, cudaStream_t);
template <class T>
void fused_adjoint_step_3d(const Grid &, const Inputs<T> &, const Adjoint<T> &, int t, const T *v,
                           const T *v_next, cudaStream_t);

// Clears the accumulators; grad_features too, unless backward adds to it.
template <class T>
void adjoint_clear(const Inputs<T> &, const Adjoint<T> &, bool accumulate, cudaStream_t);

template <class T>
struct GradOutputs {
  T *eps, *init_eps, *lam, *tau, *edge, *lower, *upper;
  bool accumulate, separate_init_eps, default_tau;
  double tau_slope;
};
template <class T>
void adjoint_outputs(const Inputs<T> &, const Adjoint<T> &, const GradOutputs<T> &, cudaStream_t);

// grad_features = S'(grad_u) / eps at a given u. Needs no scratch.
template <class T>
void last_softmax(const Geometry<T> &, const Scalar &eps, const T *u, const T *grad_u, T *grad_features,
                  bool accumulate, cudaStream_t);

// ---- Other backward and forward paths; pointers and sizes as in Backend ----

// softmax_cuda_mixed.h: threshold dynamics, star shapes, masks.
size_t mixed_forward_workspace(const Problem &);
void mixed_forward(const Problem &, const Outputs &, void *workspace, void *saved, cudaStream_t);
size_t mixed_backward_workspace(const Problem &, Mode);
void mixed_backward(const Problem &, Mode, const void *grad_u, const Grads &, void *workspace,
                    const void *saved, cudaStream_t);
// softmax_cuda_implicit.cu: the implicit backward where symmetric_implicit(p), masks included.
size_t implicit_workspace(const Problem &);
void backward_implicit(const Problem &, const void *grad_u, const Grads &, void *workspace, const void *saved,
                       cudaStream_t);

// Calls f with a null pointer of the problem's type.
template <class F>
auto with_type(const Problem &p, F f) {
  return p.dtype == DType::f32 ? f(static_cast<float *>(nullptr)) : f(static_cast<double *>(nullptr));
}

}  // namespace segprior::softmax::cuda
