// Kernels for the tests of kernels/common/reduce.h and last_block.
#pragma once

#include <cuda_runtime.h>

// Per block, in one kernel, back to back: out[4 b ...] = sum, max, sum of squares through the several-values
// form, and the sum once more (which reuses the first one's shared array). in: [blocks][threads of a block].
template <class T>
void reduce_blocks(unsigned blocks, dim3 block, const T *in, T *out);

// out[0] = sum over all blocks, by the last one. partial: as large as `in`, written by every thread.
// `counter` starts at 0 and is 0 afterwards.
template <class T>
void reduce_grid(unsigned blocks, dim3 block, const T *in, T *partial, unsigned *counter, T *out);
