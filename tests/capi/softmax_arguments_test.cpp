// The bad-input table of softmax.h: each argument with each bad value gives the documented status, a message
// that names the argument, and untouched outputs.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/cases/cases.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

enum class Function { forward, backward, workspace_size, saved_size };

// One valid call, of which a test spoils one thing.
struct Arguments {
  SoftmaxCall call;
  segprior_context *context;
  const segprior_softmax_opts *opts;
  const segprior_softmax_inputs *inputs;
  const segprior_softmax_outputs *outputs;
  const segprior_softmax_grads *grads;
  const segprior_tensor *u = nullptr, *grad_u;
  void *forward_workspace, *backward_workspace, *saved;
  size_t forward_bytes, backward_bytes, saved_bytes;

  Arguments(Device &device, const Case &c)
      : call(device, make_problem(c), settings_of(c)),
        context(device.context()),
        opts(&call.opts),
        inputs(&call.inputs),
        outputs(&call.outputs),
        grads(&call.grads),
        grad_u(call.grad_u->view()),
        forward_workspace(call.forward_workspace->data()),
        backward_workspace(call.backward_workspace->data()),
        saved(call.saved->data()),
        forward_bytes(call.forward_workspace->bytes()),
        backward_bytes(call.backward_workspace->bytes()),
        saved_bytes(call.saved->bytes()) {
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(SEGPRIOR_BACKWARD_UNROLLED, make_grad_u(c)) == SEGPRIOR_OK);
    poison();
  }

  std::vector<DeviceArray *> written() {
    std::vector<DeviceArray *> all{&call.u->memory(), call.info.get()};
    if (call.tv_dual) all.push_back(&call.tv_dual->memory());
    if (call.volume_dual) all.push_back(&call.volume_dual->memory());
    for (const auto &gradient : call.gradient_list()) all.push_back(&gradient.second->memory());
    return all;
  }
  void poison() {
    for (DeviceArray *array : written()) array->fill(0x77);
  }
  bool untouched() {
    for (DeviceArray *array : written())
      if (array->content() != std::vector<unsigned char>(array->bytes(), 0x77)) return false;
    return true;
  }

  segprior_status run(Function function) {
    size_t a = 0, b = 0;
    switch (function) {
      case Function::forward:
        return segprior_softmax_forward(context, opts, inputs, outputs, forward_workspace, forward_bytes,
                                        saved, saved_bytes);
      case Function::backward:
        return segprior_softmax_backward(context, opts, inputs, u, grad_u, grads, backward_workspace,
                                         backward_bytes, saved, saved_bytes);
      case Function::workspace_size:
        return segprior_softmax_workspace_size(context, opts, inputs, &a, &b);
      default:
        return segprior_softmax_saved_size(context, opts, inputs, &a);
    }
  }
};

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
Case bare() {
  Case c({5, 7}, 3, 2);
  return c.f32().iterations(3);
}

struct Bad {
  const char *what;
  segprior_status status;
  const char *names;  // what the message has to contain
  std::function<void(Arguments &)> spoil;
};

void check_bad(const Case &c, Function function, const std::vector<Bad> &table) {
  const char *functions[] = {"forward", "backward", "workspace_size", "saved_size"};
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (const Bad &bad : table) {
      INFO(functions[static_cast<int>(function)] << ", " << bad.what << ", on " << name_of(which));
      Arguments arguments(device, c);
      bad.spoil(arguments);
      CHECK(arguments.run(function) == bad.status);
      const std::string message = segprior_last_error();
      CHECK_MESSAGE(message.find(bad.names) != std::string::npos, "the message \"", message,
                    "\" does not contain \"", bad.names, "\"");
      device.synchronize();
      CHECK(arguments.untouched());
    }
  }
}

// A changed copy of a tensor argument that outlives the call.
struct Edited {
  segprior_tensor tensor;
  int64_t shape[SEGPRIOR_MAX_NDIM + 1], strides[SEGPRIOR_MAX_NDIM + 1];

