/* libsegprior in C++: losses and size bounds. Part of segprior.hpp; the contract is losses.h's. */
#ifndef SEGPRIOR_CPP_LOSSES_HPP
#define SEGPRIOR_CPP_LOSSES_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/losses.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Starts with the defaults, as SoftmaxOptions: every weight is 0. */
struct LossOptions : segprior_loss_opts {
  LossOptions() : segprior_loss_opts{} { segprior_loss_opts_init(this, sizeof(segprior_loss_opts)); }
};

struct LossInputs {
  View scores, labels, target, mask, labelled, class_weights, size_lower, size_upper, size_groups;

  segprior_loss_inputs c() const {
    segprior_loss_inputs in{};
    in.struct_size = sizeof in;
    in.scores = scores.c();
    in.labels = labels.c();
    in.target = target.c();
    in.mask = mask.c();
    in.labelled = labelled.c();
    in.class_weights = class_weights.c();
    in.size_lower = size_lower.c();
    in.size_upper = size_upper.c();
    in.size_groups = size_groups.c();
    return in;
  }
};

struct LossOutputs {
  MutableView total, terms, items, voxels;
  segprior_info *info = nullptr;

  segprior_loss_outputs c() const {
    segprior_loss_outputs out{};
    out.struct_size = sizeof out;
    out.total = total.c();
    out.terms = terms.c();
    out.items = items.c();
    out.voxels = voxels.c();
    out.info = info;
    return out;
  }
};

struct LossCotangents {
  View total, terms, items, voxels;

  segprior_loss_cotangents c() const {
    segprior_loss_cotangents cotangents{};
    cotangents.struct_size = sizeof cotangents;
    cotangents.total = total.c();
    cotangents.terms = terms.c();
    cotangents.items = items.c();
    cotangents.voxels = voxels.c();
    return cotangents;
  }
};

struct LossGrads {
  MutableView scores, class_weights, size_lower, size_upper;

  segprior_loss_grads c() const {
    segprior_loss_grads grads{};
    grads.struct_size = sizeof grads;
    grads.scores = scores.c();
    grads.class_weights = class_weights.c();
    grads.size_lower = size_lower.c();
    grads.size_upper = size_upper.c();
    return grads;
  }
};

class Loss : private detail::Operator {
 public:
  explicit Loss(const Context &context) : Operator(context) {}
  explicit Loss(const Context &&) = delete; /* it has to outlive this */

  LossOptions options;
  LossInputs inputs;
  LossOutputs outputs;
  LossCotangents cotangents;
  LossGrads grads;

  Status forward() {
    const segprior_loss_inputs in = inputs.c();
    const segprior_loss_outputs out = outputs.c();
    return run_forward(
        [&](std::size_t &workspace) {
          return segprior_loss_workspace_size(context_, &options, &in, &workspace, nullptr);
        },
        [&](std::size_t &saved) { return segprior_loss_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_loss_forward(context_, &options, &in, &out, workspace_.data(), workspace_.bytes(),
                                       saved_.data(), saved_.bytes());
        });
  }

  /* Fills `grads` from `cotangents`, at the last forward call's inputs. */
  Status backward() {
    const segprior_loss_inputs in = inputs.c();
    const segprior_loss_cotangents incoming = cotangents.c();
    const segprior_loss_grads out = grads.c();
    return run_backward(
        [&](std::size_t &workspace) {
          return segprior_loss_workspace_size(context_, &options, &in, nullptr, &workspace);
        },
        [&](std::size_t &saved) { return segprior_loss_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_loss_backward(context_, &options, &in, &incoming, &out, workspace_.data(),
                                        workspace_.bytes(), saved_.data(), saved_.bytes());
        });
  }
};

inline Status size_bounds(const Context &context, int32_t kind, const View &volumes, int64_t voxels,
                          double low, double high, const MutableView &lower, const MutableView &upper) {
  return detail::finish(
      segprior_size_bounds(context.handle(), kind, volumes.c(), voxels, low, high, lower.c(), upper.c()));
}

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
