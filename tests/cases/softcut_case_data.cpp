// What a case of SoftCut stands for: its expression and its data.
#include <cmath>
#include <sstream>

#include "tests/cases/softcut_cases.h"
#include "tests/support/random.h"

namespace segprior::test {

using ref::softcut::kFamilies;
using ref::softcut::Problem;

namespace {

double draw_weight(Random &random, const SoftcutCase &c) {
  const double u = random.uniform(0, 1);
  switch (c.weights_) {
    case SoftcutCase::Weights::uniform:
      return c.scale_ * u;
    case SoftcutCase::Weights::cut:
      return random.bits() % 2 ? c.scale_ * u : 0;
    case SoftcutCase::Weights::decades:
      return c.scale_ * std::pow(10, -10 * u);
    default:
      return c.scale_;
  }
}

}  // namespace

int64_t SoftcutCase::elements() const {
  int64_t count = batch_ * classes_;
  for (int64_t n : spatial_) count *= n;
  return count;
}

std::string SoftcutCase::text() const {
  static const char *const kSolvers[] = {"automatic", "cg", "jacobi", "multigrid", "chebyshev", "direct"};
  static const char *const kWeights[] = {"uniform", "cut", "decades", "constant"};
  std::ostringstream out;
  out << "SoftcutCase(";
  const char *separator = "{";
  for (int64_t n : spatial_) out << separator << n, separator = ", ";
  out << "}, " << classes_ << ", " << batch_ << ")";
  if (!name_.empty()) out << ".name(\"" << name_ << "\")";
  if (small_dtype_)
    out << (small_dtype_ == SEGPRIOR_FLOAT16 ? ".f16()" : ".bf16()");
  else if (float32_)
    out << ".f32()";
  if (shared_) out << ".shared()";
  if (diagonals_) out << ".diagonals()";
  if (conductance_ > 0) out << ".conductance(" << conductance_ << ")";
  out << ".weights(" << scale_ << ", Weights::" << kWeights[static_cast<int>(weights_)] << ")";
  out << ".solver(Solver::" << kSolvers[static_cast<int>(solver_)] << ")";
  if (path_ != SEGPRIOR_PATH_AUTO) out << ".path(" << path_ << ")";
  if (tolerance_ > 0) out << ".tolerance(" << tolerance_ << ")";
  if (cap_ > 0) out << ".cap(" << cap_ << ")";
  if (l1_) out << ".l1()";
  if (absolute_) out << ".absolute()";
  if (batch_rule_) out << ".batch_rule()";
  if (init_) out << ".init()";
  if (accumulate_) out << ".accumulate()";
  if (seed_ != 1) out << ".seed(" << seed_ << ")";
  return out.str();
}

Problem make_problem(const SoftcutCase &c) {
  Random random(c.seed_);
  Problem p;
  p.batch = c.batch_;
  p.classes = c.classes_;
  p.spatial = c.spatial_;
  p.shared = c.shared_;
  p.diagonals = c.diagonals_;
  // The systems differ in scale, so that they stop at different iterations where the rule is absolute.
  for (int64_t n = 0; n < p.systems(); ++n) {
    const double top = 1 + static_cast<double>(n % 5);
    const ref::Array values = random.array(p.voxels(), -top, top);
    p.scores.insert(p.scores.end(), values.begin(), values.end());
  }
  p.scores = rounded(p.scores, c.dtype());
  for (int f = 0; f < kFamilies; ++f) {
    for (int64_t k = 0; k < p.matrices() * p.edge_count(f); ++k)
      p.weights.of[f].push_back(draw_weight(random, c));
    p.weights.of[f] = rounded(p.weights.of[f], c.edge_dtype());
  }
  if (c.conductance_ > 0) {
    const double top = std::log(c.conductance_);
    for (int64_t k = 0; k < p.matrices() * p.voxels(); ++k)
      p.conductance.push_back(std::exp(random.uniform(-top, top)));
    p.conductance = rounded(p.conductance, c.dtype());
  }
  if (c.init_) p.init = rounded(random.array(c.elements(), -1, 1), c.dtype());
  return p;
}

ref::Array make_grad_x(const SoftcutCase &c) {
  return rounded(Random(c.seed_ + 1000).array(c.elements(), -1, 1), c.dtype());
}

ref::softcut::Gradients make_cotangents(const SoftcutCase &c) {
  const Problem p = make_problem(c);
  Random random(c.seed_ + 2000);
  ref::softcut::Gradients g;
  g.scores = rounded(random.array(c.elements(), -1, 1), c.dtype());
  g.conductance = rounded(random.array(static_cast<int64_t>(p.conductance.size()), -1, 1), c.dtype());
  for (int f = 0; f < kFamilies; ++f)
    g.edges.of[f] =
        rounded(random.array(static_cast<int64_t>(p.weights.of[f].size()), -1, 1), c.edge_dtype());
  return g;
}

SoftcutSettings settings_of(const SoftcutCase &c) {
  SoftcutSettings settings;
  settings.dtype = c.dtype();
  settings.weight_dtype = c.small_dtype_;
  segprior_softcut_opts &opts = settings.opts;
  opts.solver = static_cast<int32_t>(c.solver_);  // in the order of SEGPRIOR_SOFTCUT_*
  opts.path = c.path_;
  opts.tolerance = opts.backward_tolerance = c.tolerance();
  if (c.cap_ > 0 || c.size_ != SoftcutCase::Size::full) opts.max_iterations = c.cap();
  opts.norm = c.l1_ ? SEGPRIOR_NORM_L1 : SEGPRIOR_NORM_L2;
  opts.absolute = c.absolute_;
  opts.batch = c.batch_rule_;
  return settings;
}

ref::softcut::Rule rule_of(const SoftcutCase &c) { return {c.l1_, c.absolute_, c.batch_rule_}; }

}  // namespace segprior::test
