/* Segments a small noisy picture into two classes with the entropic softmax: a total-variation prior smooths
 * the labels, a volume prior fixes the size of the bright class and a star-shape prior lets every point of it
 * be seen from its centre. Then computes the gradient of a loss through all iterations and compares one
 * directional derivative with a finite difference.
 *
 * Plain C99, no other library. Build against an installed libsegprior:
 *   cc -std=c99 example.c $(pkg-config --cflags --libs segprior) -lm -o example
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "segprior/segprior.h"

enum { CLASSES = 2, ROWS = 20, COLUMNS = 48, VOXELS = ROWS * COLUMNS };

/* Every call that can fail returns a status; segprior_last_error says which argument broke which rule. */
static void check(segprior_status status) {
  if (status == SEGPRIOR_OK) return;
  fprintf(stderr, "%s: %s\n", segprior_status_string(status), segprior_last_error());
  exit(1);
}

static const segprior_device cpu = {SEGPRIOR_CPU, 0};

/* A contiguous float64 tensor over memory of the caller. */
static segprior_tensor view(double *data, int32_t ndim, const int64_t *shape) {
  segprior_tensor t = {0};
  t.data = data;
  t.device = cpu;
  t.dtype = SEGPRIOR_FLOAT64;
  t.ndim = ndim;
  t.shape = shape;
  return t;
}

/* The library allocates nothing itself: it asks for two buffers, aligned to 256 bytes. */
struct buffer {
  void *allocation, *data;
  size_t bytes;
};

static struct buffer buffer_create(size_t bytes) {
  const uintptr_t alignment = 256;
  struct buffer b;
  b.allocation = malloc(bytes + alignment);
  if (!b.allocation) exit(1);
  b.data = (void *)(((uintptr_t)b.allocation + alignment - 1) / alignment * alignment);
  b.bytes = bytes;
  return b;
}

/* A disc with uniform noise; the features of the bright class, and their negatives for the other class. */
static double inside(int x) {
  const double row = x / COLUMNS - 9.5, column = (x % COLUMNS - 23.5) / 2;
  return row * row + column * column < 49 ? 1 : 0;
}

static void fill_features(double *features) {
  unsigned state = 1;
  for (int x = 0; x < VOXELS; x++) {
    state = state * 1664525u + 1013904223u;
    const double noise = (state >> 8) / (double)(1u << 24) - 0.5;
    features[x] = inside(x) - 0.5 + 2 * noise;
    features[VOXELS + x] = -features[x];
  }
}

static void print_labels(const char *title, const double *scores) {
  printf("%s\n", title);
  for (int x = 0; x < VOXELS; x++) {
    putchar(scores[x] > scores[VOXELS + x] ? '#' : '.');
    if (x % COLUMNS == COLUMNS - 1) putchar('\n');
  }
}

/* loss = 1/2 sum_x (u_bright(x) - inside(x))^2; its gradient with respect to u goes to grad_u. */
static double loss(const double *u, double *grad_u) {
  double sum = 0;
  for (int x = 0; x < VOXELS; x++) {
    const double difference = u[x] - inside(x);
    sum += difference * difference / 2;
    grad_u[x] = difference;
    grad_u[VOXELS + x] = 0;
  }
  return sum;
}

