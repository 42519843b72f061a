// Reads the cases of the losses in tests/golden: case.txt and float64 .npy arrays.
#pragma once

#include <string>
#include <vector>

#include "tests/ref/losses_ref.h"

namespace segprior::test {

struct LossGolden {
  ref::losses::Problem problem;  // of the logits
  double loss;
  ref::Array probabilities, grad_logits;

  ref::losses::Problem of_probabilities() const;
};

LossGolden read_loss_golden(const std::string &name);
std::vector<std::string> loss_golden_names();

}  // namespace segprior::test
