// The one exception of the library. capi/guard.h turns it into a status code and the thread's error text; it
// never crosses the C ABI.
#pragma once

#include <stdexcept>
#include <string>

#include "segprior/core.h"

namespace segprior {

class Error : public std::runtime_error {
 public:
  Error(segprior_status status, const std::string &text) : std::runtime_error(text), status(status) {}
  const segprior_status status;
};

}  // namespace segprior
