// The perf mode of the case mechanism.
#pragma once

#include <string>

namespace segprior::test {

// Prints one JSON line per device and case whose expression contains `text`: median and minimum time of
// forward and of the unrolled backward, and forward's time per voxel, class and iteration. Returns 0, or 1 if
// nothing matched or a call failed.
int time_cases(const std::string &text);

}  // namespace segprior::test
