// core.h: version, status texts, context life cycle, error text, DLPack, info reader.
#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/capi/headers.h"
#include "tests/capi/message.h"
#include "tests/support/device.h"

#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;

TEST_CASE("the headers are C99") {
  CHECK(segprior_test_core_header() == 0);
  CHECK(segprior_test_softmax_header() == 0);
  CHECK(segprior_test_softcut_header() == 0);
  CHECK(segprior_test_csr_header() == 0);
  CHECK(segprior_test_losses_header() == 0);
  CHECK(segprior_test_proposals_header() == 0);
  CHECK(segprior_test_metrics_header() == 0);
  CHECK(segprior_test_segprior_header() == 0);
}

TEST_CASE("every status has its own text") {
  std::set<std::string> texts;
  const std::vector<int32_t> codes{0,   101, 102, 103, 104, 105, 106, 107, 108,
                                   109, 110, 111, 201, 202, 301, 302, 303, 901};
  for (int32_t code : codes) {
    REQUIRE(segprior_status_string(code) != nullptr);
    texts.insert(segprior_status_string(code));
  }
  CHECK(texts.size() == codes.size());
  for (int32_t code : {-1, 1, 100, 112, 99999}) {
    REQUIRE(segprior_status_string(code) != nullptr);
    CHECK(texts.count(segprior_status_string(code)) == 0);
  }
}

TEST_CASE("devices are counted") {
  CHECK(segprior_device_count(SEGPRIOR_CPU) == 1);
  CHECK(segprior_device_count(SEGPRIOR_CUDA) >= 0);
  CHECK(segprior_device_count(0) == 0);
  CHECK(segprior_device_count(77) == 0);
  if (!segprior_has_cuda()) CHECK(segprior_device_count(SEGPRIOR_CUDA) == 0);
}

TEST_CASE("contexts: create, destroy, reject") {
  std::vector<segprior_context *> many(1000);
  for (segprior_context *&context : many)
    REQUIRE(segprior_context_create({SEGPRIOR_CPU, 0}, &context) == SEGPRIOR_OK);
  for (segprior_context *context : many) segprior_context_destroy(context);
  segprior_context_destroy(nullptr);

  CHECK(segprior_context_create({SEGPRIOR_CPU, 0}, nullptr) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("out"));
  const auto rejected = [](segprior_device device, segprior_status status, const char *name) {
    segprior_context *context = reinterpret_cast<segprior_context *>(8);
    CHECK(segprior_context_create(device, &context) == status);
    CHECK(context == nullptr);
    CHECK(message_has(name));
  };
  rejected({0, 0}, SEGPRIOR_ERROR_VALUE, "device.type = 0");
  rejected({3, 0}, SEGPRIOR_ERROR_VALUE, "device.type = 3");
  rejected({SEGPRIOR_CPU, 1}, SEGPRIOR_ERROR_NO_DEVICE, "device.index = 1");
  rejected({SEGPRIOR_CPU, -1}, SEGPRIOR_ERROR_NO_DEVICE, "device.index = -1");
  const int32_t count = segprior_device_count(SEGPRIOR_CUDA);
  rejected({SEGPRIOR_CUDA, count}, SEGPRIOR_ERROR_NO_DEVICE, "device.index");
}

TEST_CASE("contexts: stream and threads") {
  CHECK(segprior_context_set_stream(nullptr, nullptr) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("context"));
  CHECK(segprior_context_set_threads(nullptr, 1) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("context"));
  segprior_context *context = nullptr;
  REQUIRE(segprior_context_create({SEGPRIOR_CPU, 0}, &context) == SEGPRIOR_OK);
  CHECK(segprior_context_set_stream(context, nullptr) == SEGPRIOR_OK);
  CHECK(segprior_context_set_stream(context, context) == SEGPRIOR_ERROR_VALUE);
  CHECK(message_has("stream"));
  CHECK(segprior_context_set_threads(context, -1) == SEGPRIOR_ERROR_VALUE);
  CHECK(message_has("threads = -1"));
  CHECK(segprior_context_set_threads(context, 0) == SEGPRIOR_OK);
  CHECK(segprior_context_set_threads(context, 5) == SEGPRIOR_OK);
  segprior_context_destroy(context);
}

