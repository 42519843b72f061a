// How values travel through the tests.
#pragma once

#include <vector>

namespace segprior::ref {

using Array = std::vector<double>;

}  // namespace segprior::ref
