// The bad-input tables of softmax.h: one valid call, of which a test spoils one thing. It has to give the
// documented status, a message that names the argument, and untouched outputs.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/cases/cases.h"

namespace segprior::test {

enum class Function { forward, backward, workspace_size, saved_size };
constexpr Function kAllFunctions[] = {Function::forward, Function::backward, Function::workspace_size,
                                      Function::saved_size};

struct CallArguments {
  SoftmaxCall call;
  segprior_context *context;
  const segprior_softmax_opts *opts;
  const segprior_softmax_inputs *inputs;
  const segprior_softmax_outputs *outputs;
  const segprior_softmax_grads *grads;
  const segprior_tensor *u, *grad_u;
  void *forward_workspace, *backward_workspace, *saved;
  size_t forward_bytes, backward_bytes, saved_bytes;

  // `mode`: of backward, with every gradient that it has.
  CallArguments(Device &device, const Case &c, int32_t mode = SEGPRIOR_BACKWARD_UNROLLED);

  void reset();  // to the valid call
  bool untouched();
  segprior_status run(Function function);

 private:
  std::vector<DeviceArray *> written();

  struct Valid {
    segprior_context *context;
    segprior_softmax_opts opts;
    segprior_softmax_inputs inputs;
    segprior_softmax_outputs outputs;
    segprior_softmax_grads grads;
  } valid_;
};

struct Bad {
  std::string what;
  segprior_status status;
  std::string names;  // what the message has to contain
  std::function<void(CallArguments &)> spoil;
};

// On every device.
void check_bad(const Case &c, Function function, const std::vector<Bad> &table,
               int32_t mode = SEGPRIOR_BACKWARD_UNROLLED);

using Slot = const segprior_tensor *&;

struct TensorArgument {
  std::string name;
  bool required, written;
  std::function<Slot(CallArguments &)> slot;
};

template <class S>
std::function<Slot(CallArguments &)> slot_of(S SoftmaxCall::*group, const segprior_tensor *S::*member) {
  return [=](CallArguments &a) -> Slot { return a.call.*group.*member; };
}

inline TensorArgument input(const char *name, const segprior_tensor *segprior_softmax_inputs::*member,
                            bool required = false) {
  return {name, required, false, slot_of(&SoftmaxCall::inputs, member)};
}
inline TensorArgument output(const char *name, const segprior_tensor *segprior_softmax_outputs::*member,
                             bool required = false) {
  return {name, required, true, slot_of(&SoftmaxCall::outputs, member)};
}
inline TensorArgument gradient(const char *name, const segprior_tensor *segprior_softmax_grads::*member) {
  return {name, false, true, slot_of(&SoftmaxCall::grads, member)};
}

// A copy of a tensor argument with changes, which outlives the call: the last one made.
struct Edited {
  segprior_tensor tensor;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];
};
std::function<void(CallArguments &)> edit(std::function<Slot(CallArguments &)> slot,
                                          std::function<void(Edited &)> change);

// Spoils one tensor argument in every way a tensor can be wrong.
void check_tensor(const Case &c, Function function, const TensorArgument &argument);

}  // namespace segprior::test
