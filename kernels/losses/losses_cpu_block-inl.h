// One block of voxels: its inputs as rows of T, then S, ln S and 1 - S of one class after another. All rows
// are padded to whole vectors with masked voxels. Included once per SIMD target.
#if defined(SEGPRIOR_LOSSES_CPU_BLOCK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_LOSSES_CPU_BLOCK_INL_H
#undef SEGPRIOR_LOSSES_CPU_BLOCK_INL_H
#else
#define SEGPRIOR_LOSSES_CPU_BLOCK_INL_H
#endif

#include "kernels/losses/losses_cpu_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::losses {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Adds vectors; the sum over a block is short enough for T, and goes on in double, lane by lane.
template <class T>
class Total {
 public:
  HWY_INLINE Total() : lanes_(hn::Zero(Tag<T>())) {}
  HWY_INLINE void add(Vec<T> value) { lanes_ = hn::Add(lanes_, value); }
  HWY_INLINE void add_product(Vec<T> a, Vec<T> b) { lanes_ = hn::MulAdd(a, b, lanes_); }
  HWY_INLINE void flush(double *sums) const {
    HWY_ALIGN T lanes[hn::MaxLanes(Tag<T>())];
    hn::Store(lanes_, Tag<T>(), lanes);
    for (size_t k = 0; k < hn::Lanes(Tag<T>()); ++k) sums[k] += lanes[k];
  }

 private:
  Vec<T> lanes_;
};

// Whether all values were finite, by their exponents: integer maxima are faster than a test of each.
template <class T>
class Finite {
  using Bits = hn::RebindToSigned<Tag<T>>;

 public:
  HWY_INLINE Finite() : largest_(hn::Zero(Bits())) {}
  HWY_INLINE void add(Vec<T> value) { largest_ = hn::Max(largest_, hn::BitCast(Bits(), hn::Abs(value))); }
  HWY_INLINE bool get() const {
    const auto infinite = hn::BitCast(Bits(), set(std::numeric_limits<T>::infinity()));
    return hn::AllTrue(Bits(), hn::Lt(largest_, infinite));
  }

 private:
  hn::Vec<Bits> largest_;
};

// row <- 0 where `on` is 0, whatever it was.
template <class T>
HWY_INLINE void keep_where(const T *on, T *row, int64_t width) {
  for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
    const auto off = hn::Eq(load(on + x), hn::Zero(Tag<T>()));
    store(hn::IfThenZeroElse(off, load(row + x)), row + x);
  });
}

// Elements of a tensor in T, and zeros from `count` to `width`. Loops without a condition: the compiler turns
// them into vector code.
template <class Format, class T, class From>
HWY_INLINE void widen(const From *HWY_RESTRICT from, int64_t count, int64_t width, T *HWY_RESTRICT row) {
  for (int64_t x = 0; x < count; ++x) row[x] = static_cast<T>(Format::widen(from[x]));
  for (int64_t x = count; x < width; ++x) row[x] = 0;
}

struct OneHot {
  static int widen(uint8_t value) {
    return value > 1 ? -1 : value;
  }  // found by the check for negative targets
};

// f(format, data) for the storage of a tensor: format::widen gives T from an element of data.
template <class T, class F>
HWY_INLINE void with_storage(const Problem &p, const void *data, F f) {
  if (p.storage == Storage::f16)
    f(Half(), static_cast<const uint16_t *>(data));
  else if (p.storage == Storage::bf16)
    f(Bfloat(), static_cast<const uint16_t *>(data));
  else
    f(Same<T>(), static_cast<const T *>(data));
}

template <class T>
class Block {
 public:
  enum Fault { kNone = 0, kNonfinite = 1, kInvalid = 2 };

  HWY_INLINE Block(const Chunk<T> &chunk)
      : p(*chunk.problem),
        s(*chunk.scratch),
        image(chunk.image),
        on{p.on(0), p.on(1), p.on(2), p.on(3), p.on(4)},
        labels_wanted(p.target != Target::none &&
                      (on[SEGPRIOR_LOSS_CROSS_ENTROPY] || on[SEGPRIOR_LOSS_FOCAL] || on[SEGPRIOR_LOSS_DICE] ||
                       on[SEGPRIOR_LOSS_FOCAL_DICE])),
        logs_wanted(on[SEGPRIOR_LOSS_CROSS_ENTROPY] || on[SEGPRIOR_LOSS_FOCAL]) {}

