// Where threads meet: barriers, warp operations, fences; and what is said when they do not. Built without
// sanitizers, like the scheduler.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sanitizers.h"
#include "scheduler.h"

namespace fakecuda {
namespace {

bool same_place(const Site &a, const Site &b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0) &&
         std::strcmp(a.what, b.what) == 0;
}

// ThreadSanitizer's sync objects are addresses. Two of each kind in turn: a thread that has already reached
// the next barrier must not publish what it did since to one that has yet to leave the last.
constexpr unsigned kBlocks = 64;  // later blocks share with earlier ones
uint64_t &sync_object(uint64_t block, unsigned index, unsigned barrier) {
  static thread_local uint64_t objects[kBlocks][33][2];
  return objects[block % kBlocks][index][barrier % 2];
}

}  // namespace

#define WHERE "%s at %s:%d"
#define PLACE(site) (site).what, (site).file, (site).line
#define THREAD "thread (%u, %u, %u)"
#define INDEX(thread) (thread).index.x, (thread).index.y, (thread).index.z

void Scheduler::describe(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(error_, sizeof error_, format, arguments);
  va_end(arguments);
  if (length < 0 || length >= static_cast<int>(sizeof error_)) return;
  std::snprintf(error_ + length, sizeof error_ - length,
                " [block (%u, %u, %u), order %s, seed %llu, launch %llu]", blockIdx.x, blockIdx.y, blockIdx.z,
                order_ == Order::random    ? "random"
                : order_ == Order::forward ? "forward"
                                           : "reverse",
                static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(launches));
}

int Scheduler::barrier(Vote vote, bool predicate, const Site &site) {
  Thread &self = threads_[rank_];
  if (arrived_ == 0) {
    barrier_first_ = rank_;
    votes_ = 0;
  } else if (const Thread &first = threads_[barrier_first_]; !same_place(first.site, site)) {
    describe("divergent barrier: " THREAD " waits in " WHERE ", " THREAD " in " WHERE, INDEX(first),
             PLACE(first.site), INDEX(self), PLACE(site));
    leave_failed();
  }
  self.site = site;
  self.state = State::at_barrier;
  votes_ += predicate;
  const unsigned number = barriers_;
  release(&sync_object(block_number_, 32, number));
  if (++arrived_ == count_) {
    vote_result_ = vote == Vote::any   ? votes_ > 0
                   : vote == Vote::all ? votes_ == count_
                                       : static_cast<int>(votes_);
    arrived_ = 0;
    ++barriers_;
    for (unsigned i = 0; i < count_; ++i) {
      threads_[i].state = State::ready;
      make_ready(i);
    }
  }
  wait();
  acquire(&sync_object(block_number_, 32, number));
  return vote_result_;
}

uint64_t Scheduler::warp_exchange(WarpKind kind, unsigned mask, uint64_t value, int source,
                                  const Site &site) {
  const unsigned rank = rank_, warp = rank / 32, base = warp * 32, bit = 1u << (rank - base);
  const unsigned lanes = count_ - base < 32 ? (1u << (count_ - base)) - 1 : ~0u;
  Thread &self = threads_[rank];
  if (!(mask & bit)) {
    describe("wrong mask: " THREAD " is not named in its own mask %08x in " WHERE, INDEX(self), mask,
             PLACE(site));
    leave_failed();
  }
  if (mask & ~lanes) {
    describe("wrong mask: %08x in " WHERE " names lanes that the block does not have", mask, PLACE(site));
    leave_failed();
  }
  unsigned &waiting = warps_[warp].waiting;
  for (unsigned left = waiting; left; left &= left - 1) {
    const unsigned lane = __builtin_ctz(left);
    const Thread &other = threads_[base + lane];
    if (!(mask >> lane & 1) && !(other.mask & bit)) continue;  // another group
    if (other.mask != mask) {
      describe("wrong mask: " THREAD " waits in " WHERE " with mask %08x, " THREAD " in " WHERE
               " with mask %08x",
               INDEX(other), PLACE(other.site), other.mask, INDEX(self), PLACE(site), mask);
      leave_failed();
    }
    if (!same_place(other.site, site)) {
      describe("divergent warp: " THREAD " waits in " WHERE ", " THREAD " in " WHERE, INDEX(other),
               PLACE(other.site), INDEX(self), PLACE(site));
      leave_failed();
    }
    if (kind == WarpKind::barrier) source = other.source;
    break;  // the others of the group agreed with this one when they came
  }
  self.kind = kind;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.site = site;
  self.state = State::in_warp;
  waiting |= bit;
  if (kind == WarpKind::barrier) release(&sync_object(block_number_, warp, source));
  if ((waiting & mask) == mask) complete_warp(base, mask);
  wait();
  if (kind == WarpKind::barrier) acquire(&sync_object(block_number_, warp, source));
  return self.result;
}

