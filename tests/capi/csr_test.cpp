// The bad-input table of csr.h: every argument, every option, every rule of the matrix. A refused call writes
// nothing.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/capi/headers.h"
#include "tests/capi/message.h"
#include "tests/support/csr_call.h"

using namespace segprior;
using namespace segprior::test;

namespace {

constexpr int64_t kRows = 4;
const CsrProblem kProblem{{0, 2, 5, 8, 10},
                          {0, 1, 0, 1, 2, 1, 2, 3, 2, 3},
                          {2, -1, -1, 3, -1, -1, 3, -1, -1, 2},
                          {1, 2, 3, 4, 4, 3, 2, 1},
                          {0, 0, 0, 0, 0, 0, 0, 0}};

// The arguments of one call, open to changes.
struct Raw {
  Raw(Device &device, CsrCall &call)
      : context(device.context()),
        opts(&call.opts),
        rows(call.rows),
        entries(call.entries),
        row_offsets(static_cast<int32_t *>(call.row_offsets.data())),
        columns(static_cast<int32_t *>(call.columns.data())),
        values(*call.values.view()),
        rhs(*call.rhs.view()),
        init(*call.init->view()),
        x(*call.x.view()),
        values_given(&values),
        rhs_given(&rhs),
        init_given(&init),
        x_given(&x),
        info(static_cast<segprior_info *>(call.info.data())) {}
  Raw(const Raw &) = delete;

  segprior_status solve() const {
    return segprior_csr_solve(context, opts, rows, entries, row_offsets, columns, values_given, rhs_given,
                              init_given, x_given, info);
  }

  segprior_context *context;
  segprior_csr_opts *opts;
  int64_t rows, entries;
  int32_t *row_offsets, *columns;
  segprior_tensor values, rhs, init, x;
  const segprior_tensor *values_given, *rhs_given, *init_given, *x_given;
  segprior_info *info;
};

struct Bad {
  segprior_status status;
  const char *message;
  std::function<void(Raw &)> spoil;
};

template <class T>
T *shifted(T *pointer) {
  return reinterpret_cast<T *>(reinterpret_cast<char *>(pointer) + 1);
}

void check_untouched(const CsrCall &call) {
  for (unsigned char byte : call.x.memory().content()) REQUIRE(byte == kPoison);
  for (unsigned char byte : call.info.content()) REQUIRE(byte == kPoison);
}

void check_bad(const std::vector<Bad> &table) {
  for (segprior_device which : all_devices())
    for (const Bad &bad : table) {
      INFO(name_of(which) << ", " << bad.message);
      Device device(which);
      CsrCall call(device, kProblem, SEGPRIOR_FLOAT64);
      Raw raw(device, call);
      bad.spoil(raw);
      CHECK(raw.solve() == bad.status);
      CHECK_MESSAGE(message_has(bad.message), segprior_last_error());
      check_untouched(call);
    }
}

}  // namespace

TEST_CASE("csr header is C99") { CHECK(segprior_test_csr_header() == 0); }

