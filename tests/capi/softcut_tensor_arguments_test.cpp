// The bad-input tables of softcut.h, tensors: each tensor argument with everything that can be wrong about
// it.
#include "tests/capi/softcut_bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Function = SoftcutFunction;
using Argument = SoftcutTensorArgument;
using Arguments = SoftcutArguments;

// On a path that needs a workspace.
SoftcutCase plane() {
  return SoftcutCase({5, 7}, 3, 2)
      .f32()
      .diagonals()
      .conductance(2)
      .init()
      .path(SEGPRIOR_PATH_STREAMING)
      .cap(2);
}
SoftcutCase volume() { return SoftcutCase({3, 4, 5}, 2, 2).shared().path(SEGPRIOR_PATH_STREAMING).cap(2); }

// A member of one of the structs of a call.
template <class Structure>
Argument member(const char *name, Structure SoftcutCall::*structure, const segprior_tensor *Structure::*slot,
                bool required = false, bool written = false) {
  return {name, required, written,
          [=](Arguments &a) -> const segprior_tensor *& { return a.call.*structure.*slot; }};
}
template <class Structure>
Argument edges(const std::string &group, Structure SoftcutCall::*structure, int axis, bool required = false,
               bool written = false) {
  return {group + ".edges[" + std::to_string(axis) + "]", required, written,
          [=](Arguments &a) -> const segprior_tensor *& { return (a.call.*structure).edges[axis]; }};
}
template <class Structure>
Argument diagonals(const std::string &group, Structure SoftcutCall::*structure, int which,
                   bool required = false, bool written = false) {
  return {group + ".diagonals[" + std::to_string(which) + "]", required, written,
          [=](Arguments &a) -> const segprior_tensor *& { return (a.call.*structure).diagonals[which]; }};
}

using In = segprior_softcut_inputs;
using Out = segprior_softcut_outputs;
using Grad = segprior_softcut_grads;
using Cotangent = segprior_softcut_cotangents;
using Second = segprior_softcut_second_grads;

}  // namespace

TEST_CASE("softcut arguments: every input, every way to be wrong [small]") {
  for (Function function : kSoftcutFunctions) {
    check_tensors(
        plane(), function,
        {member("inputs.scores", &SoftcutCall::inputs, &In::scores, true),
         edges("inputs", &SoftcutCall::inputs, 0, true), edges("inputs", &SoftcutCall::inputs, 1, true),
         diagonals("inputs", &SoftcutCall::inputs, 0, true),
         diagonals("inputs", &SoftcutCall::inputs, 1, true),
         member("inputs.conductance", &SoftcutCall::inputs, &In::conductance),
         member("inputs.init", &SoftcutCall::inputs, &In::init)});
    check_tensors(
        volume(), function,
        {edges("inputs", &SoftcutCall::inputs, 0, true), edges("inputs", &SoftcutCall::inputs, 1, true),
         edges("inputs", &SoftcutCall::inputs, 2, true)});
  }
}

TEST_CASE("softcut arguments: every output and gradient, every way to be wrong [small]") {
  check_tensors(plane(), Function::forward,
                {member("outputs.x", &SoftcutCall::outputs, &Out::x, true, true)});
  check_tensors(plane(), Function::backward,
                {{"x", true, false, [](Arguments &a) -> const segprior_tensor *& { return a.x; }},
                 {"grad_x", true, false, [](Arguments &a) -> const segprior_tensor *& { return a.grad_x; }},
                 member("grads.scores", &SoftcutCall::grads, &Grad::scores, false, true),
                 edges("grads", &SoftcutCall::grads, 0, false, true),
                 edges("grads", &SoftcutCall::grads, 1, false, true),
                 diagonals("grads", &SoftcutCall::grads, 0, false, true),
                 diagonals("grads", &SoftcutCall::grads, 1, false, true),
                 member("grads.conductance", &SoftcutCall::grads, &Grad::conductance, false, true)});
  check_tensors(volume(), Function::backward, {edges("grads", &SoftcutCall::grads, 2, false, true)});
}

