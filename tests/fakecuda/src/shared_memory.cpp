#include "shared_memory.h"

#include <algorithm>

#include "region.h"
#include "sanitizers.h"

namespace fakecuda {
namespace {

constexpr size_t kPage = 4096, kRedZone = 128;
constexpr unsigned char kPoison = 0xff, kCanary = 0xa5;  // 0xff...: NaN as float and double, -1 as integer

// Own loops: memset would be recorded by ThreadSanitizer as a write of the host's. (Built without
// loop-to-memset conversion.)
void fill(char *data, unsigned char value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(value);
}

bool intact(const char *data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    if (static_cast<unsigned char>(data[i]) != kCanary) return false;
  return true;
}

}  // namespace

// Room for every array's red zones.
SharedMemory::SharedMemory() : mapped_((kMostPerBlock + 64 * 2 * kRedZone + kPage - 1) / kPage * kPage) {
  base_ = static_cast<char *>(take_memory(mapped_));
  arrays_.reserve(64);  // growth in a kernel would be seen by ThreadSanitizer
  poison(base_, mapped_);
}

SharedMemory::~SharedMemory() { give_memory(base_, mapped_); }

char *SharedMemory::place(const void *site, const char *name, size_t bytes, size_t alignment) {
  const size_t start = (used_ + kRedZone + alignment - 1) / alignment * alignment;
  if (start + bytes + kRedZone > mapped_) return nullptr;
  char *data = base_ + start;
  if (!with_asan()) {
    fill(base_ + used_, kCanary, start - used_);
    fill(data + bytes, kCanary, kRedZone);
  }
  if (open_) unpoison(data, bytes);
  fill(data, kPoison, bytes);
  used_ = start + bytes;
  arrays_.push_back({site, name, data, bytes, alignment});
  return data;
}

void SharedMemory::start_block(size_t dynamic_bytes, size_t limit, bool with_peers) {
  poison(base_, used_);
  forget_accesses(base_, std::max(used_ + kRedZone, touched_));  // another block's past
  used_ = touched_ = 0;
  open_ = !with_peers;
  arrays_.clear();
  limit_ = limit;
  dynamic_bytes_ = dynamic_bytes;
  static_bytes_ = 0;
  place(nullptr, "dynamic shared memory", dynamic_bytes, 128);
}

// To ThreadSanitizer the block's start and end write all of its shared memory: a peer's access that no
// barrier separates from them is a race in every order of the threads.
void SharedMemory::open() {
  open_ = true;
  for (const Array &array : arrays_) unpoison(array.data, array.bytes);
  record_write(base_, touched_ = mapped_);
}

void SharedMemory::close() {
  open_ = false;
  record_write(base_, mapped_);
  for (const Array &array : arrays_) fill(array.data, kPoison, array.bytes);
  poison(base_, used_);
}

char *SharedMemory::named(const void *site, const char *name, size_t bytes, size_t alignment) {
  for (const Array &array : arrays_)
    if (array.site == site) return array.data;
  static_bytes_ += bytes;
  if (static_bytes_ > kStaticLimit || static_bytes_ + dynamic_bytes_ > limit_ ||
      arrays_.size() == arrays_.capacity())
    return nullptr;
  return place(site, name, bytes, std::max<size_t>(alignment, 16));
}

const SharedMemory::Array *SharedMemory::find(const void *address) const {
  for (const Array &array : arrays_)
    if (address >= array.data && address <= array.data + array.bytes) return &array;
  return nullptr;
}

const char *SharedMemory::end_block() {
  if (with_asan()) return nullptr;  // it reports at the access
  for (const Array &array : arrays_)
    if (!intact(array.data - kRedZone, kRedZone) || !intact(array.data + array.bytes, kRedZone))
      return array.name;
  return nullptr;
}

}  // namespace fakecuda
