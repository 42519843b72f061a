// Preconditioned conjugate gradients over a thin seam of vector and matrix operations. Each backend has one
// implementation of the seam; the loop is the same.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/csr/csr.h"
#include "kernels/csr/csr_check.h"
#include "segprior/core.h"

namespace segprior::csr {

// Vectors have `rows` elements. Results that are returned are known on return; the rest may be queued.
template <class T>
class Library {
 public:
  virtual ~Library() = default;
  // A = L L' on the pattern of A; false: a pivot is not positive. The vectors are those that precondition()
  // will get; their contents are not used.
  virtual bool factor(T *r, T *scratch, T *z) = 0;
  virtual void precondition(T *r, T *scratch, T *z) = 0;  // z = L'^-1 L^-1 r, r unchanged
  virtual void multiply(T *x, T *y) = 0;                  // y = A x
  virtual double dot(const T *x, const T *y) = 0;
  virtual double norm(const T *x) = 0;                // without overflow on the way
  virtual void axpy(double a, const T *x, T *y) = 0;  // y += a x
  virtual void scale(double a, T *x) = 0;             // x = a x
  virtual void copy(const T *from, T *to) = 0;
  virtual void fill(T *x, unsigned char byte) = 0;
};

constexpr unsigned char kZero = 0, kNaN = 0xff;  // bytes of T's zero and of a NaN
constexpr int kWorkVectors = 4;

// One right-hand side, and the vectors of its iteration; z is r without a preconditioner.
template <class T>
struct System {
  const T *rhs, *init;
  T *x, *r, *q, *d, *z;
};

// `work`: kWorkVectors * rows elements.
template <class T>
System<T> system_of(const Problem &p, int64_t n, T *work) {
  const int64_t at = n * p.rows;
  T *r = work, *q = r + p.rows, *d = q + p.rows, *z = p.incomplete_cholesky ? d + p.rows : r;
  return {static_cast<const T *>(p.rhs) + at,
          p.init ? static_cast<const T *>(p.init) + at : nullptr,
          static_cast<T *>(p.x) + at,
          r,
          q,
          d,
          z};
}

template <class T>
segprior_info failed(Library<T> &a, T *x, int32_t status, int iterations) {
  a.fill(x, kNaN);
  return {status, iterations, NAN};
}

// r = (b - A x) / |b|: of norm 1 for x = 0, so that the squares of a tiny gradient do not vanish in float32.
template <class T>
double scaled_residual(Library<T> &a, const System<T> &s, double rhs_norm) {
  a.copy(s.rhs, s.r);
  a.multiply(s.x, s.q);
  a.axpy(-1, s.q, s.r);
  a.scale(1 / rhs_norm, s.r);
  return a.norm(s.r);
}

template <class T>
segprior_info solve_system(Library<T> &a, const Problem &p, const System<T> &s) {
  const double rhs_norm = a.norm(s.rhs);
  if (!std::isfinite(rhs_norm) || (s.init && !std::isfinite(a.norm(s.init))))
    return failed(a, s.x, SEGPRIOR_NONFINITE_INPUT, 0);
  if (s.init && rhs_norm > 0)
    a.copy(s.init, s.x);
  else
    a.fill(s.x, kZero);
  if (rhs_norm == 0) return {SEGPRIOR_CONVERGED, 0, 0};

  double residual = scaled_residual(a, s, rhs_norm), rz = 0;
  int iterations = 0;
  while (residual > p.tolerance && iterations < p.max_iterations) {
    if (p.incomplete_cholesky) a.precondition(s.r, s.q, s.z);
    const double old = rz;
    rz = a.dot(s.r, s.z);
    // d = z + (rz / old) d
    if (iterations == 0) {
      a.copy(s.z, s.d);
    } else {
      a.scale(rz / old, s.d);
      a.axpy(1, s.z, s.d);
    }
    a.multiply(s.d, s.q);
    const double dq = a.dot(s.d, s.q), step = rz / dq;
    if (!(rz > 0 && dq > 0 && std::isfinite(step))) return failed(a, s.x, SEGPRIOR_BREAKDOWN, iterations);
    a.axpy(step * rhs_norm, s.d, s.x);
    a.axpy(-step, s.q, s.r);
    residual = a.norm(s.r);
    ++iterations;
  }
  const bool stopped = residual <= p.tolerance;
  residual = scaled_residual(a, s, rhs_norm);
  if (!std::isfinite(residual)) return failed(a, s.x, SEGPRIOR_BREAKDOWN, iterations);
  const int32_t above = stopped ? SEGPRIOR_PRECISION_LIMIT : SEGPRIOR_ITERATION_CAP;
  return {residual <= p.tolerance ? SEGPRIOR_CONVERGED : above, iterations, residual};
}

}  // namespace segprior::csr
