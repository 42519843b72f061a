/* unload <libsegprior.so>: a host that loads the library, uses it with two threads and unloads it.
 *
 * OpenMP keeps a thread waiting for the next call (OMP_WAIT_POLICY=active: in a loop). If unloading took its
 * code away, the program would crash. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segprior/segprior.h"

enum { CLASSES = 2, SIDE = 64, VOXELS = SIDE * SIDE };

static void *library;

/* Copies the address of a function; ISO C converts no object pointer to a function pointer. */
static void find(const char *name, void *function) {
  void *address = dlsym(library, name);
  if (!address) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  memcpy(function, &address, sizeof address);
}

static void check(segprior_status status) {
  if (status == SEGPRIOR_OK) return;
  fprintf(stderr, "status %d\n", (int)status);
  exit(1);
}

static void use(void) {
  static float features[CLASSES * VOXELS], u[CLASSES * VOXELS];
  const int64_t shape[4] = {1, CLASSES, SIDE, SIDE};
  const segprior_device cpu = {SEGPRIOR_CPU, 0};
  segprior_tensor features_view = {0}, u_view;
  segprior_softmax_inputs inputs = {0};
  segprior_softmax_outputs outputs = {0};
  segprior_softmax_opts opts;
  segprior_context *context = NULL;
  size_t bytes = 0;
  void *workspace = NULL;

  segprior_status (*create)(segprior_device, segprior_context **);
  segprior_status (*set_threads)(segprior_context *, int32_t);
  segprior_status (*opts_init)(segprior_softmax_opts *, size_t);
  segprior_status (*workspace_size)(segprior_context *, const segprior_softmax_opts *,
                                    const segprior_softmax_inputs *, size_t *, size_t *);
  segprior_status (*forward)(segprior_context *, const segprior_softmax_opts *,
                             const segprior_softmax_inputs *, const segprior_softmax_outputs *, void *,
                             size_t, void *, size_t);
  void (*destroy)(segprior_context *);
  find("segprior_context_create", &create);
  find("segprior_context_set_threads", &set_threads);
  find("segprior_softmax_opts_init", &opts_init);
  find("segprior_softmax_workspace_size", &workspace_size);
  find("segprior_softmax_forward", &forward);
  find("segprior_context_destroy", &destroy);

  features_view.data = features;
  features_view.device = cpu;
  features_view.dtype = SEGPRIOR_FLOAT32;
  features_view.ndim = 4;
  features_view.shape = shape;
  u_view = features_view;
  u_view.data = u;
  inputs.struct_size = sizeof inputs;
  inputs.features = &features_view;
  outputs.struct_size = sizeof outputs;
  outputs.u = &u_view;
  check(create(cpu, &context));
  check(set_threads(context, 2));
  check(opts_init(&opts, sizeof opts));
  opts.tv = 1;
  check(workspace_size(context, &opts, &inputs, &bytes, NULL));
  if (posix_memalign(&workspace, 256, bytes)) exit(1);
  check(forward(context, &opts, &inputs, &outputs, workspace, bytes, NULL, 0));
  free(workspace);
  destroy(context);
}

int main(int argc, char **argv) {
  const struct timespec moment = {0, 100 * 1000 * 1000};
  if (argc != 2 || !(library = dlopen(argv[1], RTLD_NOW))) {
    fprintf(stderr, "unload: %s\n", argc == 2 ? dlerror() : "needs the library's path");
    return 1;
  }
  use();
  dlclose(library);
  nanosleep(&moment, NULL); /* for the waiting threads to run into it */
  puts("unloaded");
  return 0;
}