  explicit Edited(const segprior_tensor &from) : tensor(from) {
    int64_t step = 1;
    for (int k = from.ndim - 1; k >= 0; --k) {
      shape[k] = from.shape[k];
      strides[k] = step;
      step *= shape[k];
    }
    tensor.shape = shape;
    tensor.strides = strides;
  }
};

using Slot = const segprior_tensor *&;

struct TensorArgument {
  const char *name;
  bool required, written;
  std::function<Slot(Arguments &)> slot;
};

template <class S>
std::function<Slot(Arguments &)> field(S SoftmaxCall::*group, const segprior_tensor *S::*member) {
  return [=](Arguments &a) -> Slot { return a.call.*group.*member; };
}

// Spoils one tensor argument in every way a tensor can be wrong.
void check_tensor(const Case &c, Function function, const TensorArgument &argument) {
  const std::string name = argument.name;
  const bool features = name == "inputs.features";
  const auto edit = [&](const char *what, segprior_status status,
                        const std::function<void(Edited &)> &change) {
    return Bad{what, status, argument.name, [=](Arguments &a) {
                 static thread_local std::vector<Edited> keep;
                 keep.clear();
                 keep.reserve(1);
                 keep.emplace_back(*argument.slot(a));
                 Edited &edited = keep.back();
                 edited.tensor.shape = edited.shape;
                 edited.tensor.strides = edited.strides;
                 change(edited);
                 argument.slot(a) = &edited.tensor;
               }};
  };
  std::vector<Bad> table{
      edit("bad dtype", SEGPRIOR_ERROR_DTYPE, [](Edited &e) { e.tensor.dtype = 9; }),
      edit("too many axes", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = SEGPRIOR_MAX_NDIM + 1; }),
      edit("negative ndim", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = -1; }),
      edit("no axes", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.tensor.ndim = 0; }),
      edit("no shape", SEGPRIOR_ERROR_NULL_POINTER, [](Edited &e) { e.tensor.shape = nullptr; }),
      edit("negative extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[e.tensor.ndim - 1] = -2; }),
      edit("other device type", SEGPRIOR_ERROR_DEVICE,
           [](Edited &e) { e.tensor.device.type = 3 - e.tensor.device.type; }),
      edit("other device index", SEGPRIOR_ERROR_DEVICE, [](Edited &e) { e.tensor.device.index += 1; }),
      edit("unknown device type", SEGPRIOR_ERROR_DEVICE, [](Edited &e) { e.tensor.device.type = 77; }),
  };
  if (!features) {  // the features' shape and dtype are what the others are compared with
    table.push_back(
        edit("other dtype", SEGPRIOR_ERROR_DTYPE, [](Edited &e) { e.tensor.dtype = SEGPRIOR_FLOAT64; }));
    table.push_back(edit("other extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[0] += 1; }));
    table.push_back(
        edit("other last extent", SEGPRIOR_ERROR_SHAPE, [](Edited &e) { e.shape[e.tensor.ndim - 1] += 1; }));
    table.push_back(edit("one axis more", SEGPRIOR_ERROR_SHAPE, [](Edited &e) {
      e.shape[e.tensor.ndim] = e.strides[e.tensor.ndim] = 1;
      e.tensor.ndim += 1;
    }));
  }
  const bool scalar = name.find("eps") != std::string::npos || name.find("tv_lam") != std::string::npos ||
                      name.find("tv_tau") != std::string::npos;
  if (!scalar) {  // one element has no strides to speak of
    table.push_back(edit("transposed", SEGPRIOR_ERROR_STRIDES, [](Edited &e) {
      std::swap(e.strides[e.tensor.ndim - 1], e.strides[e.tensor.ndim - 2]);
    }));
    table.push_back(edit("padded rows", SEGPRIOR_ERROR_STRIDES, [](Edited &e) { e.strides[0] += 1; }));
    table.push_back(edit("stride 0", SEGPRIOR_ERROR_STRIDES, [](Edited &e) { e.strides[0] = 0; }));
  }
  if (function == Function::forward || function == Function::backward) {
    table.push_back(edit("no data", SEGPRIOR_ERROR_NULL_POINTER, [](Edited &e) { e.tensor.data = nullptr; }));
    table.push_back(
        edit("odd address", SEGPRIOR_ERROR_ALIGNMENT, [](Edited &e) { e.tensor.byte_offset = 2; }));
    if (argument.written) {
      table.push_back(
          {"shares memory with the features", SEGPRIOR_ERROR_OVERLAP, argument.name, [=](Arguments &a) {
             static thread_local segprior_tensor shared;
             shared = *argument.slot(a);
             shared.data = a.call.features->view()->data;
             argument.slot(a) = &shared;
           }});
      table.push_back({"shares its last bytes with the workspace", SEGPRIOR_ERROR_OVERLAP, "workspace",
                       [=](Arguments &a) {
                         static thread_local segprior_tensor shared;
                         shared = *argument.slot(a);
                         int64_t bytes = sizeof(float);
                         for (int k = 0; k < shared.ndim; ++k) bytes *= shared.shape[k];
                         const bool forward = function == Function::forward;
                         char *space =
                             static_cast<char *>(forward ? a.forward_workspace : a.backward_workspace);
                         const size_t size = forward ? a.forward_bytes : a.backward_bytes;
                         REQUIRE(static_cast<int64_t>(size) >= bytes);
                         shared.data = space + size / 256 * 256 - 256;
                         if (bytes > 256) shared.data = space;
                         argument.slot(a) = &shared;
                       }});
    }
  }
  if (argument.required)
    table.push_back({"NULL", SEGPRIOR_ERROR_NULL_POINTER, argument.name,
                     [=](Arguments &a) { argument.slot(a) = nullptr; }});
  check_bad(c, function, table);
}

template <class S>
TensorArgument tensor(const char *name, S SoftmaxCall::*group, const segprior_tensor *S::*member,
                      bool required, bool written) {
  return {name, required, written, field(group, member)};
}

using In = segprior_softmax_inputs;
using Out = segprior_softmax_outputs;
using Grad = segprior_softmax_grads;

std::vector<TensorArgument> inputs_of_equality() {
  const auto in = [](const char *name, const segprior_tensor *In::*member, bool required = false) {
    return tensor(name, &SoftmaxCall::inputs, member, required, false);
  };
  return {in("inputs.features", &In::features, true),
          in("inputs.eps", &In::eps),
          in("inputs.tv_lam", &In::tv_lam),
          in("inputs.tv_tau", &In::tv_tau),
          in("inputs.tv_edge", &In::tv_edge),
          in("inputs.volume", &In::volume),
          in("inputs.init_tv_dual", &In::init_tv_dual),
          in("inputs.init_volume_dual", &In::init_volume_dual)};
}
std::vector<TensorArgument> inputs_of_box() {
  return {tensor("inputs.volume_lower", &SoftmaxCall::inputs, &In::volume_lower, false, false),
          tensor("inputs.volume_upper", &SoftmaxCall::inputs, &In::volume_upper, false, false)};
}

}  // namespace

