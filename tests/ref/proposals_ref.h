// The proposal of include/segprior/proposals.h in float64, from its definition: slow, and independent of the
// library.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/ref/array.h"

namespace segprior::ref::proposals {

// Empty arrays: absent.
struct Problem {
  int64_t batch = 1, classes = 1;
  std::vector<int64_t> spatial;
  Array logits;        // [B, I, J]
  Array lower, upper;  // [B, I] or [1, I]
  Array mask;          // [B, J] or [1, J]; 0: masked

  int64_t voxels() const;
  bool valid(int64_t image, int64_t x) const;
  double valid_voxels(int64_t image) const;
  double lower_of(int64_t image, int64_t i) const;
  double upper_of(int64_t image, int64_t i) const;
  // Image b as a problem of its own.
  Problem image(int64_t b) const;
};

struct Result {
  Array proposal, dual, volume;     // [B, I, J], [B, I], [B, I]
  std::vector<int64_t> iterations;  // [B]
};

// Q = softmax of z + dual, 0 at masked voxels, and its volumes.
Result at(const Problem &p, const Array &dual);

// The minimiser: the plain volume dual's update, until no dual changes any more. Bounds that can hold.
Result solve(const Problem &p);

// Projected gradient ascent with its stopping rule.
Result gradient(const Problem &p, double step, int iterations, double tolerance);

}  // namespace segprior::ref::proposals
