// Confusion matrices, volumes and faces on CUDA: a block counts a chunk of an image's voxels into a histogram
// in shared memory, and adds that to the result. Integers: exact in any order. Bytes per voxel: labels and
// prediction (or scores, 4 I in float32) once, mask once; faces read a label once more per axis, from cache.
#include "kernels/common/half.h"
#include "kernels/metrics/metrics_cuda.h"

namespace segprior::metrics::cuda {
namespace {

constexpr int64_t kChunk = 8192;  // voxels of a job: more than most histograms have cells
constexpr int64_t kCells = 8192;  // of a histogram in shared memory (32 KB); beyond, counts go to the result

struct Same {
  template <class T>
  __device__ static T widen(T value) {
    return value;
  }
};

// The class of the largest of a voxel's scores, the first of equals; -1: all are NaN.
template <class Format, class From, class Real>
struct Largest {
  __device__ static int predict(const Confusion &c, int64_t b, int64_t x) {
    const From *scores = static_cast<const From *>(c.scores) + b * c.classes * c.voxels + x;
    Real best = 0;
    int at = -1;
    for (int i = 0; i < static_cast<int>(c.classes); ++i) {
      const Real value = Format::widen(scores[i * c.voxels]);
      if (value == value && (at < 0 || value > best)) {
        best = value;
        at = i;
      }
    }
    return at;
  }
};

struct Given {
  __device__ static int predict(const Confusion &c, int64_t b, int64_t x) {
    const int64_t label = label_at(c.prediction, c.prediction_type, b * c.voxels + x);
    return label >= 0 && label < c.classes ? static_cast<int>(label) : -1;
  }
};

// The cell of a voxel in its image's matrix; I^2 if it is invalid; -1 if it does not count.
template <class Prediction>
__device__ int key_of(const Confusion &c, int64_t b, int64_t x) {
  if (c.mask && !c.mask[(c.mask_shared ? 0 : b * c.voxels) + x]) return -1;
  const int64_t label = label_at(c.labels, c.label_type, b * c.voxels + x);
  if (label < 0 || label == c.ignore_label) return -1;
  const int classes = static_cast<int>(c.classes), predicted = Prediction::predict(c, b, x);
  return label < classes && predicted >= 0 ? static_cast<int>(label) * classes + predicted
                                           : classes * classes;
}

template <class Prediction>
__global__ void __launch_bounds__(kThreads) confusion_kernel(Confusion c, int64_t chunks, bool local) {
  unsigned *histogram = dynamic_shared<unsigned>();
  const int cells = static_cast<int>(c.classes * c.classes);
  for (int64_t job = blockIdx.x; job < c.batch * chunks; job += gridDim.x) {
    const int64_t b = quotient(job, chunks), begin = (job - b * chunks) * kChunk;
    const int64_t end = begin + kChunk < c.voxels ? begin + kChunk : c.voxels;
    int64_t *matrix = c.matrix + b * cells;
    const auto to_result = [&](int key, unsigned often) {
      if (key < cells)
        add_to(&matrix[key], often);
      else if (c.invalid)
        add_to(&c.invalid[b], often);
    };
    if (local) {
      for (int k = threadIdx.x; k <= cells; k += kThreads) histogram[k] = 0;
      __syncthreads();
    }
    for (int64_t first = begin; first < end; first += kThreads) {
      const int64_t x = first + threadIdx.x;
      const int key = x < end ? key_of<Prediction>(c, b, x) : -1;
      if (local)
        count_warp(key, [&](int k, unsigned often) { atomicAdd(&histogram[k], often); });
      else
        count_warp(key, to_result);
    }
    if (!local) continue;
    __syncthreads();
    for (int k = threadIdx.x; k <= cells; k += kThreads)
      if (histogram[k] > 0) to_result(k, histogram[k]);
    __syncthreads();
  }
}

template <class Prediction>
void launch_confusion(const Confusion &c, cudaStream_t stream) {
  const int64_t chunks = ceil_div(c.voxels, kChunk), cells = c.classes * c.classes;
  const bool local = cells < kCells;
  launch("metrics_confusion", confusion_kernel<Prediction>, grid_of(c.batch * chunks), dim3(kThreads),
         local ? (cells + 1) * sizeof(unsigned) : 0, stream, c, chunks, local);
}

// ---- Volumes and faces ---------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads) geometry_kernel(Geometry g, int64_t chunks, bool local) {
  unsigned *histogram = dynamic_shared<unsigned>();  // [I] volumes, then [I, axes] faces
  const int64_t voxels = g.voxels(), width = g.extent[2], cells = g.classes * (1 + g.axes);
  const int64_t stride[kAxes] = {g.extent[1] * width, width, 1};
  for (int64_t job = blockIdx.x; job < g.batch * chunks; job += gridDim.x) {
    const int64_t b = quotient(job, chunks), begin = (job - b * chunks) * kChunk;
    const int64_t end = begin + kChunk < voxels ? begin + kChunk : voxels;
    const uint8_t *mask = g.mask ? g.mask + (g.mask_shared ? 0 : b * voxels) : nullptr;
    const auto to_result = [&](int64_t k, unsigned often) {
      int64_t *counts = k < g.classes ? g.volumes : g.faces;
      if (!counts) return;
      add_to(k < g.classes ? &counts[b * g.classes + k] : &counts[(b * g.axes - 1) * g.classes + k], often);
    };
    const auto add = [&](int64_t k, unsigned often) {
      if (local)
        atomicAdd(&histogram[k], often);
      else
        to_result(k, often);
    };
    if (local) {
      for (int k = threadIdx.x; k < cells; k += kThreads) histogram[k] = 0;
      __syncthreads();
    }
    for (int64_t first = begin; first < end; first += kThreads) {
      const int64_t v = first + threadIdx.x;
      const bool counts = v < end && (!mask || mask[v]);
      const int64_t label = counts ? label_at(g.labels, g.type, b * voxels + v) : -1;
      const bool known = label >= 0 && label < g.classes;
      count_warp(known ? static_cast<int>(label) : -1, add);
      if (!counts || !g.faces) continue;
      const int64_t row = quotient(v, width), slice = quotient(row, g.extent[1]);
      const int64_t at[kAxes] = {slice, row - slice * g.extent[1], v - row * width};
#pragma unroll
      for (int k = 0; k < kAxes; ++k) {
        const int64_t next = v + stride[k];
        if (at[k] + 1 >= g.extent[k] || (mask && !mask[next])) continue;
        const int64_t other = label_at(g.labels, g.type, b * voxels + next);
        if (other == label) continue;
        const int64_t axis = g.classes + k - (kAxes - g.axes);  // of class 0 in the histogram
        if (known) add(axis + label * g.axes, 1u);
        if (other >= 0 && other < g.classes) add(axis + other * g.axes, 1u);
      }
    }
    if (!local) continue;
    __syncthreads();
    for (int k = threadIdx.x; k < cells; k += kThreads)
      if (histogram[k] > 0) to_result(k, histogram[k]);
    __syncthreads();
  }
}

}  // namespace

