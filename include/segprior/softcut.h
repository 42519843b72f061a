/* clang-format off */
/* libsegprior, SoftCut: the solution of a sparse linear system that couples neighbouring voxels.
 *
 *   (D + L(w)) x = p        i.e. for every voxel a:   d_a x_a + sum_b w_ab (x_a - x_b) = p_a
 *
 * with edge weights w_ab >= 0 between grid neighbours and a conductance d > 0 (1 where absent). [SC] eq. 22:
 * Bonfiglio, "SoftCut" (Politecnico di Milano, 2022); d generalises the thesis's identity. The matrix is symmetric, strictly diagonally
 * dominant, hence positive definite. With d = 1: sum x = sum p and min p <= x <= max p; w -> 0 gives x = p; w ->
 * infinity within a region gives the region's mean.
 *
 * Shapes: B images, K classes, nd = 1, 2 or 3 spatial axes *S, J = prod(S) voxels. Scores, x, grad_x and
 * grads.scores are [B, K, *S]: B K systems. edges[m] couples neighbours along spatial axis m: [B, K, *S] with
 * S[m] - 1 entries on axis m, the entry at index i being the edge between voxels i and i + 1. In 2-D two arrays
 * more, diagonals, [B, K, H-1, W-1], make it an 8-neighbourhood: diagonals[0][y][x] couples (y, x) with (y+1, x+1),
 * diagonals[1][y][x] couples (y, x+1) with (y+1, x). Edges, diagonals and conductance may all have 1 in place of K:
 * then one matrix per image is shared by its classes, is loaded once for all of them, and its gradients are sums
 * over the classes. With "M matrices" below, M = B K, or B when shared.
 *
 * dtypes: scores, x, conductance, gradients of scores and of conductance: float32 or float64, all the same.
 * Edges and diagonals and their gradients: the same, or with float32 all of them float16 or bfloat16 (widened once;
 * arithmetic is float32, gradients are rounded to nearest). All tensors live on the context's device, C-contiguous.
 * An empty tensor (B, K or J = 0) is a valid call that does and writes nothing.
 *
 * Calls are queued on the context's stream (CUDA) or done on return (CPU). They allocate nothing, never synchronise
 * and touch no other stream (SEGPRIOR_SOFTCUT_DIRECT excepted: it allocates). They can be captured in a CUDA graph:
 * the decision to stop is taken on the device. Results are deterministic, and on the CPU the same for every thread
 * count. Each system's result depends on its own matrix and scores alone, bit for bit, unless opts.batch = 1.
 */
/* clang-format on */
#ifndef SEGPRIOR_SOFTCUT_H
#define SEGPRIOR_SOFTCUT_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Options ------------------------------------------------------------------------------------------- */

/* How the systems are solved. Every solver is matrix-free but the last. */
enum {
  SEGPRIOR_SOFTCUT_AUTO =
      0, /* CPU: per matrix, by its conditioning; CUDA: by size. kernels/softcut/softcut.md */
  SEGPRIOR_SOFTCUT_CG = 1,     /* conjugate gradients */
  SEGPRIOR_SOFTCUT_JACOBI = 2, /* conjugate gradients, preconditioned by the diagonal */
  SEGPRIOR_SOFTCUT_MULTIGRID =
      3,                          /* conjugate gradients, preconditioned by one multigrid V-cycle in float32:
                                     operator-induced interpolation, Galerkin coarse operators, damped Jacobi */
  SEGPRIOR_SOFTCUT_CHEBYSHEV = 4, /* Chebyshev iteration on D^-1 A with Gershgorin's bounds; no dot products.
                                     The residual is looked at every 8 steps */
  SEGPRIOR_SOFTCUT_DIRECT = 5 /* CPU: sparse Cholesky factorisation in float64, where the library was built
                                 with Eigen; else SEGPRIOR_ERROR_NOT_SUPPORTED. Allocates */
};

/* The vector norm of the stopping rule. */
enum {
  SEGPRIOR_NORM_L2 = 0, /* root of the sum of squares */
  SEGPRIOR_NORM_L1 = 1  /* sum of magnitudes */
};

