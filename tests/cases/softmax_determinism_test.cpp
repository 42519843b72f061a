// Same bits: for every thread count, run to run, whatever the buffers held before, and for each image alone.
// Nothing outside the outputs is written, nothing inside is left unwritten, nothing is allocated.
#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>
#include <vector>

#include "tests/cases/check.h"
#include "tests/support/alloc_count.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;

namespace {

using Bytes = std::vector<std::vector<unsigned char>>;

// Everything that forward and every backward mode write.
Bytes run(const Case &c, Device &device, const CallSettings &settings) {
  const ref::Problem problem = make_problem(c);
  const ref::Array grad_u = make_grad_u(c);
  SoftmaxCall call(device, problem, settings);
  Bytes all;
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
  all.push_back(call.u->memory().content());
  if (call.tv_dual) all.push_back(call.tv_dual->memory().content());
  if (call.volume_dual) all.push_back(call.volume_dual->memory().content());
  if (call.star_dual) all.push_back(call.star_dual->memory().content());
  all.push_back(call.info->content());
  // A workspace holds nothing between calls.
  call.forward_workspace->fill(static_cast<unsigned char>(~settings.poison));
  for (int32_t mode : {SEGPRIOR_BACKWARD_LAST, SEGPRIOR_BACKWARD_UNROLLED, SEGPRIOR_BACKWARD_IMPLICIT}) {
    if (mode == SEGPRIOR_BACKWARD_IMPLICIT && !c.implicit_) continue;
    REQUIRE_MESSAGE(call.backward(mode, grad_u) == SEGPRIOR_OK, segprior_last_error());
    for (const auto &gradient : call.gradient_list(mode)) all.push_back(gradient.second->memory().content());
    if (mode == SEGPRIOR_BACKWARD_IMPLICIT) all.push_back(call.backward_info->content());
  }
  if (settings.canaries) CHECK(call.canaries_intact());
  return all;
}

std::vector<Case> selection(bool tiny) {
  std::vector<Case> list;
  int seen = 0, implicit = 0;
  for (const Case &c : softmax_cases()) {
    if ((c.size_ == Case::Size::race) != tiny) continue;
    // A fifth is plenty, and one case that takes hundreds of iterations.
    if (!tiny && c.implicit_ ? implicit++ != 0 : !tiny && seen++ % 5 != 0) continue;
    list.push_back(c);
  }
  return list;
}

void check_buffers(bool tiny) {
  for (const Case &c : selection(tiny))
    for (segprior_device which : all_devices()) {
      INFO("add(" << c.text() << "); on " << name_of(which));
      Device device(which);
      if (!serves(device, c)) continue;
      CallSettings settings = settings_of(c);
      const Bytes first = run(c, device, settings);
      CHECK_MESSAGE(run(c, device, settings) == first, "a second run gives other bits");
      settings.canaries = true;
      settings.poison = 0x00;
      CHECK_MESSAGE(run(c, device, settings) == first,
                    "other bits on zeroed buffers: something is unwritten");
      settings.poison = 0x3c;  // finite and not 0
      CHECK_MESSAGE(run(c, device, settings) == first,
                    "other bits on filled buffers: something is unwritten");
    }
}

}  // namespace

TEST_CASE("softmax: results do not depend on what buffers held, tiny [small]") { check_buffers(true); }
TEST_CASE("softmax: results do not depend on what buffers held") { check_buffers(false); }

TEST_CASE("softmax: the same bits for every number of CPU threads") {
  for (const Case &c : selection(false)) {
    INFO("add(" << c.text() << ")");
    Device one({SEGPRIOR_CPU, 0}, 1);
    const Bytes first = run(c, one, settings_of(c));
    for (int threads : {2, 3, 7}) {
      Device device({SEGPRIOR_CPU, 0}, threads);
      CHECK_MESSAGE(run(c, device, settings_of(c)) == first, threads, " threads give other bits than one");
    }
  }
}

