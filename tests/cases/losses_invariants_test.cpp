// What holds without the reference: extreme scores, nothing to count, identities between terms, empty
// tensors.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/cases/losses_check.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::losses::Cotangents;
using ref::losses::Problem;
using Rows = LossCase::Rows;
using Scores = LossCase::Scores;
using Target = LossCase::Target;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;

void solve(LossCall &call, const Cotangents &given) {
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(call.backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
}

Cotangents of_total() {
  Cotangents one;
  one.total = {1};
  return one;
}

void check_finite(const LossCall &call) {
  for (const auto &list : {call.output_list(), call.gradient_list()})
    for (const auto &tensor : list)
      for (double value : tensor.second->get()) {
        if (!std::isfinite(value)) CHECK_MESSAGE(false, tensor.first, " is ", value);
      }
  for (const segprior_info &info : call.infos()) CHECK(info.status == SEGPRIOR_CONVERGED);
}

}  // namespace

TEST_CASE("losses: cross entropy is log-sum-exp less the label's logit [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true}) {
      INFO(name_of(which) << ", float32 " << f32);
      Device device(which);
      LossCase c({1009}, 5);
      c.only(ref::losses::kCrossEntropy).spread(8);
      if (f32) c.f32();
      const Problem p = make_problem(c);
      LossCall call(device, p, settings_of(c));
      solve(call, of_total());
      const Array voxels = call.voxels->get(), gradient = call.grad_scores->get();
      double total = 0;
      for (int64_t x = 0; x < p.voxels(); ++x) {
        double sum = 0, along = 0;
        for (int64_t i = 0; i < p.classes; ++i) sum += std::exp(p.scores[i * p.voxels() + x]);
        for (int64_t i = 0; i < p.classes; ++i) along += gradient[i * p.voxels() + x];
        const bool known = p.labels[x] != 255;
        const double want =
            known ? std::log(sum) - p.scores[static_cast<int64_t>(p.labels[x]) * p.voxels() + x] : 0;
        total += want;
        CHECK(std::fabs(voxels[x] - want) <= (f32 ? 2e-6 : 1e-14) * (1 + want));
        CHECK(std::fabs(along) <= (f32 ? 3e-7 : 1e-15));  // a common offset of the logits changes nothing
      }
      CHECK(std::fabs(call.total->get()[0] - total) <= (f32 ? 1e-6 : 1e-13) * total);
    }
}

TEST_CASE("losses: terms that are special cases of one another agree [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities}) {
      INFO(name_of(which) << ", scores " << static_cast<int>(scores));
      Device device(which);
      LossCase c({9, 11}, 3, 2);
      c.scores(scores).target(Target::soft).mask(Rows::each).gamma(0).sharp(0.5, 1).incoming(kSums);
      const Problem p = make_problem(c);
      LossCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const Array items = call.items->get();
      const int64_t rows = c.batch_ * c.classes_;
      const auto of = [&](int term) {
        return Array(items.begin() + term * rows, items.begin() + (term + 1) * rows);
      };
      CHECK_CLOSE("FOCAL of 0", of(ref::losses::kFocal), of(ref::losses::kCrossEntropy), 1e-11);
      CHECK_CLOSE("FOCAL_DICE of 1", of(ref::losses::kFocalDice), of(ref::losses::kDice), 1e-14);
      for (double g : {0.0, 0.5, 1.0, 2.0}) {  // the more S is right, the less FOCAL has of it
        call.opts.focal_gamma = g;
        REQUIRE(call.forward() == SEGPRIOR_OK);
        CHECK(call.terms->get()[ref::losses::kFocal] <=
              call.terms->get()[ref::losses::kCrossEntropy] * (1 + 1e-12));
      }
    }
}

TEST_CASE("losses: extreme logits have finite losses and gradients [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid})
      for (Target target : {Target::u8, Target::soft})
        for (double top : {100.0, 1e4, 1e30})
          for (bool f32 : {false, true})
            for (double g : {0.5, 2.0}) {
              INFO(name_of(which) << ", scores " << static_cast<int>(scores) << ", target "
                                  << static_cast<int>(target) << ", up to " << top << ", float32 " << f32
                                  << ", gamma " << g);
              Device device(which);
              LossCase c({4, 3}, 3, 2);
              c.scores(scores).target(target).gamma(g).bounds(Rows::each, Rows::each).class_weights(1);
              if (f32) c.f32();
              Problem p = make_problem(c);
              const double values[] = {top, -top, 0, top, 1, -top, -1};
              for (size_t k = 0; k < p.scores.size(); ++k) p.scores[k] = values[k % 7];
              p.scores = rounded(p.scores, c.dtype_);
              LossCall call(device, p, settings_of(c));
              solve(call, make_cotangents(c));
              check_finite(call);
            }
}

