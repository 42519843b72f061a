// Grids, blocks and the choice of the next thread. Built without sanitizers: its own bookkeeping, shared by
// all fibers, is no business of theirs.
#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "region.h"
#include "sanitizers.h"

__constinit thread_local uint3 threadIdx{0, 0, 0};
__constinit thread_local uint3 blockIdx{0, 0, 0};
__constinit thread_local dim3 blockDim{};
__constinit thread_local dim3 gridDim{};

namespace fakecuda {
namespace {

// ThreadSanitizer follows 255 threads at once without slowing down (about 8000 at all). Past this number of
// threads in a grid, or two blocks if that is more, later blocks borrow the identities of earlier ones, which
// can hide a race between the two; random block orders bring other pairs together.
constexpr size_t kRaceFibers = 240;

constexpr size_t kFrames = 32 * 1024;  // more than the frames of any kernel

size_t race_fiber_limit() {
  const char *text = std::getenv("SEGPRIOR_FAKECUDA_RACE_THREADS");
  return text ? std::min<size_t>(6000, std::strtoul(text, nullptr, 10)) : kRaceFibers;
}

}  // namespace

Scheduler &Scheduler::current() {
  static thread_local Scheduler scheduler;
  return scheduler;
}

Scheduler::Scheduler() : race_fiber_limit_(race_fiber_limit()) {
  error_[0] = 0;
  const char *order = std::getenv("SEGPRIOR_FAKECUDA_ORDER"), *seed = std::getenv("SEGPRIOR_FAKECUDA_SEED");
  const std::string name = order ? order : "forward";
  if (name != "forward" && name != "reverse" && name != "random") {
    std::fprintf(stderr, "fakecuda: SEGPRIOR_FAKECUDA_ORDER=%s is not forward, reverse or random\n", order);
    std::abort();
  }
  set_order(name == "reverse"  ? Order::reverse
            : name == "random" ? Order::random
                               : Order::forward,
            seed ? std::strtoull(seed, nullptr, 10) : 0);
}

Scheduler::~Scheduler() {
  for (void *fiber : race_fibers_) __tsan_destroy_fiber(fiber);
}

void Scheduler::set_order(Order order, uint64_t seed) {
  order_ = order;
  seed_ = seed;
  order_of_.clear();
}

std::string Scheduler::order_text() const {
  if (order_ == Order::random) return "random, seed " + std::to_string(seed_);
  return order_ == Order::forward ? "forward" : "reverse";
}

bool Scheduler::run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*body)(const void *),
                         const void *data) {
  body_ = body;
  data_ = data;
  gridDim = grid;
  blockDim = block;
  count_ = block.x * block.y * block.z;
  ++launches;
  random_.seed(seed_ * 0x9e3779b97f4a7c15u + launches);
  race_fibers_used_ = 0;
  if (with_tsan()) host_race_fiber_ = __tsan_get_current_fiber();

  threads_.resize(count_);
  for (unsigned i = 0; i < count_; ++i)
    threads_[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  std::vector<uint64_t> shuffled;
  if (order_ == Order::random) {
    shuffled.resize(blocks);
    std::iota(shuffled.begin(), shuffled.end(), uint64_t{0});
    std::shuffle(shuffled.begin(), shuffled.end(), random_);
  }
  bool good = true;
  for (uint64_t i = 0; i < blocks && good; ++i) {
    block_number_ = order_ == Order::random ? shuffled[i] : order_ == Order::reverse ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(block_number_ % grid.x),
                static_cast<unsigned>(block_number_ / grid.x % grid.y),
                static_cast<unsigned>(block_number_ / grid.x / grid.y)};
    good = run_block(dynamic_shared_bytes);
  }
  acquire(&end_sync_);  // only here: the host's clock must not carry one block's writes into the next block
  return good;
}

bool Scheduler::run_block(size_t dynamic_shared_bytes) {
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].state = State::fresh;
    threads_[i].fence_pending = false;
    threads_[i].fetched = 0;
    threads_[i].fiber = nullptr;
  }
  std::memset(warps_, 0, sizeof warps_);
  done_ = arrived_ = barriers_ = 0;
  order_threads();
  if (with_tsan()) {
    take_race_fibers();
    make_fibers(count_);  // by the host: ThreadSanitizer would see allocations by the kernel's threads
  }
  shared.start_block(dynamic_shared_bytes);
  release(&launch_sync_);

  failed_ = false;
  running_ = true;
  const int first = pick();
  fiber_ = free_fiber();
  from_host_ = true;
  enter(first);
  switch_context(host_, fiber_->context);
  running_ = false;

  if (failed_) {
    abandon();
    return false;
  }
  if (const char *name = shared.end_block()) {
    std::snprintf(error_, sizeof error_, "a thread wrote outside of %s [block (%u, %u, %u)]", name,
                  blockIdx.x, blockIdx.y, blockIdx.z);
    return false;
  }
  return true;
}

void Scheduler::order_threads() {
  if (order_of_.size() != count_ || order_ == Order::random) {
    order_of_.resize(count_);
    position_.resize(count_);
    std::iota(order_of_.begin(), order_of_.end(), 0u);
    if (order_ == Order::reverse) std::reverse(order_of_.begin(), order_of_.end());
    if (order_ == Order::random) std::shuffle(order_of_.begin(), order_of_.end(), random_);
    for (unsigned i = 0; i < count_; ++i) position_[order_of_[i]] = i;
  }
  for (unsigned w = 0; w < 16; ++w) {
    const unsigned from = w * 64, n = count_ > from ? std::min(64u, count_ - from) : 0;
    ready_[w] = n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  }
}

