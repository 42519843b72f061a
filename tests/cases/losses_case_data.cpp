// What a case of the losses stands for: its expression and its data.
#include <cmath>
#include <limits>
#include <sstream>

#include "tests/cases/losses_cases.h"
#include "tests/support/random.h"

namespace segprior::test {

using ref::Array;
using ref::losses::Cotangents;
using ref::losses::Problem;
using Rows = LossCase::Rows;
using Target = LossCase::Target;

int64_t LossCase::elements() const {
  int64_t count = batch_ * classes_;
  for (int64_t n : spatial_) count *= n;
  return count;
}

std::string LossCase::text() const {
  static const char *const kScores[] = {"logits", "sigmoid", "probabilities"};
  static const char *const kTargets[] = {"u8", "i32", "i64", "soft", "one_hot", "none"};
  static const char *const kRows[] = {"absent", "shared", "each"};
  const auto rows = [](Rows value) { return std::string("Rows::") + kRows[static_cast<int>(value)]; };
  std::ostringstream out;
  out << "LossCase(";
  const char *separator = "{";
  for (int64_t n : spatial_) out << separator << n, separator = ", ";
  out << "}, " << classes_ << ", " << batch_ << ")";
  if (!name_.empty()) out << ".name(\"" << name_ << "\")";
  separator = ".terms({{";
  for (double weight : terms_) out << separator << weight, separator = ", ";
  out << "}})";
  if (dtype_ == SEGPRIOR_FLOAT32) out << ".f32()";
  if (is_small_float()) out << (dtype_ == SEGPRIOR_FLOAT16 ? ".f16()" : ".bf16()");
  if (scores_ != Scores::logits) out << ".scores(Scores::" << kScores[static_cast<int>(scores_)] << ")";
  if (!background_) out << ".without_background()";
  out << ".target(Target::" << kTargets[static_cast<int>(target_)] << ")";
  if (ignore_ != 255) out << ".ignore(" << ignore_ << ")";
  if (mask_ != Rows::absent) out << ".mask(" << rows(mask_) << ")";
  if (labelled_ != Rows::absent) out << ".labelled(" << rows(labelled_) << ")";
  if (lower_ != Rows::absent || upper_ != Rows::each)
    out << ".bounds(" << rows(lower_) << ", " << rows(upper_) << ")";
  if (groups_) out << ".groups()";
  if (weight_rows_ != 0) out << ".class_weights(" << weight_rows_ << ")";
  if (mean_) out << ".mean()";
  if (per_voxel_) out << ".per_voxel()";
  if (plain_) out << ".plain()";
  if (dice_batch_) out << ".dice_batch()";
  if (smooth_ != 1e-5) out << ".smooth(" << smooth_ << ")";
  if (gamma_ != 2) out << ".gamma(" << gamma_ << ")";
  if (threshold_ != 0.5 || sharpness_ != 2) out << ".sharp(" << threshold_ << ", " << sharpness_ << ")";
  if (offset_ != 1e-10) out << ".offset(" << offset_ << ")";
  if (spread_ != 4) out << ".spread(" << spread_ << ")";
  if (incoming_ != kTotal) out << ".incoming(" << incoming_ << ")";
  if (accumulate_) out << ".accumulate()";
  if (seed_ != 1) out << ".seed(" << seed_ << ")";
  return out.str();
}

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Array make_mask(Random &random, Rows rows, int64_t batch, int64_t voxels) {
  Array mask(rows == Rows::absent ? 0 : rows == Rows::shared ? voxels : batch * voxels);
  for (double &value : mask) value = static_cast<double>(random.bits() % 4);  // anything but 0: valid
  return mask;
}

bool zero_at(const Array &mask, int64_t voxels, int64_t b, int64_t x) {
  if (mask.empty()) return false;
  return mask[(static_cast<int64_t>(mask.size()) == voxels ? 0 : b * voxels) + x] == 0;
}

void make_scores(Random &random, const LossCase &c, Problem &p) {
  if (c.scores_ == LossCase::Scores::probabilities) {
    p.scores = random.array(c.elements(), 0.001, 0.999);
    // Exact zeros, where the offset makes their logarithm finite.
    for (double &score : p.scores)
      if (c.offset_ > 0 && random.bits() % 16 == 0) score = 0;
  } else {
    p.scores = random.array(c.elements(), -c.spread_, c.spread_);
  }
  p.scores = rounded(p.scores, c.dtype_);
}

// Labels: one voxel in six is not known. Nothing may be read where a label is not known or masked.
void make_target(Random &random, const LossCase &c, Problem &p) {
  const int64_t voxels = p.voxels();
  const bool negative = c.target_ == Target::i32 || c.target_ == Target::i64;
  const uint64_t known = c.classes_ + c.background();
  const auto hidden = [&](int64_t b, int64_t x) {
    return zero_at(p.mask, voxels, b, x) || zero_at(p.labelled, voxels, b, x);
  };
  if (c.target_ == Target::soft || c.target_ == Target::one_hot) {
    p.target.resize(c.elements());
    for (int64_t k = 0; k < c.elements(); ++k) {
      const int64_t b = k / (voxels * c.classes_), x = k % voxels;
      if (c.target_ == Target::one_hot)
        p.target[k] = static_cast<double>(random.bits() % 2);
      else
        p.target[k] = random.bits() % 4 == 0 ? 0 : random.uniform(0, 1.25);
      if (c.target_ == Target::soft && hidden(b, x)) p.target[k] = random.bits() % 2 ? kNaN : -1;
    }
    if (c.target_ == Target::soft) p.target = rounded(p.target, c.dtype_);
  } else if (c.target_ != Target::none) {
    for (int64_t k = 0; k < c.batch_ * voxels; ++k) {
      double label = static_cast<double>(random.bits() % known);
      if (random.bits() % 6 == 0)
        label = negative && random.bits() % 2 ? -static_cast<double>(1 + random.bits() % 1000)
                                              : static_cast<double>(c.ignore_ < 0 ? 0 : c.ignore_);
      if (hidden(k / voxels, k % voxels)) label = c.target_ == Target::u8 ? 254 : 1000000;
      p.labels.push_back(label);
    }
  }
}

void make_parameters(Random &random, const LossCase &c, Problem &p) {
  p.class_weights = random.array(c.weight_rows_ * c.classes_, 0.5, 2);
  for (size_t k = 1; k < p.class_weights.size(); k += 3) p.class_weights[k] = 0;
  if (c.groups_)
    for (int64_t b = 0; b < c.batch_; ++b)
      p.size_groups.push_back(static_cast<double>(b / 2 * 2));  // pairs; odd groups have no images
  const int64_t lower_rows = c.lower_ == Rows::absent ? 0 : c.lower_ == Rows::shared ? 1 : c.batch_;
  const int64_t upper_rows = c.upper_ == Rows::absent ? 0 : c.upper_ == Rows::shared ? 1 : c.batch_;
  const double even = static_cast<double>(p.voxels()) / static_cast<double>(c.classes_) * (c.groups_ ? 2 : 1);
  const Array middle = random.array(c.classes_, 0.5 * even, 1.5 * even);
  const auto draw = [&](int64_t rows, double low, double high, double none) {
    Array bounds(rows * c.classes_);
    for (int64_t k = 0; k < rows * c.classes_; ++k) {
      bounds[k] = middle[k % c.classes_] * random.uniform(low, high);
      if (random.bits() % 8 == 0) bounds[k] = none;
      if (c.groups_ && rows > 1 && k / c.classes_ % 2 == 1) bounds[k] = kNaN;  // is not read
    }
    return rounded(bounds, c.parameter_dtype());
  };
  p.size_lower = draw(lower_rows, 0.5, 1, -kInf);
  p.size_upper = draw(upper_rows, 1, 1.5, kInf);
  p.class_weights = rounded(p.class_weights, c.parameter_dtype());
}

}  // namespace

