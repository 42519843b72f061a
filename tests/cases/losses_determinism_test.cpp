// Same bits of the losses: for every thread count, run to run, whatever the buffers held before, for each
// image of a small batch alone, and whichever outputs are wanted. Nothing outside the outputs is written,
// nothing inside is left unwritten, nothing is allocated.
#include <doctest/doctest.h>

#include <vector>

#include "tests/cases/losses_check.h"
#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::losses::Cotangents;
using ref::losses::Problem;
using Rows = LossCase::Rows;

namespace {

using Bytes = std::vector<std::vector<unsigned char>>;

constexpr int kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;
constexpr int kAll = kSums | LossCase::kVoxels;

// Gradients that accumulate start from fixed values. A workspace holds nothing between calls.
Bytes run(const LossCase &c, Device &device, const LossSettings &settings) {
  LossCall call(device, make_problem(c), settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  call.forward_workspace->fill(static_cast<unsigned char>(~settings.poison));
  for (const auto &gradient : call.gradient_list())
    gradient.second->set(start_of(*gradient.second, SEGPRIOR_BFLOAT16));
  REQUIRE_MESSAGE(call.backward(make_cotangents(c)) == SEGPRIOR_OK, std::string(segprior_last_error()));
  if (settings.canaries) CHECK(call.canaries_intact());
  CHECK(call.violations().empty());
  // With an incoming gradient of the voxels, that of the class weights is not written.
  if (c.incoming_ & LossCase::kVoxels && call.grad_class_weights) call.grad_class_weights->memory().fill(0);
  return contents(call);
}

std::vector<LossCase> selection(LossCase::Size size, int step) {
  std::vector<LossCase> list;
  int seen = 0;
  for (const LossCase &c : loss_cases())
    if (c.size_ == size && seen++ % step == 0) list.push_back(c);
  return list;
}

void check_buffers(const std::vector<LossCase> &list) {
  for (const LossCase &c : list)
    for (segprior_device which : all_devices()) {
      INFO("add(" << c.text() << "); on " << name_of(which));
      Device device(which);
      LossSettings settings = settings_of(c);
      const Bytes first = run(c, device, settings);
      settings.canaries = true;
      for (unsigned char poison : {0x00, 0x3c}) {  // 0x3c3c3c3c: finite and not 0
        settings.poison = poison;
        CHECK_MESSAGE(run(c, device, settings) == first,
                      "other bits on other buffers: something is unwritten, or read before it is written");
      }
    }
}

// Image b alone, of a problem that pools nothing.
Problem alone(const Problem &p, int64_t b) {
  Problem one = p;
  one.batch = 1;
  const auto part = [&](const Array &values, int64_t width) {
    if (static_cast<int64_t>(values.size()) <= width) return values;
    return Array(values.begin() + b * width, values.begin() + (b + 1) * width);
  };
  one.scores = part(p.scores, p.classes * p.voxels());
  one.target = part(p.target, p.classes * p.voxels());
  one.labels = part(p.labels, p.voxels());
  one.mask = part(p.mask, p.voxels());
  one.labelled = part(p.labelled, p.voxels());
  one.size_lower = part(p.size_lower, p.classes);
  one.size_upper = part(p.size_upper, p.classes);
  return one;
}

// On CUDA the batch decides how many voxels a block adds up, unless it is so small that every tile has its
// own.
void check_alone(const LossCase &c, Device &device) {
  INFO("add(" << c.text() << "); on " << name_of(device.which()));
  const Problem p = make_problem(c);
  const Cotangents given = make_cotangents(c);
  LossCall together(device, p, settings_of(c));
  REQUIRE_MESSAGE(together.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(together.backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
  const Array items = together.items->get(), voxels = together.voxels->get(),
              grad = together.grad_scores->get();
  const int64_t field = p.classes * p.voxels();
  const auto part = [](const Array &values, int64_t b, int64_t width) {
    return Array(values.begin() + b * width, values.begin() + (b + 1) * width);
  };
  const auto rows = [&](const Array &all, int64_t b) {
    Array mine;
    for (int k = 0; k < ref::losses::kTerms; ++k)
      for (int64_t i = 0; i < p.classes; ++i) mine.push_back(all[(k * p.batch + b) * p.classes + i]);
    return mine;
  };
  for (int64_t b = 0; b < p.batch; ++b) {
    INFO("image " << b);
    LossCall single(device, alone(p, b), settings_of(c));
    Cotangents mine = given;
    if (!given.items.empty()) mine.items = rows(given.items, b);
    if (!given.voxels.empty()) mine.voxels = part(given.voxels, b, p.voxels());
    REQUIRE_MESSAGE(single.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    REQUIRE_MESSAGE(single.backward(mine) == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK(single.items->get() == rows(items, b));
    CHECK(single.voxels->get() == part(voxels, b, p.voxels()));
    CHECK(single.grad_scores->get() == part(grad, b, field));
  }
}

}  // namespace

TEST_CASE("losses: results do not depend on what buffers held, tiny [small]") {
  check_buffers(selection(LossCase::Size::race, 1));
  check_buffers(selection(LossCase::Size::small, 9));
}
TEST_CASE("losses: results do not depend on what buffers held") {
  check_buffers(selection(LossCase::Size::full, 23));
}

TEST_CASE("losses: the same bits in every run [small]") {
  for (const LossCase &c : selection(LossCase::Size::small, 11))
    for (segprior_device which : all_devices()) {
      INFO("add(" << c.text() << "); on " << name_of(which));
      Device device(which);
      CHECK(run(c, device, settings_of(c)) == run(c, device, settings_of(c)));
    }
}

TEST_CASE("losses: the same bits for every number of CPU threads") {
  std::vector<LossCase> list = selection(LossCase::Size::full, 23);
  using Scores = LossCase::Scores;
  // Enough work for every thread, in one image and in many.
  for (Scores scores : {Scores::logits, Scores::sigmoid, Scores::probabilities}) {
    list.push_back(LossCase({257, 263}, 3).f32().scores(scores).mask(Rows::each).incoming(kAll));
    list.push_back(LossCase({33, 31, 17}, 4, 3).scores(scores).class_weights(5).incoming(kSums).mean());
    list.push_back(LossCase({61, 67}, 21, 2).bf16().scores(scores).dice_batch().groups().incoming(kSums));
  }
  for (const LossCase &c : list) {
    INFO("add(" << c.text() << ")");
    Device one({SEGPRIOR_CPU, 0}, 1);
    const Bytes first = run(c, one, settings_of(c));
    for (int threads : {2, 3, 5}) {
      Device device({SEGPRIOR_CPU, 0}, threads);
      CHECK_MESSAGE(run(c, device, settings_of(c)) == first, threads, " threads give other bits than one");
    }
  }
}

TEST_CASE("losses: each image of a small batch is computed as if it were alone [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    LossCase c({5, 7}, 3, 3);
    c.mask(Rows::each).class_weights(5).bounds(Rows::each, Rows::shared).incoming(kAll);
    check_alone(c, device);
    check_alone(LossCase(c).f32().target(LossCase::Target::soft).scores(LossCase::Scores::sigmoid), device);
  }
}
TEST_CASE("losses: each image of a small batch is computed as if it were alone") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (int64_t width : {33, 20011})
      for (bool f32 : {false, true}) {
        LossCase c({width}, 4, 3);
        c.labelled(Rows::each).mask(Rows::shared).class_weights(1).incoming(kAll);
        if (f32) c.f32();
        check_alone(c, device);
        check_alone(LossCase(c).scores(LossCase::Scores::probabilities), device);
      }
  }
}

TEST_CASE("losses: outputs and gradients that are not wanted change no bit of the others [small]") {
  const LossCase list[] = {
      LossCase({5, 7}, 3, 2)
          .f32()
          .mask(Rows::each)
          .class_weights(5)
          .bounds(Rows::each, Rows::each)
          .mean()
          .incoming(kSums),
      LossCase({2053}, 2, 2).target(LossCase::Target::soft).class_weights(1).bounds(Rows::each, Rows::each)};
  for (segprior_device which : all_devices())
    for (const LossCase &c : list) {
      Device device(which);
      const Problem p = make_problem(c);
      const Cotangents given = make_cotangents(c);
      LossCall full(device, p, settings_of(c));
      REQUIRE(full.forward() == SEGPRIOR_OK);
      REQUIRE(full.backward(given) == SEGPRIOR_OK);
      const Bytes want = contents(full);
      // Tensors 0-3 are the outputs, 4-7 the gradients, then the infos.
      const size_t info = want.size() - 1;
      REQUIRE(info == 8);
      const auto check = [&](unsigned wanted, bool with_saved) {
        INFO("add(" << c.text() << "); on " << name_of(which) << ", wanted " << wanted);
        LossCall call(device, p, settings_of(c));
        const auto has = [&](size_t k) { return (wanted >> k & 1) != 0; };
        if (!has(0)) call.outputs.total = nullptr;
        if (!has(1)) call.outputs.terms = nullptr;
        if (!has(2)) call.outputs.items = nullptr;
        if (!has(3)) call.outputs.voxels = nullptr;
        if (!has(4)) call.grads.scores = nullptr;
        if (!has(5)) call.grads.class_weights = nullptr;
        if (!has(6)) call.grads.size_lower = nullptr;
        if (!has(7)) call.grads.size_upper = nullptr;
        if (!has(8)) call.outputs.info = nullptr;
        const Bytes before = contents(call);
        if (with_saved) {
          REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
          REQUIRE_MESSAGE(call.backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
        } else {
          REQUIRE(segprior_loss_forward(device.context(), &call.opts, &call.inputs, &call.outputs,
                                        call.forward_workspace->data(), call.forward_workspace->bytes(),
                                        nullptr, 0) == SEGPRIOR_OK);
          device.synchronize();
        }
        const Bytes got = contents(call);
        for (size_t k = 0; k <= info; ++k) {
          const bool gradient = k >= 4 && k < info;
          CHECK_MESSAGE(got[k] == (has(k) && (with_saved || !gradient) ? want : before)[k], "tensor ", k);
        }
      };
      for (unsigned one = 0; one <= info; ++one) {
        check(1u << one, true);
        check(0x1ffu & ~(1u << one), true);
      }
      for (unsigned two : {0x3u, 0x9u, 0xcu, 0x30u, 0x60u, 0xc0u, 0x90u, 0x50u, 0x0u}) check(two, true);
      for (unsigned outputs : {0x10fu, 0x1u, 0x8u, 0x100u, 0x0u}) check(outputs, false);
    }
}

TEST_CASE("losses: incoming gradients that are absent are 0 [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    LossCase c({5, 7}, 3, 2);
    c.mask(Rows::each).class_weights(5).bounds(Rows::each, Rows::each).incoming(kSums);
    LossCall call(device, make_problem(c), settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    const auto gradients = [&](const Cotangents &given) {
      REQUIRE_MESSAGE(call.backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
      std::vector<Array> all;
      for (const auto &gradient : call.gradient_list()) all.push_back(gradient.second->get());
      return all;
    };
    for (const Array &gradient : gradients({})) CHECK(gradient == Array(gradient.size(), 0.0));
    const Cotangents given = make_cotangents(c);
    for (int which_one = 0; which_one < 3; ++which_one) {
      Cotangents absent = given, zero = given;
      Array Cotangents::*const member = which_one == 0   ? &Cotangents::total
                                        : which_one == 1 ? &Cotangents::terms
                                                         : &Cotangents::items;
      (absent.*member).clear();
      (zero.*member).assign((given.*member).size(), 0.0);
      CHECK(gradients(absent) == gradients(zero));
      CHECK(gradients(absent) != gradients(given));
    }
  }
}

TEST_CASE("losses: the calls do not allocate") {
  if (!can_count_allocations()) return;
  for (LossCase c : {LossCase({129, 131}, 3, 2).f32(), LossCase({129, 131}, 3, 2).f16().accumulate(),
                     LossCase({33, 31}, 21, 2).target(LossCase::Target::soft).dice_batch()}) {
    c.mask(Rows::each).labelled(Rows::shared).class_weights(5).bounds(Rows::each, Rows::each).incoming(kSums);
    INFO("add(" << c.text() << ")");
    Device device({SEGPRIOR_CPU, 0}, 2);
    const Problem p = make_problem(c);
    LossCall warm_up(device, p, settings_of(c));  // starts OpenMP's threads
    REQUIRE(warm_up.forward() == SEGPRIOR_OK);
    LossCall call(device, p, settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(make_cotangents(c)) == SEGPRIOR_OK);
    CHECK(call.allocations() == 0);
  }
}

#if defined(FAKECUDA)
TEST_CASE("losses: the same bits for every order of blocks and threads [small]") {
  for (const LossCase &c : selection(LossCase::Size::small, 13)) {
    INFO("add(" << c.text() << ")");
    Device device({SEGPRIOR_CUDA, 0});
    const Bytes first = run(c, device, settings_of(c));
    fakecuda::set_order(fakecuda::Order::reverse);
    CHECK(run(c, device, settings_of(c)) == first);
    fakecuda::set_order(fakecuda::Order::random, 7);
    CHECK(run(c, device, settings_of(c)) == first);
    fakecuda::set_order(fakecuda::Order::forward);
  }
}
#endif