int main(void) {
  static double features[CLASSES * VOXELS], u[CLASSES * VOXELS], grad_u[CLASSES * VOXELS];
  static double grad_features[CLASSES * VOXELS];
  double volume[CLASSES] = {0, 0}; /* voxels per class */
  double center[2] = {9.5, 23.5};  /* row and column that the bright class is star-shaped about */
  const int32_t bright_class[1] = {0};
  segprior_info info;

  fill_features(features);
  for (int x = 0; x < VOXELS; x++) volume[0] += inside(x);
  volume[1] = VOXELS - volume[0];

  /* A context belongs to one device and one thread at a time. */
  segprior_context *context;
  check(segprior_context_create(cpu, &context));

  /* Tensors are views: [batch, classes, rows, columns], [batch, classes], [batch, star classes, axes]. */
  const int64_t image_shape[4] = {1, CLASSES, ROWS, COLUMNS}, volume_shape[2] = {1, CLASSES};
  const int64_t center_shape[3] = {1, 1, 2};
  const segprior_tensor features_view = view(features, 4, image_shape), u_view = view(u, 4, image_shape);
  const segprior_tensor grad_u_view = view(grad_u, 4, image_shape);
  const segprior_tensor grad_features_view = view(grad_features, 4, image_shape);
  const segprior_tensor volume_view = view(volume, 2, volume_shape);
  const segprior_tensor center_view = view(center, 3, center_shape);

  segprior_softmax_opts opts;
  check(segprior_softmax_opts_init(&opts, sizeof opts));
  opts.iterations = 100;
  opts.eps = 0.5;
  opts.tv = 1;
  opts.tv_lam = 0.6;
  opts.star_count = 1;
  opts.star_classes = bright_class;
  opts.backward_mode = SEGPRIOR_BACKWARD_UNROLLED;
  opts.checkpoint_interval = 10; /* keep every tenth iterate for backward, recompute between them */

  segprior_softmax_inputs inputs = {0};
  inputs.struct_size = sizeof inputs;
  inputs.features = &features_view;
  inputs.volume = &volume_view;
  inputs.star_center = &center_view;

  segprior_softmax_outputs outputs = {0};
  outputs.struct_size = sizeof outputs;
  outputs.u = &u_view;
  outputs.info = &info;

  size_t forward_bytes, backward_bytes, saved_bytes;
  check(segprior_softmax_workspace_size(context, &opts, &inputs, &forward_bytes, &backward_bytes));
  check(segprior_softmax_saved_size(context, &opts, &inputs, &saved_bytes));
  struct buffer workspace = buffer_create(forward_bytes > backward_bytes ? forward_bytes : backward_bytes);
  struct buffer saved = buffer_create(saved_bytes);

  check(segprior_softmax_forward(context, &opts, &inputs, &outputs, workspace.data, workspace.bytes,
                                 saved.data, saved.bytes));
  double bright = 0;
  for (int x = 0; x < VOXELS; x++) bright += u[x];
  print_labels("features alone:", features);
  print_labels("with TV, volume and star-shape priors:", u);
  printf("volume of the bright class: asked for %g, reached %.6f\n", volume[0], bright);
  printf("iterations: %d, last change of u: %.2e\n", (int)info.iterations, info.residual);

  loss(u, grad_u);
  segprior_softmax_grads grads = {0};
  grads.struct_size = sizeof grads;
  grads.features = &grad_features_view;
  check(segprior_softmax_backward(context, &opts, &inputs, NULL, &grad_u_view, &grads, workspace.data,
                                  workspace.bytes, saved.data, saved.bytes));

  /* The derivative along one direction, by backward and by a central difference of two forward calls. */
  const double step = 1e-5;
  double derivative = 0, difference = 0;
  for (int x = 0; x < CLASSES * VOXELS; x++) derivative += grad_features[x] * sin(x);
  for (int sign = -1; sign <= 1; sign += 2) {
    fill_features(features);
    for (int x = 0; x < CLASSES * VOXELS; x++) features[x] += sign * step * sin(x);
    check(segprior_softmax_forward(context, &opts, &inputs, &outputs, workspace.data, workspace.bytes,
                                   saved.data, saved.bytes));
    difference += sign * loss(u, grad_u) / (2 * step);
  }
  printf("directional derivative: %.8f by backward, %.8f by a finite difference\n", derivative, difference);

  free(workspace.allocation);
  free(saved.allocation);
  segprior_context_destroy(context);
  if (fabs(bright - volume[0]) > 1 || fabs(derivative - difference) > 1e-5 * (1 + fabs(difference))) {
    fprintf(stderr, "unexpected result\n");
    return 1;
  }
  return 0;
}
