// One pass over the voxels each: softcut_cuda_grads.h.
#include "kernels/softcut/softcut_cuda_grads.h"

#include "kernels/softcut/softcut_cuda_check.h"

namespace segprior::softcut::cuda {

namespace {

// A thread sums over the classes, so that every gradient is written once.
template <class T, Shape shape>
struct MatrixGradsPhase {
  int64_t tiles;  // matrices * chunks
  Operator<T> a;
  MatrixGrads<T> g;
  static constexpr const char *kName = "softcut_matrix_grads";

  __device__ void operator()(int64_t tile) const {
    using Families = Neighbourhood<shape>;
    const Chunks chunks = chunks_of(a.voxels);
    const int64_t matrix = quotient(tile, chunks.count), begin = (tile - matrix * chunks.count) * chunks.size;
    for (Walk walk(a, begin, begin + chunks.size); walk.inside(); walk.next()) {
      const Site &s = walk.site();
      T sums[Families::kCount] = {}, own = 0;
      int64_t neighbour[Families::kCount];
#pragma unroll
      for (int i = 0; i < Families::kCount; ++i) {
        const int f = Families::family(i);
        neighbour[i] = has_ahead(a, f, s) ? s.v + stride_of(a, f) : s.v;
      }
#pragma unroll 1
      for (int64_t r = 0; r < a.rhs; ++r)
        for (int pair = 0; pair < 2; ++pair) {
          if (pair == 1 && !g.left[1]) continue;
          const int64_t base = (matrix * a.rhs + r) * a.voxels;
          const T *left = (pair == 0 ? g.left[0] : g.left[1]) + base;
          const T *right = (pair == 0 ? g.right[0] : g.right[1]) + base;
          const T l = left[s.v], x = right[s.v];
          own -= l * x;
#pragma unroll
          for (int i = 0; i < Families::kCount; ++i)
            sums[i] -= (l - left[neighbour[i]]) * (x - right[neighbour[i]]);
        }
      const auto store = [&](T *to, int64_t at, T value) { to[at] = g.accumulate ? to[at] + value : value; };
      if (g.conductance) store(g.conductance, matrix * a.voxels + s.v, own);
#pragma unroll
      for (int i = 0; i < Families::kCount; ++i) {
        const int f = Families::family(i);
        if (g.edges[f] && has_ahead(a, f, s))
          store(g.edges[f], matrix * a.edge_count[f] + edge_ahead(a, f, s), sums[i]);
      }
    }
  }
};

template <class T>
struct Add {
  int64_t tiles;
  T *sum;
  const T *values;
  int64_t count;
  static constexpr const char *kName = "softcut_add";

  __device__ void operator()(int64_t tile) const {
    const int64_t i = tile * kBlock + threadIdx.x;
    if (i < count) sum[i] += values[i];
  }
};

template <class T, Shape shape>
struct CotangentRhsPhase {
  int64_t tiles;
  Operator<T> a;
  CotangentRhs<T> c;
  static constexpr const char *kName = "softcut_cotangent_rhs";

  __device__ void operator()(int64_t index) const {
    using Families = Neighbourhood<shape>;
    const SystemTile tile(a, index);
    for (Walk walk(a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const Site &s = walk.site();
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        const int64_t base = (tile.system + i) * a.voxels;
        const T *x = c.x + base, own = x[s.v];
        T sum = c.conductance ? c.conductance[tile.matrix * a.voxels + s.v] * own : T(0);
#pragma unroll
        for (int k = 0; k < Families::kCount; ++k) {
          const int f = Families::family(k);
          if (!c.edges[f]) continue;
          const T *edges = c.edges[f] + tile.matrix * a.edge_count[f];
          if (has_ahead(a, f, s)) sum += edges[edge_ahead(a, f, s)] * (own - x[s.v + stride_of(a, f)]);
          if (has_behind(a, f, s)) sum += edges[edge_behind(a, f, s)] * (own - x[s.v - stride_of(a, f)]);
        }
        c.out[base + s.v] = c.constant ? c.constant[base + s.v] - sum : -sum;
      }
    }
  }
};

template <class T>
struct ZeroSolution {
  int64_t tiles;  // systems * chunks
  int64_t voxels;
  const int32_t *earlier;
  T *x;
  segprior_info *info;
  static constexpr const char *kName = "softcut_zero_solution";

  __device__ void operator()(int64_t tile) const {
    const Chunks chunks = chunks_of(voxels);
    const int64_t system = quotient(tile, chunks.count), begin = (tile - system * chunks.count) * chunks.size;
    const int64_t end = begin + chunks.size < voxels ? begin + chunks.size : voxels;
    const int32_t status = is_failure(earlier[system]) ? earlier[system] : SEGPRIOR_CONVERGED;
    const double value = status == SEGPRIOR_CONVERGED ? 0 : NAN;
    for (int64_t v = begin + threadIdx.x; v < end; v += kBlock)
      x[system * voxels + v] = static_cast<T>(value);
    if (info && begin == 0 && threadIdx.x == 0) info[system] = {status, 0, value};
  }
};

}  // namespace

template <class T>
void matrix_grads(const Grid &grid, const Operator<T> &a, const MatrixGrads<T> &g, cudaStream_t stream) {
  bool wanted = g.conductance != nullptr;
  for (const T *edges : g.edges) wanted = wanted || edges;
  if (!wanted) return;
  with_shape(grid, [&](auto shape) {
    StreamingExecutor(nullptr, stream)
        .run(MatrixGradsPhase<T, shape.value>{a.matrices * chunks_of(a.voxels).count, a, g});
  });
}

template <class T>
void add(T *sum, const T *values, int64_t count, cudaStream_t stream) {
  StreamingExecutor(nullptr, stream).run(Add<T>{ceil_div(count, kBlock), sum, values, count});
}

template <class T>
void cotangent_rhs(const Grid &grid, const Operator<T> &a, const CotangentRhs<T> &c, cudaStream_t stream) {
  with_shape(grid, [&](auto shape) {
    StreamingExecutor(nullptr, stream).run(CotangentRhsPhase<T, shape.value>{tiles_of(a), a, c});
  });
}

template <class T>
void zero_solution(const Operator<T> &a, const int32_t *earlier, T *x, segprior_info *info,
                   cudaStream_t stream) {
  StreamingExecutor(nullptr, stream)
      .run(ZeroSolution<T>{a.systems() * chunks_of(a.voxels).count, a.voxels, earlier, x, info});
}

template void matrix_grads<float>(const Grid &, const Operator<float> &, const MatrixGrads<float> &,
                                  cudaStream_t);
template void matrix_grads<double>(const Grid &, const Operator<double> &, const MatrixGrads<double> &,
                                   cudaStream_t);
template void add<float>(float *, const float *, int64_t, cudaStream_t);
template void add<double>(double *, const double *, int64_t, cudaStream_t);
template void cotangent_rhs<float>(const Grid &, const Operator<float> &, const CotangentRhs<float> &,
                                   cudaStream_t);
template void cotangent_rhs<double>(const Grid &, const Operator<double> &, const CotangentRhs<double> &,
                                    cudaStream_t);
template void zero_solution<float>(const Operator<float> &, const int32_t *, float *, segprior_info *,
                                   cudaStream_t);
template void zero_solution<double>(const Operator<double> &, const int32_t *, double *, segprior_info *,
                                    cudaStream_t);

}  // namespace segprior::softcut::cuda
