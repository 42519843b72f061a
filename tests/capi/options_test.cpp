// capi/options.h: size-first structs across versions, with a struct that has grown twice. The public structs
// of older versions: softmax_versions_test.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "capi/options.h"

using namespace segprior;

namespace {

struct Opts {  // as the library knows it
  size_t struct_size;
  int32_t first, second;
  double third;   // since the second version
  double fourth;  // since the third
};
constexpr size_t kOldest = offsetof(Opts, third), kMiddle = offsetof(Opts, fourth);

constexpr Opts kDefaults{sizeof(Opts), 1, 2, 3, 4};

// A caller's struct of exactly `size` bytes on the heap, where a sanitizer sees the first byte beyond it.
class Given {
 public:
  explicit Given(size_t size, size_t claimed) : bytes_(size, 0) {
    const Opts values{claimed, 10, 20, 30, 40};
    std::memcpy(bytes_.data(), &values, std::min(size, sizeof values));
  }
  explicit Given(size_t size) : Given(size, size) {}
  const Opts *get() const { return reinterpret_cast<const Opts *>(bytes_.data()); }
  unsigned char &operator[](size_t k) { return bytes_[k]; }

 private:
  std::vector<unsigned char> bytes_;
};

template <class Call>
std::string error_of(const Call &call, segprior_status expected) {
  try {
    call();
  } catch (const Error &error) {
    CHECK(error.status == expected);
    return error.what();
  }
  FAIL_CHECK("no error");
  return "";
}

Opts read(const Given &given) { return read_struct(given.get(), kDefaults, "opts", kOldest); }

}  // namespace

TEST_CASE("size-first structs: an older caller gets the defaults of what it does not know [small]") {
  const Opts oldest = read(Given(kOldest));
  CHECK(oldest.first == 10);
  CHECK(oldest.second == 20);
  CHECK(oldest.third == 3);
  CHECK(oldest.fourth == 4);
  const Opts middle = read(Given(kMiddle));
  CHECK(middle.third == 30);
  CHECK(middle.fourth == 4);
  const Opts same = read(Given(sizeof(Opts)));
  CHECK(same.third == 30);
  CHECK(same.fourth == 40);
}

TEST_CASE("size-first structs: a newer caller may not set what this version does not know [small]") {
  Given newer(sizeof(Opts) + 24);
  const Opts read_back = read(newer);
  CHECK(read_back.first == 10);
  CHECK(read_back.fourth == 40);
  for (size_t k : {sizeof(Opts), sizeof(Opts) + 23}) {
    newer[k] = 1;
    const std::string text = error_of([&] { read(newer); }, SEGPRIOR_ERROR_OPTIONS);
    CHECK(text.find("opts") != std::string::npos);
    CHECK(text.find("byte " + std::to_string(k)) != std::string::npos);
    newer[k] = 0;
  }
}

TEST_CASE("size-first structs: smaller than the oldest version, or half a field, is refused [small]") {
  for (size_t claimed : {size_t(0), size_t(4), sizeof(size_t), kOldest - 1, kOldest + 4, sizeof(Opts) - 1,
                         sizeof(Opts) + 1, size_t(4097), size_t(1) << 60}) {
    const Given given(sizeof(Opts), claimed);
    const std::string text = error_of([&] { read(given); }, SEGPRIOR_ERROR_OPTIONS);
    CHECK(text.find("opts.struct_size = " + std::to_string(claimed)) != std::string::npos);
  }
  // The present size is the oldest one unless a function says otherwise.
  const Given shorter(kMiddle);
  error_of([&] { read_struct(shorter.get(), kDefaults, "opts"); }, SEGPRIOR_ERROR_OPTIONS);
  const Opts *none = nullptr;
  error_of([&] { read_struct(none, kDefaults, "opts", kOldest); }, SEGPRIOR_ERROR_NULL_POINTER);
}

TEST_CASE("size-first structs: init writes the caller's size and no more [small]") {
  for (size_t size : {kOldest, kMiddle, sizeof(Opts), sizeof(Opts) + 24}) {
    std::vector<unsigned char> bytes(size + 8, 0x5a);
    init_struct(reinterpret_cast<Opts *>(bytes.data()), size, kDefaults, "opts", kOldest);
    Opts expected = kDefaults;
    expected.struct_size = size;
    CHECK(std::memcmp(bytes.data(), &expected, std::min(size, sizeof expected)) == 0);
    for (size_t k = sizeof expected; k < size; ++k) CHECK(bytes[k] == 0);
    for (size_t k = size; k < bytes.size(); ++k) CHECK(bytes[k] == 0x5a);
  }
  Opts untouched;
  std::memset(&untouched, 0x5a, sizeof untouched);
  const Opts before = untouched;
  for (size_t size : {size_t(0), sizeof(size_t), kOldest - 1, sizeof(Opts) - 1, size_t(4097)}) {
    error_of([&] { init_struct(&untouched, size, kDefaults, "opts", kOldest); }, SEGPRIOR_ERROR_OPTIONS);
    CHECK(std::memcmp(&untouched, &before, sizeof before) == 0);
  }
  error_of([&] { init_struct(&untouched, kMiddle, kDefaults, "opts"); }, SEGPRIOR_ERROR_OPTIONS);
  Opts *none = nullptr;
  error_of([&] { init_struct(none, sizeof(Opts), kDefaults, "opts", kOldest); }, SEGPRIOR_ERROR_NULL_POINTER);
}
