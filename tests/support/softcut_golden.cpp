#include "tests/support/softcut_golden.h"

#include <fstream>
#include <stdexcept>

#include "tests/support/golden.h"

namespace segprior::test {

SoftcutGolden read_softcut_golden(const std::string &name) {
  const std::string folder = std::string(SEGPRIOR_GOLDEN_DIR) + "/" + name + "/";
  const auto array = [&](const std::string &file) { return read_npy(folder + file + ".npy"); };
  SoftcutGolden g;
  ref::softcut::Problem &p = g.problem;
  std::ifstream file(folder + "case.txt");
  std::string key;
  if (!(file >> key >> p.batch >> p.classes) || key != "shape")
    throw std::runtime_error(folder + "case.txt: no shape");
  for (int64_t n; file >> n;) p.spatial.push_back(n);
  p.scores = array("p");
  g.x = array("x");
  g.grad_x = array("grad_x");
  g.grads.scores = array("grad_p");
  for (int m = 0; m < p.nd(); ++m) {
    p.weights.of[m] = array("w" + std::to_string(m));
    g.grads.edges.of[m] = array("grad_w" + std::to_string(m));
  }
  return g;
}

std::vector<std::string> softcut_golden_names() {
  return {"softcut_1d",        "softcut_2d",        "softcut_2d_weak",
          "softcut_2d_strong", "softcut_2d_medium", "softcut_3d"};
}

}  // namespace segprior::test
