// Stand-in for the part of CUDA's cooperative_groups.h that the project uses: the grid of a cooperative
// launch and the cluster of a cluster launch. The trailing parameters of sync() are never given: they hold
// the caller's place.
#pragma once

#include <cuda_runtime.h>

namespace cooperative_groups {

class grid_group {
 public:
  static void sync(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    fakecuda::grid_barrier({"grid barrier", file, line});
  }
};
inline grid_group this_grid() { return {}; }

class cluster_group {
 public:
  static void sync(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    fakecuda::cluster_barrier({"cluster barrier", file, line});
  }
  static unsigned block_rank() { return fakecuda::cluster_rank(); }
  static unsigned num_blocks() { return fakecuda::cluster_blocks(); }
  // A pointer into the caller's shared memory, static or dynamic, to the same place in block `rank`'s.
  template <class T>
  static T *map_shared_rank(T *mine, int rank) {
    return static_cast<T *>(const_cast<void *>(fakecuda::cluster_shared(mine, rank)));
  }
};
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