TEST_CASE("losses: cross entropy of sure and wrong scores is the margin [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true})
      for (double top : {1e4, 1e30}) {
        INFO(name_of(which) << ", float32 " << f32 << ", margin " << 2 * top);
        Device device(which);
        Problem p;
        p.classes = 2;
        p.spatial = {2};
        p.scores = {top, -top, -top, top};  // S = (1, 0) and (0, 1)
        p.labels = {1, 1};                  // wrong, right
        p.weights[ref::losses::kCrossEntropy] = 1;
        LossSettings settings;
        settings.dtype = f32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
        LossCall call(device, p, settings);
        solve(call, of_total());
        const double unit = f32 ? 0x1p-22 : 0x1p-51;
        CHECK(std::fabs(call.total->get()[0] - 2 * top) <= unit * top);
        CHECK(call.grad_scores->get() == Array{1, 0, -1, 0});
      }
}

TEST_CASE("losses: FOCAL of sure voxels keeps its digits, relative to its tiny value [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true})
      for (int64_t classes : {2, 5})
        for (double g : {0.5, 1.0, 2.0})
          for (double margin : {5.0, 9.0, 12.0, 16.0, 20.0}) {
            INFO(name_of(which) << ", float32 " << f32 << ", I " << classes << ", gamma " << g << ", margin "
                                << margin);
            Device device(which);
            Problem p;
            p.classes = classes;
            p.spatial = {1};
            p.scores.assign(classes, 0);
            p.scores[0] = margin;
            p.labels = {0};
            p.weights[ref::losses::kFocal] = 1;
            p.focal_gamma = g;
            LossSettings settings;
            settings.dtype = f32 ? SEGPRIOR_FLOAT32 : SEGPRIOR_FLOAT64;
            LossCall call(device, p, settings);
            solve(call, of_total());
            const double others = (classes - 1) * std::exp(-margin), rest = others / (1 + others);  // 1 - S
            const double log = std::log1p(others);                                                  // -ln S
            const double loss = std::pow(rest, g) * log;
            const double slope = -(g * (1 - rest) * std::pow(rest, g - 1) * log + std::pow(rest, g)) * rest;
            const double near = f32 ? 1e-5 : 1e-12;
            CHECK(std::fabs(call.total->get()[0] - loss) <= near * loss);
            const Array grad = call.grad_scores->get();
            const double other = -slope / (classes - 1), unit = f32 ? 0x1p-23 : 0x1p-52;
            CHECK(std::fabs(grad[1] - other) <= near * std::fabs(other));
            // A difference of two numbers of the size of slope / rest, each rounded up to three times.
            CHECK(std::fabs(grad[0] - slope) <= near * std::fabs(slope) + 3 * unit * std::fabs(slope) / rest);
          }
}

TEST_CASE("losses: sure logits whose difference is beyond the range [small]") {
  for (segprior_device which : all_devices())
    for (Target target : {Target::u8, Target::soft})
      for (double g : {0.0, 0.5, 2.0}) {
        INFO(name_of(which) << ", target " << static_cast<int>(target) << ", gamma " << g);
        Device device(which);
        LossCase c({5, 7}, 2);
        c.f32().target(target).gamma(g);
        Problem p = make_problem(c);
        for (int64_t x = 0; x < p.voxels(); ++x) {
          p.scores[x] = 3e38;
          p.scores[p.voxels() + x] = -3e38;
          if (target == Target::u8) p.labels[x] = 0;
          if (target == Target::soft) p.target[x] = 1, p.target[p.voxels() + x] = 0;
        }
        LossCall call(device, p, settings_of(c));
        solve(call, of_total());
        check_finite(call);
        CHECK(call.terms->get()[ref::losses::kCrossEntropy] == 0);
        CHECK(call.terms->get()[ref::losses::kFocal] == 0);
      }
}

