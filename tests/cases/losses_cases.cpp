#include "tests/cases/losses_cases.h"

namespace segprior::test {

namespace {

using Rows = LossCase::Rows;
using Scores = LossCase::Scores;
using Target = LossCase::Target;
using List = std::vector<LossCase>;

constexpr Scores kScores[] = {Scores::logits, Scores::sigmoid, Scores::probabilities};
constexpr Target kTargets[] = {Target::u8, Target::i32, Target::i64, Target::soft, Target::one_hot};
constexpr int kAllTerms = ref::losses::kTerms;
constexpr int kAll = LossCase::kTotal | LossCase::kTerms | LossCase::kItems | LossCase::kVoxels,
              kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;

// Small enough for the race detector: every kind of scores, target and reduction once, in one block and in
// several.
void add_race(List &list) {
  const auto add = [&](LossCase c) { list.push_back(c.race()); };
  add(LossCase({5, 7}, 3, 2).f32().mask(Rows::each).class_weights(1).mean().incoming(kSums));
  add(LossCase({33}, 2, 3).f32().target(Target::soft).labelled(Rows::shared).dice_batch().incoming(kAll));
  add(LossCase({3, 4, 5}, 3, 3).scores(Scores::sigmoid).target(Target::i64).groups().accumulate());
  add(LossCase({6, 7}, 21).bf16().target(Target::i32).bounds(Rows::shared, Rows::absent));
  add(LossCase({2053}, 3, 2).f32().name("blocks").mask(Rows::shared).class_weights(5).incoming(kSums));
  // Two tiles of a block: their exchanges must not overtake one another.
  add(LossCase({129}, 5, 512).name("tiles of a block").mask(Rows::each).mean().incoming(kAll));
}

// For the fake runtime.
void add_small(List &list) {
  const auto add = [&](LossCase c) { list.push_back(c.small()); };
  for (Scores scores : kScores) {
    for (Target target : kTargets) {
      add(LossCase({5, 7}, 3, 2).name("target").f32().scores(scores).target(target).mask(Rows::each));
      add(LossCase({3, 4, 5}, 4, 2).name("target").scores(scores).target(target).labelled(Rows::each).mean());
    }
    for (int term = 0; term < kAllTerms; ++term)
      add(LossCase({9, 11}, 3, 2)
              .name("term")
              .f32()
              .scores(scores)
              .only(term)
              .class_weights(1)
              .incoming(kSums));
    for (int64_t classes : {1, 2, 5, 8, 9, 21, 64})
      add(LossCase({31}, classes).name("classes").f32().scores(scores).class_weights(5).mean());
    add(LossCase({1}, 2).name("one voxel").scores(scores));
    add(LossCase({33}, 1).name("one class").scores(scores).target(Target::soft));
    add(LossCase({6, 5}, 3, 2).name("16-bit").f16().scores(scores).mask(Rows::shared).incoming(kAll));
    add(LossCase({6, 5}, 3, 2).name("16-bit").bf16().scores(scores).target(Target::soft).accumulate());
    add(LossCase({47, 43}, 3, 2).name("blocks").f32().scores(scores).mask(Rows::each).incoming(kAll));
  }
  for (Target target : {Target::u8, Target::i32, Target::i64})
    add(LossCase({5, 7}, 3, 2).scores(Scores::sigmoid).without_background().target(target).mean());
  add(LossCase({3}, 256).name("classes").f32().target(Target::i32).bounds(Rows::each, Rows::each));
  add(LossCase({4, 4}, 256).name("every label of a byte").f32().ignore(-1));
  add(LossCase({7, 5}, 3, 2).name("ignored class").ignore(1).target(Target::i32).mean());
  add(LossCase({7, 5}, 3, 3)
          .name("pooled")
          .dice_batch()
          .groups()
          .bounds(Rows::each, Rows::each)
          .incoming(kSums));
  add(LossCase({7, 5}, 3, 2).name("bounds").bounds(Rows::shared, Rows::each).per_voxel().mean());
  add(LossCase({7, 5}, 3, 2).name("plain sums").f32().plain().smooth(0).class_weights(1));
  add(LossCase({7, 5}, 2, 2)
          .name("size alone")
          .only(0)
          .target(Target::none)
          .mask(Rows::each)
          .incoming(kSums));
  add(LossCase({7, 5}, 3).name("shapes").f32().gamma(0.5).sharp(0.3, 3.5));
  add(LossCase({7, 5}, 3, 2).name("voxels alone").incoming(LossCase::kVoxels).accumulate());
}

void add_terms(List &list) {
  const auto add = [&](const LossCase &c) { list.push_back(c); };
  for (Scores scores : kScores)
    for (Target target : kTargets)
      for (bool f32 : {false, true}) {
        LossCase base({13, 17}, 4, 3);
        base.name("terms").scores(scores).target(target).mask(Rows::each).labelled(Rows::shared);
        if (f32) base.f32();
        for (int term = 0; term < kAllTerms; ++term) {
          add(LossCase(base).only(term).incoming(kSums).class_weights(1));
          add(LossCase(base).only(term).mean().incoming(term % 2 ? kAll : kSums).class_weights(5));
        }
        // Every pair of terms that share sums, and those that do not.
        for (int first = 0; first < kAllTerms; ++first)
          for (int second = first + 1; second < kAllTerms; ++second) {
            LossCase c = base;
            c.terms_ = {};
            c.terms_[first] = 0.5;
            c.terms_[second] = -1;
            if ((first + second) % 2) c.mean();
            add(c);
          }
        add(LossCase(base).incoming(kAll));
      }
  for (bool f32 : {false, true}) {
    LossCase c({11, 13}, 3, 4);
    c.name("size alone").only(0).target(Target::none).incoming(kSums);
    if (f32) c.f32();
    add(c);
    add(LossCase(c).scores(Scores::sigmoid).groups().mask(Rows::shared));
    add(LossCase(c).scores(Scores::probabilities).bounds(Rows::each, Rows::absent).mean());
  }
}

void add_extents(List &list) {
  const auto add = [&](const LossCase &c) { list.push_back(c); };
  for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 127, 128, 129, 255, 256, 257, 1009})
    for (bool f32 : {false, true}) {
      LossCase c({n}, 3, 2);
      c.name("1-D extents").mask(Rows::each).incoming(kAll);
      if (f32) c.f32();
      add(c);
      add(LossCase(c).target(Target::soft).scores(Scores::sigmoid));
    }
  for (int64_t h : {1, 17, 31, 33})
    for (int64_t w : {1, 19, 31, 64}) {
      add(LossCase({h, w}, 2, 2).name("2-D extents").f32().labelled(Rows::each).class_weights(1).mean());
      add(LossCase({h, w}, 3).name("2-D extents").target(Target::one_hot).scores(Scores::probabilities));
    }
  for (int64_t z : {1, 2, 7})
    for (int64_t y : {1, 3, 8})
      for (int64_t x : {1, 5, 16})
        add(LossCase({z, y, x}, 3, 2).name("3-D extents").f32().target(Target::i32).incoming(kAll));
  // Several chunks of an image, ends that no chunk, block or vector divides.
  for (Scores scores : kScores)
    for (bool f32 : {false, true}) {
      LossCase c({20011}, 2, 2);
      c.name("large").scores(scores).mask(Rows::each).class_weights(5).incoming(kSums);
      if (f32) c.f32();
      add(c);
      add(LossCase(c).target(Target::soft).mean());
    }
  add(LossCase({151, 149}, 5, 2).name("large").f32().target(Target::i64).dice_batch().incoming(kAll));
  add(LossCase({29, 31, 37}, 3).name("large").f32().labelled(Rows::shared).plain());
  add(LossCase({131, 127}, 21).name("large").f32().mask(Rows::shared));
}

