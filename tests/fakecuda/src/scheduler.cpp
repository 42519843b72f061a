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

// Threads alive at once. ThreadSanitizer has numbers for 8192; a stack takes two of a process's 65530
// mappings.
constexpr size_t kMostAlive = 16384, kMostAliveWithRaces = 8000;

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

bool Scheduler::run_grid(const Launch &launch, void (*body)(const void *), const void *data) {
  body_ = body;
  data_ = data;
  launch_ = launch;
  gridDim = launch.grid;
  blockDim = launch.block;
  ++launches;
  random_.seed(seed_ * 0x9e3779b97f4a7c15u + launches);
  race_fibers_used_ = 0;
  if (with_tsan()) host_race_fiber_ = __tsan_get_current_fiber();

  const dim3 grid = launch.grid, block = launch.block;
  count_ = block.x * block.y * block.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const uint64_t at_once = launch.cooperative ? blocks : launch.cluster_blocks;
  const size_t most = with_tsan() ? kMostAliveWithRaces : kMostAlive;
  if (at_once * count_ > most) {
    std::snprintf(error_, sizeof error_,
                  "too many threads at once: %llu blocks of %u, where the fake runtime can run %zu threads",
                  static_cast<unsigned long long>(at_once), count_, most);
    return false;
  }
  alive_ = static_cast<unsigned>(at_once);
  blocks_.resize(alive_);
  warps_.resize(alive_ * ((count_ + 31) / 32));
  clusters_.resize(alive_ / launch.cluster_blocks);
  threads_.resize(alive_ * count_);
  for (unsigned i = 0; i < threads_.size(); ++i) {
    const unsigned rank = i % count_;
    threads_[i].index = {rank % block.x, rank / block.x % block.y, rank / block.x / block.y};
    threads_[i].block = i / count_;
    threads_[i].rank = rank;
  }
  while (arenas_.size() < alive_) arenas_.push_back(std::make_unique<SharedMemory>());
  for (unsigned b = 0; b < alive_; ++b) blocks_[b].shared = arenas_[b].get();
  sync_objects_.resize(size_t{2} * kSyncObjects * std::max<unsigned>(kSyncSets, alive_));

  const uint64_t rounds = blocks / alive_;
  std::vector<uint64_t> shuffled;
  if (order_ == Order::random) {
    shuffled.resize(rounds);
    std::iota(shuffled.begin(), shuffled.end(), uint64_t{0});
    std::shuffle(shuffled.begin(), shuffled.end(), random_);
  }
  bool good = true;
  for (uint64_t i = 0; i < rounds && good; ++i)
    good = run_blocks(alive_ * (order_ == Order::random    ? shuffled[i]
                                : order_ == Order::reverse ? rounds - 1 - i
                                                           : i));
  acquire(&end_sync_);  // only here: the host's clock must not carry one block's writes into the next block
  return good;
}

// Block `first` and those that are alive together with it.
bool Scheduler::run_blocks(uint64_t first) {
  for (Thread &thread : threads_) {
    thread.state = State::fresh;
    thread.fence_pending = false;
    thread.fetched = 0;
    thread.fiber = nullptr;
  }
  std::fill(warps_.begin(), warps_.end(), Warp{});
  std::fill(clusters_.begin(), clusters_.end(), Meeting{});
  grid_ = {};
  done_ = 0;
  order_threads();
  if (with_tsan()) {
    take_race_fibers();
    make_fibers(
        threads_.size());  // by the host: ThreadSanitizer would see allocations by the kernel's threads
  }
  const dim3 grid = launch_.grid;
  for (unsigned b = 0; b < alive_; ++b) {
    Block &block = blocks_[b];
    block.number = first + b;
    block.index = {static_cast<unsigned>(block.number % grid.x),
                   static_cast<unsigned>(block.number / grid.x % grid.y),
                   static_cast<unsigned>(block.number / grid.x / grid.y)};
    block.started = block.done = 0;
    block.meeting = {};
    block.shared->start_block(launch_.dynamic_shared_bytes, launch_.shared_limit, launch_.cluster_blocks > 1);
  }
  release(&launch_sync_);

  failed_ = false;
  running_ = true;
  const int next = pick();
  fiber_ = free_fiber();
  from_host_ = true;
  enter(next);
  switch_context(host_, fiber_->context);
  running_ = false;

  if (failed_) {
    abandon();
    return false;
  }
  for (const Block &block : blocks_)
    if (const char *name = block.shared->end_block()) {
      std::snprintf(error_, sizeof error_, "a thread wrote outside of %s [block (%u, %u, %u)]", name,
                    block.index.x, block.index.y, block.index.z);
      return false;
    }
  return true;
}

