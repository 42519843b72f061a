// What all handlers share: XLA's buffers become the structs of the C interface, statuses become XLA's errors.
//
// The structs of arguments and results consist of a size and then of pointers alone. So one number says where
// a buffer belongs: its group, and which pointer of the group's struct it is. Python (_kernels.py) takes
// these numbers from the same structs as ctypes has them, and the options as the bytes of their struct; the
// struct_size that both begin with tells versions apart.
#ifndef SEGPRIOR_JAX_CALL_H
#define SEGPRIOR_JAX_CALL_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "segprior/segprior.h"
#include "xla/ffi/api/ffi.h"

namespace segprior::jax {

namespace ffi = xla::ffi;

constexpr size_t kAlignment = 64;  // of workspaces and saved states, see core.h

// slot = kSlotsPerGroup * group + index.
constexpr int32_t kSlotsPerGroup = 64;
enum Group : int32_t {
  kStruct = 0,      // arguments: the inputs; results: the outputs or gradients
  kCotangents = 1,  // arguments: the struct of incoming gradients
  kInfo = 1,        // results: a pointer to segprior_info in the struct of group 0
  kLoose = 2,       // arguments that are parameters of the C function itself
  kSaved = 3
};

inline ffi::Error error_of(segprior_status status) {
  const char *text = segprior_last_error();
  const std::string message = *text != '\0' ? text : segprior_status_string(status);
  if (status == SEGPRIOR_ERROR_NOT_SUPPORTED) return ffi::Error(ffi::ErrorCode::kUnimplemented, message);
  if (status == SEGPRIOR_ERROR_OUT_OF_MEMORY) return ffi::Error(ffi::ErrorCode::kResourceExhausted, message);
  return status < 200 ? ffi::Error::InvalidArgument(message) : ffi::Error::Internal(message);
}

inline int32_t dtype_of(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F32:
      return SEGPRIOR_FLOAT32;
    case ffi::DataType::F64:
      return SEGPRIOR_FLOAT64;
    case ffi::DataType::F16:
      return SEGPRIOR_FLOAT16;
    case ffi::DataType::BF16:
      return SEGPRIOR_BFLOAT16;
    case ffi::DataType::PRED:
    case ffi::DataType::U8:
      return SEGPRIOR_UINT8;
    case ffi::DataType::S32:
      return SEGPRIOR_INT32;
    case ffi::DataType::S64:
      return SEGPRIOR_INT64;
    default:
      return 0;  // the library refuses it by name
  }
}

struct ContextDeleter {
  void operator()(segprior_context *context) const { segprior_context_destroy(context); }
};

// This thread's context on a device: XLA runs handlers on any thread of its pools. NULL: it cannot be made.
inline segprior_context *context_of(segprior_device device) {
  thread_local std::map<std::pair<int32_t, int32_t>, std::unique_ptr<segprior_context, ContextDeleter>>
      contexts;
  auto &found = contexts[{device.type, device.index}];
  if (found == nullptr) {
    segprior_context *made = nullptr;
    if (segprior_context_create(device, &made) != SEGPRIOR_OK) return nullptr;
    found.reset(made);
  }
  return found.get();
}

// An operator without a struct of incoming gradients.
struct NoStruct {
  size_t struct_size;
};

template <class Struct>
class Pointers {
  static_assert(sizeof(size_t) == sizeof(void *) && sizeof(Struct) % sizeof(void *) == 0);

 public:
  Struct value = [] {
    Struct made{};
    made.struct_size = sizeof(Struct);
    return made;
  }();

  bool set(int32_t index, const void *pointer) {
    const size_t offset = (size_t(index) + 1) * sizeof(void *);
    if (offset >= sizeof(Struct)) return false;
    std::memcpy(reinterpret_cast<char *>(&value) + offset, &pointer, sizeof pointer);
    return true;
  }
};

// The attributes of a call, as Python gives them.
struct Attributes {
  ffi::Span<const uint8_t> options;
  ffi::Span<const int32_t> star_classes, arguments, results;
};

struct Memory {
  void *workspace = nullptr;
  size_t workspace_bytes = 0;
  void *saved = nullptr;
  size_t saved_bytes = 0;
};

// Memory that lasts until the handler returns.
class Scratch {
 public:
  // CUDA: from XLA, which reuses it in the order of the stream. NULL: on the CPU XLA has none to give.
  explicit Scratch(ffi::ScratchAllocator *allocator) : allocator_(allocator) {}

  // NULL if `bytes` is 0 or memory is out.
  void *take(size_t bytes) {
    if (bytes == 0) return nullptr;
    if (allocator_ != nullptr) return allocator_->Allocate(bytes, kAlignment).value_or(nullptr);
    own_.emplace_back(::operator new(bytes, std::align_val_t(kAlignment), std::nothrow));
    return own_.back().get();
  }

 private:
  struct Deleter {
    void operator()(void *memory) const { ::operator delete(memory, std::align_val_t(kAlignment)); }
  };

  ffi::ScratchAllocator *allocator_;
  std::vector<std::unique_ptr<void, Deleter>> own_;
};

