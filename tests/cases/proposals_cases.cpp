#include "tests/cases/proposals_cases.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "tests/support/random.h"
#include "tests/support/small_types.h"

namespace segprior::test {

using ref::Array;
using ref::proposals::Problem;

namespace {

void set_bounds(const ProposalCase &c, Problem &p, Random &random) {
  const int64_t classes = p.classes;
  const int64_t rows = c.shared ? 1 : p.batch;
  const Array volume = ref::proposals::at(p, Array(p.batch * classes)).volume;
  const bool box = c.bounds == ProposalBounds::boxes, equal = c.bounds == ProposalBounds::equality;
  p.lower = Array(rows * classes, 0.0);
  p.upper = Array(rows * classes, INFINITY);
  for (int64_t b = 0; b < rows; ++b) {
    const double valid = p.valid_voxels(b);
    double *lower = &p.lower[b * classes], *upper = &p.upper[b * classes];
    const double *v = &volume[b * classes];
    Array wanted(v, v + classes);
    double sum = 0;
    for (double &w : wanted) sum += w *= random.uniform(0.4, 1.6);
    for (int64_t i = 0; i < classes; ++i) {
      if (box || equal) {
        lower[i] = wanted[i] / sum * valid * (box ? 0.9 : 1);
        upper[i] = wanted[i] / sum * valid * (box ? 1.1 : 1);
      }
      if (c.bounds == ProposalBounds::upper_of_rest && i > 0) upper[i] = 0.6 * v[i];
    }
    if (c.bounds == ProposalBounds::lower_of_one) lower[0] = std::min(1.4 * v[0], 0.5 * (v[0] + valid));
    if (c.bounds == ProposalBounds::excluded) {
      upper[classes - 1] = 0;
      lower[0] = std::min(1.0, valid);
    }
  }
  // Storage as float32 must not cross the bounds.
  if (c.dtype != SEGPRIOR_FLOAT64)
    for (Array *values : {&p.lower, &p.upper}) *values = rounded(*values, SEGPRIOR_FLOAT32);
  if (c.bounds == ProposalBounds::none) p.lower = p.upper = Array();
}

}  // namespace

Problem ProposalCase::problem() const {
  Problem p;
  p.batch = batch;
  p.classes = classes;
  p.spatial = spatial;
  const uint64_t seed = 17 + classes + 3 * p.voxels();
  p.logits = rounded(smooth_logits(p, scale, seed), dtype);
  Random random(seed);
  if (masked) {
    p.mask = Array((shared ? 1 : batch) * p.voxels());
    for (double &m : p.mask) m = random.uniform(0, 1) < 0.7 ? random.uniform(1, 255) : 0;
  }
  set_bounds(*this, p, random);
  return p;
}

std::ostream &operator<<(std::ostream &out, const ProposalCase &c) {
  constexpr const char *kNames[] = {"none", "lower_of_one", "upper_of_rest", "equality", "boxes", "excluded"};
  out << "B " << c.batch << ", I " << c.classes << ", S";
  for (int64_t n : c.spatial) out << " " << n;
  return out << ", bounds " << kNames[static_cast<int>(c.bounds)] << ", scale " << c.scale << ", dtype "
             << c.dtype << (c.masked ? ", masked" : "") << (c.shared ? ", shared" : "");
}

std::vector<ProposalCase> proposal_cases() {
  using B = ProposalBounds;
  return {
      {{31, 33}, 2, 2, B::lower_of_one},
      {{31, 33}, 2, 3, B::equality, 10},
      {{1999}, 3, 2, B::upper_of_rest},
      {{13, 17, 19}, 3, 2, B::boxes, 3, SEGPRIOR_FLOAT64, true},
      {{67, 71}, 4, 1, B::boxes, 5},
      {{31, 33}, 5, 2, B::excluded, 3, SEGPRIOR_FLOAT64, true, true},
      {{31, 33}, 21, 2, B::equality},
      {{23, 29}, 64, 2, B::upper_of_rest, 2},
      {{33, 31}, 3, 2, B::lower_of_one, 3, SEGPRIOR_FLOAT32},
      {{97, 89}, 2, 3, B::equality, 5, SEGPRIOR_FLOAT32, true},
      {{7, 9, 11}, 21, 2, B::boxes, 3, SEGPRIOR_FLOAT32, true, true},
      {{1031}, 64, 1, B::equality, 2, SEGPRIOR_FLOAT32},
      {{61, 67}, 3, 2, B::boxes, 3, SEGPRIOR_FLOAT16},
      {{31, 31}, 7, 2, B::upper_of_rest, 3, SEGPRIOR_BFLOAT16, true},
      {{523}, 33, 2, B::equality, 2, SEGPRIOR_FLOAT16, true, true},
      {{1, 1}, 3, 2, B::none},
      {{31, 1}, 1, 2, B::none, 3, SEGPRIOR_FLOAT32, true},
  };
}

std::vector<ProposalCase> tiny_proposal_cases() {
  using B = ProposalBounds;
  return {
      {{5, 7}, 2, 2, B::lower_of_one, 3, SEGPRIOR_FLOAT32, true},
      {{3, 4, 5}, 3, 2, B::boxes, 3, SEGPRIOR_FLOAT32},
      {{37}, 5, 1, B::excluded, 3, SEGPRIOR_FLOAT64, true, true},
      {{41}, 27, 1, B::equality, 2, SEGPRIOR_BFLOAT16},
      {{1}, 2, 1, B::equality, 2, SEGPRIOR_FLOAT16},
  };
}

double proposal_rounding(int32_t dtype, double largest, bool stored) {
  // Exponents: two roundings of z + f - max, and an exponential and a quotient good to a few units.
  const double arithmetic = (dtype == SEGPRIOR_FLOAT64 ? DBL_EPSILON : FLT_EPSILON) * (2 * largest + 8);
  return stored && is_small(dtype) ? arithmetic + small_float(dtype).unit() : arithmetic;
}

}  // namespace segprior::test
