// Before and after the iterations: softcut_cuda_check.h.
#include "kernels/softcut/softcut_cuda_check.h"

namespace segprior::softcut::cuda {

namespace {

struct StartStatus {
  int64_t tiles;
  int64_t systems;
  const int32_t *earlier;  // null: none
  int32_t *status;
  static constexpr const char *kName = "softcut_start_status";

  __device__ void operator()(int64_t tile) const {
    const int64_t n = tile * kBlock + threadIdx.x;
    if (n < systems) status[n] = earlier && is_failure(earlier[n]) ? earlier[n] : 0;
  }
};

// Marks a status for each system of a matrix whose weights or conductance are outside their domain.
template <class T>
struct CheckMatrix {
  int64_t tiles;  // matrices * chunks
  Operator<T> a;
  int32_t *status;
  static constexpr const char *kName = "softcut_check_matrix";

  __device__ void operator()(int64_t tile) const {
    const Chunks chunks = chunks_of(a.voxels);
    const int64_t matrix = quotient(tile, chunks.count), begin = (tile - matrix * chunks.count) * chunks.size;
    bool bad = false;
    const auto scan = [&](const T *values, int64_t count, bool zero_allowed) {
      if (!values) return;
      const int64_t end = begin + chunks.size < count ? begin + chunks.size : count;
      for (int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
        const T value = values[matrix * count + i];
        // A NaN fails every comparison.
        bad |= !(zero_allowed ? value >= 0 : value > 0) || !isfinite(value);
      }
    };
    for (int f = 0; f < kFamilies; ++f) scan(a.edges[f], a.edge_count[f], true);
    scan(a.conductance, a.voxels, false);
    if (!__syncthreads_or(bad)) return;
    for (int64_t r = threadIdx.x; r < a.rhs; r += kBlock)
      atomicMax(&status[matrix * a.rhs + r], static_cast<int32_t>(SEGPRIOR_INVALID_PARAMETER));
  }
};

template <class T>
struct CheckVectors {
  int64_t tiles;  // systems * chunks
  int64_t voxels;
  const T *rhs, *init;
  int32_t *status;
  static constexpr const char *kName = "softcut_check_vectors";

  __device__ void operator()(int64_t tile) const {
    const Chunks chunks = chunks_of(voxels);
    const int64_t system = quotient(tile, chunks.count), begin = (tile - system * chunks.count) * chunks.size;
    const int64_t end = begin + chunks.size < voxels ? begin + chunks.size : voxels;
    bool bad = false;
    for (int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
      const int64_t at = system * voxels + i;
      bad |= !isfinite(rhs[at]) || (init && !isfinite(init[at]));
    }
    // An invalid matrix and an earlier failure are what is reported.
    if (__syncthreads_or(bad) && threadIdx.x == 0)
      atomicCAS(&status[system], 0, static_cast<int32_t>(SEGPRIOR_NONFINITE_INPUT));
  }
};

template <class T>
struct RhsNorms {
  int64_t tiles;
  Frame<T> frame;
  static constexpr const char *kName = "softcut_rhs_norms";

  __device__ void operator()(int64_t index) const {
    const SystemTile tile(frame.a, index);
    if (index == 0 && threadIdx.x == 0) *frame.remaining = 0;
    double norm[kGroup] = {}, absolute[kGroup] = {};
    const int64_t end = tile.end < frame.a.voxels ? tile.end : frame.a.voxels;
    for (int64_t v = tile.begin + threadIdx.x; v < end; v += kBlock) {
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        const double value = frame.rhs[(tile.system + i) * frame.a.voxels + v];
        add_to(norm, i, norm_term(frame.stop.norm, value));
        add_to(absolute, i, fabs(value));
      }
    }
    store_sums(tile, norm, frame.rhs_norm);
    store_sums(tile, absolute, frame.rhs_abs);
  }
};

template <class T, Shape shape>
struct TrueResidual {
  int64_t tiles;
  Frame<T> frame;
  static constexpr const char *kName = "softcut_true_residual";

  __device__ void operator()(int64_t index) const {
    const SystemTile tile(frame.a, index);
    double norm[kGroup] = {};
    for (Walk walk(frame.a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const Row<T, shape> row(frame.a, tile.matrix, walk.site());
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        const int64_t base = (tile.system + i) * frame.a.voxels;
        const T *x = frame.x + base;
        const T product = row.apply(x[walk.site().v], [&](int64_t at) { return x[at]; });
        const double residual = static_cast<double>(frame.rhs[base + walk.site().v] - product);
        add_to(norm, i, norm_term(frame.stop.norm, residual));
      }
    }
    store_sums(tile, norm, frame.norm);
  }
};

// The recurrence says when to stop, the residual of x what was reached.
template <class T>
struct Report {
  int64_t tiles;  // systems
  Frame<T> frame;
  static constexpr const char *kName = "softcut_report";