void Scheduler::take_race_fibers() {
  const size_t limit = std::max<size_t>(race_fiber_limit_, 2 * count_);
  while (race_fibers_.size() < race_fibers_used_ + count_ && race_fibers_.size() < limit)
    race_fibers_.push_back(__tsan_create_fiber(0));
  if (race_fibers_used_ + count_ > race_fibers_.size()) {
    std::shuffle(race_fibers_.begin(), race_fibers_.end(), random_);
    race_fibers_used_ = 0;
  }
  for (unsigned i = 0; i < count_; ++i) threads_[i].race_fiber = race_fibers_[race_fibers_used_++];
}

// Frames of the threads that will never finish are dropped.
void Scheduler::abandon() {
  free_fibers_.clear();
  for (auto &fiber : fibers_) {
    fiber->restart();
    free_fibers_.push_back(fiber.get());
  }
  for (void *fiber : race_fibers_) {
    switch_race_fiber(fiber);
    release(&end_sync_);
    switch_race_fiber(host_race_fiber_);
    __tsan_destroy_fiber(fiber);  // its recorded calls never return
  }
  race_fibers_.clear();
}

// The first ready thread of the running order, or -1.
int Scheduler::pick() {
  for (unsigned w = 0; w < 16; ++w)
    if (ready_[w]) {
      const int position = w * 64 + __builtin_ctzll(ready_[w]);
      ready_[w] &= ready_[w] - 1;
      return order_of_[position];
    }
  return -1;
}

void Scheduler::enter(int rank) {
  rank_ = rank;
  threadIdx = threads_[rank].index;
  switch_race_fiber(threads_[rank].race_fiber);
}

void Scheduler::make_fibers(size_t count) {
  while (fibers_.size() < count) {
    fibers_.push_back(std::make_unique<Fiber>(&Scheduler::fiber_main, static_cast<unsigned>(fibers_.size())));
    free_fibers_.push_back(fibers_.back().get());
  }
}

Fiber *Scheduler::free_fiber() {
  if (free_fibers_.empty()) make_fibers(fibers_.size() + 1);
  Fiber *fiber = free_fibers_.back();
  free_fibers_.pop_back();
  return fiber;
}

// Leaves the running fiber for another thread's; returns when its own thread goes on, or, on a free fiber,
// when it is given a fresh thread.
void Scheduler::resume(int rank) {
  Fiber *self = fiber_;
  fiber_ = threads_[rank].state == State::fresh ? free_fiber() : threads_[rank].fiber;
  enter(rank);
  if (fiber_ != self) switch_context(self->context, fiber_->context);
}

// The thread has noted where it waits, or has just been made ready with all that it waited for.
void Scheduler::wait() {
  const int next = pick();
  if (next == static_cast<int>(rank_)) return;
  if (next < 0) {
    explain_standstill();
    leave_failed();
  }
  resume(next);
}

void Scheduler::leave_failed() {
  failed_ = true;
  switch_race_fiber(host_race_fiber_);
  switch_context(fiber_->context, host_);
  std::abort();  // an abandoned fiber is never resumed
}

void Scheduler::fiber_main() {
  Scheduler &scheduler = current();
  const void *bottom = nullptr;
  size_t size = 0;
  enter_context(&bottom, &size);
  if (scheduler.from_host_) {
    scheduler.host_.bottom = bottom;
    scheduler.host_.size = size;
  }
  scheduler.fiber_loop();
}

// A fiber that finishes a thread goes on with the next fresh one on the same stack: a kernel without barriers
// never switches.
void Scheduler::fiber_loop() {
  for (;;) {
    from_host_ = false;
    threads_[rank_].fiber = fiber_;
    // The stack below is another thread's past.
    if (with_tsan()) forget_accesses(static_cast<char *>(__builtin_frame_address(0)) - kFrames, kFrames);
    acquire(&launch_sync_);
    body_(data_);
    release(&end_sync_);
    threads_[rank_].state = State::done;
    ++done_;
    const int next = pick();
    if (next >= 0 && threads_[next].state == State::fresh) {
      enter(next);
      continue;
    }
    free_fibers_.push_back(fiber_);
    if (next >= 0) {
      resume(next);
      continue;
    }
    if (done_ < count_) {
      explain_standstill();
      failed_ = true;
    }
    switch_race_fiber(host_race_fiber_);
    switch_context(fiber_->context, host_);
  }
}

}  // namespace fakecuda

// Called by the sanitizers' runtimes: which order and which thread to look at.
static void report_place() {
  fakecuda::Scheduler &scheduler = fakecuda::Scheduler::current();
  if (!scheduler.inside_kernel()) return;
  std::fprintf(stderr, "fakecuda: in block (%u, %u, %u), thread (%u, %u, %u), order %s, launch %llu\n",
               blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z,
               scheduler.order_text().c_str(), static_cast<unsigned long long>(scheduler.launches));
}
extern "C" void __asan_on_error() { report_place(); }
extern "C" void __tsan_on_report(const void *) { report_place(); }
extern "C" void __ubsan_on_report() { report_place(); }
