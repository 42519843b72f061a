// Vector exponential for highway code: float32 within 2 ulp, float64 within 2 ulp, for arguments <= 0.
// Included once per SIMD target (highway's toggle), after hwy/highway.h.
#if defined(SEGPRIOR_SIMD_EXP_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SIMD_EXP_INL_H
#undef SEGPRIOR_SIMD_EXP_INL_H
#else
#define SEGPRIOR_SIMD_EXP_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
struct ExpConstants;

// ln 2 is split so that n * ln2_hi is exact. P minimises the relative error of 1 + r + r^2 P(r) against e^r
// on |r| <= ln(2)/2 (Remez; 3.1e-9 in float32, 3.6e-18 in float64).
template <>
struct ExpConstants<float> {
  static constexpr float lowest = -87.33f, round = 12582912.0f;  // 1.5 * 2^23
  static constexpr float ln2_hi = 0.693359375f, ln2_lo = -2.12194440054690583e-4f;
  static constexpr int mantissa_bits = 23, terms = 5;
  static constexpr float p[terms] = {0.4999999344774600066f, 0.1666652063281671585f, 0.04166838809765399914f,
                                     0.008368716802893536568f, 0.001381459478720386298f};
};
template <>
struct ExpConstants<double> {
  static constexpr double lowest = -708.39, round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_hi = 0.693145751953125, ln2_lo = 1.42860682030941723212e-6;
  static constexpr int mantissa_bits = 52, terms = 10;
  static constexpr double p[terms] = {
      0.5000000000000010627,   0.1666666666666641262,    0.04166666666653016047,    0.00833333333349439852,
      0.001388888894362951904, 0.0001984126950671873007, 0.00002480149309952850485, 2.755758624692254588e-6,
      2.763024817117492071e-7, 2.500010210768237829e-8};
};

// exp(x) for x <= 0, -inf included. Results below the smallest normal number are 0: no denormals arise.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_nonpositive(D d, V x) {
  using T = hn::TFromD<D>;
  using C = ExpConstants<T>;
  const hn::RebindToSigned<D> di;
  const V lowest = hn::Set(d, C::lowest);
  const auto underflow = hn::Lt(x, lowest);
  const V clamped = hn::Max(x, lowest);
  // Adding 1.5 * 2^mantissa_bits rounds to an integer that then sits in the low bits.
  const V shifted =
      hn::MulAdd(clamped, hn::Set(d, static_cast<T>(1.44269504088896340736)), hn::Set(d, C::round));
  const V n = hn::Sub(shifted, hn::Set(d, C::round));
  V r = hn::NegMulAdd(n, hn::Set(d, C::ln2_hi), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, C::ln2_lo), r);
  V p = hn::Set(d, C::p[C::terms - 1]);
  for (int k = C::terms - 2; k >= 0; --k) p = hn::MulAdd(p, r, hn::Set(d, C::p[k]));
  const V mantissa = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(d, T{1}));
  const auto exponent = hn::ShiftLeft<C::mantissa_bits>(hn::BitCast(di, shifted));
  return hn::IfThenZeroElse(underflow, hn::BitCast(d, hn::Add(hn::BitCast(di, mantissa), exponent)));
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior
HWY_AFTER_NAMESPACE();
#endif
