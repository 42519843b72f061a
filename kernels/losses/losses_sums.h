// From the sums over voxels to terms, and from incoming gradients to the coefficients of the backward pass
// over voxels: a few numbers per image and class, in double. Both backends call these functions, the CPU in a
// loop, CUDA with a thread per index. Derivation: losses.md.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/common/host_device.h"
#include "kernels/losses/losses.h"

namespace segprior::losses {

// The sums over the voxels of one image, per class; l, m, t, h as in the public header. Those of terms that
// are off are 0.
enum Sum {
  kVolume,         // m S
  kCount,          // l t
  kTargetSquares,  // l t^2
  kOverlap,        // l S t
  kSquares,        // l S^2, or l S
  kFocalOverlap,   // l h t
  kFocalSquares,   // l h^2, or l h
  kEntropy,        // of CROSS_ENTROPY, unweighted
  kFocalLoss,      // of FOCAL, unweighted
  kSums
};

// What forward leaves for backward.
struct State {
  double *sums;      // [B][kSums][I]; for an image that failed NaN, but for the sums of labels alone
  double *labelled;  // [B]: sum of l
  double *pooled;    // [B][I]: SIZE's volume of each group, then [kSums][I]: the batch's sums, if dice_batch
  double *count;     // [kTerms]: what MEAN divides by
  double *value;     // [kTerms]: reduced terms
  int32_t *status;   // [B]: of the info
  int32_t *members;  // [B]: images of each group; null without groups

  State(Arena &arena, const Problem &p)
      : sums(arena.take<double>(p.batch * p.classes, kSums)),
        labelled(arena.take<double>(p.batch)),
        pooled(arena.take<double>((p.batch + kSums) * p.classes)),
        count(arena.take<double>(kTerms)),
        value(arena.take<double>(kTerms)),
        status(arena.take<int32_t>(p.batch)),
        members(arena.take<int32_t>(p.has_groups ? p.batch : 0)) {}
};

// What the voxels of one image and class need in the backward pass, in T: [B][kCoefficients][I]. With
// dL/dS = size + l (dice_t t + dice_s (2 S | 1) + h' (sharp_t t + sharp_s (2 h | 1))), and entropy, focal the
// factors of a voxel's CROSS_ENTROPY and FOCAL for this target class; *_voxel times the incoming gradient of
// outputs.voxels adds to them.
enum Coefficient {
  kSizeSlope,
  kDiceT,
  kDiceS,
  kSharpT,
  kSharpS,
  kEntropyFactor,
  kFocalFactor,
  kEntropyVoxel,
  kFocalVoxel,
  kCoefficients
};

template <class T>
struct Incoming {
  const T *total, *terms, *items;
};

template <class T>
class Numbers {
 public:
  SEGPRIOR_HD Numbers(const Problem &p, const State &s) : p(p), s(s) {}

  // ---- Parameters --------------------------------------------------------------------------------------

  SEGPRIOR_HD double weight(int term, int64_t i) const {
    if (p.weight_rows == 0) return 1;
    return static_cast<const T *>(p.class_weights)[(p.weight_rows > 1 ? term : 0) * p.classes + i];
  }
  SEGPRIOR_HD double lower(int64_t row, int64_t i) const {
    if (p.lower_rows == 0) return 0;
    return static_cast<const T *>(p.size_lower)[(p.lower_rows > 1 ? row : 0) * p.classes + i];
  }
  SEGPRIOR_HD double upper(int64_t row, int64_t i) const {
    if (p.upper_rows == 0) return INFINITY;
    return static_cast<const T *>(p.size_upper)[(p.upper_rows > 1 ? row : 0) * p.classes + i];
  }
  SEGPRIOR_HD int64_t group(int64_t b) const { return p.has_groups ? p.size_groups[b] : b; }

  // The final status of an image whose scan over the voxels ended with `scanned`.
  SEGPRIOR_HD int32_t status(int64_t b, int32_t scanned) const {
    if (scanned != SEGPRIOR_CONVERGED) return scanned;
    for (int k = 0; k < kTerms; ++k)
      for (int64_t i = 0; i < p.classes && p.on(k); ++i) {
        const double w = weight(k, i);
        if (!(w >= 0 && w < INFINITY)) return SEGPRIOR_INVALID_PARAMETER;
      }
    if (!p.on(SEGPRIOR_LOSS_SIZE)) return SEGPRIOR_CONVERGED;
    if (lost(b)) return SEGPRIOR_INVALID_PARAMETER;
    const int64_t g = group(b);
    for (int64_t i = 0; i < p.classes; ++i) {
      const double low = lower(g, i), high = upper(g, i);
      if (!(low <= high) || low == INFINITY || high == -INFINITY) return SEGPRIOR_INVALID_PARAMETER;
    }
    return SEGPRIOR_CONVERGED;
  }

