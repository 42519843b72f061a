// Conjugate gradients with a V-cycle as preconditioner: softcut_cuda_cg.h, softcut_cuda_multigrid_cycle.h.
#include "kernels/softcut/softcut_cuda_cg.h"
#include "kernels/softcut/softcut_cuda_multigrid_cycle.h"

namespace segprior::softcut::cuda {

namespace {

// Cycles work along axes of more than one voxel alone.
template <class T, int ND>
struct Cycle {
  const Cg<T> &cg;
  const Hierarchy &hierarchy;

  SEGPRIOR_FOR_EITHER_SIDE
  template <class Exec>
  SEGPRIOR_HD void operator()(Exec &exec) const {
    const Operator<T> &a = cg.frame.a;
    const CycleArgs<T> args{a.matrices, a.rhs, cg.active, cg.scale, cg.r, cg.z, cg.rz};
    v_cycle<ND>(exec, a, hierarchy, args);
  }
};

template <class T, Shape shape, int ND>
__global__ void __launch_bounds__(kBlock) persistent_kernel(Cg<T> cg, Hierarchy hierarchy) {
  PersistentExecutor exec(cg.frame.remaining);
  iterate<shape>(exec, cg, Cycle<T, ND>{cg, hierarchy});
}

// Calls f(shape, dimension) for what can occur: diagonals are there in planes alone, and an axis of extent 1
// takes a dimension off.
template <class F>
void with_kind(const Grid &grid, int nd, F &&f) {
  with_shape(grid, [&](auto shape) {
    constexpr int kMost = shape.value == Shape::space ? 3 : 2;
    if (nd == 1) return f(shape, std::integral_constant<int, 1>());
    if (nd == 2 || kMost == 2) return f(shape, std::integral_constant<int, 2>());
    f(shape, std::integral_constant<int, kMost>());
  });
}

int dimensions_of(const Grid &grid) {
  int nd = 0;
  for (const int64_t extent : grid.extent) nd += extent > 1;
  return nd > 0 ? nd : 1;
}

}  // namespace

template <class T>
void run_cg_multigrid(const Grid &grid, Path path, const Cg<T> &cg, const Hierarchy &hierarchy,
                      cudaStream_t stream) {
  const int64_t tiles = tiles_of(cg.frame.a);
  with_kind(grid, dimensions_of(grid), [&](auto shape, auto nd) {
    StreamingExecutor start(nullptr, stream);
    start.run(Begin<T, shape.value>{tiles, cg});
    if (path == Path::persistent) {
      const auto kernel = persistent_kernel<T, shape.value, nd.value>;
      const int blocks = cooperative_blocks(kernel, kBlock, 0);
      launch_cooperative("softcut_multigrid_persistent", kernel, dim3(static_cast<unsigned>(blocks)),
                         dim3(kBlock), 0, stream, cg, hierarchy);
    } else {
      StreamingExecutor exec(cg.frame.remaining, stream);
      iterate<shape.value>(exec, cg, Cycle<T, nd.value>{cg, hierarchy});
    }
  });
}

template <class T>
int cg_multigrid_blocks(const Grid &grid) {
  int blocks = 0;
  with_kind(grid, dimensions_of(grid), [&](auto shape, auto nd) {
    blocks = cooperative_blocks(persistent_kernel<T, decltype(shape)::value, decltype(nd)::value>, kBlock, 0);
  });
  return blocks;
}

template void run_cg_multigrid<float>(const Grid &, Path, const Cg<float> &, const Hierarchy &, cudaStream_t);
template void run_cg_multigrid<double>(const Grid &, Path, const Cg<double> &, const Hierarchy &,
                                       cudaStream_t);
template int cg_multigrid_blocks<float>(const Grid &);
template int cg_multigrid_blocks<double>(const Grid &);

}  // namespace segprior::softcut::cuda
