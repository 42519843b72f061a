// 16-bit edges to float32 and back, on CUDA.
#include "kernels/common/half.h"
#include "kernels/softcut/softcut_cuda.h"

namespace segprior::softcut::cuda {

namespace {

template <class Format>
struct Widen {
  int64_t tiles;
  const uint16_t *from;
  float *to;
  int64_t count;
  static constexpr const char *kName = "softcut_widen";

  __device__ void operator()(int64_t tile) const {
    const int64_t i = tile * kBlock + threadIdx.x;
    if (i < count) to[i] = Format::widen(from[i]);
  }
};

template <class Format>
struct Narrow {
  int64_t tiles;
  const float *from;
  uint16_t *to;
  int64_t count;
  static constexpr const char *kName = "softcut_narrow";

  __device__ void operator()(int64_t tile) const {
    const int64_t i = tile * kBlock + threadIdx.x;
    if (i < count) to[i] = Format::narrow(from[i]);
  }
};

}  // namespace

void widen(Storage storage, const void *from, float *to, int64_t count, int, void *stream) {
  StreamingExecutor exec(nullptr, static_cast<cudaStream_t>(stream));
  const auto numbers = static_cast<const uint16_t *>(from);
  const int64_t tiles = ceil_div(count, kBlock);
  if (storage == Storage::f16)
    exec.run(Widen<Half>{tiles, numbers, to, count});
  else
    exec.run(Widen<Bfloat>{tiles, numbers, to, count});
}

void narrow(Storage storage, const float *from, void *to, int64_t count, int, void *stream) {
  StreamingExecutor exec(nullptr, static_cast<cudaStream_t>(stream));
  const auto numbers = static_cast<uint16_t *>(to);
  const int64_t tiles = ceil_div(count, kBlock);
  if (storage == Storage::f16)
    exec.run(Narrow<Half>{tiles, from, numbers, count});
  else
    exec.run(Narrow<Bfloat>{tiles, from, numbers, count});
}

}  // namespace segprior::softcut::cuda