Problem make_problem(const LossCase &c) {
  Random random(c.seed_);
  Problem p;
  p.batch = c.batch_;
  p.classes = c.classes_;
  p.spatial = c.spatial_;
  p.scores_are = c.scores_;
  p.background = c.background();
  for (int k = 0; k < ref::losses::kTerms; ++k) p.weights[k] = c.terms_[k];
  p.mean = c.mean_;
  p.size_per_voxel = c.per_voxel_;
  p.dice_squared = !c.plain_;
  p.dice_batch = c.dice_batch_;
  p.ignore_label = c.ignore_;
  p.smooth_nr = c.smooth_;
  p.smooth_dr = 2 * c.smooth_;
  p.focal_gamma = c.gamma_;
  p.focal_dice_threshold = c.threshold_;
  p.focal_dice_gamma = c.sharpness_;
  p.log_offset = c.offset_;
  p.mask = make_mask(random, c.mask_, c.batch_, p.voxels());
  p.labelled = make_mask(random, c.labelled_, c.batch_, p.voxels());
  make_scores(random, c, p);
  make_target(random, c, p);
  make_parameters(random, c, p);
  const double bad[] = {kNaN, kInf, -kInf};
  for (int64_t k = 0; k < c.elements(); ++k)
    if (zero_at(p.mask, p.voxels(), k / (p.voxels() * c.classes_), k % p.voxels()))
      p.scores[k] = bad[random.bits() % 3];
  return p;
}

Cotangents make_cotangents(const LossCase &c) {
  Random random(c.seed_ + 1000);
  Cotangents given;
  const auto draw = [&](int which, int64_t count) {
    const Array values = rounded(random.array(count, -1, 1), c.parameter_dtype());
    return c.incoming_ & which ? values : Array();
  };
  given.total = draw(LossCase::kTotal, 1);
  given.terms = draw(LossCase::kTerms, ref::losses::kTerms);
  given.items = draw(LossCase::kItems, ref::losses::kTerms * c.batch_ * c.classes_);
  given.voxels = draw(LossCase::kVoxels, c.classes_ > 0 ? c.elements() / c.classes_ : 0);
  return given;
}

LossSettings settings_of(const LossCase &c) {
  LossSettings settings;
  settings.dtype = c.dtype_;
  settings.label_dtype = c.target_ == Target::i32   ? SEGPRIOR_INT32
                         : c.target_ == Target::i64 ? SEGPRIOR_INT64
                                                    : SEGPRIOR_UINT8;
  settings.one_hot = c.target_ == Target::one_hot;
  settings.accumulate = c.accumulate_;
  return settings;
}

}  // namespace segprior::test
