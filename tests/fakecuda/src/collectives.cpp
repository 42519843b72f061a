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

}  // namespace

#define WHERE "%s at %s:%d"
#define PLACE(site) (site).what, (site).file, (site).line

Scheduler::Who Scheduler::who(const Thread &thread) const {
  Who who;
  const uint3 t = thread.index, b = blocks_[thread.block].index;
  const int length = std::snprintf(who.text, sizeof who.text, "thread (%u, %u, %u)", t.x, t.y, t.z);
  if (alive_ > 1)
    std::snprintf(who.text + length, sizeof who.text - length, " of block (%u, %u, %u)", b.x, b.y, b.z);
  return who;
}

void Scheduler::describe(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(error_, sizeof error_, format, arguments);
  va_end(arguments);
  if (length < 0 || length >= static_cast<int>(sizeof error_)) return;
  char block[48] = "";
  if (alive_ == 1)
    std::snprintf(block, sizeof block, "block (%u, %u, %u), ", blockIdx.x, blockIdx.y, blockIdx.z);
  std::snprintf(error_ + length, sizeof error_ - length, " [%sorder %s, seed %llu, launch %llu]", block,
                order_ == Order::random    ? "random"
                : order_ == Order::forward ? "forward"
                                           : "reverse",
                static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(launches));
}

Scheduler::Party Scheduler::party(Scope scope, const Thread &thread) {
  if (scope == Scope::grid) return {grid_, 0, alive_ * count_, 0, kGrid};
  const unsigned blocks = launch_.cluster_blocks, cluster = thread.block / blocks;
  if (scope == Scope::cluster)
    return {clusters_[cluster], cluster * blocks * count_, blocks * count_, blocks_[cluster * blocks].number,
            kCluster};
  Block &block = blocks_[thread.block];
  return {block.meeting, thread.block * count_, count_, block.number, kBlock};
}

int Scheduler::barrier(Scope scope, Vote vote, bool predicate, const Site &site) {
  Thread &self = threads_[current_];
  if (scope == Scope::grid && !launch_.cooperative) {
    describe("wrong launch: %s waits in " WHERE ", but the launch is not cooperative", who(self).text,
             PLACE(site));
    leave_failed();
  }
  if (scope == Scope::cluster && !launch_.device_has_clusters) {
    describe("wrong device: %s waits in " WHERE ", but only sm_90 and later have it", who(self).text,
             PLACE(site));
    leave_failed();
  }
  const Party party = this->party(scope, self);
  Meeting &meeting = party.meeting;
  if (meeting.arrived == 0) {
    meeting.first = current_;
    meeting.votes = 0;
  } else if (const Thread &first = threads_[meeting.first]; !same_place(first.site, site)) {
    describe("divergent barrier: %s waits in " WHERE ", %s in " WHERE, who(first).text, PLACE(first.site),
             who(self).text, PLACE(site));
    leave_failed();
  }
  self.site = site;
  self.scope = scope;
  self.state = State::at_barrier;
  meeting.votes += predicate;
  void *sync = sync_object(party.sync_block, party.sync_index, meeting.number);
  release(sync);
  if (++meeting.arrived == party.count) {
    meeting.result = vote == Vote::any   ? meeting.votes > 0
                     : vote == Vote::all ? meeting.votes == party.count
                                         : static_cast<int>(meeting.votes);
    meeting.arrived = 0;
    ++meeting.number;
    for (unsigned i = party.first; i < party.first + party.count; ++i) {
      threads_[i].state = State::ready;
      make_ready(i);
    }
  }
  wait();
  acquire(sync);
  return meeting.result;
}

uint64_t Scheduler::warp_exchange(WarpKind kind, unsigned mask, uint64_t value, int source,
                                  const Site &site) {
  Thread &self = threads_[current_];
  const unsigned warp = self.rank / 32, base = current_ - self.rank % 32, bit = 1u << self.rank % 32;
  const unsigned rest = count_ - warp * 32, lanes = rest < 32 ? (1u << rest) - 1 : ~0u;
  if (!(mask & bit)) {
    describe("wrong mask: %s is not named in its own mask %08x in " WHERE, who(self).text, mask, PLACE(site));
    leave_failed();
  }
  if (mask & ~lanes) {
    describe("wrong mask: %08x in " WHERE " names lanes that the block does not have", mask, PLACE(site));
    leave_failed();
  }
  unsigned &waiting = warp_of(self).waiting;
  for (unsigned left = waiting; left; left &= left - 1) {
    const unsigned lane = __builtin_ctz(left);
    const Thread &other = threads_[base + lane];
    if (!(mask >> lane & 1) && !(other.mask & bit)) continue;  // another group
    if (other.mask != mask) {
      describe("wrong mask: %s waits in " WHERE " with mask %08x, %s in " WHERE " with mask %08x",
               who(other).text, PLACE(other.site), other.mask, who(self).text, PLACE(site), mask);
      leave_failed();
    }
    if (!same_place(other.site, site)) {
      describe("divergent warp: %s waits in " WHERE ", %s in " WHERE, who(other).text, PLACE(other.site),
               who(self).text, PLACE(site));
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
  if (kind == WarpKind::barrier) release(sync_object(block().number, warp, source));
  if ((waiting & mask) == mask) complete_warp(base, mask);
  wait();
  if (kind == WarpKind::barrier) acquire(sync_object(block().number, warp, source));
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
        describe("wrong mask: %s reads lane %d in " WHERE ", which mask %08x does not name", who(thread).text,
                 thread.source, PLACE(thread.site), mask);
        leave_failed();
      }
      thread.result = threads_[base + thread.source].value;
    }
    thread.state = State::ready;
    make_ready(base + __builtin_ctz(left));
  }
  Warp &warp = warp_of(threads_[base]);
  warp.waiting &= ~mask;
  ++warp.barriers;
}

