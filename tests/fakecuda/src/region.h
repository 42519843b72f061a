// Memory for stacks and shared arenas, recycled and never returned to the system.
#pragma once

#include <cstddef>

namespace fakecuda {

// Page-aligned; `bytes` a multiple of the page size. Called by the host only.
void *take_memory(size_t bytes);
void give_memory(void *memory, size_t bytes);

// Makes ThreadSanitizer forget who touched this part of a region: the next user is another thread, and not
// the previous one's rival.
void forget_accesses(void *address, size_t bytes);

}  // namespace fakecuda
