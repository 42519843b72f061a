/* libsegprior in C++: proposals. Part of segprior.hpp; the contract is proposals.h's. */
#ifndef SEGPRIOR_CPP_PROPOSALS_HPP
#define SEGPRIOR_CPP_PROPOSALS_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/proposals.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Starts with the defaults, as SoftmaxOptions. */
struct ProposalOptions : segprior_proposal_opts {
  ProposalOptions() : segprior_proposal_opts{} {
    segprior_proposal_opts_init(this, sizeof(segprior_proposal_opts));
  }
};

struct ProposalInputs {
  View logits, lower, upper, mask;

  segprior_proposal_inputs c() const {
    segprior_proposal_inputs in{};
    in.struct_size = sizeof in;
    in.logits = logits.c();
    in.lower = lower.c();
    in.upper = upper.c();
    in.mask = mask.c();
    return in;
  }
};

struct ProposalOutputs {
  MutableView proposal, dual, volume;
  segprior_info *info = nullptr;

  segprior_proposal_outputs c() const {
    segprior_proposal_outputs out{};
    out.struct_size = sizeof out;
    out.proposal = proposal.c();
    out.dual = dual.c();
    out.volume = volume.c();
    out.info = info;
    return out;
  }
};

class Proposal : private detail::Operator {
 public:
  explicit Proposal(const Context &context) : Operator(context) {}
  explicit Proposal(const Context &&) = delete; /* it has to outlive this */

  ProposalOptions options;
  ProposalInputs inputs;
  ProposalOutputs outputs;

  Status forward() {
    const segprior_proposal_inputs in = inputs.c();
    const segprior_proposal_outputs out = outputs.c();
    return run(
        [&](std::size_t &workspace) {
          return segprior_proposal_workspace_size(context_, &options, &in, &workspace);
        },
        [&] {
          return segprior_proposal_forward(context_, &options, &in, &out, workspace_.data(),
                                           workspace_.bytes());
        });
  }
};

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