TEST_CASE("losses: a class of weight 0 has no gradient, however wrong it is [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true}) {
      INFO(name_of(which) << ", float32 " << f32);
      Device device(which);
      LossCase c({5, 7}, 2);
      c.scores(Scores::probabilities).offset(0).terms({{0, 1, 1, 1, 1}}).class_weights(1);
      if (f32) c.f32();
      Problem p = make_problem(c);
      p.class_weights = {0, 1};
      for (int64_t x = 0; x < p.voxels(); ++x) {
        p.labels[x] = 0;
        p.scores[x] = 0;  // -ln S is infinite
      }
      LossCall call(device, p, settings_of(c));
      call.grads.class_weights = nullptr;  // the infinite loss itself
      solve(call, of_total());
      for (const auto &output : call.output_list())
        for (double value : output.second->get()) CHECK(std::isfinite(value));
      const Array gradient = call.grad_scores->get();
      for (int64_t k = 0; k < c.elements(); ++k)
        CHECK((k < p.voxels() ? gradient[k] == 0 : std::isfinite(gradient[k])));
    }
}

TEST_CASE("losses: very sharp FOCAL_DICE is finite [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true})
      for (double g : {70.0, 1000.0, 1e6}) {
        INFO(name_of(which) << ", float32 " << f32 << ", gamma " << g);
        Device device(which);
        LossCase c({9, 11}, 3);
        c.only(ref::losses::kFocalDice).sharp(0.5, g);
        if (f32) c.f32();
        LossCall call(device, make_problem(c), settings_of(c));
        solve(call, of_total());
        check_finite(call);
      }
}

TEST_CASE("losses: probabilities of exactly 0 and 1, and of 1 but for rounding [small]") {
  for (segprior_device which : all_devices())
    for (Target target : {Target::u8, Target::one_hot, Target::soft})
      for (double g : {0.0, 0.5, 1.0, 2.0, 3.7})
        for (bool f32 : {false, true}) {
          INFO(name_of(which) << ", target " << static_cast<int>(target) << ", gamma " << g << ", float32 "
                              << f32);
          Device device(which);
          LossCase c({5, 7}, 3, 2);
          c.scores(Scores::probabilities).target(target).offset(0).gamma(g).bounds(Rows::each, Rows::each);
          if (f32) c.f32();
          Problem p = make_problem(c);
          const int64_t voxels = p.voxels(), field = p.classes * voxels;
          for (int64_t k = 0; k < c.elements(); ++k) {
            const int64_t b = k / field, x = k % voxels, i = k / voxels % p.classes, right = x % p.classes;
            if (target == Target::u8) p.labels[b * voxels + x] = static_cast<double>(right);
            if (target != Target::u8) p.target[k] = i == right;
            p.scores[k] = i == right;
          }
          LossCall exact(device, p, settings_of(c));
          solve(exact, of_total());
          check_finite(exact);
          const Array voxel_losses = exact.voxels->get();
          CHECK(voxel_losses == Array(voxel_losses.size(), 0.0));
          // As another softmax may leave them.
          for (double &score : p.scores)
            if (score == 1) score += f32 ? 0x1p-22 : 0x1p-51;
          LossCall above(device, p, settings_of(c));
          solve(above, of_total());
          check_finite(above);
          CHECK_CLOSE("voxels", above.voxels->get(), voxel_losses, f32 ? 1e-6 : 1e-14);
        }
}

TEST_CASE("losses: where nothing counts, loss and gradient are 0 [small]") {
  for (segprior_device which : all_devices())
    for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities})
      for (Target target : {Target::u8, Target::soft})
        for (int variant = 0; variant < 8; ++variant) {
          INFO(name_of(which) << ", scores " << static_cast<int>(scores) << ", target "
                              << static_cast<int>(target) << ", variant " << variant);
          Device device(which);
          LossCase c({5, 7}, 3, 2);
          c.scores(scores).target(target).smooth(0).terms({{0, 1, 1, 1, 1}}).incoming(kSums).class_weights(5);
          if (variant & 1) c.mean();
          if (variant & 2) c.dice_batch();
          Problem p = make_problem(c);
          (variant & 4 ? p.mask : p.labelled).assign(2 * p.voxels(), 0.0);
          LossCall call(device, p, settings_of(c));
          solve(call, make_cotangents(c));
          check_finite(call);
          for (const auto &list : {call.output_list(), call.gradient_list()})
            for (const auto &tensor : list) {
              if (std::string(tensor.first).find("size") != std::string::npos) continue;
              const Array values = tensor.second->get();
              CHECK_MESSAGE(values == Array(values.size(), 0.0), tensor.first, " is not 0");
            }
        }
}