  // ---- Forward, in this order --------------------------------------------------------------------------

  // 1. for every image, after s.sums, s.labelled and s.status (of the scan) were written.
  SEGPRIOR_HD void finish_image(int64_t b) const {
    s.status[b] = status(b, s.status[b]);
    if (s.status[b] == SEGPRIOR_CONVERGED) return;
    for (int which = 0; which < kSums; ++which)
      for (int64_t i = 0; i < p.classes; ++i) {
        double &value = s.sums[(b * kSums + which) * p.classes + i];
        // What labels alone tell stays: MEAN's divisor, and so the other images' gradients, do not change.
        const bool of_labels = which == kCount || which == kTargetSquares;
        value = !of_labels ? NAN : value - value == 0 ? value : 0;
      }
  }

  // 2. for every group and class. An image whose group number is invalid counts to none.
  SEGPRIOR_HD void pool_volume(int64_t g, int64_t i) const {
    double volume = 0;
    int32_t members = 0;
    if (p.has_groups) {
      for (int64_t b = 0; b < p.batch; ++b)
        if (group(b) == g) volume += sum(b, kVolume, i), ++members;
      if (i == 0) s.members[g] = members;
    } else {
      volume = sum(g, kVolume, i);
    }
    s.pooled[g * p.classes + i] = volume;
  }
  // and, with dice_batch, for every sum and class.
  SEGPRIOR_HD void pool_batch(int which, int64_t i) const {
    double total = 0;
    for (int64_t b = 0; b < p.batch; ++b) total += sum(b, which, i);
    batch_sum(which, i) = total;
  }

  // 3. for every term, row and class: outputs.items.
  SEGPRIOR_HD double item(int term, int64_t row, int64_t i) const {
    if (!p.on(term)) return 0;
    if (term == SEGPRIOR_LOSS_SIZE ? lost(row) : failed(term, row)) return NAN;
    if (!used(term, row)) return 0;
    const double w = weight(term, i), value = unweighted(term, row, i);
    return w == 0 && value == value ? 0 : w * value;
  }
  // What the item adds to the count that MEAN divides by.
  SEGPRIOR_HD double counted(int term, int64_t row, int64_t i) const {
    if (!p.on(term) || !used(term, row)) return 0;
    const double w = weight(term, i);
    if (term == SEGPRIOR_LOSS_CROSS_ENTROPY || term == SEGPRIOR_LOSS_FOCAL) {
      if (p.scores_are == Scores::sigmoid) return w == 0 ? 0 : s.labelled[row];
      return w == 0 ? 0 : w * sum(row, kCount, i);
    }
    if (term == SEGPRIOR_LOSS_SIZE && !(lower(row, i) > 0 || upper(row, i) < INFINITY)) return 0;
    return w == 0 ? 0 : 1;
  }
  // 4. for every term, with the sums of item() and counted() over rows and classes.
  SEGPRIOR_HD void finish_term(int term, double items, double count) const {
    s.count[term] = count;
    s.value[term] = p.mean ? (count == 0 ? (items == items ? 0 : items) : items / count) : items;
  }
  // 5.
  SEGPRIOR_HD double total() const {
    double sum = 0;
    for (int k = 0; k < kTerms; ++k)
      if (p.on(k)) sum += p.weights[k] * s.value[k];
    return sum;
  }

  // ---- Backward ----------------------------------------------------------------------------------------

  // dL/d item.
  SEGPRIOR_HD double incoming(const Incoming<T> &in, int term, int64_t row, int64_t i) const {
    const double each = in.items ? in.items[(term * p.batch + row) * p.classes + i] : 0;
    return each + incoming_sum(in, term);
  }

