// The seam's implementation on cuSPARSE and cuBLAS. Both are loaded on first use: the library itself works
// without them. In test programs over the fake CUDA runtime this file is empty.
#if defined(SEGPRIOR_WITH_CUDA)
#include "kernels/csr/csr_cuda.h"

#if !defined(FAKECUDA)
#include <dlfcn.h>

#include <string>
#include <type_traits>

// A toolkit may be installed without them.
#if __has_include(<cublas_v2.h>) && __has_include(<cusparse.h>)
#define SEGPRIOR_HAS_LIBRARY_HEADERS 1
#include <cublas_v2.h>
#include <cusparse.h>
#endif

namespace segprior::csr {

#if defined(SEGPRIOR_HAS_LIBRARY_HEADERS)
namespace {

// A shared library that stays loaded.
class Shared {
 public:
  // The toolkit's own major version first: it needs no newer driver than this library does.
  Shared(const std::string &name, int major) : name_(name + ".so." + std::to_string(major)) {
    for (const std::string &file : {name_, name + ".so.12", name + ".so.13", name + ".so"}) {
      handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_) return;
      if (reason_.empty()) reason_ = dlerror();
    }
  }

  template <class F>
  void load(F &function, const std::string &symbol) const {
    function = handle_ ? reinterpret_cast<F>(dlsym(handle_, symbol.c_str())) : nullptr;
  }
  template <class F>
  void need(F &function, const std::string &symbol) const {
    if (!handle_)
      throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
                  "segprior_csr_solve on CUDA needs " + name_ + ", which cannot be loaded: " + reason_);
    load(function, symbol);
    if (!function) throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED, name_ + " has no function " + symbol);
  }

 private:
  std::string name_, reason_;
  void *handle_ = nullptr;
};

template <class T>
constexpr cudaDataType kDataType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_64F;

// The functions by their C names, those that are there for each dtype with T.
template <class T>
struct Functions {
  decltype(&cublasCreate_v2) blas_create;
  decltype(&cublasDestroy_v2) blas_destroy;
  decltype(&cublasSetStream_v2) blas_set_stream;
  cublasStatus_t (*dot)(cublasHandle_t, int, const T *, int, const T *, int, T *);
  cublasStatus_t (*nrm2)(cublasHandle_t, int, const T *, int, T *);
  cublasStatus_t (*axpy)(cublasHandle_t, int, const T *, const T *, int, T *, int);
  cublasStatus_t (*scal)(cublasHandle_t, int, const T *, T *, int);

  decltype(&cusparseCreate) create;
  decltype(&cusparseDestroy) destroy;
  decltype(&cusparseSetStream) set_stream;
  decltype(&cusparseCreateCsr) create_csr;
  decltype(&cusparseDestroySpMat) destroy_matrix;
  decltype(&cusparseSpMatSetAttribute) set_attribute;
  decltype(&cusparseCreateDnVec) create_vector;
  decltype(&cusparseDestroyDnVec) destroy_vector;
  decltype(&cusparseDnVecSetValues) set_values;
  decltype(&cusparseSpMV) spmv;
  decltype(&cusparseSpMV_bufferSize) spmv_buffer_size;
  decltype(&cusparseSpSV_createDescr) create_spsv;
  decltype(&cusparseSpSV_destroyDescr) destroy_spsv;
  decltype(&cusparseSpSV_bufferSize) spsv_buffer_size;
  decltype(&cusparseSpSV_analysis) spsv_analysis;
  decltype(&cusparseSpSV_solve) spsv_solve;
  decltype(&cusparseCreateMatDescr) create_description;
  decltype(&cusparseDestroyMatDescr) destroy_description;

  // IC(0) is deprecated: a later header may not declare it, a later library may not have it (null). `info` is
  // a csric02Info_t, `policy` a cusparseSolvePolicy_t.
  cusparseStatus_t (*create_info)(void **info);
  cusparseStatus_t (*destroy_info)(void *info);
  cusparseStatus_t (*ic0_buffer_size)(cusparseHandle_t, int rows, int entries, cusparseMatDescr_t, T *values,
                                      const int *row_offsets, const int *columns, void *info, int *bytes);
  using Ic0 = cusparseStatus_t (*)(cusparseHandle_t, int rows, int entries, cusparseMatDescr_t, T *values,
                                   const int *row_offsets, const int *columns, void *info, int policy,
                                   void *buffer);
  Ic0 ic0_analysis, ic0;
  cusparseStatus_t (*zero_pivot)(cusparseHandle_t, void *info, int *position);

