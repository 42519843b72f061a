// Forward row kernels: softmax over classes, logits, dual step. Included once per SIMD target by
// softmax_cpu_rows.cpp.
#if defined(SEGPRIOR_SOFTMAX_CPU_STEP_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTMAX_CPU_STEP_INL_H
#undef SEGPRIOR_SOFTMAX_CPU_STEP_INL_H
#else
#define SEGPRIOR_SOFTMAX_CPU_STEP_INL_H
#endif

#include "kernels/softmax/softmax_cpu_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void softmax(const RowShape<T> &s, const T *in, T scale, const T *shift, T *out) {
  const Scratch<T> scratch(s);
  for (int64_t x0 = 0; x0 < s.columns; x0 += scratch.block) {
    const int64_t n = HWY_MIN(scratch.block, s.columns - x0);
    T *max = scratch.row[0], *sum = scratch.row[1];
    load_logits(s, n, scratch.block, in + x0, scale, shift, scratch.values, max);
    exponentials(s.classes, n, scratch.block, scratch.values, max, sum);
    reciprocal(n, sum, valid_from(s, x0));
    for (int i = 0; i < s.classes; ++i) {
      const T *e = scratch.values + i * scratch.block;
      T *to = out + i * s.voxels + x0;
      for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
        hn::StoreU(hn::Mul(hn::LoadU(d, e + x), hn::LoadU(d, sum + x)), d, to + x);
      });
    }
  }
}

// One class's dual of one row: pointers to its components.
template <class T>
struct DualPointers {
  const T *v[3], *prev[3];
};

template <class T>
HWY_INLINE DualPointers<T> dual_of_class(const RowShape<T> &s, const DualRow<T> &dual, int i) {
  DualPointers<T> p{};
  for (int c = 0; c < s.nd; ++c) {
    p.v[c] = dual.v + (static_cast<int64_t>(i) * s.nd + c) * s.voxels;
    if (c + 1 < s.nd) p.prev[c] = dual.prev[c].row + i * dual.prev[c].class_stride;
  }
  return p;
}

// store(d, x, div v(x)) over columns [begin, end) of one class.
template <int ND, class T, class F>
HWY_INLINE void for_divergence(const T (&inv_spacing)[3], const DualPointers<T> &p, int64_t begin,
                               int64_t end, F store) {
  const auto body = [&](auto d, int64_t x, auto column_prev) HWY_ATTR {
    auto div = hn::Mul(hn::Sub(hn::LoadU(d, p.v[ND - 1] + x), column_prev), hn::Set(d, inv_spacing[ND - 1]));
    for (int c = 0; c < ND - 1; ++c)
      div = hn::MulAdd(hn::Sub(hn::LoadU(d, p.v[c] + x), hn::LoadU(d, p.prev[c] + x)),
                       hn::Set(d, inv_spacing[c]), div);
    store(d, x, div);
  };
  if (begin == 0) {
    const hn::CappedTag<T, 1> d1;
    body(d1, 0, hn::Zero(d1));
    begin = 1;
  }
  for_columns<T>(begin, end,
                 [&](auto d, int64_t x) HWY_ATTR { body(d, x, hn::LoadU(d, p.v[ND - 1] + x - 1)); });
}

template <int ND, class T>
void logits_nd(const RowShape<T> &s, const T *features, const DualRow<T> *dual, T scale, const T *shift,
               T *out) {
  for (int i = 0; i < s.classes; ++i) {
    const T *o = features + i * s.voxels;
    T *z = out + i * s.voxels;
    if constexpr (ND == 0) {
      for_columns<T>(0, s.columns, [&](auto d, int64_t x) HWY_ATTR {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, o + x), hn::Set(d, scale), hn::Set(d, shift[i])), d, z + x);
      });
    } else {
      const DualPointers<T> p = dual_of_class(s, *dual, i);
      for_divergence<ND>(s.inv_spacing, p, 0, s.columns, [&](auto d, int64_t x, auto div) HWY_ATTR {
        prefetch_next_row(s, o + x);
        for (int c = 0; c < ND; ++c) prefetch_next_row(s, p.v[c] + x);
        const auto sum = hn::Sub(hn::LoadU(d, o + x), div);
        hn::StoreU(hn::MulAdd(sum, hn::Set(d, scale), hn::Set(d, shift[i])), d, z + x);
      });
    }
  }
}

template <class T>
void logits(const RowShape<T> &s, const T *features, const DualRow<T> *dual, T scale, const T *shift,
            T *out) {
  switch (dual ? s.nd : 0) {
    case 0:
      return logits_nd<0>(s, features, dual, scale, shift, out);
    case 1:
      return logits_nd<1>(s, features, dual, scale, shift, out);
    case 2:
      return logits_nd<2>(s, features, dual, scale, shift, out);
    default:
      return logits_nd<3>(s, features, dual, scale, shift, out);
  }
}

