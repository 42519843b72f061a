// segprior.hpp: views, contexts, errors, memory, moves. Its calls are compared with the C ones in
// segprior_hpp_calls_test.cpp; without exceptions: segprior_hpp_returning_test.cpp.
#include "tests/capi/segprior_hpp.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "tests/capi/message.h"

using namespace segprior;
using namespace segprior::test;

static_assert(SEGPRIOR_CPP_EXCEPTIONS == 1);
static_assert(!std::is_copy_constructible_v<Context> && std::is_nothrow_move_constructible_v<Softmax>);
static_assert(std::is_constructible_v<View, const float *, Shape> &&
              std::is_constructible_v<View, MutableView>);
static_assert(!std::is_constructible_v<MutableView, View>, "const memory cannot become an output");
static_assert(std::is_constructible_v<Softmax, Context &> && !std::is_constructible_v<Softmax, Context>,
              "the context of an operator must not be a temporary");

namespace {

// The error of a call that has to fail.
template <class Call>
Error error_of(const Call &call) {
  try {
    call();
  } catch (const Error &error) {
    return error;
  }
  return Error(Status(SEGPRIOR_OK, "did not fail"));
}

// A 6 x 8 picture of two classes, volumes, and room for the results.
struct Picture {
  explicit Picture(int64_t rows = 6) : shape{1, 2, rows, 8}, features(static_cast<size_t>(16 * rows)) {
    for (size_t k = 0; k < features.size(); ++k) features[k] = static_cast<double>(k * 37 % 17) / 17;
    u.resize(features.size());
    grad.resize(features.size());
  }
  void bind(Softmax &op) {
    op.options.tv = 1;
    op.options.checkpoint_interval = 1;
    op.options.backward_mode = SEGPRIOR_BACKWARD_UNROLLED;
    op.inputs.features = {features, shape};
    op.outputs.u = {u, shape};
    op.grads.features = {grad, shape};
  }
  std::vector<int64_t> shape;
  std::vector<double> features, u, grad;
};

}  // namespace

TEST_CASE("C++: dtypes are deduced") {
  CHECK(DType<float>::value == SEGPRIOR_FLOAT32);
  CHECK(DType<double>::value == SEGPRIOR_FLOAT64);
  CHECK(DType<uint8_t>::value == SEGPRIOR_UINT8);
  CHECK(DType<bool>::value == SEGPRIOR_UINT8);
  CHECK(DType<int32_t>::value == SEGPRIOR_INT32);
  CHECK(DType<int64_t>::value == SEGPRIOR_INT64);
  CHECK(DType<long long>::value == SEGPRIOR_INT64);
  CHECK(DType<char>::value == 0);
  CHECK(DType<uint32_t>::value == 0);
  CHECK(DType<int16_t>::value == 0);
}

TEST_CASE("C++: views of pointers, containers and arrays") {
  float array[6];
  const std::vector<int32_t> vector(6);
  std::array<double, 6> fixed{};
  const auto check = [](const View &view, const void *data, int32_t dtype) {
    REQUIRE(view.present());
    const segprior_tensor &c = *view.c();
    CHECK(c.data == data);
    CHECK(c.dtype == dtype);
    CHECK(c.device.type == SEGPRIOR_CPU);
    REQUIRE(c.ndim == 2);
    CHECK(c.shape[0] == 2);
    CHECK(c.shape[1] == 3);
    CHECK(c.strides == nullptr);
    CHECK(c.byte_offset == 0);
  };
  check(View(array, {2, 3}), array, SEGPRIOR_FLOAT32);
  check(View(&array[0], {2, 3}), array, SEGPRIOR_FLOAT32);
  check(View(vector, {2, 3}), vector.data(), SEGPRIOR_INT32);
  check(View(fixed, std::array<int64_t, 2>{2, 3}), fixed.data(), SEGPRIOR_FLOAT64);
  check(View(array, SEGPRIOR_BFLOAT16, {2, 3}), array, SEGPRIOR_BFLOAT16);
  check(MutableView(array, {2, 3}), array, SEGPRIOR_FLOAT32);
  check(MutableView(array, SEGPRIOR_FLOAT16, {2, 3}), array, SEGPRIOR_FLOAT16);
  const View on_gpu(&array[0], {2, 3}, {SEGPRIOR_CUDA, 3});
  CHECK(on_gpu.c()->device.type == SEGPRIOR_CUDA);
  CHECK(on_gpu.c()->device.index == 3);

  const View scalar_on_gpu(&array[0], {1}, {SEGPRIOR_CUDA, 3});  // not: dtype 1, shape {2, 3}
  CHECK(scalar_on_gpu.shape().ndim == 1);
  CHECK(scalar_on_gpu.c()->device.index == 3);
  const segprior_tensor no_tensor{array, kCpu, SEGPRIOR_FLOAT32, -1, nullptr, nullptr, 0};
  CHECK(View(no_tensor).c()->ndim == -1);  // for the call to refuse

  CHECK(View().c() == nullptr);
  CHECK(!View().present());
  View copy;
  {
    const View original(array, {2, 3});
    copy = original;
    CHECK(copy.c()->shape != original.c()->shape);  // its own extents
  }
  check(copy, array, SEGPRIOR_FLOAT32);
}

