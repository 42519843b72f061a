// Correct kernels whose blocks meet, for the fake runtime's tests; the results are checked against the host.
#pragma once

#include <cstddef>

// out[b], b < blocks: the sum of all blocks * threads elements of `in`.
void grid_sum(unsigned blocks, unsigned threads, const float *in, float *partial, float *out);
int grid_sum_blocks(unsigned threads, size_t dynamic_shared_bytes);  // cooperative_blocks()

// `steps` times the mean of both neighbours on a ring of blocks * threads elements, from `values` to `other`
// and back; the result is in `values` when `steps` is even.
void ring_steps(unsigned blocks, unsigned threads, int steps, float *values, float *other);

// out[i] = in[i - 1] + in[i] + in[i + 1] within each cluster of cluster_blocks * threads elements, zero
// outside.
void cluster_halo(unsigned blocks, unsigned threads, unsigned cluster_blocks, const float *in, float *out);
bool cluster_halo_fits(unsigned threads, unsigned cluster_blocks, size_t dynamic_shared_bytes);

// Every block of a cluster gathers bytes 0 and the last of each peer's dynamic shared memory, and the word
// that each keeps in a static array; odd ranks meet their arrays in the opposite order. out: 3 per pair of
// blocks.
void cluster_gather(unsigned clusters, unsigned threads, unsigned cluster_blocks, size_t dynamic_shared_bytes,
                    int *out);
