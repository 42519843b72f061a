// The seam's implementation in plain C++, of the CPU backend.
#pragma once

#include <memory>

#include "kernels/csr/csr_solve.h"

namespace segprior::csr {

// Once factored, its other functions may be called by several threads at once.
template <class T>
std::unique_ptr<Library<T>> make_host_library(const Matrix<T> &);

}  // namespace segprior::csr
