// The bad-input tables of softmax.h, rules between arguments: what excludes or needs what, pointers and sizes
// of buffers, shapes of the features and of kernels, memory of the wrong device.
#include <limits>

#include "tests/capi/bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using In = segprior_softmax_inputs;
using Out = segprior_softmax_outputs;
using Grad = segprior_softmax_grads;

constexpr const char *kUnrolled = "opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED";
constexpr const char *kImplicit = "SEGPRIOR_BACKWARD_IMPLICIT";

Case bare() {
  Case c({5, 7}, 3, 2);
  return c.f32().iterations(3);
}
Case equality() {
  return bare().tv(0.3, 0.1).edge(Case::Edge::per_image).equal().init_eps(0.8).device_scalars();
}
Case threshold_dynamics() { return bare().td(0.2).td_edge(Case::Edge::per_image).device_scalars(); }
Case kernel() { return bare().td(0.2).td_kernel({5, 3}); }
Case all_priors() {
  return equality().td(0.2).td_edge(Case::Edge::per_image).star({0, 2}).mask(Case::Mask::shared);
}

// Sets a pointer to the features, or to their gradient: a tensor that is sure to be valid somewhere.
Bad given(const char *name, const segprior_tensor *In::*member, std::string needs = "") {
  return {name, SEGPRIOR_ERROR_VALUE,
          needs.empty() ? name : std::string(name) + " is given, which needs " + needs,
          [=](CallArguments &a) { a.call.inputs.*member = a.call.inputs.features; }};
}
Bad given(const char *name, const segprior_tensor *Out::*member, std::string needs) {
  return {name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs " + needs,
          [=](CallArguments &a) { a.call.outputs.*member = a.call.outputs.u; }};
}
Bad given(const char *name, const segprior_tensor *Grad::*member, std::string needs) {
  return {name, SEGPRIOR_ERROR_VALUE, std::string(name) + " is given, which needs " + needs,
          [=](CallArguments &a) {
            a.call.grads.*member = a.call.gradients.features->view();
            if (member != &Grad::features) a.call.grads.features = nullptr;
          }};
}

char *offset(void *pointer, int bytes) { return static_cast<char *>(pointer) + bytes; }

}  // namespace

TEST_CASE("softmax rules: inputs that exclude or need something [small]") {
  const std::vector<Bad> volumes{
      {"volume and volume_lower", SEGPRIOR_ERROR_VALUE, "inputs.volume",
       [](CallArguments &a) { a.call.inputs.volume_lower = a.call.inputs.volume; }},
      {"volume and volume_upper", SEGPRIOR_ERROR_VALUE, "inputs.volume",
       [](CallArguments &a) { a.call.inputs.volume_upper = a.call.inputs.volume; }},
  };
  const std::vector<Bad> alone{
      given("inputs.tv_lam", &In::tv_lam, "opts.tv = 1"),
      given("inputs.tv_tau", &In::tv_tau, "opts.tv = 1"),
      given("inputs.tv_edge", &In::tv_edge, "opts.tv = 1"),
      given("inputs.init_tv_dual", &In::init_tv_dual, "opts.tv = 1"),
      given("inputs.init_volume_dual", &In::init_volume_dual, "a volume prior"),
      given("inputs.td_lam", &In::td_lam, "opts.td = 1"),
      given("inputs.td_sigma", &In::td_sigma, "opts.td = 1"),
      given("inputs.td_kernel", &In::td_kernel, "opts.td = 1"),
      given("inputs.td_edge", &In::td_edge, "opts.td = 1"),
      given("inputs.star_center", &In::star_center, "opts.star_count > 0"),
      given("inputs.star_tau", &In::star_tau, "opts.star_count > 0"),
      given("inputs.init_star_dual", &In::init_star_dual, "opts.star_count > 0"),
  };
  const std::vector<Bad> both{{"sigma and kernel", SEGPRIOR_ERROR_VALUE,
                               "inputs.td_sigma excludes inputs.td_kernel",
                               [](CallArguments &a) { a.call.inputs.td_kernel = a.call.inputs.td_sigma; }}};
  for (Function function : kAllFunctions) {
    check_bad(equality(), function, volumes);
    check_bad(bare(), function, alone);
    check_bad(threshold_dynamics(), function, both);
  }
}

