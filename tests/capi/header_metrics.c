/* metrics.h alone, in C99: the struct layouts are part of the ABI. */
#include "segprior/metrics.h"

#include "tests/capi/headers.h"

int segprior_test_metrics_header(void) {
  segprior_components_opts opts;
  if (segprior_components_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.full != 0 || opts.by_value != 0) return 2;
  if (opts.background != 0) return 3;
  if (offsetof(segprior_components_opts, full) != sizeof(size_t)) return 4;
  if (offsetof(segprior_components_opts, background) != sizeof(size_t) + 8) return 5;
  if (offsetof(segprior_confusion_inputs, labels) != sizeof(size_t)) return 6;
  if (sizeof(segprior_confusion_inputs) != sizeof(size_t) + 4 * sizeof(void *)) return 7;
  if (sizeof(segprior_confusion_scores_outputs) != sizeof(size_t) + 7 * sizeof(void *)) return 8;
  return 0;
}
