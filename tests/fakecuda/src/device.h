// What the fake device is and how much of a kernel fits on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fakecuda {

constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;  // of a block; of a grid

int device_count();
size_t shared_limit();  // of a block, static and dynamic together
bool has_clusters();

// What the kernel has opted in to.
size_t dynamic_limit(const void *kernel);
unsigned most_cluster_blocks(const void *kernel);

// Static shared memory is not counted: it is not known before the kernel runs.
uint64_t resident_blocks_per_processor(uint64_t block_threads, size_t dynamic_shared_bytes);
uint64_t resident_blocks(uint64_t block_threads, size_t dynamic_shared_bytes);

}  // namespace fakecuda
