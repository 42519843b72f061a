/* softcut.h alone, in C99: the struct layouts are part of the ABI. */
#include "segprior/softcut.h"

#include "tests/capi/headers.h"

int segprior_test_softcut_header(void) {
  segprior_softcut_opts opts;
  if (segprior_softcut_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.solver != SEGPRIOR_SOFTCUT_AUTO) return 2;
  if (opts.max_iterations != 0 || opts.tolerance != 1e-6 || opts.norm != SEGPRIOR_NORM_L2) return 3;
  if (opts.absolute != 0 || opts.batch != 0 || opts.accumulate != 0) return 4;
  if (opts.backward_tolerance != 1e-6 || opts.backward_max_iterations != 0) return 5;
  if (opts.path != SEGPRIOR_PATH_AUTO) return 6;
  if (offsetof(segprior_softcut_opts, solver) != sizeof(size_t)) return 7;
  if (offsetof(segprior_softcut_inputs, scores) != sizeof(size_t)) return 8;
  if (sizeof(segprior_softcut_inputs) != sizeof(size_t) + 8 * sizeof(void *)) return 9;
  if (sizeof(segprior_softcut_outputs) != sizeof(size_t) + 2 * sizeof(void *)) return 10;
  if (sizeof(segprior_softcut_grads) != sizeof(size_t) + 8 * sizeof(void *)) return 11;
  if (sizeof(segprior_softcut_cotangents) != sizeof(size_t) + 7 * sizeof(void *)) return 12;
  if (sizeof(segprior_softcut_second_grads) != sizeof(size_t) + 9 * sizeof(void *)) return 13;
  if (SEGPRIOR_PRECISION_LIMIT != 6) return 14;
  return 0;
}
