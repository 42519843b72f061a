// The context behind segprior_context, and the guard against its use by two threads at once.
#pragma once

#include <atomic>

#include "kernels/common/error.h"
#include "segprior/core.h"

struct segprior_context {
  segprior_device device;
  void *stream = nullptr;
  int threads = 0;  // 0: OpenMP's default
  std::atomic_flag in_use = ATOMIC_FLAG_INIT;

  int cpu_threads() const;  // >= 1
};

namespace segprior {

// Held for the length of one call on a context.
class Use {
 public:
  explicit Use(segprior_context *context);
  ~Use();
  Use(const Use &) = delete;

 private:
  segprior_context *context_;
};

}  // namespace segprior
