// One CSR solve on one device: the matrix, tensors, options and the call.
#pragma once

#include <memory>
#include <vector>

#include "segprior/csr.h"
#include "tests/ref/array.h"
#include "tests/support/device.h"

namespace segprior::test {

struct CsrProblem {
  std::vector<int32_t> row_offsets, columns;
  ref::Array values, rhs, init;  // rhs [R, rows]; init likewise, or empty

  int64_t rows() const { return static_cast<int64_t>(row_offsets.size()) - 1; }
  int64_t count() const { return static_cast<int64_t>(rhs.size()) / rows(); }
};

class CsrCall {
 public:
  CsrCall(Device &device, const CsrProblem &p, int32_t dtype)
      : rows(p.rows()),
        entries(static_cast<int64_t>(p.columns.size())),
        count(p.count()),
        row_offsets(device.which(), p.row_offsets.size() * sizeof(int32_t)),
        columns(device.which(), p.columns.size() * sizeof(int32_t)),
        info(device.which(), count * sizeof(segprior_info)),
        values(device.which(), dtype, {entries}, p.values),
        rhs(device.which(), dtype, {count, rows}, p.rhs),
        x(device.which(), dtype, {count, rows}, true),
        device_(device) {
    row_offsets.upload(p.row_offsets.data());
    columns.upload(p.columns.data());
    if (!p.init.empty())
      init = std::make_unique<Tensor>(device.which(), dtype, std::vector<int64_t>{count, rows}, p.init);
    segprior_csr_opts_init(&opts, sizeof opts);
  }

  segprior_status solve() {
    return segprior_csr_solve(
        device_.context(), &opts, rows, entries, static_cast<const int32_t *>(row_offsets.data()),
        static_cast<const int32_t *>(columns.data()), values.view(), rhs.view(),
        init ? init->view() : nullptr, x.view(), static_cast<segprior_info *>(info.data()));
  }
  std::vector<segprior_info> infos() const {
    std::vector<segprior_info> read(count);
    info.download(read.data());
    return read;
  }

  segprior_csr_opts opts;
  int64_t rows, entries, count;
  DeviceArray row_offsets, columns, info;
  Tensor values, rhs, x;
  TensorPtr init;

 private:
  Device &device_;
};

}  // namespace segprior::test
