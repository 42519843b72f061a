/* libsegprior in C++: how calls fail. Part of segprior.hpp. */
#ifndef SEGPRIOR_CPP_STATUS_HPP
#define SEGPRIOR_CPP_STATUS_HPP

#include <string>
#include <utility>

#include "segprior/core.h"

/* 1: a call that fails throws. 0: it returns its status. */
#if !defined(SEGPRIOR_NO_EXCEPTIONS) && (defined(__cpp_exceptions) || defined(_CPPUNWIND))
#define SEGPRIOR_CPP_EXCEPTIONS 1
#define SEGPRIOR_CPP_NODISCARD
#define SEGPRIOR_CPP_MODE throwing
#include <stdexcept>
#else
#define SEGPRIOR_CPP_EXCEPTIONS 0
#define SEGPRIOR_CPP_NODISCARD [[nodiscard]]
#define SEGPRIOR_CPP_MODE returning
#endif

/* Every name stands in an inline namespace of the version and of the way to fail, so that parts of one
 * program that were compiled differently do not share a type or an inline function of different content. */
#define SEGPRIOR_CPP_JOIN(major, minor, mode) v##major##_##minor##_##mode
#define SEGPRIOR_CPP_NAME(major, minor, mode) SEGPRIOR_CPP_JOIN(major, minor, mode)
#define SEGPRIOR_CPP_NAMESPACE \
  SEGPRIOR_CPP_NAME(SEGPRIOR_VERSION_MAJOR, SEGPRIOR_VERSION_MINOR, SEGPRIOR_CPP_MODE)

namespace segprior {
inline namespace SEGPRIOR_CPP_NAMESPACE {

/* How a call ended. */
class SEGPRIOR_CPP_NODISCARD Status {
 public:
  Status() = default;
  Status(segprior_status code, std::string text) : code_(code), text_(std::move(text)) {}

  bool ok() const { return code_ == SEGPRIOR_OK; }
  segprior_status code() const { return code_; }
  const char *what() const { return text_.c_str(); } /* argument, value and rule; "" if ok */

  /* If this is ok the status of the next call, else this. */
  template <class Call>
  Status then(const Call &next) const {
    return ok() ? next() : *this;
  }

 private:
  segprior_status code_ = SEGPRIOR_OK;
  std::string text_;
};

#if SEGPRIOR_CPP_EXCEPTIONS
class Error : public std::runtime_error {
 public:
  explicit Error(const Status &status) : std::runtime_error(status.what()), code_(status.code()) {}
  segprior_status code() const { return code_; }

 private:
  segprior_status code_;
};
#endif

namespace detail {

/* The status of a C call of this thread. */
inline Status status_of(segprior_status code) {
  return code == SEGPRIOR_OK ? Status() : Status(code, segprior_last_error());
}

/* What leaves a public function: throws unless ok, or returns the status. */
inline Status finish(Status status) {
#if SEGPRIOR_CPP_EXCEPTIONS
  if (!status.ok()) throw Error(status);
#endif
  return status;
}

inline Status finish(segprior_status code) { return finish(status_of(code)); }

}  // namespace detail
}  // namespace SEGPRIOR_CPP_NAMESPACE
}  // namespace segprior
#endif