/* Fill with segprior_softcut_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_softcut_opts {
  size_t struct_size;
  int32_t solver; /* SEGPRIOR_SOFTCUT_*. _AUTO */
  int32_t
      max_iterations; /* cap >= 1; 0: 500 with multigrid, else 2000. Iterations are counted per system. 0 */
  double tolerance;   /* > 0: a system stops when its residual r = p - A x is below it, see below. 1e-6 */
  int32_t norm;       /* SEGPRIOR_NORM_L2 or _L1. _L2 */
  int32_t absolute;   /* 0: |r| <= tolerance |p|. 1: the mean over the voxels of |r| (L1), or the root of the
                         mean of r^2 (L2), <= tolerance. 0 */
  int32_t batch;      /* 1: all systems count as one long vector in the rule and stop together, after the same
                         number of iterations; [SC] section 3 is absolute = 1, norm = _L1, batch = 1. 0 */
  int32_t accumulate; /* 1: backward adds to its outputs. 0: it overwrites them. 0 */
  double backward_tolerance; /* > 0: the same of the backward solves: |r| <= it * |incoming gradient| (L2),
                                always relative and per system. 1e-6 */
  int32_t backward_max_iterations; /* cap >= 1 of the backward solves; 0: as max_iterations. 0 */
  int32_t path;                    /* SEGPRIOR_PATH_*; the CPU ignores it. _AUTO */
} segprior_softcut_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_softcut_opts) as the caller compiled it.
 */
SEGPRIOR_API segprior_status segprior_softcut_opts_init(segprior_softcut_opts *opts, size_t struct_size);

/* ---- Arguments ----------------------------------------------------------------------------------------- */

/* Inputs. Zero the struct, set struct_size = sizeof(segprior_softcut_inputs), then the pointers. NULL:
 * absent. */
typedef struct segprior_softcut_inputs {
  size_t struct_size;
  const segprior_tensor *scores;   /* p [B, K, *S]; required */
  const segprior_tensor *edges[3]; /* edges[m], m < nd; required; >= 0 and finite. The others must be NULL */
  const segprior_tensor *diagonals[2]; /* 2-D only, both or none; >= 0 and finite */
  const segprior_tensor *conductance; /* d [B, K, *S] or [B, 1, *S] as the edges; > 0 and finite. Absent: 1 */
  const segprior_tensor *init; /* x0 [B, K, *S], where the iteration starts. Absent: p / d. A constant in
                                  backward; _DIRECT checks that it is finite, no more */
} segprior_softcut_inputs;

/* Outputs of forward. All are overwritten. None may overlap another argument.
 * info: status SEGPRIOR_CONVERGED, _ITERATION_CAP, _PRECISION_LIMIT, _NONFINITE_INPUT (scores or init),
 * _BREAKDOWN or _INVALID_PARAMETER (an edge weight or conductance outside its domain); the last three set x
 * of the system to NaN. residual: that of the x returned, computed anew from x at the end, in the norm and
 * scale of the stopping rule, but of the system alone. */
typedef struct segprior_softcut_outputs {
  size_t struct_size;
  const segprior_tensor *x; /* [B, K, *S]; required */
  segprior_info *info;      /* [B K], device memory, 8-byte aligned. NULL: not wanted */
} segprior_softcut_outputs;

/* Gradients written by backward. NULL: not wanted. With l = A^-1 grad_x: grad p = l, grad w_ab = -(l_a - l_b)
 * (x_a - x_b), grad d = -l x (for the given x: the gradient is that of the solution, not of the iteration).
 */
typedef struct segprior_softcut_grads {
  size_t struct_size;
  const segprior_tensor *scores;       /* [B, K, *S] */
  const segprior_tensor *edges[3];     /* as inputs.edges */
  const segprior_tensor *diagonals[2]; /* as inputs.diagonals, which must be present */
  const segprior_tensor *conductance;  /* as inputs.conductance, which must be present */
  segprior_info *info;                 /* [B K], device memory, 8-byte aligned: of the backward solves */
} segprior_softcut_grads;

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* Bytes of scratch of the three compute calls. Only the presence, shapes, dtypes and device of `inputs` are
 * read, not their data (data pointers may be NULL). Any result pointer may be NULL. A workspace must be
 * aligned to 64 bytes (256 before 0.5), may be shared by successive calls on one stream and holds nothing
 * between calls. */
SEGPRIOR_API segprior_status segprior_softcut_workspace_size(segprior_context *context,
                                                             const segprior_softcut_opts *opts,
                                                             const segprior_softcut_inputs *inputs,
                                                             size_t *forward_bytes, size_t *backward_bytes,
                                                             size_t *double_backward_bytes);

/* Bytes of `saved`, which forward leaves for the backward calls: the multigrid hierarchy, so that it is built
 * once. 23 to 40 bytes per voxel and matrix with multigrid (more where rows are short), little without. */
SEGPRIOR_API segprior_status segprior_softcut_saved_size(segprior_context *context,
                                                         const segprior_softcut_opts *opts,
                                                         const segprior_softcut_inputs *inputs,
                                                         size_t *saved_bytes);

