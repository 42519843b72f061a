#include "region.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "sanitizers.h"

namespace fakecuda {
namespace {

constexpr size_t kReserved = size_t{64} << 30;  // of address space, under ThreadSanitizer
std::mutex mutex;
char *next = nullptr, *end = nullptr;

void *map_pages(size_t bytes) {
  // Past the sanitizers' interceptors, which would record a write.
  const long r = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (r < 0 && r > -4096) throw std::bad_alloc();
  return reinterpret_cast<void *>(r);
}

std::map<size_t, std::vector<void *>> &unused() {
  static auto *map = new std::map<size_t, std::vector<void *>>;  // outlives the threads' schedulers
  return *map;
}

}  // namespace

void *take_memory(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  std::vector<void *> &same_size = unused()[bytes];
  if (!same_size.empty()) {
    void *memory = same_size.back();
    same_size.pop_back();
    return memory;
  }
  if (!with_tsan()) return map_pages(bytes);
  if (!next) {
    // Of ThreadSanitizer's interface only the part for managed heaps can clear its shadow; it takes one
    // range.
    next = static_cast<char *>(map_pages(kReserved));
    end = next + kReserved;
    __tsan_java_init(reinterpret_cast<uintptr_t>(next), kReserved);
  }
  if (static_cast<size_t>(end - next) < bytes) throw std::bad_alloc();
  void *memory = next;
  next += bytes;
  return memory;
}

void give_memory(void *memory, size_t bytes) {
  unpoison(memory, bytes);
  std::lock_guard<std::mutex> lock(mutex);
  unused()[bytes].push_back(memory);
}

void forget_accesses(void *address, size_t bytes) {
  constexpr uintptr_t kGrain = 8;
  const uintptr_t from = reinterpret_cast<uintptr_t>(address) / kGrain * kGrain;
  if (with_tsan() && bytes > 0) __tsan_java_alloc(from, (bytes + kGrain - 1) / kGrain * kGrain);
}

}  // namespace fakecuda
