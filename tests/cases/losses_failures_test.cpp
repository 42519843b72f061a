// Bad numbers inside the tensors of the losses: the images that they belong to are flagged and all their
// results are NaN, the gradients of the others keep their bits, and masked voxels have a gradient of 0.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/cases/losses_isolation.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::losses::Problem;
using Rows = LossCase::Rows;
using Scores = LossCase::Scores;
using Target = LossCase::Target;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;
constexpr int kAll = kSums | LossCase::kVoxels;

LossCase base(Scores scores, Target target, bool f32) {
  LossCase c({5, 7}, 3, 3);
  c.scores(scores).target(target).mask(Rows::each).bounds(Rows::each, Rows::each).incoming(kAll);
  return f32 ? c.f32() : c;
}

// Element of class 1 of image 1, at a voxel whose label is known.
Damage set(Array Problem::*member, double value, bool last = false) {
  return [=](Problem &p) {
    const int64_t x = labelled_voxel(p, 1, last), voxels = p.voxels();
    const bool per_class = static_cast<int64_t>((p.*member).size()) == p.elements();
    (p.*member)[per_class ? (p.classes + 1) * voxels + x : voxels + x] = value;
  };
}

// Image 1 of a label map or of a target, everywhere.
Damage set_all(Array Problem::*member, double value) {
  return [=](Problem &p) {
    const int64_t size = static_cast<int64_t>((p.*member).size()) / p.batch;
    std::fill_n((p.*member).begin() + size, size, value);
  };
}

bool second(int64_t b) { return b == 1; }
bool nobody(int64_t) { return false; }

}  // namespace

TEST_CASE("losses: scores that are not finite fail their image [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities})
      for (bool f32 : {false, true}) {
        INFO(name_of(which) << ", scores " << static_cast<int>(scores) << ", float32 " << f32);
        Device device(which);
        for (Target target : {Target::u8, Target::soft}) {
          const LossCase c = base(scores, target, f32);
          for (double value : {kNaN, kInf, -kInf})
            check_isolated(c, device, SEGPRIOR_NONFINITE_INPUT, set(&Problem::scores, value, value > 0),
                           second);
          // The divisors of the means come from the labels alone.
          check_isolated(LossCase(c).mean().incoming(kSums).class_weights(1), device,
                         SEGPRIOR_NONFINITE_INPUT, set(&Problem::scores, kNaN), second);
        }
        // A score at a voxel without a label is looked at too.
        LossCase c = base(scores, Target::i32, f32).labelled(Rows::each);
        check_isolated(
            c, device, SEGPRIOR_NONFINITE_INPUT,
            [](Problem &p) {
              for (int64_t x = 0; x < p.voxels(); ++x)
                if (!masked(p, 1, x) && p.labelled[p.voxels() + x] == 0)
                  p.scores[p.classes * p.voxels() + x] = kNaN;
            },
            second);
        // Each term alone finds it.
        for (int term = 0; term < ref::losses::kTerms; ++term)
          check_isolated(base(scores, Target::u8, f32).only(term), device, SEGPRIOR_NONFINITE_INPUT,
                         set(&Problem::scores, kNaN, true), second);
        for (const bool half : {false, true}) {
          LossCase small = base(scores, Target::u8, true);
          half ? small.f16() : small.bf16();
          check_isolated(small, device, SEGPRIOR_NONFINITE_INPUT, set(&Problem::scores, -kInf), second);
        }
      }
}

TEST_CASE("losses: labels and targets outside their range fail their image [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities}) {
      INFO(name_of(which) << ", scores " << static_cast<int>(scores));
      Device device(which);
      const double first_bad = scores == Scores::sigmoid ? 4 : 3;
      const auto check = [&](const LossCase &c, Array Problem::*member, double value) {
        INFO("value " << value << ", target " << static_cast<int>(c.target_));
        check_isolated(c, device, SEGPRIOR_INVALID_PARAMETER, set(member, value, value > 100), second);
      };
      for (Target target : {Target::u8, Target::i32, Target::i64})
        for (double value : {first_bad, 254.0}) check(base(scores, target, true), &Problem::labels, value);
      for (double value : {2.0, 255.0}) check(base(scores, Target::one_hot, true), &Problem::target, value);
      check(base(scores, Target::i32, false), &Problem::labels, 256);  // and not 0, its low byte
      check(base(scores, Target::i32, true), &Problem::labels, 2147483647);
      check(base(scores, Target::i64, true), &Problem::labels, 4294967296.0);
      check(base(scores, Target::i64, true), &Problem::labels, 4294967551.0);  // nor 255
      for (double value : {-0.25, kNaN, kInf, -kInf}) {
        check(base(scores, Target::soft, true), &Problem::target, value);
        check(base(scores, Target::soft, false), &Problem::target, value);
      }
      for (int term = 1; term < ref::losses::kTerms; ++term) {
        check(base(scores, Target::u8, true).only(term), &Problem::labels, first_bad);
        check(base(scores, Target::soft, true).only(term), &Problem::target, -1);
      }
      // Both at once: what the scores hold is told.
      check_isolated(
          base(scores, Target::u8, true), device, SEGPRIOR_NONFINITE_INPUT,
          [](Problem &p) {
            set(&Problem::labels, 200)(p);
            set(&Problem::scores, kNaN, true)(p);
          },
          second);
      check_isolated(
          base(scores, Target::u8, true), device, SEGPRIOR_NONFINITE_INPUT,
          [](Problem &p) {
            set(&Problem::labels, 200, true)(p);
            set(&Problem::scores, kInf)(p);
          },
          second);
    }
}

