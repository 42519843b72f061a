// Backward: the gradient of the scores in one chunk. Included once per SIMD target. Formulas: losses.md.
#if defined(SEGPRIOR_LOSSES_CPU_BACKWARD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_LOSSES_CPU_BACKWARD_INL_H
#undef SEGPRIOR_LOSSES_CPU_BACKWARD_INL_H
#else
#define SEGPRIOR_LOSSES_CPU_BACKWARD_INL_H
#endif

#include "kernels/losses/losses_cpu_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::losses {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
class Backward {
 public:
  HWY_INLINE explicit Backward(const BackwardChunk<T> &chunk)
      : chunk_(chunk), p(*chunk.problem), block_(chunk) {}

  HWY_INLINE void run() {
    const Scratch<T> &s = block_.s;
    const bool softmax = p.scores_are == Scores::logits;
    for (int64_t x = chunk_.begin; x < chunk_.end; x += s.block) {
      block_.read(x, HWY_MIN(s.block, chunk_.end - x));
      if (chunk_.voxels) read_incoming();
      if (softmax) fill<T>(s.row(kDot), T{0}, block_.width);
      for (int64_t i = 0; i < p.classes; ++i) {
        block_.read_class(i);
        if (softmax)
          add_terms<Scores::logits>(i);
        else if (p.scores_are == Scores::sigmoid)
          add_terms<Scores::sigmoid>(i);
        else
          add_terms<Scores::probabilities>(i);
      }
      for (int64_t i = 0; i < p.classes; ++i) write_class(i);
    }
    hwy::FlushStream();
  }

 private:
  T coefficient(Coefficient which, int64_t i) const { return chunk_.coefficients[which * p.classes + i]; }
  template <class F>
  HWY_INLINE void for_block(F f) const {
    for_vectors<T>(block_.width, f);
  }

  HWY_INLINE void read_incoming() {
    T *incoming = block_.s.row(kVoxel);
    widen<Same<T>>(chunk_.voxels + block_.begin, block_.count, block_.width, incoming);
    keep_where(block_.s.row(kKnown), incoming, block_.width);
  }

  // Of a voxel's CROSS_ENTROPY or FOCAL: one for the class, and the incoming gradient of outputs.voxels.
  struct Factor {
    T each, of_voxel;
    const T *incoming;
    HWY_INLINE Vec<T> at(int64_t x) const {
      return incoming ? hn::MulAdd(set(of_voxel), load(incoming + x), set(each)) : set(each);
    }
    // 0 where the factor is 0, even if the slope is not finite.
    HWY_INLINE Vec<T> times(Vec<T> slope, int64_t x) const {
      const Vec<T> f = at(x);
      return hn::IfThenZeroElse(hn::Eq(f, hn::Zero(Tag<T>())), hn::Mul(f, slope));
    }
  };
  Factor factor(Coefficient each, Coefficient of_voxel, int64_t i) const {
    return {coefficient(each, i), coefficient(of_voxel, i), chunk_.voxels ? block_.s.row(kVoxel) : nullptr};
  }

  // The part of the gradient that class i's own S and t make: with the softmax r_i, whose sum over the
  // classes goes to kDot; else all of it. The usual terms share a loop.
  template <Scores MODE>
  HWY_INLINE void add_terms(int64_t i) const {
    const Scratch<T> &s = block_.s;
    const T *probability = block_.probability(i), *complement = s.row(kComplement), *target = s.row(kTarget),
            *known = s.row(kKnown);
    const bool dice = block_.on[SEGPRIOR_LOSS_DICE], entropy = block_.on[SEGPRIOR_LOSS_CROSS_ENTROPY];
    const T size = block_.on[SEGPRIOR_LOSS_SIZE] ? coefficient(kSizeSlope, i) : T{0};
    const T dice_t = coefficient(kDiceT, i), dice_s = coefficient(kDiceS, i);
    const Factor entropy_factor = factor(kEntropyFactor, kEntropyVoxel, i);
    T *out = block_.gradient(i), *dot = s.row(kDot);
    for_block([&](int64_t x) HWY_ATTR {
      const Vec<T> S = load(probability + x), t = load(target + x), l = load(known + x);
      const Vec<T> rest = MODE == Scores::sigmoid ? load(complement + x) : S;
      Vec<T> slope = set(size);
      if (dice) {
        slope = hn::MulAdd(set(dice_t), t, slope);
        slope = hn::MulAdd(hn::Mul(set(dice_s), l), p.dice_squared ? hn::Add(S, S) : set(T{1}), slope);
      }
      Vec<T> value = hn::Mul(scale<MODE>(S, rest), slope);
      if (entropy) value = hn::Add(value, entropy_factor.times(entropy_slope<MODE>(S, rest, t, l), x));
      store(value, out + x);
      if (MODE == Scores::logits) store(hn::Add(load(dot + x), value), dot + x);
    });
    if (block_.on[SEGPRIOR_LOSS_FOCAL]) add_focal<MODE>(i);
    if (block_.on[SEGPRIOR_LOSS_FOCAL_DICE]) add_focal_dice<MODE>(i);
  }

