// x86-64: six registers and the stack pointer, a few nanoseconds. Elsewhere: ucontext.
#include "fiber.h"

#include <sys/mman.h>

#include <cstddef>

#include "region.h"
#include "sanitizers.h"

namespace fakecuda {
namespace {

constexpr size_t kPage = 4096, kStack = 256 * 1024;  // touched lazily; sanitized frames are large

}  // namespace

#if !defined(FAKECUDA_USES_UCONTEXT)

extern "C" void fakecuda_switch(void **save, void *load);
asm(R"(
.text
.globl fakecuda_switch
.hidden fakecuda_switch
.type fakecuda_switch, @function
fakecuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fakecuda_switch, .-fakecuda_switch
)");

#endif

// Stack tops at equal page offsets would compete for the same cache sets.
Fiber::Fiber(void (*entry)(), unsigned number) : entry_(entry), colour_(number % 29 * 576) {
  mapping_ = static_cast<char *>(take_memory(kPage + kStack));
  // An overflow faults. Not under ThreadSanitizer, whose reports read the list of mappings.
  if (!with_tsan()) mprotect(mapping_, kPage, PROT_NONE);
  context.bottom = mapping_ + kPage;
  context.size = kStack;
  restart();
}

Fiber::~Fiber() { give_memory(mapping_, kPage + kStack); }

void Fiber::restart() {
  unpoison(context.bottom, kStack);  // frames abandoned half-way
  context.asan_fake_stack = nullptr;
#if defined(FAKECUDA_USES_UCONTEXT)
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = mapping_ + kPage;
  context.machine.uc_stack.ss_size = kStack - colour_;
  context.machine.uc_link = nullptr;
  makecontext(&context.machine, entry_, 0);
#else
  void **top = reinterpret_cast<void **>(mapping_ + kPage + kStack - colour_);
  *--top = nullptr;  // return address of entry
  *--top = reinterpret_cast<void *>(entry_);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
#endif
}

void switch_context(Context &from, Context &to) {
  if (with_asan()) __sanitizer_start_switch_fiber(&from.asan_fake_stack, to.bottom, to.size);
#if defined(FAKECUDA_USES_UCONTEXT)
  swapcontext(&from.machine, &to.machine);
#else
  fakecuda_switch(&from.stack_pointer, to.stack_pointer);
#endif
  if (with_asan()) __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
}

void enter_context(const void **left_bottom, size_t *left_size) {
  if (with_asan()) __sanitizer_finish_switch_fiber(nullptr, left_bottom, left_size);
}

}  // namespace fakecuda
