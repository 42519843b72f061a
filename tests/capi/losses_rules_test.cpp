// The bad-input tables of losses.h: options outside their range, rules between arguments, pointers and sizes
// of buffers, shapes, what is not supported.
#include <limits>

#include "tests/capi/losses_bad_arguments.h"
#include "tests/capi/message.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Function = LossFunction;
using Arguments = LossArguments;
using Bad = LossBad;
using Opts = segprior_loss_opts;
using Rows = LossCase::Rows;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

LossCase plane() {
  return LossCase({5, 7}, 3, 2)
      .f32()
      .mask(Rows::each)
      .class_weights(5)
      .bounds(Rows::each, Rows::each)
      .groups()
      .incoming(LossCase::kTotal | LossCase::kTerms | LossCase::kItems);
}

template <class T>
void add(std::vector<Bad> &table, const std::string &name, T Opts::*member, const std::vector<T> &values) {
  for (T value : values)
    table.push_back({name + " = " + std::to_string(value), SEGPRIOR_ERROR_VALUE, "opts." + name + " = ",
                     [=](Arguments &a) { a.call.opts.*member = value; }});
}

char *offset(void *pointer, int bytes) { return static_cast<char *>(pointer) + bytes; }

segprior_info *info_at(void *pointer, int bytes = 0) {
  return reinterpret_cast<segprior_info *>(offset(pointer, bytes));
}

Bad null(const char *name, const std::function<void(Arguments &)> &spoil) {
  return {std::string(name) + " NULL", SEGPRIOR_ERROR_NULL_POINTER, name, spoil};
}

}  // namespace

TEST_CASE("losses options: values outside their range [small]") {
  using Whole = std::vector<int32_t>;
  using Real = std::vector<double>;
  const Real not_negative{-1e-9, -1, kNaN, kInf, -kInf};
  std::vector<Bad> table;
  const char *const weights[] = {"SIZE", "CROSS_ENTROPY", "FOCAL", "DICE", "FOCAL_DICE"};
  for (int k = 0; k < SEGPRIOR_LOSS_TERMS; ++k)
    for (double value : {kNaN, kInf, -kInf})
      table.push_back({"weights", SEGPRIOR_ERROR_VALUE, std::string("opts.weights[") + weights[k] + "] = ",
                       [=](Arguments &a) { a.call.opts.weights[k] = value; }});
  for (int k = SEGPRIOR_LOSS_TERMS; k < SEGPRIOR_LOSS_CAPACITY; ++k)
    table.push_back({"spare weight", SEGPRIOR_ERROR_VALUE, "opts.weights beyond SEGPRIOR_LOSS_TERMS = 1",
                     [=](Arguments &a) { a.call.opts.weights[k] = 1; }});
  add(table, "activation", &Opts::activation, Whole{-1, 3});
  add(table, "background", &Opts::background, Whole{-1, 1, 2});  // 1: the scores are not SIGMOID
  add(table, "reserved", &Opts::reserved, Whole{-1, 1});
  add(table, "reduction", &Opts::reduction, Whole{-1, 2});
  add(table, "accumulate", &Opts::accumulate, Whole{-1, 2});
  add(table, "size_per_voxel", &Opts::size_per_voxel, Whole{-1, 2});
  add(table, "dice_squared", &Opts::dice_squared, Whole{-1, 2});
  add(table, "dice_batch", &Opts::dice_batch, Whole{-1, 2});
  add(table, "dice_smooth_nr", &Opts::dice_smooth_nr, not_negative);
  add(table, "dice_smooth_dr", &Opts::dice_smooth_dr, not_negative);
  add(table, "focal_gamma", &Opts::focal_gamma, not_negative);
  add(table, "focal_dice_threshold", &Opts::focal_dice_threshold, Real{-1e-9, 1.001, kNaN, kInf});
  add(table, "focal_dice_gamma", &Opts::focal_dice_gamma, Real{0.999, -1, kNaN, kInf});
  add(table, "log_offset", &Opts::log_offset, not_negative);
  for (Function function : kLossWithOptions) check_bad(plane(), function, table);

  // Not in the range of the arithmetic, float32.
  std::vector<Bad> single;
  add(single, "log_offset", &Opts::log_offset, Real{1e-39});
  single.push_back({"weights", SEGPRIOR_ERROR_VALUE, "opts.weights[DICE] = ", [](Arguments &a) {
                      a.call.opts.weights[SEGPRIOR_LOSS_DICE] = 1e39;
                    }});
  for (Function function : kLossWithOptions) check_bad(plane().f32(), function, single);
}

