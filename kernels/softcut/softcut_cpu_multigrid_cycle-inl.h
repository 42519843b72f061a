// Row kernels of a V-cycle. Included once per SIMD target by softcut_cpu_multigrid_rows.cpp.
#if defined(SEGPRIOR_SOFTCUT_CPU_MULTIGRID_CYCLE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_SOFTCUT_CPU_MULTIGRID_CYCLE_INL_H
#undef SEGPRIOR_SOFTCUT_CPU_MULTIGRID_CYCLE_INL_H
#else
#define SEGPRIOR_SOFTCUT_CPU_MULTIGRID_CYCLE_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace segprior::softcut::multigrid {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kPad>;
using FloatVec = hn::Vec<Floats>;

// f(x) for the first column of every vector of a row.
template <class F>
HWY_INLINE void for_vectors(int64_t columns, F f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  for (int64_t x = 0; x < columns; x += lanes) f(x);
}

// The even and the odd columns of two successive vectors.
HWY_INLINE void split(FloatVec low, FloatVec high, FloatVec &even, FloatVec &odd) {
#if HWY_TARGET == HWY_SCALAR
  even = low, odd = high;
#else
  even = hn::ConcatEven(Floats(), high, low), odd = hn::ConcatOdd(Floats(), high, low);
#endif
}

// f(tag of the number of neighbours): a compile-time number for those that occur.
template <class F>
HWY_INLINE void with_count(int count, F f) {
  switch (count) {
    case 2:
      return f(std::integral_constant<int, 2>());
    case 4:
      return f(std::integral_constant<int, 4>());
    case 6:
      return f(std::integral_constant<int, 6>());
    case 8:
      return f(std::integral_constant<int, 8>());
    case 26:
      return f(std::integral_constant<int, 26>());
    default:
      return f(std::integral_constant<int, 0>());
  }
}

// Pointers of one call in locals: the compiler must know that no store of the loop changes them.
template <int N>
struct LocalNeighbours {
  const float *g[N + 1], *e[N + 1];
  HWY_INLINE LocalNeighbours(const Neighbours &n, int64_t shift) {
    for (int k = 0; k < N; ++k) g[k] = n.g[k], e[k] = n.e[k] + shift;
  }
  HWY_INLINE FloatVec sum(FloatVec sum, int64_t x) const {
    const Floats d;
    for (int k = 0; k < N; ++k) sum = hn::MulAdd(hn::LoadU(d, g[k] + x), hn::LoadU(d, e[k] + x), sum);
    return sum;
  }
};

inline void start(int64_t columns, const float *relaxation, const float *r, float *e) {
  const Floats d;
  for_vectors(columns, [&](int64_t x) HWY_ATTR {
    hn::Store(hn::Mul(hn::Load(d, relaxation + x), hn::Load(d, r + x)), d, e + x);
  });
}

inline void residual(int64_t columns, const Neighbours &neighbours, int64_t shift, const float *keep,
                     const float *r, SplitRow out) {
  with_count(neighbours.count, [&](auto count) HWY_ATTR {
    const LocalNeighbours<count()> local(neighbours, shift);
    const Floats d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    float *even = out.even, *odd = out.odd;
    const int64_t half = (columns + 1) / 2;
    for (int64_t j = 0; j < half; j += lanes) {
      const int64_t x = 2 * j;
      const FloatVec a = local.sum(hn::Mul(hn::Load(d, keep + x), hn::Load(d, r + x)), x);
      const FloatVec b =
          local.sum(hn::Mul(hn::Load(d, keep + x + lanes), hn::Load(d, r + x + lanes)), x + lanes);
      FloatVec e, o;
      split(a, b, e, o);
      hn::Store(e, d, even + j);
      hn::Store(o, d, odd + j);
    }
  });
}

inline void restrict_row(int64_t columns, const Restriction &rows, int64_t shift, float *coarse) {
  const auto work = [&](auto count) HWY_ATTR {
    constexpr int kRows = count();
    const Floats d;
    const float *values_even[kRows], *values_odd[kRows], *even[kRows], *left[kRows], *right[kRows];
    for (int k = 0; k < kRows; ++k) {
      values_even[k] = rows.values_even[k] + shift, values_odd[k] = rows.values_odd[k] + shift;
      even[k] = rows.even[k], left[k] = rows.left[k], right[k] = rows.right[k];
    }
    for_vectors(columns, [&](int64_t j) HWY_ATTR {
      FloatVec sum = hn::Zero(d);
      for (int k = 0; k < kRows; ++k) {
        sum = hn::MulAdd(hn::Load(d, even[k] + j), hn::Load(d, values_even[k] + j), sum);
        sum = hn::MulAdd(hn::Load(d, left[k] + j), hn::Load(d, values_odd[k] + j), sum);
        sum = hn::MulAdd(hn::LoadU(d, right[k] + j - 1), hn::LoadU(d, values_odd[k] + j - 1), sum);
      }
      hn::Store(sum, d, coarse + j);
    });
  };
  if (rows.count == 1) return work(std::integral_constant<int, 1>());
  if (rows.count == 3) return work(std::integral_constant<int, 3>());
  return work(std::integral_constant<int, 9>());
}

