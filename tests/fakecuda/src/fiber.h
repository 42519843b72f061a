// Stacks and the switch between them. Knows nothing of CUDA.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(FAKECUDA_UCONTEXT)
#include <ucontext.h>
#define FAKECUDA_USES_UCONTEXT 1
#endif

namespace fakecuda {

// A place to return to: a suspended fiber, or the host's own stack.
struct Context {
#if defined(FAKECUDA_USES_UCONTEXT)
  ucontext_t machine;
#else
  void *stack_pointer = nullptr;
#endif
  const void *bottom = nullptr;  // lowest byte of the stack, for AddressSanitizer
  size_t size = 0;
  void *asan_fake_stack = nullptr;
};

// Runs `entry` on its own guarded stack at the first switch; entry never returns.
class Fiber {
 public:
  explicit Fiber(void (*entry)(), unsigned number);
  ~Fiber();
  Fiber(const Fiber &) = delete;
  Fiber &operator=(const Fiber &) = delete;
  void restart();  // forgets what was running
  Context context;

 private:
  void (*entry_)();
  char *mapping_;
  size_t colour_;
};

// Suspends the running context into `from`.
void switch_context(Context &from, Context &to);

// First thing on a fresh fiber: tells AddressSanitizer, and learns the bounds of the stack that was left.
void enter_context(const void **left_bottom, size_t *left_size);

}  // namespace fakecuda
