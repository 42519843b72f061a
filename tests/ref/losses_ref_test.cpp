// The reference of the losses against golden vectors, hand-made values and its own difference quotients.
#include "tests/ref/losses_ref.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "tests/support/compare.h"
#include "tests/support/losses_golden.h"
#include "tests/support/random.h"

using namespace segprior;
using namespace segprior::test;
using namespace segprior::ref::losses;
using ref::Array;

TEST_CASE("losses reference: golden vectors") {
  for (const std::string &name : loss_golden_names()) {
    INFO("golden case " << name);
    const LossGolden g = read_loss_golden(name);
    CHECK_CLOSE("loss", forward(g.problem).total.value, Array{g.loss}, 1e-12 * g.loss);
    CHECK_CLOSE("loss of probabilities", forward(g.of_probabilities()).total.value, Array{g.loss},
                1e-12 * g.loss);
    Cotangents one;
    one.total = {1};
    CHECK_CLOSE("grad_logits", backward(g.problem, one).scores.value, g.grad_logits,
                1e-12 * max_abs(g.grad_logits));
  }
}

TEST_CASE("losses reference: values worked out by hand") {
  // Two voxels and two classes with S = (1/4, 3/4) and (1/2, 1/2), labels 1 and 0.
  Problem p;
  p.classes = 2;
  p.spatial = {2};
  p.scores = {std::log(1.0), std::log(5.0), std::log(3.0), std::log(5.0)};
  p.labels = {1, 0};
  p.size_lower = {1, 1};
  p.size_upper = {1, 1};
  p.focal_gamma = 1;
  p.focal_dice_threshold = 0.75;
  p.focal_dice_gamma = 1;
  p.smooth_nr = p.smooth_dr = 0;
  for (double &weight : p.weights) weight = 1;
  const double ln2 = std::log(2.0), ln43 = std::log(4.0 / 3);
  const auto check = [](const Array &got, const Array &want) { CHECK_CLOSE("value", got, want, 1e-14); };
  // V = (3/4, 5/4). DICE: (2 * 1/2 / (5/16 + 1), 2 * 3/4 / (13/16 + 1)). h = z = (0, 1/2), (1/4, 1/4), the
  // FOCAL_DICE: (2 * 1/4 / (1/16 + 1), 2 * 1/2 / (5/16 + 1)).
  check(forward(p).items.value, {1.0 / 16, 1.0 / 16, ln2, ln43, ln2 / 2, ln43 / 4, 1 - 16.0 / 21,
                                 1 - 24.0 / 29, 1 - 8.0 / 17, 1 - 16.0 / 21});
  check(forward(p).voxels.value, {ln43 + ln43 / 4, ln2 + ln2 / 2});
  p.dice_squared = false;  // sums of S: 3/4 and 5/4; of h: 1/4 and 3/4
  const Array plain = forward(p).items.value;
  check(Array(plain.begin() + 6, plain.end()), {1 - 4.0 / 7, 1 - 6.0 / 9, 1 - 2.0 / 5, 1 - 4.0 / 7});
  // Weights, and the divisors of the mean.
  p.mean = true;
  p.class_weights = {3, 0.5};
  p.size_upper = {INFINITY, INFINITY};
  p.size_lower = {1, 0};
  check(forward(p).terms.value, {3.0 / 16, (3 * ln2 + ln43 / 2) / 3.5, (3 * ln2 / 2 + ln43 / 8) / 3.5,
                                 (3 * 3.0 / 7 + 0.5 / 3) / 2, (3 * 3.0 / 5 + 0.5 * 3 / 7) / 2});
  // Independent classes: label 0 is the background, label 1 class 0.
  p.scores_are = Scores::sigmoid;
  p.background = true;
  p.scores = {std::log(1.0 / 3), 0, 0, std::log(3.0)};
  p.labels = {1, 0};
  p.class_weights.clear();
  p.mean = false;
  const double ln4 = std::log(4.0);
  const Array entropy = forward(p).items.value;
  check(Array(entropy.begin() + 2, entropy.begin() + 6),
        {ln4 + ln2, ln2 + ln4, 0.75 * ln4 + 0.5 * ln2, 0.5 * ln2 + 0.75 * ln4});
}