TEST_CASE("softmax rules: outputs and gradients without their prior [small]") {
  check_bad(bare(), Function::forward,
            {given("outputs.tv_dual", &Out::tv_dual, "opts.tv = 1"),
             given("outputs.volume_dual", &Out::volume_dual, "a volume prior"),
             given("outputs.star_dual", &Out::star_dual, "opts.star_count > 0")});
  check_bad(bare(), Function::backward,
            {given("grads.init_eps", &Grad::init_eps, "opts.init_eps > 0"),
             given("grads.tv_lam", &Grad::tv_lam, "opts.tv = 1"),
             given("grads.tv_tau", &Grad::tv_tau, "opts.tv = 1"),
             given("grads.tv_edge", &Grad::tv_edge, "inputs.tv_edge"),
             given("grads.volume", &Grad::volume, "inputs.volume"),
             given("grads.volume_lower", &Grad::volume_lower, "inputs.volume_lower"),
             given("grads.volume_upper", &Grad::volume_upper, "inputs.volume_upper"),
             given("grads.td_lam", &Grad::td_lam, "opts.td = 1"),
             given("grads.td_sigma", &Grad::td_sigma, "opts.td = 1"),
             given("grads.td_kernel", &Grad::td_kernel, "inputs.td_kernel"),
             given("grads.td_edge", &Grad::td_edge, "inputs.td_edge"),
             given("grads.star_tau", &Grad::star_tau, "opts.star_count > 0"),
             given("grads.star_center", &Grad::star_center, "opts.star_count > 0")});
  check_bad(equality(), Function::backward,
            {given("grads.volume_lower", &Grad::volume_lower, "inputs.volume_lower"),
             given("grads.volume_upper", &Grad::volume_upper, "inputs.volume_upper")});
  check_bad(threshold_dynamics(), Function::backward,
            {given("grads.td_kernel", &Grad::td_kernel, "inputs.td_kernel")});
  check_bad(kernel(), Function::backward,
            {given("grads.td_sigma", &Grad::td_sigma, "opts.td = 1 without inputs.td_kernel"),
             given("grads.td_edge", &Grad::td_edge, "inputs.td_edge")});
}

TEST_CASE("softmax rules: gradients that a backward mode does not have [small]") {
  const Bad info{"grads.info", SEGPRIOR_ERROR_VALUE,
                 "grads.info is given, which needs opts.backward_mode = SEGPRIOR_BACKWARD_IMPLICIT",
                 [](CallArguments &a) {
                   a.call.grads.info = static_cast<segprior_info *>(a.call.backward_info->data());
                 }};
  std::vector<Bad> last{info};
  const std::pair<const char *, const segprior_tensor * Grad::*> all[] = {
      {"grads.eps", &Grad::eps},
      {"grads.init_eps", &Grad::init_eps},
      {"grads.tv_lam", &Grad::tv_lam},
      {"grads.tv_tau", &Grad::tv_tau},
      {"grads.tv_edge", &Grad::tv_edge},
      {"grads.volume", &Grad::volume},
      {"grads.td_lam", &Grad::td_lam},
      {"grads.td_sigma", &Grad::td_sigma},
      {"grads.td_edge", &Grad::td_edge},
      {"grads.star_tau", &Grad::star_tau},
      {"grads.star_center", &Grad::star_center}};
  for (const auto &entry : all)
    last.push_back(given(entry.first, entry.second, std::string(kUnrolled) + " or " + kImplicit));
  check_bad(all_priors(), Function::backward, last, SEGPRIOR_BACKWARD_LAST);
  check_bad(all_priors(), Function::backward, {info});
  check_bad(all_priors(), Function::backward,
            {given("grads.init_eps", &Grad::init_eps, kUnrolled),
             given("grads.tv_tau", &Grad::tv_tau, kUnrolled),
             given("grads.star_tau", &Grad::star_tau, kUnrolled),
             {"nothing saved", SEGPRIOR_ERROR_VALUE, "opts.checkpoint_interval",
              [](CallArguments &a) { a.call.opts.checkpoint_interval = 0; }},
             {"info among the gradients", SEGPRIOR_ERROR_OVERLAP, "grads.info",
              [](CallArguments &a) {
                a.call.grads.info = static_cast<segprior_info *>(a.call.grads.features->data);
              }},
             {"misaligned info", SEGPRIOR_ERROR_ALIGNMENT, "grads.info",
              [](CallArguments &a) {
                a.call.grads.info = reinterpret_cast<segprior_info *>(offset(a.call.grads.info, 4));
              }}},
            SEGPRIOR_BACKWARD_IMPLICIT);
}

