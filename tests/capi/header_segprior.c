/* segprior.h alone, in C99: it brings everything. */
#include "segprior/segprior.h"

#include "tests/capi/headers.h"

int segprior_test_segprior_header(void) {
  segprior_softmax_inputs inputs = {sizeof inputs, NULL, NULL, NULL, NULL, NULL,
                                    NULL,          NULL, NULL, NULL, NULL};
  return inputs.features == NULL && segprior_status_string(SEGPRIOR_OK) != NULL ? 0 : 1;
}