/* Computes x. `workspace` and `saved` are device memory, 64-byte aligned, of at least the queried sizes;
 * either may be NULL when its size is 0. Errors: every argument error of core.h; nothing is written then. */
SEGPRIOR_API segprior_status segprior_softcut_forward(segprior_context *context,
                                                      const segprior_softcut_opts *opts,
                                                      const segprior_softcut_inputs *inputs,
                                                      const segprior_softcut_outputs *outputs,
                                                      void *workspace, size_t workspace_bytes, void *saved,
                                                      size_t saved_bytes);

/* Gradients of a scalar loss whose gradient with respect to x is grad_x [B, K, *S]: one more solve with the
 * same matrix. `opts` and `inputs` are those of the forward call (accumulate, tolerances and caps may
 * differ); `x` is forward's output; `saved` what forward wrote, unchanged. A system that failed in forward,
 * or here, has NaN gradients; sums over classes that include it are NaN too. */
SEGPRIOR_API segprior_status segprior_softcut_backward(
    segprior_context *context, const segprior_softcut_opts *opts, const segprior_softcut_inputs *inputs,
    const segprior_tensor *x, const segprior_tensor *grad_x, const segprior_softcut_grads *grads,
    void *workspace, size_t workspace_bytes, const void *saved, size_t saved_bytes);

/* Cotangents of backward's results, in the shapes and dtypes of segprior_softcut_grads. NULL: zero. */
typedef struct segprior_softcut_cotangents {
  size_t struct_size;
  const segprior_tensor *scores;       /* a [B, K, *S] */
  const segprior_tensor *edges[3];     /* b, as inputs.edges */
  const segprior_tensor *diagonals[2]; /* b, as inputs.diagonals */
  const segprior_tensor *conductance;  /* c, as inputs.conductance */
} segprior_softcut_cotangents;

/* Results of the double backward. NULL: not wanted. */
typedef struct segprior_softcut_second_grads {
  size_t struct_size;
  const segprior_tensor *grad_x;       /* y [B, K, *S] */
  const segprior_tensor *scores;       /* z [B, K, *S] */
  const segprior_tensor *edges[3];     /* as inputs.edges */
  const segprior_tensor *diagonals[2]; /* as inputs.diagonals, which must be present */
  const segprior_tensor *conductance;  /* as inputs.conductance, which must be present */
  segprior_info *info; /* [2 B K], device memory, 8-byte aligned: of the solves for y, then of those for z */
} segprior_softcut_second_grads;

/* clang-format off */
/* Double backward. Given the cotangents a, b, c of backward's results grads.scores, grads.edges (and diagonals)
 * and grads.conductance, the gradients with respect to backward's own arguments. With l = grads.scores as backward
 * (not accumulating) wrote it, given as `grad_scores`, x forward's output, A(b, c) the matrix with weights b and
 * conductance c:
 *
 *   y = A^-1 (a - A(b, c) x),     z = -A^-1 A(b, c) l
 *   grad grad_x = y,     grad p = z,     grad w_ab = -(y_a - y_b)(l_a - l_b) - (z_a - z_b)(x_a - x_b),
 *   grad d = -y l - z x
 *
 * The solves stop as backward's do. */
/* clang-format on */
SEGPRIOR_API segprior_status segprior_softcut_double_backward(
    segprior_context *context, const segprior_softcut_opts *opts, const segprior_softcut_inputs *inputs,
    const segprior_tensor *x, const segprior_tensor *grad_scores,
    const segprior_softcut_cotangents *cotangents, const segprior_softcut_second_grads *grads,
    void *workspace, size_t workspace_bytes, const void *saved, size_t saved_bytes);

/* ---- The matrix ---------------------------------------------------------------------------------------- */

/* Number of stored entries of one matrix: J + 2 times its edges. */
SEGPRIOR_API segprior_status segprior_softcut_csr_size(segprior_context *context,
                                                       const segprior_softcut_inputs *inputs,
                                                       int64_t *entries);

/* Writes A in compressed sparse row form, both triangles, columns ascending in each row. `row_offsets` [J +
 * 1] and `columns` [entries] are shared by all matrices (voxels numbered in C order), device memory, 4-byte
 * aligned; `values` [M, entries] has the scores' dtype. SEGPRIOR_ERROR_SIZE_OVERFLOW where entries >= 2^31,
 * SEGPRIOR_ERROR_NOT_SUPPORTED for 16-bit edges. */
SEGPRIOR_API segprior_status segprior_softcut_csr(segprior_context *context,
                                                  const segprior_softcut_inputs *inputs, int32_t *row_offsets,
                                                  int32_t *columns, const segprior_tensor *values);

#ifdef __cplusplus
}
#endif
#endif
