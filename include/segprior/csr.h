/* libsegprior, CSR solve: symmetric positive definite systems A x = b with A given entry by entry.
 *
 * For matrices that the grid operators do not have: that of segprior_softcut_csr with further edges
 * (long-range, between segments, to seeds), and for comparison with an assembled matrix. Where SoftCut's own
 * solve applies, it is faster. Conjugate gradients, preconditioned by an incomplete Cholesky factorisation
 * without fill-in, IC(0): L has the pattern of A's lower triangle, and (L L')_ij = a_ij there.
 *
 * CUDA: cuSPARSE and cuBLAS, loaded when first called; SEGPRIOR_ERROR_NOT_SUPPORTED, with the name of what is
 * missing, where they cannot be loaded or, for SEGPRIOR_CSR_IC0, where that cuSPARSE has no IC(0) any more.
 *
 * The exception to the library's rules: this call allocates (4 vectors of `rows`, the factor, what the
 * libraries need) and waits for the stream, in every iteration; it cannot be captured in a CUDA graph.
 *
 * Derivatives are left to the caller, because they are one more call: with l = A^-1 grad_x, solved here with
 * grad_x as rhs,   grad rhs = l,   grad a_ij = -l_i x_j   summed over the right-hand sides. An edge of weight
 * w between i and j adds w to a_ii and a_jj and -w to a_ij and a_ji: grad w = -(l_i - l_j)(x_i - x_j).
 */
#ifndef SEGPRIOR_CSR_H
#define SEGPRIOR_CSR_H

#include "segprior/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Preconditioners. */
enum {
  SEGPRIOR_CSR_NONE = 0, /* plain conjugate gradients */
  SEGPRIOR_CSR_IC0 = 1   /* incomplete Cholesky, no fill-in */
};

/* Fill with segprior_csr_opts_init, then change what you need. Fields are only ever appended. */
typedef struct segprior_csr_opts {
  size_t struct_size;
  int32_t max_iterations; /* cap >= 1 of each right-hand side; 0: 2000. 0 */
  int32_t preconditioner; /* SEGPRIOR_CSR_*. _IC0 */
  double tolerance;       /* > 0: a right-hand side b ends when |b - A x| <= tolerance |b| (L2). 1e-6 */
} segprior_csr_opts;

/* Fills *opts with the defaults above. struct_size = sizeof(segprior_csr_opts) as the caller compiled it. */
SEGPRIOR_API segprior_status segprior_csr_opts_init(segprior_csr_opts *opts, size_t struct_size);

/* Solves A x = b for R right-hand sides with one matrix, one after another (CPU: as many at once as there are
 * threads). All memory is the context device's, tensors C-contiguous and all of one dtype, float32 or
 * float64.
 *
 * rows, entries: of A, each < 2^31 - 1.
 * row_offsets [rows + 1], columns [entries], 4-byte aligned, values [entries]: compressed rows, both
 * triangles, columns strictly ascending in each row, every diagonal entry stored, all values finite. These
 * rules are checked first: SEGPRIOR_ERROR_VALUE names the first row that breaks one, nothing is written then.
 * That A is symmetric is not checked. rhs [R, rows]. init [R, rows]: where the iteration starts. NULL: 0. x
 * [R, rows]: overwritten; may not overlap another argument. info [R], device memory, 8-byte aligned, or NULL:
 * status SEGPRIOR_CONVERGED, _ITERATION_CAP, _PRECISION_LIMIT, _NONFINITE_INPUT (the norm of this right-hand
 * side, or of its init, is NaN or infinite) or _BREAKDOWN (A is not positive definite, or numbers exceed the
 * dtype's range; where the factorisation meets a pivot <= 0, which can happen for a positive definite A that
 * is not diagonally dominant, all R); the last two set x to NaN. residual: |b - A x| / |b| of the x returned,
 * computed anew; NaN if it failed.
 *
 * b = 0 gives x = 0. R = 0 or rows = 0 is a valid call that does nothing. CPU results do not depend on the
 * thread count. */
SEGPRIOR_API segprior_status segprior_csr_solve(segprior_context *context, const segprior_csr_opts *opts,
                                                int64_t rows, int64_t entries, const int32_t *row_offsets,
                                                const int32_t *columns, const segprior_tensor *values,
                                                const segprior_tensor *rhs, const segprior_tensor *init,
                                                const segprior_tensor *x, segprior_info *info);

#ifdef __cplusplus
}
#endif
#endif