  // Voxels [first, first + count): the rows of voxels, the scores, and with the softmax the exponentials.
  HWY_INLINE void read(int64_t first, int64_t length) {
    begin = first;
    count = length;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag<T>()));
    width = (count + lanes - 1) / lanes * lanes;
    read_mask(s.row(kValid), p.has_mask, p.mask_shared, p.mask);
    if (labels_wanted) read_labels();
    read_scores();
    if (p.scores_are == Scores::logits) softmax();
  }

  // The rows of class i that the terms need, out of those named below.
  HWY_INLINE void read_class(int64_t i) {
    if (labels_wanted) read_target(i);
    if (p.scores_are == Scores::logits)
      softmax_class(i);
    else if (p.scores_are == Scores::sigmoid)
      sigmoid_class(i);
    else
      probability_class(i);
  }

  T *probability(int64_t i) const { return s.values + i * s.block; }  // m S
  const T *score(int64_t i) const { return scores + i * stride; }
  T *gradient(int64_t i) const { return s.scores + i * s.block; }  // shares memory with score(i)

  const Problem &p;
  const Scratch<T> &s;
  const int64_t image;
  const bool on[kTerms], labels_wanted, logs_wanted;
  int64_t begin, count, width;
  int faults = kNone;

 private:
  HWY_INLINE void read_mask(T *row, bool has, bool shared, const uint8_t *data) {
    fill<T>(row, T{1}, width);
    if (has) {
      const uint8_t *from = data + (shared ? 0 : image * p.voxels) + begin;
      for (int64_t x = 0; x < count; ++x) row[x] = from[x] != 0;
    }
    for (int64_t x = count; x < width; ++x) row[x] = 0;
  }

  HWY_INLINE void read_labels() {
    T *known = s.row(kKnown);
    const T *valid = s.row(kValid);
    read_mask(known, p.has_labelled, p.labelled_shared, p.labelled);
    for_vectors<T>(width,
                   [&](int64_t x) HWY_ATTR { store(hn::Mul(load(known + x), load(valid + x)), known + x); });
    if (p.target != Target::labels) return;
    const int64_t at = image * p.voxels + begin;
    if (p.label_type == LabelType::u8)
      read_label_map<int32_t>(static_cast<const uint8_t *>(p.labels) + at);
    else if (p.label_type == LabelType::i32)
      read_label_map<int32_t>(static_cast<const int32_t *>(p.labels) + at);
    else
      read_label_map<int64_t>(static_cast<const int64_t *>(p.labels) + at);
  }

  // W: a type that holds every label.
  template <class W, class L>
  HWY_INLINE void read_label_map(const L *HWY_RESTRICT labels) {
    T *HWY_RESTRICT known = s.row(kKnown), *HWY_RESTRICT label = s.row(kLabel);
    // Independent classes: label 0 is the background.
    const W first = p.background, end = static_cast<W>(p.classes) + first;
    const bool can_match = p.ignore_label >= 0 && p.ignore_label <= std::numeric_limits<W>::max();
    const W ignore = can_match ? static_cast<W>(p.ignore_label) : W{-1};
    W bad = 0;
    for (int64_t x = 0; x < count; ++x) {
      const W y = labels[x];
      const W on = (known[x] != 0) & (y != ignore) & (y >= 0);
      bad |= on & (y >= end);
      known[x] = static_cast<T>(on);
      label[x] = static_cast<T>(y & -on) - static_cast<T>(on ? first : W{1});
    }
    for (int64_t x = count; x < width; ++x) label[x] = -1;
    if (bad) faults |= kInvalid;
  }

  HWY_INLINE void read_target(int64_t i) {
    T *target = s.row(kTarget);
    if (p.target == Target::labels) {
      const T *label = s.row(kLabel);
      const Vec<T> here = set(static_cast<T>(i)), one = set(T{1});
      for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
        store(hn::IfThenElseZero(hn::Eq(load(label + x), here), one), target + x);
      });
      return;
    }
    const int64_t at = (image * p.classes + i) * p.voxels + begin;
    if (p.target == Target::one_hot)
      widen<OneHot>(static_cast<const uint8_t *>(p.labels) + at, count, width, target);
    else
      with_storage<T>(p, p.labels, [&](auto format, const auto *from) HWY_ATTR {
        widen<decltype(format)>(from + at, count, width, target);
      });
    keep_where(s.row(kKnown), target, width);
    check(target, kInvalid, true);
    if (faults & kInvalid) drop_invalid(target);
  }

  // Targets out of range count as 0: MEAN's divisor must stay a number for the sake of the other images.
  HWY_INLINE void drop_invalid(T *target) {
    const Vec<T> zero = hn::Zero(Tag<T>()), infinity = set(std::numeric_limits<T>::infinity());
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> value = load(target + x);
      store(hn::IfThenElseZero(hn::And(hn::Ge(value, zero), hn::Lt(value, infinity)), value), target + x);
    });
  }

  // Notes a fault if a value is not finite, or is negative where it may not be.
  HWY_INLINE void check(const T *row, int fault, bool no_negative) {
    Finite<T> finite;
    Vec<T> least = hn::Zero(Tag<T>());
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> value = load(row + x);
      finite.add(value);
      least = hn::Min(least, value);
    });
    if (!finite.get())
      faults |= fault;
    else if (no_negative && !hn::AllTrue(Tag<T>(), hn::Ge(least, hn::Zero(Tag<T>()))))
      faults |= kInvalid;
  }

  // Scores are read where they are, or, if they need a conversion, a mask or padding, from a copy that is 0
  // at masked voxels.
  HWY_INLINE void read_scores() {
    const int64_t first = image * p.classes * p.voxels + begin;
    with_storage<T>(p, p.scores, [&](auto format, const auto *from) HWY_ATTR {
      using Format = decltype(format);
      const bool in_place = std::is_same<Format, Same<T>>::value && !p.has_mask && width == count;
      scores = in_place ? reinterpret_cast<const T *>(from + first) : s.scores;
      stride = in_place ? p.voxels : s.block;
      for (int64_t i = 0; i < p.classes; ++i) {
        const auto *row = from + first + i * p.voxels;
        if (!in_place || p.scores_are != Scores::logits) read_ahead(row);  // else add_to_max does
        if (!in_place) {
          T *copy = s.scores + i * s.block;
          widen<Format>(row, count, width, copy);
          if (p.has_mask) keep_where(s.row(kValid), copy, width);
        }
        if (p.scores_are == Scores::logits)
          add_to_max(i);
        else
          check(score(i), kNonfinite, p.scores_are == Scores::probabilities);
      }
    });
  }

  // Asks for the row of the same class in the next block: the hardware's prefetcher starts anew at each of
  // these short runs and comes too late. May point past the end, which prefetching forgives.
  template <class From>
  HWY_INLINE void read_ahead(const From *row) const {
    constexpr int64_t kLine = 64 / sizeof(From);
    for (int64_t x = 0; x < width; x += kLine) __builtin_prefetch(row + s.block + x);
  }

  HWY_INLINE void add_to_max(int64_t i) {
    const T *z = score(i);
    T *max = s.row(kMax);
    Finite<T> finite;
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> value = load(z + x);
      __builtin_prefetch(z + s.block + x);  // between the loads is better than before them
      finite.add(value);
      store(i == 0 ? value : hn::Max(load(max + x), value), max + x);
    });
    if (!finite.get()) faults |= kNonfinite;
  }

  // Exponentials of all classes, and the rows of voxels that turn them into probabilities.
  HWY_INLINE void softmax() {
    const T *max = s.row(kMax);
    T *sum = s.row(kScale);
    const Tag<T> d;
    fill<T>(sum, T{0}, width);
    for (int64_t i = 0; i < p.classes; ++i) {
      const T *z = score(i);
      T *e = probability(i);
      for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
        const Vec<T> value = segprior::HWY_NAMESPACE::exp_nonpositive(d, hn::Sub(load(z + x), load(max + x)));
        store(value, e + x);
        store(hn::Add(load(sum + x), value), sum + x);
      });
    }
    const T *valid = s.row(kValid);
    T *log_sum = s.row(kLogSum);
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> total = load(sum + x);
      if (logs_wanted && !on[SEGPRIOR_LOSS_FOCAL]) store(hn::Log(d, total), log_sum + x);
      store(hn::Div(load(valid + x), total), sum + x);
    });
    if (!on[SEGPRIOR_LOSS_FOCAL]) return;
    // FOCAL multiplies ln S, which is nearly 0 where S is nearly 1: its digits are those of the others' sum.
    sum_of_others();
    const T *rest = s.row(kRest);
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR { store(hn::Log1p(d, load(rest + x)), log_sum + x); });
  }

  // rest <- the sum of the exponentials without one of those that are 1, the largest: added up on its own, it
  // keeps its digits where the class of the largest logit has a probability near 1.
  HWY_INLINE void sum_of_others() {
    T *rest = s.row(kRest), *ones = s.row(kDot);
    fill<T>(rest, T{0}, width);
    fill<T>(ones, T{-1}, width);
    const Vec<T> one = set(T{1});
    for (int64_t i = 0; i < p.classes; ++i) {
      const T *e = probability(i);
      for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
        const Vec<T> value = load(e + x);
        const auto largest = hn::Ge(value, one);
        store(hn::Add(load(rest + x), hn::IfThenZeroElse(largest, value)), rest + x);
        store(hn::Add(load(ones + x), hn::IfThenElseZero(largest, value)), ones + x);
      });
    }
    for_vectors<T>(width,
                   [&](int64_t x) HWY_ATTR { store(hn::Add(load(rest + x), load(ones + x)), rest + x); });
  }

  HWY_INLINE void softmax_class(int64_t i) {
    const T *scale = s.row(kScale);
    T *e = probability(i);
    if (on[SEGPRIOR_LOSS_FOCAL]) {
      // Only a largest exponential can be above half of the sum, and only there the sum of the others is not
      // told by the sum itself: 1 - S loses no digits for S <= 1/2.
      const T *rest = s.row(kRest);
      T *complement = s.row(kComplement);
      const Vec<T> one = set(T{1});
      for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
        const Vec<T> value = load(e + x), factor = load(scale + x);
        store(hn::IfThenElse(hn::Ge(value, one), hn::Mul(load(rest + x), factor),
                             hn::NegMulAdd(value, factor, one)),
              complement + x);
      });
    }
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR { store(hn::Mul(load(e + x), load(scale + x)), e + x); });
    if (!logs_wanted) return;
    const T *z = score(i), *max = s.row(kMax), *log_sum = s.row(kLogSum);
    T *log_s = s.row(kLogS);
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      store(hn::Sub(hn::Sub(load(z + x), load(max + x)), load(log_sum + x)), log_s + x);
    });
  }

  // With e = exp(-|z|): S and 1 - S are 1 / (1 + e) and e / (1 + e), their logarithms those of 1 / (1 + e),
  // less |z| for the smaller one.
  HWY_INLINE void sigmoid_class(int64_t i) {
    const Tag<T> d;
    const T *z = score(i), *valid = s.row(kValid);
    T *to = probability(i), *complement = s.row(kComplement), *log_s = s.row(kLogS),
      *log_other = s.row(kLogOther);
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> value = load(z + x), one = set(T{1}), zero = hn::Zero(d);
      const Vec<T> e = segprior::HWY_NAMESPACE::exp_nonpositive(d, hn::Neg(hn::Abs(value)));
      const auto positive = hn::Gt(value, zero);
      const Vec<T> large = hn::Div(one, hn::Add(one, e)), small = hn::Mul(e, large);
      store(hn::Mul(hn::IfThenElse(positive, large, small), load(valid + x)), to + x);
      store(hn::IfThenElse(positive, small, large), complement + x);
      if (!logs_wanted) return;
      const Vec<T> soft = hn::Log1p(d, e);
      store(hn::Sub(hn::Min(value, zero), soft), log_s + x);
      store(hn::Sub(hn::Neg(hn::Max(value, zero)), soft), log_other + x);
    });
  }

  HWY_INLINE void probability_class(int64_t i) {
    const Tag<T> d;
    const T *z = score(i);
    T *to = probability(i), *complement = s.row(kComplement), *log_s = s.row(kLogS);
    const Vec<T> offset = set(static_cast<T>(p.log_offset));
    for_vectors<T>(width, [&](int64_t x) HWY_ATTR {
      const Vec<T> value = load(z + x);
      store(value, to + x);
      if (!logs_wanted) return;
      const Vec<T> inside = hn::Add(value, offset);
      const auto positive = hn::Gt(inside, hn::Zero(d));
      store(hn::IfThenElse(positive, hn::Log(d, inside), set(-std::numeric_limits<T>::infinity())),
            log_s + x);
      store(hn::Max(hn::Sub(set(T{1}), value), hn::Zero(d)), complement + x);
    });
  }

  const T *scores = nullptr;
  int64_t stride = 0;
};

}  // namespace HWY_NAMESPACE
}  // namespace segprior::losses
HWY_AFTER_NAMESPACE();
#endif
