// Internal contract of the entropic softmax: what capi/ hands to a backend, after every argument was checked.
// Notation and derivation: softmax.md. Public contract: include/segprior/softmax.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/arena.h"
#include "segprior/core.h"

namespace segprior::softmax {

constexpr int kMaxClasses = 256;

// The voxel grid on three canonical axes (slice, row, column); column is contiguous. 1-D uses axis 2, 2-D
// axes 0 and 2, 3-D all; an unused axis has extent 1. Component c of a TV dual belongs to axis axes[c].
struct Grid {
  int64_t batch, classes;
  int nd;
  int64_t extent[3];
  int axes[3];
  double inv_spacing[3];  // 1/h per canonical axis

  int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
  // Sums over the axes in use of 1/h and of 1/h^2.
  double inv_spacing_sum() const {
    return sum([](double inverse) { return inverse; });
  }
  double inv_spacing_sq_sum() const {
    return sum([](double inverse) { return inverse * inverse; });
  }

 private:
  template <class F>
  double sum(F term) const {
    double total = 0;
    for (int c = 0; c < nd; ++c) total += term(inv_spacing[axes[c]]);
    return total;
  }
};

enum class Volume { none, equality, box };
enum class DType { f32, f64 };

// A scalar parameter: device memory of the call's dtype if `device` is set, else the host value.
struct Scalar {
  const void *device;
  double host;
};

struct Problem {
  Grid grid;
  DType dtype;
  bool tv;
  Volume volume;
  bool accelerate;
  int iterations, check_interval, checkpoint_interval;
  double tolerance;
  Scalar eps, lam, tau;  // tau.host == 0 and no device value: the default step
  double init_eps;       // 0: the same as eps
  bool edge_shared;      // edge is [1, *S]
  // Device memory of the call's dtype; null where absent. Null data is legal in size queries only, so the
  // layouts below look at the flags, never at pointers.
  const void *features, *edge, *lower, *upper;  // equality: lower == upper == the volume
  bool has_edge, has_init_tv, has_init_volume;
  const void *init_tv, *init_volume;

  bool default_tau() const { return !tau.device && tau.host == 0; }
};

struct Outputs {
  void *u, *tv_dual, *volume_dual;
  segprior_info *info;
};

// Null: not wanted. `volume_lower` is unused by equality, where `volume_upper` is the gradient of the volume.
struct Grads {
  void *features, *eps, *init_eps, *tv_lam, *tv_tau, *tv_edge, *volume_lower, *volume_upper;
  bool accumulate;
};

// What the unrolled backward reads. Slot k < checkpoints holds the iterate after k * checkpoint_interval
// iterations, the last slot the final iterate. An iterate is the point v at which the next step takes its
// gradient and, when accelerated, the feasible q: [parts][B, I, nd, J] with part 0 = v (v == q when plain).
template <class T>
struct Saved {
  int64_t checkpoints;  // ceil(iterations / interval); there are checkpoints + 1 slots
  int parts;            // 1 plain, 2 accelerated; 0 without TV
  int64_t part_size;    // B * I * nd * J elements
  T *slots;             // [checkpoints + 1][parts][B, I, nd, J]
  double *volume_dual;  // f after t iterations [iterations + 1][B][I]
  double *log_mass;     // ln sum_x w_i of iteration t [iterations][B][I]
  double *momentum;     // beta used by iteration t [iterations][B]
  int32_t *iterations;  // [B] done
  int32_t *status;      // [B] as in segprior_info

  T *slot(int64_t k, int part = 0) const { return slots + (k * parts + part) * part_size; }
};

template <class T>
Saved<T> carve_saved(const Problem &p, Arena &arena) {
  Saved<T> s{};
  if (p.checkpoint_interval == 0) return s;
  const Grid &g = p.grid;
  const int64_t t = p.iterations, per_item = g.batch * g.classes;
  s.checkpoints = (t + p.checkpoint_interval - 1) / p.checkpoint_interval;
  s.parts = p.tv ? (p.accelerate ? 2 : 1) : 0;
  s.part_size = per_item * g.nd * g.voxels();
  s.slots = arena.take<T>(s.parts * s.part_size, s.checkpoints + 1);
  if (p.volume != Volume::none) {
    s.volume_dual = arena.take<double>(per_item, t + 1);
    s.log_mass = arena.take<double>(per_item, t);
  }
  if (p.accelerate) s.momentum = arena.take<double>(g.batch, t);
  s.iterations = arena.take<int32_t>(g.batch);
  s.status = arena.take<int32_t>(g.batch);
  return s;
}

enum class Mode { last, unrolled };

// The eps of the softmax that made u: after no iteration at all it is the start's.
inline Scalar last_eps(const Problem &p) {
  return p.iterations == 0 && p.init_eps > 0 ? Scalar{nullptr, p.init_eps} : p.eps;
}

// One backend: CPU (softmax_cpu.cpp) or CUDA (softmax_cuda.cu). `stream` is a cudaStream_t, `threads` >= 1
// the CPU thread count; each backend ignores the other's. Workspace sizes are those of *_workspace.
struct Backend {
  size_t (*forward_workspace)(const Problem &, int threads);
  size_t (*backward_workspace)(const Problem &, int threads);
  void (*forward)(const Problem &, const Outputs &, void *workspace, void *saved, int threads, void *stream);
  void (*backward)(const Problem &, Mode, const void *u, const void *grad_u, const Grads &, void *workspace,
                   const void *saved, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::softmax
