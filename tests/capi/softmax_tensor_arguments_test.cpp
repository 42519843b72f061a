// The bad-input tables of softmax.h, tensors: each tensor argument with everything that can be wrong about
// it.
#include "tests/capi/bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using In = segprior_softmax_inputs;
using Out = segprior_softmax_outputs;
using Grad = segprior_softmax_grads;

Case equality() {
  Case c({5, 7}, 3, 2);
  return c.f32()
      .tv(0.3, 0.1)
      .edge(Case::Edge::per_image)
      .equal()
      .init_eps(0.8)
      .warm_start()
      .device_scalars()
      .iterations(3);
}
Case box() {
  Case c({5, 7}, 3, 2);
  return c.f32().tv(0.3).volumes(Case::Volumes::box).iterations(3);
}
// Every prior of 0.2; the kernel's extents are such that no other shape of them is a kernel.
Case priors() {
  Case c({5, 7}, 3, 2);
  return c.f32()
      .td(0.2)
      .td_edge(Case::Edge::per_image)
      .star({0, 2}, 0.1)
      .mask(Case::Mask::per_image)
      .warm_start()
      .device_scalars()
      .iterations(3);
}
Case kernel() {
  Case c({5, 7}, 3, 2);
  return c.f32().td(0.2).td_kernel({5, 3}).iterations(3);
}
Case class_kernels() {
  Case c({5, 7}, 3, 2);
  return c.f32().td(0.2).td_kernel({5, 3}, true).iterations(3);
}
Case half() {
  Case c({5, 7}, 3, 2);
  return c.f16().tv(0.3).td(0.2).equal().star({1}).mask(Case::Mask::per_image).device_scalars().iterations(3);
}

void check_everywhere(const Case &c, const std::vector<TensorArgument> &arguments) {
  for (Function function : kAllFunctions)
    for (const TensorArgument &argument : arguments) check_tensor(c, function, argument);
}

void check_in(const Case &c, Function function, const std::vector<TensorArgument> &arguments) {
  for (const TensorArgument &argument : arguments) check_tensor(c, function, argument);
}

}  // namespace

TEST_CASE("softmax arguments: every input, every way to be wrong [small]") {
  check_everywhere(equality(), {input("inputs.features", &In::features, true), input("inputs.eps", &In::eps),
                                input("inputs.tv_lam", &In::tv_lam), input("inputs.tv_tau", &In::tv_tau),
                                input("inputs.tv_edge", &In::tv_edge), input("inputs.volume", &In::volume),
                                input("inputs.init_tv_dual", &In::init_tv_dual),
                                input("inputs.init_volume_dual", &In::init_volume_dual)});
  check_everywhere(box(), {input("inputs.volume_lower", &In::volume_lower),
                           input("inputs.volume_upper", &In::volume_upper)});
}

TEST_CASE("softmax arguments: every input of 0.2, every way to be wrong [small]") {
  check_everywhere(
      priors(), {input("inputs.td_lam", &In::td_lam), input("inputs.td_sigma", &In::td_sigma),
                 input("inputs.td_edge", &In::td_edge), input("inputs.star_center", &In::star_center, true),
                 input("inputs.star_tau", &In::star_tau), input("inputs.mask", &In::mask),
                 input("inputs.init_star_dual", &In::init_star_dual)});
  check_everywhere(kernel(), {input("inputs.td_kernel", &In::td_kernel)});
  check_everywhere(class_kernels(), {input("inputs.td_kernel", &In::td_kernel)});
}

TEST_CASE("softmax arguments: every output and gradient, every way to be wrong [small]") {
  check_in(equality(), Function::forward,
           {output("outputs.u", &Out::u, true), output("outputs.tv_dual", &Out::tv_dual),
            output("outputs.volume_dual", &Out::volume_dual)});
  check_in(equality(), Function::backward,
           {gradient("grads.features", &Grad::features), gradient("grads.eps", &Grad::eps),
            gradient("grads.init_eps", &Grad::init_eps), gradient("grads.tv_lam", &Grad::tv_lam),
            gradient("grads.tv_tau", &Grad::tv_tau), gradient("grads.tv_edge", &Grad::tv_edge),
            gradient("grads.volume", &Grad::volume)});
  check_in(box(), Function::backward,
           {gradient("grads.volume_lower", &Grad::volume_lower),
            gradient("grads.volume_upper", &Grad::volume_upper)});
  check_in(priors(), Function::forward, {output("outputs.star_dual", &Out::star_dual)});
  check_in(priors(), Function::backward,
           {gradient("grads.td_lam", &Grad::td_lam), gradient("grads.td_sigma", &Grad::td_sigma),
            gradient("grads.td_edge", &Grad::td_edge), gradient("grads.star_tau", &Grad::star_tau),
            gradient("grads.star_center", &Grad::star_center)});
  for (const Case &c : {kernel(), class_kernels()})
    check_in(c, Function::backward, {gradient("grads.td_kernel", &Grad::td_kernel)});

  check_tensor(equality(), Function::backward,
               {"grad_u", true, false, [](CallArguments &a) -> Slot { return a.grad_u; }});
  const auto last = [](CallArguments &a) -> Slot {
    a.call.opts.backward_mode = SEGPRIOR_BACKWARD_LAST;
    const segprior_tensor *features = a.call.grads.features;
    a.call.grads = {};
    a.call.grads.struct_size = sizeof(Grad);
    a.call.grads.features = features;
    if (!a.u) a.u = a.call.u->view();
    return a.u;
  };
  check_tensor(equality(), Function::backward, {"u", true, false, last});
}

// Features, u, grad_u and the features' gradient have 16 bits; everything else is float32.
TEST_CASE("softmax arguments: which tensors have 16 bits [small]") {
  check_in(half(), Function::forward,
           {input("inputs.features", &In::features, true), input("inputs.eps", &In::eps),
            input("inputs.volume", &In::volume), input("inputs.td_sigma", &In::td_sigma),
            input("inputs.star_center", &In::star_center, true), input("inputs.mask", &In::mask),
            output("outputs.u", &Out::u, true), output("outputs.tv_dual", &Out::tv_dual),
            output("outputs.star_dual", &Out::star_dual)});
  check_in(half(), Function::backward,
           {gradient("grads.features", &Grad::features),
            gradient("grads.volume", &Grad::volume),
            gradient("grads.td_lam", &Grad::td_lam),
            {"grad_u", true, false, [](CallArguments &a) -> Slot { return a.grad_u; }}});
  const auto features_of = [](int32_t dtype) {
    return Bad{
        "features", SEGPRIOR_ERROR_DTYPE, "inputs.features",
        edit(slot_of(&SoftmaxCall::inputs, &In::features), [=](Edited &e) { e.tensor.dtype = dtype; })};
  };
  for (Function function : kAllFunctions)
    check_bad(box(), function, {features_of(SEGPRIOR_UINT8), features_of(0)});
}