TEST_CASE("softmax arguments: every tensor, every way to be wrong [small]") {
  for (Function function :
       {Function::forward, Function::backward, Function::workspace_size, Function::saved_size}) {
    for (const TensorArgument &argument : inputs_of_equality()) check_tensor(equality(), function, argument);
    for (const TensorArgument &argument : inputs_of_box()) check_tensor(box(), function, argument);
  }
  const auto out = [](const char *name, const segprior_tensor *Out::*member, bool required = false) {
    return tensor(name, &SoftmaxCall::outputs, member, required, true);
  };
  check_tensor(equality(), Function::forward, out("outputs.u", &Out::u, true));
  check_tensor(equality(), Function::forward, out("outputs.tv_dual", &Out::tv_dual));
  check_tensor(equality(), Function::forward, out("outputs.volume_dual", &Out::volume_dual));
  const auto grad = [](const char *name, const segprior_tensor *Grad::*member) {
    return tensor(name, &SoftmaxCall::grads, member, false, true);
  };
  check_tensor(equality(), Function::backward, grad("grads.features", &Grad::features));
  check_tensor(equality(), Function::backward, grad("grads.eps", &Grad::eps));
  check_tensor(equality(), Function::backward, grad("grads.init_eps", &Grad::init_eps));
  check_tensor(equality(), Function::backward, grad("grads.tv_lam", &Grad::tv_lam));
  check_tensor(equality(), Function::backward, grad("grads.tv_tau", &Grad::tv_tau));
  check_tensor(equality(), Function::backward, grad("grads.tv_edge", &Grad::tv_edge));
  check_tensor(equality(), Function::backward, grad("grads.volume", &Grad::volume));
  check_tensor(box(), Function::backward, grad("grads.volume_lower", &Grad::volume_lower));
  check_tensor(box(), Function::backward, grad("grads.volume_upper", &Grad::volume_upper));
  check_tensor(equality(), Function::backward,
               {"grad_u", true, false, [](Arguments &a) -> Slot { return a.grad_u; }});
  const auto last = [](Arguments &a) -> Slot {
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

TEST_CASE("softmax arguments: options [small]") {
  const auto real = [](const char *what, const char *names, double segprior_softmax_opts::*member,
                       double value) {
    return Bad{what, SEGPRIOR_ERROR_VALUE, names, [=](Arguments &a) { a.call.opts.*member = value; }};
  };
  const auto whole = [](const char *what, const char *names, int32_t segprior_softmax_opts::*member,
                        int32_t value) {
    return Bad{what, SEGPRIOR_ERROR_VALUE, names, [=](Arguments &a) { a.call.opts.*member = value; }};
  };
  const auto spacing = [](const char *what, const char *names, int axis, double value) {
    return Bad{what, SEGPRIOR_ERROR_VALUE, names, [=](Arguments &a) { a.call.opts.spacing[axis] = value; }};
  };
  using O = segprior_softmax_opts;
  const std::vector<Bad> table{
      whole("iterations", "opts.iterations = -1", &O::iterations, -1),
      whole("accelerate", "opts.accelerate = 2", &O::accelerate, 2),
      real("tolerance", "opts.tolerance = -1", &O::tolerance, -1),
      real("tolerance", "opts.tolerance", &O::tolerance, kNaN),
      whole("check_interval", "opts.check_interval = 0", &O::check_interval, 0),
      whole("check_interval", "opts.check_interval = -3", &O::check_interval, -3),
      whole("checkpoint_interval", "opts.checkpoint_interval = -1", &O::checkpoint_interval, -1),
      whole("tv", "opts.tv = 2", &O::tv, 2),
      whole("tv", "opts.tv = -1", &O::tv, -1),
      whole("backward_mode", "opts.backward_mode = 3", &O::backward_mode, 3),
      whole("backward_mode", "opts.backward_mode = -1", &O::backward_mode, -1),
      whole("accumulate", "opts.accumulate = 2", &O::accumulate, 2),
      whole("reserved", "opts.reserved = 1", &O::reserved, 1),
      real("eps", "opts.eps = 0", &O::eps, 0),
      real("eps", "opts.eps = -1", &O::eps, -1),
      real("eps", "opts.eps", &O::eps, kNaN),
      real("eps", "opts.eps", &O::eps, kInf),
      real("init_eps", "opts.init_eps = -1", &O::init_eps, -1),
      real("init_eps", "opts.init_eps", &O::init_eps, kNaN),
      real("init_eps", "opts.init_eps", &O::init_eps, kInf),
      real("tv_lam", "opts.tv_lam = -1", &O::tv_lam, -1),
      real("tv_lam", "opts.tv_lam", &O::tv_lam, kNaN),
      real("tv_lam", "opts.tv_lam", &O::tv_lam, kInf),
      real("tv_tau", "opts.tv_tau = -1", &O::tv_tau, -1),
      real("tv_tau", "opts.tv_tau", &O::tv_tau, kNaN),
      real("tv_tau", "opts.tv_tau", &O::tv_tau, kInf),
      spacing("spacing 0", "opts.spacing[0] = 0", 0, 0),
      spacing("spacing 1", "opts.spacing[1] = -2", 1, -2),
      spacing("spacing 1", "opts.spacing[1]", 1, kNaN),
      spacing("spacing 0", "opts.spacing[0]", 0, kInf),
  };
  for (Function function :
       {Function::forward, Function::backward, Function::workspace_size, Function::saved_size})
    check_bad(box(), function, table);
}

TEST_CASE("softmax arguments: pointers, sizes and combinations [small]") {
  const std::vector<Bad> common{
      {"no context", SEGPRIOR_ERROR_NULL_POINTER, "context", [](Arguments &a) { a.context = nullptr; }},
      {"no opts", SEGPRIOR_ERROR_NULL_POINTER, "opts", [](Arguments &a) { a.opts = nullptr; }},
      {"no inputs", SEGPRIOR_ERROR_NULL_POINTER, "inputs", [](Arguments &a) { a.inputs = nullptr; }},
      {"volume and volume_lower", SEGPRIOR_ERROR_VALUE, "inputs.volume",
       [](Arguments &a) { a.call.inputs.volume_lower = a.call.inputs.volume; }},
      {"volume and volume_upper", SEGPRIOR_ERROR_VALUE, "inputs.volume",
       [](Arguments &a) { a.call.inputs.volume_upper = a.call.inputs.volume; }},
  };
  for (Function function :
       {Function::forward, Function::backward, Function::workspace_size, Function::saved_size})
    check_bad(equality(), function, common);

  const auto offset = [](void *pointer, int bytes) { return static_cast<char *>(pointer) + bytes; };
  check_bad(
      equality(), Function::forward,
      {
          {"no outputs", SEGPRIOR_ERROR_NULL_POINTER, "outputs", [](Arguments &a) { a.outputs = nullptr; }},
          {"no workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace",
           [](Arguments &a) { a.forward_workspace = nullptr; }},
          {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
           [](Arguments &a) { a.forward_bytes -= 1; }},
          {"misaligned workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
           [=](Arguments &a) { a.forward_workspace = offset(a.forward_workspace, 128); }},
          {"no saved", SEGPRIOR_ERROR_NULL_POINTER, "saved", [](Arguments &a) { a.saved = nullptr; }},
          {"small saved", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
           [](Arguments &a) { a.saved_bytes -= 1; }},
          {"misaligned saved", SEGPRIOR_ERROR_ALIGNMENT, "saved",
           [=](Arguments &a) { a.saved = offset(a.saved, 64); }},
          {"saved is the workspace", SEGPRIOR_ERROR_OVERLAP, "saved",
           [](Arguments &a) { a.saved = a.forward_workspace; }},
          {"workspace is an input", SEGPRIOR_ERROR_OVERLAP, "workspace",
           [](Arguments &a) { a.forward_workspace = a.call.inputs.features->data; }},
          {"misaligned info", SEGPRIOR_ERROR_ALIGNMENT, "outputs.info",
           [=](Arguments &a) {
             a.call.outputs.info = reinterpret_cast<segprior_info *>(offset(a.call.outputs.info, 4));
           }},
          {"info is u", SEGPRIOR_ERROR_OVERLAP, "outputs.info",
           [](Arguments &a) { a.call.outputs.info = static_cast<segprior_info *>(a.call.outputs.u->data); }},
          {"two outputs are one", SEGPRIOR_ERROR_OVERLAP, "outputs.u",
           [](Arguments &a) {
             static thread_local segprior_tensor same;
             same = *a.call.outputs.u;
             same.data = a.call.outputs.tv_dual->data;
             a.call.outputs.u = &same;
           }},
      });
  check_bad(bare(), Function::forward,
            {
                {"tv_dual without tv", SEGPRIOR_ERROR_VALUE, "outputs.tv_dual",
                 [](Arguments &a) { a.call.outputs.tv_dual = a.call.outputs.u; }},
                {"volume_dual without volume", SEGPRIOR_ERROR_VALUE, "outputs.volume_dual",
                 [](Arguments &a) { a.call.outputs.volume_dual = a.call.outputs.u; }},
            });
  const auto unwelcome_input = [](const char *name, const segprior_tensor *In::*member) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, name,
               [=](Arguments &a) { a.call.inputs.*member = a.call.inputs.features; }};
  };
  Case without_prior = bare();
  for (Function function :
       {Function::forward, Function::backward, Function::workspace_size, Function::saved_size})
    check_bad(without_prior, function,
              {unwelcome_input("inputs.init_tv_dual", &In::init_tv_dual),
               unwelcome_input("inputs.tv_edge", &In::tv_edge)});

  check_bad(
      equality(), Function::backward,
      {
          {"no grad_u", SEGPRIOR_ERROR_NULL_POINTER, "grad_u", [](Arguments &a) { a.grad_u = nullptr; }},
          {"no grads", SEGPRIOR_ERROR_NULL_POINTER, "grads", [](Arguments &a) { a.grads = nullptr; }},
          {"no workspace", SEGPRIOR_ERROR_NULL_POINTER, "workspace",
           [](Arguments &a) { a.backward_workspace = nullptr; }},
          {"small workspace", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "workspace_bytes",
           [](Arguments &a) { a.backward_bytes -= 1; }},
          {"misaligned workspace", SEGPRIOR_ERROR_ALIGNMENT, "workspace",
           [=](Arguments &a) { a.backward_workspace = offset(a.backward_workspace, 8); }},
          {"no saved", SEGPRIOR_ERROR_NULL_POINTER, "saved", [](Arguments &a) { a.saved = nullptr; }},
          {"small saved", SEGPRIOR_ERROR_BUFFER_TOO_SMALL, "saved_bytes",
           [](Arguments &a) { a.saved_bytes -= 1; }},
          {"misaligned saved", SEGPRIOR_ERROR_ALIGNMENT, "saved",
           [=](Arguments &a) { a.saved = offset(a.saved, 16); }},
          {"a gradient in saved", SEGPRIOR_ERROR_OVERLAP, "saved",
           [](Arguments &a) {
             static thread_local segprior_tensor inside;
             inside = *a.call.grads.features;
             inside.data = a.saved;
             a.call.grads.features = &inside;
           }},
          {"a gradient over grad_u", SEGPRIOR_ERROR_OVERLAP, "grad_u",
           [](Arguments &a) { a.call.grads.features = a.grad_u; }},
          {"two gradients in one place", SEGPRIOR_ERROR_OVERLAP, "grads.tv_lam",
           [](Arguments &a) { a.call.grads.tv_lam = a.call.grads.eps; }},
          {"nothing saved", SEGPRIOR_ERROR_VALUE, "opts.checkpoint_interval",
           [](Arguments &a) { a.call.opts.checkpoint_interval = 0; }},
          {"lower gradient of an equality", SEGPRIOR_ERROR_VALUE, "grads.volume_lower",
           [](Arguments &a) { a.call.grads.volume_lower = a.call.grads.volume; }},
          {"upper gradient of an equality", SEGPRIOR_ERROR_VALUE, "grads.volume_upper",
           [](Arguments &a) { a.call.grads.volume_upper = a.call.grads.volume; }},
          {"gradients beyond the last softmax", SEGPRIOR_ERROR_VALUE, "grads.",
           [](Arguments &a) {
             a.call.opts.backward_mode = SEGPRIOR_BACKWARD_LAST;
             a.u = a.call.u->view();
           }},
      });
  const auto unwelcome = [](const char *name, const segprior_tensor *Grad::*member) {
    return Bad{name, SEGPRIOR_ERROR_VALUE, name, [=](Arguments &a) {
                 a.call.grads.*member = a.call.grads.features;
                 a.call.grads.features = nullptr;
               }};
  };
  check_bad(bare(), Function::backward,
            {unwelcome("grads.init_eps", &Grad::init_eps), unwelcome("grads.tv_lam", &Grad::tv_lam),
             unwelcome("grads.tv_tau", &Grad::tv_tau), unwelcome("grads.tv_edge", &Grad::tv_edge),
             unwelcome("grads.volume", &Grad::volume), unwelcome("grads.volume_lower", &Grad::volume_lower),
             unwelcome("grads.volume_upper", &Grad::volume_upper)});
}

