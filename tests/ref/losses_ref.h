// Reference of the losses: float64, written from the formulas of include/segprior/losses.h alone, with the
// target written out for every class, every sum taken over all of its elements, and gradients by the chain
// rule through S. It shares no code with kernels/.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/ref/array.h"

namespace segprior::ref::losses {

enum Term { kSize, kCrossEntropy, kFocal, kDice, kFocalDice, kTerms };
enum class Scores { logits, sigmoid, probabilities };

// As in the public header; empty: absent.
struct Problem {
  int64_t batch = 1, classes = 1;
  std::vector<int64_t> spatial;
  Scores scores_are = Scores::logits;
  bool background = false;  // sigmoid: label 0 has no channel
  double weights[kTerms] = {};
  bool mean = false, size_per_voxel = false, dice_squared = true, dice_batch = false;
  int64_t ignore_label = 255;
  double smooth_nr = 1e-5, smooth_dr = 1e-5, focal_gamma = 2, focal_dice_threshold = 0.5,
         focal_dice_gamma = 2, log_offset = 1e-10;

  Array scores;                  // [B, I, *S]
  Array labels;                  // [B, *S]
  Array target;                  // [B, I, *S]
  Array mask, labelled;          // [B, *S] or [1, *S]
  Array class_weights;           // [I] or [kTerms, I]
  Array size_lower, size_upper;  // [B, I] or [1, I]
  Array size_groups;             // [B]

  int64_t voxels() const;
  int64_t elements() const { return batch * classes * voxels(); }
};

// Numbers, and for each the sum of the absolute values of what it is made of: rounding errors of a unit u in
// the steps are at most a small multiple of u times that size, however much cancels.
struct Values {
  Array value, size;
};

struct Results {
  Values total, terms, items, voxels;
};
Results forward(const Problem &problem);

struct Cotangents {
  Array total, terms, items, voxels;  // empty: 0
};
struct Gradients {
  Values scores, class_weights, size_lower, size_upper;  // empty where the input is absent
};
// The class weights' gradient does not contain cotangents.voxels.
Gradients backward(const Problem &problem, const Cotangents &cotangents);

}  // namespace segprior::ref::losses
