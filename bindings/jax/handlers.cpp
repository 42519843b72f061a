// Handlers of XLA's foreign function interface: each operator's calls of the C interface, for CPU and CUDA.
//
// segprior.jax registers the exported symbols, which have the names of the C functions with _cpu or _cuda
// behind them. How buffers find their way into the C structs: call.h.
#include "call.h"

namespace segprior::jax {
namespace {

// What the calls of one operator have in common.
struct Softmax {
  using Options = segprior_softmax_opts;
  using Inputs = segprior_softmax_inputs;
  using Cotangents = NoStruct;
  static constexpr auto saved_size = segprior_softmax_saved_size;
};

struct Softcut {
  using Options = segprior_softcut_opts;
  using Inputs = segprior_softcut_inputs;
  using Cotangents = NoStruct;
  static constexpr auto saved_size = segprior_softcut_saved_size;
};

struct Loss {
  using Options = segprior_loss_opts;
  using Inputs = segprior_loss_inputs;
  using Cotangents = NoStruct;
  static constexpr auto saved_size = segprior_loss_saved_size;
};

struct SoftmaxForward : Softmax {
  using Results = segprior_softmax_outputs;
  static constexpr bool writes_saved = true;

  static segprior_status workspace_size(Call<SoftmaxForward> &c, size_t *bytes) {
    return segprior_softmax_workspace_size(c.context, &c.options, &c.inputs.value, bytes, nullptr);
  }

  static segprior_status run(Call<SoftmaxForward> &c, Memory m) {
    return segprior_softmax_forward(c.context, &c.options, &c.inputs.value, &c.results.value, m.workspace,
                                    m.workspace_bytes, m.saved, m.saved_bytes);
  }
};

struct SoftmaxBackward : Softmax {  // loose: u, grad_u
  using Results = segprior_softmax_grads;
  static constexpr bool writes_saved = false;

  static segprior_status workspace_size(Call<SoftmaxBackward> &c, size_t *bytes) {
    return segprior_softmax_workspace_size(c.context, &c.options, &c.inputs.value, nullptr, bytes);
  }

  static segprior_status run(Call<SoftmaxBackward> &c, Memory m) {
    return segprior_softmax_backward(c.context, &c.options, &c.inputs.value, c.loose[0], c.loose[1],
                                     &c.results.value, m.workspace, m.workspace_bytes, m.saved,
                                     m.saved_bytes);
  }
};

struct SoftcutForward : Softcut {
  using Results = segprior_softcut_outputs;
  static constexpr bool writes_saved = true;

  static segprior_status workspace_size(Call<SoftcutForward> &c, size_t *bytes) {
    return segprior_softcut_workspace_size(c.context, &c.options, &c.inputs.value, bytes, nullptr, nullptr);
  }

  static segprior_status run(Call<SoftcutForward> &c, Memory m) {
    return segprior_softcut_forward(c.context, &c.options, &c.inputs.value, &c.results.value, m.workspace,
                                    m.workspace_bytes, m.saved, m.saved_bytes);
  }
};

struct SoftcutBackward : Softcut {  // loose: x, grad_x
  using Results = segprior_softcut_grads;
  static constexpr bool writes_saved = false;

  static segprior_status workspace_size(Call<SoftcutBackward> &c, size_t *bytes) {
    return segprior_softcut_workspace_size(c.context, &c.options, &c.inputs.value, nullptr, bytes, nullptr);
  }

  static segprior_status run(Call<SoftcutBackward> &c, Memory m) {
    return segprior_softcut_backward(c.context, &c.options, &c.inputs.value, c.loose[0], c.loose[1],
                                     &c.results.value, m.workspace, m.workspace_bytes, m.saved,
                                     m.saved_bytes);
  }
};

struct SoftcutDoubleBackward : Softcut {  // loose: x, the scores' gradient that backward wrote
  using Cotangents = segprior_softcut_cotangents;
  using Results = segprior_softcut_second_grads;
  static constexpr bool writes_saved = false;

  static segprior_status workspace_size(Call<SoftcutDoubleBackward> &c, size_t *bytes) {
    return segprior_softcut_workspace_size(c.context, &c.options, &c.inputs.value, nullptr, nullptr, bytes);
  }

