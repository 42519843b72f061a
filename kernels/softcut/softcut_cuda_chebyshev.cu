// Chebyshev iteration: softcut_cuda_chebyshev.h.
#include "kernels/softcut/softcut_cuda_chebyshev.h"

namespace segprior::softcut::cuda {

namespace {

template <class T, Shape shape>
__global__ void __launch_bounds__(kBlock) steps_kernel(Chebyshev<T> c) {
  PersistentExecutor exec(c.cg.frame.remaining);
  iterate_steps<shape>(exec, c);
}

__global__ void __launch_bounds__(kBlock, 2) passes_kernel(Chebyshev<float> c) {
  PersistentExecutor exec(c.cg.frame.remaining);
  iterate_passes(exec, c);
}

// Calls f(kernel, streaming): the persistent kernel that serves a grid, and what it does as a function of an
// executor.
template <class T, class F>
void with_kernel(const Grid &grid, F &&f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (takes_passes<T>(grid))
      return f(&passes_kernel, [](auto &exec, const auto &c) { iterate_passes(exec, c); });
  }
  with_shape(grid, [&](auto shape) {
    f(&steps_kernel<T, shape.value>,
      [](auto &exec, const auto &c) { iterate_steps<decltype(shape)::value>(exec, c); });
  });
}

}  // namespace

template <class T>
Chebyshev<T> carve_chebyshev(const Grid &grid, const Operator<T> &a, const Solve<T> &solve, Arena &arena) {
  const int64_t systems = a.systems(), chunks = chunks_of(a.voxels).count;
  Chebyshev<T> c{};
  c.cg.frame = carve_frame(a, solve, arena);
  for (CgState *&state : c.cg.state) state = arena.take<CgState>(systems);
  c.cg.rz = arena.take<double>(systems, chunks);
  c.cg.inverse_diagonal = arena.take<T>(a.matrices, a.voxels);
  c.mu_partials = arena.take<double>(a.matrices, chunks);
  c.mu = arena.take<double>(a.matrices);
  c.now[0] = solve.x;
  c.now[1] = c.cg.r = arena.take<T>(systems, a.voxels);  // r of the start is not needed
  for (T *&before : c.before) before = arena.take<T>(takes_passes<T>(grid) ? systems : 0, a.voxels);
  return c;
}

template <class T>
void run_chebyshev(const Grid &grid, Path path, const Chebyshev<T> &c, cudaStream_t stream) {
  const Operator<T> &a = c.cg.frame.a;
  const int64_t tiles = tiles_of(a);
  StreamingExecutor outside(nullptr, stream);
  with_shape(grid, [&](auto shape) { outside.run(Begin<T, shape.value>{tiles, c.cg}); });
  outside.run(SpectrumPartials<T>{a.matrices * chunks_of(a.voxels).count, c});
  outside.run(Spectrum<T>{a.matrices, c});
  with_kernel<T>(grid, [&](auto kernel, auto iterate) {
    if (path == Path::persistent) {
      const int64_t blocks = std::min<int64_t>(tiles, cooperative_blocks(kernel, kBlock, 0));
      launch_cooperative("softcut_chebyshev_persistent", kernel, dim3(static_cast<unsigned>(blocks)),
                         dim3(kBlock), 0, stream, c);
    } else {
      StreamingExecutor exec(c.cg.frame.remaining, stream);
      iterate(exec, c);
    }
  });
  outside.run(Collect<T>{tiles, c, takes_passes<T>(grid) ? kSteps : 1});
}

template <class T>
int chebyshev_blocks(const Grid &grid) {
  int blocks = 0;
  with_kernel<T>(grid, [&](auto kernel, auto) { blocks = cooperative_blocks(kernel, kBlock, 0); });
  return blocks;
}

template Chebyshev<float> carve_chebyshev<float>(const Grid &, const Operator<float> &, const Solve<float> &,
                                                 Arena &);
template Chebyshev<double> carve_chebyshev<double>(const Grid &, const Operator<double> &,
                                                   const Solve<double> &, Arena &);
template void run_chebyshev<float>(const Grid &, Path, const Chebyshev<float> &, cudaStream_t);
template void run_chebyshev<double>(const Grid &, Path, const Chebyshev<double> &, cudaStream_t);
template int chebyshev_blocks<float>(const Grid &);
template int chebyshev_blocks<double>(const Grid &);

}  // namespace segprior::softcut::cuda
