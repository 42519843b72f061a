// Kernels with one typical bug each, and the same kernels without it.
#pragma once

#include <vector>

enum class Caught {
  race,     // ThreadSanitizer
  address,  // AddressSanitizer; without it, shared memory's red zones are checked at the end of the block
  breach,   // the fake runtime's own rules: the launch fails
  not_a_number,  // poisoned shared memory in the result
  bits           // results differ between thread orders
};

struct Planted {
  const char *name;
  Caught caught;
  const char *text;  // part of the message
  float (*run)();    // result of the buggy kernel
  float (*correct)();
};

const std::vector<Planted> &planted_bugs();  // all
std::vector<Planted> planted_group_bugs();   // those of blocks that meet
