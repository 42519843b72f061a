// The copies of softmax_stage.cpp on the CPU: runs of one class's voxels, in loops that the compiler
// vectorises. Threads share the runs; nothing is summed, so that the split does not show.
#include <algorithm>

#include "kernels/common/half.h"
#include "kernels/softmax/softmax_stage.h"

namespace segprior::softmax {
namespace {

constexpr int64_t kRun = 4096;

// work(image, first element of the run, first voxel of the run, length) for all of [B, I, J].
template <class Work>
void for_runs(const Grid &g, int threads, const Work &work) {
  const int64_t voxels = g.voxels(), runs = (voxels + kRun - 1) / kRun;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t job = 0; job < g.batch * g.classes * runs; ++job) {
    const int64_t plane = job / runs, begin = job % runs * kRun;
    work(plane / g.classes, plane * voxels + begin, begin, std::min(kRun, voxels - begin));
  }
}

template <class T>
struct Same {
  static T widen(T value) { return value; }
};

template <class Format, class From, class To>
void load(const Problem &p, const void *tensor, void *array, int threads) {
  const int64_t voxels = p.grid.voxels();
  for_runs(p.grid, threads, [&](int64_t image, int64_t first, int64_t x, int64_t length) {
    const From *__restrict from = static_cast<const From *>(tensor) + first;
    To *__restrict to = static_cast<To *>(array) + first;
    if (p.has_mask) {
      const uint8_t *__restrict mask = p.mask + (p.mask_shared ? 0 : image * voxels) + x;
      for (int64_t k = 0; k < length; ++k) {
        const To value = Format::widen(from[k]);
        to[k] = mask[k] ? value : To(0);
      }
    } else {
      for (int64_t k = 0; k < length; ++k) to[k] = Format::widen(from[k]);
    }
  });
}

template <class Format>
void store(const Problem &p, const void *array, void *tensor, int threads) {
  for_runs(p.grid, threads, [&](int64_t, int64_t first, int64_t, int64_t length) {
    const float *__restrict from = static_cast<const float *>(array) + first;
    uint16_t *__restrict to = static_cast<uint16_t *>(tensor) + first;
    for (int64_t k = 0; k < length; ++k) to[k] = Format::narrow(from[k]);
  });
}

}  // namespace

void cpu_load(const Problem &p, const void *tensor, void *array, int threads, void *) {
  if (p.storage == Storage::f16)
    load<Half, uint16_t, float>(p, tensor, array, threads);
  else if (p.storage == Storage::bf16)
    load<Bfloat, uint16_t, float>(p, tensor, array, threads);
  else if (p.dtype == DType::f32)
    load<Same<float>, float, float>(p, tensor, array, threads);
  else
    load<Same<double>, double, double>(p, tensor, array, threads);
}

void cpu_store(const Problem &p, const void *array, void *tensor, int threads, void *) {
  if (p.storage == Storage::f16)
    store<Half>(p, array, tensor, threads);
  else
    store<Bfloat>(p, array, tensor, threads);
}

}  // namespace segprior::softmax
