// The sanitizer entry points the scheduler needs, as weak symbols: one uninstrumented library then serves
// plain, AddressSanitizer and ThreadSanitizer programs alike.
#pragma once

#include <cstddef>

extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom,
                                                          size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **old_bottom,
                                                           size_t *old_size);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void *address, size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void *address, size_t size);

__attribute__((weak)) void *__tsan_get_current_fiber();
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void *fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);
__attribute__((weak)) void __tsan_write_range(void *address, unsigned long size);
__attribute__((weak)) void __tsan_java_init(unsigned long heap_begin, unsigned long heap_size);
__attribute__((weak)) void __tsan_java_alloc(unsigned long address, unsigned long size);
}

namespace fakecuda {

inline bool with_asan() { return __asan_poison_memory_region != nullptr; }
inline bool with_tsan() { return __tsan_create_fiber != nullptr; }

inline void poison(const void *address, size_t size) {
  if (with_asan()) __asan_poison_memory_region(address, size);
}
inline void unpoison(const void *address, size_t size) {
  if (with_asan()) __asan_unpoison_memory_region(address, size);
}
inline void acquire(void *address) {
  if (with_tsan()) __tsan_acquire(address);
}
inline void release(void *address) {
  if (with_tsan()) __tsan_release(address);
}
inline void record_write(void *address, size_t size) {
  if (with_tsan()) __tsan_write_range(address, size);
}
inline void switch_race_fiber(void *fiber) {
  constexpr unsigned kNoSync = 1;
  if (with_tsan()) __tsan_switch_to_fiber(fiber, kNoSync);
}

}  // namespace fakecuda