// So many tiles that a block of the CUDA kernels takes several: about 512 blocks share them. Images of 2, 3
// and 5 tiles, of which the last has one voxel, or the four of one load.
void add_many_tiles(List &list) {
  const auto add = [&](LossCase c) { list.push_back(c.name("tiles of a block").class_weights(1).mean()); };
  for (Scores scores : kScores) {
    add(LossCase({129}, 5, 512).scores(scores).mask(Rows::each).incoming(kSums));
    add(LossCase({4097}, 2, 256).f32().scores(scores).labelled(Rows::shared).incoming(kAll));
    add(LossCase({33}, 33, 512).scores(scores).bounds(Rows::each, Rows::each).incoming(kAll));
    add(LossCase({65}, 33, 342).scores(scores).target(Target::soft).incoming(kSums));
    add(LossCase({4100}, 2, 256).f32().scores(scores).mask(Rows::shared).incoming(kAll));
  }
  add(LossCase({33}, 65, 512).incoming(kSums));
}

void add_counts(List &list) {
  const auto add = [&](const LossCase &c) { list.push_back(c); };
  for (int64_t classes : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 21, 32, 33, 64, 65, 150, 255, 256})
    for (Scores scores : kScores) {
      LossCase c({11, 7}, classes, 2);
      c.name("classes").scores(scores).class_weights(classes % 2 ? 1 : 5).bounds(Rows::each, Rows::each);
      if (classes > 200) c.target(Target::i32);
      if (classes == 256) c.ignore(-1);
      add(c);
      add(LossCase(c).f32().mean().mask(Rows::each));
      add(LossCase(c).f32().target(Target::soft).incoming(kAll));
    }
  for (int64_t batch : {1, 2, 5, 17})
    for (bool pooled : {false, true}) {
      LossCase c({9, 10}, 3, batch);
      c.name("batch").incoming(kSums).class_weights(5).bounds(Rows::each, Rows::each);
      if (pooled) c.dice_batch().groups();
      add(c);
      add(LossCase(c).f32().mean());
      add(LossCase(c).scores(Scores::sigmoid).mean().accumulate());
    }
}