// A shuffle or vote hands over values but orders no memory; only __syncwarp does.
void Scheduler::complete_warp(unsigned base, unsigned mask) {
  uint64_t ballot = 0;
  for (unsigned left = mask; left; left &= left - 1) {
    const unsigned lane = __builtin_ctz(left);
    if (threads_[base + lane].value) ballot |= uint64_t{1} << lane;
  }
  for (unsigned left = mask; left; left &= left - 1) {
    Thread &thread = threads_[base + __builtin_ctz(left)];
    thread.result = ballot;
    if (thread.kind == WarpKind::shuffle) {
      if (!(mask >> thread.source & 1)) {
        describe("wrong mask: " THREAD " reads lane %d in " WHERE ", which mask %08x does not name",
                 INDEX(thread), thread.source, PLACE(thread.site), mask);
        leave_failed();
      }
      thread.result = threads_[base + thread.source].value;
    }
    thread.state = State::ready;
    make_ready(base + __builtin_ctz(left));
  }
  warps_[base / 32].waiting &= ~mask;
  ++warps_[base / 32].barriers;
}

void Scheduler::warp_barrier(unsigned mask, const Site &site) {
  warp_exchange(WarpKind::barrier, mask, 0, static_cast<int>(warps_[rank_ / 32].barriers), site);
}

// Nobody can go on. The waiting thread whose company is missing, and where that is.
void Scheduler::explain_standstill() {
  for (const Thread &thread : threads_) {
    if (thread.state != State::in_warp) continue;
    const unsigned base = static_cast<unsigned>(&thread - threads_.data()) / 32 * 32;
    const unsigned missing = thread.mask & ~warps_[base / 32].waiting;
    const Thread &other = threads_[base + __builtin_ctz(missing)];
    if (other.state == State::done)
      describe("exited lane: " THREAD " waits in " WHERE " with mask %08x for " THREAD ", which has exited",
               INDEX(thread), PLACE(thread.site), thread.mask, INDEX(other));
    else
      describe("divergent warp: " THREAD " waits in " WHERE " with mask %08x for " THREAD
               ", which waits in " WHERE,
               INDEX(thread), PLACE(thread.site), thread.mask, INDEX(other), PLACE(other.site));
    return;
  }
  const Thread *at_barrier = nullptr, *exited = nullptr;
  for (const Thread &thread : threads_) {
    if (!at_barrier && thread.state == State::at_barrier) at_barrier = &thread;
    if (!exited && thread.state == State::done) exited = &thread;
  }
  describe("exited thread: %u of %u threads wait in " WHERE ", " THREAD " has exited", arrived_, count_,
           PLACE(at_barrier->site), INDEX(*exited));
}

void Scheduler::fence() {
  if (!with_tsan()) return;
  Thread &self = threads_[rank_];
  self.fence_pending = true;
  for (; self.fetched > 0; --self.fetched) acquire(self.atomics[self.fetched - 1]);
}

bool Scheduler::atomic_publishes(void *address) {
  Thread &self = threads_[rank_];
  constexpr unsigned kRoom = sizeof self.atomics / sizeof self.atomics[0];
  if (self.fetched == kRoom) {
    std::memmove(self.atomics, self.atomics + 1, sizeof self.atomics - sizeof self.atomics[0]);
    --self.fetched;
  }
  self.atomics[self.fetched++] = address;
  const bool publishes = self.fence_pending;
  self.fence_pending = false;
  return publishes;
}

int block_barrier(Vote vote, bool predicate, Site site) {
  return Scheduler::current().barrier(vote, predicate, site);
}
void warp_barrier(unsigned mask, Site site) { Scheduler::current().warp_barrier(mask, site); }
unsigned warp_ballot(unsigned mask, bool predicate, Site site) {
  return static_cast<unsigned>(
      Scheduler::current().warp_exchange(WarpKind::ballot, mask, predicate, 0, site));
}
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, Site site) {
  return Scheduler::current().warp_exchange(WarpKind::shuffle, mask, value, source, site);
}
int lane() { return Scheduler::current().lane(); }
void fence() { Scheduler::current().fence(); }
bool atomic_publishes(void *address) { return Scheduler::current().atomic_publishes(address); }

void *static_shared(const void *site, const char *name, size_t bytes, size_t alignment) {
  return Scheduler::current().static_shared(site, name, bytes, alignment);
}
void *dynamic_shared() { return Scheduler::current().shared.dynamic(); }

void *Scheduler::static_shared(const void *site, const char *name, size_t bytes, size_t alignment) {
  void *data = shared.named(site, name, bytes, alignment);
  if (data) return data;
  describe("too much shared memory: %s (%zu bytes) does not fit into 48 KiB static and 163 KiB in all", name,
           bytes);
  leave_failed();
}

}  // namespace fakecuda