TEST_CASE("the error text belongs to its thread") {
  CHECK(segprior_context_create({SEGPRIOR_CPU, 0}, nullptr) == SEGPRIOR_ERROR_NULL_POINTER);
  const std::string mine = segprior_last_error();
  CHECK(!mine.empty());
  std::string before, after;
  std::thread other([&] {
    before = segprior_last_error();
    segprior_context_set_threads(nullptr, 1);
    after = segprior_last_error();
  });
  other.join();
  CHECK(before == "");
  CHECK(!after.empty());
  CHECK(after != mine);
  CHECK(segprior_last_error() == mine);
  segprior_context *context = nullptr;
  CHECK(segprior_context_create({SEGPRIOR_CPU, 0}, &context) == SEGPRIOR_OK);
  CHECK(segprior_last_error() == mine);  // success keeps it
  segprior_context_destroy(context);
}

TEST_CASE("infos are read back") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    const std::vector<segprior_info> written{{1, 2, 3.5}, {4, 5, -6.5}};
    DeviceArray memory(which, sizeof(segprior_info) * 2);
    memory.upload(written.data());
    const segprior_info *info = static_cast<const segprior_info *>(memory.data());
    std::vector<segprior_info> read(2);
    CHECK(segprior_info_read_sync(device.context(), info, 2, read.data()) == SEGPRIOR_OK);
    CHECK(std::memcmp(read.data(), written.data(), sizeof(segprior_info) * 2) == 0);
    CHECK(segprior_info_read_sync(device.context(), nullptr, 0, nullptr) == SEGPRIOR_OK);
    CHECK(segprior_info_read_sync(nullptr, info, 2, read.data()) == SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(message_has("context"));
    CHECK(segprior_info_read_sync(device.context(), nullptr, 2, read.data()) == SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(message_has("info"));
    CHECK(segprior_info_read_sync(device.context(), info, 2, nullptr) == SEGPRIOR_ERROR_NULL_POINTER);
    CHECK(message_has("host"));
    CHECK(segprior_info_read_sync(device.context(), info, -1, read.data()) == SEGPRIOR_ERROR_VALUE);
    CHECK(message_has("count = -1"));
    if (which.type == SEGPRIOR_CUDA) {
      CHECK(segprior_info_read_sync(device.context(), written.data(), 2, read.data()) ==
            SEGPRIOR_ERROR_DEVICE);
      CHECK(message_has("info"));
    }
  }
}

