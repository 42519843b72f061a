// Row kernels that build a hierarchy. Included once per SIMD target by softcut_cpu_multigrid_rows.cpp.
#if defined(SEGPRIOR_SOFTCUT_CPU_MULTIGRID_BUILD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_MULTIGRID_BUILD_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_MULTIGRID_BUILD_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_MULTIGRID_BUILD_INL_H
#endif

#include "kernels/softcut/softcut_cpu_multigrid_cycle-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut::multigrid {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// a / b where b > 0, else 0: rounding must not turn a vanishing diagonal into Inf.
HWY_INLINE FloatVec divide_or_zero(FloatVec a, FloatVec b) {
  const Floats d;
  const auto positive = hn::Gt(b, hn::Zero(d));
  return hn::IfThenElseZero(positive, hn::Div(a, hn::IfThenElse(positive, b, hn::Set(d, 1.0f))));
}

inline float diagonal(int64_t columns, const Neighbours &neighbours, const float *excess, float *relaxation,
                      float *keep, float *minus_diagonal) {
  const Floats d;
  FloatVec max = hn::Zero(d);
  with_count(neighbours.count, [&](auto count) HWY_ATTR {
    constexpr int kCount = count();
    const LocalNeighbours<kCount> local(neighbours, 0);
    for_vectors(columns, [&](int64_t x) HWY_ATTR {
      FloatVec sum = hn::Load(d, excess + x), magnitude = hn::Zero(d);
      for (int k = 0; k < kCount; ++k) {
        const FloatVec g = hn::LoadU(d, local.g[k] + x);
        sum = hn::Add(sum, g);
        magnitude = hn::Add(magnitude, hn::Abs(g));
      }
      const FloatVec bound = hn::Mul(hn::Add(sum, magnitude), hn::Set(d, 1 / kSpectrum));
      const FloatVec inverse = divide_or_zero(hn::Set(d, kOmega), hn::Max(sum, bound));
      hn::Store(inverse, d, relaxation + x);
      if (keep) hn::Store(hn::NegMulAdd(inverse, sum, hn::Set(d, 1.0f)), d, keep + x);
      hn::Store(hn::Neg(sum), d, minus_diagonal + x);
      max = hn::Max(max, divide_or_zero(magnitude, sum));
    });
  });
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

// Couplings towards each neighbour of the even and the odd voxels of one vector of coarse columns.
template <int ND, class F>
HWY_INLINE void for_couplings(const InterpolationRow &row, int64_t j, F f) {
  const Floats d;
  constexpr int kSlab = ND >= 2, kRow = ND >= 3;
  for (int slab = -kSlab; slab <= kSlab; ++slab)
    for (int y = -kRow; y <= kRow; ++y)
      for (int column = -1; column <= 1; ++column) {
        if (slab == 0 && y == 0 && column == 0) continue;
        FloatVec even, odd;
        hn::LoadInterleaved2(d, row.g[direction(slab, y, column)] + 2 * j, even, odd);
        f(slab, y, column, even, odd);
      }
}

// Index of a corner of the row of weights that remains odd along the axes in which the step p is 0.
template <bool SLAB, bool ROW>
constexpr int corner_of(int p_slab, int p_row, int corner_slab, int corner_row) {
  const bool slab = SLAB && p_slab == 0, row = ROW && p_row == 0;
  return (slab && corner_slab > 0 ? (row ? 2 : 1) : 0) + (row && corner_row > 0 ? 1 : 0);
}

// The patterns of steps along the row's odd axes: (slab, row), each 0 or, along an odd axis, the corner's
// side.
template <int ND, bool SLAB, bool ROW>
void interpolate_even_of(const InterpolationRow &row) {
  const Floats d;
  if constexpr (!SLAB && !ROW) {  // coarse voxels
    for_vectors(row.columns,
                [&](int64_t j) HWY_ATTR { hn::Store(hn::Zero(d), d, row.deficit[1][1].even + j); });
  } else {
    constexpr int kS = SLAB, kR = ROW;
    for_vectors(row.columns, [&](int64_t j) HWY_ATTR {
      FloatVec g[3][3], excess, odd_excess;
      for (auto &line : g)
        for (auto &value : line) value = hn::Zero(d);
      for_couplings<ND>(row, j, [&](int slab, int y, int, FloatVec even, FloatVec) HWY_ATTR {
        FloatVec &sum = g[SLAB ? slab + 1 : 1][ROW ? y + 1 : 1];
        sum = hn::Add(sum, even);
      });
      hn::LoadInterleaved2(d, row.excess + 2 * j, excess, odd_excess);
      FloatVec centre = excess, missing = excess;
      for (int s = -kS; s <= kS; ++s)
        for (int r = -kR; r <= kR; ++r) {
          if (s == 0 && r == 0) continue;
          centre = hn::Add(centre, g[s + 1][r + 1]);
          missing = hn::MulAdd(g[s + 1][r + 1], hn::Load(d, row.deficit[s + 1][r + 1].even + j), missing);
        }
      const FloatVec inverse = divide_or_zero(hn::Set(d, 1.0f), centre);
      hn::Store(hn::Mul(missing, inverse), d, row.deficit[1][1].even + j);
      int corner = 0;
      for (int cs = -kS; cs <= kS; cs += 2 - (kS == 0))
        for (int cr = -kR; cr <= kR; cr += 2 - (kR == 0), ++corner) {
          FloatVec sum = hn::Zero(d);
          for (int ps = 0; ps <= kS; ++ps)
            for (int pr = 0; pr <= kR; ++pr) {
              if (ps == 0 && pr == 0) continue;
              const int s = ps * cs, r = pr * cr;
              const Weights<float> &from = row.weights[s + 1][r + 1];
              const float *weight = from.even + corner_of<SLAB, ROW>(s, r, cs, cr) * row.pitch;
              sum = hn::MulAdd(g[s + 1][r + 1], hn::Load(d, weight + j), sum);
            }
          hn::Store(hn::Mul(sum, inverse), d, row.weights[1][1].even + corner * row.pitch + j);
        }
    });
  }
}

template <int ND, bool SLAB, bool ROW>
void interpolate_odd_of(const InterpolationRow &row) {
  const Floats d;
  constexpr int kS = SLAB, kR = ROW;
  for_vectors(row.columns, [&](int64_t j) HWY_ATTR {
    FloatVec g[3][3][3], even_excess, excess;
    for (auto &plane : g)
      for (auto &line : plane)
        for (auto &value : line) value = hn::Zero(d);
    for_couplings<ND>(row, j, [&](int slab, int y, int column, FloatVec, FloatVec odd) HWY_ATTR {
      FloatVec &sum = g[SLAB ? slab + 1 : 1][ROW ? y + 1 : 1][column + 1];
      sum = hn::Add(sum, odd);
    });
    hn::LoadInterleaved2(d, row.excess + 2 * j, even_excess, excess);
    FloatVec centre = excess, missing = excess;
    for (int s = -kS; s <= kS; ++s)
      for (int r = -kR; r <= kR; ++r) {
        const SplitRow deficit = row.deficit[s + 1][r + 1];
        const FloatVec *here = g[s + 1][r + 1];
        centre = hn::Add(centre, hn::Add(here[0], here[2]));
        missing = hn::MulAdd(here[0], hn::Load(d, deficit.even + j), missing);
        missing = hn::MulAdd(here[2], hn::LoadU(d, deficit.even + j + 1), missing);
        if (s == 0 && r == 0) continue;
        centre = hn::Add(centre, here[1]);
        missing = hn::MulAdd(here[1], hn::Load(d, deficit.odd + j), missing);
      }
    const FloatVec inverse = divide_or_zero(hn::Set(d, 1.0f), centre);
    hn::Store(hn::Mul(missing, inverse), d, row.deficit[1][1].odd + j);
    int corner = 0;
    for (int cs = -kS; cs <= kS; cs += 2 - (kS == 0))
      for (int cr = -kR; cr <= kR; cr += 2 - (kR == 0), ++corner) {
        FloatVec left = hn::Zero(d), right = left;
        for (int ps = 0; ps <= kS; ++ps)
          for (int pr = 0; pr <= kR; ++pr) {
            const int s = ps * cs, r = pr * cr;
            const FloatVec *here = g[s + 1][r + 1];
            const Weights<float> &from = row.weights[s + 1][r + 1];
            const int64_t at = corner_of<SLAB, ROW>(s, r, cs, cr) * row.pitch + j;
            left = hn::MulAdd(here[0], hn::Load(d, from.even + at), left);
            right = hn::MulAdd(here[2], hn::LoadU(d, from.even + at + 1), right);
            if (ps == 0 && pr == 0) continue;
            left = hn::MulAdd(here[1], hn::Load(d, from.left + at), left);
            right = hn::MulAdd(here[1], hn::Load(d, from.right + at), right);
          }
        const int64_t at = corner * row.pitch + j;
        hn::Store(hn::Mul(left, inverse), d, row.weights[1][1].left + at);
        hn::Store(hn::Mul(right, inverse), d, row.weights[1][1].right + at);
      }
  });
}

template <int ND>
void row_sums_of(const InterpolationRow &row, SplitRow out) {
  const Floats d;
  for_vectors(row.columns, [&](int64_t j) HWY_ATTR {
    const FloatVec even = hn::Load(d, row.deficit[1][1].even + j),
                   odd = hn::Load(d, row.deficit[1][1].odd + j);
    FloatVec even_sum, odd_sum;
    hn::LoadInterleaved2(d, row.excess + 2 * j, even_sum, odd_sum);
    even_sum = hn::NegMulAdd(even_sum, even, even_sum);
    odd_sum = hn::NegMulAdd(odd_sum, odd, odd_sum);
    for_couplings<ND>(row, j, [&](int slab, int y, int column, FloatVec even_g, FloatVec odd_g) HWY_ATTR {
      const SplitRow there = row.deficit[slab + 1][y + 1];
      const FloatVec even_there = column == 0  ? hn::Load(d, there.even + j)
                                  : column < 0 ? hn::LoadU(d, there.odd + j - 1)
                                               : hn::Load(d, there.odd + j);
      const FloatVec odd_there = column == 0  ? hn::Load(d, there.odd + j)
                                 : column < 0 ? hn::Load(d, there.even + j)
                                              : hn::LoadU(d, there.even + j + 1);
      even_sum = hn::MulAdd(even_g, hn::Sub(even_there, even), even_sum);
      odd_sum = hn::MulAdd(odd_g, hn::Sub(odd_there, odd), odd_sum);
    });
    hn::Store(even_sum, d, out.even + j);
    hn::Store(odd_sum, d, out.odd + j);
  });
}

// f(tags of the number of axes and of the row's parities), for those that can be.
template <class F>
HWY_INLINE void with_parity(const InterpolationRow &row, F f) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  using Three = std::integral_constant<int, 3>;
  using No = std::false_type;
  using Yes = std::true_type;
  if (row.nd == 1) return f(One(), No(), No());
  if (row.nd == 2) return row.odd_slab ? f(Two(), Yes(), No()) : f(Two(), No(), No());
  if (row.odd_slab) return row.odd_row ? f(Three(), Yes(), Yes()) : f(Three(), Yes(), No());
  return row.odd_row ? f(Three(), No(), Yes()) : f(Three(), No(), No());
}

