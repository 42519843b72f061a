// Backward row kernels. Included once per SIMD target by softmax_cpu_rows.cpp. Formulas: softmax.md.
#if defined(SEGPRIOR_SOFTMAX_CPU_ADJOINT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTMAX_CPU_ADJOINT_INL_H
#undef SEGPRIOR_SOFTMAX_CPU_ADJOINT_INL_H
#else
#define SEGPRIOR_SOFTMAX_CPU_ADJOINT_INL_H
#endif

#include "kernels/softmax/softmax_cpu_step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One block of X_bar = p (grad - <grad, p>) / eps, class i of p at probability + i * stride. Stored to out,
// or added there (ADD) and the sum added to `features` too where that is given. Sums as in the row structs.
// grad(d, i, x) gives the incoming gradient.
template <bool ADD, class T, class G>
HWY_INLINE void softmax_adjoint(const RowShape<T> &s, int64_t n, const T *probability, int64_t stride, T *dot,
                                T inv_eps, G grad, T *out, T *features, double *sum, double *log_sum) {
  fill<T>(n, 0, dot);
  for (int i = 0; i < s.classes; ++i) {
    const T *p = probability + i * stride;
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      hn::StoreU(hn::MulAdd(grad(d, i, x), hn::LoadU(d, p + x), hn::LoadU(d, dot + x)), d, dot + x);
    });
  }
  for (int i = 0; i < s.classes; ++i) {
    const T *p = probability + i * stride;
    T *to = out + i * s.voxels, *total_to = features ? features + i * s.voxels : nullptr;
    Total<T> total, log_total;
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      const auto here = hn::LoadU(d, p + x);
      const auto centred = hn::Sub(grad(d, i, x), hn::LoadU(d, dot + x));
      const auto value = hn::Mul(hn::Mul(here, centred), hn::Set(d, inv_eps));
      total.add(d, value);
      if (log_sum) {
        // p ln p -> 0: a probability that underflowed has value 0 as well.
        const auto positive = hn::Max(here, hn::Set(d, std::numeric_limits<T>::min()));
        log_total.add(d, hn::Mul(value, hn::Log(d, positive)));
      }
      if (!ADD) return hn::StoreU(value, d, to + x);
      prefetch_next_row(s, static_cast<const T *>(to) + x);
      const auto both = hn::Add(hn::LoadU(d, to + x), value);
      hn::StoreU(both, d, to + x);
      if (!total_to) return;
      prefetch_next_row(s, static_cast<const T *>(total_to) + x);
      hn::StoreU(hn::Add(hn::LoadU(d, total_to + x), both), d, total_to + x);
    });
    sum[i] += total.get();
    if (log_sum) *log_sum += log_total.get();
  }
}

// probability <- S(logits + shift) of the block at column x0, left in scratch.values.
template <class T>
HWY_INLINE void block_softmax(const RowShape<T> &s, const Scratch<T> &scratch, const T *logits,
                              const T *shift, int64_t x0, int64_t n) {
  T *max = scratch.row[0], *sum = scratch.row[1];
  load_logits(s, n, scratch.block, logits + x0, T{1}, shift, scratch.values, max);
  exponentials(s.classes, n, scratch.block, scratch.values, max, sum);
  reciprocal(n, sum, valid_from(s, x0));
  for (int i = 0; i < s.classes; ++i) {
    T *p = scratch.values + i * scratch.block;
    for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, p + x), hn::LoadU(d, sum + x)), d, p + x);
    });
  }
}

