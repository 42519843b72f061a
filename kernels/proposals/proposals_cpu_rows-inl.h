// The passes of proposals_cpu_rows.cpp. Included once per SIMD target. Blocks begin at fixed columns, so the
// sums do not depend on how chunks are spread over threads.
#if defined(SEGPRIOR_PROPOSALS_CPU_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_PROPOSALS_CPU_ROWS_INL_H
#undef SEGPRIOR_PROPOSALS_CPU_ROWS_INL_H
#else
#define SEGPRIOR_PROPOSALS_CPU_ROWS_INL_H
#endif

#include <algorithm>
#include <type_traits>

#include "kernels/common/half.h"
#include "kernels/common/simd_exp-inl.h"
#include "kernels/proposals/proposals_math.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::proposals {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// f(d, x) over columns [0, n): whole vectors, then groups of 4, then single lanes.
template <class T, class F>
HWY_INLINE void for_columns(int64_t n, F f) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 4> d4;
  const hn::CappedTag<T, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), lanes4 = static_cast<int64_t>(hn::Lanes(d4));
  int64_t x = 0;
  for (; x + lanes <= n; x += lanes) f(d, x);
  for (; x + lanes4 <= n; x += lanes4) f(d4, x);
  for (; x < n; ++x) f(d1, x);
}

// Columns that are added up in T: in float32 a lane's roundings all have one sign where Q is constant, so
// there may only be a few of them (8 with AVX-512, 32 with SSE4).
template <class T>
constexpr int64_t kFold = sizeof(T) == sizeof(float) ? 128 : kChunk;

// Adds vectors of any width up to a double total: whole vectors lane by lane first, then once.
template <class T>
class Total {
 public:
  HWY_INLINE Total() : lanes_(hn::Zero(hn::ScalableTag<T>())), tail_(0) {}

  template <class D, class V>
  HWY_INLINE void add(D d, V value) {
    if constexpr (hn::MaxLanes(D()) == hn::MaxLanes(hn::ScalableTag<T>()))
      lanes_ = hn::Add(lanes_, value);
    else
      tail_ += hn::GetLane(hn::SumOfLanes(d, value));
  }
  HWY_INLINE double get() const { return hn::GetLane(hn::SumOfLanes(hn::ScalableTag<T>(), lanes_)) + tail_; }

 private:
  hn::Vec<hn::ScalableTag<T>> lanes_;
  double tail_;
};

// One block of columns in a thread's scratch: exp(z_i + f_i - max) of all classes, 1 / sum of them (0 at
// masked voxels).
template <class T>
struct Block {
  int64_t stride;
  T *values, *max, *inverse, *valid, *wide;

  HWY_INLINE Block(int64_t classes, T *scratch) : stride(block_columns<T>(classes)), values(scratch) {
    max = values + classes * stride;
    inverse = max + stride;
    valid = inverse + stride;
    wide = valid + stride;
  }
};

// Columns [begin, begin + n) of one class's row, as T.
template <class T>
HWY_INLINE const T *row(const Image<T> &image, int64_t i, int64_t begin, int64_t n, T *wide) {
  const int64_t at = i * image.voxels + begin;
  if constexpr (std::is_same<T, float>::value) {
    if (image.storage != Storage::f32) {
      const uint16_t *from = static_cast<const uint16_t *>(image.logits) + at;
      if (image.storage == Storage::f16)
        for (int64_t x = 0; x < n; ++x) wide[x] = Half::widen(from[x]);
      else
        for (int64_t x = 0; x < n; ++x) wide[x] = Bfloat::widen(from[x]);
      return wide;
    }
  }
  return static_cast<const T *>(image.logits) + at;
}

