// The CSR solve on the CPU: threads over right-hand sides, and IC(0) row by row.
#include "kernels/csr/csr_cpu.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"

namespace segprior::csr {

void reject_row(int64_t row, Rule rule) {
  const char *const texts[] = {"",
                               "row_offsets must start with 0, never decrease and end with `entries`",
                               "columns must be at least 0 and less than `rows`",
                               "columns must ascend strictly within a row",
                               "columns must hold the row's diagonal entry",
                               "values must be finite"};
  throw Error(SEGPRIOR_ERROR_VALUE,
              std::string(texts[rule]) + ", but row " + std::to_string(row) + " breaks that");
}

namespace {

template <class T>
class HostLibrary : public Library<T> {
 public:
  explicit HostLibrary(const Matrix<T> &a) : a_(a) {}

  // Row by row: l_ij = (a_ij - sum_k<j l_ik l_jk) / l_jj for j < i, l_ii = sqrt(a_ii - sum_k l_ik^2).
  bool factor(T *, T *, T *) override {
    offsets_.assign(1, 0);
    for (int64_t i = 0; i < a_.rows; ++i) {
      const size_t begin = columns_.size();
      for (int32_t k = a_.row_offsets[i]; a_.columns[k] < i; ++k) {
        const int32_t j = a_.columns[k];
        const double value = (a_.values[k] - row_product(begin, j)) / lower_[offsets_[j + 1] - 1];
        columns_.push_back(j);
        lower_.push_back(static_cast<T>(value));
      }
      const int32_t *row = a_.columns + a_.row_offsets[i];
      const int64_t diagonal = std::lower_bound(row, a_.columns + a_.row_offsets[i + 1], i) - a_.columns;
      double pivot = a_.values[diagonal];
      for (size_t k = begin; k < lower_.size(); ++k) pivot -= static_cast<double>(lower_[k]) * lower_[k];
      if (!(pivot > 0 && std::isfinite(pivot))) return false;
      columns_.push_back(static_cast<int32_t>(i));
      lower_.push_back(static_cast<T>(std::sqrt(pivot)));
      offsets_.push_back(static_cast<int32_t>(columns_.size()));
    }
    return true;
  }

  void precondition(T *r, T *, T *z) override {
    for (int64_t i = 0; i < a_.rows; ++i) {
      double sum = r[i];
      const int32_t last = offsets_[i + 1] - 1;
      for (int32_t k = offsets_[i]; k < last; ++k) sum -= static_cast<double>(lower_[k]) * z[columns_[k]];
      z[i] = static_cast<T>(sum / lower_[last]);
    }
    for (int64_t i = a_.rows - 1; i >= 0; --i) {
      const int32_t last = offsets_[i + 1] - 1;
      z[i] /= lower_[last];
      for (int32_t k = offsets_[i]; k < last; ++k) z[columns_[k]] -= lower_[k] * z[i];
    }
  }

  void multiply(T *x, T *y) override {
    for (int64_t i = 0; i < a_.rows; ++i) {
      double sum = 0;
      for (int32_t k = a_.row_offsets[i]; k < a_.row_offsets[i + 1]; ++k)
        sum += static_cast<double>(a_.values[k]) * x[a_.columns[k]];
      y[i] = static_cast<T>(sum);
    }
  }

  double dot(const T *x, const T *y) override {
    double sum = 0;
    for (int64_t i = 0; i < a_.rows; ++i) sum += static_cast<double>(x[i]) * y[i];
    return sum;
  }

  double norm(const T *x) override {
    double largest = 0;
    for (int64_t i = 0; i < a_.rows; ++i) {
      if (!std::isfinite(x[i])) return NAN;
      largest = std::max<double>(largest, std::fabs(x[i]));
    }
    if (largest == 0) return 0;
    double sum = 0;
    for (int64_t i = 0; i < a_.rows; ++i) sum += (x[i] / largest) * (x[i] / largest);
    return largest * std::sqrt(sum);
  }

  void axpy(double a, const T *x, T *y) override {
    for (int64_t i = 0; i < a_.rows; ++i) y[i] += static_cast<T>(a * x[i]);
  }
  void scale(double a, T *x) override {
    for (int64_t i = 0; i < a_.rows; ++i) x[i] = static_cast<T>(a * x[i]);
  }
  void copy(const T *from, T *to) override { std::copy_n(from, a_.rows, to); }
  void fill(T *x, unsigned char byte) override { std::memset(x, byte, a_.rows * sizeof(T)); }

 private:
  // The product of the row that is being built, which starts at `begin`, with row j, over the columns before
  // j.
  double row_product(size_t begin, int32_t j) const {
    double sum = 0;
    int32_t other = offsets_[j];
    for (size_t k = begin; k < columns_.size(); ++k) {
      while (columns_[other] < columns_[k]) ++other;  // ends at row j's diagonal, j > columns_[k]
      if (columns_[other] == columns_[k]) sum += static_cast<double>(lower_[k]) * lower_[other];
    }
    return sum;
  }

  const Matrix<T> a_;
  std::vector<int32_t> offsets_, columns_;  // of L, whose rows end with their diagonal entry
  std::vector<T> lower_;
};

template <class T>
void solve(const Problem &p, int threads) {
  const Matrix<T> a{p.rows, p.entries, p.row_offsets, p.columns, static_cast<const T *>(p.values)};
  for (int64_t row = 0; row < p.rows; ++row)
    if (const Rule rule = broken_rule(a, row)) reject_row(row, rule);

  const int teams = static_cast<int>(std::min<int64_t>(threads, p.count));
  std::vector<T> work(static_cast<size_t>(teams) * kWorkVectors * p.rows);
  const std::unique_ptr<Library<T>> library = make_host_library(a);
  const bool factored = !p.incomplete_cholesky || library->factor(nullptr, nullptr, nullptr);
#pragma omp parallel for num_threads(teams) schedule(dynamic)
  for (int64_t n = 0; n < p.count; ++n) {
    const System<T> s = system_of(p, n, work.data() + omp_get_thread_num() * kWorkVectors * p.rows);
    const segprior_info info =
        factored ? solve_system(*library, p, s) : failed(*library, s.x, SEGPRIOR_BREAKDOWN, 0);
    if (p.info) p.info[n] = info;
  }
}

}  // namespace

template <class T>
std::unique_ptr<Library<T>> make_host_library(const Matrix<T> &a) {
  return std::make_unique<HostLibrary<T>>(a);
}
template std::unique_ptr<Library<float>> make_host_library(const Matrix<float> &);
template std::unique_ptr<Library<double>> make_host_library(const Matrix<double> &);

void solve_cpu(const Problem &p, int threads) {
  p.f64 ? solve<double>(p, threads) : solve<float>(p, threads);
}

}  // namespace segprior::csr
