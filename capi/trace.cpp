// Profiler ranges: NVTX, domain "segprior", where the CUDA toolkit's header-only NVTX is there; else nothing.
#include "capi/guard.h"

#if defined(SEGPRIOR_WITH_CUDA) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define SEGPRIOR_NVTX 1
#endif

namespace segprior {

#if defined(SEGPRIOR_NVTX)

namespace {
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t handle = nvtxDomainCreateA("segprior");
  return handle;
}
}  // namespace

TraceRange::TraceRange(const char *name) {
  nvtxEventAttributes_t event{};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.messageType = NVTX_MESSAGE_TYPE_ASCII;
  event.message.ascii = name;
  nvtxDomainRangePushEx(domain(), &event);
}

TraceRange::~TraceRange() { nvtxDomainRangePop(domain()); }

#else

TraceRange::TraceRange(const char *) {}
TraceRange::~TraceRange() = default;

#endif

}  // namespace segprior