void add_options(List &list) {
  const auto add = [&](const LossCase &c) { list.push_back(c); };
  for (Scores scores : kScores)
    for (bool f32 : {false, true}) {
      LossCase base({12, 11}, 3, 3);
      base.scores(scores).mask(Rows::each);
      if (f32) base.f32();
      for (double g : {0.0, 0.5, 1.0, 2.0, 3.0, 3.7}) {
        add(LossCase(base).name("focal").only(2).gamma(g).incoming(kAll));
        add(LossCase(base).name("focal").only(2).gamma(g).target(Target::soft).mean());
      }
      for (double threshold : {0.0, 0.3, 0.4, 0.5, 1.0})
        for (double g : {1.0, 1.5, 2.0, 3.0, 8.0, 80.0}) {
          add(LossCase(base).name("focal dice").only(4).sharp(threshold, g));
          add(LossCase(base).name("focal dice").only(4).sharp(threshold, g).target(Target::soft).plain());
        }
      for (Rows lower : {Rows::absent, Rows::shared, Rows::each})
        for (Rows upper : {Rows::absent, Rows::shared, Rows::each}) {
          if (lower == Rows::absent && upper == Rows::absent) continue;
          LossCase c = LossCase(base).name("bounds").bounds(lower, upper).incoming(kSums).class_weights(1);
          add(c);
          add(LossCase(c).only(0).per_voxel().mean());
          if (lower != Rows::shared && upper != Rows::shared) add(LossCase(c).groups());
          if (lower != Rows::shared && upper != Rows::shared) add(LossCase(c).groups().mean().per_voxel());
        }
      for (bool plain : {false, true})
        for (bool pooled : {false, true})
          for (double smooth : {0.0, 1e-5, 1.0}) {
            LossCase c =
                LossCase(base).name("dice").terms({{0, 0, 0, 1, 0.5}}).smooth(smooth).incoming(kSums);
            if (plain) c.plain();
            if (pooled) c.dice_batch();
            add(c);
            add(LossCase(c).mean().class_weights(5).target(Target::soft));
          }
      for (int which = 0; which <= kAll; ++which)
        add(LossCase(base).name("cotangents").incoming(which).class_weights(1).mean());
      for (Rows rows : {Rows::absent, Rows::shared, Rows::each})
        for (Rows other : {Rows::absent, Rows::shared, Rows::each})
          for (Target target : {Target::i32, Target::soft})
            add(LossCase(base).name("masks").mask(rows).labelled(other).target(target).mean());
      add(LossCase(base)
              .name("accumulate")
              .accumulate()
              .incoming(kSums)
              .class_weights(5)
              .bounds(Rows::each, Rows::shared));
      add(LossCase(base).name("accumulate").accumulate().incoming(kAll).target(Target::soft));
      add(LossCase(base).name("ignored class").ignore(2).class_weights(1).mean());
      add(LossCase(base).name("ignored class").ignore(0).target(Target::i64));
      add(LossCase(base).name("wide").spread(30).terms({{0.1, 1, 1, 1, 1}}));
    }
  add(LossCase({12, 11}, 3).name("offset").scores(Scores::probabilities).offset(0));
  add(LossCase({12, 11}, 3).name("offset").scores(Scores::probabilities).offset(1e-2).f32());
}

void add_16_bit(List &list) {
  const auto add = [&](const LossCase &c) { list.push_back(c); };
  for (Scores scores : kScores)
    for (Target target : kTargets)
      for (bool half : {false, true})
        for (int64_t width : {1, 33, 2053}) {
          LossCase c({3, width}, width > 100 ? 3 : 5, 2);
          c.name("16-bit").scores(scores).target(target).mask(Rows::each).incoming(kAll);
          half ? c.f16() : c.bf16();
          add(c);
          add(LossCase(c).incoming(kSums).class_weights(5).mean().accumulate());
        }
  add(LossCase({7, 9}, 64).name("16-bit").f16().accumulate());
  add(LossCase({4, 5, 6}, 21, 2).name("16-bit").bf16().target(Target::soft).dice_batch());
}

}  // namespace

const std::vector<LossCase> &loss_cases() {
  static const List list = [] {
    List cases;
    add_race(cases);
    add_small(cases);
    add_terms(cases);
    add_extents(cases);
    add_many_tiles(cases);
    add_counts(cases);
    add_options(cases);
    add_16_bit(cases);
    return cases;
  }();
  return list;
}

}  // namespace segprior::test
