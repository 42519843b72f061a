// Chebyshev iteration on D^-1 A as phases. With G = I - D^-1 A, whose spectrum Gershgorin puts into [-mu,
// mu], mu = 1 - min d / diagonal,
//
//   x_(k+1) = x_(k-1) + omega_(k+1) (x_k + D^-1 (p - A x_k) - x_(k-1)),
//   omega_1 = 1, omega_2 = 2 / (2 - mu^2), omega_(k+1) = 1 / (1 - mu^2 omega_k / 4).
//
// No dot products: kSteps steps go by between two looks at the residual. In float32 planes they are one pass
// over tiles in shared memory with a halo, 28 bytes per voxel and pass and as much again for the halo, 5 to 6
// bytes per step; else each step is a phase, 24 bytes and the row of the matrix.
#pragma once

#include "kernels/softcut/softcut_cuda_cg.h"

namespace segprior::softcut::cuda {

constexpr int kSteps = 8;

template <class T>
struct Chebyshev {
  Cg<T> cg;               // frame, states (rz: the last omega), inverse diagonal
  double *mu_partials;    // [M][chunks]
  double *mu;             // [M]
  T *now[2], *before[2];  // [systems][J]: x_k, x_(k-1). now[0] is x; steps of their own have now alone
};

template <class T>
Chebyshev<T> carve_chebyshev(const Grid &, const Operator<T> &, const Solve<T> &, Arena &);
template <class T>
void run_chebyshev(const Grid &, Path, const Chebyshev<T> &, cudaStream_t);
template <class T>
int chebyshev_blocks(const Grid &);

// Whether steps go together, by what a block can hold of its tile in registers.
template <class T>
bool takes_passes(const Grid &grid) {
  return sizeof(T) == sizeof(float) && grid.nd == 2 && !grid.has[kDiagonal];
}

#if defined(__CUDACC__) || defined(FAKECUDA)

template <class T>
struct SpectrumPartials {
  int64_t tiles;  // matrices * chunks
  Chebyshev<T> c;
  static constexpr const char *kName = "softcut_spectrum_partials";

  __device__ void operator()(int64_t tile) const {
    const Operator<T> &a = c.cg.frame.a;
    const Chunks chunks = chunks_of(a.voxels);
    const int64_t matrix = quotient(tile, chunks.count), begin = (tile - matrix * chunks.count) * chunks.size;
    const int64_t end = begin + chunks.size < a.voxels ? begin + chunks.size : a.voxels;
    double mu = 0;
    for (int64_t v = begin + threadIdx.x; v < end; v += kBlock) {
      const int64_t at = matrix * a.voxels + v;
      const double d = a.conductance ? a.conductance[at] : T(1);
      mu = fmax(mu, 1 - d * c.cg.inverse_diagonal[at]);
    }
    mu = block_max(mu);
    if (threadIdx.x == 0) c.mu_partials[tile] = mu;
  }
};

template <class T>
struct Spectrum {
  int64_t tiles;  // matrices
  Chebyshev<T> c;
  static constexpr const char *kName = "softcut_spectrum";

  __device__ void operator()(int64_t matrix) const {
    const int64_t chunks = chunks_of(c.cg.frame.a.voxels).count;
    double mu = 0;
    for (int64_t i = threadIdx.x; i < chunks; i += kBlock) mu = fmax(mu, c.mu_partials[matrix * chunks + i]);
    mu = block_max(mu);
    if (threadIdx.x == 0) c.mu[matrix] = mu;
  }
};

// omega_(k+1) from omega_k.
SEGPRIOR_HD inline double next_omega(double mu, int64_t k, double omega) {
  if (k == 0) return 1;
  return 1 / (1 - mu * mu * (k == 1 ? 0.5 : 0.25 * omega));
}

// ---- A phase per step ----

template <class T, Shape shape>
struct ChebyshevStep {
  int64_t tiles;
  Chebyshev<T> c;
  int slot;
  bool flip;     // x_k is in now[1]
  bool decides;  // there is a residual
  static constexpr const char *kName = "softcut_chebyshev_step";
  static constexpr int kBlocksAtOnce = 3;

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = c.cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    SEGPRIOR_SHARED(TileState, shared, 1);
    TileState &systems = shared[0];
    const bool any =
        prepare(tile, c.cg.slot(slot ^ 1), systems, [&](int64_t n, CgState &state, double &omega) {
          state = c.cg.slot(slot)[n];
          if (decides)
            decide(frame, n, state, warp_sum(frame.sums_of(frame.norm, n), tile.chunks), tile.leads);
          omega = state.rz = next_omega(c.mu[tile.matrix], state.iterations, state.rz);
          if (state.status == kRunning) ++state.iterations;
          return state.status == kRunning;
        });
    if (!any) return;