TEST_CASE("C++: a container that is too small is refused") {
  std::vector<double> values(95);
  const Error error = error_of([&] { View(values, {1, 2, 6, 8}); });
  CHECK(error.code() == SEGPRIOR_ERROR_SHAPE);
  CHECK(std::string(error.what()) == "view: the shape has 96 elements, the container 95");
  values.resize(96);
  CHECK(View(values, {1, 2, 6, 8}).status().ok());
  CHECK(View(values, {1, 0, 6, 8}).status().ok());
  CHECK(error_of([&] {
          View(values, {1, std::numeric_limits<int64_t>::max(), 9});
        }).code() == SEGPRIOR_ERROR_SHAPE);

  // What the call refuses does not depend on the size.
  const Context context;
  Softmax op(context);
  std::vector<double> u(96);
  op.outputs.u = {u, {1, 2, 6, 8}};
  op.inputs.features = {values, {1, 2, 1, 1, 1, 1, 1, 6, 8}};
  CHECK(std::string(error_of([&] { op.forward(); }).what()).find("ndim = 9") != std::string::npos);
  op.inputs.features = {values, {1, -2, 6, 8}};
  CHECK(error_of([&] { op.forward(); }).code() == SEGPRIOR_ERROR_SHAPE);
}

TEST_CASE("C++: DLPack") {
  float values[6];
  int64_t shape[2] = {2, 3};
  struct {  // DLTensor as dlpack.h spells it
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
  } tensor{values, 1, 0, 2, 2, 32, 1, shape, nullptr, 8};
  MutableView view;
  from_dlpack(&tensor, view);
  CHECK(view.c()->data == values);
  CHECK(view.c()->byte_offset == 8);
  CHECK(view.dtype() == SEGPRIOR_FLOAT32);
  CHECK(view.shape().extents[1] == 3);
  tensor.bits = 8;
  CHECK(error_of([&] { from_dlpack(&tensor, view); }).code() == SEGPRIOR_ERROR_DTYPE);
  CHECK(view.dtype() == SEGPRIOR_FLOAT32);
}

