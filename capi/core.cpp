// include/segprior/core.h: version, errors, context, DLPack, info.
#include "segprior/core.h"

#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <cstring>
#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/tensor.h"

namespace segprior {
namespace {
// A fixed buffer: reporting an error must not fail for want of memory.
thread_local char last_error[1024] = "";
}  // namespace

segprior_status fail(segprior_status status, const char *text) noexcept {
  std::strncpy(last_error, text, sizeof last_error - 1);
  return status;
}

Use::Use(segprior_context *context) : context_(context) {
  if (!context) reject(SEGPRIOR_ERROR_NULL_POINTER, "context is NULL");
  if (context->in_use.test_and_set(std::memory_order_acquire))
    reject(SEGPRIOR_ERROR_BUSY, "context is in use by another thread; create one context for each thread");
}

Use::~Use() { context_->in_use.clear(std::memory_order_release); }

}  // namespace segprior

using namespace segprior;

namespace {

// A forked child inherits OpenMP's pool without its threads and would wait for them for ever: it computes
// alone.
std::atomic<bool> pool_used{false}, pool_lost{false};

void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool_lost = pool_used.load(); });
  (void)registered;
}

}  // namespace

int segprior_context::cpu_threads() const {
  if (pool_lost) return 1;
  const int wanted = threads > 0 ? threads : omp_get_max_threads();
  if (wanted > 1 && !pool_used) {
    watch_forks();
    pool_used = true;
  }
  return wanted;
}

int32_t segprior_version(void) {
  return SEGPRIOR_VERSION_MAJOR * 10000 + SEGPRIOR_VERSION_MINOR * 100 + SEGPRIOR_VERSION_PATCH;
}

int32_t segprior_has_cuda(void) {
#if defined(SEGPRIOR_WITH_CUDA)
  return 1;
#else
  return 0;
#endif
}

const char *segprior_status_string(segprior_status status) {
  switch (status) {
    case SEGPRIOR_OK:
      return "success";
    case SEGPRIOR_ERROR_NULL_POINTER:
      return "a required pointer is NULL";
    case SEGPRIOR_ERROR_VALUE:
      return "a value is outside its range";
    case SEGPRIOR_ERROR_DTYPE:
      return "a tensor's dtype is not allowed";
    case SEGPRIOR_ERROR_SHAPE:
      return "a tensor's shape does not fit";
    case SEGPRIOR_ERROR_STRIDES:
      return "a tensor is not C-contiguous";
    case SEGPRIOR_ERROR_DEVICE:
      return "memory is not on the context's device";
    case SEGPRIOR_ERROR_OVERLAP:
      return "an output overlaps another argument";
    case SEGPRIOR_ERROR_BUFFER_TOO_SMALL:
      return "a buffer is too small";
    case SEGPRIOR_ERROR_SIZE_OVERFLOW:
      return "a size overflows";
    case SEGPRIOR_ERROR_OPTIONS:
      return "an options struct is malformed";
    case SEGPRIOR_ERROR_ALIGNMENT:
      return "a pointer is misaligned";
    case SEGPRIOR_ERROR_BUSY:
      return "the context is in use by another thread";
    case SEGPRIOR_ERROR_NOT_SUPPORTED:
      return "not supported by this version";
    case SEGPRIOR_ERROR_OUT_OF_MEMORY:
      return "out of memory";
    case SEGPRIOR_ERROR_NO_DEVICE:
      return "no such device";
    case SEGPRIOR_ERROR_CUDA:
      return "CUDA reported an error";
    case SEGPRIOR_ERROR_INTERNAL:
      return "internal error";
    default:
      return "unknown status code";
  }
}

const char *segprior_last_error(void) { return last_error; }

int32_t segprior_device_count(int32_t device_type) { return device_count(device_type); }

segprior_status segprior_context_create(segprior_device device, segprior_context **out) {
  return guard([&] {
    if (!out) reject(SEGPRIOR_ERROR_NULL_POINTER, "out is NULL");
    *out = nullptr;
    if (device.type != SEGPRIOR_CPU && device.type != SEGPRIOR_CUDA)
      reject(SEGPRIOR_ERROR_VALUE, "device.type = " + std::to_string(device.type) +
                                       " must be SEGPRIOR_CPU (1) or SEGPRIOR_CUDA (2)");
    const int count = device_count(device.type);
    if (device.index < 0 || device.index >= count) {
      std::string why = device.type == SEGPRIOR_CPU ? "" : segprior_has_cuda() ? "" : " (built without CUDA)";
      reject(SEGPRIOR_ERROR_NO_DEVICE,
             "device.index = " + std::to_string(device.index) + " but there are " + std::to_string(count) +
                 (device.type == SEGPRIOR_CPU ? " CPU" : " CUDA") + " devices" + why);
    }
    *out = new segprior_context{device};
  });
}

