// Internal contract of the entropic softmax: what capi/ hands to a backend, after every argument was checked.
// Notation and derivation: softmax.md. Public contract: include/segprior/softmax.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/softmax/softmax_math.h"
#include "segprior/core.h"

namespace segprior::softmax {

constexpr int kMaxClasses = 256;
constexpr int kMaxTaps = 15;  // of a threshold dynamics kernel, per axis

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

// r = lam (e (k * (1 - u)) - k * (e u)), k either a Gaussian made from sigma or given.
struct ThresholdDynamics {
  bool on;
  bool gaussian;
  bool per_class;  // one given kernel per class
  int size[3];     // odd, per canonical axis; 1 for an unused axis
  Scalar lam, sigma;
  const void *kernel;  // [taps] or [I, taps], taps = product of size, the last axis fastest
  bool has_edge, edge_shared;
  const void *edge;

  int taps() const { return size[0] * size[1] * size[2]; }
};

// Star-shaped classes: g_m of class classes[m].
struct Stars {
  int count;
  int16_t classes[kMaxClasses];
  const void *center;  // [B, M, nd], component c along grid axis axes[c]
  bool has_tau;
  const void *tau;  // [M] device memory; absent: tau_host, where 0 asks for the default step
  double tau_host;
  bool has_init;
  const void *init;  // [B, M, J]

  bool default_tau() const { return !has_tau && tau_host == 0; }
};

enum class Path { automatic, streaming, on_chip };

// The dtype of features, u and their gradients where it is not the call's: kernels/softmax/softmax_stage.h
// converts at the borders of a call, so that no backend sees anything but float32 and float64.
enum class Storage { native, f16, bf16 };

struct Problem {
  Grid grid;
  DType dtype;
  Storage storage;
  bool tv;
  Volume volume;
  bool accelerate;
  int iterations, check_interval, checkpoint_interval;
  double tolerance;
  Path path;
  int implicit_iterations;
  double implicit_tolerance;
  ThresholdDynamics td;
  Stars star;
  bool compact_saved;  // kernels/softmax/softmax_stage.h packs and unpacks; backends see the full form
  bool has_mask, mask_shared;
  const uint8_t *mask;   // [B, J] or [1, J]; 0: masked. Features hold 0 there, not the caller's values
  Scalar eps, lam, tau;  // tau.host == 0 and no device value: the default step
  double init_eps;       // 0: the same as eps
  bool edge_shared;      // edge is [1, *S]
  // Device memory of the call's dtype; null where absent. Null data is legal in size queries only, so the
  // layouts below look at the flags, never at pointers.
  const void *features, *edge, *lower, *upper;  // equality: lower == upper == the volume
  bool has_edge, has_init_tv, has_init_volume;
  const void *init_tv, *init_volume;

  bool default_tau() const { return !tau.device && tau.host == 0; }
  // Priors whose force on o is computed from a complete u (threshold dynamics, star shapes): backends keep
  // u, and r of these priors, in memory.
  bool keeps_u() const { return td.on || star.count > 0; }
  // Of B M J elements.
  int64_t star_size() const { return grid.batch * star.count * grid.voxels(); }
};

struct Outputs {
  void *u, *tv_dual, *volume_dual, *star_dual;
  segprior_info *info;
};

// Null: not wanted. `volume_lower` is unused by equality, where `volume_upper` is the gradient of the volume.
struct Grads {
  void *features, *eps, *init_eps, *tv_lam, *tv_tau, *tv_edge, *volume_lower, *volume_upper;
  void *td_lam, *td_sigma, *td_kernel, *td_edge, *star_tau, *star_center;
  segprior_info *info;  // of the implicit backward
  bool accumulate;
};

// What the unrolled backward reads. Slot k < checkpoints holds the iterate after k * checkpoint_interval
// iterations, the last slot the final iterate. An iterate is the point v at which the next step takes its
// gradient and, when accelerated, the feasible q: [parts][B, I, nd, J] with part 0 = v (v == q when plain);
// the star duals g likewise; and u where the problem keeps it.
template <class T>
struct Saved {
  int64_t checkpoints;  // ceil(iterations / interval); there are checkpoints + 1 slots
  int parts;            // 1 plain, 2 accelerated; 0 without TV
  int star_parts;       // the same of the star duals; 0 without
  int64_t part_size;    // B * I * nd * J elements
  int64_t star_size;    // B * M * J elements
  int64_t u_size;       // B * I * J elements; 0: u is not kept
  size_t packed_bytes;  // of slots and u_slots, which the compact form replaces; the rest follows
  T *slots;             // [checkpoints + 1][parts][B, I, nd, J]
  T *star_slots;        // [checkpoints + 1][star_parts][B, M, J]
  T *u_slots;           // [checkpoints + 1][B, I, J]
  double *volume_dual;  // f after t iterations [iterations + 1][B][I]
  double *log_mass;     // ln sum_x w_i of iteration t [iterations][B][I]
  double *momentum;     // beta used by iteration t [iterations][B]
  int32_t *iterations;  // [B] done
  int32_t *status;      // [B] as in segprior_info

