// Row kernels of threshold dynamics. Included once per SIMD target by softmax_cpu_rows.cpp.
//
// A tap is a load and a fused multiply-add, so loads bound every loop: the vectors of a block share the load
// of a tap, and their sums hide the latency of an addition. Adding the two rows of a symmetric pair first
// would save no load and, with fused multiply-adds, no instruction either. Flattened functions: gcc leaves
// the loop bodies, which keep their sums in registers, out of line otherwise (a third of the time).
#if defined(SEGPRIOR_SOFTMAX_CPU_TD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTMAX_CPU_TD_INL_H
#undef SEGPRIOR_SOFTMAX_CPU_TD_INL_H
#else
#define SEGPRIOR_SOFTMAX_CPU_TD_INL_H
#endif

#include <type_traits>

#include "kernels/softmax/softmax_cpu_step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softmax {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Columns [x, x + n vectors), as often as they fit.
template <int n, class D, class F>
HWY_INLINE void take_blocks(D d, int64_t &x, int64_t columns, F f) {
  const int64_t block = n * static_cast<int64_t>(hn::Lanes(d));
  for (; x + block <= columns; x += block) f(d, std::integral_constant<int, n>(), x);
}

// f(d, number of vectors, x) over [0, columns): `most` whole vectors at a time, then 4, 2, and as
// for_columns.
template <int most, class T, class F>
HWY_INLINE void for_blocks(int64_t columns, F f) {
  const hn::ScalableTag<T> d;
  int64_t x = 0;
  take_blocks<most>(d, x, columns, f);
  take_blocks<4>(d, x, columns, f);
  take_blocks<2>(d, x, columns, f);
  for_columns<T>(x, columns,
                 [&](auto tail, int64_t at) HWY_ATTR { f(tail, std::integral_constant<int, 1>(), at); });
}

template <bool kEdge, int n, class T, class D>
HWY_INLINE void combine_columns(const TdCombineRow<T> &c, D d, int64_t x) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum[n], edge_sum[n];
  for (int j = 0; j < n; ++j) sum[j] = edge_sum[j] = hn::Zero(d);
  for (int k = 0; k < c.count; ++k) {
    const V tap = hn::Set(d, c.taps[k]);
    for (int j = 0; j < n; ++j) {
      const V v = hn::LoadU(d, c.rows[k] + x + j * lanes);
      sum[j] = hn::MulAdd(tap, v, sum[j]);
      if constexpr (kEdge)
        edge_sum[j] = hn::MulAdd(tap, hn::Mul(v, hn::LoadU(d, c.edge_rows[k] + x + j * lanes)), edge_sum[j]);
    }
  }
  for (int j = 0; j < n; ++j) {
    hn::StoreU(sum[j], d, c.out + x + j * lanes);
    if constexpr (kEdge) hn::StoreU(edge_sum[j], d, c.edge_out + x + j * lanes);
  }
}

template <bool kEdge, class T>
HWY_INLINE void combine_rows(const TdCombineRow<T> &c) {
  for_blocks<kEdge ? 4 : 8, T>(c.columns, [&](auto d, auto vectors, int64_t x)
                                              HWY_ATTR { combine_columns<kEdge, vectors()>(c, d, x); });
}

template <class T>
HWY_FLATTEN void td_combine(const TdCombineRow<T> &c) {
  c.edge_rows ? combine_rows<true>(c) : combine_rows<false>(c);
}

// h, and h_e if kEdge, of `n` vectors from column x on.
template <bool kEdge, int n, class T, class D, class V>
HWY_INLINE void filter_columns(const TdFilterRow<T> &f, D d, int64_t x, V *h, V *edge_h) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), first = x - f.size / 2;
  for (int j = 0; j < n; ++j) h[j] = edge_h[j] = hn::Zero(d);
  for (int k = 0; k < f.count; ++k) {
    const T *row = f.rows[k] + first, *edge_row = kEdge ? f.edge_rows[k] + first : nullptr;
    const T *taps = f.taps[k];
    for (int c = 0; c < f.size; ++c) {
      const V tap = hn::Set(d, taps[c]);
      for (int j = 0; j < n; ++j) {
        h[j] = hn::MulAdd(tap, hn::LoadU(d, row + c + j * lanes), h[j]);
        if constexpr (kEdge) edge_h[j] = hn::MulAdd(tap, hn::LoadU(d, edge_row + c + j * lanes), edge_h[j]);
      }
    }
  }
}

