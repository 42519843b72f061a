// softmax.h beyond single arguments: size queries, empty tensors, two threads in one context, a failing
// machine.
#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/capi/message.h"
#include "tests/cases/cases.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;

namespace {

Case small_case() {
  Case c({5, 7}, 3, 2);
  return c.tv(0.3).equal().iterations(3);
}

}  // namespace

TEST_CASE("size queries read no data [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    Case c({5, 7}, 3, 2);
    c.tv(0.3, 0.1).edge(Case::Edge::shared).equal().warm_start().device_scalars().checkpoint(2);
    c.td(0.2).td_edge(Case::Edge::shared).star({0, 2}, 0.1).mask(Case::Mask::shared);
    SoftmaxCall call(device, make_problem(c), settings_of(c));
    size_t forward = 0, backward = 0, saved = 0;
    REQUIRE(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, &forward,
                                            &backward) == SEGPRIOR_OK);
    REQUIRE(segprior_softmax_saved_size(device.context(), &call.opts, &call.inputs, &saved) == SEGPRIOR_OK);
    CHECK(saved > 0);
    for (const TensorPtr *tensor :
         {&call.features, &call.eps, &call.tv_lam, &call.tv_tau, &call.tv_edge, &call.volume,
          &call.init_tv_dual, &call.init_volume_dual, &call.td_lam, &call.td_sigma, &call.td_edge,
          &call.star_center, &call.star_tau, &call.init_star_dual, &call.mask}) {
      REQUIRE(*tensor != nullptr);
      (*tensor)->view()->data = nullptr;
    }
    size_t again = 0, also = 0;
    CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, &again, &also) ==
          SEGPRIOR_OK);
    CHECK(again == forward);
    CHECK(also == backward);
    again = also = 0;
    CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, &again, nullptr) ==
          SEGPRIOR_OK);
    CHECK(again == forward);
    CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, &also) ==
          SEGPRIOR_OK);
    CHECK(also == backward);
    CHECK(segprior_softmax_saved_size(device.context(), &call.opts, &call.inputs, &again) == SEGPRIOR_OK);
    CHECK(again == saved);
    CHECK(segprior_softmax_saved_size(device.context(), &call.opts, &call.inputs, nullptr) ==
          SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(message_has("saved_bytes"));
    call.opts.checkpoint_interval = 0;
    call.opts.backward_mode = SEGPRIOR_BACKWARD_LAST;
    CHECK(segprior_softmax_saved_size(device.context(), &call.opts, &call.inputs, &saved) == SEGPRIOR_OK);
    CHECK(saved == 0);
  }
}

TEST_CASE("the saved size is about what the header says") {
  Device device({SEGPRIOR_CPU, 0});
  for (bool accelerate : {false, true})
    for (bool keeps_u : {false, true}) {
      Case c({40, 50}, 3, 2);
      c.f32().tv(0.3).iterations(20);
      if (accelerate) c.accelerate();
      if (keeps_u) c.td(0.1);
      SoftmaxCall call(device, make_problem(c), settings_of(c));
      for (int interval : {1, 3, 5, 20}) {
        call.opts.checkpoint_interval = interval;
        size_t saved = 0;
        REQUIRE(segprior_softmax_saved_size(device.context(), &call.opts, &call.inputs, &saved) ==
                SEGPRIOR_OK);
        const double slots = (20 + interval - 1) / interval + 1;
        const double values = 2 * (accelerate ? 2 : 1) + (keeps_u ? 1 : 0);
        const double expected = slots * values * sizeof(float) * static_cast<double>(c.elements());
        CHECK(saved >= expected);
        CHECK(saved <= 1.02 * expected + 4096);
      }
    }
}

TEST_CASE("sizes that overflow are refused") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    SoftmaxCall call(device, make_problem(small_case()), settings_of(small_case()));
    const int64_t shape[3] = {1, 2, int64_t(1) << 57};  // the features fit in 63 bits, thirty duals do not
    segprior_tensor features = *call.inputs.features;
    features.data = nullptr;
    features.ndim = 3;
    features.shape = shape;
    segprior_softmax_inputs inputs{};
    inputs.struct_size = sizeof inputs;
    inputs.features = &features;
    call.opts.iterations = 30;
    size_t saved = 77, forward = 77, backward = 77;
    CHECK(segprior_softmax_saved_size(device.context(), &call.opts, &inputs, &saved) ==
          SEGPRIOR_ERROR_SIZE_OVERFLOW);
    CHECK(saved == 77);
    CHECK(segprior_softmax_workspace_size(device.context(), &call.opts, &inputs, &forward, &backward) ==
          SEGPRIOR_ERROR_SIZE_OVERFLOW);
    CHECK(forward == 77);
    CHECK(backward == 77);
    call.opts.iterations = 2147483647;  // as many as there can be, of little voxels
    const int64_t few[3] = {1 << 20, 256, 1 << 20};
    features.shape = few;
    CHECK(segprior_softmax_saved_size(device.context(), &call.opts, &inputs, &saved) ==
          SEGPRIOR_ERROR_SIZE_OVERFLOW);
  }
}

