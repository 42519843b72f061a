// Counts heap allocations of the whole process (the library's and the OpenMP runtime's included).
#pragma once

#include <cstdint>

namespace segprior::test {

// False under a sanitizer, which owns malloc itself; the count is then always 0.
bool can_count_allocations();
int64_t allocation_count();

}  // namespace segprior::test
