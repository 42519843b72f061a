// The bad-input tables of softcut.h: one valid call of each function, of which a test spoils one thing. It
// has to give the documented status, a message that names the argument, and untouched outputs.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/cases/softcut_cases.h"

namespace segprior::test {

enum class SoftcutFunction { forward, backward, double_backward, workspace_size, saved_size, csr, csr_size };
constexpr SoftcutFunction kSoftcutCompute[] = {SoftcutFunction::forward, SoftcutFunction::backward,
                                               SoftcutFunction::double_backward};
constexpr SoftcutFunction kSoftcutWithOptions[] = {
    SoftcutFunction::forward, SoftcutFunction::backward, SoftcutFunction::double_backward,
    SoftcutFunction::workspace_size, SoftcutFunction::saved_size};
constexpr SoftcutFunction kSoftcutFunctions[] = {
    SoftcutFunction::forward,        SoftcutFunction::backward,   SoftcutFunction::double_backward,
    SoftcutFunction::workspace_size, SoftcutFunction::saved_size, SoftcutFunction::csr,
    SoftcutFunction::csr_size};

struct SoftcutArguments {
  SoftcutCall call;
  segprior_context *context;
  const segprior_softcut_opts *opts;
  const segprior_softcut_inputs *inputs;
  const segprior_softcut_outputs *outputs;
  const segprior_softcut_grads *grads;
  const segprior_softcut_cotangents *cotangents;
  const segprior_softcut_second_grads *second_grads;
  const segprior_tensor *x, *grad_x, *grad_scores, *values;
  void *workspace[3], *saved;  // of forward, backward, double backward
  size_t workspace_bytes[3], saved_bytes;
  int32_t *row_offsets, *columns;
  int64_t *entries;

  SoftcutArguments(Device &device, const SoftcutCase &c);

  void reset();  // to the valid call
  bool untouched();
  segprior_status run(SoftcutFunction function);

 private:
  std::vector<DeviceArray *> written();

  int64_t entry_count_ = 0;
  TensorPtr values_;
  std::unique_ptr<DeviceArray> row_offsets_, columns_;
  struct Valid {
    segprior_context *context;
    segprior_softcut_opts opts;
    segprior_softcut_inputs inputs;
    segprior_softcut_outputs outputs;
    segprior_softcut_grads grads;
    segprior_softcut_cotangents cotangents;
    segprior_softcut_second_grads second_grads;
  } valid_;
};

struct SoftcutBad {
  std::string what;
  segprior_status status;
  std::string names;  // what the message has to contain
  std::function<void(SoftcutArguments &)> spoil;
};

// On every device.
void check_bad(const SoftcutCase &c, SoftcutFunction function, const std::vector<SoftcutBad> &table);

struct SoftcutTensorArgument {
  std::string name;
  bool required, written;
  std::function<const segprior_tensor *&(SoftcutArguments &)> slot;
};

// A copy of a tensor argument with changes, which outlives the call: the last one made.
struct EditedTensor {
  segprior_tensor tensor;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];
};
std::function<void(SoftcutArguments &)> edit(
    const std::function<const segprior_tensor *&(SoftcutArguments &)> &slot,
    std::function<void(EditedTensor &)> change);

// Spoils each of the tensor arguments in every way a tensor can be wrong.
void check_tensors(const SoftcutCase &c, SoftcutFunction function,
                   const std::vector<SoftcutTensorArgument> &arguments);

}  // namespace segprior::test
