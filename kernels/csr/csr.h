// Internal contract of the CSR solve: what capi/ hands to a backend, after every argument but the matrix was
// checked. Public contract: include/segprior/csr.h. Notation: csr.md.
#pragma once

#include <cstdint>

#include "segprior/core.h"

namespace segprior::csr {

struct Problem {
  int64_t rows, entries, count;  // count: right-hand sides, >= 1; rows >= 1
  const int32_t *row_offsets;    // [rows + 1]
  const int32_t *columns;        // [entries]
  bool f64;                      // dtype of what follows; else float32
  const void *values;            // [entries]
  const void *rhs, *init;        // [count, rows]; init may be null
  void *x;                       // [count, rows]
  segprior_info *info;           // [count]; null: not wanted
  bool incomplete_cholesky;
  double tolerance;
  int max_iterations;
};

// All pointers are host memory, or all the current device's. Both allocate; solve_cuda() waits for the
// stream.
void solve_cpu(const Problem &, int threads);
void solve_cuda(const Problem &, void *stream);

}  // namespace segprior::csr
