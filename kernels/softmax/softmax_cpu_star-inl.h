// Row kernels of star shapes: one star class a call. Included once per SIMD target by softmax_cpu_rows.cpp.
// Directions are 0 where a gradient component does not exist, so only reads past a row need care.
#if defined(SEGPRIOR_SOFTMAX_CPU_STAR_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTMAX_CPU_STAR_INL_H
#undef SEGPRIOR_SOFTMAX_CPU_STAR_INL_H
#else
#define SEGPRIOR_SOFTMAX_CPU_STAR_INL_H
#endif

#include "kernels/softmax/softmax_cpu_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// body(d, x, border) over a row; the last column, whose neighbour ahead lies outside, is border and comes
// alone.
template <class T, class F>
HWY_INLINE void for_row_ahead(int64_t columns, F body) {
  for_columns<T>(0, columns - 1, [&](auto d, int64_t x) HWY_ATTR { body(d, x, false); });
  body(hn::CappedTag<T, 1>(), columns - 1, true);
}

// field(x + e_c) - field(x).
template <int ND, class D, class T>
HWY_INLINE hn::Vec<D> difference(D d, const T *row, const T *const (&next)[2], int c, int64_t x,
                                 bool border) {
  const auto here = hn::LoadU(d, row + x);
  if (c + 1 == ND) return border ? hn::Zero(d) : hn::Sub(hn::LoadU(d, row + x + 1), here);
  return hn::Sub(hn::LoadU(d, next[c] + x), here);
}

template <class T>
void star_directions(const StarDirectionRow<T> &r) {
  const auto store = [&](auto d, int64_t x, int c, auto value) HWY_ATTR {
    const int64_t at = c * r.voxels + x;
    const auto scale = hn::Set(d, r.scale[c]);
    const auto exists = r.link ? hn::Mul(scale, hn::LoadU(d, r.link + at)) : scale;
    hn::StoreU(hn::Mul(value, exists), d, r.direction + at);
  };
  T fixed = 0;
  for (int c = 0; c + 1 < r.nd; ++c) fixed += r.offset[c] * r.offset[c];
  for_columns<T>(0, r.columns, [&](auto d, int64_t x) HWY_ATTR {
    const auto along = hn::Sub(hn::Set(d, r.offset[r.nd - 1]), hn::Iota(d, static_cast<T>(x)));
    const auto length = hn::Sqrt(hn::MulAdd(along, along, hn::Set(d, fixed)));
    const auto inverse = hn::IfThenElseZero(hn::Gt(length, hn::Zero(d)), hn::Div(hn::Set(d, T{1}), length));
    for (int c = 0; c + 1 < r.nd; ++c) store(d, x, c, hn::Mul(hn::Set(d, r.offset[c]), inverse));
    store(d, x, r.nd - 1, hn::Mul(along, inverse));
  });
  r.direction[(r.nd - 1) * r.voxels + r.columns - 1] = 0;
}

template <int ND, bool ACCELERATE, class T>
void star_step_nd(const StarStepRow<T> &r) {
  Total<T> restart;
  for_row_ahead<T>(r.columns, [&](auto d, int64_t x, bool border) HWY_ATTR {
    auto slope = hn::Zero(d);
    for (int c = 0; c < ND; ++c)
      slope = hn::MulAdd(hn::LoadU(d, r.direction + c * r.voxels + x),
                         difference<ND>(d, r.u, r.u_next, c, x, border), slope);
    const auto v = hn::LoadU(d, r.v_in + x);
    const auto g = hn::Max(hn::NegMulAdd(hn::Set(d, r.tau), slope, v), hn::Zero(d));
    if constexpr (ACCELERATE) {
      const auto change = hn::Sub(g, hn::LoadU(d, r.g_in + x));
      restart.add(d, hn::Mul(hn::Sub(v, g), change));
      hn::StoreU(g, d, r.g_out + x);
      hn::StoreU(hn::MulAdd(hn::Set(d, r.beta), change, g), d, r.v_out + x);
    } else {
      hn::StoreU(g, d, r.v_out + x);
    }
  });
  if (ACCELERATE && r.restart) *r.restart += restart.get();
}

