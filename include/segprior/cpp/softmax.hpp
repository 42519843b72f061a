/* libsegprior in C++: the entropic softmax with priors. Part of segprior.hpp; the contract is softmax.h's. */
#ifndef SEGPRIOR_CPP_SOFTMAX_HPP
#define SEGPRIOR_CPP_SOFTMAX_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/softmax.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Starts with the defaults. Should the library refuse to give them, struct_size stays 0 and every call says
 * so. */
struct SoftmaxOptions : segprior_softmax_opts {
  SoftmaxOptions() : segprior_softmax_opts{} {
    segprior_softmax_opts_init(this, sizeof(segprior_softmax_opts));
  }
};

/* The tensors of softmax.h by the same names. Members c() here and below: the C struct, valid while *this
 * lives and does not change. */
struct SoftmaxInputs {
  View features, eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper, init_tv_dual,
      init_volume_dual;
  View td_lam, td_sigma, td_kernel, td_edge, star_center, star_tau, mask, init_star_dual;

  segprior_softmax_inputs c() const {
    segprior_softmax_inputs in{};
    in.struct_size = sizeof in;
    in.features = features.c();
    in.eps = eps.c();
    in.tv_lam = tv_lam.c();
    in.tv_tau = tv_tau.c();
    in.tv_edge = tv_edge.c();
    in.volume = volume.c();
    in.volume_lower = volume_lower.c();
    in.volume_upper = volume_upper.c();
    in.init_tv_dual = init_tv_dual.c();
    in.init_volume_dual = init_volume_dual.c();
    in.td_lam = td_lam.c();
    in.td_sigma = td_sigma.c();
    in.td_kernel = td_kernel.c();
    in.td_edge = td_edge.c();
    in.star_center = star_center.c();
    in.star_tau = star_tau.c();
    in.mask = mask.c();
    in.init_star_dual = init_star_dual.c();
    return in;
  }
};

struct SoftmaxOutputs {
  MutableView u, tv_dual, volume_dual, star_dual;
  segprior_info *info = nullptr;

  segprior_softmax_outputs c() const {
    segprior_softmax_outputs out{};
    out.struct_size = sizeof out;
    out.u = u.c();
    out.tv_dual = tv_dual.c();
    out.volume_dual = volume_dual.c();
    out.info = info;
    out.star_dual = star_dual.c();
    return out;
  }
};

struct SoftmaxGrads {
  MutableView features, eps, init_eps, tv_lam, tv_tau, tv_edge, volume, volume_lower, volume_upper;
  MutableView td_lam, td_sigma, td_kernel, td_edge, star_tau, star_center;
  segprior_info *info = nullptr;

  segprior_softmax_grads c() const {
    segprior_softmax_grads grads{};
    grads.struct_size = sizeof grads;
    grads.features = features.c();
    grads.eps = eps.c();
    grads.init_eps = init_eps.c();
    grads.tv_lam = tv_lam.c();
    grads.tv_tau = tv_tau.c();
    grads.tv_edge = tv_edge.c();
    grads.volume = volume.c();
    grads.volume_lower = volume_lower.c();
    grads.volume_upper = volume_upper.c();
    grads.td_lam = td_lam.c();
    grads.td_sigma = td_sigma.c();
    grads.td_kernel = td_kernel.c();
    grads.td_edge = td_edge.c();
    grads.star_tau = star_tau.c();
    grads.star_center = star_center.c();
    grads.info = info;
    return grads;
  }
};

class Softmax : private detail::Operator {
 public:
  explicit Softmax(const Context &context) : Operator(context) {}
  explicit Softmax(const Context &&) = delete; /* it has to outlive this */

  SoftmaxOptions options;
  SoftmaxInputs inputs;
  SoftmaxOutputs outputs;
  SoftmaxGrads grads;

  /* Computes outputs.u. For a backward call of modes _UNROLLED and _IMPLICIT set options.checkpoint_interval
   * first. */
  Status forward() {
    const segprior_softmax_inputs in = inputs.c();
    const segprior_softmax_outputs out = outputs.c();
    return run_forward(
        [&](std::size_t &workspace) {
          return segprior_softmax_workspace_size(context_, &options, &in, &workspace, nullptr);
        },
        [&](std::size_t &saved) { return segprior_softmax_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_softmax_forward(context_, &options, &in, &out, workspace_.data(),
                                          workspace_.bytes(), saved_.data(), saved_.bytes());
        });
  }

  /* Fills `grads` from the gradient of a loss with respect to u, at the last forward call's inputs. */
  Status backward(const View &grad_u) {
    const segprior_softmax_inputs in = inputs.c();
    const segprior_softmax_grads out = grads.c();
    const bool last = options.backward_mode == SEGPRIOR_BACKWARD_LAST;
    return run_backward(
        [&](std::size_t &workspace) {
          return segprior_softmax_workspace_size(context_, &options, &in, nullptr, &workspace);
        },
        [&](std::size_t &saved) { return segprior_softmax_saved_size(context_, &options, &in, &saved); },
        [&] {
          return segprior_softmax_backward(context_, &options, &in, last ? outputs.u.c() : nullptr,
                                           grad_u.c(), &out, workspace_.data(), workspace_.bytes(),
                                           saved_.data(), saved_.bytes());
        });
  }
};

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