  Functions();
  bool has_ic0() const {
    return create_info && destroy_info && ic0_buffer_size && ic0_analysis && ic0 && zero_pivot;
  }
};
static_assert(std::is_same_v<decltype(&cublasSdot_v2), decltype(Functions<float>::dot)>);
static_assert(std::is_same_v<decltype(&cublasDnrm2_v2), decltype(Functions<double>::nrm2)>);
static_assert(std::is_same_v<decltype(&cublasSaxpy_v2), decltype(Functions<float>::axpy)>);
static_assert(std::is_same_v<decltype(&cublasDscal_v2), decltype(Functions<double>::scal)>);

template <class T>
Functions<T>::Functions() {
  const std::string letter = std::is_same_v<T, float> ? "S" : "D";
  const Shared blas("libcublas", CUBLAS_VER_MAJOR), sparse("libcusparse", CUSPARSE_VER_MAJOR);
  blas.need(blas_create, "cublasCreate_v2");
  blas.need(blas_destroy, "cublasDestroy_v2");
  blas.need(blas_set_stream, "cublasSetStream_v2");
  blas.need(dot, "cublas" + letter + "dot_v2");
  blas.need(nrm2, "cublas" + letter + "nrm2_v2");
  blas.need(axpy, "cublas" + letter + "axpy_v2");
  blas.need(scal, "cublas" + letter + "scal_v2");
  sparse.need(create, "cusparseCreate");
  sparse.need(destroy, "cusparseDestroy");
  sparse.need(set_stream, "cusparseSetStream");
  sparse.need(create_csr, "cusparseCreateCsr");
  sparse.need(destroy_matrix, "cusparseDestroySpMat");
  sparse.need(set_attribute, "cusparseSpMatSetAttribute");
  sparse.need(create_vector, "cusparseCreateDnVec");
  sparse.need(destroy_vector, "cusparseDestroyDnVec");
  sparse.need(set_values, "cusparseDnVecSetValues");
  sparse.need(spmv, "cusparseSpMV");
  sparse.need(spmv_buffer_size, "cusparseSpMV_bufferSize");
  sparse.need(create_spsv, "cusparseSpSV_createDescr");
  sparse.need(destroy_spsv, "cusparseSpSV_destroyDescr");
  sparse.need(spsv_buffer_size, "cusparseSpSV_bufferSize");
  sparse.need(spsv_analysis, "cusparseSpSV_analysis");
  sparse.need(spsv_solve, "cusparseSpSV_solve");
  sparse.need(create_description, "cusparseCreateMatDescr");
  sparse.need(destroy_description, "cusparseDestroyMatDescr");
  sparse.load(create_info, "cusparseCreateCsric02Info");
  sparse.load(destroy_info, "cusparseDestroyCsric02Info");
  sparse.load(ic0_buffer_size, "cusparse" + letter + "csric02_bufferSize");
  sparse.load(ic0_analysis, "cusparse" + letter + "csric02_analysis");
  sparse.load(ic0, "cusparse" + letter + "csric02");
  sparse.load(zero_pivot, "cusparseXcsric02_zeroPivot");
}

void check(cublasStatus_t status, const char *what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(SEGPRIOR_ERROR_CUDA, std::string(what) + ": cuBLAS status " + std::to_string(status));
}
void check(cusparseStatus_t status, const char *what) {
  if (status != CUSPARSE_STATUS_SUCCESS)
    throw Error(status == CUSPARSE_STATUS_ALLOC_FAILED || status == CUSPARSE_STATUS_INSUFFICIENT_RESOURCES
                    ? SEGPRIOR_ERROR_OUT_OF_MEMORY
                    : SEGPRIOR_ERROR_CUDA,
                std::string(what) + ": cuSPARSE status " + std::to_string(status));
}
using segprior::check;

// A handle of one of the libraries, and the function that destroys it.
template <class Handle, class Destroy>
class Owner {
 public:
  template <class Create, class... Args>
  Owner(const char *what, Destroy destroy, Create create, Args... args) : destroy_(destroy) {
    check(create(&handle_, args...), what);
  }
  ~Owner() { destroy_(handle_); }
  Owner(const Owner &) = delete;
  operator Handle() const { return handle_; }

 private:
  Handle handle_ = nullptr;
  Destroy destroy_;
};

using MatrixOwner = Owner<cusparseSpMatDescr_t, decltype(&cusparseDestroySpMat)>;
using VectorOwner = Owner<cusparseDnVecDescr_t, decltype(&cusparseDestroyDnVec)>;

// L x = b or L' x = b: the descriptor of one of them, and its memory.
template <class T>
struct Triangle {
  explicit Triangle(const Functions<T> &f)
      : descriptor("cusparseSpSV_createDescr", f.destroy_spsv, f.create_spsv) {}
  Owner<cusparseSpSVDescr_t, decltype(&cusparseSpSV_destroyDescr)> descriptor;
  DeviceArray<char> buffer;
};

