// The copies of softmax_stage.cpp on CUDA: one thread per voxel of an image walks its classes, so that the
// mask is read once.
#include "kernels/common/cuda.h"
#include "kernels/common/half.h"
#include "kernels/softmax/softmax_cuda.h"
#include "kernels/softmax/softmax_stage.h"

namespace segprior::softmax::cuda {

namespace {

template <class T>
struct Same {
  __device__ static T widen(T value) { return value; }
};

struct Span {
  int64_t voxels, chunks;
  int classes;
};

Span span_of(const Grid &g) {
  return {g.voxels(), ceil_div(g.voxels(), kThreads), static_cast<int>(g.classes)};
}

// work(image, voxel, element) for this thread's voxel in every class.
template <class Work>
__device__ void for_classes(const Span &span, const Work &work) {
  const int64_t image = blockIdx.x / span.chunks, x = blockIdx.x % span.chunks * kThreads + threadIdx.x;
  if (x >= span.voxels) return;
  for (int i = 0; i < span.classes; ++i) work(image, x, (image * span.classes + i) * span.voxels + x);
}

// mask [B, J], or [1, J] with mask_stride 0; null: none.
template <class Format, class From, class To>
__global__ void __launch_bounds__(kThreads)
    load_kernel(Span span, const From *from, const uint8_t *mask, int64_t mask_stride, To *to) {
  for_classes(span, [&](int64_t image, int64_t x, int64_t k) {
    to[k] = mask && !mask[image * mask_stride + x] ? To(0) : To(Format::widen(from[k]));
  });
}

template <class Format>
__global__ void __launch_bounds__(kThreads) store_kernel(Span span, const float *from, uint16_t *to) {
  for_classes(span, [&](int64_t, int64_t, int64_t k) { to[k] = Format::narrow(from[k]); });
}

template <class Format, class From, class To>
void load_as(const Problem &p, const void *tensor, void *array, void *stream) {
  const Span span = span_of(p.grid);
  launch("load", load_kernel<Format, From, To>, dim3(p.grid.batch * span.chunks), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), span, static_cast<const From *>(tensor),
         p.has_mask ? p.mask : nullptr, p.mask_shared ? 0 : span.voxels, static_cast<To *>(array));
}

template <class Format>
void store_as(const Problem &p, const void *array, void *tensor, void *stream) {
  const Span span = span_of(p.grid);
  launch("store", store_kernel<Format>, dim3(p.grid.batch * span.chunks), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), span, static_cast<const float *>(array),
         static_cast<uint16_t *>(tensor));
}

}  // namespace

void load(const Problem &p, const void *tensor, void *array, int, void *stream) {
  if (p.storage == Storage::f16)
    load_as<Half, uint16_t, float>(p, tensor, array, stream);
  else if (p.storage == Storage::bf16)
    load_as<Bfloat, uint16_t, float>(p, tensor, array, stream);
  else if (p.dtype == DType::f32)
    load_as<Same<float>, float, float>(p, tensor, array, stream);
  else
    load_as<Same<double>, double, double>(p, tensor, array, stream);
}

void store(const Problem &p, const void *array, void *tensor, int, void *stream) {
  if (p.storage == Storage::f16)
    store_as<Half>(p, array, tensor, stream);
  else
    store_as<Bfloat>(p, array, tensor, stream);
}

}  // namespace segprior::softmax::cuda
