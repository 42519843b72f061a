// malloc and its family, defined in the executable: the dynamic linker then hands these to every shared
// library too. They forward to glibc's own entry points.
#include "tests/support/alloc_count.h"

#include <errno.h>

#include <atomic>
#include <cstddef>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SEGPRIOR_TEST_COUNTS_ALLOCATIONS 1
#else
#define SEGPRIOR_TEST_COUNTS_ALLOCATIONS 0
#endif

namespace {
std::atomic<int64_t> allocations{0};
}

namespace segprior::test {
bool can_count_allocations() { return SEGPRIOR_TEST_COUNTS_ALLOCATIONS; }
int64_t allocation_count() { return allocations.load(); }
}  // namespace segprior::test

#if SEGPRIOR_TEST_COUNTS_ALLOCATIONS
extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void *realloc(void *memory, size_t bytes) {
  ++allocations;
  return __libc_realloc(memory, bytes);
}
void *memalign(size_t alignment, size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  *out = memalign(alignment, bytes);
  return *out ? 0 : ENOMEM;
}
}
#endif
