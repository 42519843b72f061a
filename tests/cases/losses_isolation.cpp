#include "tests/cases/losses_isolation.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

namespace segprior::test {

using ref::Array;
using ref::losses::Problem;

bool masked(const Problem &p, int64_t b, int64_t x) { return p.mask[b * p.voxels() + x] == 0; }

int64_t labelled_voxel(const Problem &p, int64_t b, bool last) {
  for (int64_t k = 0; k < p.voxels(); ++k) {
    const int64_t x = last ? p.voxels() - 1 - k : k;
    if (masked(p, b, x) || (!p.labelled.empty() && p.labelled[b * p.voxels() + x] == 0)) continue;
    const double y = p.labels.empty() ? 0 : p.labels[b * p.voxels() + x];
    if (y >= 0 && y != static_cast<double>(p.ignore_label)) return x;
  }
  return -1;
}

namespace {

// Compares one image's part of a tensor: NaN where the image failed, but 0 at masked voxels where
// `per_voxel`.
void compare(const std::string &what, const Array &got, const Array &want, const Problem &p, int64_t classes,
             const Failed &failed) {
  const int64_t voxels = p.voxels();
  for (size_t k = 0; k < got.size(); ++k) {
    const int64_t x = static_cast<int64_t>(k) % voxels, b = static_cast<int64_t>(k) / (voxels * classes);
    const bool ok = failed(b) ? (masked(p, b, x) ? got[k] == 0 : std::isnan(got[k])) : got[k] == want[k];
    if (ok) continue;
    CHECK_MESSAGE(false, what, " of image ", b, ", voxel ", x,
                  std::string(failed(b) ? " of a failed image is " : " changed to "), got[k]);
    return;
  }
}

}  // namespace

void check_isolated(const LossCase &c, Device &device, int expected, const Damage &damage,
                    const Failed &failed, const Failed &pooled, const Damage &counted) {
  Problem good = make_problem(c), bad = good;
  damage(bad);
  counted(good);
  LossCall healthy(device, good, settings_of(c)), spoilt(device, bad, settings_of(c));
  const auto given = make_cotangents(c);
  for (LossCall *call : {&healthy, &spoilt}) {
    REQUIRE_MESSAGE(call->forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    REQUIRE_MESSAGE(call->backward(given) == SEGPRIOR_OK, std::string(segprior_last_error()));
  }
  const auto infos = spoilt.infos();
  for (int64_t b = 0; b < c.batch_; ++b) {
    INFO("image " << b);
    CHECK(infos[b].status == (failed(b) ? expected : static_cast<int>(SEGPRIOR_CONVERGED)));
    CHECK(infos[b].iterations == 0);
    CHECK(infos[b].residual == 0);
  }
  Array gradient = spoilt.grad_scores->get(), want = healthy.grad_scores->get();
  for (size_t k = 0; k < gradient.size(); ++k)
    if (const int64_t b = static_cast<int64_t>(k) / (c.elements() / c.batch_); !failed(b) && pooled(b))
      gradient[k] = want[k];
  compare("grads.scores", gradient, want, good, c.classes_, failed);
  compare("voxels", spoilt.voxels->get(), healthy.voxels->get(), good, 1, failed);
  const Array items = spoilt.items->get(), healthy_items = healthy.items->get(), terms = spoilt.terms->get();
  for (int k = 0; k < ref::losses::kTerms; ++k) {
    const bool on = c.terms_[k] != 0;
    CHECK_MESSAGE((on ? std::isnan(terms[k]) : terms[k] == 0), "term ", k, " is ", terms[k]);
    for (int64_t b = 0; b < c.batch_; ++b)
      for (int64_t i = 0; i < c.classes_ && !pooled(b); ++i) {
        const int64_t at = (k * c.batch_ + b) * c.classes_ + i;
        const bool nan = on && failed(b);
        CHECK_MESSAGE((nan ? std::isnan(items[at]) : items[at] == (on ? healthy_items[at] : 0)), "item ", k,
                      ", ", b, ", ", i, " is ", items[at]);
      }
  }
  CHECK(std::isnan(spoilt.total->get()[0]));
  // A failed image's volume is not known, and so are the gradients of its bounds; groups have tests of their
  // own.
  const auto check_bounds = [&](const char *name, const TensorPtr &got_bounds, const TensorPtr &want_bounds) {
    if (!got_bounds || c.terms_[ref::losses::kSize] == 0 || c.groups_) return;
    const Array got = got_bounds->get(), bounds = want_bounds->get();
    const bool rows = static_cast<int64_t>(got.size()) == c.batch_ * c.classes_;
    for (size_t k = 0; k < got.size(); ++k) {
      const bool nan = !rows || failed(static_cast<int64_t>(k) / c.classes_);
      CHECK_MESSAGE((nan ? std::isnan(got[k]) : got[k] == bounds[k]), name, " ", k, " is ", got[k]);
    }
  };
  check_bounds("grads.size_lower", spoilt.grad_size_lower, healthy.grad_size_lower);
  check_bounds("grads.size_upper", spoilt.grad_size_upper, healthy.grad_size_upper);
  if (spoilt.grad_class_weights && given.voxels.empty())
    for (double value : spoilt.grad_class_weights->get()) CHECK(std::isnan(value));
}

}  // namespace segprior::test
