// segprior.hpp without exceptions, in a program whose other files have them: every failure is a Status.
#define SEGPRIOR_NO_EXCEPTIONS
#include <doctest/doctest.h>

#include <string>

#include "tests/capi/segprior_hpp.h"

using namespace segprior;
using namespace segprior::test;

static_assert(SEGPRIOR_CPP_EXCEPTIONS == 0);

namespace {

bool has(const Status &status, const char *text) {
  return std::string(status.what()).find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("C++ without exceptions: a call's status") {
  Context context;
  REQUIRE(context.status().ok());
  CHECK(context.set_threads(1).ok());
  const Status threads = context.set_threads(-1);
  CHECK(threads.code() == SEGPRIOR_ERROR_VALUE);
  CHECK(has(threads, "threads = -1"));

  double o[8] = {1, 2, 3, 4, 4, 3, 2, 1}, u[8] = {}, v[2] = {1, 3};
  Softmax op(context);
  CHECK(has(op.forward(), "features"));
  op.inputs.features = {o, {1, 2, 4}};
  op.inputs.volume = {v, {1, 2}};
  op.outputs.u = {u, {1, 2, 4}};
  CHECK(op.forward().ok());
  CHECK(u[0] + u[1] + u[2] + u[3] == doctest::Approx(1));
  CHECK(context.set_threads(2).then([&] { return op.forward(); }).ok());
  CHECK(context.set_threads(-2).then([&] { return op.forward(); }).code() == SEGPRIOR_ERROR_VALUE);
}

TEST_CASE("C++ without exceptions: constructors that fail leave objects that are refused") {
  const Context none({SEGPRIOR_CPU, 1}, Allocator::host());
  CHECK(none.status().code() == SEGPRIOR_ERROR_NO_DEVICE);
  CHECK(has(none.status(), "device.index = 1"));
  CHECK(none.handle() == nullptr);
  double o[8] = {}, u[8] = {};
  Softmax refused(none);
  refused.inputs.features = {o, {1, 2, 4}};
  refused.outputs.u = {u, {1, 2, 4}};
  CHECK(has(refused.forward(), "context"));

  const Context no_stream(kCpu, Allocator::host(), o);
  CHECK(no_stream.status().code() == SEGPRIOR_ERROR_VALUE);
  CHECK(no_stream.handle() == nullptr);

  const Context context;
  Softmax op(context);
  op.outputs.u = {u, {1, 2, 4}};
  op.inputs.features = {o, {1, 2, 5}};
  CHECK(op.inputs.features.status().code() == SEGPRIOR_ERROR_SHAPE);
  CHECK(has(op.inputs.features.status(), "10 elements, the container 8"));
  op.outputs.u = {&u[0], {1, 2, 5}};
  const Status status = op.forward();
  CHECK(status.code() == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(has(status, "features"));
  MutableView view;
  CHECK(from_dlpack(nullptr, view).code() == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(!view.present());
}

TEST_CASE("C++ without exceptions: an allocator that has no memory") {
  const auto memory = std::make_shared<Memory>();
  memory->exhausted = true;
  const Context context(kCpu, allocator_of(kCpu, memory));
  double o[8] = {}, u[8] = {};
  Softmax op(context);
  op.inputs.features = {o, {1, 2, 4}};
  op.outputs.u = {u, {1, 2, 4}};
  op.options.checkpoint_interval = 1;
  op.options.tv = 1;
  CHECK(op.forward().code() == SEGPRIOR_ERROR_OUT_OF_MEMORY);
}