void confusion(const Confusion &c, int, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  clear(c.matrix, c.batch * c.classes * c.classes, queue);
  clear(c.invalid, c.batch, queue);
  if (c.voxels == 0) return;
  if (!c.scores) return launch_confusion<Given>(c, queue);
  switch (c.scores_are) {
    case Storage::f32:
      return launch_confusion<Largest<Same, float, float>>(c, queue);
    case Storage::f64:
      return launch_confusion<Largest<Same, double, double>>(c, queue);
    case Storage::f16:
      return launch_confusion<Largest<Half, uint16_t, float>>(c, queue);
    case Storage::bf16:
      return launch_confusion<Largest<Bfloat, uint16_t, float>>(c, queue);
  }
}

void geometry(const Geometry &g, int, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  clear(g.volumes, g.batch * g.classes, queue);
  clear(g.faces, g.batch * g.classes * g.axes, queue);
  if (g.voxels() == 0 || g.classes == 0) return;
  const int64_t chunks = ceil_div(g.voxels(), kChunk), cells = g.classes * (1 + g.axes);
  const bool local = cells <= kCells;
  launch("metrics_geometry", geometry_kernel, grid_of(g.batch * chunks), dim3(kThreads),
         local ? cells * sizeof(unsigned) : 0, queue, g, chunks, local);
}

}  // namespace segprior::metrics::cuda