inline void interpolate_even(const InterpolationRow &row) {
  with_parity(row, [&](auto nd, auto slab, auto y) HWY_ATTR { interpolate_even_of<nd(), slab(), y()>(row); });
}
inline void interpolate_odd(const InterpolationRow &row) {
  with_parity(row, [&](auto nd, auto slab, auto y) HWY_ATTR { interpolate_odd_of<nd(), slab(), y()>(row); });
}
inline void row_sums(const InterpolationRow &row, SplitRow out) {
  if (row.nd == 1) return row_sums_of<1>(row, out);
  if (row.nd == 2) return row_sums_of<2>(row, out);
  return row_sums_of<3>(row, out);
}

// The fine voxels under the coarse column J are m, o, p = 2J - 1, 2J, 2J + 1, and their neighbours 2J - 2 ..
// 2J + 2.
template <bool SIDES, bool BACK>
void galerkin_of(const GalerkinTerm &t) {
  const Floats d;
  const float *a[3] = {t.a[0], t.a[1], t.a[2]};
  float *coupling[3] = {t.coupling[0], t.coupling[1], t.coupling[2]};
  const float *p_even = t.p_even, *p_left = t.p_left, *p_right = t.p_right;
  const float *q_even = t.q_even, *q_left = t.q_left, *q_right = t.q_right;
  for_vectors(t.columns, [&](int64_t j) HWY_ATTR {
    const FloatVec pm = hn::LoadU(d, p_right + j - 1), po = hn::Load(d, p_even + j),
                   pp = hn::Load(d, p_left + j);
    const FloatVec right = hn::Load(d, q_right + j), next = hn::LoadU(d, q_even + j + 1);
    FloatVec m, o, p, other;
    hn::LoadInterleaved2(d, a[1] + 2 * j, o, p);
    FloatVec ahead = hn::Mul(pp, hn::Mul(p, right)), here, behind;
    if constexpr (BACK) {
      const FloatVec back_left = hn::LoadU(d, q_left + j - 1), back_right = hn::LoadU(d, q_right + j - 1);
      hn::LoadInterleaved2(d, a[1] + 2 * j - 2, other, m);
      const FloatVec m_weight = hn::Mul(pm, m);
      here = hn::Mul(m_weight, back_right);
      here = hn::MulAdd(hn::Mul(po, o), hn::Load(d, q_even + j), here);
      here = hn::MulAdd(hn::Mul(pp, p), hn::Load(d, q_left + j), here);
      behind = hn::Mul(m_weight, back_left);
    }
    if constexpr (SIDES) {
      hn::LoadInterleaved2(d, a[2] + 2 * j, o, p);
      ahead = hn::MulAdd(hn::Mul(po, o), right, ahead);
      ahead = hn::MulAdd(hn::Mul(pp, p), next, ahead);
      if constexpr (BACK) {
        const FloatVec even = hn::Load(d, q_even + j);
        here = hn::MulAdd(hn::Mul(po, o), hn::Load(d, q_left + j), here);
        hn::LoadInterleaved2(d, a[2] + 2 * j - 2, other, m);
        here = hn::MulAdd(hn::Mul(pm, m), even, here);
        hn::LoadInterleaved2(d, a[0] + 2 * j, o, p);
        here = hn::MulAdd(hn::Mul(po, o), hn::LoadU(d, q_right + j - 1), here);
        here = hn::MulAdd(hn::Mul(pp, p), even, here);
        hn::LoadInterleaved2(d, a[0] + 2 * j - 2, other, m);
        behind = hn::MulAdd(hn::Mul(po, o), hn::LoadU(d, q_left + j - 1), behind);
        behind = hn::MulAdd(hn::Mul(pm, m), hn::LoadU(d, q_even + j - 1), behind);
      }
    }
    hn::Store(hn::Add(hn::Load(d, coupling[2] + j), ahead), d, coupling[2] + j);
    if constexpr (BACK) {
      hn::Store(hn::Add(hn::Load(d, coupling[1] + j), here), d, coupling[1] + j);
      hn::Store(hn::Add(hn::Load(d, coupling[0] + j), behind), d, coupling[0] + j);
    }
  });
}

inline void galerkin(const GalerkinTerm &t) {
  if (t.a[0]) return t.coupling[0] ? galerkin_of<true, true>(t) : galerkin_of<true, false>(t);
  return t.coupling[0] ? galerkin_of<false, true>(t) : galerkin_of<false, false>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut::multigrid
HWY_AFTER_NAMESPACE();
#endif