  T *slot(int64_t k, int part = 0) const { return slots + (k * parts + part) * part_size; }
  T *star_slot(int64_t k, int part = 0) const { return star_slots + (k * star_parts + part) * star_size; }
  T *u_slot(int64_t k) const { return u_slots + k * u_size; }
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
  s.u_size = p.keeps_u() ? per_item * g.voxels() : 0;
  s.u_slots = arena.take<T>(s.u_size, s.checkpoints + 1);
  s.packed_bytes = arena.used();
  s.star_parts = p.star.count > 0 ? (p.accelerate ? 2 : 1) : 0;
  s.star_size = p.star_size();
  s.star_slots = arena.take<T>(s.star_parts * s.star_size, s.checkpoints + 1);
  if (p.volume != Volume::none) {
    s.volume_dual = arena.take<double>(per_item, t + 1);
    s.log_mass = arena.take<double>(per_item, t);
  }
  if (p.accelerate) s.momentum = arena.take<double>(g.batch, t);
  s.iterations = arena.take<int32_t>(g.batch);
  s.status = arena.take<int32_t>(g.batch);
  return s;
}

enum class Mode { last, unrolled, implicit };

// The eps of the softmax that made u: after no iteration at all it is the start's.
inline Scalar last_eps(const Problem &p) {
  return p.iterations == 0 && p.init_eps > 0 ? Scalar{nullptr, p.init_eps} : p.eps;
}

// Whether iteration t (0-based) ends with a residual. Without a tolerance it only serves the report.
inline bool takes_residual(const Problem &p, bool reported, int t) {
  return p.tolerance > 0 ? is_check(t, p.iterations, p.check_interval) : reported && t + 1 == p.iterations;
}

inline StepRule step_rule(const Problem &p) {
  return {p.grid.inv_spacing_sq_sum(), p.accelerate, p.tv, p.star.count};
}

// Whether the implicit backward of this problem is a symmetric system for conjugate gradients.
inline bool symmetric_implicit(const Problem &p) { return !p.keeps_u(); }

// One backend: CPU (softmax_cpu.cpp) or CUDA (softmax_cuda.cu). `stream` is a cudaStream_t, `threads` >= 1
// the CPU thread count; each backend ignores the other's. Workspace sizes are those of *_workspace.
struct Backend {
  size_t (*forward_workspace)(const Problem &, int threads);
  size_t (*backward_workspace)(const Problem &, Mode, int threads);
  void (*forward)(const Problem &, const Outputs &, void *workspace, void *saved, int threads, void *stream);
  void (*backward)(const Problem &, Mode, const void *u, const void *grad_u, const Grads &, void *workspace,
                   const void *saved, int threads, void *stream);
  // Between the caller's features-like tensors [B, I, J] in p.storage and arrays of p.dtype. load: masked
  // voxels become 0. store: rounds to nearest even.
  void (*load)(const Problem &, const void *tensor, void *array, int threads, void *stream);
  void (*store)(const Problem &, const void *array, void *tensor, int threads, void *stream);
  // Between the full form of `saved` and the compact one of softmax_pack.h.
  void (*pack)(const Problem &, const void *full, void *compact, int threads, void *stream);
  void (*unpack)(const Problem &, const void *compact, void *full, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::softmax