  // From dL/dS to the score: times S for r_i; times S (1 - S); or nothing.
  template <Scores MODE>
  static HWY_INLINE Vec<T> scale(Vec<T> S, Vec<T> rest) {
    if (MODE == Scores::logits) return S;
    return MODE == Scores::sigmoid ? hn::Mul(S, rest) : set(T{1});
  }

  // CROSS_ENTROPY: -t; l S - t = (l - t) S - t (1 - S), which loses no digits where S is near t; or -t / S.
  template <Scores MODE>
  HWY_INLINE Vec<T> entropy_slope(Vec<T> S, Vec<T> rest, Vec<T> t, Vec<T> l) const {
    if (MODE == Scores::logits) return hn::Neg(t);
    if (MODE == Scores::sigmoid) return hn::MulSub(hn::Sub(l, t), S, hn::Mul(t, rest));
    return hn::Neg(quotient(t, S, t));
  }

  // a / S, where S stands for S + offset, which may be 0 where t is.
  HWY_INLINE Vec<T> quotient(Vec<T> a, Vec<T> S, Vec<T> t) const {
    const Vec<T> inside = hn::Add(S, set(static_cast<T>(p.log_offset)));
    return hn::IfThenElseZero(hn::Gt(t, hn::Zero(Tag<T>())), hn::Div(a, inside));
  }

  template <Scores MODE>
  HWY_INLINE void add_focal(int64_t i) const {
    const Scratch<T> &s = block_.s;
    const T *probability = block_.probability(i), *complement = s.row(kComplement), *target = s.row(kTarget),
            *known = s.row(kKnown), *log_s = s.row(kLogS), *log_other = s.row(kLogOther);
    const T g = static_cast<T>(p.focal_gamma);
    const Factor of_voxel = factor(kFocalFactor, kFocalVoxel, i);
    for_block([&](int64_t x) HWY_ATTR {
      const Vec<T> S = load(probability + x), t = load(target + x), rest = load(complement + x);
      const FocalParts<T> parts = focal_parts<T>(rest, load(log_s + x), g);
      // With probabilities f' itself, whose two parts may be infinite where t is 0.
      Vec<T> rise = MODE == Scores::probabilities
                        ? hn::NegMulAdd(parts.power, quotient(t, S, t), hn::Mul(t, parts.steep))
                        : hn::Mul(t, focal_slope<T>(S, parts));
      rise = hn::IfThenElseZero(hn::Gt(t, hn::Zero(Tag<T>())), rise);
      if (MODE == Scores::sigmoid) {
        const Vec<T> there = hn::Mul(S, focal_slope<T>(rest, focal_parts<T>(S, load(log_other + x), g)));
        rise = hn::MulSub(rise, rest, hn::Mul(hn::Sub(load(known + x), t), there));
      }
      add<MODE>(i, x, of_voxel.times(rise, x));
    });
  }