  // All coefficients of an image and class: out[c * stride].
  SEGPRIOR_HD void coefficients(const Incoming<T> &in, int64_t b, int64_t i, T *out, int64_t stride) const {
    double c[kCoefficients] = {};
    const double failed = s.status[b] == SEGPRIOR_CONVERGED ? 0 : NAN;
    if (p.on(SEGPRIOR_LOSS_SIZE) && failed == 0) {
      const int64_t g = group(b);
      c[kSizeSlope] = factor(in, SEGPRIOR_LOSS_SIZE, g, i) * 2 * scale() * excess(g, i);
    }
    if (p.on(SEGPRIOR_LOSS_DICE))
      fraction_slopes(SEGPRIOR_LOSS_DICE, factor(in, SEGPRIOR_LOSS_DICE, dice_row(b), i), dice_row(b), i,
                      c[kDiceT], c[kDiceS]);
    if (p.on(SEGPRIOR_LOSS_FOCAL_DICE))
      fraction_slopes(SEGPRIOR_LOSS_FOCAL_DICE, factor(in, SEGPRIOR_LOSS_FOCAL_DICE, dice_row(b), i),
                      dice_row(b), i, c[kSharpT], c[kSharpS]);
    if (p.on(SEGPRIOR_LOSS_CROSS_ENTROPY)) {
      c[kEntropyFactor] = factor(in, SEGPRIOR_LOSS_CROSS_ENTROPY, b, i);
      c[kEntropyVoxel] = p.weights[SEGPRIOR_LOSS_CROSS_ENTROPY] * weight(SEGPRIOR_LOSS_CROSS_ENTROPY, i);
    }
    if (p.on(SEGPRIOR_LOSS_FOCAL)) {
      c[kFocalFactor] = factor(in, SEGPRIOR_LOSS_FOCAL, b, i);
      c[kFocalVoxel] = p.weights[SEGPRIOR_LOSS_FOCAL] * weight(SEGPRIOR_LOSS_FOCAL, i);
    }
    for (int k = 0; k < kCoefficients; ++k) out[k * stride] = static_cast<T>(c[k] + failed);
  }

  // grads.class_weights of one term.
  SEGPRIOR_HD double weight_gradient(const Incoming<T> &in, int term, int64_t i) const {
    if (!p.on(term)) return 0;
    double gradient = 0, count = 0;
    for (int64_t row = 0; row < p.batch; ++row) {
      if (!used(term, row)) continue;
      gradient += incoming(in, term, row, i) * unweighted(term, row, i);
      count += sum(row, kCount, i);
    }
    const bool weighted_mean = p.mean && p.scores_are != Scores::sigmoid && s.count[term] != 0 &&
                               (term == SEGPRIOR_LOSS_CROSS_ENTROPY || term == SEGPRIOR_LOSS_FOCAL);
    return weighted_mean ? gradient - incoming_sum(in, term) * s.value[term] * count : gradient;
  }

  // grads.size_lower and grads.size_upper of one group.
  SEGPRIOR_HD double lower_gradient(const Incoming<T> &in, int64_t g, int64_t i) const {
    const double d = size_excess(g, i);
    return d < 0 || d != d ? size_gradient(in, g, i, d) : 0;
  }
  SEGPRIOR_HD double upper_gradient(const Incoming<T> &in, int64_t g, int64_t i) const {
    const double d = size_excess(g, i);
    return d > 0 || d != d ? size_gradient(in, g, i, d) : 0;
  }

 private:
  SEGPRIOR_HD double sum(int64_t b, int which, int64_t i) const {
    return s.sums[(b * kSums + which) * p.classes + i];
  }
  SEGPRIOR_HD double &batch_sum(int which, int64_t i) const {
    return s.pooled[(p.batch + which) * p.classes + i];
  }
  SEGPRIOR_HD double pooled_sum(int64_t row, int which, int64_t i) const {
    return p.dice_batch ? batch_sum(which, i) : sum(row, which, i);
  }
  SEGPRIOR_HD int64_t dice_row(int64_t b) const { return p.dice_batch ? 0 : b; }
  SEGPRIOR_HD double scale() const { return p.size_per_voxel ? 1.0 / static_cast<double>(p.voxels) : 1.0; }

  // Whether the row of a term stands for anything.
  SEGPRIOR_HD bool used(int term, int64_t row) const {
    if (term == SEGPRIOR_LOSS_DICE || term == SEGPRIOR_LOSS_FOCAL_DICE) return dice_labelled(row) > 0;
    return term != SEGPRIOR_LOSS_SIZE || !p.has_groups || s.members[row] > 0;
  }