  __device__ void operator()(int64_t system) const {
    if (threadIdx.x >= kWarp) return;
    const Chunks chunks = chunks_of(frame.a.voxels);
    const double sum = warp_sum(frame.sums_of(frame.norm, system), chunks.count);
    const double rhs = warp_sum(frame.sums_of(frame.rhs_norm, system), chunks.count);
    const double batch = frame.parts ? batch_residual(frame) : 0;
    if (threadIdx.x != 0) return;
    const Ending ending = frame.ending[system];
    int32_t &status = frame.status[system];
    double residual = scaled_residual(frame.stop, sum, rhs, static_cast<double>(frame.a.voxels));
    if (status == 0) {
      if (ending.status == SEGPRIOR_BREAKDOWN || !isfinite(residual))
        status = SEGPRIOR_BREAKDOWN;
      else if (residual == 0 || satisfied(frame.stop, frame.parts ? batch : residual))
        status = SEGPRIOR_CONVERGED;
      else
        status = ending.status == SEGPRIOR_CONVERGED ? SEGPRIOR_PRECISION_LIMIT : SEGPRIOR_ITERATION_CAP;
    }
    if (is_failure(status)) residual = NAN;
    if (frame.info) frame.info[system] = {status, ending.iterations, residual};
  }
};

template <class T>
struct Poison {
  int64_t tiles;
  Frame<T> frame;
  static constexpr const char *kName = "softcut_poison";

  __device__ void operator()(int64_t index) const {
    const SystemTile tile(frame.a, index);
    const int64_t end = tile.end < frame.a.voxels ? tile.end : frame.a.voxels;
    for (int i = 0; i < tile.systems; ++i) {
      if (!is_failure(frame.status[tile.system + i])) continue;
      T *x = frame.x + (tile.system + i) * frame.a.voxels;
      for (int64_t v = tile.begin + threadIdx.x; v < end; v += kBlock) x[v] = static_cast<T>(NAN);
    }
  }
};

}  // namespace

template <class T>
void check_systems(const Operator<T> &a, const Solve<T> &solve, const int32_t *earlier, cudaStream_t stream) {
  StreamingExecutor exec(nullptr, stream);
  const int64_t systems = a.systems(), chunks = chunks_of(a.voxels).count;
  exec.run(StartStatus{ceil_div(systems, kBlock), systems, earlier, solve.status});
  if (!earlier) exec.run(CheckMatrix<T>{a.matrices * chunks, a, solve.status});
  exec.run(CheckVectors<T>{systems * chunks, a.voxels, solve.rhs, solve.init, solve.status});
}

template <class T>
Frame<T> carve_frame(const Operator<T> &a, const Solve<T> &solve, Arena &arena) {
  const int64_t systems = a.systems(), chunks = chunks_of(a.voxels).count;
  Frame<T> frame{};
  frame.a = a;
  frame.stop = solve.stop;
  frame.rhs = solve.rhs;
  frame.init = solve.init;
  frame.x = solve.x;
  frame.status = solve.status;
  frame.info = solve.info;
  for (double **sums : {&frame.rhs_norm, &frame.rhs_abs, &frame.norm})
    *sums = arena.take<double>(systems, chunks);
  frame.parts = arena.take<BatchPart>(solve.stop.batch ? systems : 0);
  frame.ending = arena.take<Ending>(systems);
  frame.remaining = arena.take<int32_t>(1);
  return frame;
}

template <class T>
void start_frame(const Frame<T> &frame, cudaStream_t stream) {
  StreamingExecutor exec(nullptr, stream);
  exec.run(RhsNorms<T>{tiles_of(frame.a), frame});
}

template <class T>
void finish_frame(const Frame<T> &frame, const Grid &grid, cudaStream_t stream) {
  StreamingExecutor exec(nullptr, stream);
  const int64_t tiles = tiles_of(frame.a), systems = frame.a.systems();
  with_shape(grid, [&](auto shape) { exec.run(TrueResidual<T, shape.value>{tiles, frame}); });
  if (frame.parts) exec.run(SumBatch<T>{systems, frame});
  exec.run(Report<T>{systems, frame});
  exec.run(Poison<T>{tiles, frame});
}

template void check_systems<float>(const Operator<float> &, const Solve<float> &, const int32_t *,
                                   cudaStream_t);
template void check_systems<double>(const Operator<double> &, const Solve<double> &, const int32_t *,
                                    cudaStream_t);
template Frame<float> carve_frame<float>(const Operator<float> &, const Solve<float> &, Arena &);
template Frame<double> carve_frame<double>(const Operator<double> &, const Solve<double> &, Arena &);
template void start_frame<float>(const Frame<float> &, cudaStream_t);
template void start_frame<double>(const Frame<double> &, cudaStream_t);
template void finish_frame<float>(const Frame<float> &, const Grid &, cudaStream_t);
template void finish_frame<double>(const Frame<double> &, const Grid &, cudaStream_t);

}  // namespace segprior::softcut::cuda