// A target out of range counts as 0, and so does every class of a voxel whose label is: MEAN's divisors stay
// numbers, the same on every device.
TEST_CASE("losses: MEAN over images of which one has bad labels or targets [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities})
      for (int term = 1; term < ref::losses::kTerms; ++term) {
        INFO(name_of(which) << ", scores " << static_cast<int>(scores) << ", term " << term);
        Device device(which);
        const auto mean = [&](Target target, bool f32) {
          return base(scores, target, f32).only(term).mean().incoming(kSums);
        };
        const auto check = [&](const LossCase &c, Array Problem::*member, double value, double counted) {
          INFO("value " << value << ", target " << static_cast<int>(c.target_));
          for (bool last : {false, true})
            check_isolated(c, device, SEGPRIOR_INVALID_PARAMETER, set(member, value, last), second, nobody,
                           set(member, counted, last));
        };
        const auto check_all = [&](const LossCase &c, Array Problem::*member, double value, double counted) {
          INFO("everywhere value " << value << ", target " << static_cast<int>(c.target_));
          check_isolated(c, device, SEGPRIOR_INVALID_PARAMETER, set_all(member, value), second, nobody,
                         set_all(member, counted));
        };
        // The label that is counted alike: for sum t one that is not known, for numbers of voxels or images a
        // sound one.
        const bool sums_targets = term == ref::losses::kCrossEntropy || term == ref::losses::kFocal;
        const double label = sums_targets && scores != Scores::sigmoid ? 255 : 1;
        for (bool f32 : {false, true}) {
          for (Target target : {Target::u8, Target::i64}) {
            check(mean(target, f32), &Problem::labels, 7, label);
            check_all(mean(target, f32), &Problem::labels, 7, label);
          }
          for (double value : {2.0, 255.0}) {
            check(mean(Target::one_hot, f32), &Problem::target, value, 0);
            check_all(mean(Target::one_hot, f32), &Problem::target, value, 0);
          }
          for (double value : {-0.25, kNaN, kInf}) {
            check(mean(Target::soft, f32), &Problem::target, value, 0);
            check_all(mean(Target::soft, f32), &Problem::target, value, 0);
          }
        }
      }
}

TEST_CASE("losses: SIZE alone looks at no labels [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities})
      for (Target target : {Target::u8, Target::i32, Target::i64, Target::soft, Target::one_hot}) {
        INFO(name_of(which) << ", scores " << static_cast<int>(scores) << ", target "
                            << static_cast<int>(target));
        Device device(which);
        const LossCase c = base(scores, target, true).only(0).labelled(Rows::each).mean().incoming(kSums);
        const Problem sound = make_problem(c);
        Problem bad = sound;
        bad.labels.assign(bad.labels.size(), 200);
        bad.target.assign(bad.target.size(), target == Target::soft ? kNaN : 200);
        bad.labelled.assign(bad.labelled.size(), 1);
        LossCall call(device, sound, settings_of(c)), other(device, bad, settings_of(c));
        for (LossCall *each : {&call, &other}) {
          REQUIRE(each->forward() == SEGPRIOR_OK);
          REQUIRE(each->backward(make_cotangents(c)) == SEGPRIOR_OK);
          for (const segprior_info &info : each->infos()) CHECK(info.status == SEGPRIOR_CONVERGED);
        }
        CHECK(std::isfinite(call.total->get()[0]));
        CHECK(contents(other) == contents(call));
      }
}

