// The mixed path of the entropic softmax on CUDA: any mix of priors with threshold dynamics, star shapes or a
// mask. What its .cu files share on the host side.
//
//   softmax_cuda_mixed.cu           workspace and host loop of forward
//   softmax_cuda_mixed_start.cu     once a call: parameters, scan of the inputs, first iterate, outputs
//   softmax_cuda_mixed_step.cu      TV step, masses, softmax
//   softmax_cuda_mixed_td.cu        threshold dynamics, forward and backward
//   softmax_cuda_mixed_star.cu      star shapes, forward and backward
//   softmax_cuda_mixed_backward.cu  workspace and host loops of backward, unrolled and implicit
//   softmax_cuda_mixed_adjoint.cu   adjoints of softmax, volume and TV step
//   softmax_cuda_mixed_grads.cu     clears accumulators, writes gradients
//
// u_t lies in global memory. Steps of all duals are pointwise in the duals, and the softmax that makes u_t+1
// is pointwise in u, so every field is updated in place unless an iterate belongs into a slot of `saved`.
#pragma once

#include "kernels/softmax/softmax_cuda.h"

namespace segprior::softmax::cuda {

// What a call resolves on the device besides Coefficients.
struct Prepared {
  double kernel_sum;  // largest |k_i|_1
  double star_tau;    // largest
  bool star_valid;    // every step is positive and finite
};

// Threshold dynamics, on the grid's three canonical axes. With a kernel that all classes share, -lam e K is
// the same for every class and cancels in the softmax: K is kept for a kernel per class alone, and gradients
// leave it out too, since sum_i R_i = 0 at each voxel.
template <class T>
struct ThresholdView {
  bool on, gaussian, per_class;
  int size[3], taps;
  int64_t extent[3];
  const T *kernel;                    // given: [I or 1, taps]
  T *axis_taps, *axis_slopes;         // Gaussian: [3][kMaxTaps] and d / d sigma
  const T *given_edge, *edge;         // edge: 0 at masked voxels; null: 1
  int64_t given_stride, edge_stride;  // from image to image; 0: shared
  T *clean_edge;                      // where `edge` was made; null: it is the given one
  T *kernel_sum;                      // K [B or 1, I, J]; null unless per class
  int64_t kernel_sum_stride;
  T *plain[2], *weighted[2];  // [B, I, J] of the passes of a Gaussian: k * u and k * (e u) along some axes
};

template <class T>
struct StarView {
  int count;
  int16_t classes[kMaxClasses];
  const T *center;     // [B, M, nd]
  double *tau;         // [M] resolved
  const T *given_tau;  // [M] or null: host_tau
  double host_tau, tau_slope;
  bool default_tau;
};

template <class T>
struct Mixed {
  Inputs<T> in;
  const uint8_t *mask;  // null: every voxel is valid
  int64_t mask_stride;  // 0: shared
  bool keeps_u;
  ThresholdView<T> td;
  StarView<T> star;
  Coefficients *coefficients;  // in.coefficients, to be written by resolve()
  Prepared *prepared;
};

// Scratch that forward and backward have in common; `passes`: also that of a Gaussian's passes.
template <class T>
Mixed<T> carve_mixed(const Problem &p, Arena &arena, bool passes = true) {
  const Grid &g = p.grid;
  const ThresholdDynamics &td = p.td;
  Mixed<T> m{};
  m.coefficients = arena.take<Coefficients>(1);
  m.in = inputs_of<T>(p, m.coefficients);
  m.mask = p.mask;
  m.mask_stride = p.mask_shared ? 0 : g.voxels();
  m.keeps_u = p.keeps_u();
  m.prepared = arena.take<Prepared>(1);
  const int64_t masks = p.has_mask && !p.mask_shared ? g.batch : 1;
  if (td.on) {
    ThresholdView<T> &v = m.td;
    v.on = true;
    v.gaussian = td.gaussian;
    v.per_class = td.per_class;
    v.taps = td.taps();
    for (int a = 0; a < 3; ++a) v.size[a] = td.size[a], v.extent[a] = g.extent[a];
    v.kernel = static_cast<const T *>(td.kernel);
    v.axis_taps = arena.take<T>(td.gaussian ? 3 * kMaxTaps : 0);
    v.axis_slopes = arena.take<T>(td.gaussian ? 3 * kMaxTaps : 0);
    v.given_edge = v.edge = static_cast<const T *>(td.edge);
    v.given_stride = v.edge_stride = td.edge_shared ? 0 : g.voxels();
    if (td.has_edge && p.has_mask) {
      const int64_t edges = td.edge_shared ? masks : g.batch;
      v.edge = v.clean_edge = arena.take<T>(edges * g.voxels());
      v.edge_stride = edges == 1 ? 0 : g.voxels();
    }
    v.kernel_sum = arena.take<T>(td.per_class ? masks * g.classes * g.voxels() : 0);
    v.kernel_sum_stride = masks == 1 ? 0 : g.classes * g.voxels();
    const int64_t field = g.batch * g.classes * g.voxels();
    for (int k = 0; passes && td.gaussian && k < g.nd - 1; ++k) {
      v.plain[k] = arena.take<T>(field);
      v.weighted[k] = arena.take<T>(td.has_edge ? field : 0);
    }
  }
  if (p.star.count > 0) {
    StarView<T> &v = m.star;
    v.count = p.star.count;
    for (int k = 0; k < v.count; ++k) v.classes[k] = p.star.classes[k];
    v.center = static_cast<const T *>(p.star.center);
    v.tau = arena.take<double>(v.count);
    v.given_tau = static_cast<const T *>(p.star.tau);
    v.host_tau = p.star.tau_host;
    v.tau_slope = step_rule(p).star_tau_slope();
    v.default_tau = p.star.default_tau();
  }
  return m;
}

// ---- One iteration ----

// Pointers of iteration t, forward or recomputed in backward.
template <class T>
struct MixedStep {
  Step<T> base;  // gate, t, TV duals, f, log_mass, mass partials
  const T *u;    // u_t
  Dual<T> star, star_next;
  T *force;         // o - r of threshold dynamics and stars; null: neither is on, it would be o
  double *restart;  // [B, M + (TV ? 1 : 0), chunks] partial products, TV's last; null: not wanted
};

// ---- softmax_cuda_mixed_start.cu ----
template <class T>
struct MixedStart {
  Start<T> base;
  const T *init_star;
  Dual<T> star;
  T *force;          // set to o, unless null
  double *partials;  // [B, kScanned, chunks]
};
constexpr int kScanned = 7;

template <class T>
struct MixedResults {
  Results<T> base;
  T *star_dual;
  Iterates<T> u, star;
};

template <class T>
struct MixedCall {
  // Steps, taps, K and clean edges; after resolve().
  static void prepare(const Mixed<T> &, cudaStream_t);
  // Scan, status, first duals; u_0 needs the stars' force and the softmax afterwards.
  static void start(const Mixed<T> &, const MixedStart<T> &, cudaStream_t);
  static void finish(const Mixed<T> &, const MixedResults<T> &, cudaStream_t);
};

// ---- softmax_cuda_mixed_step.cu ----
// The softmax of logits (base - div v + f) log2(e) / eps, 0 at masked voxels.
template <class T>
struct SoftmaxStep {
  Gate gate;
  bool start;       // u_0 of every image that has not failed, whatever the gate says
  bool init_scale;  // with init_eps
  const T *base, *v;
  const double *f;
  T *u;
  const T *old;      // for the residual
  double *residual;  // null: not wanted
};

template <class T>
struct MixedSteps {
  static void dual(const Mixed<T> &, const MixedStep<T> &, cudaStream_t);
  static void volume(const Mixed<T> &, const MixedStep<T> &, cudaStream_t);
  static void softmax(const Mixed<T> &, const SoftmaxStep<T> &, cudaStream_t);
  // What comes before the volume step: forces and duals.
  static void forces(const Mixed<T> &, const MixedStep<T> &, cudaStream_t);
};

// ---- Backward ----

// Adjoint of iteration t. At an image's last iterate (`end`) the iterates are the final ones and grad_u comes
// in. Frozen (the implicit backward): all iterates are the final ones, t counts passes, the gate's
// `iterations` are 1 for images that still run and gate.t is 0.
template <class T>
struct MixedAdjoint {
  Adjoint<T> base;  // its u: u_t+1 and then u_t, where u is not kept
  Gate gate;
  bool frozen;
  int t;
  const T *u, *u_next, *final_u;  // u_t, u_t+1
  const T *v, *v_next;            // final_v: base
  const T *star_v, *star_v_next, *final_star_v;
  const double *f;               // [B, I] f_t
  T *force;                      // o - r for the logits of w; null: o itself
  T *grad_field;                 // [B, I, J] gradient of u_t but for TV's part; null: 0
  T *star_grad_y, *star_grad_v;  // [B, M, J]
  double *star_partials;         // [B, M, 1 + nd, chunks]: tau, centre
  double *star_tau_sums;         // [M]
  double *td_partials;           // [B, 2, I, chunks]: lam, sigma (without the factor lam)
  T *td_edge;                    // [B, J] without the factor lam; null: not wanted
  double *td_kernel;             // [B, I, taps] without the factor lam; null: not wanted
  bool want_sigma;
  // Frozen only.
  double *change;                        // [B, chunks] largest |R| of a pass
  T *r_sum;                              // [B, I, J] sum of every R
  const AdjointMomentum *pass_momentum;  // [B]; null: plain
};

// The implicit backward's progress per image.
struct Passes {
  int32_t *running;           // [B] 1 or 0
  int32_t *done;              // [B]
  double *first, *residual;   // [B] largest |R| of the first pass; relative one of the last
  AdjointMomentum *momentum;  // [B]; null: plain
  double *f, *log_mass;       // [B, I] of the final iterate
  const double *history;      // f as forward saved it
  const int32_t *iterations;  // [B] forward's
};

struct MixedGradOutputs {
  void *eps, *td_lam, *td_sigma, *td_kernel, *td_edge, *star_tau, *star_center;
  bool accumulate, tau_into_eps, shared_edge;
};

template <class T>
struct MixedAdjoints {
  // u of every image's last iterate into base.u, where u is not kept.
  static void final_u(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
  // R of u_t+1; `start`: of u_0.
  static void softmax(const Mixed<T> &, const MixedAdjoint<T> &, bool start, cudaStream_t);
  // The volume step and w: completes R.
  static void volume(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
  static void dual(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
};

template <class T>
struct MixedGrads {
  static void clear(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
  static void outputs(const Mixed<T> &, const MixedAdjoint<T> &, const MixedGradOutputs &, cudaStream_t);
  static void begin_passes(const Mixed<T> &, const MixedAdjoint<T> &, const Passes &, cudaStream_t);
  static void end_pass(const Mixed<T> &, const MixedAdjoint<T> &, const Passes &, double tolerance,
                       cudaStream_t);
  static void report(const Mixed<T> &, const MixedAdjoint<T> &, const Passes &, double tolerance,
                     segprior_info *, cudaStream_t);
};

// ---- softmax_cuda_mixed_td.cu ----
template <class T>
struct MixedThreshold {
  // Once a call.
  static void prepare(const Mixed<T> &, cudaStream_t);
  // force <- o + lam (B u - e K).
  static void force(const Mixed<T> &, const Gate &, const T *u, T *force, cudaStream_t);
  // grad_field <- lam B^T R, and the gradient of lam.
  static void adjoint(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
  // The gradients of sigma, edge and kernel, as far as they are wanted.
  static void parameters(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
};

// ---- softmax_cuda_mixed_star.cu ----
template <class T>
struct MixedStars {
  static void step(const Mixed<T> &, const MixedStep<T> &, cudaStream_t);
  // force_i <- from_i - div(v_m s_m) for the star classes i; from = force with threshold dynamics, else o.
  struct Force {
    Gate gate;
    bool start;  // as in SoftmaxStep
    const T *v, *final_v;
    const int32_t *iterations;
    int t;
    T *force;
  };
  static void force(const Mixed<T> &, const Force &, cudaStream_t);
  // The start's: centres move the force of a warm start.
  static void adjoint_start(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
  // The step's adjoint, then grad_field_i += tau_m div(grad_y_m s_m) (overwritten without threshold
  // dynamics). Comes after that of threshold dynamics.
  static void adjoint(const Mixed<T> &, const MixedAdjoint<T> &, cudaStream_t);
};

}  // namespace segprior::softmax::cuda
