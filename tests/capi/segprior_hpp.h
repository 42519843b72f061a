// What the tests of segprior.hpp share: its views of test tensors, its contexts on any device, and the
// comparison of a C++ call with the C call. Includes segprior.hpp as the including file has configured it.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "segprior/segprior.hpp"
#include "tests/support/device.h"

namespace segprior::test {
inline namespace SEGPRIOR_CPP_NAMESPACE {

// Counts what it hands out.
struct Memory {
  std::map<void *, std::unique_ptr<DeviceArray>> live;
  int allocations = 0;
  bool exhausted = false;
};

inline Allocator allocator_of(segprior_device device, const std::shared_ptr<Memory> &memory) {
  return {[=](std::size_t bytes) -> void * {
            if (memory->exhausted) return nullptr;
            auto array = std::make_unique<DeviceArray>(device, bytes);
            void *data = array->data();
            memory->live[data] = std::move(array);
            ++memory->allocations;
            return data;
          },
          [=](void *data, std::size_t) { memory->live.erase(data); }};
}

// On the device's own stream.
inline Context context_of(const Device &device, const std::shared_ptr<Memory> &memory) {
  return Context(device.which(), allocator_of(device.which(), memory), device.stream());
}

// Absent for NULL.
inline View view_of(const segprior_tensor *tensor) { return tensor ? View(*tensor) : View(); }
inline MutableView output_of(const segprior_tensor *tensor) {
  return tensor ? MutableView(*tensor) : MutableView();
}

using Bytes = std::vector<std::vector<unsigned char>>;

// What calls write. The C call goes first; poison() then leaves nothing of it to the C++ call.
class Written {
 public:
  Written &add(const TensorPtr &tensor) { return tensor ? add(&tensor->memory()) : *this; }
  Written &add(DeviceArray *array) { return arrays_.push_back(array), *this; }
  Bytes content() const {
    Bytes bytes;
    for (const DeviceArray *array : arrays_) bytes.push_back(array->content());
    return bytes;
  }
  void poison() const {
    for (DeviceArray *array : arrays_) array->fill(kPoison);
  }

 private:
  std::vector<DeviceArray *> arrays_;
};

// Runs one call by C and by C++.
template <class C, class Cpp>
void check_same(const Device &device, const char *what, const Written &written, const C &by_c,
                const Cpp &by_cpp) {
  INFO(what << " on " << name_of(device.which()));
  written.poison();
  const Bytes untouched = written.content();
  REQUIRE_MESSAGE(by_c() == SEGPRIOR_OK, std::string(segprior_last_error()));
  device.synchronize();
  const Bytes expected = written.content();
  for (size_t k = 0; k < expected.size(); ++k) CHECK(expected[k] != untouched[k]);
  written.poison();
  by_cpp();
  device.synchronize();
  CHECK(written.content() == expected);
}

// Whether every member of a C struct of pointers is set; struct_size comes first.
template <class Struct>
bool all_set(const Struct &c) {
  const auto *bytes = reinterpret_cast<const unsigned char *>(&c);
  for (std::size_t at = 0; at < sizeof c; at += sizeof(void *)) {
    bool set = false;
    for (std::size_t k = 0; k < sizeof(void *); ++k) set = set || bytes[at + k] != 0;
    if (!set) return false;
  }
  return c.struct_size == sizeof c;
}

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior::test
