// What the CUDA backend of the CSR solve is made of: device memory, and the seam to the device's libraries.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "kernels/common/cuda.h"
#include "kernels/csr/csr_solve.h"

namespace segprior::csr {

struct FreeDevice {
  void operator()(void *memory) const { cudaFree(memory); }
};
template <class T>
using DeviceArray = std::unique_ptr<T[], FreeDevice>;

template <class T>
DeviceArray<T> device_array(size_t count) {
  void *memory = nullptr;
  check(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
  return DeviceArray<T>(static_cast<T *>(memory));
}

// csr_cusparse.cpp; in the test programs over the fake CUDA runtime, tests/support/fake_csr_library.cpp.
// Throws SEGPRIOR_ERROR_NOT_SUPPORTED naming what is missing.
template <class T>
std::unique_ptr<Library<T>> make_device_library(const Matrix<T> &, cudaStream_t);

}  // namespace segprior::csr
