// One problem of the proposals on one device: tensors, options, workspace, and the call on them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "segprior/segprior.h"
#include "tests/ref/proposals_ref.h"
#include "tests/support/device.h"

namespace segprior::test {

segprior_proposal_opts proposal_opts();  // the defaults

// What a ref::proposals::Problem does not say about a library call.
struct ProposalSettings {
  segprior_proposal_opts opts = proposal_opts();
  int32_t dtype = SEGPRIOR_FLOAT64;
  bool canaries = false;
  unsigned char poison = kPoison;  // initial bytes of outputs and workspace

  int32_t real_dtype() const { return dtype == SEGPRIOR_FLOAT64 ? SEGPRIOR_FLOAT64 : SEGPRIOR_FLOAT32; }
};

class ProposalCall {
 public:
  ProposalCall(Device &device, const ref::proposals::Problem &problem, const ProposalSettings &settings);
  ProposalCall(const ProposalCall &) = delete;
  ProposalCall &operator=(const ProposalCall &) = delete;

  // Fields that tests may change before a call.
  segprior_proposal_opts opts;
  segprior_proposal_inputs inputs;
  segprior_proposal_outputs outputs;

  TensorPtr logits, lower, upper, mask, proposal, dual, volume;
  std::unique_ptr<DeviceArray> info, workspace;

  // Allocates a workspace of exactly the queried size. The constructor does so too.
  void allocate();
  segprior_status forward();

  std::vector<segprior_info> infos() const;
  bool canaries_intact() const;
  // Every byte of the outputs, one after another.
  std::vector<unsigned char> output_bytes() const;

  // What the library did in the calls so far that it must not do: heap allocations (CPU; the first calls of a
  // thread count may start OpenMP's threads), CUDA allocations, waits and foreign streams (fake runtime
  // only).
  const std::vector<std::string> &violations() const { return violations_; }
  int64_t allocations() const { return allocations_; }

 private:
  TensorPtr tensor(std::vector<int64_t> shape, int32_t dtype, const ref::Array *values) const;
  std::unique_ptr<DeviceArray> buffer(size_t bytes) const;

  Device &device_;
  const ProposalSettings settings_;
  std::vector<std::string> violations_;
  int64_t allocations_ = 0;
};

// Logits of a sum of cosines along the axes plus noise, times `scale`: smooth, as a network's.
ref::Array smooth_logits(const ref::proposals::Problem &shape, double scale, uint64_t seed);

// The values of image b of [B, size] values.
ref::Array image_of(const ref::Array &values, int64_t b, int64_t batch);

}  // namespace segprior::test