// Fills the block; returns 0, or NaN if a logit of a valid voxel is not finite.
template <class T>
HWY_INLINE double load(const Image<T> &image, int64_t begin, int64_t n, const Block<T> &b) {
  Total<T> finite;
  if (image.mask)
    for (int64_t x = 0; x < n; ++x) b.valid[x] = static_cast<T>(image.mask[begin + x] != 0);
  for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
    hn::StoreU(hn::Set(d, std::numeric_limits<T>::lowest()), d, b.max + x);
    hn::StoreU(hn::Zero(d), d, b.inverse + x);
  });
  for (int64_t i = 0; i < image.classes; ++i) {
    const T *from = row(image, i, begin, n, b.wide);
    T *to = b.values + i * b.stride;
    const T shift = image.dual[i];
    for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
      auto z = hn::LoadU(d, from + x);
      if (image.mask) z = hn::IfThenElseZero(hn::Gt(hn::LoadU(d, b.valid + x), hn::Zero(d)), z);
      finite.add(d, hn::Sub(z, z));
      z = hn::Add(z, hn::Set(d, shift));
      hn::StoreU(z, d, to + x);
      hn::StoreU(hn::Max(hn::LoadU(d, b.max + x), z), d, b.max + x);
    });
  }
  for (int64_t i = 0; i < image.classes; ++i) {
    T *v = b.values + i * b.stride;
    for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
      const auto below = hn::Sub(hn::LoadU(d, v + x), hn::LoadU(d, b.max + x));
      const auto e = segprior::HWY_NAMESPACE::exp_nonpositive(d, below);
      hn::StoreU(e, d, v + x);
      hn::StoreU(hn::Add(hn::LoadU(d, b.inverse + x), e), d, b.inverse + x);
    });
  }
  for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
    // NaN where z + f is infinite, which the exponential would not show.
    const auto max = hn::LoadU(d, b.max + x);
    auto inverse = hn::Add(hn::Div(hn::Set(d, T{1}), hn::LoadU(d, b.inverse + x)), hn::Sub(max, max));
    if (image.mask) inverse = hn::IfThenElseZero(hn::Gt(hn::LoadU(d, b.valid + x), hn::Zero(d)), inverse);
    hn::StoreU(inverse, d, b.inverse + x);
  });
  return finite.get();
}

template <class T>
void sums(const Image<T> &image, int64_t begin, int64_t end, T *scratch, double *out) {
  const int64_t classes = image.classes;
  const Block<T> b(classes, scratch);
  double *volume = out + kVolume * classes, *spread = out + kSpread * classes,
         *rest = out + kPerClass * classes;
  std::fill_n(out, sums_of(classes), 0.0);
  for (; begin < end; begin += b.stride) {
    const int64_t n = std::min(b.stride, end - begin);
    rest[kFinite] += load(image, begin, n, b);
    int64_t valid = n;
    if (image.mask) valid = n - std::count(image.mask + begin, image.mask + begin + n, 0);
    rest[kValid] += static_cast<double>(valid);
    for (int64_t i = 0; i < classes; ++i) {
      for (int64_t from = 0; from < n; from += kFold<T>) {
        const T *v = b.values + i * b.stride + from, *inverse = b.inverse + from;
        Total<T> of_q, of_spread;
        for_columns<T>(std::min(kFold<T>, n - from), [&](auto d, int64_t x) HWY_ATTR {
          const auto q = hn::Mul(hn::LoadU(d, v + x), hn::LoadU(d, inverse + x));
          of_q.add(d, q);
          of_spread.add(d, hn::NegMulAdd(q, q, q));
        });
        volume[i] += of_q.get();
        spread[i] += of_spread.get();
      }
    }
  }
}

template <class T>
void write(const Image<T> &image, int64_t begin, int64_t end, T *scratch, void *proposal) {
  const Block<T> b(image.classes, scratch);
  for (; begin < end; begin += b.stride) {
    const int64_t n = std::min(b.stride, end - begin);
    load(image, begin, n, b);
    for (int64_t i = 0; i < image.classes; ++i) {
      const T *v = b.values + i * b.stride;
      const int64_t at = i * image.voxels + begin;
      const bool same = image.storage == Storage::f32 || image.storage == Storage::f64;
      T *to = same ? static_cast<T *>(proposal) + at : b.wide;
      for_columns<T>(n, [&](auto d, int64_t x) HWY_ATTR {
        hn::StoreU(hn::Mul(hn::LoadU(d, v + x), hn::LoadU(d, b.inverse + x)), d, to + x);
      });
      if constexpr (std::is_same<T, float>::value) {
        uint16_t *narrow = static_cast<uint16_t *>(proposal) + at;
        if (image.storage == Storage::f16)
          for (int64_t x = 0; x < n; ++x) narrow[x] = Half::narrow(to[x]);
        if (image.storage == Storage::bf16)
          for (int64_t x = 0; x < n; ++x) narrow[x] = Bfloat::narrow(to[x]);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::proposals
HWY_AFTER_NAMESPACE();
#endif