    for (Walk walk(a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const int64_t v = walk.site().v;
      const Row<T, shape> row(a, tile.matrix, walk.site());
      const T inverse = c.cg.inverse_diagonal[tile.matrix * a.voxels + v];
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        if (!systems.on[i]) continue;
        const int64_t base = (tile.system + i) * a.voxels;
        const T omega = static_cast<T>(systems.factor[i]);
        const T *x = (flip ? c.now[1] : c.now[0]) + base;
        T &other = (flip ? c.now[0] : c.now[1])[base + v];
        const T own = x[v];
        const T better =
            own + inverse * (frame.rhs[base + v] - row.apply(own, [&](int64_t at) { return x[at]; }));
        // x_(k-1) is not there before the first step, whose omega is 1.
        other = omega == 1 ? better : other + omega * (better - other);
      }
    }
  }
};

template <class T, Shape shape>
struct ChebyshevResidual {
  int64_t tiles;
  Chebyshev<T> c;
  int slot;
  bool flip;
  static constexpr const char *kName = "softcut_chebyshev_residual";

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = c.cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    double norm[kGroup] = {};
    for (Walk walk(a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const int64_t v = walk.site().v;
      const Row<T, shape> row(a, tile.matrix, walk.site());
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        if (c.cg.slot(slot)[tile.system + i].status != kRunning) continue;
        const int64_t base = (tile.system + i) * a.voxels;
        const T *x = (flip ? c.now[1] : c.now[0]) + base;
        const T r = frame.rhs[base + v] - row.apply(x[v], [&](int64_t at) { return x[at]; });
        add_to(norm, i, norm_term(frame.stop.norm, static_cast<double>(r)));
      }
    }
    store_sums(tile, norm, frame.norm);
  }
};

// ---- kSteps steps in one phase ----

// A tile with its halo: a step takes one voxel of it from every side, and so does the residual. Each thread
// keeps the matrix at its voxels in registers.
constexpr int kSide = 30, kHalo = kSteps + 1, kRegion = kSide + 2 * kHalo;
constexpr int kOwned = kRegion * kRegion / kBlock;
static_assert(kRegion * kRegion % kBlock == 0, "a thread's voxels fill the region");

template <class T>
struct ChebyshevPass {
  int64_t tiles;
  Chebyshev<T> c;
  int slot;
  bool flip;  // x_k is in now[1] and before[1], and goes to the others
  // Partial sums of the residual's norm of x_k, and where those of x_k+8 go: late tiles still read the first.
  double *norm_before, *norm_after;
  static constexpr const char *kName = "softcut_chebyshev_pass";
  static constexpr int kBlocksAtOnce = 2;

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = c.cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    SEGPRIOR_SHARED(TileState, shared, 1);
    SEGPRIOR_SHARED(T, omegas, kGroup * kSteps);
    SEGPRIOR_SHARED(int, counts, kGroup);  // steps; with a sign bit before the first
    TileState &systems = shared[0];
    const bool any =
        prepare(tile, c.cg.slot(slot ^ 1), systems, [&](int64_t n, CgState &state, double &first) {
          state = c.cg.slot(slot)[n];
          decide(frame, n, state, warp_sum(frame.sums_of(norm_before, n), tile.chunks), tile.leads);
          if (state.status != kRunning) return false;
          const int i = static_cast<int>(n - tile.system);
          const int64_t left = frame.stop.max_iterations - state.iterations;
          const int steps = static_cast<int>(left < kSteps ? left : kSteps);
          first = state.iterations == 0;
          for (int k = 0; k < steps; ++k) {
            state.rz = next_omega(c.mu[tile.matrix], state.iterations++, state.rz);
            if (threadIdx.x % kWarp == 0) omegas[i * kSteps + k] = static_cast<T>(state.rz);
          }
          if (threadIdx.x % kWarp == 0) counts[i] = steps;
          return true;
        });
    if (!any) return;