TEST_CASE("losses rules: pointers that must not be NULL [small]") {
  const Bad context = null("context", [](Arguments &a) { a.context = nullptr; }),
            opts = null("opts", [](Arguments &a) { a.opts = nullptr; }),
            inputs = null("inputs", [](Arguments &a) { a.inputs = nullptr; });
  for (Function function : kLossWithOptions) check_bad(plane(), function, {context, opts, inputs});
  check_bad(plane(), Function::bounds, {context});
  for (Function function : kLossCompute)
    check_bad(plane(), function,
              {null("workspace", [=](Arguments &a) { a.workspace[static_cast<int>(function)] = nullptr; })});
  check_bad(plane(), Function::forward, {null("outputs", [](Arguments &a) { a.outputs = nullptr; })});
  check_bad(plane(), Function::backward,
            {null("cotangents", [](Arguments &a) { a.cotangents = nullptr; }),
             null("grads", [](Arguments &a) { a.grads = nullptr; }),
             null("saved", [](Arguments &a) { a.saved = nullptr; })});
  check_bad(plane(), Function::saved_size,
            {null("saved_bytes", [](Arguments &a) { a.saved_answer = nullptr; })});
}

TEST_CASE("losses rules: what terms need, and what excludes what [small]") {
  for (Function function : kLossWithOptions) {
    for (int term = 1; term < SEGPRIOR_LOSS_TERMS; ++term)
      check_bad(plane().only(term), function,
                {null("inputs.labels", [](Arguments &a) { a.call.inputs.labels = nullptr; })});
    check_bad(plane().only(SEGPRIOR_LOSS_SIZE), function,
              {{"SIZE without bounds", SEGPRIOR_ERROR_NULL_POINTER, "inputs.size_lower",
                [](Arguments &a) {
                  a.call.inputs.size_lower = a.call.inputs.size_upper = nullptr;
                  a.call.grads.size_lower = a.call.grads.size_upper = nullptr;
                }},
               {"labels and target", SEGPRIOR_ERROR_VALUE, "inputs.target",
                [](Arguments &a) { a.call.inputs.target = a.call.inputs.scores; }}});
  }
  const auto gradient = [](const char *name, const segprior_tensor *segprior_loss_inputs::*input) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs",
               [=](Arguments &a) { a.call.inputs.*input = nullptr; }};
  };
  check_bad(plane(), Function::backward,
            {gradient("grads.class_weights", &segprior_loss_inputs::class_weights),
             gradient("grads.size_lower", &segprior_loss_inputs::size_lower),
             gradient("grads.size_upper", &segprior_loss_inputs::size_upper),
             {"class weights with voxels", SEGPRIOR_ERROR_NOT_SUPPORTED, "grads.class_weights",
              [](Arguments &a) { a.call.cotangents.voxels = a.call.in_voxels->view(); }}});
  // Groups have a row of bounds each.
  check_bad(plane().bounds(Rows::each, Rows::absent), Function::forward,
            {{"too many rows", SEGPRIOR_ERROR_SHAPE, "inputs.size_lower", [](Arguments &a) {
                edit([](Arguments &b) -> const segprior_tensor *& { return b.call.inputs.size_lower; },
                     [](LossEditedTensor &e) { e.shape[0] = 3; })(a);
              }}});
}

TEST_CASE("losses rules: buffers [small]") {
  for (Function function : kLossCompute) {
    const int k = static_cast<int>(function);
    check_bad(plane(), function,
              {{"workspace too small", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
                [=](Arguments &a) { a.workspace_bytes[k] -= 1; }},
               {"no workspace bytes", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes = 0",
                [=](Arguments &a) { a.workspace_bytes[k] = 0; }},
               {"saved too small", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
                [](Arguments &a) { a.saved_bytes -= 1; }},
               {"workspace alignment", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
                [=](Arguments &a) { a.workspace[k] = offset(a.workspace[k], 32); }},
               {"saved alignment", SEGPRIOR_ERROR_ALIGNMENT, "saved",
                [](Arguments &a) { a.saved = offset(a.saved, 32); }},
               {"workspace is saved", SEGPRIOR_ERROR_OVERLAP, "workspace",
                [=](Arguments &a) { a.workspace[k] = a.saved; }}});
  }
  check_bad(plane(), Function::forward,
            {{"info alignment", SEGPRIOR_ERROR_ALIGNMENT, "outputs.info",
              [](Arguments &a) { a.call.outputs.info = info_at(a.call.outputs.info, 4); }},
             {"info in the voxels", SEGPRIOR_ERROR_OVERLAP, "outputs.info",
              [](Arguments &a) { a.call.outputs.info = info_at(a.call.outputs.voxels->data); }},
             {"two outputs in one", SEGPRIOR_ERROR_OVERLAP, "outputs.total", [](Arguments &a) {
                edit([](Arguments &b) -> const segprior_tensor *& { return b.call.outputs.total; },
                     [&](LossEditedTensor &e) { e.tensor.data = a.call.outputs.terms->data; })(a);
              }}});
  check_bad(plane(), Function::backward,
            {{"gradient in the scores", SEGPRIOR_ERROR_OVERLAP, "grads.scores",
              [](Arguments &a) { a.call.grads.scores = a.call.inputs.scores; }},
             {"two gradients in one", SEGPRIOR_ERROR_OVERLAP, "grads.size_upper",
              [](Arguments &a) { a.call.grads.size_upper = a.call.grads.size_lower; }},
             {"gradient in a cotangent", SEGPRIOR_ERROR_OVERLAP, "grads.class_weights", [](Arguments &a) {
                edit([](Arguments &b) -> const segprior_tensor *& { return b.call.grads.class_weights; },
                     [&](LossEditedTensor &e) { e.tensor.data = a.call.cotangents.items->data; })(a);
              }}});
}

