// How one bad image of a batch is told from the others: what is NaN, and what keeps its bits.
#pragma once

#include <functional>

#include "tests/cases/losses_check.h"

namespace segprior::test {

bool masked(const ref::losses::Problem &p, int64_t b, int64_t x);
// A voxel of an image that is valid and whose label is known: the last one if `last`, else the first.
int64_t labelled_voxel(const ref::losses::Problem &p, int64_t b, bool last);

using Damage = std::function<void(ref::losses::Problem &)>;
using Failed = std::function<bool(int64_t)>;

// `damage` is done to a sound problem; images with failed(b) must have `expected` as their status. Nothing is
// compared for images that `pooled` names: a failed one is in a sum that they depend on. `counted` makes the
// sound problem count in MEAN's divisor what the damaged one does.
void check_isolated(
    const LossCase &c, Device &device, int expected, const Damage &damage, const Failed &failed,
    const Failed &pooled = [](int64_t) { return false; },
    const Damage &counted = [](ref::losses::Problem &) {});

}  // namespace segprior::test