TEST_CASE("C++: an error carries status and text") {
  const Error device = error_of([] { Context({SEGPRIOR_CPU, 1}, Allocator::host()); });
  CHECK(device.code() == SEGPRIOR_ERROR_NO_DEVICE);
  CHECK(std::string(device.what()).find("device.index = 1") != std::string::npos);
  CHECK(std::string(device.what()) == segprior_last_error());

  int not_a_stream = 0;
  CHECK(error_of([&] { Context(kCpu, Allocator::host(), &not_a_stream); }).code() == SEGPRIOR_ERROR_VALUE);
  CHECK(error_of([&] { Context(kCpu, Allocator{}); }).code() == SEGPRIOR_ERROR_NULL_POINTER);
  Context context;
  CHECK(context.status().ok());
  CHECK(context.device().type == SEGPRIOR_CPU);
  CHECK(error_of([&] { context.set_threads(-1); }).code() == SEGPRIOR_ERROR_VALUE);
  CHECK(error_of([&] { context.set_stream(&not_a_stream); }).code() == SEGPRIOR_ERROR_VALUE);
  CHECK(error_of([&] { context.read_info(nullptr, 1, nullptr); }).code() == SEGPRIOR_ERROR_NULL_POINTER);
  context.set_threads(1);
  context.set_stream(nullptr);
  const segprior_info written{SEGPRIOR_ITERATION_CAP, 7, 0.5};
  segprior_info read{};
  context.read_info(&written, 1, &read);
  CHECK(std::memcmp(&written, &read, sizeof read) == 0);

  Softmax op(context);
  CHECK(error_of([&] { op.forward(); }).code() == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("features"));
}

TEST_CASE("C++: Status::then stops at the first failure") {
  int calls = 0;
  const auto next = [&] { return ++calls, Status(); };
  CHECK(Status().then(next).then(next).ok());
  CHECK(calls == 2);
  CHECK(Status(SEGPRIOR_ERROR_VALUE, "no").then(next).code() == SEGPRIOR_ERROR_VALUE);
  CHECK(calls == 2);
}

namespace {

template <class Opts, class Options>
void check_defaults(const Options &options, segprior_status (*init)(Opts *, size_t)) {
  Opts opts;
  REQUIRE(init(&opts, sizeof opts) == SEGPRIOR_OK);
  CHECK(std::memcmp(static_cast<const Opts *>(&options), &opts, sizeof opts) == 0);
}

}  // namespace

TEST_CASE("C++: options start with the library's defaults") {
  check_defaults(SoftmaxOptions(), segprior_softmax_opts_init);
  check_defaults(SoftcutOptions(), segprior_softcut_opts_init);
  check_defaults(LossOptions(), segprior_loss_opts_init);
  check_defaults(ProposalOptions(), segprior_proposal_opts_init);
  check_defaults(ComponentsOptions(), segprior_components_opts_init);
  check_defaults(CsrOptions(), segprior_csr_opts_init);
}

TEST_CASE("C++: memory is kept from call to call and given back") {
  const auto memory = std::make_shared<Memory>();
  {
    Picture small, large(12);
    const Context context(kCpu, allocator_of(kCpu, memory));
    Softmax op(context);
    CHECK(memory->allocations == 0);
    small.bind(op);
    op.forward();
    op.backward({small.u, small.shape});
    const int first = memory->allocations;
    CHECK(first >= 2);
    for (int k = 0; k < 3; ++k) {
      op.forward();
      op.backward({small.u, small.shape});
    }
    CHECK(memory->allocations == first);
    large.bind(op);
    op.forward();
    CHECK(memory->allocations > first);
    const int second = memory->allocations;
    small.bind(op);
    op.forward();
    CHECK(memory->allocations == second);
    CHECK(memory->live.size() == 2);  // workspace and saved
  }
  CHECK(memory->live.empty());
}

TEST_CASE("C++: an allocator that has no memory") {
  const auto memory = std::make_shared<Memory>();
  const Context context(kCpu, allocator_of(kCpu, memory));
  Picture picture;
  Softmax op(context);
  picture.bind(op);
  memory->exhausted = true;
  const Error error = error_of([&] { op.forward(); });
  CHECK(error.code() == SEGPRIOR_ERROR_OUT_OF_MEMORY);
  CHECK(std::string(error.what()).find("bytes") != std::string::npos);
  memory->exhausted = false;
  op.forward();
  CHECK(memory->live.size() == 2);
}