namespace {

// DLPack's DLTensor as dlpack.h spells it.
struct DlTensor {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

}  // namespace

TEST_CASE("DLPack tensors are converted") {
  float values[12];
  int64_t shape[2] = {3, 4}, strides[2] = {4, 1};
  const DlTensor good{values, 1, 0, 2, 2, 32, 1, shape, strides, 8};
  segprior_tensor tensor;
  REQUIRE(segprior_tensor_from_dlpack(&good, &tensor) == SEGPRIOR_OK);
  CHECK(tensor.data == values);
  CHECK(tensor.device.type == SEGPRIOR_CPU);
  CHECK(tensor.device.index == 0);
  CHECK(tensor.dtype == SEGPRIOR_FLOAT32);
  CHECK(tensor.ndim == 2);
  CHECK(tensor.shape == shape);
  CHECK(tensor.strides == strides);
  CHECK(tensor.byte_offset == 8);

  DlTensor other = good;
  other.bits = 64;
  other.strides = nullptr;
  REQUIRE(segprior_tensor_from_dlpack(&other, &tensor) == SEGPRIOR_OK);
  CHECK(tensor.dtype == SEGPRIOR_FLOAT64);
  CHECK(tensor.strides == nullptr);
  const auto device_of = [&](int32_t type, int32_t id) {
    other.device_type = type;
    other.device_id = id;
    REQUIRE(segprior_tensor_from_dlpack(&other, &tensor) == SEGPRIOR_OK);
    return tensor.device;
  };
  CHECK(device_of(2, 3).type == SEGPRIOR_CUDA);
  CHECK(device_of(2, 3).index == 3);
  CHECK(device_of(3, 1).type == SEGPRIOR_CPU);  // pinned host memory; the id is the CUDA device's
  CHECK(device_of(3, 1).index == 0);
  CHECK(device_of(13, 1).type == SEGPRIOR_CUDA);  // managed memory
  CHECK(device_of(13, 1).index == 1);

  const auto rejected = [&](DlTensor bad, segprior_status status) {
    segprior_tensor out;
    std::memset(&out, 0x5a, sizeof out);
    const segprior_tensor before = out;
    CHECK(segprior_tensor_from_dlpack(&bad, &out) == status);
    CHECK(message_has("dl_tensor"));
    CHECK(std::memcmp(&out, &before, sizeof out) == 0);
  };
  DlTensor bad = good;
  bad.device_type = 4;  // OpenCL
  rejected(bad, SEGPRIOR_ERROR_DEVICE);
  const auto typed = [&](int code, int bits, int lanes) {
    DlTensor one = good;
    one.code = static_cast<uint8_t>(code);
    one.bits = static_cast<uint8_t>(bits);
    one.lanes = static_cast<uint16_t>(lanes);
    return one;
  };
  constexpr int kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6;
  const struct {
    int code, bits;
    int32_t dtype;
  } known[] = {{kFloat, 16, SEGPRIOR_FLOAT16}, {kFloat, 32, SEGPRIOR_FLOAT32},
               {kFloat, 64, SEGPRIOR_FLOAT64}, {kBfloat, 16, SEGPRIOR_BFLOAT16},
               {kUnsigned, 8, SEGPRIOR_UINT8}, {kBool, 8, SEGPRIOR_UINT8},
               {kInt, 32, SEGPRIOR_INT32},     {kInt, 64, SEGPRIOR_INT64}};
  for (const auto &type : known) {
    other = typed(type.code, type.bits, 1);
    CHECK(segprior_tensor_from_dlpack(&other, &tensor) == SEGPRIOR_OK);
    CHECK(tensor.dtype == type.dtype);
    rejected(typed(type.code, type.bits, 4), SEGPRIOR_ERROR_DTYPE);
  }
  const int unknown[][2] = {{kFloat, 8},     {kFloat, 128},   {kBfloat, 32}, {kUnsigned, 16},
                            {kUnsigned, 32}, {kUnsigned, 64}, {kBool, 1},    {kBool, 32},
                            {kInt, 8},       {kInt, 16},      {kInt, 128},   {kComplex, 64}};
  for (const auto &type : unknown) rejected(typed(type[0], type[1], 1), SEGPRIOR_ERROR_DTYPE);
  CHECK(segprior_tensor_from_dlpack(nullptr, &tensor) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("dl_tensor"));
  CHECK(segprior_tensor_from_dlpack(&good, nullptr) == SEGPRIOR_ERROR_NULL_POINTER);
  CHECK(message_has("out"));
}

#if defined(FAKECUDA)
TEST_CASE("a machine without a GPU [small]") {
  fakecuda::set_device_count(0);
  CHECK(segprior_device_count(SEGPRIOR_CUDA) == 0);
  segprior_context *context = nullptr;
  CHECK(segprior_context_create({SEGPRIOR_CUDA, 0}, &context) == SEGPRIOR_ERROR_NO_DEVICE);
  CHECK(context == nullptr);
  CHECK(segprior_context_create({SEGPRIOR_CPU, 0}, &context) == SEGPRIOR_OK);
  segprior_context_destroy(context);
  fakecuda::set_device_count(1);
}
#endif