TEST_CASE("softmax arguments: shapes of the features [small]") {
  const auto shaped = [](const char *what, segprior_status status, std::vector<int64_t> shape) {
    return Bad{what, status, "inputs.features", [=](Arguments &a) {
                 static thread_local std::vector<int64_t> keep;
                 static thread_local segprior_tensor tensor;
                 keep = shape;
                 tensor = *a.call.inputs.features;
                 tensor.ndim = static_cast<int32_t>(keep.size());
                 tensor.shape = keep.data();
                 a.call.inputs.features = &tensor;
               }};
  };
  for (Function function :
       {Function::forward, Function::backward, Function::workspace_size, Function::saved_size})
    check_bad(
        bare(), function,
        {shaped("no spatial axis", SEGPRIOR_ERROR_SHAPE, {2, 3}),
         shaped("four spatial axes", SEGPRIOR_ERROR_SHAPE, {1, 2, 1, 1, 1, 3}),
         shaped("no class", SEGPRIOR_ERROR_SHAPE, {2, 0, 5, 7}),
         shaped("257 classes", SEGPRIOR_ERROR_SHAPE, {1, 257, 1}),
         shaped("too many bytes", SEGPRIOR_ERROR_SIZE_OVERFLOW, {int64_t(1) << 31, 4, int64_t(1) << 31})});
}

