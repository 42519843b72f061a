#include "reduce_kernels.h"

#include "kernels/common/reduce.h"

namespace {

template <class T>
__global__ void blocks_kernel(const T *in, T *out) {
  const T value = in[blockIdx.x * segprior::block_threads() + segprior::thread_rank()];
  const T sum = segprior::block_sum(value), again = segprior::block_sum(value);
  const T max = segprior::block_max(value);
  T both[2] = {value * value, value};
  segprior::block_reduce(both, segprior::Sum());
  if (segprior::thread_rank() == 0) {
    out[4 * blockIdx.x] = sum;
    out[4 * blockIdx.x + 1] = max;
    out[4 * blockIdx.x + 2] = both[0];
    out[4 * blockIdx.x + 3] = again;
  }
}

template <class T>
__global__ void grid_kernel(const T *in, T *partial, unsigned *counter, T *out) {
  const unsigned rank = segprior::thread_rank(), threads = segprior::block_threads();
  partial[blockIdx.x * threads + rank] = in[blockIdx.x * threads + rank];  // by every thread
  if (!segprior::last_block(counter, gridDim.x)) return;
  T total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b * threads + (rank + 1) % threads];
  total = segprior::block_sum(total);
  if (segprior::thread_rank() == 0) out[0] = total;
}

}  // namespace

template <class T>
void reduce_blocks(unsigned blocks, dim3 block, const T *in, T *out) {
  segprior::launch("reduce_blocks", blocks_kernel<T>, blocks, block, 0, nullptr, in, out);
}

template <class T>
void reduce_grid(unsigned blocks, dim3 block, const T *in, T *partial, unsigned *counter, T *out) {
  segprior::launch("reduce_grid", grid_kernel<T>, blocks, block, 0, nullptr, in, partial, counter, out);
}

template void reduce_blocks(unsigned, dim3, const float *, float *);
template void reduce_blocks(unsigned, dim3, const double *, double *);
template void reduce_grid(unsigned, dim3, const float *, float *, unsigned *, float *);
template void reduce_grid(unsigned, dim3, const double *, double *, unsigned *, double *);
