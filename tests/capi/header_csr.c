/* csr.h alone, in C99: the struct layout is part of the ABI. */
#include "segprior/csr.h"

#include "tests/capi/headers.h"

int segprior_test_csr_header(void) {
  segprior_csr_opts opts;
  if (segprior_csr_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.max_iterations != 0 || opts.tolerance != 1e-6) return 2;
  if (opts.preconditioner != SEGPRIOR_CSR_IC0) return 3;
  if (offsetof(segprior_csr_opts, max_iterations) != sizeof(size_t)) return 4;
  return sizeof(segprior_csr_opts) == sizeof(size_t) + 2 * sizeof(int32_t) + sizeof(double) ? 0 : 5;
}