template <class T>
class DeviceLibrary : public Library<T> {
 public:
  DeviceLibrary(const Matrix<T> &a, cudaStream_t stream)
      : a_(a),
        stream_(stream),
        blas_("cublasCreate", f_.blas_destroy, f_.blas_create),
        sparse_("cusparseCreate", f_.destroy, f_.create),
        matrix_("cusparseCreateCsr", f_.destroy_matrix, csr_of(const_cast<T *>(a.values))),
        x_("cusparseCreateDnVec", f_.destroy_vector, f_.create_vector, a.rows, some_memory(), kType),
        y_("cusparseCreateDnVec", f_.destroy_vector, f_.create_vector, a.rows, some_memory(), kType) {
    check(f_.blas_set_stream(blas_, stream), "cublasSetStream");
    check(f_.set_stream(sparse_, stream), "cusparseSetStream");
    size_t bytes = 0;
    check(f_.spmv_buffer_size(sparse_, kPlain, &kOne, matrix_, x_, &kNull, y_, kType, kSpmv, &bytes),
          "cusparseSpMV_bufferSize");
    buffer_ = device_array<char>(bytes);
  }

  bool factor(T *r, T *scratch, T *z) override {
    if (!f_.has_ic0())
      throw Error(
          SEGPRIOR_ERROR_NOT_SUPPORTED,
          "opts.preconditioner = SEGPRIOR_CSR_IC0: this version of cuSPARSE has no incomplete Cholesky "
          "factorisation (csric02)");
    lower_values_ = device_array<T>(a_.entries);
    segprior::check(cudaMemcpyAsync(lower_values_.get(), a_.values, a_.entries * sizeof(T),
                                    cudaMemcpyDeviceToDevice, stream_),
                    "cudaMemcpyAsync");
    if (!factor_in_place()) return false;

    // The same pattern; of it cuSPARSE reads the lower triangle.
    lower_ =
        std::make_unique<MatrixOwner>("cusparseCreateCsr", f_.destroy_matrix, csr_of(lower_values_.get()));
    cusparseFillMode_t fill = CUSPARSE_FILL_MODE_LOWER;
    cusparseDiagType_t diagonal = CUSPARSE_DIAG_TYPE_NON_UNIT;
    check(f_.set_attribute(*lower_, CUSPARSE_SPMAT_FILL_MODE, &fill, sizeof fill),
          "cusparseSpMatSetAttribute");
    check(f_.set_attribute(*lower_, CUSPARSE_SPMAT_DIAG_TYPE, &diagonal, sizeof diagonal),
          "cusparseSpMatSetAttribute");
    analyse(down_, kPlain, r, scratch);
    analyse(up_, kTransposed, scratch, z);
    return true;
  }

  void precondition(T *r, T *scratch, T *z) override {
    solve(down_, kPlain, r, scratch);
    solve(up_, kTransposed, scratch, z);
  }

  void multiply(T *x, T *y) override {
    point(x, y);
    check(f_.spmv(sparse_, kPlain, &kOne, matrix_, x_, &kNull, y_, kType, kSpmv, buffer_.get()),
          "cusparseSpMV");
  }

  double dot(const T *x, const T *y) override {
    T result = 0;
    check(f_.dot(blas_, rows(), x, 1, y, 1, &result), "cublas dot");
    return result;
  }
  double norm(const T *x) override {
    T result = 0;
    check(f_.nrm2(blas_, rows(), x, 1, &result), "cublas nrm2");
    return result;
  }
  void axpy(double a, const T *x, T *y) override {
    const T factor = static_cast<T>(a);
    check(f_.axpy(blas_, rows(), &factor, x, 1, y, 1), "cublas axpy");
  }
  void scale(double a, T *x) override {
    const T factor = static_cast<T>(a);
    check(f_.scal(blas_, rows(), &factor, x, 1), "cublas scal");
  }
  void copy(const T *from, T *to) override {
    segprior::check(cudaMemcpyAsync(to, from, a_.rows * sizeof(T), cudaMemcpyDeviceToDevice, stream_),
                    "cudaMemcpyAsync");
  }
  void fill(T *x, unsigned char byte) override {
    segprior::check(cudaMemsetAsync(x, byte, a_.rows * sizeof(T), stream_), "cudaMemsetAsync");
  }

 private:
  static constexpr T kOne = 1, kNull = 0;
  static constexpr cudaDataType kType = kDataType<T>;
  static constexpr cusparseOperation_t kPlain = CUSPARSE_OPERATION_NON_TRANSPOSE,
                                       kTransposed = CUSPARSE_OPERATION_TRANSPOSE;
  static constexpr cusparseSpMVAlg_t kSpmv =
      CUSPARSE_SPMV_CSR_ALG2;  // the one with the same bits in every run

