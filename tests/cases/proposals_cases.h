// The problems that the tests of the proposals share.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/support/proposals_call.h"

namespace segprior::test {

// Bounds of each image from the volumes V of its softmax.
enum class ProposalBounds {
  none,
  lower_of_one,   // 1.4 V_0, or what is left of the image
  upper_of_rest,  // 0.6 V_i of all but class 0
  equality,       // V_i times random factors, to the valid voxels' number
  boxes,          // 0.9 to 1.1 of the same; shared by the batch if `shared`
  excluded        // the last class; class 0 at least 1
};

struct ProposalCase {
  std::vector<int64_t> spatial;
  int64_t classes, batch;
  ProposalBounds bounds;
  double scale = 3;
  int32_t dtype = SEGPRIOR_FLOAT64;
  bool masked = false, shared = false;  // shared: one row of bounds and one mask for the batch

  ref::proposals::Problem problem() const;
};
std::ostream &operator<<(std::ostream &out, const ProposalCase &c);

// With 3 or more classes in all of 1 to 3 dimensions, every dtype, and odd sizes.
std::vector<ProposalCase> proposal_cases();
// A few dozen voxels.
std::vector<ProposalCase> tiny_proposal_cases();

// What rounding can do to Q: a relative error of the arithmetic in exponents as large as `largest`, and the
// storage's. Of Q alone, without the storage's, if !stored.
double proposal_rounding(int32_t dtype, double largest, bool stored = true);

}  // namespace segprior::test
