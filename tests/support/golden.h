// Reads the cases of tests/golden: case.txt (a key and its values per line) and float64 .npy arrays.
#pragma once

#include <string>
#include <vector>

#include "tests/ref/softmax_ref.h"

namespace segprior::test {

// C-ordered little-endian float64 array of a .npy file; throws std::runtime_error on anything else.
ref::Array read_npy(const std::string &path);

struct Golden {
  std::string name, folder;
  ref::Problem problem;
  ref::Array grad_u;

  bool has(const std::string &array) const;
  ref::Array array(const std::string &name) const;  // of the file <name>.npy
  // The files <name>_<class> [B, size] of all star classes, as one array [B, M, size].
  ref::Array stars(const std::string &name, int64_t size) const;
};

Golden read_golden(const std::string &name);
std::vector<std::string> golden_names();

}  // namespace segprior::test
