// From run-time properties of a problem to the instantiation of a pass over the voxels.
#pragma once

#include <type_traits>

#include "kernels/losses/losses_cuda.h"

namespace segprior::losses::cuda {

// Calls run(T(), classes per thread as an integral constant).
template <class Run>
void dispatch(const Problem &p, const Grid &grid, const Run &run) {
  const auto with = [&](auto real) {
    switch (grid.thread_classes) {
      case 1:
        return run(real, std::integral_constant<int, 1>());
      case 2:
        return run(real, std::integral_constant<int, 2>());
      case 3:
        return run(real, std::integral_constant<int, 3>());
      case 4:
        return run(real, std::integral_constant<int, 4>());
      default:
        return run(real, std::integral_constant<int, kManyClasses>());
    }
  };
  p.storage == Storage::f64 ? with(double()) : with(float());
}

}  // namespace segprior::losses::cuda