inline void correct(int64_t columns, const Prolongation &p, int64_t shift, const float *relaxation,
                    const float *r, float *e) {
  const auto work = [&](auto count) HWY_ATTR {
    constexpr int kCorners = count();
    const Floats d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const float *even_weights[kCorners], *left[kCorners], *right[kCorners], *coarse[kCorners];
    for (int c = 0; c < kCorners; ++c) {
      even_weights[c] = p.weights.even + c * p.pitch, left[c] = p.weights.left + c * p.pitch;
      right[c] = p.weights.right + c * p.pitch, coarse[c] = p.coarse[c] + shift;
    }
    for (int64_t j = 0; j < (columns + 1) / 2; j += lanes) {
      const int64_t x = 2 * j;
      const FloatVec low = hn::Mul(hn::Load(d, relaxation + x), hn::Load(d, r + x));
      const FloatVec high = hn::Mul(hn::Load(d, relaxation + x + lanes), hn::Load(d, r + x + lanes));
      FloatVec even, odd;
      split(low, high, even, odd);
      for (int c = 0; c < kCorners; ++c) {
        const FloatVec here = hn::Load(d, coarse[c] + j);
        even = kCorners == 1 ? hn::Add(here, even) : hn::MulAdd(hn::Load(d, even_weights[c] + j), here, even);
        odd = hn::MulAdd(hn::Load(d, left[c] + j), here, odd);
        odd = hn::MulAdd(hn::Load(d, right[c] + j), hn::LoadU(d, coarse[c] + j + 1), odd);
      }
      hn::StoreInterleaved2(even, odd, d, e + x);
    }
  };
  if (!p.coarse[0]) return start(columns, relaxation, r, e);
  if (p.weights.corners == 1) return work(std::integral_constant<int, 1>());
  if (p.weights.corners == 2) return work(std::integral_constant<int, 2>());
  return work(std::integral_constant<int, 4>());
}

inline void relax(int64_t columns, const Neighbours &neighbours, int64_t shift, const float *relaxation,
                  const float *keep, const float *r, const float *e, float *out) {
  with_count(neighbours.count, [&](auto count) HWY_ATTR {
    const LocalNeighbours<count()> local(neighbours, shift);
    const Floats d;
    for_vectors(columns, [&](int64_t x) HWY_ATTR {
      const FloatVec sum = local.sum(hn::Load(d, r + x), x);
      hn::Store(
          hn::MulAdd(hn::Load(d, relaxation + x), sum, hn::Mul(hn::Load(d, keep + x), hn::Load(d, e + x))), d,
          out + x);
    });
  });
}

// f(d, x) over columns [0, columns): whole vectors, then single lanes. Never touches what lies past the end.
template <class T, class F>
HWY_INLINE void for_columns(int64_t columns, F f) {
  const hn::CappedTag<T, kPad> d;
  const hn::CappedTag<T, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t x = 0;
  for (; x + lanes <= columns; x += lanes) f(d, x);
  for (; x < columns; ++x) f(d1, x);
}

template <class T>
T max_abs(int64_t n, const T *values) {
  const hn::CappedTag<T, kPad> whole;
  auto max = hn::Zero(whole);
  T tail = 0;
  for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
    const auto value = hn::Abs(hn::LoadU(d, values + x));
    if constexpr (hn::MaxLanes(d) == 1)
      tail = std::max(tail, hn::GetLane(value));
    else
      max = hn::Max(max, value);
  });
  return std::max(tail, hn::GetLane(hn::MaxOfLanes(whole, max)));
}

template <class D, class T>
HWY_INLINE void store_narrow(D d, hn::Vec<D> value, T *to) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(T))
    hn::StoreU(value, d, to);
  else
    hn::StoreU(hn::DemoteTo(hn::Rebind<float, D>(), value), hn::Rebind<float, D>(), to);
}
template <class D>
HWY_INLINE hn::Vec<D> load_widened(D d, const float *from) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(float))
    return hn::LoadU(d, from);
  else
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), from));
}

// Rows of one right-hand side follow one another in memory, but are worked on in turn with the others': the
// hardware's prefetcher starts anew at each row and comes too late. Hence the prefetches, which may point
// past the end.
template <class T>
void load(int64_t columns, const T *from, T scale, float *to) {
  for_columns<T>(columns, [&](auto d, int64_t x) HWY_ATTR {
    __builtin_prefetch(from + x + columns);
    store_narrow(d, hn::Mul(hn::LoadU(d, from + x), hn::Set(d, scale)), to + x);
  });
}

// The sum goes over into a double every so many columns: rows may be long.
template <class T>
double store(int64_t columns, const float *from, T scale, const T *r, T *to) {
  constexpr int64_t kBlock = 1024;
  const hn::CappedTag<T, kPad> whole;
  double dot = 0;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    auto sum = hn::Zero(whole);
    for_columns<T>(std::min(kBlock, columns - begin), [&](auto d, int64_t i) HWY_ATTR {
      const int64_t x = begin + i;
      __builtin_prefetch(to + x + columns, 1);
      const auto z = hn::Mul(load_widened(d, from + x), hn::Set(d, scale));
      hn::StoreU(z, d, to + x);
      if constexpr (hn::MaxLanes(d) == 1)
        dot += static_cast<double>(hn::GetLane(z)) * r[x];
      else
        sum = hn::MulAdd(z, hn::LoadU(d, r + x), sum);
    });
    dot += hn::GetLane(hn::SumOfLanes(whole, sum));
  }
  return dot;
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::softcut::multigrid
HWY_AFTER_NAMESPACE();
#endif