TEST_CASE("losses: labels at the ends of their types [small]") {
  const auto check = [](auto label, int32_t dtype, int64_t status) {
    for (segprior_device which : all_devices())
      for (Scores scores : {Scores::logits, Scores::sigmoid})
        for (bool hidden : {false, true}) {
          INFO(name_of(which) << ", label " << label << ", hidden " << hidden);
          Device device(which);
          LossCase c({5}, 3);
          c.f32().scores(scores).mask(hidden ? Rows::each : Rows::absent);
          c.target(dtype == SEGPRIOR_INT32 ? Target::i32 : Target::i64);
          Problem p = make_problem(c);
          if (hidden) p.mask.assign(5, 0.0);
          LossCall call(device, p, settings_of(c));
          const std::vector<decltype(label)> labels(5, label);
          call.labels->memory().upload(labels.data());
          REQUIRE(call.forward() == SEGPRIOR_OK);
          CHECK(call.infos()[0].status == (hidden ? static_cast<int64_t>(SEGPRIOR_CONVERGED) : status));
        }
  };
  check(std::numeric_limits<int32_t>::max(), SEGPRIOR_INT32, SEGPRIOR_INVALID_PARAMETER);
  check(std::numeric_limits<int32_t>::min(), SEGPRIOR_INT32, SEGPRIOR_CONVERGED);  // negative: not known
  check(std::numeric_limits<int64_t>::max(), SEGPRIOR_INT64, SEGPRIOR_INVALID_PARAMETER);
  check(std::numeric_limits<int64_t>::min(), SEGPRIOR_INT64, SEGPRIOR_CONVERGED);
}

TEST_CASE("losses: negative probabilities fail their image [small]") {
  for (segprior_device which : all_devices())
    for (Target target : {Target::u8, Target::one_hot})
      for (bool f32 : {false, true}) {
        INFO(name_of(which) << ", float32 " << f32);
        Device device(which);
        const LossCase c = base(Scores::probabilities, target, f32);
        check_isolated(c, device, SEGPRIOR_INVALID_PARAMETER, set(&Problem::scores, -1e-6), second);
        check_isolated(LossCase(c).only(0), device, SEGPRIOR_INVALID_PARAMETER,
                       set(&Problem::scores, -2, true), second);
      }
}

TEST_CASE("losses: bounds that are not valid fail the images of their group [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true}) {
      INFO(name_of(which) << ", float32 " << f32);
      Device device(which);
      const auto bound = [](Array Problem::*member, int64_t row, double value) {
        return [=](Problem &p) { (p.*member)[row * p.classes + 2] = value; };
      };
      const LossCase c = base(Scores::logits, Target::u8, f32);
      const auto check = [&](const Damage &damage) {
        check_isolated(c, device, SEGPRIOR_INVALID_PARAMETER, damage, second);
      };
      check(bound(&Problem::size_lower, 1, kNaN));
      check(bound(&Problem::size_upper, 1, kNaN));
      check([](Problem &p) {
        p.size_lower[p.classes] = 5;
        p.size_upper[p.classes] = 4.5;
      });
      check(bound(&Problem::size_upper, 1, -1e-3));
      // No volume is that large, or that small.
      for (double value : {kInf, -kInf})
        check([=](Problem &p) { p.size_lower[p.classes] = p.size_upper[p.classes] = value; });
      // One row for all.
      const Failed all = [](int64_t) { return true; };
      check_isolated(LossCase(c).bounds(Rows::shared, Rows::absent), device, SEGPRIOR_INVALID_PARAMETER,
                     bound(&Problem::size_lower, 0, kNaN), all);
      // Images 0 and 1 are group 0, image 2 is group 2.
      const LossCase grouped = LossCase(c).groups();
      check_isolated(grouped, device, SEGPRIOR_INVALID_PARAMETER, bound(&Problem::size_lower, 2, kNaN),
                     [](int64_t b) { return b == 2; });
      const auto in_first = [](int64_t b) { return b < 2; };
      check_isolated(grouped, device, SEGPRIOR_INVALID_PARAMETER, bound(&Problem::size_upper, 0, kNaN),
                     in_first, in_first);
      // A score of image 1: image 0 shares its volume.
      check_isolated(grouped, device, SEGPRIOR_NONFINITE_INPUT, set(&Problem::scores, kNaN), second,
                     in_first);
      // Without SIZE nobody looks.
      Problem p = make_problem(LossCase(grouped).terms({{0, 1, 1, 1, 1}}));
      p.size_lower.assign(p.size_lower.size(), kNaN);
      p.size_groups = {-1, 99, 3};
      LossCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      for (const segprior_info &info : call.infos()) CHECK(info.status == SEGPRIOR_CONVERGED);
      CHECK(std::isfinite(call.total->get()[0]));
    }
}

