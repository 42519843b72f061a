// Row kernels of the solvers, for highway code. Included once per SIMD target, after
// softcut_cpu_stencil-inl.h.
#if defined(SEGPRIOR_SOFTCUT_CPU_SOLVE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_SOLVE_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_SOLVE_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_SOLVE_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
HWY_INLINE Vec<T> all(T value) {
  return hn::Set(Tag<T>(), value);
}

// sum + norm_term(value)
template <class T>
HWY_INLINE Vec<T> add_norm(Norm norm, Vec<T> value, Vec<T> sum) {
  return norm == Norm::l2 ? hn::MulAdd(value, value, sum) : hn::Add(sum, hn::Abs(value));
}

template <class T>
Inspection inspect(const Span<T> &s, T *inverse_diagonal) {
  const Tag<T> d;
  return with_stencil(s, [&](auto stencil) HWY_ATTR {
    constexpr Stencil S = decltype(stencil)::value;
    const Vec<T> largest = all(std::numeric_limits<T>::max()), zero = hn::Zero(d);
    auto valid = hn::Eq(zero, zero);
    Vec<T> dominance = largest, least = largest, most = zero;
    for_span<T>(s, [&](const auto &b) HWY_ATTR {
      const Vec<T> conductance = b.or_else(s.conductance ? b.at(s.conductance) : all(T{1}), T{1});
      valid = hn::And(valid, hn::And(hn::Gt(conductance, zero), hn::Le(conductance, largest)));
      Vec<T> diagonal = conductance;
      for_weights<S>(s, b, true, [&](Vec<T> weight) HWY_ATTR {
        valid = hn::And(valid, hn::And(hn::Ge(weight, zero), hn::Le(weight, largest)));
        diagonal = hn::Add(diagonal, weight);
      });
      for_weights<S>(s, b, false, [&](Vec<T> weight) HWY_ATTR { diagonal = hn::Add(diagonal, weight); });
      const Vec<T> inverse = hn::Div(all(T{1}), diagonal);
      if (inverse_diagonal) b.store(inverse, inverse_diagonal);
      dominance = hn::Min(dominance, hn::Mul(conductance, inverse));
      least = hn::Min(least, b.or_else(diagonal, std::numeric_limits<T>::max()));
      most = hn::Max(most, b.or_else(diagonal, T{0}));
    });
    const auto lowest = [&](Vec<T> v) HWY_ATTR { return hn::GetLane(hn::MinOfLanes(d, v)); };
    return Inspection{
        hn::AllTrue(d, valid), lowest(dominance), {lowest(least), hn::GetLane(hn::MaxOfLanes(d, most))}};
  });
}

template <class T>
T max_abs(int64_t n, const T *in) {
  const Tag<T> d;
  Vec<T> most = hn::Zero(d);
  auto ordered = hn::Eq(most, most);
  for_elements<T>(n, [&](const auto &b) HWY_ATTR {
    const Vec<T> value = b.at(in);
    ordered = hn::And(ordered, hn::Eq(value, value));
    most = hn::Max(most, hn::Abs(value));
  });
  return hn::AllTrue(d, ordered) ? hn::GetLane(hn::MaxOfLanes(d, most)) : std::numeric_limits<T>::infinity();
}

template <class T>
void divide(int64_t n, const T *in, const T *d, T *out) {
  for_elements<T>(n, [&](const auto &b) HWY_ATTR {
    b.store(d ? hn::Div(b.at(in), b.or_else(b.at(d), T{1})) : b.at(in), out);
  });
}