// The dual step of class i over columns [begin, end) into v_out[c], q_out[c] (both indexed by column).
template <int ND, bool ACCELERATE, bool MASKED, class T>
HWY_INLINE void dual_step(const StepRow<T> &r, int i, int64_t begin, int64_t end, T *const (&v_out)[3],
                          T *const (&q_out)[3]) {
  const RowShape<T> &s = r.shape;
  const T *u = r.u + i * s.voxels, *v[3], *q[3], *next[3];
  T step[3];
  for (int c = 0; c < ND; ++c) {
    const int64_t offset = (static_cast<int64_t>(i) * ND + c) * s.voxels;
    v[c] = r.v_in + offset;
    q[c] = ACCELERATE ? r.q_in + offset : nullptr;
    next[c] = c + 1 < ND ? r.u_next[c].row + i * r.u_next[c].class_stride : u + 1;
    step[c] = r.tau * s.inv_spacing[c];
  }
  Total<T> restart;
  const auto body = [&](auto d, int64_t x, bool border) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    const V here = hn::LoadU(d, u + x);
    V y[ND];
    V square = hn::Zero(d);
    for (int c = 0; c < ND; ++c) {
      const V ahead = c + 1 == ND && border ? here : hn::LoadU(d, next[c] + x);
      prefetch_next_row(s, v[c] + x);
      V slope = hn::Sub(ahead, here);
      if constexpr (MASKED) slope = hn::Mul(slope, hn::LoadU(d, s.link + c * s.voxels + x));
      y[c] = hn::NegMulAdd(hn::Set(d, step[c]), slope, hn::LoadU(d, v[c] + x));
      square = hn::MulAdd(y[c], y[c], square);
    }
    const V lam = hn::Set(d, r.lam), bound = r.edge ? hn::Mul(lam, hn::LoadU(d, r.edge + x)) : lam;
    const V norm = hn::Sqrt(square);
    const V scale = hn::IfThenElse(hn::Gt(norm, bound), hn::Div(bound, norm), hn::Set(d, T{1}));
    V dot = hn::Zero(d);
    for (int c = 0; c < ND; ++c) {
      const V projected = hn::Mul(y[c], scale);
      if constexpr (ACCELERATE) {
        const V change = hn::Sub(projected, hn::LoadU(d, q[c] + x));
        dot = hn::MulAdd(hn::Sub(hn::LoadU(d, v[c] + x), projected), change, dot);
        hn::StoreU(projected, d, q_out[c] + x);
        hn::StoreU(hn::MulAdd(hn::Set(d, r.beta), change, projected), d, v_out[c] + x);
      } else {
        hn::StoreU(projected, d, v_out[c] + x);
      }
    }
    if constexpr (ACCELERATE) restart.add(d, dot);
  };
  for_columns<T>(begin, HWY_MIN(end, s.columns - 1), [&](auto d, int64_t x) HWY_ATTR { body(d, x, false); });
  if (end == s.columns) body(hn::CappedTag<T, 1>(), s.columns - 1, true);
  if (ACCELERATE && r.restart) *r.restart += restart.get();
}

template <int ND, bool ACCELERATE, bool MASKED, class T>
void step_nd(const StepRow<T> &r) {
  const RowShape<T> &s = r.shape;
  const Scratch<T> scratch(s);
  T *max = scratch.row[0], *sum = scratch.row[1];
  for (int64_t x0 = 0; x0 < s.columns; x0 += scratch.block) {
    const int64_t n = HWY_MIN(scratch.block, s.columns - x0);
    fill<T>(n, std::numeric_limits<T>::lowest(), max);
    for (int i = 0; i < s.classes; ++i) {
      const T *o = r.features + i * s.voxels;
      T *z = scratch.values + i * scratch.block - x0, *keep = r.keep_logits ? r.out + i * s.voxels : nullptr;
      const auto store = [&](auto d, int64_t x, auto sum_terms) HWY_ATTR {
        const auto value = hn::MulAdd(sum_terms, hn::Set(d, r.inv_eps), hn::Set(d, r.shift[i]));
        hn::StoreU(value, d, z + x);
        hn::StoreU(hn::Max(value, hn::LoadU(d, max + x - x0)), d, max + x - x0);
      };
      if constexpr (ND == 0) {
        for_columns<T>(x0, x0 + n, [&](auto d, int64_t x) HWY_ATTR {
          prefetch_next_row(s, o + x);
          store(d, x, hn::LoadU(d, o + x));
        });
      } else {
        T *v_out[3], *q_out[3];
        for (int c = 0; c < ND; ++c) {
          const int64_t offset = (static_cast<int64_t>(i) * ND + c) * s.voxels;
          v_out[c] = r.v_out + offset;
          q_out[c] = ACCELERATE ? r.q_out + offset : nullptr;
        }
        dual_step<ND, ACCELERATE, MASKED>(r, i, x0, x0 + n, v_out, q_out);
        const DualRow<T> dual{
            r.v_out,
            {{r.v_prev[0].row, r.v_prev[0].class_stride}, {r.v_prev[1].row, r.v_prev[1].class_stride}}};
        for_divergence<ND>(s.inv_spacing, dual_of_class(s, dual, i), x0, x0 + n,
                           [&](auto d, int64_t x, auto div) HWY_ATTR {
                             prefetch_next_row(s, o + x);
                             store(d, x, hn::Sub(hn::LoadU(d, o + x), div));
                           });
      }
      // u is no longer needed at these columns: class i's forward neighbours lie ahead of the block.
      if (keep)
        for_columns<T>(x0, x0 + n,
                       [&](auto d, int64_t x) HWY_ATTR { hn::StoreU(hn::LoadU(d, z + x), d, keep + x); });
    }
    if (r.keep_logits && !r.mass) continue;
    exponentials(s.classes, n, scratch.block, scratch.values, max, sum);
    reciprocal(n, sum, valid_from(s, x0));
    for (int i = 0; i < s.classes; ++i) {
      const T *e = scratch.values + i * scratch.block;
      T *out = r.out + i * s.voxels + x0;
      Total<T> total;
      for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
        const auto w = hn::Mul(hn::LoadU(d, e + x), hn::LoadU(d, sum + x));
        if (!r.keep_logits) hn::StoreU(w, d, out + x);
        total.add(d, w);
      });
      if (r.mass) r.mass[i] += total.get();
    }
  }
}

