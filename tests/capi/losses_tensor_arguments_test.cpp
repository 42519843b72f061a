// The bad-input tables of losses.h, tensors: each tensor argument with everything that can be wrong about it.
#include "tests/capi/losses_bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Function = LossFunction;
using Argument = LossTensorArgument;
using Kind = LossTensorArgument::Kind;
using Arguments = LossArguments;
using Rows = LossCase::Rows;

constexpr int kSums = LossCase::kTotal | LossCase::kTerms | LossCase::kItems;

LossCase plane() {
  return LossCase({5, 7}, 3, 2)
      .f32()
      .mask(Rows::each)
      .labelled(Rows::each)
      .class_weights(5)
      .bounds(Rows::each, Rows::each)
      .groups()
      .incoming(kSums);
}
LossCase volume() {
  return LossCase({3, 4, 5}, 4, 3)
      .target(LossCase::Target::soft)
      .mask(Rows::shared)
      .labelled(Rows::shared)
      .class_weights(1)
      .bounds(Rows::each, Rows::each)
      .incoming(kSums | LossCase::kVoxels);
}

// A member of one of the structs of a call.
template <class Structure>
Argument member(const char *name, Kind kind, Structure LossCall::*structure,
                const segprior_tensor *Structure::*slot, bool required = false, bool written = false) {
  return {name, required, written, kind,
          [=](Arguments &a) -> const segprior_tensor *& { return a.call.*structure.*slot; }};
}
Argument direct(const char *name, Kind kind, const segprior_tensor *Arguments::*slot, bool written) {
  return {name, true, written, kind, [=](Arguments &a) -> const segprior_tensor *& { return a.*slot; }};
}

using In = segprior_loss_inputs;
using Out = segprior_loss_outputs;
using Cotangent = segprior_loss_cotangents;
using Grad = segprior_loss_grads;

Argument in(const char *name, Kind kind, const segprior_tensor *In::*slot, bool required = false) {
  return member(name, kind, &LossCall::inputs, slot, required);
}

}  // namespace

TEST_CASE("losses arguments: every input, every way to be wrong [small]") {
  for (Function function : kLossWithOptions) {
    check_tensors(plane(), function,
                  {in("inputs.scores", Kind::field, &In::scores, true),
                   in("inputs.labels", Kind::label, &In::labels, true),
                   in("inputs.mask", Kind::byte, &In::mask), in("inputs.labelled", Kind::byte, &In::labelled),
                   in("inputs.class_weights", Kind::real, &In::class_weights),
                   in("inputs.size_lower", Kind::real, &In::size_lower),
                   in("inputs.size_upper", Kind::real, &In::size_upper),
                   in("inputs.size_groups", Kind::int32, &In::size_groups)});
    check_tensors(volume(), function,
                  {in("inputs.target", Kind::target, &In::target, true),
                   in("inputs.mask", Kind::byte, &In::mask), in("inputs.labelled", Kind::byte, &In::labelled),
                   in("inputs.class_weights", Kind::real, &In::class_weights),
                   in("inputs.size_lower", Kind::real, &In::size_lower)});
    check_tensors(plane().f16(), function,
                  {in("inputs.class_weights", Kind::real, &In::class_weights),
                   in("inputs.size_upper", Kind::real, &In::size_upper)});
    check_tensors(volume().bf16(), function, {in("inputs.target", Kind::target, &In::target)});
  }
}

TEST_CASE("losses arguments: every output, every way to be wrong [small]") {
  for (const LossCase &c : {plane(), volume(), plane().f16()})
    check_tensors(c, Function::forward,
                  {member("outputs.total", Kind::real, &LossCall::outputs, &Out::total, false, true),
                   member("outputs.terms", Kind::real, &LossCall::outputs, &Out::terms, false, true),
                   member("outputs.items", Kind::real, &LossCall::outputs, &Out::items, false, true),
                   member("outputs.voxels", Kind::real, &LossCall::outputs, &Out::voxels, false, true)});
}

TEST_CASE("losses arguments: every cotangent and gradient, every way to be wrong [small]") {
  for (const LossCase &c : {plane(), volume(), plane().f16()}) {
    std::vector<Argument> list{
        member("cotangents.total", Kind::real, &LossCall::cotangents, &Cotangent::total),
        member("cotangents.terms", Kind::real, &LossCall::cotangents, &Cotangent::terms),
        member("cotangents.items", Kind::real, &LossCall::cotangents, &Cotangent::items),
        member("grads.scores", Kind::field, &LossCall::grads, &Grad::scores, false, true),
        member("grads.size_lower", Kind::real, &LossCall::grads, &Grad::size_lower, false, true),
        member("grads.size_upper", Kind::real, &LossCall::grads, &Grad::size_upper, false, true)};
    if (c.incoming_ & LossCase::kVoxels)
      list.push_back(member("cotangents.voxels", Kind::real, &LossCall::cotangents, &Cotangent::voxels));
    else
      list.push_back(
          member("grads.class_weights", Kind::real, &LossCall::grads, &Grad::class_weights, false, true));
    check_tensors(c, Function::backward, list);
  }
}

TEST_CASE("losses arguments: size bounds, every tensor, every way to be wrong [small]") {
  for (const LossCase &c : {plane(), volume()})
    check_tensors(c, Function::bounds,
                  {direct("volumes", Kind::int64, &Arguments::volumes, false),
                   direct("lower", Kind::real, &Arguments::lower, true),
                   direct("upper", Kind::real, &Arguments::upper, true)});
  for (int32_t dtype : {SEGPRIOR_FLOAT16, SEGPRIOR_BFLOAT16})
    check_bad(plane(), Function::bounds,
              {{"16-bit bounds", SEGPRIOR_ERROR_DTYPE, "lower", [=](Arguments &a) {
                  edit([](Arguments &b) -> const segprior_tensor *& { return b.lower; },
                       [=](LossEditedTensor &e) { e.tensor.dtype = dtype; })(a);
                }}});
  check_bad(
      plane(), Function::bounds,
      {{"the same bounds twice", SEGPRIOR_ERROR_OVERLAP, "upper", [](Arguments &a) { a.upper = a.lower; }}});
}
