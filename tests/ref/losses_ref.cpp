#include "tests/ref/losses_ref.h"

#include <algorithm>
#include <cmath>

#include "tests/ref/losses_ref_model.h"

namespace segprior::ref::losses {

namespace {

// Element k of an array whose first axis may be 1 for all of `rows`.
double shared(const Array &values, int64_t row, int64_t width, int64_t k) {
  return values[(static_cast<int64_t>(values.size()) == width ? 0 : row * width) + k];
}

// 0 times anything is 0 here: what a target excludes takes no part.
double times(double factor, double value) { return factor == 0 ? 0 : factor * value; }

}  // namespace

int64_t Problem::voxels() const {
  int64_t count = 1;
  for (int64_t n : spatial) count *= n;
  return count;
}

Model::Model(const Problem &problem)
    : p(problem),
      batch(problem.batch),
      classes(problem.classes),
      voxels(problem.voxels()),
      elements_(batch * classes * voxels),
      labelled_(batch) {
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t x = 0; x < voxels; ++x) {
      const bool valid = p.mask.empty() || shared(p.mask, b, voxels, x) != 0;
      const bool has_target = !p.labels.empty() || !p.target.empty();
      bool known = valid && has_target && (p.labelled.empty() || shared(p.labelled, b, voxels, x) != 0);
      if (!p.labels.empty()) {
        const double y = p.labels[b * voxels + x];
        known = known && y >= 0 && y != static_cast<double>(p.ignore_label);
      }
      if (known) labelled_[b] = true;
      for (int64_t i = 0; i < classes; ++i) {
        Element &e = elements_[(b * classes + i) * voxels + x];
        e = {};
        e.valid = valid;
        e.known = known;
        if (known) e.t = target(b, i, x);
      }
      if (valid) set_score(b, x);
    }
}

double Model::target(int64_t b, int64_t i, int64_t x) const {
  if (!p.target.empty()) return p.target[(b * classes + i) * voxels + x];
  const double first = p.background ? 1 : 0;
  return p.labels[b * voxels + x] == static_cast<double>(i) + first ? 1 : 0;
}

void Model::set_score(int64_t b, int64_t x) {
  const auto element = [&](int64_t i) -> Element & { return elements_[(b * classes + i) * voxels + x]; };
  const auto score = [&](int64_t i) { return p.scores[(b * classes + i) * voxels + x]; };
  double top = score(0), sum = 0;
  for (int64_t i = 0; i < classes; ++i) top = std::max(top, score(i));
  for (int64_t i = 0; i < classes; ++i) sum += std::exp(score(i) - top);
  for (int64_t i = 0; i < classes; ++i) {
    Element &e = element(i);
    const double z = score(i);
    e.units = 1;
    if (p.scores_are == Scores::logits) {
      e.s = std::exp(z - top) / sum;
      for (int64_t k = 0; k < classes; ++k)
        if (k != i) e.rest += std::exp(score(k) - top) / sum;
      e.log_s = z - top - std::log(sum);
      e.log_slope = 1 / e.s;
      e.units = 1 + std::fabs(e.log_s);
    } else if (p.scores_are == Scores::sigmoid) {
      e.s = 1 / (1 + std::exp(-z));
      e.rest = 1 / (1 + std::exp(z));
      e.log_s = std::min(z, 0.0) - std::log1p(std::exp(-std::fabs(z)));
      e.log_rest = e.log_s - z;
      e.log_slope = 1 / e.s;
      e.units = 1 + std::fabs(z);
    } else {
      e.s = z;
      e.rest = 1 - z;
      e.log_s = std::log(z + p.log_offset);
      e.log_slope = 1 / (z + p.log_offset);
    }
  }
}

