// The CSR solve's seam to cuSPARSE and cuBLAS, which the fake CUDA runtime does not have: its device memory
// is host memory and its streams work at once, so the CPU backend's operations do. Empty in other test
// programs.
#if defined(SEGPRIOR_WITH_CUDA)
#include "kernels/csr/csr_cuda.h"

#if defined(FAKECUDA)
#include "kernels/csr/csr_cpu.h"

namespace segprior::csr {

template <class T>
std::unique_ptr<Library<T>> make_device_library(const Matrix<T> &a, cudaStream_t) {
  return make_host_library(a);
}
template std::unique_ptr<Library<float>> make_device_library(const Matrix<float> &, cudaStream_t);
template std::unique_ptr<Library<double>> make_device_library(const Matrix<double> &, cudaStream_t);

}  // namespace segprior::csr

#endif
#endif