#if defined(SEGPRIOR_WITH_CUDA)
TEST_CASE("softmax arguments: host memory on a CUDA context [small]") {
  for (segprior_device which : all_devices()) {
    if (which.type != SEGPRIOR_CUDA) continue;
    Device device(which);
    static std::vector<float> host(1 << 16);
    const auto on_host = [](const char *name, const std::function<Slot(Arguments &)> &slot) {
      return Bad{name, SEGPRIOR_ERROR_DEVICE, name, [=](Arguments &a) {
                   static thread_local segprior_tensor tensor;
                   tensor = *slot(a);
                   tensor.data = host.data();
                   slot(a) = &tensor;
                 }};
    };
    const std::vector<Bad> table{
        on_host("inputs.features", field(&SoftmaxCall::inputs, &In::features)),
        on_host("inputs.tv_edge", field(&SoftmaxCall::inputs, &In::tv_edge)),
        on_host("outputs.u", field(&SoftmaxCall::outputs, &Out::u)),
        {"outputs.info", SEGPRIOR_ERROR_DEVICE, "outputs.info",
         [](Arguments &a) { a.call.outputs.info = reinterpret_cast<segprior_info *>(host.data()); }},
    };
    for (const Bad &bad : table) {
      INFO(bad.what);
      Arguments arguments(device, equality());
      bad.spoil(arguments);
      CHECK(arguments.run(Function::forward) == bad.status);
      CHECK(std::string(segprior_last_error()).find(bad.names) != std::string::npos);
      CHECK(arguments.untouched());
    }
  }
}
#endif