// use(d, x, value) for every vector of B v - e K.
template <bool kEdge, class T, class Use>
HWY_INLINE void for_values(const TdFilterRow<T> &f, Use use) {
  for_blocks<kEdge ? 4 : 8, T>(f.columns, [&](auto d, auto vectors, int64_t x) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    constexpr int n = vectors;
    V h[n], edge_h[n];
    filter_columns<kEdge, n>(f, d, x, h, edge_h);
    for (int j = 0; j < n; ++j) {
      const int64_t at = x + j * static_cast<int64_t>(hn::Lanes(d));
      const V sum = f.kernel_sum ? hn::LoadU(d, f.kernel_sum + at) : hn::Zero(d);
      if constexpr (kEdge)
        use(d, at, hn::MulAdd(hn::LoadU(d, f.edge + at), hn::Sub(h[j], sum), edge_h[j]));
      else
        use(d, at, hn::Sub(hn::Add(h[j], h[j]), sum));
    }
  });
}

template <class T>
HWY_FLATTEN void td_apply(const TdFilterRow<T> &f, T scale, const T *from, T *out) {
  const auto write = [&](auto d, int64_t x, auto value) HWY_ATTR {
    const auto start = from ? hn::LoadU(d, from + x) : hn::Zero(d);
    hn::StoreU(hn::MulAdd(hn::Set(d, scale), value, start), d, out + x);
  };
  f.edge_rows ? for_values<true>(f, write) : for_values<false>(f, write);
}

template <class T>
HWY_FLATTEN double td_dot(const TdFilterRow<T> &f, const T *factor) {
  Total<T> total;
  const auto add = [&](auto d, int64_t x, auto value)
                       HWY_ATTR { total.add(d, hn::Mul(hn::LoadU(d, factor + x), value)); };
  f.edge_rows ? for_values<true>(f, add) : for_values<false>(f, add);
  return total.get();
}

template <class T>
HWY_FLATTEN void td_add_product(const TdFilterRow<T> &f, T scale, const T *factor, T *out) {
  for_blocks<8, T>(f.columns, [&](auto d, auto vectors, int64_t x) HWY_ATTR {
    using V = hn::Vec<decltype(d)>;
    constexpr int n = vectors;
    V h[n], unused[n];
    filter_columns<false, n>(f, d, x, h, unused);
    for (int j = 0; j < n; ++j) {
      const int64_t at = x + j * static_cast<int64_t>(hn::Lanes(d));
      const V value = f.kernel_sum ? hn::Sub(h[j], hn::LoadU(d, f.kernel_sum + at)) : h[j];
      const V weight = hn::Mul(hn::Set(d, scale), hn::LoadU(d, factor + at));
      hn::StoreU(hn::MulAdd(weight, value, hn::LoadU(d, out + at)), d, out + at);
    }
  });
}

// Taps [c, c + n) of td_correlate: the factor is loaded once for n taps.
template <int n, class T>
HWY_INLINE void correlate_taps(int64_t columns, const T *factor, const T *row, double *sums) {
  Total<T> total[n];
  for_columns<T>(0, columns, [&](auto d, int64_t x) HWY_ATTR {
    const auto r = hn::LoadU(d, factor + x);
    for (int c = 0; c < n; ++c) total[c].add(d, hn::Mul(r, hn::LoadU(d, row + x + c)));
  });
  for (int c = 0; c < n; ++c) sums[c] += total[c].get();
}

template <class T>
void td_correlate(int64_t columns, int size, const T *factor, const T *row, double *sums) {
  const T *first = row - size / 2;
  int c = 0;
  for (; c + 4 <= size; c += 4) correlate_taps<4>(columns, factor, first + c, sums + c);
  for (; c < size; ++c) correlate_taps<1>(columns, factor, first + c, sums + c);
}

template <class T>
void td_weigh(int64_t columns, T scale, const T *v, const T *edge, const T *minus, T *out) {
  for_columns<T>(0, columns, [&](auto d, int64_t x) HWY_ATTR {
    auto value = hn::Mul(hn::Set(d, scale), hn::LoadU(d, v + x));
    if (edge) value = hn::Mul(value, hn::LoadU(d, edge + x));
    if (minus) value = hn::Sub(value, hn::LoadU(d, minus + x));
    hn::StoreU(value, d, out + x);
  });
}

template <class T>
TdRowKernels<T> td_table() {
  return {td_combine<T>, td_apply<T>, td_dot<T>, td_add_product<T>, td_correlate<T>, td_weigh<T>};
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softmax
HWY_AFTER_NAMESPACE();
#endif
