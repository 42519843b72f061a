/* proposals.h alone, in C99: the struct layouts are part of the ABI. */
#include "segprior/proposals.h"

#include "tests/capi/headers.h"

int segprior_test_proposals_header(void) {
  segprior_proposal_opts opts;
  if (segprior_proposal_opts_init(&opts, sizeof opts) != SEGPRIOR_OK) return 1;
  if (opts.struct_size != sizeof opts || opts.method != SEGPRIOR_PROPOSAL_EXACT) return 2;
  if (opts.iterations != 500 || opts.step != 5e-5 || opts.tolerance != 1e-6) return 3;
  if (SEGPRIOR_PROPOSAL_EXACT != 0 || SEGPRIOR_PROPOSAL_GRADIENT != 1) return 4;
  if (offsetof(segprior_proposal_opts, method) != sizeof(size_t)) return 5;
  if (offsetof(segprior_proposal_opts, step) != sizeof(size_t) + 8) return 6;
  if (sizeof(segprior_proposal_opts) != sizeof(size_t) + 24) return 7;
  if (sizeof(segprior_proposal_inputs) != sizeof(size_t) + 4 * sizeof(void *)) return 8;
  if (sizeof(segprior_proposal_outputs) != sizeof(size_t) + 4 * sizeof(void *)) return 9;
  if (offsetof(segprior_proposal_inputs, logits) != sizeof(size_t)) return 10;
  if (offsetof(segprior_proposal_outputs, proposal) != sizeof(size_t)) return 11;
  return 0;
}