TEST_CASE("C++: backward needs a forward call that succeeded") {
  const Context context;
  Picture picture;
  Softmax op(context);
  picture.bind(op);
  const auto backward = [&] { op.backward({picture.u, picture.shape}); };
  CHECK(error_of(backward).code() == SEGPRIOR_ERROR_VALUE);
  op.forward();
  backward();
  op.options.eps = -1;
  CHECK(error_of([&] { op.forward(); }).code() == SEGPRIOR_ERROR_VALUE);
  op.options.eps = 1;
  CHECK(error_of(backward).code() == SEGPRIOR_ERROR_VALUE);
  op.forward();
  backward();

  // What the library would read as a state of another layout.
  op.options.iterations = 7;
  const Error changed = error_of(backward);
  CHECK(changed.code() == SEGPRIOR_ERROR_VALUE);
  CHECK(std::string(changed.what()).find("last forward call") != std::string::npos);
  op.forward();
  backward();

  Softmax last(context);  // without a state of any bytes
  picture.bind(last);
  last.options.backward_mode = SEGPRIOR_BACKWARD_LAST;
  last.options.checkpoint_interval = 0;
  CHECK(error_of([&] { last.backward({picture.u, picture.shape}); }).code() == SEGPRIOR_ERROR_VALUE);
  last.forward();
  last.backward({picture.u, picture.shape});
}

TEST_CASE("C++: contexts and operators can be moved") {
  const auto memory = std::make_shared<Memory>();
  Picture picture;
  std::vector<double> expected;
  {
    Context first(kCpu, allocator_of(kCpu, memory));
    Softmax op(first);
    picture.bind(op);
    op.forward();
    const Context context = std::move(first);
    Softmax moved = std::move(op);
    moved.backward({picture.u, picture.shape});  // with the state of the forward call
    expected = picture.grad;
    CHECK(memory->live.size() == 2);
    CHECK(error_of([&] { op.forward(); }).code() == SEGPRIOR_ERROR_NULL_POINTER);  // NOLINT: moved from

    std::fill(picture.grad.begin(), picture.grad.end(), 0.0);
    Softmax assigned(context);
    assigned = std::move(moved);
    assigned.backward({picture.u, picture.shape});
    CHECK(picture.grad == expected);
    CHECK(error_of([&] { moved.forward(); }).code() == SEGPRIOR_ERROR_NULL_POINTER);  // NOLINT: moved from
  }
  CHECK(memory->live.empty());
}

TEST_CASE("C++: every member reaches the C struct") {
  double value = 0;
  segprior_info info{};
  const View v(&value, {1});
  const MutableView m(&value, {1});
  const auto edges = [&](auto &members, const auto &view) {
    for (auto &edge : members.edges) edge = view;
    for (auto &diagonal : members.diagonals) diagonal = view;
    members.scores = members.conductance = view;
  };
  CHECK(all_set(SoftmaxInputs{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}.c()));
  CHECK(all_set(SoftmaxOutputs{m, m, m, m, &info}.c()));
  CHECK(all_set(SoftmaxGrads{m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, &info}.c()));
  CHECK(!all_set(SoftmaxOutputs{m, m, m, m}.c()));

  SoftcutInputs cut;
  SoftcutGrads cut_grads;
  SoftcutCotangents cut_cotangents;
  SoftcutSecondGrads cut_second;
  edges(cut, v);
  edges(cut_grads, m);
  edges(cut_cotangents, v);
  edges(cut_second, m);
  cut.init = v;
  cut_second.grad_x = m;
  cut_grads.info = cut_second.info = &info;
  CHECK(all_set(cut.c()));
  CHECK(all_set(SoftcutOutputs{m, &info}.c()));
  CHECK(all_set(cut_grads.c()));
  CHECK(all_set(cut_cotangents.c()));
  CHECK(all_set(cut_second.c()));

  CHECK(all_set(LossInputs{v, v, v, v, v, v, v, v, v}.c()));
  CHECK(all_set(LossOutputs{m, m, m, m, &info}.c()));
  CHECK(all_set(LossCotangents{v, v, v, v}.c()));
  CHECK(all_set(LossGrads{m, m, m, m}.c()));
  CHECK(all_set(ProposalInputs{v, v, v, v}.c()));
  CHECK(all_set(ProposalOutputs{m, m, m, &info}.c()));
  CHECK(all_set(ConfusionInputs{v, v, v, v}.c()));
  CHECK(all_set(ConfusionScoresOutputs{m, m, m, m, m, m, m}.c()));
}