void Scheduler::warp_barrier(unsigned mask, const Site &site) {
  warp_exchange(WarpKind::barrier, mask, 0, static_cast<int>(warp_of(threads_[current_]).barriers), site);
}

// Nobody can go on. The waiting thread whose company is missing, and where that is.
void Scheduler::explain_standstill() {
  for (const Thread &thread : threads_) {
    if (thread.state != State::in_warp) continue;
    const unsigned missing = thread.mask & ~warp_of(thread).waiting;
    const Thread &other = *(&thread - thread.rank % 32 + __builtin_ctz(missing));
    if (other.state == State::done)
      describe("exited lane: %s waits in " WHERE " with mask %08x for %s, which has exited", who(thread).text,
               PLACE(thread.site), thread.mask, who(other).text);
    else
      describe("divergent warp: %s waits in " WHERE
               " with mask %08x for %s"
               ", which waits in " WHERE,
               who(thread).text, PLACE(thread.site), thread.mask, who(other).text, PLACE(other.site));
    return;
  }
  for (Scope scope : {Scope::block, Scope::cluster, Scope::grid})  // what others wait for may be the cause
    if (explain_barrier(scope)) return;
}

bool Scheduler::explain_barrier(Scope scope) {
  for (const Thread &thread : threads_) {
    if (thread.state != State::at_barrier || thread.scope != scope) continue;
    const Party party = this->party(scope, thread);
    const Thread *exited = nullptr, *elsewhere = nullptr;
    for (unsigned i = party.first; i < party.first + party.count; ++i) {
      const Thread &other = threads_[i];
      if (!exited && other.state == State::done) exited = &other;
      if (!elsewhere && other.state == State::at_barrier && other.scope != scope) elsewhere = &other;
    }
    if (exited)
      describe("exited thread: %u of %u threads wait in " WHERE ", %s has exited", party.meeting.arrived,
               party.count, PLACE(thread.site), who(*exited).text);
    else
      describe("divergent barrier: %s waits in " WHERE ", %s in " WHERE, who(thread).text, PLACE(thread.site),
               who(*elsewhere).text, PLACE(elsewhere->site));
    return true;
  }
  return false;
}

void Scheduler::fence() {
  if (!with_tsan()) return;
  Thread &self = threads_[current_];
  self.fence_pending = true;
  for (; self.fetched > 0; --self.fetched) acquire(self.atomics[self.fetched - 1]);
}

bool Scheduler::atomic_publishes(void *address) {
  Thread &self = threads_[current_];
  constexpr unsigned kRoom = sizeof self.atomics / sizeof self.atomics[0];
  if (self.fetched == kRoom) {
    for (unsigned k = 1; k < kRoom; ++k) self.atomics[k - 1] = self.atomics[k];  // TSan would see a memmove
    --self.fetched;
  }
  self.atomics[self.fetched++] = address;
  const bool publishes = self.fence_pending;
  self.fence_pending = false;
  return publishes;
}

int block_barrier(Vote vote, bool predicate, Site site) {
  return Scheduler::current().barrier(Scope::block, vote, predicate, site);
}
void grid_barrier(Site site) { Scheduler::current().barrier(Scope::grid, Vote::none, false, site); }
void cluster_barrier(Site site) { Scheduler::current().barrier(Scope::cluster, Vote::none, false, site); }
unsigned cluster_rank() { return Scheduler::current().cluster_rank(); }
unsigned cluster_blocks() { return Scheduler::current().cluster_blocks(); }
const void *cluster_shared(const void *mine, int rank) {
  return Scheduler::current().cluster_shared(mine, rank);
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
void *dynamic_shared() { return Scheduler::current().dynamic_shared(); }

void *Scheduler::static_shared(const void *site, const char *name, size_t bytes, size_t alignment) {
  return shared_array(block(), site, name, bytes, alignment);
}

char *Scheduler::shared_array(Block &block, const void *site, const char *name, size_t bytes,
                              size_t alignment) {
  char *data = block.shared->named(site, name, bytes, alignment);
  if (data) return data;
  describe("too much shared memory: %s (%zu bytes) does not fit into 48 KiB static and %zu KiB in all", name,
           bytes, launch_.shared_limit / 1024);
  leave_failed();
}

// Found through the array, not the offset: blocks may meet their arrays in different order.
const void *Scheduler::cluster_shared(const void *mine, int rank) {
  const Thread &self = threads_[current_];
  const unsigned blocks = launch_.cluster_blocks;
  if (rank < 0 || static_cast<unsigned>(rank) >= blocks) {
    describe("wrong cluster rank: %s asks for block %d of a cluster of %u", who(self).text, rank, blocks);
    leave_failed();
  }
  const SharedMemory::Array *array = block().shared->find(mine);
  if (!array) {
    describe("not shared: %s maps an address to block %d of the cluster that is not in its own shared memory",
             who(self).text, rank);
    leave_failed();
  }
  const char *start = shared_array(blocks_[self.block / blocks * blocks + static_cast<unsigned>(rank)],
                                   array->site, array->name, array->bytes, array->alignment);
  return start + (static_cast<const char *>(mine) - array->data);
}

}  // namespace fakecuda