template <int ND, class T>
void adjoint_softmax_nd(const AdjointSoftmaxRow<T> &r) {
  const RowShape<T> &s = r.shape;
  const Scratch<T> scratch(s);
  for (int64_t x0 = 0; x0 < s.columns; x0 += scratch.block) {
    const int64_t n = HWY_MIN(scratch.block, s.columns - x0);
    if (!r.u) block_softmax(s, scratch, r.logits, r.shift, x0, n);
    for (int i = 0; i < s.classes; ++i) {
      T *grad = scratch.more + i * scratch.block;
      const T *from = r.grad_u ? r.grad_u + i * s.voxels + x0 : nullptr;
      if constexpr (ND == 0) {
        for_columns<T>(0, n,
                       [&](auto d, int64_t x) HWY_ATTR { hn::StoreU(hn::LoadU(d, from + x), d, grad + x); });
      } else {
        for_divergence<ND>(s.inv_spacing, dual_of_class(s, r.dual, i), x0, x0 + n,
                           [&](auto d, int64_t x, auto div) HWY_ATTR {
                             auto value = hn::Mul(hn::Set(d, r.tau), div);
                             if (from) value = hn::Add(value, hn::LoadU(d, from + x - x0));
                             hn::StoreU(value, d, grad + x - x0);
                           });
      }
    }
    const T *grads = scratch.more;
    const int64_t block = scratch.block;
    softmax_adjoint<false>(
        s, n, r.u ? r.u + x0 : scratch.values, r.u ? s.voxels : block, scratch.row[2], r.inv_eps,
        [=](auto d, int i, int64_t x) HWY_ATTR { return hn::LoadU(d, grads + i * block + x); },
        r.grad_logits + x0, static_cast<T *>(nullptr), r.sum, r.log_u);
  }
}

template <class T>
void adjoint_softmax(const AdjointSoftmaxRow<T> &r) {
  switch (r.dual.v ? r.shape.nd : 0) {
    case 0:
      return adjoint_softmax_nd<0>(r);
    case 1:
      return adjoint_softmax_nd<1>(r);
    case 2:
      return adjoint_softmax_nd<2>(r);
    default:
      return adjoint_softmax_nd<3>(r);
  }
}

template <class T>
void adjoint_volume(const AdjointVolumeRow<T> &r) {
  const RowShape<T> &s = r.shape;
  const Scratch<T> scratch(s);
  for (int64_t x0 = 0; x0 < s.columns; x0 += scratch.block) {
    const int64_t n = HWY_MIN(scratch.block, s.columns - x0);
    if (!r.w) block_softmax(s, scratch, r.logits, static_cast<const T *>(nullptr), x0, n);
    softmax_adjoint<true>(
        s, n, r.w ? r.w + x0 : scratch.values, r.w ? s.voxels : scratch.block, scratch.row[2], r.inv_eps,
        [&](auto d, int i, int64_t) HWY_ATTR { return hn::Set(d, r.grad_w[i]); }, r.grad_logits + x0,
        r.grad_features ? r.grad_features + x0 : nullptr, r.sum, r.log_w);
  }
}

