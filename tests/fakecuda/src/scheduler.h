// Runs the threads of a grid as fibers: block after block, cluster after cluster, or, in a cooperative
// launch, all blocks at once. One scheduler per OS thread.
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
enum class Scope : unsigned char { block, cluster, grid };

struct Launch {
  dim3 grid, block;
  size_t dynamic_shared_bytes, shared_limit;
  unsigned cluster_blocks;  // along x; 1: no clusters
  bool cooperative, device_has_clusters;
};

struct Thread {
  uint3 index;
  unsigned block, rank;  // the block's place among those alive; this thread's in it
  State state;
  Scope scope;         // of the barrier where it waits
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

// One barrier, used again and again.
struct Meeting {
  unsigned arrived, number, votes;
  unsigned first;  // thread that arrived first
  int result;
};

struct Block {
  uint3 index;
  uint64_t number;
  unsigned started, done;
  Meeting meeting;
  SharedMemory *shared;
};

class Scheduler {
 public:
  Scheduler();
  ~Scheduler();
  static Scheduler &current();

  // False if a thread broke a rule; error() says how.
  bool run_grid(const Launch &launch, void (*body)(const void *), const void *data);

  int barrier(Scope scope, Vote vote, bool predicate, const Site &site);
  void warp_barrier(unsigned mask, const Site &site);
  uint64_t warp_exchange(WarpKind kind, unsigned mask, uint64_t value, int source, const Site &site);
  int lane() const { return static_cast<int>(threads_[current_].rank % 32); }
  void fence();
  bool atomic_publishes(void *address);
  void *static_shared(const void *site, const char *name, size_t bytes, size_t alignment);
  void *dynamic_shared() { return block().shared->dynamic(); }
  unsigned cluster_rank() const { return threads_[current_].block % launch_.cluster_blocks; }
  unsigned cluster_blocks() const { return launch_.cluster_blocks; }
  const void *cluster_shared(const void *mine, int rank);

  const char *error() const { return error_; }
  void set_order(Order order, uint64_t seed);
  std::string order_text() const;
  bool inside_kernel() const { return running_; }

  uint64_t launches = 0;

 private:
  // The threads that meet, and where ThreadSanitizer's sync objects of their barrier are.
  struct Party {
    Meeting &meeting;
    unsigned first, count;
    uint64_t sync_block;
    unsigned sync_index;
  };
  struct Who {
    char text[96];
  };
  static void fiber_main();
  void fiber_loop();
  bool run_blocks(uint64_t first);
  void open_block();
  void close_block();
  Block &block() { return blocks_[threads_[current_].block]; }
  Warp &warp_of(const Thread &thread) {
    return warps_[thread.block * ((count_ + 31) / 32) + thread.rank / 32];
  }
  Party party(Scope scope, const Thread &thread);
  // ThreadSanitizer's sync objects are addresses: a set per block, shared by blocks that are never alive
  // together. Barriers have two in turn: a thread that has already reached the next barrier must not publish
  // what it did since to one that has yet to leave the last.
  enum : unsigned { kWarps = 32, kBlock = kWarps, kCluster, kGrid, kStart, kEnd, kSyncObjects };
  static constexpr unsigned kSyncSets = 64;  // at least
  void *sync_object(uint64_t block, unsigned which, unsigned number) {
    const size_t set = block % (sync_objects_.size() / (2 * kSyncObjects));
    return &sync_objects_[(set * kSyncObjects + which) * 2 + number % 2];
  }
  void order_threads();
  void take_race_fibers();
  void wait();
  Fiber *free_fiber();
  void make_fibers(size_t count);
  int pick();
  void resume(int thread);
  void make_ready(unsigned thread) {
    const unsigned position = position_[thread], word = position / 64;
    ready_[word] |= uint64_t{1} << (position % 64);
    if (word < ready_from_) ready_from_ = word;
  }
  void enter(int thread);
  void complete_warp(unsigned base, unsigned mask);
  void abandon();
  [[noreturn]] void leave_failed();
  void explain_standstill();
  bool explain_barrier(Scope scope);
  Who who(const Thread &thread) const;
  char *shared_array(Block &block, const void *site, const char *name, size_t bytes, size_t alignment);
  void describe(const char *format, ...) __attribute__((format(printf, 2, 3)));

  Order order_ = Order::forward;
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  char error_[1024];

  // The grid
  void (*body_)(const void *) = nullptr;
  const void *data_ = nullptr;
  Launch launch_{};
  unsigned count_ = 0;  // threads of a block
  unsigned alive_ = 0;  // blocks at once
  bool running_ = false, failed_ = false;

  // The blocks alive, and their threads, in order
  std::vector<Thread> threads_;
  std::vector<Block> blocks_;
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<SharedMemory>> arenas_;
  std::vector<Meeting> clusters_;
  Meeting grid_{};
  std::vector<unsigned> order_of_, position_;  // thread at a position of the running order, and back
  std::vector<uint64_t> ready_;                // a bit per position
  unsigned ready_from_ = 0;                    // no bit before this word
  unsigned current_ = 0, done_ = 0;

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
  std::vector<uint64_t> sync_objects_;  // addresses only
};

}  // namespace fakecuda
