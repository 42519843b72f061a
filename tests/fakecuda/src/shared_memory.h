// Shared memory of one block: an arena whose arrays stand between red zones, filled with NaN bytes.
#pragma once

#include <cstddef>
#include <vector>

namespace fakecuda {

class SharedMemory {
 public:
  static constexpr size_t kStaticLimit = 48 * 1024, kMostPerBlock = 227 * 1024;

  struct Array {
    const void *site;  // null: the dynamic one
    const char *name;
    char *data;
    size_t bytes, alignment;
  };

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory &) = delete;
  SharedMemory &operator=(const SharedMemory &) = delete;

  // By the host, before the block's threads start. `limit`: of static and dynamic memory together. With
  // peers, other blocks of a cluster have access, and may take it only between open() and close().
  void start_block(size_t dynamic_bytes, size_t limit, bool with_peers);
  void open();              // by the block's first thread
  void close();             // by its last one
  const char *end_block();  // by the host; the name of an overrun array, or null

  void *dynamic() const { return arrays_[0].data; }
  // Null when the block has no shared memory left.
  char *named(const void *site, const char *name, size_t bytes, size_t alignment);
  const Array *find(const void *address) const;  // the array that holds it, or null

 private:
  char *place(const void *site, const char *name, size_t bytes, size_t alignment);

  char *base_;
  size_t mapped_, used_ = 0, touched_ = 0, limit_ = 0, dynamic_bytes_ = 0, static_bytes_ = 0;
  bool open_ = false;
  std::vector<Array> arrays_;
};

}  // namespace fakecuda
