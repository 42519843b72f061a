// What forward and backward of the reference share: S and t at every voxel, the loss of each voxel and class,
// and each term's value per row and class.
#pragma once

#include <cmath>

#include "tests/ref/losses_ref.h"

namespace segprior::ref::losses {

// One element: S, 1 - S, their logarithms, the slope of ln S, the target. S has a relative rounding error of
// `units`: an exponential carries the absolute error of its argument, which is rounded itself.
struct Element {
  double s, rest, log_s, log_rest, log_slope, t, units;
  bool valid, known;  // m, l
};

// A number with the size of its parts.
struct Sized {
  double value = 0, size = 0;
  void add(double part, double part_size) {
    value += part;
    size += part_size;
  }
};

// h(S) and its slope.
struct Sharp {
  double value, slope;
};

class Model {
 public:
  explicit Model(const Problem &problem);

  const Problem &p;
  const int64_t batch, classes, voxels;

  const Element &at(int64_t b, int64_t i, int64_t x) const {
    return elements_[(b * classes + i) * voxels + x];
  }
  double weight(int term, int64_t i) const;
  double lower(int64_t row, int64_t i) const;
  double upper(int64_t row, int64_t i) const;
  int64_t group(int64_t b) const;
  double scale() const { return p.size_per_voxel ? 1.0 / static_cast<double>(voxels) : 1.0; }
  bool on(int term) const { return p.weights[term] != 0; }
  // Whether `row` of a term stands for an image, a group or the batch (with DICE, one with a labelled voxel);
  // and which row image b belongs to.
  bool used(int term, int64_t row) const;
  int64_t row_of(int term, int64_t b) const;

  // CROSS_ENTROPY or FOCAL of one element with class weight 1, and its derivative by S times S.
  Sized voxel_loss(int term, const Element &e) const;
  Sized voxel_slope(int term, const Element &e) const;
  Sharp overlap_part(int term, double s) const;  // S, or h(S)

  // Numerator and denominator of a DICE.
  struct Fraction {
    double numerator, denominator;
  };
  Fraction fraction(int term, int64_t row, int64_t i) const;
  Sized volume(int64_t row, int64_t i) const;
  double excess(int64_t row, int64_t i) const;  // beyond the violated bound, with its sign

  Sized unweighted(int term, int64_t row, int64_t i) const;
  double count(int term) const;                        // what MEAN divides by
  double labelled_target(int64_t b, int64_t i) const;  // sum of l t

 private:
  void set_score(int64_t b, int64_t x);
  double target(int64_t b, int64_t i, int64_t x) const;

  std::vector<Element> elements_;
  std::vector<bool> labelled_;  // whether an image has a voxel whose label is known
};

}  // namespace segprior::ref::losses
