// include/segprior/csr.h: checks every argument, then calls the backend of the context's device.
#include "segprior/csr.h"

#include <string>

#include "capi/context.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "capi/options.h"
#include "capi/rules.h"
#include "capi/tensor.h"
#include "kernels/csr/csr.h"

using namespace segprior;

namespace {

constexpr int kDefaultCap = 2000;

segprior_csr_opts default_opts() {
  segprior_csr_opts o{};
  o.struct_size = sizeof o;
  o.preconditioner = SEGPRIOR_CSR_IC0;
  o.tolerance = 1e-6;
  return o;
}

segprior_csr_opts read_opts(const segprior_csr_opts *given) {
  const segprior_csr_opts o = read_struct(given, default_opts(), "opts");
  require(o.max_iterations >= 0, "max_iterations", o.max_iterations, ">= 0");
  require(o.preconditioner == SEGPRIOR_CSR_NONE || o.preconditioner == SEGPRIOR_CSR_IC0, "preconditioner",
          o.preconditioner, "SEGPRIOR_CSR_NONE (0) or SEGPRIOR_CSR_IC0 (1)");
  require(positive(o.tolerance), "tolerance", o.tolerance, "> 0 and finite");
  return o;
}

void check_count(const char *name, int64_t count) {
  if (count < 0)
    reject(SEGPRIOR_ERROR_VALUE, std::string(name) + " = " + std::to_string(count) + " must be >= 0");
  if (count >= INT32_MAX)  // rows + 1 row offsets
    reject(SEGPRIOR_ERROR_SIZE_OVERFLOW, std::string(name) + " = " + std::to_string(count) +
                                             " must be less than 2^31 - 1, the range of 32-bit indices");
}

}  // namespace

segprior_status segprior_csr_opts_init(segprior_csr_opts *opts, size_t struct_size) {
  return guard([&] { init_struct(opts, struct_size, default_opts(), "opts"); });
}

segprior_status segprior_csr_solve(segprior_context *context, const segprior_csr_opts *opts, int64_t rows,
                                   int64_t entries, const int32_t *row_offsets, const int32_t *columns,
                                   const segprior_tensor *values, const segprior_tensor *rhs,
                                   const segprior_tensor *init, const segprior_tensor *x,
                                   segprior_info *info) {
  return guard("segprior_csr_solve", [&] {
    const Use use(context);
    const DeviceScope scope(context->device);
    const segprior_csr_opts o = read_opts(opts);
    check_count("rows", rows);
    check_count("entries", entries);

    Arguments a(*context, false);
    csr::Problem p{};
    p.rhs = a.lead("rhs", rhs, 2, 2);
    if (a.field_dtype() != a.dtype())
      reject(SEGPRIOR_ERROR_DTYPE, "rhs: dtype = " + std::to_string(rhs->dtype) +
                                       " must be SEGPRIOR_FLOAT32 (1) or SEGPRIOR_FLOAT64 (2)");
    const Shape field = shape_of(*rhs);
    p.count = field.extent[0];
    if (field.extent[1] != rows)
      reject(SEGPRIOR_ERROR_SHAPE,
             "rhs: shape " + field.text() + " must be [R, rows], rows = " + std::to_string(rows));
    p.rows = rows;
    p.entries = entries;
    p.f64 = a.dtype() == SEGPRIOR_FLOAT64;
    p.values = a.input("values", values, {{entries}, 1}, true);
    p.init = a.input("init", init, field);
    p.x = a.output("x", x, field, true);
    if (p.count == 0 || rows == 0) return;
    a.input_bytes("row_offsets", row_offsets, (rows + 1) * sizeof(int32_t), alignof(int32_t));
    a.input_bytes("columns", columns, entries * sizeof(int32_t), alignof(int32_t));
    if (info) a.output_bytes("info", info, p.count * sizeof(segprior_info), alignof(segprior_info));
    a.check_overlap();
    p.row_offsets = row_offsets;
    p.columns = columns;
    p.info = info;
    p.incomplete_cholesky = o.preconditioner == SEGPRIOR_CSR_IC0;
    p.tolerance = o.tolerance;
    p.max_iterations = o.max_iterations > 0 ? o.max_iterations : kDefaultCap;
#if defined(SEGPRIOR_WITH_CUDA)
    if (context->device.type == SEGPRIOR_CUDA) return csr::solve_cuda(p, context->stream);
#endif
    csr::solve_cpu(p, context->cpu_threads());
  });
}
