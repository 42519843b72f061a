// Row kernels of the CPU backend: everything that touches voxels, one grid row (all classes) a call. Compiled
// for several SIMD targets in softmax_cpu_rows.cpp; the control flow in softmax_cpu_{forward,backward}.cpp
// sees only this table.
//
// Layout: a class's voxels are `voxels` elements apart (features, u, logits, R), a dual's components too, so
// a dual's classes are nd * voxels apart. Pointers point at class 0 of the row. A missing neighbour is
// spelled without branches: the forward neighbour of the last row is the row itself (difference 0), the
// backward one of the first row a row of zeros with class stride 0.
#pragma once

#include <cstdint>

#include "kernels/softmax/softmax_cpu_td_rows.h"

namespace segprior::softmax {

// A row seen with its own class stride.
template <class T>
struct Strided {
  T *row;
  int64_t class_stride;
};

template <class T>
struct RowShape {
  int64_t columns, voxels;
  int classes, nd;
  T inv_spacing[3];  // per dual component
  T *scratch;        // scratch_size(...) elements of this thread
  // Of the row, null without a mask: 1 or 0 per voxel, and per voxel and component of a gradient (components
  // `voxels` apart).
  const T *valid, *link;
};

// Columns are worked through in blocks whose logits stay in the first cache level; the scratch holds two
// blocks of all classes and three rows.
template <class T>
int64_t block_columns(int classes) {
  const int64_t fit = 65536 / (static_cast<int64_t>(sizeof(T)) * classes) / 64 * 64;
  return fit < 64 ? 64 : (fit > 4096 ? 4096 : fit);
}
template <class T>
int64_t scratch_size(int classes, int64_t columns) {
  const int64_t block = block_columns<T>(classes);
  return (2 * classes + 3) * block + 6 * columns;
}

// One row of a dual field v and of its divergence: v_prev[c] is component c one voxel back along its axis
// (null for the column axis, which the row itself holds).
template <class T>
struct DualRow {
  const T *v;
  Strided<const T> prev[2];
};

// q <- P(v - tau grad u), v <- q + beta (q - q_old), then the logits z = (o - div v) / eps + shift.
template <class T>
struct StepRow {
  RowShape<T> shape;
  bool accelerate;
  const T *u;
  Strided<const T> u_next[2];  // component 0, 1: the row one voxel ahead (nd = 1: unused)
  const T *v_in, *q_in;        // q only when accelerated
  T *v_out, *q_out;            // may equal the inputs
  Strided<const T> v_prev[2];  // new v one voxel back
  const T *features;
  const T *edge;  // null: 1
  T lam, tau, beta, inv_eps;
  const T *shift;  // f / eps [classes]
  T *out;          // logits if keep_logits, else u; may equal the input u
  bool keep_logits;
  double *mass;     // [classes] += sum of S(z); null: not wanted
  double *restart;  // += <v_in - q, q - q_in>; accelerated only
};

template <class T>
struct AdjointSoftmaxRow {
  RowShape<T> shape;
  const T *u;  // null: S(logits + shift)
  const T *logits;
  const T *shift;  // [classes]
  // The gradient of u: grad_u plus tau div of the dual. One of them may be null (dual.v).
  const T *grad_u;
  DualRow<T> dual;
  T tau, inv_eps;
  T *grad_logits;  // R = u (grad_u - <grad_u, u>) / eps
  double *sum;     // [classes] += sum of R
  double *log_u;   // += sum of R ln u = -gradient of eps; null: not wanted
};

template <class T>
struct AdjointVolumeRow {
  RowShape<T> shape;
  const T *w;  // null: S(logits)
  const T *logits;
  const T *grad_w;  // [classes], constant over the voxels
  T inv_eps;
  T *grad_logits;    // += w (grad_w - <grad_w, w>) / eps
  T *grad_features;  // += the new grad_logits; null: not wanted
  double *sum;       // [classes] += sum of what was added
  double *log_w;     // += sum of (what was added) ln w; null: not wanted
};

template <class T>
struct AdjointDualRow {
  RowShape<T> shape;
  bool accelerate;
  const T *grad_logits;  // R
  Strided<const T> grad_logits_next[2];
  const T *u;
  Strided<const T> u_next[2];
  const T *v;  // v_t
  T *grad_y;   // in: gradient of y_t+1; out: of y_t
  T *grad_v;   // accelerated: in gradient of v_t+2, out of v_t+1
  const T *edge;
  T lam, tau, beta, beta_next;
  T *grad_bound;    // [columns] += sum over classes of the gradient of lam e
  double *tau_sum;  // += <grad_y, grad u>
};

// Rows of one star class m; pointers at the row in the plane of its class (u, grad_logits) or star (v, g).
// The directions d [nd], `voxels` apart, are those of softmax_cpu_star.h.
template <class T>
struct StarDirectionRow {
  int64_t columns, voxels;
  int nd;
  T offset[3];    // c - x at column 0
  T scale[3];     // 1 / h, or 0 where component c does not exist in this row
  const T *link;  // as in RowShape
  T *direction;
};

template <class T>
struct StarStepRow {
  int64_t columns, voxels;
  int nd;
  const T *u, *u_next[2], *direction;
  const T *v_in, *g_in;  // g null: plain
  T *v_out, *g_out;      // may equal the inputs
  T tau, beta;
  double *restart;  // += <v_in - g, g - g_in>; null: not wanted
};

// out <- from + scale sum_c (v d_c - the same one voxel back).
template <class T>
struct StarDivergenceRow {
  int64_t columns, voxels;
  int nd;
  const T *v, *v_prev[2], *direction;
  const T *direction_prev[2];  // component c one voxel back
  T scale;
  const T *from;
  T *out;
};

template <class T>
struct StarAdjointRow {
  int64_t columns, voxels;
  int nd;
  const T *grad_logits, *grad_logits_next[2], *u, *u_next[2], *direction;
  const T *v_in, *v_out;  // v_t, v_t+1
  T *grad_y;              // in: gradient of y_t+1; out: of y_t
  T *grad_v;              // accelerated: in gradient of v_t+2, out v_t+1; else null
  T tau, beta, beta_next;
  T *grad_direction;  // [nd] += gradient of d h; null: not wanted
  double *tau_sum;    // += gradient of tau
};

template <class T>
struct RowKernels {
  // out = S(in * scale + shift); may be in place. Both have class stride `voxels`.
  void (*softmax)(const RowShape<T> &, const T *in, T scale, const T *shift, T *out);
  // out = (o - div v) * scale + shift; `dual` null without TV.
  void (*logits)(const RowShape<T> &, const T *features, const DualRow<T> *dual, T scale, const T *shift,
                 T *out);
  void (*step)(const StepRow<T> &);
  // Only the new dual of component 0 of the row: out [classes][columns] with the given class stride.
  void (*step_halo)(const StepRow<T> &, Strided<T> out);
  void (*adjoint_softmax)(const AdjointSoftmaxRow<T> &);
  void (*adjoint_volume)(const AdjointVolumeRow<T> &);
  void (*adjoint_dual)(const AdjointDualRow<T> &);
  void (*add)(const RowShape<T> &, const T *in, T *out);  // out += in, all classes of the row
  T (*max_abs)(int64_t n, const T *in);                   // NaN or Inf: +Inf
  T (*max_difference)(int64_t n, const T *a, const T *b);
  void (*star_directions)(const StarDirectionRow<T> &);
  void (*star_step)(const StarStepRow<T> &);
  void (*star_divergence)(const StarDivergenceRow<T> &);
  void (*star_adjoint)(const StarAdjointRow<T> &);
  TdRowKernels<T> td;
};

template <class T>
const RowKernels<T> &row_kernels();  // of the best SIMD target of this machine

}  // namespace segprior::softmax
