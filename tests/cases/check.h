// How a case is run on a device and compared with the reference.
#pragma once

#include "tests/cases/cases.h"

namespace segprior::test {

// A case with its data and reference results, computed once for all devices.
struct Prepared {
  Case c;  // with the seed that was settled on
  ref::Problem problem;
  ref::Result result;
  ref::Array grad_u;
  ref::Gradients grads;
  bool near_kink;        // float32 gradients can only be compared in the mean
  double amplification;  // of rounding errors of u by the feedback of threshold dynamics
};

// Moves on to the next seed while the run comes so close to a kink or a decision (ref::Margins) that float32
// rounding could take the other side; gives up on large problems, where some voxel always does.
Prepared prepare(const Case &c);

// Error bounds. Every rounding error is eps_machine times the size of the largest number in the softmax
// argument (`logits`); projected dual steps do not amplify errors, so they add up over the iterations.
struct Bounds {
  double u, tv_dual, volume_dual, star_dual;
  double relative;  // of gradients, relative to the scale of each
};
Bounds bounds_of(const Prepared &p);
double small_unit(const Case &c);  // rounding error of 16-bit storage, relative; 0 without

// Whether the device has the path that the case asks for.
bool serves(Device &device, const Case &c);

// Forward and both backward modes (with implicit(), all three) on one device against the reference.
void check_case(const Prepared &p, Device &device);

}  // namespace segprior::test