double Model::weight(int term, int64_t i) const {
  if (p.class_weights.empty()) return 1;
  return shared(p.class_weights, term, classes, i);
}
double Model::lower(int64_t row, int64_t i) const {
  return p.size_lower.empty() ? 0 : shared(p.size_lower, row, classes, i);
}
double Model::upper(int64_t row, int64_t i) const {
  return p.size_upper.empty() ? INFINITY : shared(p.size_upper, row, classes, i);
}
int64_t Model::group(int64_t b) const {
  return p.size_groups.empty() ? b : static_cast<int64_t>(p.size_groups[b]);
}

int64_t Model::row_of(int term, int64_t b) const {
  if (term == kSize) return group(b);
  const bool pooled = (term == kDice || term == kFocalDice) && p.dice_batch;
  return pooled ? 0 : b;
}
bool Model::used(int term, int64_t row) const {
  const bool dice = term == kDice || term == kFocalDice;
  for (int64_t b = 0; b < batch; ++b)
    if (row_of(term, b) == row && (labelled_[b] || !dice)) return true;
  return false;
}

Sized Model::voxel_loss(int term, const Element &e) const {
  const double g = term == kFocal ? p.focal_gamma : 0, shape = std::pow(e.rest, g);
  Sized loss;
  loss.add(times(e.t, shape * -e.log_s), times(e.t, (1 + g) * shape * (1 + std::fabs(e.log_s))));
  if (p.scores_are != Scores::sigmoid) return loss;
  const double other = std::pow(e.s, g);
  loss.add(times(1 - e.t, other * -e.log_rest),
           times(std::fabs(1 - e.t), (1 + g) * other * (1 + std::fabs(e.log_rest))));
  return loss;
}

Sized Model::voxel_slope(int term, const Element &e) const {
  const double g = term == kFocal ? p.focal_gamma : 0, relative = 1 + g;
  Sized slope;
  // The derivatives of ln S, and of (1 - S)^g.
  const double direct = e.s * e.log_slope * std::pow(e.rest, g);
  const double shape = g == 0 ? 0 : g * e.s * std::pow(e.rest, g - 1);
  slope.add(times(e.t, shape * e.log_s - direct),
            times(e.t, relative * (shape * (1 + std::fabs(e.log_s)) + direct)));
  if (p.scores_are != Scores::sigmoid) return slope;
  const double other_direct = e.s * std::pow(e.s, g) / e.rest;
  const double other_shape = g == 0 ? 0 : g * std::pow(e.s, g);
  slope.add(times(1 - e.t, other_direct - other_shape * e.log_rest),
            times(std::fabs(1 - e.t), relative * (other_direct + other_shape * (1 + std::fabs(e.log_rest)))));
  return slope;
}

Sharp Model::overlap_part(int term, double s) const {
  if (term == kDice) return {s, 1};
  const double g = p.focal_dice_gamma, open = s - p.focal_dice_threshold + 0.5;
  const double z = std::min(1.0, std::max(0.0, open));
  const double up = std::pow(z, g), down = std::pow(1 - z, g);
  if (open < 0 || open > 1) return {up / (up + down), 0};
  // The quotient rule.
  const double up_slope = g * std::pow(z, g - 1), down_slope = -g * std::pow(1 - z, g - 1);
  return {up / (up + down), (up_slope * down - up * down_slope) / ((up + down) * (up + down))};
}

Model::Fraction Model::fraction(int term, int64_t row, int64_t i) const {
  Fraction f{p.smooth_nr, p.smooth_dr};
  for (int64_t b = 0; b < batch; ++b) {
    if (row_of(term, b) != row) continue;
    for (int64_t x = 0; x < voxels; ++x) {
      const Element &e = at(b, i, x);
      if (!e.known) continue;
      const double s = overlap_part(term, e.s).value;
      f.numerator += 2 * s * e.t;
      f.denominator += p.dice_squared ? s * s + e.t * e.t : s + e.t;
    }
  }
  return f;
}

Sized Model::volume(int64_t row, int64_t i) const {
  Sized sum;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t x = 0; x < voxels && group(b) == row; ++x)
      if (at(b, i, x).valid) sum.add(at(b, i, x).s, at(b, i, x).s * at(b, i, x).units);
  return sum;
}