    // As many pieces of the plane as there are to a partial sum.
    const int64_t across = ceil_div(a.extent[2], kSide), pieces = across * ceil_div(a.extent[1], kSide);
    const int64_t begin = quotient(tile.chunk * pieces, tile.chunks);
    const int64_t end = quotient((tile.chunk + 1) * pieces, tile.chunks);
#pragma unroll 1
    for (int i = 0; i < tile.systems; ++i) {
      if (!systems.on[i]) continue;
      double norm = 0;
#pragma unroll 1
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t row = quotient(piece, across);
        norm += advance(tile.matrix, tile.system + i, systems.factor[i] != 0, omegas + i * kSteps, counts[i],
                        row * kSide, (piece - row * across) * kSide);
      }
      norm = block_sum(norm);
      if (threadIdx.x == 0) norm_after[(tile.system + i) * tile.chunks + tile.chunk] = norm;
    }
  }

 private:
  // The matrix at a voxel, divided by its diagonal. Outside of the grid all is 0; towards the outside of the
  // region there is no edge, which is wrong there and reaches one voxel further in with every step.
  struct Coefficients {
    T right, left, down, up, d;
  };

  __device__ Coefficients coefficients(int64_t matrix, int64_t y, int64_t x, int q) const {
    const Operator<T> &a = c.cg.frame.a;
    const int local_x = q % kRegion, local_y = q / kRegion;
    const Site s{y * a.extent[2] + x, 0, y, x};
    const int64_t at = matrix * a.voxels + s.v;
    const T inverse = c.cg.inverse_diagonal[at];
    const auto weight = [&](int family, bool ahead, bool inside) {
      const T *edges = a.edges[family] + matrix * a.edge_count[family];
      if (!inside || !(ahead ? has_ahead(a, family, s) : has_behind(a, family, s))) return T(0);
      return inverse * edges[ahead ? edge_ahead(a, family, s) : edge_behind(a, family, s)];
    };
    return {weight(kColumn, true, local_x + 1 < kRegion), weight(kColumn, false, local_x > 0),
            weight(kRow, true, local_y + 1 < kRegion), weight(kRow, false, local_y > 0),
            inverse * (a.conductance ? a.conductance[at] : T(1))};
  }

  // Of one system, at the piece whose first voxel is (top, side). Returns this thread's part of the norm.
  __device__ double advance(int64_t matrix, int64_t system, bool first, const T *omegas, int steps,
                            int64_t top, int64_t side) const {
    const Frame<T> &frame = c.cg.frame;
    const Operator<T> &a = frame.a;
    constexpr int kCells = kOwned * kBlock,
                  kPadded = kCells + 2 * kRegion;  // the border's neighbours are read
    SEGPRIOR_SHARED(T, cells, 2 * kPadded);
    SEGPRIOR_SHARED(T, constant, kCells);  // D^-1 p; in registers it would be too much
    T *from = cells + kRegion, *to = from + kPadded;
    const int64_t in_matrix = matrix * a.voxels, in_system = system * a.voxels;
    Coefficients m[kOwned];
    __syncthreads();  // the previous piece is done with the cells
    for (int q = threadIdx.x; q < kRegion; q += kBlock)
      for (int end = 0; end < 4; ++end) cells[(end / 2) * kPadded + (end % 2) * (kRegion + kCells) + q] = 0;
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      const int q = threadIdx.x + j * kBlock;
      const int64_t y = top - kHalo + q / kRegion, x = side - kHalo + q % kRegion;
      m[j] = {};
      constant[q] = from[q] = to[q] = 0;
      if (y >= 0 && y < a.extent[1] && x >= 0 && x < a.extent[2]) {
        const int64_t v = y * a.extent[2] + x;
        m[j] = coefficients(matrix, y, x, q);
        constant[q] = c.cg.inverse_diagonal[in_matrix + v] * frame.rhs[in_system + v];
        from[q] = (flip ? c.now[1] : c.now[0])[in_system + v];
        to[q] = first ? from[q] : (flip ? c.before[1] : c.before[0])[in_system + v];
      }
    }
    __syncthreads();

    const auto change = [&](int j, const T *x, int q) {
      const T own = x[q];
      return constant[q] - m[j].d * own + m[j].right * (x[q + 1] - own) + m[j].left * (x[q - 1] - own) +
             m[j].down * (x[q + kRegion] - own) + m[j].up * (x[q - kRegion] - own);
    };
