// Internal contract of SoftCut: what capi/ hands to a backend, after every argument was checked.
// Notation and derivation: softcut.md. Public contract: include/segprior/softcut.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/softcut/softcut_math.h"
#include "segprior/core.h"
#include "segprior/softcut.h"

namespace segprior::softcut {

// The families of edges, by the step from a voxel to its neighbour. The entry (z, y, x) of a family's array
// couples the voxel (z, y, x) with its neighbour; of `anti`, whose step goes back in x, the voxel (z, y, x +
// 1).
enum EdgeFamily { kSlice, kRow, kColumn, kDiagonal, kAnti, kFamilies };
constexpr int kStep[kFamilies][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, -1}};

// The voxel grid on three canonical axes (slice, row, column); column is contiguous. 1-D uses the column axis
// alone, 2-D rows and columns; an unused axis has extent 1.
struct Grid {
  int64_t images, classes;
  bool shared;  // one matrix for all classes of an image
  int nd;
  int64_t extent[3];
  bool has[kFamilies];

  int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
  int64_t systems() const { return images * classes; }
  int64_t matrices() const { return shared ? images : images * classes; }
  int64_t rhs() const { return shared ? classes : 1; }  // right-hand sides of one matrix
  // Entries of a family's array of one matrix along a canonical axis, and in all; 0 for a family that is not
  // there.
  int64_t edge_extent(int family, int axis) const {
    const int step = kStep[family][axis];
    return extent[axis] - (step < 0 ? -step : step);
  }
  int64_t edge_count(int family) const {
    return has[family] ? edge_extent(family, 0) * edge_extent(family, 1) * edge_extent(family, 2) : 0;
  }
};

enum class Solver { automatic, cg, jacobi, multigrid, chebyshev, direct };
enum class DType { f32, f64 };
enum class Path { automatic, streaming, on_chip, cluster, persistent };

// The dtype of edges and diagonals where it is not the call's: softcut_stage.h converts at the borders of a
// call, so that no backend sees anything but float32 and float64.
enum class Storage { native, f16, bf16 };

// Matrices lie one after another: edges[f] is [M][edge_count(f)], conductance [M][J]; system n = m * rhs() +
// r.
struct Problem {
  Grid grid;
  DType dtype;
  Storage storage;
  Solver solver;
  Path path;
  Stop stop, backward_stop;
  bool has_conductance, has_init;
  // Device memory of the call's dtype; null where absent. Null data is legal in size queries only, so layouts
  // look at the flags, never at pointers.
  const void *scores, *edges[kFamilies], *conductance, *init;
};

struct Outputs {
  void *x;
  segprior_info *info;  // [systems]; null: not wanted
};

// Null: not wanted.
struct Grads {
  void *scores, *edges[kFamilies], *conductance;
  segprior_info *info;
  bool accumulate;
};

struct Cotangents {  // null: zero
  const void *scores, *edges[kFamilies], *conductance;
};

struct SecondGrads {
  void *grad_x, *scores, *edges[kFamilies], *conductance;
  segprior_info *info;  // [2][systems]
  bool accumulate;
};

enum class Pass { forward, backward, double_backward };

// One backend: CPU (softcut_cpu.cpp) or CUDA (softcut_cuda.cu). `stream` is a cudaStream_t, `threads` >= 1
// the CPU thread count; each backend ignores the other's.
struct Backend {
  size_t (*workspace)(const Problem &, Pass, int threads);
  size_t (*saved)(const Problem &);
  void (*forward)(const Problem &, const Outputs &, void *workspace, void *saved, int threads, void *stream);
  void (*backward)(const Problem &, const void *x, const void *grad_x, const Grads &, void *workspace,
                   const void *saved, int threads, void *stream);
  void (*double_backward)(const Problem &, const void *x, const void *grad_scores, const Cotangents &,
                          const SecondGrads &, void *workspace, const void *saved, int threads, void *stream);
  // The matrix in compressed rows; of the problem, the grid, dtype, edges and conductance are read. No
  // workspace.
  void (*csr)(const Problem &, int32_t *row_offsets, int32_t *columns, void *values, int threads,
              void *stream);
  // Between `count` 16-bit numbers of a format and float32; narrowing rounds to nearest even.
  void (*widen)(Storage, const void *from, float *to, int64_t count, int threads, void *stream);
  void (*narrow)(Storage, const float *from, void *to, int64_t count, int threads, void *stream);
};

extern const Backend kCpu;
#if defined(SEGPRIOR_WITH_CUDA)
extern const Backend kCuda;
#endif

}  // namespace segprior::softcut
