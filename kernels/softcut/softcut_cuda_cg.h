// Conjugate gradients as phases, two an iteration:
//
//   Direction   decide; p = z + beta p; q = A p; <p, q>
//   Update      alpha; x += alpha p; r -= alpha q; |r|, <r, z>
//
// with z = r, or r / diagonal, computed where it is read; or z = M^-1 r of the V-cycle, which has a phase of
// its own before it that decides. Direction reads p's old entries of the neighbours and writes the new ones
// elsewhere. Per voxel, system and iteration that is 10 numbers of vectors and the row of the matrix: in
// float32 and 2-D 40 + 8 bytes (+ 8 with the diagonal), the row shared by up to kGroup systems.
//
// Scalars: every tile that needs a sum adds the partial sums itself, and one tile writes the new state for
// the next phase, to the other of two slots: a phase of its own would cost one more barrier.
#pragma once

#include "kernels/softcut/softcut_cuda_check.h"
#include "kernels/softcut/softcut_cuda_multigrid.h"

namespace segprior::softcut::cuda {

enum : int32_t { kBroken = -2, kStopped = -3 };  // beside kRunning: broke down just now; ended

struct CgState {
  double rhs_norm, rz;  // norm_term of the system's right-hand side, summed; <r, z>
  int32_t status, iterations;
};

template <class T>
struct Cg {
  Frame<T> frame;
  CgState *state[2];    // [systems] each
  double *rz, *pq;      // partial sums [systems][chunks]
  T *r, *q, *p[2];      // [systems][J]
  T *inverse_diagonal;  // [M][J]; null: not the preconditioner
  // With the V-cycle alone:
  T *z;             // [systems][J]; else null
  int32_t *active;  // [systems]
  double *scale;    // [systems]

  SEGPRIOR_HD CgState *slot(int s) const { return s == 0 ? state[0] : state[1]; }
};

template <class T>
Cg<T> carve_cg(const Operator<T> &, const Solve<T> &, Solver, Arena &);

// The iterations, between start_frame() and finish_frame(): softcut_cuda_cg.cu, and with a V-cycle
// softcut_cuda_cg_multigrid.cu.
template <class T>
void run_cg(const Grid &, Path, const Cg<T> &, cudaStream_t);
template <class T>
void run_cg_multigrid(const Grid &, Path, const Cg<T> &, const Hierarchy &, cudaStream_t);

// How many blocks of the persistent kernel run at once; 0: it cannot be launched here.
template <class T>
int cg_blocks(const Grid &);
template <class T>
int cg_multigrid_blocks(const Grid &);

#if defined(__CUDACC__) || defined(FAKECUDA)

// What the threads of a tile have to know about its systems.
struct TileState {
  bool on[kGroup];
  double factor[kGroup];
};

// One warp for each system: compute(system, state, factor) fills in the state that goes to `to` and says
// whether the tile works on the system. Returns whether it works on any.
template <class Compute>
__device__ bool prepare(const SystemTile &tile, CgState *to, TileState &shared, const Compute &compute) {
  __syncthreads();  // the previous tile has read `shared`
  const int i = static_cast<int>(threadIdx.x / kWarp);
  if (i < kGroup) {
    bool on = false;
    double factor = 0;
    CgState state{};
    if (i < tile.systems) on = compute(tile.system + i, state, factor);
    if (threadIdx.x % kWarp == 0) {
      if (i < tile.systems && tile.leads) to[tile.system + i] = state;
      shared.on[i] = on;
      shared.factor[i] = factor;
    }
  }
  __syncthreads();
  bool any = false;
  for (int k = 0; k < kGroup; ++k) any |= shared.on[k];
  return any;
}

// x and r before the first iteration, state[0], the inverse diagonal.
template <class T, Shape shape>
struct Begin {
  int64_t tiles;
  Cg<T> cg;
  static constexpr const char *kName = "softcut_begin";

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    SEGPRIOR_SHARED(TileState, shared, 1);
    TileState &systems = shared[0];
    const bool any = prepare(tile, cg.state[0], systems, [&](int64_t n, CgState &state, double &factor) {
      const int32_t status = frame.status[n];
      // x = 0 solves a system whose right-hand side vanishes.
      factor = warp_sum(frame.sums_of(frame.rhs_abs, n), tile.chunks) > 0;
      state = {warp_sum(frame.sums_of(frame.rhs_norm, n), tile.chunks), 0, kStopped, 0};
      Ending ending{status, 0};
      if (status == 0 && factor > 0) state.status = ending.status = kRunning;
      if (tile.leads && threadIdx.x % kWarp == 0) {
        frame.ending[n] = ending;
        if (ending.status == kRunning) atomicAdd(frame.remaining, 1);
      }
      return status == 0;
    });
    const bool inverts = cg.inverse_diagonal && tile.leads_matrix;
    if (!any && !inverts) return;

