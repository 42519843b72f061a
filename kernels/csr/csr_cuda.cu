// The CSR solve on a CUDA device: the check of the matrix, and the loop on the host over the right-hand
// sides.
#include <vector>

#include "kernels/csr/csr_cuda.h"

namespace segprior::csr {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned long long kNoRow = ~0ull;
constexpr unsigned kRules = 8;  // in the key row * kRules + rule

template <class T>
__global__ void check_rows(Matrix<T> a, unsigned long long *first) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= a.rows) return;
  if (const Rule rule = broken_rule(a, row))
    atomicMin(first, static_cast<unsigned long long>(row) * kRules + rule);
}

template <class T>
void check_matrix(const Matrix<T> &a, cudaStream_t stream) {
  const DeviceArray<unsigned long long> first = device_array<unsigned long long>(1);
  check(cudaMemsetAsync(first.get(), 0xff, sizeof(unsigned long long), stream), "cudaMemsetAsync");
  const unsigned blocks = static_cast<unsigned>((a.rows + kThreads - 1) / kThreads);
  launch("csr_check_rows", check_rows<T>, blocks, kThreads, 0, stream, a, first.get());
  unsigned long long key = 0;
  check(cudaMemcpyAsync(&key, first.get(), sizeof key, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (key != kNoRow) reject_row(static_cast<int64_t>(key / kRules), static_cast<Rule>(key % kRules));
}

template <class T>
void solve(const Problem &p, cudaStream_t stream) {
  const Matrix<T> a{p.rows, p.entries, p.row_offsets, p.columns, static_cast<const T *>(p.values)};
  check_matrix(a, stream);
  const std::unique_ptr<Library<T>> library = make_device_library(a, stream);
  const DeviceArray<T> work = device_array<T>(kWorkVectors * p.rows);
  bool factored = true;
  if (p.incomplete_cholesky) {
    const System<T> s = system_of(p, 0, work.get());
    factored = library->factor(s.r, s.q, s.z);
  }
  std::vector<segprior_info> infos;
  for (int64_t n = 0; n < p.count; ++n) {
    const System<T> s = system_of(p, n, work.get());
    infos.push_back(factored ? solve_system(*library, p, s) : failed(*library, s.x, SEGPRIOR_BREAKDOWN, 0));
  }
  if (p.info)
    check(cudaMemcpyAsync(p.info, infos.data(), infos.size() * sizeof(segprior_info), cudaMemcpyHostToDevice,
                          stream),
          "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace

void solve_cuda(const Problem &p, void *stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  p.f64 ? solve<double>(p, queue) : solve<float>(p, queue);
}

}  // namespace segprior::csr
