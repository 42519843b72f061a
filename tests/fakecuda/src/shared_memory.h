// Shared memory of the running block: one arena whose arrays stand between red zones, filled with NaN bytes.
#pragma once

#include <cstddef>
#include <vector>

namespace fakecuda {

class SharedMemory {
 public:
  static constexpr size_t kStaticLimit = 48 * 1024, kBlockLimit = 163 * 1024;

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory &) = delete;
  SharedMemory &operator=(const SharedMemory &) = delete;

  void start_block(size_t dynamic_bytes);  // by the host, before the block's threads start
  const char *end_block();                 // the name of an overrun array, or null
  void *dynamic() const { return arrays_[0].data; }
  // Null when the block has no shared memory left.
  void *named(const void *site, const char *name, size_t bytes, size_t alignment);

 private:
  struct Array {
    const void *site;
    const char *name;
    char *data;
    size_t bytes;
  };
  char *place(const void *site, const char *name, size_t bytes, size_t alignment);

  char *base_;
  size_t mapped_, used_ = 0, dynamic_bytes_ = 0, static_bytes_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace fakecuda
