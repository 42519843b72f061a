// Streams and events. All work is done when its call returns, so there is nothing to wait for; what counts is
// who asks, on which stream.
#include <chrono>
#include <mutex>
#include <unordered_set>

#include "state.h"

struct CUstream_st {
  int unused;
};

struct CUevent_st {
  bool recorded;
  std::chrono::steady_clock::time_point time;
};

namespace fakecuda {
namespace {

std::mutex mutex;
std::unordered_set<cudaStream_t> &streams() {
  static auto *set = new std::unordered_set<cudaStream_t>;
  return *set;
}

}  // namespace

bool valid_stream(cudaStream_t stream) {
  if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return true;
  std::lock_guard<std::mutex> lock(mutex);
  return streams().count(stream) > 0;
}

size_t live_streams() {
  std::lock_guard<std::mutex> lock(mutex);
  return streams().size();
}

}  // namespace fakecuda

using namespace fakecuda;

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaStreamCreate allocates");
  *stream = new CUstream_st{};
  std::lock_guard<std::mutex> lock(mutex);
  streams().insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaStreamDestroy frees memory");
  std::lock_guard<std::mutex> lock(mutex);
  if (streams().erase(stream) == 0) return failed(cudaErrorInvalidResourceHandle);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  if (forbidden()) violation("cudaStreamSynchronize waits for the device");
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("cudaStreamQuery", stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("cudaStreamWaitEvent", stream);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaEventCreate allocates");
  *event = new CUevent_st{};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  FAKECUDA_ENTRY();
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  FAKECUDA_ENTRY();
  if (!valid_stream(stream)) return failed(cudaErrorInvalidResourceHandle);
  uses_stream("cudaEventRecord", stream);
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  FAKECUDA_ENTRY();
  if (forbidden()) violation("cudaEventSynchronize waits for the device");
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return entry(); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  FAKECUDA_ENTRY();
  if (!start->recorded || !end->recorded) return failed(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}