// f(nd, accelerate, masked) with the row's values as compile-time constants, for rows with a dual.
template <class T, class F>
HWY_INLINE void for_kind(const StepRow<T> &r, const F &f) {
  const auto with_mask = [&](auto nd, auto accelerate) {
    r.shape.link ? f(nd, accelerate, std::true_type()) : f(nd, accelerate, std::false_type());
  };
  const auto with_acceleration = [&](auto nd) {
    r.accelerate ? with_mask(nd, std::true_type()) : with_mask(nd, std::false_type());
  };
  switch (r.shape.nd) {
    case 1:
      return with_acceleration(std::integral_constant<int, 1>());
    case 2:
      return with_acceleration(std::integral_constant<int, 2>());
    default:
      return with_acceleration(std::integral_constant<int, 3>());
  }
}

template <class T>
void step(const StepRow<T> &r) {
  if (!r.v_in) return step_nd<0, false, false>(r);
  for_kind(r, [&](auto nd, auto accelerate, auto masked) {
    step_nd<decltype(nd)::value, decltype(accelerate)::value, decltype(masked)::value>(r);
  });
}

template <int ND, bool ACCELERATE, bool MASKED, class T>
void step_halo_nd(const StepRow<T> &r, Strided<T> out) {
  const RowShape<T> &s = r.shape;
  T *rest = Scratch<T>(s).rest;  // rows for the components that the halo does not need
  for (int i = 0; i < s.classes; ++i) {
    T *const v_out[3] = {out.row + i * out.class_stride, rest, rest + s.columns};
    T *const q_out[3] = {rest + 2 * s.columns, rest + 3 * s.columns, rest + 4 * s.columns};
    dual_step<ND, ACCELERATE, MASKED>(r, i, 0, s.columns, v_out, q_out);
  }
}

template <class T>
void step_halo(const StepRow<T> &r, Strided<T> out) {
  for_kind(r, [&](auto nd, auto accelerate, auto masked) {
    step_halo_nd<decltype(nd)::value, decltype(accelerate)::value, decltype(masked)::value>(r, out);
  });
}

template <class T>
void add(const RowShape<T> &s, const T *in, T *out) {
  for (int i = 0; i < s.classes; ++i) {
    const T *from = in + i * s.voxels;
    T *to = out + i * s.voxels;
    for_columns<T>(0, s.columns, [&](auto d, int64_t x) HWY_ATTR {
      prefetch_next_row(s, static_cast<const T *>(to) + x);
      hn::StoreU(hn::Add(hn::LoadU(d, to + x), hn::LoadU(d, from + x)), d, to + x);
    });
  }
}

// Lane maximum of non-negative values; NaN counts as infinite.
template <class D, class V>
HWY_INLINE hn::TFromD<D> max_or_infinity(D d, V a) {
  using T = hn::TFromD<D>;
  const auto finite = hn::Le(a, hn::Set(d, std::numeric_limits<T>::max()));  // false for NaN
  return hn::GetLane(
      hn::MaxOfLanes(d, hn::IfThenElse(finite, a, hn::Set(d, std::numeric_limits<T>::infinity()))));
}

template <class T>
T max_abs(int64_t n, const T *in) {
  T result = 0;
  for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
    result = HWY_MAX(result, max_or_infinity(d, hn::Abs(hn::LoadU(d, in + x))));
  });
  return result;
}

template <class T>
T max_difference(int64_t n, const T *a, const T *b) {
  T result = 0;
  for_columns<T>(0, n, [&](auto d, int64_t x) HWY_ATTR {
    const auto difference = hn::Abs(hn::Sub(hn::LoadU(d, a + x), hn::LoadU(d, b + x)));
    result = HWY_MAX(result, max_or_infinity(d, difference));
  });
  return result;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();
#endif