void segprior_context_destroy(segprior_context *context) { delete context; }

segprior_status segprior_context_set_stream(segprior_context *context, void *stream) {
  return guard([&] {
    const Use use(context);
    if (context->device.type == SEGPRIOR_CPU && stream)
      reject(SEGPRIOR_ERROR_VALUE, "stream must be NULL on a CPU context");
    context->stream = stream;
  });
}

segprior_status segprior_context_set_threads(segprior_context *context, int32_t threads) {
  return guard([&] {
    const Use use(context);
    if (threads < 0 || threads > 4096)
      reject(SEGPRIOR_ERROR_VALUE, "threads = " + std::to_string(threads) + " must be 0 (default) to 4096");
    context->threads = threads;
  });
}

segprior_status segprior_info_read_sync(segprior_context *context, const segprior_info *info, int64_t count,
                                        segprior_info *host) {
  return guard([&] {
    const Use use(context);
    if (count < 0) reject(SEGPRIOR_ERROR_VALUE, "count = " + std::to_string(count) + " must be >= 0");
    if (count == 0) return;
    if (!info) reject(SEGPRIOR_ERROR_NULL_POINTER, "info is NULL");
    if (!host) reject(SEGPRIOR_ERROR_NULL_POINTER, "host is NULL");
    const DeviceScope scope(context->device);
    if (!lives_on(info, context->device))
      reject(SEGPRIOR_ERROR_DEVICE, "info is not memory of the context's device");
    read_sync(context->device, context->stream, info, static_cast<size_t>(count) * sizeof *info, host);
  });
}

namespace {

// DLPack's DLTensor, whose layout is a stable ABI of its own.
struct DlTensor {
  void *data;
  segprior_device device;
  int32_t ndim;
  uint8_t type_code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

}  // namespace

segprior_status segprior_tensor_from_dlpack(const void *dl_tensor, segprior_tensor *out) {
  return guard([&] {
    if (!dl_tensor) reject(SEGPRIOR_ERROR_NULL_POINTER, "dl_tensor is NULL");
    if (!out) reject(SEGPRIOR_ERROR_NULL_POINTER, "out is NULL");
    const DlTensor &dl = *static_cast<const DlTensor *>(dl_tensor);
    constexpr int kCudaHost = 3, kCudaManaged = 13, kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4,
                  kBool = 6;
    segprior_tensor tensor{dl.data, dl.device, 0, dl.ndim, dl.shape, dl.strides, dl.byte_offset};
    if (dl.device.type == kCudaHost || dl.device.type == SEGPRIOR_CPU) tensor.device = {SEGPRIOR_CPU, 0};
    if (dl.device.type == kCudaManaged) tensor.device.type = SEGPRIOR_CUDA;
    if (tensor.device.type != SEGPRIOR_CPU && tensor.device.type != SEGPRIOR_CUDA)
      reject(SEGPRIOR_ERROR_DEVICE,
             "dl_tensor: device type " + std::to_string(dl.device.type) + " is neither CPU nor CUDA memory");
    const struct {
      int code, bits, dtype;
    } known[] = {{kFloat, 32, SEGPRIOR_FLOAT32}, {kFloat, 64, SEGPRIOR_FLOAT64},
                 {kFloat, 16, SEGPRIOR_FLOAT16}, {kBfloat, 16, SEGPRIOR_BFLOAT16},
                 {kUnsigned, 8, SEGPRIOR_UINT8}, {kBool, 8, SEGPRIOR_UINT8},
                 {kInt, 32, SEGPRIOR_INT32},     {kInt, 64, SEGPRIOR_INT64}};
    for (const auto &type : known)
      if (dl.type_code == type.code && dl.bits == type.bits && dl.lanes == 1) tensor.dtype = type.dtype;
    if (tensor.dtype == 0)
      reject(SEGPRIOR_ERROR_DTYPE,
             "dl_tensor: type code " + std::to_string(dl.type_code) + ", " + std::to_string(dl.bits) +
                 " bits, " + std::to_string(dl.lanes) +
                 " lanes; need float16, bfloat16, float32, float64, uint8, bool, int32 or int64");
    *out = tensor;
  });
}
