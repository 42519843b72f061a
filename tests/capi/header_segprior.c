/* segprior.h alone, in C99: it brings everything. */
#include "segprior/segprior.h"

#include <string.h>

#include "tests/capi/headers.h"

int segprior_test_segprior_header(void) {
  segprior_softmax_inputs inputs;
  memset(&inputs, 0, sizeof inputs);
  return inputs.features == NULL && segprior_status_string(SEGPRIOR_OK) != NULL ? 0 : 1;
}