template <int ND, bool ACCELERATE, bool MASK, class T>
void adjoint_dual_nd(const AdjointDualRow<T> &r) {
  const RowShape<T> &s = r.shape;
  Total<T> tau_total;
  for (int i = 0; i < s.classes; ++i) {
    const T *u = r.u + i * s.voxels, *g = r.grad_logits + i * s.voxels;
    const T *u_next[3], *g_next[3], *v[3];
    T *grad_y[3], *grad_v[3], step[3];
    for (int c = 0; c < ND; ++c) {
      const int64_t offset = (static_cast<int64_t>(i) * ND + c) * s.voxels;
      v[c] = r.v + offset;
      grad_y[c] = r.grad_y + offset;
      grad_v[c] = ACCELERATE ? r.grad_v + offset : nullptr;
      u_next[c] = c + 1 < ND ? r.u_next[c].row + i * r.u_next[c].class_stride : u + 1;
      g_next[c] = c + 1 < ND ? r.grad_logits_next[c].row + i * r.grad_logits_next[c].class_stride : g + 1;
      step[c] = r.tau * s.inv_spacing[c];
    }
    const auto body = [&](auto d, int64_t x, bool border) HWY_ATTR {
      using V = hn::Vec<decltype(d)>;
      // u and R of the next row are this row's neighbours: the one after is what comes next.
      prefetch_next_row(s, u + s.columns + x);
      prefetch_next_row(s, g + s.columns + x);
      const V u_here = hn::LoadU(d, u + x), g_here = hn::LoadU(d, g + x);
      V y[ND], grad_q[ND], slope[ND];
      V square = hn::Zero(d), along = hn::Zero(d);
      for (int c = 0; c < ND; ++c) {
        const bool edge_of_grid = c + 1 == ND && border;
        const V inv_h = hn::Set(d, s.inv_spacing[c]);
        const V u_ahead = edge_of_grid ? u_here : hn::LoadU(d, u_next[c] + x);
        const V g_ahead = edge_of_grid ? g_here : hn::LoadU(d, g_next[c] + x);
        prefetch_next_row(s, v[c] + x);
        prefetch_next_row(s, static_cast<const T *>(grad_y[c]) + x);
        slope[c] = hn::Sub(u_ahead, u_here);
        V rise = hn::Sub(g_ahead, g_here);
        if constexpr (MASK) {
          const V link = hn::LoadU(d, s.link + c * s.voxels + x);
          slope[c] = hn::Mul(slope[c], link);
          rise = hn::Mul(rise, link);
        }
        y[c] = hn::NegMulAdd(hn::Set(d, step[c]), slope[c], hn::LoadU(d, v[c] + x));
        square = hn::MulAdd(y[c], y[c], square);
        // The gradient of v_t+1: its own step's, and -grad of the gradient of div v, which is -R.
        grad_q[c] = hn::MulAdd(rise, inv_h, hn::LoadU(d, grad_y[c] + x));
        if constexpr (ACCELERATE) {
          const V later = hn::LoadU(d, grad_v[c] + x);
          hn::StoreU(grad_q[c], d, grad_v[c] + x);
          grad_q[c] =
              hn::Sub(hn::Mul(hn::Set(d, T{1} + r.beta), grad_q[c]), hn::Mul(hn::Set(d, r.beta_next), later));
        }
        along = hn::MulAdd(y[c], grad_q[c], along);
      }
      const V lam = hn::Set(d, r.lam), bound = r.edge ? hn::Mul(lam, hn::LoadU(d, r.edge + x)) : lam;
      const V norm = hn::Sqrt(square);
      const auto active = hn::Gt(norm, bound);
      const V inv_norm = hn::Div(hn::Set(d, T{1}), hn::IfThenElse(active, norm, hn::Set(d, T{1})));
      const V scale = hn::IfThenElse(active, hn::Mul(bound, inv_norm), hn::Set(d, T{1}));
      const V grad_bound = hn::IfThenElseZero(active, hn::Mul(along, inv_norm));  // y_hat . grad_q
      const V radial = hn::Mul(grad_bound, inv_norm);
      hn::StoreU(hn::Add(hn::LoadU(d, r.grad_bound + x), grad_bound), d, r.grad_bound + x);
      V tau_term = hn::Zero(d);
      for (int c = 0; c < ND; ++c) {
        const V grad = hn::Mul(scale, hn::NegMulAdd(radial, y[c], grad_q[c]));
        hn::StoreU(grad, d, grad_y[c] + x);
        tau_term = hn::MulAdd(grad, hn::Mul(slope[c], hn::Set(d, s.inv_spacing[c])), tau_term);
      }
      tau_total.add(d, tau_term);
    };
    for_columns<T>(0, s.columns - 1, [&](auto d, int64_t x) HWY_ATTR { body(d, x, false); });
    body(hn::CappedTag<T, 1>(), s.columns - 1, true);
  }
  *r.tau_sum += tau_total.get();
}

template <int ND, bool MASK, class T>
void adjoint_dual_any(const AdjointDualRow<T> &r) {
  r.accelerate ? adjoint_dual_nd<ND, true, MASK>(r) : adjoint_dual_nd<ND, false, MASK>(r);
}

template <class T>
void adjoint_dual(const AdjointDualRow<T> &r) {
  switch (r.shape.nd) {
    case 1:
      return r.shape.link ? adjoint_dual_any<1, true>(r) : adjoint_dual_any<1, false>(r);
    case 2:
      return r.shape.link ? adjoint_dual_any<2, true>(r) : adjoint_dual_any<2, false>(r);
    default:
      return r.shape.link ? adjoint_dual_any<3, true>(r) : adjoint_dual_any<3, false>(r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();
#endif