void Scheduler::order_threads() {
  const unsigned total = static_cast<unsigned>(threads_.size());
  if (order_of_.size() != total || order_ == Order::random) {
    order_of_.resize(total);
    position_.resize(total);
    std::iota(order_of_.begin(), order_of_.end(), 0u);
    if (order_ == Order::reverse) std::reverse(order_of_.begin(), order_of_.end());
    if (order_ == Order::random) std::shuffle(order_of_.begin(), order_of_.end(), random_);
    for (unsigned i = 0; i < total; ++i) position_[order_of_[i]] = i;
  }
  ready_.assign((total + 63) / 64, ~uint64_t{0});
  if (total % 64) ready_.back() = (uint64_t{1} << total % 64) - 1;
  ready_from_ = 0;
}

void Scheduler::take_race_fibers() {
  const size_t total = threads_.size();
  const size_t limit = std::max(race_fiber_limit_, std::min(2 * total, kMostAliveWithRaces));
  while (race_fibers_.size() < race_fibers_used_ + total && race_fibers_.size() < limit)
    race_fibers_.push_back(__tsan_create_fiber(0));
  if (race_fibers_used_ + total > race_fibers_.size()) {
    std::shuffle(race_fibers_.begin(), race_fibers_.end(), random_);
    race_fibers_used_ = 0;
  }
  for (Thread &thread : threads_) thread.race_fiber = race_fibers_[race_fibers_used_++];
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
  for (; ready_from_ < ready_.size(); ++ready_from_)
    if (uint64_t &word = ready_[ready_from_]) {
      const unsigned position = ready_from_ * 64 + __builtin_ctzll(word);
      word &= word - 1;
      return static_cast<int>(order_of_[position]);
    }
  return -1;
}

void Scheduler::enter(int thread) {
  current_ = thread;
  threadIdx = threads_[thread].index;
  blockIdx = blocks_[threads_[thread].block].index;
  switch_race_fiber(threads_[thread].race_fiber);
}

// Shared memory that peers can reach exists from the start of the block's first thread to the end of its
// last.
void Scheduler::open_block() {
  Block &self = block();
  void *start = sync_object(self.number, kStart, 0);
  if (self.started++ > 0) return acquire(start);
  self.shared->open();
  release(start);
}

void Scheduler::close_block() {
  Block &self = block();
  void *end = sync_object(self.number, kEnd, 0);
  release(end);
  if (self.done + 1 < count_) return;
  acquire(end);
  self.shared->close();
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
void Scheduler::resume(int thread) {
  Fiber *self = fiber_;
  fiber_ = threads_[thread].state == State::fresh ? free_fiber() : threads_[thread].fiber;
  enter(thread);
  if (fiber_ != self) switch_context(self->context, fiber_->context);
}

// The thread has noted where it waits, or has just been made ready with all that it waited for.
void Scheduler::wait() {
  const int next = pick();
  if (next == static_cast<int>(current_)) return;
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
    threads_[current_].fiber = fiber_;
    // The stack below is another thread's past.
    if (with_tsan()) forget_accesses(static_cast<char *>(__builtin_frame_address(0)) - kFrames, kFrames);
    acquire(&launch_sync_);
    if (launch_.cluster_blocks > 1) open_block();
    body_(data_);
    if (launch_.cluster_blocks > 1) close_block();
    release(&end_sync_);
    threads_[current_].state = State::done;
    ++block().done;
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
    if (done_ < threads_.size()) {
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