  int rows() const { return static_cast<int>(a_.rows); }
  // A vector's descriptor needs an address; every operation sets its own.
  void *some_memory() const { return const_cast<T *>(a_.values); }
  void point(T *x, T *y) {
    check(f_.set_values(x_, x), "cusparseDnVecSetValues");
    check(f_.set_values(y_, y), "cusparseDnVecSetValues");
  }
  auto csr_of(T *values) const {
    return [this, values](cusparseSpMatDescr_t *matrix) {
      return f_.create_csr(matrix, a_.rows, a_.rows, a_.entries, const_cast<int32_t *>(a_.row_offsets),
                           const_cast<int32_t *>(a_.columns), values, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_32I,
                           CUSPARSE_INDEX_BASE_ZERO, kType);
    };
  }

  // csric02 reads and writes the lower triangle alone.
  bool factor_in_place() {
    const Owner<cusparseMatDescr_t, decltype(&cusparseDestroyMatDescr)> general(
        "cusparseCreateMatDescr", f_.destroy_description, f_.create_description);
    const Owner<void *, cusparseStatus_t (*)(void *)> info("cusparseCreateCsric02Info", f_.destroy_info,
                                                           f_.create_info);
    const int entries = static_cast<int>(a_.entries), policy = CUSPARSE_SOLVE_POLICY_USE_LEVEL;
    T *values = lower_values_.get();
    int bytes = 0, position = 0;
    check(f_.ic0_buffer_size(sparse_, rows(), entries, general, values, a_.row_offsets, a_.columns, info,
                             &bytes),
          "csric02_bufferSize");
    const DeviceArray<char> buffer = device_array<char>(bytes);
    check(f_.ic0_analysis(sparse_, rows(), entries, general, values, a_.row_offsets, a_.columns, info, policy,
                          buffer.get()),
          "csric02_analysis");
    check(f_.ic0(sparse_, rows(), entries, general, values, a_.row_offsets, a_.columns, info, policy,
                 buffer.get()),
          "csric02");
    // Waits. A negative pivot that it lets pass leaves NaN, which ends the iteration with a breakdown.
    const cusparseStatus_t status = f_.zero_pivot(sparse_, info, &position);
    if (status == CUSPARSE_STATUS_ZERO_PIVOT) return false;
    check(status, "csric02_zeroPivot");
    segprior::check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");  // before `buffer` goes
    return true;
  }

  void analyse(Triangle<T> &t, cusparseOperation_t operation, T *b, T *x) {
    size_t bytes = 0;
    point(b, x);
    check(f_.spsv_buffer_size(sparse_, operation, &kOne, *lower_, x_, y_, kType, CUSPARSE_SPSV_ALG_DEFAULT,
                              t.descriptor, &bytes),
          "cusparseSpSV_bufferSize");
    t.buffer = device_array<char>(bytes);
    check(f_.spsv_analysis(sparse_, operation, &kOne, *lower_, x_, y_, kType, CUSPARSE_SPSV_ALG_DEFAULT,
                           t.descriptor, t.buffer.get()),
          "cusparseSpSV_analysis");
  }
  void solve(Triangle<T> &t, cusparseOperation_t operation, T *b, T *x) {
    point(b, x);
    check(f_.spsv_solve(sparse_, operation, &kOne, *lower_, x_, y_, kType, CUSPARSE_SPSV_ALG_DEFAULT,
                        t.descriptor),
          "cusparseSpSV_solve");
  }

  const Functions<T> f_;
  const Matrix<T> a_;
  const cudaStream_t stream_;
  const Owner<cublasHandle_t, decltype(&cublasDestroy_v2)> blas_;
  const Owner<cusparseHandle_t, decltype(&cusparseDestroy)> sparse_;
  const MatrixOwner matrix_;
  const VectorOwner x_, y_;
  DeviceArray<char> buffer_;
  DeviceArray<T> lower_values_;
  std::unique_ptr<MatrixOwner> lower_;
  Triangle<T> down_{f_}, up_{f_};
};

}  // namespace

template <class T>
std::unique_ptr<Library<T>> make_device_library(const Matrix<T> &a, cudaStream_t stream) {
  return std::make_unique<DeviceLibrary<T>>(a, stream);
}

#else

template <class T>
std::unique_ptr<Library<T>> make_device_library(const Matrix<T> &, cudaStream_t) {
  throw Error(SEGPRIOR_ERROR_NOT_SUPPORTED,
              "segprior_csr_solve on CUDA: this build was made without the headers of cuSPARSE and cuBLAS");
}

#endif

template std::unique_ptr<Library<float>> make_device_library(const Matrix<float> &, cudaStream_t);
template std::unique_ptr<Library<double>> make_device_library(const Matrix<double> &, cudaStream_t);

}  // namespace segprior::csr

#endif
#endif
