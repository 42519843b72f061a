// 16-bit edges to float32 and back, in loops that the compiler vectorises.
#include <algorithm>

#include "kernels/common/half.h"
#include "kernels/softcut/softcut_cpu.h"

namespace segprior::softcut {
namespace {

constexpr int64_t kRun = 4096;

// work(first, end) over runs of `count` elements.
template <class Work>
void for_runs(int64_t count, int threads, const Work &work) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t begin = 0; begin < count; begin += kRun) work(begin, std::min(count, begin + kRun));
}

template <class Format>
void widen(const void *from, float *to, int64_t count, int threads) {
  for_runs(count, threads, [&](int64_t begin, int64_t end) {
    const uint16_t *__restrict in = static_cast<const uint16_t *>(from);
    float *__restrict out = to;
    for (int64_t k = begin; k < end; ++k) out[k] = Format::widen(in[k]);
  });
}

template <class Format>
void narrow(const float *from, void *to, int64_t count, int threads) {
  for_runs(count, threads, [&](int64_t begin, int64_t end) {
    const float *__restrict in = from;
    uint16_t *__restrict out = static_cast<uint16_t *>(to);
    for (int64_t k = begin; k < end; ++k) out[k] = Format::narrow(in[k]);
  });
}

}  // namespace

void cpu_widen(Storage storage, const void *from, float *to, int64_t count, int threads, void *) {
  storage == Storage::f16 ? widen<Half>(from, to, count, threads) : widen<Bfloat>(from, to, count, threads);
}

void cpu_narrow(Storage storage, const float *from, void *to, int64_t count, int threads, void *) {
  storage == Storage::f16 ? narrow<Half>(from, to, count, threads) : narrow<Bfloat>(from, to, count, threads);
}

}  // namespace segprior::softcut