#pragma unroll 1
    for (int k = 0; k < steps; ++k) {
      const T omega = omegas[k];
#pragma unroll
      for (int j = 0; j < kOwned; ++j) {
        const int q = threadIdx.x + j * kBlock;
        const T before = to[q];  // of two steps ago
        to[q] = before + omega * (from[q] + change(j, from, q) - before);
      }
      __syncthreads();
      T *const swap = from;
      from = to;
      to = swap;
    }

    double norm = 0;
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      const int q = threadIdx.x + j * kBlock, local_y = q / kRegion - kHalo, local_x = q % kRegion - kHalo;
      const int64_t y = top + local_y, x = side + local_x;
      if (local_y < 0 || local_y >= kSide || local_x < 0 || local_x >= kSide || y >= a.extent[1] ||
          x >= a.extent[2])
        continue;
      const int64_t v = y * a.extent[2] + x;
      (flip ? c.now[0] : c.now[1])[in_system + v] = from[q];
      (flip ? c.before[0] : c.before[1])[in_system + v] = to[q];
      const T r = change(j, from, q) / c.cg.inverse_diagonal[in_matrix + v];
      norm += norm_term(frame.stop.norm, static_cast<double>(r));
    }
    return norm;
  }
};

// x of systems that ended in the other buffer; `steps` between two exchanges of the buffers.
template <class T>
struct Collect {
  int64_t tiles;
  Chebyshev<T> c;
  int steps;
  static constexpr const char *kName = "softcut_chebyshev_collect";

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = c.cg.frame;
    const SystemTile tile(frame.a, index);
    const int64_t end = tile.end < frame.a.voxels ? tile.end : frame.a.voxels;
    for (int i = 0; i < tile.systems; ++i) {
      const int exchanges = (frame.ending[tile.system + i].iterations + steps - 1) / steps;
      if (exchanges % 2 == 0) continue;
      const int64_t base = (tile.system + i) * frame.a.voxels;
      for (int64_t v = tile.begin + threadIdx.x; v < end; v += kBlock) frame.x[base + v] = c.now[1][base + v];
    }
  }
};

#endif

SEGPRIOR_FOR_EITHER_SIDE
template <class T, class Exec>
SEGPRIOR_HD void iterate_passes(Exec &exec, const Chebyshev<T> &c) {
  const Frame<T> &frame = c.cg.frame;
  const int64_t tiles = tiles_of(frame.a);
  double *const norm[2] = {frame.norm, c.cg.rz};  // rz is free after the start
  int slot = 0;
  for (int left = frame.stop.max_iterations;; left -= kSteps) {
    Frame<T> now = frame;
    now.norm = norm[slot];
    if (frame.parts) exec.run(SumBatch<T>{frame.a.systems(), now});
    exec.run(ChebyshevPass<T>{tiles, c, slot, slot != 0, norm[slot], norm[slot ^ 1]});
    if (exec.finished_for_next_decision() || left <= 0) return;
    slot ^= 1;
  }
}

SEGPRIOR_FOR_EITHER_SIDE
template <Shape shape, class T, class Exec>
SEGPRIOR_HD void iterate_steps(Exec &exec, const Chebyshev<T> &c) {
  const Frame<T> &frame = c.cg.frame;
  const int64_t tiles = tiles_of(frame.a);
  for (int64_t k = 0;; ++k) {
    const int slot = k % 2 != 0;
    const bool decides = k % kSteps == 0 || k == frame.stop.max_iterations;
    if (decides && k > 0) exec.run(ChebyshevResidual<T, shape>{tiles, c, slot, slot != 0});
    if (decides && frame.parts) exec.run(SumBatch<T>{frame.a.systems(), frame});
    exec.run(ChebyshevStep<T, shape>{tiles, c, slot, slot != 0, decides});
    if ((decides && exec.finished()) || k == frame.stop.max_iterations) return;
  }
}

}  // namespace segprior::softcut::cuda
