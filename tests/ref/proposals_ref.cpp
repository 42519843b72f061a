#include "tests/ref/proposals_ref.h"

#include <algorithm>
#include <cmath>

namespace segprior::ref::proposals {

int64_t Problem::voxels() const {
  int64_t n = 1;
  for (int64_t extent : spatial) n *= extent;
  return n;
}

bool Problem::valid(int64_t image, int64_t x) const {
  const int64_t n = voxels();
  if (mask.empty()) return true;
  return mask[(static_cast<int64_t>(mask.size()) == n ? 0 : image * n) + x] != 0;
}

double Problem::valid_voxels(int64_t image) const {
  double count = 0;
  for (int64_t x = 0; x < voxels(); ++x) count += valid(image, x);
  return count;
}

namespace {
double bound(const Array &values, int64_t classes, int64_t image, int64_t i, double absent) {
  if (values.empty()) return absent;
  return values[(static_cast<int64_t>(values.size()) == classes ? 0 : image * classes) + i];
}
}  // namespace

double Problem::lower_of(int64_t image, int64_t i) const { return bound(lower, classes, image, i, 0); }
double Problem::upper_of(int64_t image, int64_t i) const { return bound(upper, classes, image, i, INFINITY); }

Problem Problem::image(int64_t b) const {
  Problem one = *this;
  const int64_t n = voxels();
  one.batch = 1;
  one.logits.assign(logits.begin() + b * classes * n, logits.begin() + (b + 1) * classes * n);
  for (Array Problem::*rows : {&Problem::lower, &Problem::upper})
    if (!(this->*rows).empty()) {
      one.*rows = Array(classes);
      for (int64_t i = 0; i < classes; ++i) (one.*rows)[i] = bound(this->*rows, classes, b, i, 0);
    }
  if (!mask.empty()) {
    one.mask = Array(n);
    for (int64_t x = 0; x < n; ++x) one.mask[x] = valid(b, x);
  }
  return one;
}

Result at(const Problem &p, const Array &dual) {
  const int64_t n = p.voxels();
  Result r{Array(p.batch * p.classes * n), dual, Array(p.batch * p.classes), {}};
  Array z(p.classes);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t x = 0; x < n; ++x) {
      if (!p.valid(b, x)) continue;
      double max = -INFINITY, sum = 0;
      for (int64_t i = 0; i < p.classes; ++i) {
        z[i] = p.logits[(b * p.classes + i) * n + x] + dual[b * p.classes + i];
        max = std::max(max, z[i]);
      }
      for (double &value : z) sum += value = std::exp(value - max);
      for (int64_t i = 0; i < p.classes; ++i) {
        r.proposal[(b * p.classes + i) * n + x] = z[i] / sum;
        r.volume[b * p.classes + i] += z[i] / sum;
      }
    }
  return r;
}

Result solve(const Problem &p) {
  Array dual(p.batch * p.classes);
  for (int64_t k = 0; k < p.batch * p.classes; ++k)
    if (p.upper_of(k / p.classes, k % p.classes) == 0) dual[k] = -INFINITY;
  double change = 1;
  for (int t = 0; t < 20000 && change > 1e-13; ++t) {
    const Result now = at(p, dual);
    change = 0;
    for (int64_t k = 0; k < p.batch * p.classes; ++k) {
      if (std::isinf(dual[k])) continue;
      const int64_t b = k / p.classes, i = k % p.classes;
      const double l = std::log(now.volume[k]) - dual[k];
      const double next =
          std::min(std::log(p.upper_of(b, i)) - l, std::max(std::log(p.lower_of(b, i)) - l, 0.0));
      change = std::max(change, std::fabs(next - dual[k]));
      dual[k] = next;
    }
  }
  return at(p, dual);
}

Result gradient(const Problem &p, double step, int iterations, double tolerance) {
  Result all{{}, {}, {}, {}};
  for (int64_t b = 0; b < p.batch; ++b) {
    const Problem one = p.image(b);
    Array above(p.classes), below(p.classes), dual(p.classes);
    Result r = at(one, dual);
    int t = 0;
    for (;; ++t) {
      double outside = 0;
      for (int64_t i = 0; i < p.classes; ++i)
        outside = std::max({outside, one.lower_of(0, i) - r.volume[i], r.volume[i] - one.upper_of(0, i)});
      if (outside <= tolerance * static_cast<double>(p.voxels()) || t == iterations) break;
      for (int64_t i = 0; i < p.classes; ++i) {
        above[i] = std::max(0.0, above[i] + step * (one.lower_of(0, i) - r.volume[i]));
        below[i] = std::max(0.0, below[i] + step * (r.volume[i] - one.upper_of(0, i)));
        dual[i] = above[i] - below[i];
      }
      r = at(one, dual);
    }
    all.proposal.insert(all.proposal.end(), r.proposal.begin(), r.proposal.end());
    all.dual.insert(all.dual.end(), r.dual.begin(), r.dual.end());
    all.volume.insert(all.volume.end(), r.volume.begin(), r.volume.end());
    all.iterations.push_back(t);
  }
  return all;
}

}  // namespace segprior::ref::proposals
