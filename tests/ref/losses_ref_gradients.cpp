// Gradients of the reference: dL/d item, then dL/dS, then through the softmax or the logistic function.
#include <cmath>

#include "tests/ref/losses_ref.h"
#include "tests/ref/losses_ref_model.h"

namespace segprior::ref::losses {

namespace {

class Backward {
 public:
  Backward(const Problem &problem, const Cotangents &given) : p(problem), m(problem), c(given) {
    for (int k = 0; k < kTerms; ++k) {
      count_[k] = p.mean ? m.count(k) : 1;
      items_[k].resize(p.batch * p.classes);
      for (int64_t row = 0; row < p.batch; ++row)
        for (int64_t i = 0; i < p.classes; ++i)
          if (m.on(k) && m.used(k, row)) items_[k][row * p.classes + i] = m.unweighted(k, row, i);
    }
  }

  Gradients run() {
    Gradients g;
    g.scores = {Array(p.elements(), 0.0), Array(p.elements(), 0.0)};
    for (int64_t b = 0; b < p.batch; ++b) image(b, g.scores);
    class_weights(g.class_weights);
    bounds(g.size_lower, p.size_lower, true);
    bounds(g.size_upper, p.size_upper, false);
    return g;
  }

 private:
  // The incoming gradient of the sum or mean of a term.
  Sized of_term(int k) const {
    Sized sum;
    if (count_[k] == 0) return sum;
    const auto add = [&](double part) { sum.add(part / count_[k], std::fabs(part / count_[k])); };
    if (!c.terms.empty()) add(c.terms[k]);
    if (!c.total.empty()) add(p.weights[k] * c.total[0]);
    return sum;
  }
  // dL/d item.
  Sized of_item(int k, int64_t row, int64_t i) const {
    Sized sum = of_term(k);
    if (c.items.empty()) return sum;
    const double each = c.items[(k * p.batch + row) * p.classes + i];
    sum.add(each, std::fabs(each));
    return sum;
  }

  // S dL/dS of one element by term k.
  Sized slope(int k, int64_t b, int64_t i, int64_t x, const Element &e) const {
    const int64_t row = m.row_of(k, b);
    const double w = m.weight(k, i);
    Sized factor = of_item(k, row, i), sum;
    if (k == kSize) {
      const double d = excess_[i], scale = w * 2 * m.scale() * e.s;
      sum.add(factor.value * scale * d, d == 0 ? 0 : factor.size * scale * (std::fabs(d) + volume_[i]));
    } else if (!e.known) {
      return sum;
    } else if (k == kDice || k == kFocalDice) {
      const Model::Fraction &f = fraction_[k == kDice ? 0 : 1][i];
      if (f.denominator == 0) return sum;
      const Sharp h = m.overlap_part(k, e.s);
      const double per_square = f.numerator / (f.denominator * f.denominator);
      const double up = -2 * e.t / f.denominator, down = per_square * (p.dice_squared ? 2 * h.value : 1);
      // h and its slope come from S - threshold: their error is absolute, but where z is clamped.
      const double g = k == kDice ? 0 : p.focal_dice_gamma * p.focal_dice_gamma;
      const double size = (h.slope + g) * (std::fabs(up) + down + g * per_square);
      const bool clamped = k == kFocalDice && h.slope == 0;
      sum.add(factor.value * w * e.s * (up + down) * h.slope, clamped ? 0 : factor.size * w * e.s * size);
    } else {
      if (!c.voxels.empty()) {
        const double each = c.voxels[b * m.voxels + x] * p.weights[k];
        factor.add(each, std::fabs(each));
      }
      if (w == 0) return sum;
      const Sized one = m.voxel_slope(k, e);
      sum.add(factor.value * w * one.value, factor.size * w * one.size);
    }
    sum.size *= e.units;
    return sum;
  }