TEST_CASE("losses rules: numbers of classes and axes [small]") {
  const auto scores = [](const char *what, segprior_status status,
                         std::function<void(LossEditedTensor &)> change) {
    return Bad{what, status, "inputs.scores",
               edit([](Arguments &a) -> const segprior_tensor *& { return a.call.inputs.scores; }, change)};
  };
  for (Function function : kLossWithOptions)
    check_bad(
        plane(), function,
        {scores("no classes", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) { e.shape[1] = 0; }),
         scores("257 classes", SEGPRIOR_ERROR_SHAPE,
                [](LossEditedTensor &e) {
                  e.shape[1] = 257;
                  e.tensor.strides = nullptr;
                }),
         scores("no spatial axis", SEGPRIOR_ERROR_SHAPE, [](LossEditedTensor &e) { e.tensor.ndim = 2; }),
         scores("four spatial axes", SEGPRIOR_ERROR_SHAPE,
                [](LossEditedTensor &e) {
                  e.shape[4] = e.shape[5] = 1;
                  e.tensor.ndim = 6;
                  e.tensor.strides = nullptr;
                }),
         scores("too large for 63 bits", SEGPRIOR_ERROR_SIZE_OVERFLOW, [](LossEditedTensor &e) {
           e.shape[2] = int64_t(1) << 40;
           e.shape[3] = int64_t(1) << 40;
           e.tensor.strides = nullptr;
         })});
}

TEST_CASE("losses rules: size bounds [small]") {
  std::vector<Bad> table;
  const auto value = [&](const char *name, const std::function<void(Arguments &)> &spoil) {
    table.push_back({name, SEGPRIOR_ERROR_VALUE, std::string(name) + " = ", spoil});
  };
  for (int32_t kind : {-1, 3}) value("kind", [=](Arguments &a) { a.kind = kind; });
  value("voxels", [](Arguments &a) { a.bound_voxels = -1; });
  value("voxels", [](Arguments &a) {
    a.kind = SEGPRIOR_BOUNDS_TAGS;
    a.bound_voxels = 0;
  });
  for (double low : {-0.1, kNaN, kInf}) value("low", [=](Arguments &a) { a.low = low; });
  for (double high : {-0.1, 0.89, kNaN, kInf}) value("high", [=](Arguments &a) { a.high = high; });
  check_bad(plane(), Function::bounds, table);
}

TEST_CASE("losses rules: size queries answer what is asked for [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const LossCase c = plane();
    LossCall call(device, make_problem(c), settings_of(c));
    size_t forward = 0, backward = 0, same = 0, saved = 0;
    CHECK(segprior_loss_workspace_size(device.context(), &call.opts, &call.inputs, &forward, &backward) ==
          SEGPRIOR_OK);
    CHECK(segprior_loss_workspace_size(device.context(), &call.opts, &call.inputs, &same, nullptr) ==
          SEGPRIOR_OK);
    CHECK(same == forward);
    CHECK(segprior_loss_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, &same) ==
          SEGPRIOR_OK);
    CHECK(same == backward);
    CHECK(segprior_loss_workspace_size(device.context(), &call.opts, &call.inputs, nullptr, nullptr) ==
          SEGPRIOR_OK);
    // The data are not looked at.
    segprior_tensor scores = *call.inputs.scores, labels = *call.inputs.labels;
    scores.data = labels.data = nullptr;
    call.inputs.scores = &scores;
    call.inputs.labels = &labels;
    CHECK(segprior_loss_saved_size(device.context(), &call.opts, &call.inputs, &saved) == SEGPRIOR_OK);
    CHECK(saved == call.saved->bytes());
    CHECK(segprior_loss_workspace_size(device.context(), &call.opts, &call.inputs, &same, nullptr) ==
          SEGPRIOR_OK);
    CHECK(same == forward);
    // Larger buffers than needed are fine.
    CHECK(forward > 0);
    CHECK(saved > 0);
  }
}

TEST_CASE("losses rules: a term that is off needs nothing [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    LossCase c = LossCase({5, 7}, 3, 2).terms({{0, 0, 0, 0, 0}}).target(LossCase::Target::none);
    c.bounds(Rows::absent, Rows::absent);
    LossCall call(device, make_problem(c), settings_of(c));
    CHECK_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    CHECK_MESSAGE(call.backward(make_cotangents(c)) == SEGPRIOR_OK, std::string(segprior_last_error()));
    for (const auto &list : {call.output_list(), call.gradient_list()})
      for (const auto &tensor : list) {
        const ref::Array values = tensor.second->get();
        CHECK_MESSAGE(values == ref::Array(values.size(), 0.0), tensor.first, " is not 0");
      }
  }
}