TEST_CASE("softmax: each image is computed as if it were alone [small]") {
  for (bool accelerate : {false, true})
    for (segprior_device which : all_devices()) {
      INFO("accelerate " << accelerate << " on " << name_of(which));
      Case c({9, 14}, 3, 3);
      c.f32().tv(0.3).equal().edge(Case::Edge::per_image).eps(1).iterations(30).tolerance(2e-2, 2);
      if (accelerate) c.accelerate();
      const ref::Problem all = make_problem(c);
      const ref::Array grad_u = make_grad_u(c);
      Device device(which);
      SoftmaxCall together(device, all, settings_of(c));
      REQUIRE(together.forward() == SEGPRIOR_OK);
      REQUIRE(together.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
      const ref::Array u = together.u->get(), grad_features = together.gradients.features->get();
      const int64_t plane = all.classes * all.voxels();
      for (int64_t b = 0; b < all.batch; ++b) {
        INFO("image " << b);
        ref::Problem one = all;
        const auto part = [b](const ref::Array &values, int64_t size) {
          return ref::Array(values.begin() + b * size, values.begin() + (b + 1) * size);
        };
        one.batch = 1;
        one.features = part(all.features, plane);
        one.edge = part(all.edge, all.voxels());
        one.lower = one.upper = part(all.upper, all.classes);
        SoftmaxCall alone(device, one, settings_of(c));
        REQUIRE(alone.forward() == SEGPRIOR_OK);
        REQUIRE(alone.backward(SEGPRIOR_BACKWARD_UNROLLED, part(grad_u, plane)) == SEGPRIOR_OK);
        CHECK(alone.u->get() == part(u, plane));
        CHECK(alone.gradients.features->get() == part(grad_features, plane));
        CHECK(alone.infos()[0].iterations == together.infos()[b].iterations);
      }
    }
}

TEST_CASE("softmax: outputs that are not wanted change nothing [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    Case c({9, 11}, 3, 2);
    c.tv(0.3).edge(Case::Edge::per_image).volumes(Case::Volumes::box).init_eps(0.8).checkpoint(3);
    const ref::Problem problem = make_problem(c);
    const ref::Array grad_u = make_grad_u(c);
    SoftmaxCall full(device, problem, settings_of(c));
    REQUIRE(full.forward() == SEGPRIOR_OK);
    REQUIRE(full.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);

    SoftmaxCall bare(device, problem, settings_of(c));
    bare.outputs.tv_dual = bare.outputs.volume_dual = nullptr;
    bare.outputs.info = nullptr;
    REQUIRE(bare.forward() == SEGPRIOR_OK);
    CHECK(bare.u->get() == full.u->get());

    // One gradient at a time.
    REQUIRE(bare.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
    const segprior_softmax_grads every = bare.grads;
    const std::vector<const segprior_tensor * segprior_softmax_grads::*> fields{
        &segprior_softmax_grads::features,     &segprior_softmax_grads::eps,
        &segprior_softmax_grads::init_eps,     &segprior_softmax_grads::tv_lam,
        &segprior_softmax_grads::tv_tau,       &segprior_softmax_grads::tv_edge,
        &segprior_softmax_grads::volume_lower, &segprior_softmax_grads::volume_upper};
    const auto names = bare.gradient_list();
    REQUIRE(names.size() == fields.size());
    for (size_t n = 0; n < fields.size(); ++n) {
      INFO("only " << names[n].first);
      for (const auto &gradient : names) gradient.second->memory().fill(0x3c);
      segprior_softmax_grads only{};
      only.struct_size = sizeof only;
      only.*fields[n] = every.*fields[n];
      REQUIRE_MESSAGE(
          segprior_softmax_backward(device.context(), &bare.opts, &bare.inputs, nullptr, bare.grad_u->view(),
                                    &only, bare.backward_workspace->data(), bare.backward_workspace->bytes(),
                                    bare.saved->data(), bare.saved->bytes()) == SEGPRIOR_OK,
          segprior_last_error());
      device.synchronize();
      for (size_t k = 0; k < names.size(); ++k) {
        if (k == n) {
          CHECK(names[k].second->memory().content() == full.gradient_list()[k].second->memory().content());
        } else {
          const auto content = names[k].second->memory().content();
          CHECK_MESSAGE(content == std::vector<unsigned char>(content.size(), 0x3c), names[k].first,
                        " was written");
        }
      }
    }
  }
}

TEST_CASE("softmax: compute calls do not allocate") {
  if (!can_count_allocations()) return;
  for (const Case &c : selection(true)) {
    INFO("add(" << c.text() << ")");
    Device device({SEGPRIOR_CPU, 0}, 3);
    const ref::Problem problem = make_problem(c);
    const ref::Array grad_u = make_grad_u(c);
    SoftmaxCall call(device, problem, settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);  // the first parallel region starts the OpenMP threads
    const int64_t before = call.allocations();
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(SEGPRIOR_BACKWARD_LAST, grad_u) == SEGPRIOR_OK);
    REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_OK);
    CHECK(call.allocations() == before);
  }
  const int64_t before = allocation_count();
  void *(*volatile allocate)(size_t) = std::malloc;  // volatile: the pair is not optimised away
  std::free(allocate(100));
  CHECK(allocation_count() == before + 1);  // the counter counts
}

#if defined(FAKECUDA)
TEST_CASE("softmax: the same bits for every order of CUDA threads and blocks [small]") {
  for (const Case &c : selection(true)) {
    INFO("add(" << c.text() << ")");
    Device device({SEGPRIOR_CUDA, 0});
    fakecuda::set_order(fakecuda::Order::forward);
    const Bytes first = run(c, device, settings_of(c));
    fakecuda::set_order(fakecuda::Order::reverse);
    CHECK_MESSAGE(run(c, device, settings_of(c)) == first, "reverse order gives other bits");
    for (uint64_t seed : {1, 2}) {
      fakecuda::set_order(fakecuda::Order::random, seed);
      CHECK_MESSAGE(run(c, device, settings_of(c)) == first, "other bits in the order ",
                    fakecuda::order_text());
    }
    fakecuda::set_order(fakecuda::Order::forward);
  }
}
#endif