TEST_CASE("softmax rules: pointers and sizes [small]") {
  const std::vector<Bad> common{
      {"no context", SEGPRIOR_ERROR_NULL_POINTER, "context", [](CallArguments &a) { a.context = nullptr; }},
      {"no opts", SEGPRIOR_ERROR_NULL_POINTER, "opts", [](CallArguments &a) { a.opts = nullptr; }},
      {"no inputs", SEGPRIOR_ERROR_NULL_POINTER, "inputs", [](CallArguments &a) { a.inputs = nullptr; }},
  };
  for (Function function : kAllFunctions) check_bad(equality(), function, common);
  check_bad(
      equality(), Function::forward,
      {{"no outputs", SEGPRIOR_ERROR_NULL_POINTER, "outputs", [](CallArguments &a) { a.outputs = nullptr; }},
       {"no workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace",
        [](CallArguments &a) { a.forward_workspace = nullptr; }},
       {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
        [](CallArguments &a) { a.forward_bytes -= 1; }},
       {"misaligned workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
        [](CallArguments &a) { a.forward_workspace = offset(a.forward_workspace, 32); }},
       {"no saved", SEGPRIOR_ERROR_NULL_POINTER, "saved", [](CallArguments &a) { a.saved = nullptr; }},
       {"small saved", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
        [](CallArguments &a) { a.saved_bytes -= 1; }},
       {"misaligned saved", SEGPRIOR_ERROR_ALIGNMENT, "saved",
        [](CallArguments &a) { a.saved = offset(a.saved, 32); }},
       {"saved is the workspace", SEGPRIOR_ERROR_OVERLAP, "saved",
        [](CallArguments &a) { a.saved = a.forward_workspace; }},
       {"workspace is an input", SEGPRIOR_ERROR_OVERLAP, "workspace",
        [](CallArguments &a) { a.forward_workspace = a.call.inputs.features->data; }},
       {"misaligned info", SEGPRIOR_ERROR_ALIGNMENT, "outputs.info",
        [](CallArguments &a) {
          a.call.outputs.info = reinterpret_cast<segprior_info *>(offset(a.call.outputs.info, 4));
        }},
       {"info is u", SEGPRIOR_ERROR_OVERLAP, "outputs.info",
        [](CallArguments &a) { a.call.outputs.info = static_cast<segprior_info *>(a.call.outputs.u->data); }},
       {"two outputs are one", SEGPRIOR_ERROR_OVERLAP, "outputs.u", [](CallArguments &a) {
          void *data = a.call.outputs.tv_dual->data;
          edit(slot_of(&SoftmaxCall::outputs, &Out::u), [=](Edited &e) { e.tensor.data = data; })(a);
        }}});
  check_bad(
      all_priors(), Function::forward,
      {{"the mask is the workspace", SEGPRIOR_ERROR_OVERLAP, "inputs.mask",
        [](CallArguments &a) {
          void *data = a.forward_workspace;
          edit(slot_of(&SoftmaxCall::inputs, &In::mask), [=](Edited &e) { e.tensor.data = data; })(a);
        }},
       {"the first byte of the mask is u's last", SEGPRIOR_ERROR_OVERLAP, "outputs.u", [](CallArguments &a) {
          void *data = offset(a.call.outputs.u->data, static_cast<int>(a.call.u->memory().bytes()) - 1);
          edit(slot_of(&SoftmaxCall::inputs, &In::mask), [=](Edited &e) { e.tensor.data = data; })(a);
        }}});
  check_bad(
      equality(), Function::backward,
      {{"no grad_u", SEGPRIOR_ERROR_NULL_POINTER, "grad_u", [](CallArguments &a) { a.grad_u = nullptr; }},
       {"no grads", SEGPRIOR_ERROR_NULL_POINTER, "grads", [](CallArguments &a) { a.grads = nullptr; }},
       {"no workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace",
        [](CallArguments &a) { a.backward_workspace = nullptr; }},
       {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
        [](CallArguments &a) { a.backward_bytes -= 1; }},
       {"misaligned workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
        [](CallArguments &a) { a.backward_workspace = offset(a.backward_workspace, 8); }},
       {"no saved", SEGPRIOR_ERROR_NULL_POINTER, "saved", [](CallArguments &a) { a.saved = nullptr; }},
       {"small saved", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
        [](CallArguments &a) { a.saved_bytes -= 1; }},
       {"misaligned saved", SEGPRIOR_ERROR_ALIGNMENT, "saved",
        [](CallArguments &a) { a.saved = offset(a.saved, 16); }},
       {"a gradient in saved", SEGPRIOR_ERROR_OVERLAP, "saved",
        [](CallArguments &a) {
          void *data = a.saved;
          edit(slot_of(&SoftmaxCall::grads, &Grad::features), [=](Edited &e) { e.tensor.data = data; })(a);
        }},
       {"a gradient over grad_u", SEGPRIOR_ERROR_OVERLAP, "grad_u",
        [](CallArguments &a) { a.call.grads.features = a.grad_u; }},
       {"two gradients in one place", SEGPRIOR_ERROR_OVERLAP, "grads.tv_lam",
        [](CallArguments &a) { a.call.grads.tv_lam = a.call.grads.eps; }},
       {"nothing saved", SEGPRIOR_ERROR_VALUE, "opts.checkpoint_interval",
        [](CallArguments &a) { a.call.opts.checkpoint_interval = 0; }}});
}

