// One matrix A = D + L(w) as its arrays, and where its edges are.
#pragma once

#include "kernels/common/host_device.h"
#include "kernels/softcut/softcut.h"

namespace segprior::softcut {

template <class T>
struct Matrix {
  const T *edges[kFamilies];  // null where the family is not there
  const T *conductance;       // null: 1
};

// Matrix number m of the problem.
template <class T>
Matrix<T> matrix_of(const Problem &p, int64_t m) {
  Matrix<T> a{};
  for (int f = 0; f < kFamilies; ++f)
    if (p.grid.has[f]) a.edges[f] = static_cast<const T *>(p.edges[f]) + m * p.grid.edge_count(f);
  if (p.has_conductance) a.conductance = static_cast<const T *>(p.conductance) + m * p.grid.voxels();
  return a;
}

}  // namespace segprior::softcut