TEST_CASE("csr arguments: options [small]") {
  check_bad({
      {SEGPRIOR_ERROR_NULL_POINTER, "context", [](Raw &r) { r.context = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "opts", [](Raw &r) { r.opts = nullptr; }},
      {SEGPRIOR_ERROR_OPTIONS, "opts.struct_size = 3", [](Raw &r) { r.opts->struct_size = 3; }},
      {SEGPRIOR_ERROR_VALUE, "opts.max_iterations = -1", [](Raw &r) { r.opts->max_iterations = -1; }},
      {SEGPRIOR_ERROR_VALUE, "opts.preconditioner = 2", [](Raw &r) { r.opts->preconditioner = 2; }},
      {SEGPRIOR_ERROR_VALUE, "opts.preconditioner = -1", [](Raw &r) { r.opts->preconditioner = -1; }},
      {SEGPRIOR_ERROR_VALUE, "opts.tolerance = 0", [](Raw &r) { r.opts->tolerance = 0; }},
      {SEGPRIOR_ERROR_VALUE, "opts.tolerance = nan", [](Raw &r) { r.opts->tolerance = NAN; }},
      {SEGPRIOR_ERROR_VALUE, "opts.tolerance = inf", [](Raw &r) { r.opts->tolerance = INFINITY; }},
  });
  CHECK(segprior_csr_opts_init(nullptr, sizeof(segprior_csr_opts)) == SEGPRIOR_ERROR_NULL_POINTER);
  segprior_csr_opts opts;
  CHECK(segprior_csr_opts_init(&opts, 4) == SEGPRIOR_ERROR_OPTIONS);
}

TEST_CASE("csr arguments: counts and pointers [small]") {
  static const int64_t three[2] = {2, 3}, transposed[2] = {kRows, 2}, one[1] = {2 * kRows};
  check_bad({
      {SEGPRIOR_ERROR_VALUE, "rows = -1", [](Raw &r) { r.rows = -1; }},
      {SEGPRIOR_ERROR_SIZE_OVERFLOW, "rows = 2147483647", [](Raw &r) { r.rows = INT32_MAX; }},
      {SEGPRIOR_ERROR_VALUE, "entries = -5", [](Raw &r) { r.entries = -5; }},
      {SEGPRIOR_ERROR_SIZE_OVERFLOW, "entries = 4294967296", [](Raw &r) { r.entries = 1ll << 32; }},
      {SEGPRIOR_ERROR_SHAPE, "rhs: shape [2, 4] must be [R, rows], rows = 3", [](Raw &r) { r.rows = 3; }},
      {SEGPRIOR_ERROR_SHAPE, "values: shape [10] must be [9]", [](Raw &r) { r.entries = 9; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "row_offsets is NULL", [](Raw &r) { r.row_offsets = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "columns is NULL", [](Raw &r) { r.columns = nullptr; }},
      {SEGPRIOR_ERROR_ALIGNMENT, "row_offsets", [](Raw &r) { r.row_offsets = shifted(r.row_offsets); }},
      {SEGPRIOR_ERROR_ALIGNMENT, "columns", [](Raw &r) { r.columns = shifted(r.columns); }},
      {SEGPRIOR_ERROR_ALIGNMENT, "info", [](Raw &r) { r.info = shifted(r.info); }},
      {SEGPRIOR_ERROR_NULL_POINTER, "values is NULL", [](Raw &r) { r.values_given = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "rhs is NULL", [](Raw &r) { r.rhs_given = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "x is NULL", [](Raw &r) { r.x_given = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "values.data", [](Raw &r) { r.values.data = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "rhs.data", [](Raw &r) { r.rhs.data = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "init.data", [](Raw &r) { r.init.data = nullptr; }},
      {SEGPRIOR_ERROR_NULL_POINTER, "x.data", [](Raw &r) { r.x.data = nullptr; }},
      {SEGPRIOR_ERROR_DTYPE, "rhs: dtype", [](Raw &r) { r.rhs.dtype = SEGPRIOR_FLOAT16; }},
      {SEGPRIOR_ERROR_DTYPE, "rhs: dtype", [](Raw &r) { r.rhs.dtype = SEGPRIOR_UINT8; }},
      {SEGPRIOR_ERROR_DTYPE, "values: dtype", [](Raw &r) { r.values.dtype = SEGPRIOR_FLOAT32; }},
      {SEGPRIOR_ERROR_DTYPE, "init: dtype", [](Raw &r) { r.init.dtype = SEGPRIOR_FLOAT32; }},
      {SEGPRIOR_ERROR_DTYPE, "x: dtype", [](Raw &r) { r.x.dtype = SEGPRIOR_FLOAT32; }},
      {SEGPRIOR_ERROR_DEVICE, "values: device", [](Raw &r) { r.values.device.index = 9; }},
      {SEGPRIOR_ERROR_DEVICE, "rhs: device", [](Raw &r) { r.rhs.device.index = 9; }},
      {SEGPRIOR_ERROR_DEVICE, "x: device", [](Raw &r) { r.x.device.index = 9; }},
      {SEGPRIOR_ERROR_SHAPE, "rhs: ndim = 1", [](Raw &r) { r.rhs.ndim = 1, r.rhs.shape = one; }},
      {SEGPRIOR_ERROR_SHAPE, "rhs: shape [2, 3]", [](Raw &r) { r.rhs.shape = three; }},
      {SEGPRIOR_ERROR_SHAPE, "init: shape [4, 2]", [](Raw &r) { r.init.shape = transposed; }},
      {SEGPRIOR_ERROR_SHAPE, "x: shape [4, 2]", [](Raw &r) { r.x.shape = transposed; }},
      {SEGPRIOR_ERROR_OVERLAP, "x", [](Raw &r) { r.x.data = r.rhs.data; }},
      {SEGPRIOR_ERROR_OVERLAP, "x", [](Raw &r) { r.init.data = r.x.data; }},
      {SEGPRIOR_ERROR_OVERLAP, "x", [](Raw &r) { r.info = static_cast<segprior_info *>(r.x.data); }},
  });
}

TEST_CASE("csr arguments: rules of the matrix [small] [race]") {
  using Spoil = std::function<void(CsrProblem &)>;
  const std::pair<const char *, Spoil> table[] = {
      {"row_offsets must start with 0, never decrease and end with `entries`, but row 0",
       [](CsrProblem &p) { p.row_offsets[0] = 1; }},
      {"row_offsets must start with 0, never decrease and end with `entries`, but row 0",
       [](CsrProblem &p) { p.row_offsets[1] = -1; }},
      {"row_offsets must start with 0, never decrease and end with `entries`, but row 1",
       [](CsrProblem &p) { p.row_offsets[2] = 1; }},
      {"row_offsets must start with 0, never decrease and end with `entries`, but row 2",
       [](CsrProblem &p) { p.row_offsets[3] = 11; }},
      {"row_offsets must start with 0, never decrease and end with `entries`, but row 3",
       [](CsrProblem &p) { p.row_offsets[4] = 9; }},
      {"columns must be at least 0 and less than `rows`, but row 1",
       [](CsrProblem &p) { p.columns[2] = -1; }},
      {"columns must be at least 0 and less than `rows`, but row 3", [](CsrProblem &p) { p.columns[9] = 4; }},
      {"columns must ascend strictly within a row, but row 1", [](CsrProblem &p) { p.columns[3] = 0; }},
      {"columns must ascend strictly within a row, but row 2",
       [](CsrProblem &p) { std::swap(p.columns[5], p.columns[6]); }},
      {"columns must hold the row's diagonal entry, but row 0",
       [](CsrProblem &p) { p.columns[0] = 1, p.columns[1] = 2; }},
      {"values must be finite, but row 2", [](CsrProblem &p) { p.values[6] = NAN; }},
      {"values must be finite, but row 1",  // the first of several
       [](CsrProblem &p) { p.values[9] = p.values[4] = INFINITY; }},
  };
  for (segprior_device which : all_devices())
    for (const auto &[message, spoil] : table) {
      INFO(name_of(which) << ", " << message);
      CsrProblem p = kProblem;
      spoil(p);
      Device device(which);
      CsrCall call(device, p, SEGPRIOR_FLOAT32);
      CHECK(call.solve() == SEGPRIOR_ERROR_VALUE);
      CHECK_MESSAGE(message_has(message), segprior_last_error());
      check_untouched(call);
    }
}

TEST_CASE("csr arguments: what may be absent or empty [small]") {
  static const int64_t none[2] = {0, kRows}, no_rows[2] = {2, 0}, no_entries[1] = {0};
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    CsrCall call(device, kProblem, SEGPRIOR_FLOAT64);
    {
      Raw raw(device, call);
      raw.rhs.shape = raw.init.shape = raw.x.shape = none;
      CHECK(raw.solve() == SEGPRIOR_OK);
    }
    {
      Raw raw(device, call);
      raw.rows = raw.entries = 0;
      raw.values.shape = no_entries;
      raw.rhs.shape = raw.init.shape = raw.x.shape = no_rows;
      raw.row_offsets = raw.columns = nullptr;
      CHECK(raw.solve() == SEGPRIOR_OK);
    }
    check_untouched(call);
    Raw raw(device, call);
    raw.init_given = nullptr;
    raw.info = nullptr;
    CHECK(raw.solve() == SEGPRIOR_OK);
    for (double value : call.x.get()) CHECK(std::isfinite(value));
  }
}