template <class T>
void star_step(const StarStepRow<T> &r) {
  const bool accelerate = r.g_in != nullptr;
  switch (r.nd) {
    case 1:
      return accelerate ? star_step_nd<1, true>(r) : star_step_nd<1, false>(r);
    case 2:
      return accelerate ? star_step_nd<2, true>(r) : star_step_nd<2, false>(r);
    default:
      return accelerate ? star_step_nd<3, true>(r) : star_step_nd<3, false>(r);
  }
}

template <int ND, class T>
void star_divergence_nd(const StarDivergenceRow<T> &r) {
  const auto body = [&](auto d, int64_t x, auto column_prev) HWY_ATTR {
    const auto v = hn::LoadU(d, r.v + x);
    auto div = hn::MulSub(v, hn::LoadU(d, r.direction + (ND - 1) * r.voxels + x), column_prev);
    for (int c = 0; c < ND - 1; ++c) {
      div = hn::MulAdd(v, hn::LoadU(d, r.direction + c * r.voxels + x), div);
      div = hn::NegMulAdd(hn::LoadU(d, r.v_prev[c] + x), hn::LoadU(d, r.direction_prev[c] + x), div);
    }
    hn::StoreU(hn::MulAdd(hn::Set(d, r.scale), div, hn::LoadU(d, r.from + x)), d, r.out + x);
  };
  const hn::CappedTag<T, 1> d1;
  body(d1, 0, hn::Zero(d1));
  const T *direction = r.direction + (ND - 1) * r.voxels;
  for_columns<T>(1, r.columns, [&](auto d, int64_t x) HWY_ATTR {
    body(d, x, hn::Mul(hn::LoadU(d, r.v + x - 1), hn::LoadU(d, direction + x - 1)));
  });
}

template <class T>
void star_divergence(const StarDivergenceRow<T> &r) {
  switch (r.nd) {
    case 1:
      return star_divergence_nd<1>(r);
    case 2:
      return star_divergence_nd<2>(r);
    default:
      return star_divergence_nd<3>(r);
  }
}

template <int ND, class T>
void star_adjoint_nd(const StarAdjointRow<T> &r) {
  Total<T> tau_total;
  for_row_ahead<T>(r.columns, [&](auto d, int64_t x, bool border) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    V u_change[ND], grad_change[ND];
    V slope = hn::Zero(d), grad_v = hn::LoadU(d, r.grad_y + x);
    for (int c = 0; c < ND; ++c) {
      const V direction = hn::LoadU(d, r.direction + c * r.voxels + x);
      u_change[c] = difference<ND>(d, r.u, r.u_next, c, x, border);
      grad_change[c] = difference<ND>(d, r.grad_logits, r.grad_logits_next, c, x, border);
      slope = hn::MulAdd(direction, u_change[c], slope);
      // The gradient of v_t+1: its own step's, and s . grad R, because -div(v s) is part of what R belongs
      // to.
      grad_v = hn::MulAdd(direction, grad_change[c], grad_v);
    }
    V grad_g = grad_v;
    if (r.grad_v) {
      const V later = hn::LoadU(d, r.grad_v + x);
      hn::StoreU(grad_v, d, r.grad_v + x);
      grad_g = hn::Sub(hn::Mul(hn::Set(d, T{1} + r.beta), grad_v), hn::Mul(hn::Set(d, r.beta_next), later));
    }
    const V y = hn::NegMulAdd(hn::Set(d, r.tau), slope, hn::LoadU(d, r.v_in + x));
    const V grad_y = hn::IfThenElseZero(hn::Gt(y, hn::Zero(d)), grad_g);
    hn::StoreU(grad_y, d, r.grad_y + x);
    tau_total.add(d, hn::Mul(grad_y, slope));
    if (!r.grad_direction) return;
    const V v = hn::LoadU(d, r.v_out + x), step = hn::Mul(hn::Set(d, r.tau), grad_y);
    for (int c = 0; c < ND; ++c) {
      T *sum = r.grad_direction + c * r.voxels + x;
      const V change = hn::NegMulAdd(step, u_change[c], hn::Mul(v, grad_change[c]));
      hn::StoreU(hn::Add(hn::LoadU(d, sum), change), d, sum);
    }
  });
  *r.tau_sum -= tau_total.get();
}

template <class T>
void star_adjoint(const StarAdjointRow<T> &r) {
  switch (r.nd) {
    case 1:
      return star_adjoint_nd<1>(r);
    case 2:
      return star_adjoint_nd<2>(r);
    default:
      return star_adjoint_nd<3>(r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();
#endif