// The arguments of the C functions of an operator.
template <class Op>
struct Call {
  segprior_context *context = nullptr;
  typename Op::Options options{};
  Pointers<typename Op::Inputs> inputs;
  Pointers<typename Op::Cotangents> cotangents;
  Pointers<typename Op::Results> results;
  const segprior_tensor *loose[2] = {};
  void *saved = nullptr;  // XLA aligns arrays to 64 bytes at least, also where it moved them since forward
  size_t saved_bytes = 0;
  std::vector<segprior_tensor> tensors;

  ffi::Error read(segprior_device device, const ffi::RemainingArgs &args, const ffi::RemainingRets &rets,
                  const Attributes &attributes) {
    if (attributes.arguments.size() != args.size() || attributes.results.size() != rets.size())
      return ffi::Error::Internal(
          "segprior.jax and libsegprior_jax.so do not fit together: numbers of buffers");
    if (attributes.options.size() != sizeof options)
      return ffi::Error::Internal(
          "segprior.jax and libsegprior_jax.so do not fit together: size of the options");
    std::memcpy(&options, attributes.options.begin(), sizeof options);
    if constexpr (std::is_same_v<typename Op::Options, segprior_softmax_opts>)
      options.star_classes = attributes.star_classes.begin();
    tensors.reserve(args.size() + rets.size());  // their addresses are kept
    for (size_t k = 0; k < args.size(); k++) {
      const auto buffer = args.get<ffi::AnyBuffer>(k);
      if (buffer.has_error()) return buffer.error();
      if (!take_argument(device, *buffer, attributes.arguments.begin()[k])) return bad_slot();
    }
    for (size_t k = 0; k < rets.size(); k++) {
      auto buffer = rets.get<ffi::AnyBuffer>(k);
      if (buffer.has_error()) return buffer.error();
      if (!take_result(device, **buffer, attributes.results.begin()[k])) return bad_slot();
    }
    return ffi::Error::Success();
  }

 private:
  static ffi::Error bad_slot() {
    return ffi::Error::Internal("segprior.jax and libsegprior_jax.so do not fit together: a buffer's place");
  }

  const segprior_tensor *tensor(segprior_device device, const ffi::AnyBuffer &buffer) {
    const auto extents = buffer.dimensions();
    tensors.push_back({buffer.untyped_data(), device, dtype_of(buffer.element_type()),
                       int32_t(extents.size()), extents.begin(), nullptr, 0});
    return &tensors.back();
  }

  bool take_argument(segprior_device device, const ffi::AnyBuffer &buffer, int32_t slot) {
    const int32_t index = slot % kSlotsPerGroup;
    switch (slot / kSlotsPerGroup) {
      case kStruct:
        return inputs.set(index, tensor(device, buffer));
      case kCotangents:
        return cotangents.set(index, tensor(device, buffer));
      case kLoose:
        return index < 2 && (loose[index] = tensor(device, buffer)) != nullptr;
      case kSaved:
        return take_saved(buffer);
      default:
        return false;
    }
  }

  bool take_result(segprior_device device, const ffi::AnyBuffer &buffer, int32_t slot) {
    const int32_t index = slot % kSlotsPerGroup;
    switch (slot / kSlotsPerGroup) {
      case kStruct:
        return results.set(index, tensor(device, buffer));
      case kInfo:
        return results.set(index, buffer.untyped_data());
      case kSaved:
        return take_saved(buffer);
      default:
        return false;
    }
  }

  bool take_saved(const ffi::AnyBuffer &buffer) {
    saved = buffer.untyped_data(), saved_bytes = buffer.size_bytes();
    return true;
  }
};

template <class Op>
ffi::Error run(segprior_device device, void *stream, Scratch scratch, const ffi::RemainingArgs &args,
               const ffi::RemainingRets &rets, const Attributes &attributes) try {
  Call<Op> call;
  if (const ffi::Error error = call.read(device, args, rets, attributes); error.failure()) return error;
  call.context = context_of(device);
  if (call.context == nullptr) return error_of(SEGPRIOR_ERROR_NO_DEVICE);
  segprior_status status = segprior_context_set_stream(call.context, stream);
  if (status != SEGPRIOR_OK) return error_of(status);

  Memory memory;
  status = Op::workspace_size(call, &memory.workspace_bytes);
  // Without a derivative nobody asks for the state that SoftCut needs all the same.
  const bool needs_own_state = Op::writes_saved && call.saved == nullptr;
  if (status == SEGPRIOR_OK && needs_own_state)
    status = Op::saved_size(call.context, &call.options, &call.inputs.value, &memory.saved_bytes);
  if (status != SEGPRIOR_OK) return error_of(status);
  memory.workspace = scratch.take(memory.workspace_bytes);
  if (call.saved != nullptr) {
    memory.saved = call.saved, memory.saved_bytes = call.saved_bytes;
  } else {
    memory.saved = scratch.take(memory.saved_bytes);
  }
  if ((memory.workspace == nullptr && memory.workspace_bytes != 0) ||
      (memory.saved == nullptr && memory.saved_bytes != 0))
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "no memory for a workspace of " +
                          std::to_string(memory.workspace_bytes + memory.saved_bytes) + " bytes");
  status = Op::run(call, memory);
  return status == SEGPRIOR_OK ? ffi::Error::Success() : error_of(status);
} catch (const std::bad_alloc &) {  // nothing may be thrown across XLA's C interface
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for a call");
}

}  // namespace segprior::jax

#endif