  template <Scores MODE>
  HWY_INLINE void add_focal_dice(int64_t i) const {
    const Scratch<T> &s = block_.s;
    const T *probability = block_.probability(i), *complement = s.row(kComplement), *target = s.row(kTarget),
            *known = s.row(kKnown);
    const T threshold = static_cast<T>(p.focal_dice_threshold), g = static_cast<T>(p.focal_dice_gamma);
    const T of_t = coefficient(kSharpT, i), of_s = coefficient(kSharpS, i);
    for_block([&](int64_t x) HWY_ATTR {
      const Vec<T> S = load(probability + x);
      const Vec<T> rest = MODE == Scores::sigmoid ? load(complement + x) : S;
      const SharpVec<T> h = sharpen<T>(S, threshold, g);
      const Vec<T> own = hn::Mul(set(of_s), load(known + x));
      const Vec<T> slope = hn::MulAdd(own, p.dice_squared ? hn::Add(h.value, h.value) : set(T{1}),
                                      hn::Mul(set(of_t), load(target + x)));
      add<MODE>(i, x, hn::Mul(scale<MODE>(S, rest), hn::Mul(slope, h.slope)));
    });
  }

  template <Scores MODE>
  HWY_INLINE void add(int64_t i, int64_t x, Vec<T> value) const {
    T *out = block_.gradient(i) + x, *dot = block_.s.row(kDot) + x;
    store(hn::Add(load(out), value), out);
    if (MODE == Scores::logits) store(hn::Add(load(dot), value), dot);
  }

  // dz: r - S sum r with the softmax, else what add_terms left.
  HWY_INLINE void write_class(int64_t i) const {
    const T *probability = block_.probability(i), *dot = block_.s.row(kDot), *from = block_.gradient(i);
    if (chunk_.failed)
      write(i, [](int64_t) HWY_ATTR { return set(std::numeric_limits<T>::quiet_NaN()); });
    else if (p.scores_are == Scores::logits)
      write(i, [=](int64_t x)
                   HWY_ATTR { return hn::NegMulAdd(load(probability + x), load(dot + x), load(from + x)); });
    else
      write(i, [=](int64_t x) HWY_ATTR { return load(from + x); });
  }

  // value(x) of every vector as the gradient of class i; masked voxels become exactly 0, or stay as they are
  // when accumulating.
  template <class Value>
  HWY_INLINE void write(int64_t i, Value value) const {
    const int64_t at = i * p.voxels + block_.begin;
    if (p.storage == Storage::f16) return write_as<Half>(i, static_cast<uint16_t *>(chunk_.grad) + at, value);
    if (p.storage == Storage::bf16)
      return write_as<Bfloat>(i, static_cast<uint16_t *>(chunk_.grad) + at, value);
    T *to = static_cast<T *>(chunk_.grad) + at;
    if (chunk_.accumulate || block_.count != block_.width) return write_as<Same<T>>(i, to, value);
    const bool aligned = reinterpret_cast<uintptr_t>(to) % (kLanes<T> * sizeof(T)) == 0;
    if (chunk_.stream && aligned)
      for_block([&](int64_t x) HWY_ATTR { hn::Stream(valid(value(x), x), Tag<T>(), to + x); });
    else
      for_block([&](int64_t x) HWY_ATTR { store(valid(value(x), x), to + x); });
  }
  HWY_INLINE Vec<T> valid(Vec<T> value, int64_t x) const {
    if (!p.has_mask) return value;
    return hn::IfThenZeroElse(hn::Eq(load(block_.s.row(kValid) + x), hn::Zero(Tag<T>())), value);
  }

  // In the scores' storage, by way of a row in T.
  template <class Format, class To, class Value>
  HWY_INLINE void write_as(int64_t i, To *HWY_RESTRICT to, Value value) const {
    T *row = block_.gradient(i);
    const T *on = block_.s.row(kValid);
    for_block([&](int64_t x) HWY_ATTR { store(valid(value(x), x), row + x); });
    if (!chunk_.accumulate) {
      for (int64_t x = 0; x < block_.count; ++x) to[x] = Format::narrow(row[x]);
    } else {
      for (int64_t x = 0; x < block_.count; ++x)
        if (on[x] != 0) to[x] = Format::narrow(Format::widen(to[x]) + row[x]);
    }
  }

  const BackwardChunk<T> &chunk_;
  const Problem &p;
  Block<T> block_;
};

template <class T>
void backward_chunk(const BackwardChunk<T> &chunk) {
  Backward<T>(chunk).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::losses
HWY_AFTER_NAMESPACE();
#endif