double Model::excess(int64_t row, int64_t i) const {
  const double v = volume(row, i).value;
  if (v < lower(row, i)) return v - lower(row, i);
  return v > upper(row, i) ? v - upper(row, i) : 0;
}

Sized Model::unweighted(int term, int64_t row, int64_t i) const {
  Sized sum;
  if (term == kSize) {
    const double d = excess(row, i);
    sum.add(scale() * d * d, scale() * (d * d + 2 * std::fabs(d) * volume(row, i).size));
  } else if (term == kCrossEntropy || term == kFocal) {
    for (int64_t x = 0; x < voxels; ++x) {
      if (!at(row, i, x).known) continue;
      const Sized one = voxel_loss(term, at(row, i, x));
      sum.add(one.value, one.size);
    }
  } else {
    const Fraction f = fraction(term, row, i);
    const double ratio = f.denominator == 0 ? 1 : f.numerator / f.denominator;
    sum.add(1 - ratio, 1 + ratio * (term == kFocalDice ? 1 + p.focal_dice_gamma : 1));
  }
  return sum;
}

double Model::labelled_target(int64_t b, int64_t i) const {
  double sum = 0;
  for (int64_t x = 0; x < voxels; ++x)
    if (at(b, i, x).known) sum += at(b, i, x).t;
  return sum;
}

double Model::count(int term) const {
  double sum = 0;
  for (int64_t row = 0; row < batch; ++row)
    for (int64_t i = 0; i < classes; ++i) {
      const double w = weight(term, i);
      if (!used(term, row) || w == 0) continue;
      if (term == kDice || term == kFocalDice) {
        sum += 1;
      } else if (term == kSize) {
        sum += lower(row, i) > 0 || upper(row, i) < INFINITY;
      } else if (p.scores_are == Scores::sigmoid) {
        for (int64_t x = 0; x < voxels; ++x) sum += at(row, i, x).known;
      } else {
        sum += w * labelled_target(row, i);
      }
    }
  return sum;
}

Results forward(const Problem &p) {
  const Model model(p);
  Results r;
  const auto zeros = [](int64_t count) { return Values{Array(count, 0.0), Array(count, 0.0)}; };
  r.total = zeros(1);
  r.terms = zeros(kTerms);
  r.items = zeros(kTerms * p.batch * p.classes);
  r.voxels = zeros(p.batch * p.voxels());
  for (int k = 0; k < kTerms; ++k) {
    if (!model.on(k)) continue;
    Sized sum;
    for (int64_t row = 0; row < p.batch; ++row)
      for (int64_t i = 0; i < p.classes && model.used(k, row); ++i) {
        const Sized one = model.unweighted(k, row, i);
        const int64_t at = (k * p.batch + row) * p.classes + i;
        r.items.value[at] = times(model.weight(k, i), one.value);
        r.items.size[at] = times(model.weight(k, i), one.size);
        sum.add(r.items.value[at], r.items.size[at]);
      }
    const double count = p.mean ? model.count(k) : 1;
    r.terms.value[k] = count == 0 ? 0 : sum.value / count;
    r.terms.size[k] = count == 0 ? 0 : sum.size / count;
    r.total.value[0] += p.weights[k] * r.terms.value[k];
    r.total.size[0] += std::fabs(p.weights[k]) * r.terms.size[k];
    if (k != kCrossEntropy && k != kFocal) continue;
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t i = 0; i < p.classes; ++i)
        for (int64_t x = 0; x < model.voxels; ++x) {
          if (!model.at(b, i, x).known) continue;
          const Sized one = model.voxel_loss(k, model.at(b, i, x));
          const double w = p.weights[k] * model.weight(k, i);
          r.voxels.value[b * model.voxels + x] += times(w, one.value);
          r.voxels.size[b * model.voxels + x] += times(std::fabs(w), one.size);
        }
  }
  return r;
}

}  // namespace segprior::ref::losses
