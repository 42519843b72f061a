/* libsegprior in C++: the solver of compressed matrices. Part of segprior.hpp; the contract is csr.h's. */
#ifndef SEGPRIOR_CPP_CSR_HPP
#define SEGPRIOR_CPP_CSR_HPP

#include "segprior/cpp/context.hpp"
#include "segprior/cpp/view.hpp"
#include "segprior/csr.h"

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* Starts with the defaults, as SoftmaxOptions. */
struct CsrOptions : segprior_csr_opts {
  CsrOptions() : segprior_csr_opts{} { segprior_csr_opts_init(this, sizeof(segprior_csr_opts)); }
};

/* Compressed rows in device memory, both triangles. */
struct CsrMatrix {
  int64_t rows = 0, entries = 0;
  const int32_t *row_offsets = nullptr; /* [rows + 1] */
  const int32_t *columns = nullptr;     /* [entries] */
  View values;                          /* [entries] */
};

/* Solves A x = rhs. Pass {} for init to start from 0, and nullptr for infos that are not wanted. */
inline Status csr_solve(const Context &context, const CsrOptions &options, const CsrMatrix &a,
                        const View &rhs, const View &init, const MutableView &x, segprior_info *info) {
  return detail::finish(segprior_csr_solve(context.handle(), &options, a.rows, a.entries, a.row_offsets,
                                           a.columns, a.values.c(), rhs.c(), init.c(), x.c(), info));
}

}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