    double norm[kGroup] = {}, rz[kGroup] = {};
    const T *d = a.conductance ? a.conductance + tile.matrix * a.voxels : nullptr;
    for (Walk walk(a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const int64_t v = walk.site().v;
      const Row<T, shape> row(a, tile.matrix, walk.site());
      const T inverse = cg.inverse_diagonal ? 1 / row.diagonal() : T(1);
      if (inverts) cg.inverse_diagonal[tile.matrix * a.voxels + v] = inverse;
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        if (!systems.on[i]) continue;
        const int64_t base = (tile.system + i) * a.voxels;
        const bool zero = systems.factor[i] == 0;
        const T *rhs = frame.rhs + base;
        const auto start = [&](int64_t at) {
          if (zero) return T(0);
          if (frame.init) return frame.init[base + at];
          return d ? rhs[at] / d[at] : rhs[at];
        };
        const T x = start(v), r = rhs[v] - row.apply(x, start);
        frame.x[base + v] = x;
        cg.r[base + v] = r;
        add_to(norm, i, norm_term(frame.stop.norm, static_cast<double>(r)));
        add_to(rz, i, static_cast<double>(r) * (r * inverse));
      }
    }
    store_sums(tile, norm, frame.norm);
    store_sums(tile, rz, cg.rz);
  }
};

// Whether a running system goes on. One warp calls it; `leads`: for the record.
template <class T>
__device__ void decide(const Frame<T> &frame, int64_t system, CgState &state, double norm, bool leads) {
  int32_t status = SEGPRIOR_BREAKDOWN;
  if (state.status == kStopped) return;
  if (state.status == kRunning) {
    const double residual =
        frame.parts ? batch_residual(frame)
                    : scaled_residual(frame.stop, norm, state.rhs_norm, static_cast<double>(frame.a.voxels));
    if (isfinite(norm)) {
      if (satisfied(frame.stop, residual))
        status = SEGPRIOR_CONVERGED;
      else if (state.iterations >= frame.stop.max_iterations)
        status = SEGPRIOR_ITERATION_CAP;
      else
        return;
    }
  }
  state.status = kStopped;
  if (!leads || threadIdx.x % kWarp != 0) return;
  frame.ending[system] = {status, state.iterations};
  atomicAdd(frame.remaining, -1);
}

// The next decide() counts it; the batch rule leaves it out from now on.
template <class T>
__device__ void break_down(const Frame<T> &frame, int64_t system, CgState &state, bool leads) {
  state.status = kBroken;
  if (leads && threadIdx.x % kWarp == 0) frame.ending[system] = {SEGPRIOR_BREAKDOWN, state.iterations};
}

// Before a V-cycle: decides, and scales the residuals of those that go on for it.
template <class T>
struct Decide {
  int64_t tiles;  // systems
  Cg<T> cg;
  int slot;
  static constexpr const char *kName = "softcut_decide";

  __device__ void operator()(int64_t system) const {
    if (threadIdx.x >= kWarp) return;
    const Frame<T> &frame = cg.frame;
    CgState state = cg.slot(slot)[system];
    const double norm = warp_sum(frame.sums_of(frame.norm, system), chunks_of(frame.a.voxels).count);
    decide(frame, system, state, norm, true);
    if (threadIdx.x != 0) return;
    cg.slot(slot ^ 1)[system] = state;
    cg.active[system] = state.status == kRunning;
    int exponent = 0;
    frexp(frame.stop.norm == Norm::l2 ? sqrt(norm) : norm, &exponent);
    // Itself and its inverse numbers of T.
    const int most = sizeof(T) == sizeof(float) ? 100 : 1000;
    cg.scale[system] = ldexp(1.0, max(-most, min(most, -exponent)));
  }
};

template <class T, Shape shape>
struct Direction {
  int64_t tiles;
  Cg<T> cg;
  int slot;
  bool flip;  // p is in p[1], and goes to p[0]
  static constexpr const char *kName = "softcut_direction";

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    SEGPRIOR_SHARED(TileState, shared, 1);
    TileState &systems = shared[0];
    const bool any = prepare(tile, cg.slot(slot ^ 1), systems, [&](int64_t n, CgState &state, double &beta) {
      state = cg.slot(slot)[n];
      const double norm = warp_sum(frame.sums_of(frame.norm, n), tile.chunks);
      const double rz = warp_sum(frame.sums_of(cg.rz, n), tile.chunks);
      if (!cg.z) decide(frame, n, state, norm, tile.leads);
      if (state.status != kRunning) return false;
      // In a batch a system goes on even when its residual vanishes.
      if (!isfinite(rz) || (rz <= 0 && norm > 0)) break_down(frame, n, state, tile.leads);
      beta = state.rz > 0 ? rz / state.rz : 0;
      state.rz = rz;
      return state.status == kRunning;
    });
    if (!any) return;

