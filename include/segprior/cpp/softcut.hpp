/* libsegprior in C++: SoftCut. Part of segprior.hpp; the contract is softcut.h's. */
#ifndef SEGPRIOR_CPP_SOFTCUT_HPP
#define SEGPRIOR_CPP_SOFTCUT_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/softcut.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Starts with the defaults, as SoftmaxOptions. */
struct SoftcutOptions : segprior_softcut_opts {
  SoftcutOptions() : segprior_softcut_opts{} {
    segprior_softcut_opts_init(this, sizeof(segprior_softcut_opts));
  }
};

namespace detail {

/* The edge weights' part of five structs of softcut.h. */
template <class V>
struct SoftcutEdges {
  V edges[3], diagonals[2];

  template <class Struct>
  void copy_to(Struct &c) const {
    for (int m = 0; m < 3; ++m) c.edges[m] = edges[m].c();
    for (int m = 0; m < 2; ++m) c.diagonals[m] = diagonals[m].c();
  }
};

}  // namespace detail

/* Beside these members: edges[3] and diagonals[2]. */
struct SoftcutInputs : detail::SoftcutEdges<View> {
  View scores, conductance, init;

  segprior_softcut_inputs c() const {
    segprior_softcut_inputs in{};
    in.struct_size = sizeof in;
    copy_to(in);
    in.scores = scores.c();
    in.conductance = conductance.c();
    in.init = init.c();
    return in;
  }
};

struct SoftcutOutputs {
  MutableView x;
  segprior_info *info = nullptr;

  segprior_softcut_outputs c() const {
    segprior_softcut_outputs out{};
    out.struct_size = sizeof out;
    out.x = x.c();
    out.info = info;
    return out;
  }
};

struct SoftcutGrads : detail::SoftcutEdges<MutableView> {
  MutableView scores, conductance;
  segprior_info *info = nullptr;

  segprior_softcut_grads c() const {
    segprior_softcut_grads grads{};
    grads.struct_size = sizeof grads;
    copy_to(grads);
    grads.scores = scores.c();
    grads.conductance = conductance.c();
    grads.info = info;
    return grads;
  }
};

struct SoftcutCotangents : detail::SoftcutEdges<View> {
  View scores, conductance;

  segprior_softcut_cotangents c() const {
    segprior_softcut_cotangents cotangents{};
    cotangents.struct_size = sizeof cotangents;
    copy_to(cotangents);
    cotangents.scores = scores.c();
    cotangents.conductance = conductance.c();
    return cotangents;
  }
};

struct SoftcutSecondGrads : detail::SoftcutEdges<MutableView> {
  MutableView grad_x, scores, conductance;
  segprior_info *info = nullptr;

  segprior_softcut_second_grads c() const {
    segprior_softcut_second_grads grads{};
    grads.struct_size = sizeof grads;
    copy_to(grads);
    grads.grad_x = grad_x.c();
    grads.scores = scores.c();
    grads.conductance = conductance.c();
    grads.info = info;
    return grads;
  }
};

class Softcut : private detail::Operator {
 public:
  explicit Softcut(const Context &context) : Operator(context) {}
  explicit Softcut(const Context &&) = delete; /* it has to outlive this */

  SoftcutOptions options;
  SoftcutInputs inputs;
  SoftcutOutputs outputs;
  SoftcutGrads grads;
  SoftcutCotangents cotangents;
  SoftcutSecondGrads second_grads;

  /* Computes outputs.x. */
  Status forward() {
    const segprior_softcut_inputs in = inputs.c();
    const segprior_softcut_outputs out = outputs.c();
    return run_forward(
        [&](std::size_t &workspace) {
          return segprior_softcut_workspace_size(context_, &options, &in, &workspace, nullptr, nullptr);
        },
        [&](std::size_t &saved) { return segprior_softcut_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_softcut_forward(context_, &options, &in, &out, workspace_.data(),
                                          workspace_.bytes(), saved_.data(), saved_.bytes());
        });
  }

  /* Fills `grads` from the gradient of a loss with respect to x, at the last forward call's outputs.x. */
  Status backward(const View &grad_x) {
    const segprior_softcut_inputs in = inputs.c();
    const segprior_softcut_grads out = grads.c();
    return run_backward(
        [&](std::size_t &workspace) {
          return segprior_softcut_workspace_size(context_, &options, &in, nullptr, &workspace, nullptr);
        },
        [&](std::size_t &saved) { return segprior_softcut_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_softcut_backward(context_, &options, &in, outputs.x.c(), grad_x.c(), &out,
                                           workspace_.data(), workspace_.bytes(), saved_.data(),
                                           saved_.bytes());
        });
  }

  /* Fills `second_grads` from `cotangents`; grad_scores is grads.scores as backward wrote it. */
  Status double_backward(const View &grad_scores) {
    const segprior_softcut_inputs in = inputs.c();
    const segprior_softcut_cotangents incoming = cotangents.c();
    const segprior_softcut_second_grads out = second_grads.c();
    return run_backward(
        [&](std::size_t &workspace) {
          return segprior_softcut_workspace_size(context_, &options, &in, nullptr, nullptr, &workspace);
        },
        [&](std::size_t &saved) { return segprior_softcut_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_softcut_double_backward(context_, &options, &in, outputs.x.c(), grad_scores.c(),
                                                  &incoming, &out, workspace_.data(), workspace_.bytes(),
                                                  saved_.data(), saved_.bytes());
        });
  }

  /* Stored entries of one matrix, and the matrices themselves: row_offsets [J + 1], columns [entries] in
   * device memory, values [M, entries]. */
  Status csr_size(int64_t &entries) const {
    const segprior_softcut_inputs in = inputs.c();
    return detail::finish(segprior_softcut_csr_size(context_, &in, &entries));
  }
  Status csr(int32_t *row_offsets, int32_t *columns, const MutableView &values) const {
    const segprior_softcut_inputs in = inputs.c();
    return detail::finish(segprior_softcut_csr(context_, &in, row_offsets, columns, values.c()));
  }
};

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
