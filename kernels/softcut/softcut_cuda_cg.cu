// Conjugate gradients without or with the diagonal as preconditioner: softcut_cuda_cg.h.
#include "kernels/softcut/softcut_cuda_cg.h"

namespace segprior::softcut::cuda {

namespace {

template <class T, Shape shape>
__global__ void __launch_bounds__(kBlock) persistent_kernel(Cg<T> cg) {
  PersistentExecutor exec(cg.frame.remaining);
  iterate<shape>(exec, cg, NoCycle());
}

}  // namespace

template <class T>
Cg<T> carve_cg(const Operator<T> &a, const Solve<T> &solve, Solver solver, Arena &arena) {
  const int64_t systems = a.systems(), chunks = chunks_of(a.voxels).count;
  const bool cycle = solver == Solver::multigrid;
  Cg<T> cg{};
  cg.frame = carve_frame(a, solve, arena);
  for (CgState *&state : cg.state) state = arena.take<CgState>(systems);
  cg.rz = arena.take<double>(systems, chunks);
  cg.pq = arena.take<double>(systems, chunks);
  for (T **vector : {&cg.r, &cg.q, &cg.p[0], &cg.p[1]}) *vector = arena.take<T>(systems, a.voxels);
  cg.inverse_diagonal = arena.take<T>(solver == Solver::jacobi ? a.matrices : 0, a.voxels);
  cg.z = arena.take<T>(cycle ? systems : 0, a.voxels);
  cg.active = arena.take<int32_t>(cycle ? systems : 0);
  cg.scale = arena.take<double>(cycle ? systems : 0);
  return cg;
}

template <class T>
void run_cg(const Grid &grid, Path path, const Cg<T> &cg, cudaStream_t stream) {
  const int64_t tiles = tiles_of(cg.frame.a);
  with_shape(grid, [&](auto shape) {
    StreamingExecutor start(nullptr, stream);
    start.run(Begin<T, shape.value>{tiles, cg});
    if (path == Path::persistent) {
      const auto kernel = persistent_kernel<T, shape.value>;
      const int64_t blocks = std::min<int64_t>(tiles, cooperative_blocks(kernel, kBlock, 0));
      launch_cooperative("softcut_cg_persistent", kernel, dim3(static_cast<unsigned>(blocks)), dim3(kBlock),
                         0, stream, cg);
    } else {
      StreamingExecutor exec(cg.frame.remaining, stream);
      iterate<shape.value>(exec, cg, NoCycle());
    }
  });
}

template <class T>
int cg_blocks(const Grid &grid) {
  int blocks = 0;
  with_shape(grid, [&](auto shape) {
    blocks = cooperative_blocks(persistent_kernel<T, decltype(shape)::value>, kBlock, 0);
  });
  return blocks;
}

template Cg<float> carve_cg<float>(const Operator<float> &, const Solve<float> &, Solver, Arena &);
template Cg<double> carve_cg<double>(const Operator<double> &, const Solve<double> &, Solver, Arena &);
template void run_cg<float>(const Grid &, Path, const Cg<float> &, cudaStream_t);
template void run_cg<double>(const Grid &, Path, const Cg<double> &, cudaStream_t);
template int cg_blocks<float>(const Grid &);
template int cg_blocks<double>(const Grid &);

}  // namespace segprior::softcut::cuda