  void image(int64_t b, Values &out) {
    excess_.assign(p.classes, 0.0);
    volume_.assign(p.classes, 0.0);
    for (std::vector<Model::Fraction> &fractions : fraction_) fractions.clear();
    for (int64_t i = 0; i < p.classes; ++i) {
      if (m.on(kSize)) {
        excess_[i] = m.excess(m.group(b), i);
        volume_[i] = m.volume(m.group(b), i).size;
      }
      for (int k : {kDice, kFocalDice})
        if (m.on(k)) fraction_[k == kDice ? 0 : 1].push_back(m.fraction(k, m.row_of(k, b), i));
    }
    std::vector<Sized> g(p.classes);
    for (int64_t x = 0; x < m.voxels; ++x) {
      if (!m.at(b, 0, x).valid) continue;
      Sized all;  // sum_i S_i dL/dS_i
      for (int64_t i = 0; i < p.classes; ++i) {
        g[i] = {};
        for (int k = 0; k < kTerms; ++k) {
          if (!m.on(k)) continue;
          const Sized one = slope(k, b, i, x, m.at(b, i, x));
          g[i].add(one.value, one.size);
        }
        all.add(g[i].value, g[i].size);
      }
      for (int64_t i = 0; i < p.classes; ++i) {
        const Element &e = m.at(b, i, x);
        const int64_t at = (b * p.classes + i) * m.voxels + x;
        double &value = out.value[at], &size = out.size[at];
        if (p.scores_are == Scores::logits) {
          value = g[i].value - e.s * all.value;
          size = g[i].size + e.s * e.units * all.size;
        } else if (p.scores_are == Scores::sigmoid) {
          value = g[i].value * e.rest;
          size = g[i].size * e.rest;
        } else {
          divide(b, i, x, value, size);
        }
      }
    }
  }

  // dL/dS itself, for probabilities.
  void divide(int64_t b, int64_t i, int64_t x, double &value, double &size) const {
    for (int k = 0; k < kTerms; ++k) {
      if (!m.on(k)) continue;
      Element e = m.at(b, i, x);
      if (e.s == 0) e.s = 1e-200;  // the limit for S -> 0
      const Sized one = slope(k, b, i, x, e);
      value += one.value / e.s;
      size += one.size / e.s;
    }
  }

  void class_weights(Values &out) const {
    const int64_t width = p.classes, rows = static_cast<int64_t>(p.class_weights.size()) / width;
    out = {Array(rows * width, 0.0), Array(rows * width, 0.0)};
    for (int k = 0; k < kTerms && rows > 0; ++k)
      for (int64_t i = 0; i < width && m.on(k); ++i) {
        const int64_t at = (rows > 1 ? k * width : 0) + i;
        const auto add = [&](const Sized &factor, double sign, const Sized &by) {
          out.value[at] += sign * factor.value * by.value;
          out.size[at] += std::fabs(sign) * factor.size * by.size;
        };
        for (int64_t row = 0; row < p.batch; ++row)
          if (m.used(k, row)) add(of_item(k, row, i), 1, items_[k][row * width + i]);
        // Where the weights are in the divisor of the mean too.
        const bool weighted = (k == kCrossEntropy || k == kFocal) && p.scores_are != Scores::sigmoid;
        if (!p.mean || !weighted || count_[k] == 0) continue;
        Sized term;
        for (int64_t row = 0; row < p.batch; ++row)
          for (int64_t n = 0; n < width; ++n) {
            const Sized &item = items_[k][row * width + n];
            if (m.weight(k, n) != 0)
              term.add(m.weight(k, n) * item.value / count_[k], m.weight(k, n) * item.size / count_[k]);
          }
        double targets = 0;
        for (int64_t row = 0; row < p.batch; ++row) targets += m.labelled_target(row, i);
        add(of_term(k), -targets, term);
      }
  }

  void bounds(Values &out, const Array &given, bool low) const {
    const int64_t width = p.classes, rows = static_cast<int64_t>(given.size()) / width;
    out = {Array(rows * width, 0.0), Array(rows * width, 0.0)};
    for (int64_t row = 0; row < p.batch && rows > 0 && m.on(kSize); ++row)
      for (int64_t i = 0; i < width && m.used(kSize, row); ++i) {
        const double d = m.excess(row, i);
        if (low ? d >= 0 : d <= 0) continue;
        const Sized factor = of_item(kSize, row, i);
        const double scale = m.weight(kSize, i) * 2 * m.scale();
        const int64_t at = (rows > 1 ? row * width : 0) + i;
        out.value[at] -= factor.value * scale * d;
        out.size[at] += factor.size * scale * (std::fabs(d) + m.volume(row, i).size);
      }
  }

  const Problem &p;
  const Model m;
  const Cotangents &c;
  double count_[kTerms];
  std::vector<Sized> items_[kTerms];
  // Of the image at hand, per class.
  Array excess_, volume_;
  std::vector<Model::Fraction> fraction_[2];
};

}  // namespace

Gradients backward(const Problem &problem, const Cotangents &cotangents) {
  return Backward(problem, cotangents).run();
}

}  // namespace segprior::ref::losses
