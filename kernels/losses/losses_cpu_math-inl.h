// The functions of losses_math.h on vectors. Included once per SIMD target.
#if defined(SEGPRIOR_LOSSES_CPU_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_LOSSES_CPU_MATH_INL_H
#undef SEGPRIOR_LOSSES_CPU_MATH_INL_H
#else
#define SEGPRIOR_LOSSES_CPU_MATH_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::losses {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using Vec = hn::Vec<Tag<T>>;

template <class T>
HWY_INLINE Vec<T> set(T value) {
  return hn::Set(Tag<T>(), value);
}
template <class T>
HWY_INLINE Vec<T> load(const T *row) {
  return hn::LoadU(Tag<T>(), row);
}
template <class T>
HWY_INLINE void store(Vec<T> value, T *row) {
  hn::StoreU(value, Tag<T>(), row);
}

// f(x) for the first column of every vector.
template <class T, class F>
HWY_INLINE void for_vectors(int64_t width, F f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag<T>()));
  for (int64_t x = 0; x < width; x += lanes) f(x);
}

template <class T>
HWY_INLINE void fill(T *row, T value, int64_t width) {
  for_vectors<T>(width, [&](int64_t x) HWY_ATTR { store(set(value), row + x); });
}

// x^g for 0 <= x <= 1. Other exponents than the usual ones by the logarithm, whose rounding costs about g |ln
// x| units in the last place.
template <class T>
HWY_INLINE Vec<T> power(Vec<T> x, T g) {
  if (g == T{2}) return hn::Mul(x, x);
  if (g == T{1}) return x;
  if (g == T{3}) return hn::Mul(x, hn::Mul(x, x));
  if (g == T{0}) return set(T{1});
  const Tag<T> d;
  const Vec<T> log = hn::CallLog(d, x);
  return hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)),
                            segprior::HWY_NAMESPACE::exp_nonpositive(d, hn::Mul(set(g), log)));
}

// (1 - S)^g (-ln S).
template <class T>
HWY_INLINE Vec<T> focal(Vec<T> complement, Vec<T> log_s, T g) {
  return hn::Neg(hn::Mul(power(complement, g), log_s));
}

// f' = steep - power / S of f = focal, the first being g (1 - S)^(g-1) ln S, the second (1 - S)^g.
template <class T>
struct FocalParts {
  Vec<T> steep, power;
};
template <class T>
HWY_INLINE FocalParts<T> focal_parts(Vec<T> complement, Vec<T> log_s, T g) {
  const Vec<T> whole = power(complement, g);
  const auto open = hn::Gt(complement, hn::Zero(Tag<T>()));
  // For g < 1, c^(g-1) grows without bound as c -> 0, but times ln S = -c + ... it tends to 0.
  const Vec<T> lower =
      g >= T{1} ? power(complement, g - T{1}) : hn::Div(whole, hn::IfThenElse(open, complement, set(T{1})));
  return {hn::IfThenElseZero(open, hn::Mul(hn::Mul(set(g), lower), log_s)), whole};
}

// S f'(S); S ln S -> 0 for S -> 0, even where ln S overflowed.
template <class T>
HWY_INLINE Vec<T> focal_slope(Vec<T> s, const FocalParts<T> &parts) {
  const auto positive = hn::Gt(s, hn::Zero(Tag<T>()));
  return hn::MulSub(s, hn::IfThenElseZero(positive, parts.steep), parts.power);
}

// FOCAL_DICE's h and dh/dS.
template <class T>
struct SharpVec {
  Vec<T> value, slope;
};
template <class T>
HWY_INLINE SharpVec<T> sharpen(Vec<T> s, T threshold, T g) {
  const Vec<T> zero = hn::Zero(Tag<T>()), one = set(T{1});
  const Vec<T> open = hn::Sub(s, set(threshold - T(0.5)));
  const Vec<T> z = hn::Min(hn::Max(open, zero), one), rest = hn::Sub(one, z);
  // By the ratio of the smaller of z, 1 - z to the larger: no power of both underflows at once.
  const Vec<T> large = hn::Max(z, rest), ratio = hn::Div(hn::Min(z, rest), large);
  const Vec<T> p = power(ratio, g), inverse = hn::Div(one, hn::Add(one, p)), scaled = hn::Div(inverse, large);
  const Vec<T> slope = hn::Mul(hn::Mul(set(g), power(ratio, g - T{1})), hn::Mul(scaled, scaled));
  const Vec<T> value = hn::Mul(hn::IfThenElse(hn::Gt(z, rest), one, p), inverse);
  const auto inside = hn::And(hn::Ge(open, zero), hn::Le(open, one));
  return {value, hn::IfThenElseZero(inside, slope)};
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::losses
HWY_AFTER_NAMESPACE();
#endif