  // Whether an image behind a row of a term other than SIZE failed.
  SEGPRIOR_HD bool failed(int term, int64_t row) const {
    const bool all = p.dice_batch && (term == SEGPRIOR_LOSS_DICE || term == SEGPRIOR_LOSS_FOCAL_DICE);
    if (!all) return s.status[row] != SEGPRIOR_CONVERGED;
    bool any = false;
    for (int64_t b = 0; b < p.batch; ++b) any |= row == 0 && s.status[b] != SEGPRIOR_CONVERGED;
    return any;
  }
  // Labelled voxels behind a row of DICE: without any it says nothing.
  SEGPRIOR_HD double dice_labelled(int64_t row) const {
    if (!p.dice_batch) return s.labelled[row];
    double sum = 0;
    for (int64_t b = 0; b < p.batch && row == 0; ++b) sum += s.labelled[b];
    return sum;
  }
  // Whether the image is of no group: its volume is in no row, so its own row must tell.
  SEGPRIOR_HD bool lost(int64_t b) const { return group(b) < 0 || group(b) >= p.batch; }

  // How far the volume of a group is above (> 0) or below (< 0) its bounds.
  SEGPRIOR_HD double excess(int64_t g, int64_t i) const {
    const double volume = s.pooled[g * p.classes + i], low = lower(g, i), high = upper(g, i);
    if (volume != volume || low != low || high != high) return NAN;
    return volume < low ? volume - low : volume > high ? volume - high : 0;
  }
  SEGPRIOR_HD double size_excess(int64_t g, int64_t i) const {
    if (!p.on(SEGPRIOR_LOSS_SIZE)) return 0;
    if (lost(g)) return NAN;
    return used(SEGPRIOR_LOSS_SIZE, g) ? excess(g, i) : 0;
  }

  SEGPRIOR_HD double unweighted(int term, int64_t row, int64_t i) const {
    if (term == SEGPRIOR_LOSS_CROSS_ENTROPY) return sum(row, kEntropy, i);
    if (term == SEGPRIOR_LOSS_FOCAL) return sum(row, kFocalLoss, i);
    if (term == SEGPRIOR_LOSS_SIZE) {
      const double d = excess(row, i);
      return scale() * d * d;
    }
    const double q = denominator(term, row, i);
    return q == 0 ? 0 : 1 - numerator(term, row, i) / q;
  }

  SEGPRIOR_HD double numerator(int term, int64_t row, int64_t i) const {
    return 2 * pooled_sum(row, term == SEGPRIOR_LOSS_DICE ? kOverlap : kFocalOverlap, i) + p.smooth_nr;
  }
  SEGPRIOR_HD double denominator(int term, int64_t row, int64_t i) const {
    return pooled_sum(row, term == SEGPRIOR_LOSS_DICE ? kSquares : kFocalSquares, i) +
           pooled_sum(row, p.dice_squared ? kTargetSquares : kCount, i) + p.smooth_dr;
  }

  // The part of dL/d item that all items of a term share.
  SEGPRIOR_HD double incoming_sum(const Incoming<T> &in, int term) const {
    const double all = (in.terms ? in.terms[term] : 0.0) + (in.total ? p.weights[term] * in.total[0] : 0.0);
    if (!p.mean) return all;
    return s.count[term] == 0 ? 0 : all / s.count[term];
  }
  SEGPRIOR_HD double factor(const Incoming<T> &in, int term, int64_t row, int64_t i) const {
    return incoming(in, term, row, i) * weight(term, i);
  }
  SEGPRIOR_HD void fraction_slopes(int term, double factor, int64_t row, int64_t i, double &overlap,
                                   double &squares) const {
    const double q = denominator(term, row, i);
    if (q == 0) return;
    overlap = -2 * factor / q;
    squares = factor * numerator(term, row, i) / (q * q);
  }
  SEGPRIOR_HD double size_gradient(const Incoming<T> &in, int64_t g, int64_t i, double excess) const {
    return -2 * factor(in, SEGPRIOR_LOSS_SIZE, g, i) * scale() * excess;
  }

  const Problem &p;
  const State &s;
};

}  // namespace segprior::losses