TEST_CASE("softcut arguments: every tensor of the double backward, every way to be wrong [small]") {
  check_tensors(
      plane(), Function::double_backward,
      {{"x", true, false, [](Arguments &a) -> const segprior_tensor *& { return a.x; }},
       {"grad_scores", true, false, [](Arguments &a) -> const segprior_tensor *& { return a.grad_scores; }},
       member("cotangents.scores", &SoftcutCall::cotangents, &Cotangent::scores),
       edges("cotangents", &SoftcutCall::cotangents, 0),
       edges("cotangents", &SoftcutCall::cotangents, 1),
       diagonals("cotangents", &SoftcutCall::cotangents, 0),
       diagonals("cotangents", &SoftcutCall::cotangents, 1),
       member("cotangents.conductance", &SoftcutCall::cotangents, &Cotangent::conductance),
       member("grads.grad_x", &SoftcutCall::second_grads, &Second::grad_x, false, true),
       member("grads.scores", &SoftcutCall::second_grads, &Second::scores, false, true),
       edges("grads", &SoftcutCall::second_grads, 0, false, true),
       edges("grads", &SoftcutCall::second_grads, 1, false, true),
       diagonals("grads", &SoftcutCall::second_grads, 0, false, true),
       diagonals("grads", &SoftcutCall::second_grads, 1, false, true),
       member("grads.conductance", &SoftcutCall::second_grads, &Second::conductance, false, true)});
  check_tensors(volume(), Function::double_backward,
                {edges("cotangents", &SoftcutCall::cotangents, 2),
                 edges("grads", &SoftcutCall::second_grads, 2, false, true)});
}

TEST_CASE("softcut arguments: the exported values, every way to be wrong [small]") {
  for (const SoftcutCase &c : {plane(), volume()})
    check_tensors(
        c, Function::csr,
        {{"values", true, true, [](Arguments &a) -> const segprior_tensor *& { return a.values; }}});
}

// Only edges and diagonals, their gradients and cotangents may have 16 bits, and then all of them.
TEST_CASE("softcut arguments: which tensors have 16 bits [small]") {
  const auto with = [](const Argument &argument, int32_t dtype) {
    return [=](Arguments &a) { edit(argument.slot, [=](EditedTensor &e) { e.tensor.dtype = dtype; })(a); };
  };
  const auto bad = [&](const Argument &argument, int32_t dtype, const char *names = nullptr) {
    return SoftcutBad{argument.name + " of dtype " + std::to_string(dtype), SEGPRIOR_ERROR_DTYPE,
                      names ? names : argument.name, with(argument, dtype)};
  };
  const Argument first = edges("inputs", &SoftcutCall::inputs, 0),
                 second = edges("inputs", &SoftcutCall::inputs, 1),
                 scores = member("inputs.scores", &SoftcutCall::inputs, &In::scores),
                 conductance = member("inputs.conductance", &SoftcutCall::inputs, &In::conductance),
                 grads = edges("grads", &SoftcutCall::grads, 0),
                 grad_scores = member("grads.scores", &SoftcutCall::grads, &Grad::scores),
                 cotangents = diagonals("cotangents", &SoftcutCall::cotangents, 0);
  for (Function function : kSoftcutFunctions) {
    std::vector<SoftcutBad> table;
    for (int32_t dtype : {SEGPRIOR_FLOAT16, SEGPRIOR_BFLOAT16}) {
      table.push_back(bad(scores, dtype));
      table.push_back(bad(conductance, dtype));
      table.push_back(bad(first, dtype, "inputs.edges[1]"));  // the first one decides for all
      table.push_back(bad(second, dtype));
    }
    check_bad(plane(), function, table);
    // Float64 has no 16-bit edges.
    check_bad(volume(), function, {bad(first, SEGPRIOR_FLOAT16), bad(first, SEGPRIOR_BFLOAT16)});
  }
  SoftcutCase half = plane().f16();
  for (int32_t dtype : {SEGPRIOR_FLOAT32, SEGPRIOR_FLOAT64, SEGPRIOR_BFLOAT16}) {
    check_bad(half, Function::backward, {bad(grads, dtype)});
    check_bad(half, Function::double_backward, {bad(cotangents, dtype)});
  }
  check_bad(half, Function::backward, {bad(grad_scores, SEGPRIOR_FLOAT16)});
}
