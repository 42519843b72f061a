// How a case of SoftCut is run on a device and compared with the reference.
#pragma once

#include <memory>
#include <string>

#include "tests/cases/softcut_cases.h"

namespace segprior::test {

// A case with its data and factorised matrices, made once for all devices.
struct SoftcutPrepared {
  explicit SoftcutPrepared(const SoftcutCase &c);
  SoftcutPrepared(const SoftcutPrepared &) = delete;
  SoftcutPrepared &operator=(const SoftcutPrepared &) = delete;

  SoftcutCase c;
  ref::softcut::Problem problem;
  ref::softcut::Inverse inverse;
  ref::Array x, grad_x;
  ref::softcut::Gradients cotangents;
};

// The paths of a device that have to be checked for a case: the one that it names or, where it names none,
// each that serves it (automatic is one of them). Empty: the device, or this build, does not have what the
// case asks for.
std::vector<int32_t> paths_of(Device &device, const SoftcutCase &c);

// While it lives, the fake CUDA device has thread-block clusters. Nothing elsewhere.
class WithClusters {
 public:
  WithClusters();
  ~WithClusters();
};

// Solution, infos, gradients and double backward on one device against the reference.
void check_case(const SoftcutPrepared &p, Device &device, int32_t path);

// max |got - want| / tolerance over the elements must be at most 1.
void check_within(const std::string &what, const ref::Array &got, const ref::Array &want,
                  const ref::Array &tolerance);

// What rounding in a unit `u` may do to A x, per element: u (|diagonal| |x| + sum w |x of the neighbours|).
ref::Array rounding_of(const ref::softcut::Problem &problem, const ref::Array &x, double u);

}  // namespace segprior::test
