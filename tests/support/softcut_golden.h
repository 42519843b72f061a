// Reads the SoftCut cases of tests/golden: case.txt (the shape) and float64 .npy arrays.
#pragma once

#include <string>
#include <vector>

#include "tests/ref/softcut_ref.h"

namespace segprior::test {

struct SoftcutGolden {
  ref::softcut::Problem problem;
  ref::Array x, grad_x;
  ref::softcut::Gradients grads;
};

SoftcutGolden read_softcut_golden(const std::string &name);
std::vector<std::string> softcut_golden_names();

}  // namespace segprior::test