  static segprior_status run(Call<SoftcutDoubleBackward> &c, Memory m) {
    return segprior_softcut_double_backward(c.context, &c.options, &c.inputs.value, c.loose[0], c.loose[1],
                                            &c.cotangents.value, &c.results.value, m.workspace,
                                            m.workspace_bytes, m.saved, m.saved_bytes);
  }
};

struct LossForward : Loss {
  using Results = segprior_loss_outputs;
  static constexpr bool writes_saved = true;

  static segprior_status workspace_size(Call<LossForward> &c, size_t *bytes) {
    return segprior_loss_workspace_size(c.context, &c.options, &c.inputs.value, bytes, nullptr);
  }

  static segprior_status run(Call<LossForward> &c, Memory m) {
    return segprior_loss_forward(c.context, &c.options, &c.inputs.value, &c.results.value, m.workspace,
                                 m.workspace_bytes, m.saved, m.saved_bytes);
  }
};

struct LossBackward : Loss {
  using Cotangents = segprior_loss_cotangents;
  using Results = segprior_loss_grads;
  static constexpr bool writes_saved = false;

  static segprior_status workspace_size(Call<LossBackward> &c, size_t *bytes) {
    return segprior_loss_workspace_size(c.context, &c.options, &c.inputs.value, nullptr, bytes);
  }

  static segprior_status run(Call<LossBackward> &c, Memory m) {
    return segprior_loss_backward(c.context, &c.options, &c.inputs.value, &c.cotangents.value,
                                  &c.results.value, m.workspace, m.workspace_bytes, m.saved, m.saved_bytes);
  }
};

using Bytes = ffi::Span<const uint8_t>;
using Integers = ffi::Span<const int32_t>;

template <class Op>
ffi::Error on_cpu(ffi::RemainingArgs args, ffi::RemainingRets rets, Bytes options, Integers star_classes,
                  Integers arguments, Integers results) {
  return run<Op>({SEGPRIOR_CPU, 0}, nullptr, Scratch(nullptr), args, rets,
                 {options, star_classes, arguments, results});
}

template <class Op>
ffi::Error on_cuda(void *stream, int32_t ordinal, ffi::ScratchAllocator scratch, ffi::RemainingArgs args,
                   ffi::RemainingRets rets, Bytes options, Integers star_classes, Integers arguments,
                   Integers results) {
  return run<Op>({SEGPRIOR_CUDA, ordinal}, stream, Scratch(&scratch), args, rets,
                 {options, star_classes, arguments, results});
}

template <class Binding>
auto with_buffers(Binding &&binding) {
  return std::move(binding)
      .RemainingArgs()
      .RemainingRets()
      .template Attr<Bytes>("options")
      .template Attr<Integers>("star_classes")
      .template Attr<Integers>("arguments")
      .template Attr<Integers>("results");
}

auto cpu_binding() { return with_buffers(ffi::Ffi::Bind()); }

auto cuda_binding() {
  return with_buffers(ffi::Ffi::Bind()
                          .Ctx<ffi::PlatformStream<void *>>()
                          .Ctx<ffi::DeviceOrdinal>()
                          .Ctx<ffi::ScratchAllocator>());
}

}  // namespace

// The two exported symbols of a call; XLA's macro leaves them hidden.
#define SEGPRIOR_JAX_HANDLERS(call, Op)                                            \
  extern "C" __attribute__((visibility("default")))                                \
  XLA_FFI_Error *segprior_##call##_cpu(XLA_FFI_CallFrame *);                       \
  extern "C" __attribute__((visibility("default")))                                \
  XLA_FFI_Error *segprior_##call##_cuda(XLA_FFI_CallFrame *);                      \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(segprior_##call##_cpu, on_cpu<Op>, cpu_binding()); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(segprior_##call##_cuda, on_cuda<Op>, cuda_binding())

SEGPRIOR_JAX_HANDLERS(softmax_forward, SoftmaxForward);
SEGPRIOR_JAX_HANDLERS(softmax_backward, SoftmaxBackward);
SEGPRIOR_JAX_HANDLERS(softcut_forward, SoftcutForward);
SEGPRIOR_JAX_HANDLERS(softcut_backward, SoftcutBackward);
SEGPRIOR_JAX_HANDLERS(softcut_double_backward, SoftcutDoubleBackward);
SEGPRIOR_JAX_HANDLERS(loss_forward, LossForward);
SEGPRIOR_JAX_HANDLERS(loss_backward, LossBackward);

}  // namespace segprior::jax
