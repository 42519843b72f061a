// The bad-input tables of losses.h: one valid call of each function, of which a test spoils one thing. It has
// to give the documented status, a message that names the argument, and untouched outputs.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/cases/losses_cases.h"

namespace segprior::test {

enum class LossFunction { forward, backward, workspace_size, saved_size, bounds };
constexpr LossFunction kLossCompute[] = {LossFunction::forward, LossFunction::backward};
constexpr LossFunction kLossSizes[] = {LossFunction::workspace_size, LossFunction::saved_size};
constexpr LossFunction kLossWithOptions[] = {LossFunction::forward, LossFunction::backward,
                                             LossFunction::workspace_size, LossFunction::saved_size};

struct LossArguments {
  LossCall call;
  segprior_context *context;
  const segprior_loss_opts *opts;
  const segprior_loss_inputs *inputs;
  const segprior_loss_outputs *outputs;
  const segprior_loss_cotangents *cotangents;
  const segprior_loss_grads *grads;
  void *workspace[2], *saved;  // of forward, backward
  size_t workspace_bytes[2], saved_bytes;
  size_t *saved_answer;
  // Of segprior_size_bounds.
  int32_t kind;
  int64_t bound_voxels;
  double low, high;
  const segprior_tensor *volumes, *lower, *upper;

  LossArguments(Device &device, const LossCase &c);

  void reset();  // to the valid call
  bool untouched();
  segprior_status run(LossFunction function);

 private:
  std::vector<DeviceArray *> written();

  size_t answer_ = 0;
  Tensor volumes_, lower_, upper_;
  struct Valid {
    segprior_context *context;
    segprior_loss_opts opts;
    segprior_loss_inputs inputs;
    segprior_loss_outputs outputs;
    segprior_loss_cotangents cotangents;
    segprior_loss_grads grads;
  } valid_;
};

struct LossBad {
  std::string what;
  segprior_status status;
  std::string names;  // what the message has to contain
  std::function<void(LossArguments &)> spoil;
};

// On every device.
void check_bad(const LossCase &c, LossFunction function, const std::vector<LossBad> &table);

using LossSlot = std::function<const segprior_tensor *&(LossArguments &)>;

struct LossTensorArgument {
  // field: of the scores' dtype; real: of the parameters' dtype; byte, int32, int64: that alone; label: any
  // integer; target: the scores' dtype or uint8.
  enum class Kind { field, real, byte, int32, int64, label, target };

  std::string name;
  bool required, written;
  Kind kind;
  LossSlot slot;
};

// A copy of a tensor argument with changes, which outlives the call: the last one made.
struct LossEditedTensor {
  segprior_tensor tensor;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];
};
std::function<void(LossArguments &)> edit(const LossSlot &slot,
                                          std::function<void(LossEditedTensor &)> change);

// Spoils each of the tensor arguments in every way a tensor can be wrong.
void check_tensors(const LossCase &c, LossFunction function,
                   const std::vector<LossTensorArgument> &arguments);

}  // namespace segprior::test
