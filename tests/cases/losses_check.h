// How a case of the losses is run on a device and compared with the reference.
#pragma once

#include <memory>
#include <string>

#include "tests/cases/losses_cases.h"

namespace segprior::test {

// A case with its data and reference results, made once for all devices.
struct LossPrepared {
  explicit LossPrepared(const LossCase &c);

  LossCase c;
  ref::losses::Problem problem;
  ref::losses::Cotangents cotangents;
  // Of the reference; empty for 16-bit scores, which are compared with float32 ones.
  ref::losses::Results results;
  ref::losses::Gradients grads;
};

// Outputs, infos and gradients on one device.
void check_case(const LossPrepared &p, Device &device);

// |got - want| is at most `factor` rounding units of `dtype` times the size of each element.
void check_within(const std::string &what, const ref::Array &got, const ref::losses::Values &want,
                  int32_t dtype, double factor);

// What gradients hold before a call that accumulates.
ref::Array start_of(const Tensor &gradient, int32_t dtype);

// Every output and gradient of a call, byte by byte.
std::vector<std::vector<unsigned char>> contents(const LossCall &call);

}  // namespace segprior::test