TEST_CASE("losses: every label ignored, and classes that no voxel has [small]") {
  for (segprior_device which : all_devices())
    for (bool mean : {false, true}) {
      INFO(name_of(which) << ", mean " << mean);
      Device device(which);
      LossCase c({5, 7}, 4, 3);
      c.f32().target(Target::i32).terms({{0, 1, 1, 0, 0}}).class_weights(1);
      if (mean) c.mean();
      Problem p = make_problem(c);
      const int64_t voxels = p.voxels(), field = p.classes * voxels;
      for (int64_t x = 0; x < voxels; ++x) {
        p.labels[x] = 255;
        p.labels[voxels + x] = -7;
        p.labels[2 * voxels + x] = 2;
      }
      LossCall call(device, p, settings_of(c));
      solve(call, of_total());
      check_finite(call);
      const Array gradient = call.grad_scores->get(), items = call.items->get();
      for (int64_t k = 0; k < 2 * field; ++k) CHECK(gradient[k] == 0);
      for (int64_t k = 0; k < static_cast<int64_t>(items.size()); ++k) {
        const int64_t term = k / (p.batch * p.classes), b = k / p.classes % p.batch, i = k % p.classes;
        const bool counts = b == 2 && i == 2 && (term == 1 || term == 2) && p.class_weights[i] != 0;
        CHECK((items[k] != 0) == counts);
      }
      // DICE with smoothing: a class that is nowhere, neither in S nor in t, has loss 0 if r = d.
      Problem q =
          make_problem(LossCase(c).terms({{0, 0, 0, 1, 1}}).scores(Scores::probabilities).class_weights(0));
      q.smooth_nr = q.smooth_dr = 0.5;
      q.labels.assign(q.labels.size(), 0);
      for (int64_t k = 0; k < c.elements(); ++k) q.scores[k] = k / voxels % q.classes == 0;
      LossCall none(device, q, settings_of(c));
      solve(none, of_total());
      check_finite(none);
      for (double item : none.items->get()) CHECK(std::fabs(item) < 1e-6);
    }
}

TEST_CASE("losses: infinite bounds bound nothing [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    LossCase c({5, 7}, 3, 2);
    c.f32().only(0).target(Target::none).bounds(Rows::each, Rows::each).mean().incoming(kSums);
    Problem p = make_problem(c);
    p.size_lower.assign(p.size_lower.size(), -kInf);
    p.size_upper.assign(p.size_upper.size(), kInf);
    LossCall call(device, p, settings_of(c));
    solve(call, make_cotangents(c));
    for (const auto &list : {call.output_list(), call.gradient_list()})
      for (const auto &tensor : list) {
        const Array values = tensor.second->get();
        CHECK_MESSAGE(values == Array(values.size(), 0.0), tensor.first, " is not 0");
      }
    check_finite(call);
  }
}

TEST_CASE("losses: empty tensors are valid and give 0 [small]") {
  for (segprior_device which : all_devices())
    for (bool f32 : {false, true})
      for (bool accumulate : {false, true})
        for (const LossCase &shape :
             {LossCase({5, 7}, 3, 0), LossCase({0}, 3, 2), LossCase({4, 0, 3}, 2, 2)}) {
          LossCase c = shape;
          c.class_weights(5).bounds(Rows::shared, Rows::each).incoming(kSums);
          if (f32) c.f32();
          if (accumulate) c.accumulate();
          INFO("add(" << c.text() << "); on " << name_of(which));
          Device device(which);
          LossCall call(device, make_problem(c), settings_of(c));
          CHECK(call.forward_workspace->bytes() == 0);
          CHECK(call.backward_workspace->bytes() == 0);
          CHECK(call.saved->bytes() == 0);
          for (const auto &gradient : call.gradient_list())
            gradient.second->set(start_of(*gradient.second, SEGPRIOR_BFLOAT16));
          solve(call, make_cotangents(c));
          for (const auto &output : call.output_list())
            for (double value : output.second->get()) CHECK(value == 0);
          for (const segprior_info &info : call.infos()) {
            CHECK(info.status == SEGPRIOR_CONVERGED);
            CHECK(info.iterations == 0);
            CHECK(info.residual == 0);
          }
          for (const auto &gradient : call.gradient_list()) {
            const Array start = start_of(*gradient.second, SEGPRIOR_BFLOAT16);
            CHECK(gradient.second->get() == (accumulate ? start : Array(start.size(), 0.0)));
          }
          CHECK(call.violations().empty());
        }
}