template <class T>
Sums residual(const Span<T> &span, Norm norm, T scale, const T *rhs, const T *x, const T *inverse_diagonal,
              T *r) {
  return with_stencil(span, [&](auto stencil) HWY_ATTR {
    constexpr Stencil S = decltype(stencil)::value;
    const Span<T> s = span;  // a copy, which stores cannot change
    const Vec<T> factor = all(scale);
    Vec<T> sum = all(T{0}), product = sum, rhs_sum = sum;
    for_span<T>(s, [&](const auto &b) HWY_ATTR {
      const Vec<T> p = b.at(rhs), value = hn::Mul(factor, hn::Sub(p, apply_block<S>(s, b, x)));
      if (r) b.store(value, r);
      const Vec<T> z = inverse_diagonal ? hn::Mul(value, b.at(inverse_diagonal)) : value;
      sum = add_norm<T>(norm, value, sum);
      product = hn::MulAdd(value, z, product);
      rhs_sum = add_norm<T>(norm, hn::Mul(factor, p), rhs_sum);
    });
    return Sums{sum_of<T>(sum), sum_of<T>(product), sum_of<T>(rhs_sum)};
  });
}

template <class T>
void direction(int64_t n, bool first, T alpha, T beta, const T *z, const T *inverse_diagonal, T *p, T *x) {
  const Vec<T> a = all(alpha), c = all(beta);
  for_elements<T>(n, [&](const auto &b) HWY_ATTR {
    Vec<T> value = b.at(z);
    if (inverse_diagonal) value = hn::Mul(value, b.at(inverse_diagonal));
    if (!first) {
      const Vec<T> old = b.at(p);
      b.store(hn::MulAdd(a, old, b.at(x)), x);
      value = hn::MulAdd(c, old, value);
    }
    b.store(value, p);
  });
}

template <class T>
double apply(const Span<T> &span, const T *p, T *q) {
  return with_stencil(span, [&](auto stencil) HWY_ATTR {
    constexpr Stencil S = decltype(stencil)::value;
    const Span<T> s = span;  // a copy, which stores cannot change
    Vec<T> product = all(T{0});
    for_span<T>(s, [&](const auto &b) HWY_ATTR {
      const Vec<T> value = apply_block<S>(s, b, p);
      b.store(value, q);
      product = hn::MulAdd(value, b.at(p), product);
    });
    return sum_of<T>(product);
  });
}

template <class T>
Sums update(int64_t n, Norm norm, T alpha, const T *q, const T *inverse_diagonal, T *r) {
  const Vec<T> a = all(alpha);
  Vec<T> sum = all(T{0}), product = sum;
  for_elements<T>(n, [&](const auto &b) HWY_ATTR {
    const Vec<T> value = hn::NegMulAdd(a, b.at(q), b.at(r));
    b.store(value, r);
    product = hn::MulAdd(value, inverse_diagonal ? hn::Mul(value, b.at(inverse_diagonal)) : value, product);
    sum = add_norm<T>(norm, value, sum);
  });
  return {sum_of<T>(sum), sum_of<T>(product), 0};
}

template <class T>
void add(int64_t n, T alpha, const T *x, T *y) {
  const Vec<T> a = all(alpha);
  for_elements<T>(n, [&](const auto &b) HWY_ATTR { b.store(hn::MulAdd(a, b.at(x), b.at(y)), y); });
}

template <class T>
void chebyshev(const Span<T> &span, T momentum, T step, const T *rhs, const T *inverse_diagonal, const T *x,
               T *other) {
  with_stencil(span, [&](auto stencil) HWY_ATTR {
    constexpr Stencil S = decltype(stencil)::value;
    const Span<T> s = span;  // a copy, which stores cannot change
    const Vec<T> m = all(momentum), h = all(step);
    for_span<T>(s, [&](const auto &b) HWY_ATTR {
      const Vec<T> centre = b.at(x), r = hn::Sub(b.at(rhs), apply_block<S>(s, b, x));
      const Vec<T> ahead = hn::MulAdd(m, hn::Sub(centre, b.at(other)), centre);
      b.store(hn::MulAdd(hn::Mul(h, b.at(inverse_diagonal)), r, ahead), other);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut
HWY_AFTER_NAMESPACE();
#endif