TEST_CASE("losses: groups outside 0 .. B-1 fail their image [small]") {
  for (segprior_device which : all_devices())
    for (double group : {-1.0, 3.0, 2147483647.0, -2147483648.0}) {
      INFO(name_of(which) << ", group " << group);
      Device device(which);
      const LossCase c = base(Scores::logits, Target::u8, true).only(0).groups();
      const Problem good = make_problem(c);
      Problem bad = good;
      bad.size_groups[1] = group;  // leaves image 0 alone in its group
      LossCall healthy(device, good, settings_of(c)), spoilt(device, bad, settings_of(c));
      for (LossCall *call : {&healthy, &spoilt}) {
        REQUIRE(call->forward() == SEGPRIOR_OK);
        REQUIRE(call->backward(make_cotangents(c)) == SEGPRIOR_OK);
      }
      const auto infos = spoilt.infos();
      CHECK(infos[0].status == SEGPRIOR_CONVERGED);
      CHECK(infos[1].status == SEGPRIOR_INVALID_PARAMETER);
      CHECK(infos[2].status == SEGPRIOR_CONVERGED);
      const Array items = spoilt.items->get();  // those of SIZE come first
      for (int64_t i = 0; i < c.classes_; ++i) CHECK(std::isnan(items[c.classes_ + i]));
      for (int64_t i = 0; i < c.classes_; ++i) CHECK(std::isfinite(items[i]));
      CHECK(std::isnan(spoilt.terms->get()[ref::losses::kSize]));
      CHECK(std::isnan(spoilt.total->get()[0]));
      const Array got = spoilt.grad_scores->get(), want = healthy.grad_scores->get();
      const int64_t voxels = good.voxels(), field = c.classes_ * voxels;
      for (int64_t k = 0; k < c.elements(); ++k) {
        const int64_t b = k / field;
        if (b == 0) CHECK(std::isfinite(got[k]));
        if (b == 1) CHECK((masked(good, b, k % voxels) ? got[k] == 0 : std::isnan(got[k])));
        if (b == 2) CHECK(got[k] == want[k]);
      }
    }
}

TEST_CASE("losses: class weights that are not valid fail every image [small]") {
  for (segprior_device which : all_devices())
    for (double value : {-1e-3, kNaN, kInf, -kInf}) {
      INFO(name_of(which) << ", weight " << value);
      Device device(which);
      const Failed all = [](int64_t) { return true; };
      const auto weight = [=](int64_t k) { return [=](Problem &p) { p.class_weights[k] = value; }; };
      const LossCase c = base(Scores::logits, Target::u8, true).incoming(kSums);
      check_isolated(LossCase(c).class_weights(1), device, SEGPRIOR_INVALID_PARAMETER, weight(2), all);
      for (int64_t k : {0, 4, 14})
        check_isolated(LossCase(c).class_weights(5), device, SEGPRIOR_INVALID_PARAMETER, weight(k), all);
      // The row of a term that is off is not read.
      LossCase off = LossCase(c).class_weights(5).terms({{0.5, 1, 0, 1, 1}});
      Problem p = make_problem(off);
      p.class_weights[2 * p.classes + 1] = value;
      LossCall call(device, p, settings_of(off));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      REQUIRE(call.backward(make_cotangents(off)) == SEGPRIOR_OK);
      for (const segprior_info &info : call.infos()) CHECK(info.status == SEGPRIOR_CONVERGED);
      CHECK(std::isfinite(call.total->get()[0]));
      for (double gradient : call.grad_class_weights->get()) CHECK(std::isfinite(gradient));
    }
}

TEST_CASE("losses: with pooled terms a failing image is in the sums of all [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const LossCase c = base(Scores::logits, Target::u8, true).dice_batch();
    const Failed every = [](int64_t) { return true; };
    check_isolated(c, device, SEGPRIOR_NONFINITE_INPUT, set(&Problem::scores, kNaN), second, every);
  }
}

TEST_CASE("losses: accumulating gradients of a failing image keep their masked voxels [small]") {
  for (segprior_device which : all_devices())
    for (bool half : {false, true}) {
      INFO(name_of(which) << ", float16 " << half);
      Device device(which);
      LossCase c = base(Scores::logits, Target::u8, true).accumulate();
      if (half) c.f16();
      Problem p = make_problem(c);
      set(&Problem::scores, kNaN)(p);
      LossCall call(device, p, settings_of(c));
      const Array start = start_of(*call.grad_scores, SEGPRIOR_BFLOAT16);
      for (const auto &gradient : call.gradient_list())
        gradient.second->set(start_of(*gradient.second, SEGPRIOR_BFLOAT16));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      REQUIRE(call.backward(make_cotangents(c)) == SEGPRIOR_OK);
      const Array got = call.grad_scores->get();
      const Array want = rounded(start, c.dtype_);
      for (int64_t k = 0; k < c.elements(); ++k) {
        const int64_t b = k / (c.classes_ * p.voxels()), x = k % p.voxels();
        if (masked(p, b, x)) CHECK(got[k] == want[k]);
        if (!masked(p, b, x)) CHECK(std::isnan(got[k]) == (b == 1));
      }
    }
}