TEST_CASE("softmax rules: shapes of the features and of kernels [small]") {
  const auto shaped = [](const char *what, segprior_status status, const char *name,
                         const segprior_tensor *In::*member, std::vector<int64_t> shape) {
    return Bad{what, status, name, [=](CallArguments &a) {
                 static thread_local std::vector<int64_t> keep;
                 keep = shape;
                 edit(slot_of(&SoftmaxCall::inputs, member), [](Edited &e) {
                   e.tensor.ndim = static_cast<int32_t>(keep.size());
                   e.tensor.shape = keep.data();
                   e.tensor.strides = nullptr;
                 })(a);
               }};
  };
  const auto features = [&](const char *what, segprior_status status, std::vector<int64_t> shape) {
    return shaped(what, status, "inputs.features", &In::features, std::move(shape));
  };
  const auto kernels = [&](const char *what, const char *names, std::vector<int64_t> shape) {
    return shaped(what, SEGPRIOR_ERROR_SHAPE, names, &In::td_kernel, std::move(shape));
  };
  for (Function function : kAllFunctions) {
    check_bad(
        bare(), function,
        {features("no spatial axis", SEGPRIOR_ERROR_SHAPE, {2, 3}),
         features("four spatial axes", SEGPRIOR_ERROR_SHAPE, {1, 2, 1, 1, 1, 3}),
         features("no class", SEGPRIOR_ERROR_SHAPE, {2, 0, 5, 7}),
         features("257 classes", SEGPRIOR_ERROR_SHAPE, {1, 257, 1}),
         features("too many bytes", SEGPRIOR_ERROR_SIZE_OVERFLOW, {int64_t(1) << 31, 4, int64_t(1) << 31})});
    check_bad(
        kernel(), function,
        {kernels("one axis", "inputs.td_kernel: ndim = 1 must be 2, or 3", {5}),
         kernels("four axes", "inputs.td_kernel: ndim = 4 must be 2, or 3", {3, 5, 3, 1}),
         kernels("even", "inputs.td_kernel: extent 4 of spatial axis 0 must be odd, 1 to 15", {4, 3}),
         kernels("empty", "inputs.td_kernel: extent 0 of spatial axis 1 must be odd", {5, 0}),
         kernels("negative", "inputs.td_kernel: extent -1 of spatial axis 1 must be odd", {5, -1}),
         kernels("too large", "inputs.td_kernel: extent 17 of spatial axis 1 must be odd, 1 to 15", {1, 17}),
         kernels("of other classes", "inputs.td_kernel: extent 4 of axis 0 must be the number of classes 3",
                 {4, 5, 3}),
         kernels("of classes, even", "inputs.td_kernel: extent 2 of spatial axis 1", {3, 5, 2})});
  }
}

#if defined(SEGPRIOR_WITH_CUDA)
TEST_CASE("softmax rules: host memory on a CUDA context [small]") {
  static std::vector<float> host(1 << 16);
  const auto on_host = [](const char *name, std::function<Slot(CallArguments &)> slot) {
    return Bad{name, SEGPRIOR_ERROR_DEVICE, name, edit(slot, [](Edited &e) { e.tensor.data = host.data(); })};
  };
  const std::vector<Bad> table{
      on_host("inputs.features", slot_of(&SoftmaxCall::inputs, &In::features)),
      on_host("inputs.tv_edge", slot_of(&SoftmaxCall::inputs, &In::tv_edge)),
      on_host("inputs.td_edge", slot_of(&SoftmaxCall::inputs, &In::td_edge)),
      on_host("inputs.mask", slot_of(&SoftmaxCall::inputs, &In::mask)),
      on_host("inputs.star_center", slot_of(&SoftmaxCall::inputs, &In::star_center)),
      on_host("outputs.u", slot_of(&SoftmaxCall::outputs, &Out::u)),
      on_host("outputs.star_dual", slot_of(&SoftmaxCall::outputs, &Out::star_dual)),
      {"outputs.info", SEGPRIOR_ERROR_DEVICE, "outputs.info",
       [](CallArguments &a) { a.call.outputs.info = reinterpret_cast<segprior_info *>(host.data()); }},
  };
  for (segprior_device which : all_devices()) {
    if (which.type != SEGPRIOR_CUDA) continue;
    Device device(which);
    CallArguments arguments(device, all_priors());
    for (const Bad &bad : table) {
      INFO(bad.what);
      arguments.reset();
      bad.spoil(arguments);
      CHECK(arguments.run(Function::forward) == bad.status);
      CHECK(std::string(segprior_last_error()).find(bad.names) != std::string::npos);
      CHECK(arguments.untouched());
    }
  }
}
#endif
