// The one place where exceptions become status codes: every extern "C" function that can fail is `return
// guard(...)`.
#pragma once

#include <new>

#include "kernels/common/error.h"
#include "segprior/core.h"

namespace segprior {

// Keeps `text` as the calling thread's last error; returns `status`.
segprior_status fail(segprior_status status, const char *text) noexcept;

template <class F>
segprior_status guard(const F &body) noexcept {
  try {
    body();
    return SEGPRIOR_OK;
  } catch (const Error &error) {
    return fail(error.status, error.what());
  } catch (const std::bad_alloc &) {
    return fail(SEGPRIOR_ERROR_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception &error) {
    return fail(SEGPRIOR_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(SEGPRIOR_ERROR_INTERNAL, "unknown exception");
  }
}

// A named range on the profiler's time line (Nsight); free when no profiler is attached.
class TraceRange {
 public:
  explicit TraceRange(const char *name);
  ~TraceRange();
  TraceRange(const TraceRange &) = delete;
};

// The same for a compute call: it shows up under `name` in a profile.
template <class F>
segprior_status guard(const char *name, const F &body) noexcept {
  return guard([&] {
    const TraceRange range(name);
    body();
  });
}

}  // namespace segprior