    double pq[kGroup] = {};
    const T *inverse = cg.inverse_diagonal ? cg.inverse_diagonal + tile.matrix * a.voxels : nullptr;
    for (Walk walk(a, tile.begin, tile.end); walk.inside(); walk.next()) {
      const int64_t v = walk.site().v;
      const Row<T, shape> row(a, tile.matrix, walk.site());
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        if (!systems.on[i]) continue;
        const int64_t base = (tile.system + i) * a.voxels;
        const T beta = static_cast<T>(systems.factor[i]);
        const T *z = (cg.z ? cg.z : cg.r) + base, *old = (flip ? cg.p[1] : cg.p[0]) + base;
        // p is not there yet before the first iteration.
        const auto direction = [&](int64_t at) {
          const T value = inverse ? z[at] * inverse[at] : z[at];
          return beta == 0 ? value : value + beta * old[at];
        };
        const T p = direction(v), q = row.apply(p, direction);
        (flip ? cg.p[0] : cg.p[1])[base + v] = p;
        cg.q[base + v] = q;
        add_to(pq, i, static_cast<double>(p) * q);
      }
    }
    store_sums(tile, pq, cg.pq);
  }
};

template <class T>
struct Update {
  int64_t tiles;
  Cg<T> cg;
  int slot;
  bool flip;  // p is in p[0]
  static constexpr const char *kName = "softcut_update";

  __device__ void operator()(int64_t index) const {
    const Frame<T> &frame = cg.frame;
    const Operator<T> &a = frame.a;
    const SystemTile tile(a, index);
    SEGPRIOR_SHARED(TileState, shared, 1);
    TileState &systems = shared[0];
    const bool any = prepare(tile, cg.slot(slot ^ 1), systems, [&](int64_t n, CgState &state, double &alpha) {
      state = cg.slot(slot)[n];
      if (state.status != kRunning) return false;
      const double pq = warp_sum(frame.sums_of(cg.pq, n), tile.chunks);
      alpha = state.rz > 0 ? state.rz / pq : 0;
      ++state.iterations;
      if (!isfinite(alpha) || (pq <= 0 && state.rz > 0)) break_down(frame, n, state, tile.leads);
      return state.status == kRunning;
    });
    if (!any) return;

    double norm[kGroup] = {}, rz[kGroup] = {};
    const T *direction = flip ? cg.p[0] : cg.p[1];
    const int64_t end = tile.end < a.voxels ? tile.end : a.voxels;
    for (int64_t v = tile.begin + threadIdx.x; v < end; v += kBlock) {
      const T inverse = cg.inverse_diagonal ? cg.inverse_diagonal[tile.matrix * a.voxels + v] : T(1);
#pragma unroll 1
      for (int i = 0; i < tile.systems; ++i) {
        if (!systems.on[i]) continue;
        const int64_t at = (tile.system + i) * a.voxels + v;
        const T alpha = static_cast<T>(systems.factor[i]);
        const T r = cg.r[at] - alpha * cg.q[at];
        frame.x[at] += alpha * direction[at];
        cg.r[at] = r;
        add_to(norm, i, norm_term(frame.stop.norm, static_cast<double>(r)));
        add_to(rz, i, static_cast<double>(r) * (r * inverse));
      }
    }
    store_sums(tile, norm, frame.norm);
    if (!cg.z) store_sums(tile, rz, cg.rz);
  }
};

#endif

// Without a V-cycle.
struct NoCycle {
  template <class Exec>
  SEGPRIOR_HD void operator()(Exec &) const {}
};

// All iterations; cycle(exec) computes z where cg.z is there.
SEGPRIOR_FOR_EITHER_SIDE
template <Shape shape, class T, class Exec, class Cycle>
SEGPRIOR_HD void iterate(Exec &exec, const Cg<T> &cg, const Cycle &cycle) {
  const Frame<T> &frame = cg.frame;
  const int64_t tiles = tiles_of(frame.a), systems = frame.a.systems();
  int slot = 0;
  for (int64_t k = 0;; ++k) {
    if (frame.parts) exec.run(SumBatch<T>{systems, frame});
    if (cg.z) {
      exec.run(Decide<T>{systems, cg, slot});
      slot ^= 1;
      if (exec.finished()) return;
      cycle(exec);
    }
    const bool flip = k % 2 != 0;
    exec.run(Direction<T, shape>{tiles, cg, slot, flip});
    slot ^= 1;
    if ((!cg.z && exec.finished()) || k == frame.stop.max_iterations) return;
    exec.run(Update<T>{tiles, cg, slot, flip});
    slot ^= 1;
  }
}

}  // namespace segprior::softcut::cuda