TEST_CASE("empty tensors are valid and nothing happens [small]") {
  for (segprior_device which : all_devices())
    for (const std::vector<int64_t> &shape :
         {std::vector<int64_t>{0, 3, 5, 7}, {2, 3, 0, 7}, {2, 3, 5, 0}, {2, 3, 0}, {2, 2, 4, 0, 4}})
      for (bool priors : {false, true})  // every argument of 0.2
        for (int32_t dtype : {SEGPRIOR_FLOAT64, SEGPRIOR_BFLOAT16}) {
          Device device(which);
          const std::vector<int64_t> spatial(shape.begin() + 2, shape.end());
          Case c(spatial, shape[1], shape[0]);
          c.tv(0.3).iterations(3);
          if (priors) c.td(0.2).star({1, 0}, 0.1).device_scalars();
          INFO("batch " << shape[0] << " on " << name_of(which));
          CallSettings settings = settings_of(c);
          settings.dtype = dtype;
          SoftmaxCall call(device, make_problem(c), settings);
          std::vector<TensorPtr> more;
          const auto add = [&](int32_t type, std::vector<int64_t> head) {
            head.insert(head.end(), spatial.begin(), spatial.end());
            more.push_back(std::make_unique<Tensor>(which, type, head));
            return more.back()->view();
          };
          if (priors) {
            call.inputs.td_edge = add(settings.parameter_dtype(), {1});
            call.inputs.init_star_dual = add(settings.parameter_dtype(), {shape[0], 2});
            call.inputs.mask = add(SEGPRIOR_UINT8, {shape[0]});
            call.allocate();
          }
          call.info->fill(0x77);
          call.outputs.info = shape[0] ? call.outputs.info : nullptr;
          CHECK(call.forward_workspace->bytes() == 0);
          CHECK(call.saved->bytes() == 0);
          CHECK_MESSAGE(call.forward() == SEGPRIOR_OK, segprior_last_error());
          CHECK(call.info->content() == std::vector<unsigned char>(call.info->bytes(), 0x77));
          for (int32_t mode :
               {SEGPRIOR_BACKWARD_UNROLLED, SEGPRIOR_BACKWARD_IMPLICIT, SEGPRIOR_BACKWARD_LAST}) {
            CHECK_MESSAGE(call.backward(mode, {}) == SEGPRIOR_OK, segprior_last_error());
            for (const auto &gradient : call.gradient_list())
              for (unsigned char byte : gradient.second->memory().content()) CHECK(byte == kPoison);
          }
        }
}

TEST_CASE("a second thread in a context is told so") {
  Case c({200, 200}, 4);
  c.f32().tv(0.3).equal().iterations(400).checkpoint(0);
  Device device({SEGPRIOR_CPU, 0}, 1);
  SoftmaxCall call(device, make_problem(c), settings_of(c));
  std::atomic<bool> done{false}, started{false};
  segprior_status worker_status = SEGPRIOR_ERROR_INTERNAL;
  std::thread worker([&] {
    started = true;
    worker_status = call.forward();
    done = true;
  });
  while (!started) std::this_thread::yield();
  int busy = 0, other = 0;
  std::string message;
  while (!done && busy == 0) {
    const segprior_status status = segprior_context_set_stream(device.context(), nullptr);
    if (status == SEGPRIOR_ERROR_BUSY) {
      ++busy;
      message = segprior_last_error();
    } else if (status != SEGPRIOR_OK) {
      ++other;
    }
    std::this_thread::yield();
  }
  worker.join();
  // If the other thread came first, the worker itself was told; either way somebody was, and nobody crashed.
  CHECK(busy + (worker_status == SEGPRIOR_ERROR_BUSY) > 0);
  CHECK(other == 0);
  if (busy) CHECK(message.find("context") != std::string::npos);
  CHECK(call.forward() == SEGPRIOR_OK);  // the context is free again
}

TEST_CASE("contexts of several threads do not disturb one another") {
  Case c({33, 31}, 3);
  c.tv(0.3).equal().iterations(10);
  const ref::Problem problem = make_problem(c);
  const ref::Array grad_u = make_grad_u(c);
  const auto run = [&] {
    Device device({SEGPRIOR_CPU, 0}, 2);
    SoftmaxCall call(device, problem, settings_of(c));
    if (call.forward() != SEGPRIOR_OK || call.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) != SEGPRIOR_OK)
      return ref::Array{};
    return call.gradients.features->get();
  };
  const ref::Array expected = run();
  REQUIRE(!expected.empty());
  std::vector<ref::Array> results(4);
  std::vector<std::thread> threads;
  for (ref::Array &result : results) threads.emplace_back([&] { result = run(); });
  for (std::thread &thread : threads) thread.join();
  for (const ref::Array &result : results) CHECK(result == expected);
}

#if defined(FAKECUDA)
TEST_CASE("a failing CUDA device is reported and the context can still be destroyed [small]") {
  Device device({SEGPRIOR_CUDA, 0});
  const ref::Array grad_u = make_grad_u(small_case());
  SoftmaxCall call(device, make_problem(small_case()), settings_of(small_case()));
  REQUIRE(call.forward() == SEGPRIOR_OK);
  const ref::Array u = call.u->get();
  fakecuda::expect_errors(true);
  for (int n = 1; n <= 3; ++n) {
    fakecuda::fail_launch(n);
    CHECK(call.forward() == SEGPRIOR_ERROR_CUDA);
    CHECK(message_has("cuda"));
  }
  fakecuda::fail_launch(1);
  CHECK(call.backward(SEGPRIOR_BACKWARD_UNROLLED, grad_u) == SEGPRIOR_ERROR_CUDA);
  fakecuda::fail_launch(0);
  fakecuda::expect_errors(false);
  REQUIRE(call.forward() == SEGPRIOR_OK);
  CHECK(call.u->get() == u);
}
#endif
