/* core.h alone, in C99. */
#include "segprior/core.h"

#include "tests/capi/headers.h"

int segprior_test_core_header(void) {
  const segprior_device device = {SEGPRIOR_CPU, 0};
  segprior_context *context = NULL;
  segprior_tensor tensor;
  segprior_info info;
  tensor.device = device;
  info.status = SEGPRIOR_CONVERGED;
  if (segprior_version() !=
      SEGPRIOR_VERSION_MAJOR * 10000 + SEGPRIOR_VERSION_MINOR * 100 + SEGPRIOR_VERSION_PATCH)
    return 1;
  if (segprior_context_create(tensor.device, &context) != SEGPRIOR_OK) return 2;
  segprior_context_destroy(context);
  return sizeof(segprior_info) == 16 && info.status == 0 ? 0 : 3;
}
