#include "tests/support/losses_golden.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

#include "tests/support/golden.h"

namespace segprior::test {

namespace losses = ref::losses;

losses::Problem LossGolden::of_probabilities() const {
  losses::Problem p = problem;
  p.scores_are = losses::Scores::probabilities;
  p.scores = probabilities;
  p.log_offset = 0;
  return p;
}

LossGolden read_loss_golden(const std::string &name) {
  const std::string folder = std::string(SEGPRIOR_GOLDEN_DIR) + "/" + name + "/";
  const auto array = [&](const std::string &file) { return read_npy(folder + file + ".npy"); };
  LossGolden g;
  losses::Problem &p = g.problem;
  p.smooth_nr = p.smooth_dr = 0;
  std::ifstream file(folder + "case.txt");
  if (!file) throw std::runtime_error(folder + "case.txt cannot be read");
  std::string line, key;
  int term = -1;
  while (std::getline(file, line)) {
    std::istringstream values(line);
    values >> key;
    if (key == "shape") {
      values >> p.batch >> p.classes;
      for (int64_t n; values >> n;) p.spatial.push_back(n);
    } else if (key == "term") {
      values >> term;
    } else if (key == "threshold") {
      values >> p.focal_dice_threshold;
    } else if (key == "gamma") {
      values >> p.focal_dice_gamma;
    } else {
      throw std::runtime_error(folder + "case.txt: unknown key " + key);
    }
  }
  if (term < 0 || term >= losses::kTerms) throw std::runtime_error(folder + "case.txt: no term");
  p.weights[term] = 1;
  p.scores = array("logits");
  if (term == losses::kSize) {
    p.size_lower = array("lower");
    p.size_upper = array("upper");
  } else if (term == losses::kCrossEntropy) {
    p.labels = array("labels");
  } else {
    p.target = array("target");
  }
  g.loss = array("loss").at(0);
  g.probabilities = array("prob");
  g.grad_logits = array("grad_logits");
  return g;
}

std::vector<std::string> loss_golden_names() {
  return {"loss_dice", "loss_focal_dice", "loss_focal_dice_t04", "loss_partial_ce", "loss_size_penalty"};
}

}  // namespace segprior::test
