// What the host API keeps: per thread the pending error, per process memory and streams.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "fakecuda/control.h"

namespace fakecuda {

// First line of every API function: the sticky error, if any.
cudaError_t entry();

// Remembers an error for cudaGetLastError and returns it.
cudaError_t failed(cudaError_t error);

// Breaches of the running Forbid.
void violation(const std::string &what);
void uses_stream(const char *call, cudaStream_t stream);
bool forbidden();

bool valid_stream(cudaStream_t stream);

// The tracked allocation that holds `pointer`. `room`: bytes from it to the end.
struct Allocation {
  cudaMemoryType type = cudaMemoryTypeUnregistered;
  size_t room = 0;
};
Allocation find_allocation(const void *pointer);

}  // namespace fakecuda

#define FAKECUDA_ENTRY()                                             \
  do {                                                               \
    if (const cudaError_t sticky = fakecuda::entry()) return sticky; \
  } while (false)
