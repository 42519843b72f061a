/* softmax.h alone, in C99: the struct layouts are part of the ABI. */
#include "segprior/softmax.h"

#include "tests/capi/headers.h"

int segprior_test_softmax_header(void) {
  segprior_softmax_opts opts;
  if (segprior_softmax_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.iterations != 30 || opts.check_interval != 10) return 2;
  if (opts.accelerate != 0 || opts.checkpoint_interval != 0 || opts.tv != 0 || opts.accumulate != 0) return 3;
  if (opts.backward_mode != SEGPRIOR_BACKWARD_LAST || opts.reserved != 0 || opts.tolerance != 0) return 4;
  if (opts.eps != 1 || opts.init_eps != 0 || opts.tv_lam != 1 || opts.tv_tau != 0) return 5;
  if (opts.spacing[0] != 1 || opts.spacing[1] != 1 || opts.spacing[2] != 1) return 6;
  if (offsetof(segprior_softmax_opts, iterations) != sizeof(size_t)) return 7;
  if (offsetof(segprior_softmax_inputs, features) != sizeof(size_t)) return 8;
  if (sizeof(segprior_softmax_inputs) != sizeof(size_t) + 18 * sizeof(void *)) return 9;
  if (sizeof(segprior_softmax_outputs) != sizeof(size_t) + 5 * sizeof(void *)) return 10;
  if (sizeof(segprior_softmax_grads) != sizeof(size_t) + 16 * sizeof(void *)) return 11;
  if (opts.td != 0 || opts.td_size != 7 || opts.td_lam != 1 || opts.td_sigma != 5) return 12;
  if (opts.star_count != 0 || opts.star_classes != NULL || opts.star_tau != 0) return 13;
  if (opts.path != SEGPRIOR_PATH_AUTO || opts.compact_saved != 0) return 14;
  if (opts.implicit_iterations != 1000 || opts.implicit_tolerance != 1e-6) return 15;
  return 0;
}
