// Forward: the sums over the voxels of one chunk. Included once per SIMD target.
#if defined(SEGPRIOR_LOSSES_CPU_FORWARD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SEGPRIOR_LOSSES_CPU_FORWARD_INL_H
#undef SEGPRIOR_LOSSES_CPU_FORWARD_INL_H
#else
#define SEGPRIOR_LOSSES_CPU_FORWARD_INL_H
#endif

#include "kernels/losses/losses_cpu_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace segprior::losses {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
class Forward {
 public:
  HWY_INLINE explicit Forward(const ForwardChunk<T> &chunk)
      : chunk_(chunk), p(*chunk.problem), block_(chunk) {}

  HWY_INLINE void run() {
    const Scratch<T> &s = block_.s;
    std::fill_n(s.sums, kSums * p.classes * kLanes<T>, 0.0);
    double labelled[kLanes<T>] = {};
    for (int64_t x = chunk_.begin; x < chunk_.end; x += s.block) {
      block_.read(x, HWY_MIN(s.block, chunk_.end - x));
      if (block_.labels_wanted) {
        Total<T> known;
        for_vectors<T>(block_.width, [&](int64_t k) HWY_ATTR { known.add(load(s.row(kKnown) + k)); });
        known.flush(labelled);
      }
      if (chunk_.voxels) fill<T>(s.row(kVoxel), T{0}, block_.width);
      for (int64_t i = 0; i < p.classes; ++i) {
        block_.read_class(i);
        add_class(i);
      }
      if (chunk_.voxels) std::copy_n(s.row(kVoxel), block_.count, chunk_.voxels + x);
    }
    for (int64_t k = 0; k < kSums * p.classes; ++k) chunk_.sums[k] = sum_of(s.sums + k * kLanes<T>);
    *chunk_.labelled = sum_of(labelled);
    *chunk_.status = block_.faults & Block<T>::kNonfinite ? SEGPRIOR_NONFINITE_INPUT
                     : block_.faults                      ? SEGPRIOR_INVALID_PARAMETER
                                                          : SEGPRIOR_CONVERGED;
  }

 private:
  static double sum_of(const double *lanes) {
    double sum = 0;
    for (int64_t k = 0; k < kLanes<T>; ++k) sum += lanes[k];
    return sum;
  }
  double *sums(Sum which, int64_t i) const { return block_.s.sums + (which * p.classes + i) * kLanes<T>; }

  HWY_INLINE void add_class(int64_t i) {
    const Scratch<T> &s = block_.s;
    const T *probability = block_.probability(i), *target = s.row(kTarget), *known = s.row(kKnown),
            *log_s = s.row(kLogS), *log_other = s.row(kLogOther);
    const bool size = block_.on[SEGPRIOR_LOSS_SIZE], dice = block_.on[SEGPRIOR_LOSS_DICE],
               entropy = block_.on[SEGPRIOR_LOSS_CROSS_ENTROPY];
    const T factor = voxel_factor(0, i);
    // One loop for the usual terms: the sums of a loop of its own would each wait for the last addition.
    Total<T> volume, count, target_squares, overlap, squares, loss;
    for_vectors<T>(block_.width, [&](int64_t x) HWY_ATTR {
      const Vec<T> S = load(probability + x);
      if (size) volume.add(S);
      if (!block_.labels_wanted) return;
      const Vec<T> t = load(target + x), l = load(known + x);
      count.add(t);
      target_squares.add_product(t, t);
      if (dice) {
        overlap.add_product(S, t);
        squares.add_product(l, p.dice_squared ? hn::Mul(S, S) : S);
      }
      if (!entropy) return;
      // Where t = 0, ln S may be infinite.
      Vec<T> value = hn::IfThenElseZero(hn::Gt(t, hn::Zero(Tag<T>())), hn::Mul(t, load(log_s + x)));
      if (independent_) value = hn::MulAdd(hn::Sub(l, t), load(log_other + x), value);
      value = hn::Neg(value);
      loss.add(value);
      add_voxel(factor, value, x);
    });
    if (size) volume.flush(sums(kVolume, i));
    if (!block_.labels_wanted) return;
    count.flush(sums(kCount, i));
    target_squares.flush(sums(kTargetSquares, i));
    if (dice) overlap.flush(sums(kOverlap, i));
    if (dice) squares.flush(sums(kSquares, i));
    if (entropy) loss.flush(sums(kEntropy, i));
    if (block_.on[SEGPRIOR_LOSS_FOCAL]) add_focal(i);
    if (block_.on[SEGPRIOR_LOSS_FOCAL_DICE]) add_focal_dice(i);
  }

  HWY_INLINE void add_focal(int64_t i) {
    const Scratch<T> &s = block_.s;
    const T *probability = block_.probability(i), *complement = s.row(kComplement), *target = s.row(kTarget),
            *known = s.row(kKnown), *log_s = s.row(kLogS), *log_other = s.row(kLogOther);
    const T g = static_cast<T>(p.focal_gamma), factor = voxel_factor(1, i);
    Total<T> loss;
    for_vectors<T>(block_.width, [&](int64_t x) HWY_ATTR {
      const Vec<T> t = load(target + x), here = focal<T>(load(complement + x), load(log_s + x), g);
      Vec<T> value = hn::IfThenElseZero(hn::Gt(t, hn::Zero(Tag<T>())), hn::Mul(t, here));
      if (independent_) {
        const Vec<T> there = focal<T>(load(probability + x), load(log_other + x), g);
        value = hn::MulAdd(hn::Sub(load(known + x), t), there, value);
      }
      loss.add(value);
      add_voxel(factor, value, x);
    });
    loss.flush(sums(kFocalLoss, i));
  }

  HWY_INLINE void add_focal_dice(int64_t i) {
    const T threshold = static_cast<T>(p.focal_dice_threshold), g = static_cast<T>(p.focal_dice_gamma);
    const T *probability = block_.probability(i), *target = block_.s.row(kTarget),
            *known = block_.s.row(kKnown);
    Total<T> overlap, squares;
    for_vectors<T>(block_.width, [&](int64_t x) HWY_ATTR {
      const Vec<T> h = sharpen<T>(load(probability + x), threshold, g).value;
      overlap.add_product(h, load(target + x));
      squares.add_product(load(known + x), p.dice_squared ? hn::Mul(h, h) : h);
    });
    overlap.flush(sums(kFocalOverlap, i));
    squares.flush(sums(kFocalSquares, i));
  }

  // outputs.voxels: the class's factor of CROSS_ENTROPY (term 0) or FOCAL (1), and the sum of a vector.
  T voxel_factor(int64_t term, int64_t i) const {
    return chunk_.voxels ? chunk_.voxel_factors[term * p.classes + i] : T{0};
  }
  HWY_INLINE void add_voxel(T factor, Vec<T> loss, int64_t x) const {
    T *voxel = block_.s.row(kVoxel) + x;
    if (factor != T{0}) store(hn::MulAdd(set(factor), loss, load(voxel)), voxel);
  }

  const ForwardChunk<T> &chunk_;
  const Problem &p;
  Block<T> block_;
  const bool independent_ = p.scores_are == Scores::sigmoid;
};

template <class T>
void forward_chunk(const ForwardChunk<T> &chunk) {
  Forward<T>(chunk).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace segprior::losses
HWY_AFTER_NAMESPACE();
#endif
