// What the tests of error messages share.
#pragma once

#include <string>

#include "segprior/core.h"

namespace segprior::test {

// Whether the text of this thread's last error contains `text`.
inline bool message_has(const std::string &text) {
  return std::string(segprior_last_error()).find(text) != std::string::npos;
}

}  // namespace segprior::test