namespace {

// A problem in which every kind of input is present.
Problem everything(uint64_t seed, Scores scores_are, bool soft) {
  Random random(seed);
  Problem p;
  p.batch = 3;
  p.classes = 4;
  p.spatial = {3, 5};
  p.scores_are = scores_are;
  p.background = scores_are == Scores::sigmoid;
  for (double &weight : p.weights) weight = random.uniform(-1, 1);
  p.scores = scores_are == Scores::probabilities ? random.array(p.elements(), 0.05, 0.9)
                                                 : random.array(p.elements(), -3, 3);
  const int64_t voxels = p.batch * p.voxels();
  if (soft) {
    p.target = random.array(p.elements(), 0, 1);
  } else {
    for (int64_t k = 0; k < voxels; ++k) p.labels.push_back(static_cast<double>(random.bits() % 6) - 1);
    p.ignore_label = 4;
  }
  for (int64_t k = 0; k < voxels; ++k) p.mask.push_back(random.bits() % 5 != 0);
  for (int64_t k = 0; k < p.voxels(); ++k) p.labelled.push_back(random.bits() % 5 != 0);
  p.class_weights = random.array(kTerms * p.classes, 0.5, 2);
  p.size_lower = random.array(p.batch * p.classes, 2, 4);
  p.size_upper = random.array(p.batch * p.classes, 4, 5);
  p.focal_gamma = random.uniform(0.5, 3);
  p.focal_dice_threshold = random.uniform(0.4, 0.6);
  p.focal_dice_gamma = random.uniform(1, 3);
  p.log_offset = 1e-3;
  return p;
}

double product(const Array &a, const Array &b) { return a.empty() ? 0 : dot(a, b); }

double scalar(const Problem &p, const Cotangents &c) {
  const Results r = forward(p);
  return product(c.total, r.total.value) + product(c.terms, r.terms.value) + product(c.items, r.items.value) +
         product(c.voxels, r.voxels.value);
}

}  // namespace

TEST_CASE("losses reference: gradients are difference quotients") {
  for (Scores scores_are : {Scores::logits, Scores::sigmoid, Scores::probabilities})
    for (int variant = 0; variant < 8; ++variant) {
      INFO("scores " << static_cast<int>(scores_are) << ", variant " << variant);
      Problem p = everything(7 + variant, scores_are, variant & 1);
      p.mean = variant & 2;
      p.dice_batch = variant & 4;
      p.dice_squared = variant != 3;
      p.size_per_voxel = variant == 2;
      if (variant == 5) p.size_groups = {2, 0, 2};
      if (variant == 6) p.size_lower.resize(p.classes);
      if (variant == 7) p.class_weights.resize(p.classes);
      if (variant == 1) p.focal_gamma = 0;
      Random random(100 + variant);
      Cotangents c;
      c.total = random.array(1, -1, 1);
      c.terms = random.array(kTerms, -1, 1);
      c.items = random.array(kTerms * p.batch * p.classes, -1, 1);
      const auto check = [&](const char *name, Array Problem::*member, const Array &gradient) {
        for (size_t k = 0; k < gradient.size(); k += 1 + gradient.size() / 29) {
          const auto at = [&](double step) {
            Problem moved = p;
            (moved.*member)[k] += step;
            return scalar(moved, c);
          };
          const double h = 1e-4, quotient = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
          CHECK_MESSAGE(std::fabs(gradient[k] - quotient) < 1e-8, name, " ", k, ": gradient ", gradient[k],
                        ", difference quotient ", quotient);
        }
      };
      check("class_weights", &Problem::class_weights, backward(p, c).class_weights.value);
      c.voxels = random.array(p.batch * p.voxels(), -1, 1);
      const Gradients g = backward(p, c);
      check("scores", &Problem::scores, g.scores.value);
      check("size_lower", &Problem::size_lower, g.size_lower.value);
      check("size_upper", &Problem::size_upper, g.size_upper.value);
      for (size_t k = 0; k < g.scores.value.size(); ++k)
        CHECK(std::fabs(g.scores.value[k]) <= g.scores.size[k] * (1 + 1e-12));
    }
}
