// Runs the blocks of a grid one after another; the threads of a block as fibers. One scheduler per OS thread.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <random>
#include <vector>

#include "fakecuda/control.h"
#include "fiber.h"
#include "shared_memory.h"

namespace fakecuda {

enum class State : unsigned char { fresh, ready, at_barrier, in_warp, done };
enum class WarpKind : unsigned char { barrier, ballot, shuffle };

struct Thread {
  uint3 index;
  State state;
  bool fence_pending;  // the next atomic publishes
  unsigned fetched;    // how many of `atomics` are remembered
  Fiber *fiber;        // null until it starts
  void *race_fiber;    // ThreadSanitizer's view of this thread
  Site site;           // where it waits
  // Warp operation:
  WarpKind kind;
  unsigned mask;
  int source;
  uint64_t value, result;
  void *atomics[4];  // addresses since the last fence
};

struct Warp {
  unsigned waiting;   // lanes inside a warp operation
  unsigned barriers;  // __syncwarp done; picks one of two sync objects
};

class Scheduler {
 public:
  Scheduler();
  ~Scheduler();
  static Scheduler &current();

  // False if a thread broke a rule; error() says how.
  bool run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*body)(const void *),
                const void *data);

  int barrier(Vote vote, bool predicate, const Site &site);
  void warp_barrier(unsigned mask, const Site &site);
  uint64_t warp_exchange(WarpKind kind, unsigned mask, uint64_t value, int source, const Site &site);
  int lane() const { return static_cast<int>(rank_ % 32); }
  void fence();
  bool atomic_publishes(void *address);
  void *static_shared(const void *site, const char *name, size_t bytes, size_t alignment);

  const char *error() const { return error_; }
  void set_order(Order order, uint64_t seed);
  std::string order_text() const;
  bool inside_kernel() const { return running_; }

  SharedMemory shared;
  uint64_t launches = 0;

 private:
  static void fiber_main();
  void fiber_loop();
  bool run_block(size_t dynamic_shared_bytes);
  void order_threads();
  void take_race_fibers();
  void wait();
  Fiber *free_fiber();
  void make_fibers(size_t count);
  int pick();
  void resume(int rank);
  void make_ready(unsigned rank) { ready_[position_[rank] / 64] |= uint64_t{1} << (position_[rank] % 64); }
  void enter(int rank);
  void complete_warp(unsigned base, unsigned mask);
  void abandon();
  [[noreturn]] void leave_failed();
  void explain_standstill();
  void describe(const char *format, ...) __attribute__((format(printf, 2, 3)));

  Order order_ = Order::forward;
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  char error_[1024];

  // The grid
  void (*body_)(const void *) = nullptr;
  const void *data_ = nullptr;
  uint64_t block_number_ = 0;
  unsigned count_ = 0;  // threads of a block
  bool running_ = false, failed_ = false;

  // The block
  std::vector<Thread> threads_;
  Warp warps_[32];
  std::vector<unsigned> order_of_, position_;  // thread at a position of the running order, and back
  uint64_t ready_[16];
  unsigned rank_ = 0, done_ = 0, arrived_ = 0, barriers_ = 0;
  unsigned votes_ = 0;
  int vote_result_ = 0;
  int barrier_first_ = 0;  // rank that arrived first

  // Stacks
  Context host_;
  bool from_host_ = false;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber *> free_fibers_;
  Fiber *fiber_ = nullptr;  // the running one

  // ThreadSanitizer
  void *host_race_fiber_ = nullptr;
  std::vector<void *> race_fibers_;
  size_t race_fibers_used_ = 0, race_fiber_limit_;
  char launch_sync_ = 0, end_sync_ = 0;
};

}  // namespace fakecuda
