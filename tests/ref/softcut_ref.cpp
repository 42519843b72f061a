#include "tests/ref/softcut_ref.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace segprior::ref::softcut {

namespace {

int64_t product(const std::vector<int64_t> &extents) {
  int64_t size = 1;
  for (int64_t n : extents) size *= n;
  return size;
}

// Index of a position in an array of the given extents, C order.
int64_t index_of(const std::vector<int64_t> &position, const std::vector<int64_t> &extents) {
  int64_t index = 0;
  for (size_t k = 0; k < extents.size(); ++k) index = index * extents[k] + position[k];
  return index;
}

std::vector<int64_t> position_of(int64_t index, const std::vector<int64_t> &extents) {
  std::vector<int64_t> position(extents.size());
  for (size_t k = extents.size(); k-- > 0;) {
    position[k] = index % extents[k];
    index /= extents[k];
  }
  return position;
}

}  // namespace

int64_t Problem::voxels() const { return product(spatial); }

std::vector<int64_t> Problem::edge_spatial(int family) const {
  std::vector<int64_t> extents = spatial;
  for (int k = 0; k < nd(); ++k)
    if (family >= kFirstDiagonal || family == k) extents[k] = std::max<int64_t>(extents[k] - 1, 0);
  return extents;
}

int64_t Problem::edge_count(int family) const { return has(family) ? product(edge_spatial(family)) : 0; }

double Problem::d(int64_t matrix, int64_t voxel) const {
  return conductance.empty() ? 1 : conductance[matrix * voxels() + voxel];
}

std::vector<Edge> edges_of(const Problem &p) {
  std::vector<Edge> edges;
  for (int family = 0; family < kFamilies; ++family) {
    const std::vector<int64_t> extents = p.edge_spatial(family);
    for (int64_t entry = 0; entry < p.edge_count(family); ++entry) {
      std::vector<int64_t> a = position_of(entry, extents), b = a;
      if (family < kFirstDiagonal) {
        b[family] += 1;
      } else if (family == kFirstDiagonal) {  // (y, x) and (y + 1, x + 1)
        b[0] += 1;
        b[1] += 1;
      } else {  // (y, x + 1) and (y + 1, x)
        a[1] += 1;
        b[0] += 1;
      }
      edges.push_back({family, entry, index_of(a, p.spatial), index_of(b, p.spatial)});
    }
  }
  return edges;
}

Array apply(const Problem &p, const Edges &weights, const Array &conductance, const Array &x) {
  const int64_t voxels = p.voxels();
  Array out(x.size(), 0.0);
  const std::vector<Edge> edges = edges_of(p);
  for (int64_t n = 0; n < p.systems(); ++n) {
    const int64_t m = p.matrix_of(n), at = n * voxels;
    if (!conductance.empty())
      for (int64_t a = 0; a < voxels; ++a) out[at + a] = conductance[m * voxels + a] * x[at + a];
    for (const Edge &e : edges) {
      if (weights.of[e.family].empty()) continue;
      const double flow =
          weights.of[e.family][m * p.edge_count(e.family) + e.entry] * (x[at + e.a] - x[at + e.b]);
      out[at + e.a] += flow;
      out[at + e.b] -= flow;
    }
  }
  return out;
}

Array apply(const Problem &p, const Array &x) {
  const Array ones(p.conductance.empty() ? p.matrices() * p.voxels() : 0, 1.0);
  return apply(p, p.weights, p.conductance.empty() ? ones : p.conductance, x);
}

Array diagonal(const Problem &p) {
  const int64_t voxels = p.voxels();
  Array sum(p.matrices() * voxels);
  for (int64_t m = 0; m < p.matrices(); ++m) {
    for (int64_t a = 0; a < voxels; ++a) sum[m * voxels + a] = p.d(m, a);
    for (const Edge &e : edges_of(p)) {
      const double w = p.weights.of[e.family][m * p.edge_count(e.family) + e.entry];
      sum[m * voxels + e.a] += w;
      sum[m * voxels + e.b] += w;
    }
  }
  return sum;
}

// Voxels are eliminated plane by plane along the longest axis: the band is as narrow as the other axes allow.
Inverse::Inverse(const Problem &p) : problem_(p), edges_(edges_of(p)), place_(p.voxels()) {
  std::vector<int> axes(p.nd());
  std::iota(axes.begin(), axes.end(), 0);
  std::stable_sort(axes.begin(), axes.end(), [&](int a, int b) { return p.spatial[a] > p.spatial[b]; });
  std::vector<int64_t> extents;
  for (int axis : axes) extents.push_back(p.spatial[axis]);
  for (int64_t v = 0; v < p.voxels(); ++v) {
    const std::vector<int64_t> position = position_of(v, p.spatial);
    std::vector<int64_t> turned;
    for (int axis : axes) turned.push_back(position[axis]);
    place_[v] = index_of(turned, extents);
  }
  for (const Edge &e : edges_) width_ = std::max(width_, std::abs(place_[e.a] - place_[e.b]));
  for (int64_t m = 0; m < p.matrices(); ++m) factorise(m);
}

void Inverse::factorise(int64_t m) {
  const int64_t n = problem_.voxels(), row = width_ + 1;
  Array band(n * row, 0.0);
  const auto at = [&](int64_t i, int64_t j) -> double & { return band[i * row + j - i + width_]; };
  for (int64_t a = 0; a < n; ++a) at(place_[a], place_[a]) = problem_.d(m, a);
  for (const Edge &e : edges_) {
    const double w = problem_.weights.of[e.family][m * problem_.edge_count(e.family) + e.entry];
    const int64_t i = place_[e.a], j = place_[e.b];
    at(i, i) += w;
    at(j, j) += w;
    at(std::max(i, j), std::min(i, j)) -= w;
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = std::max<int64_t>(0, i - width_); j <= i; ++j) {
      double sum = at(i, j);
      const double *left = &band[i * row - i + width_], *right = &band[j * row - j + width_];
      for (int64_t k = std::max<int64_t>(0, i - width_); k < j; ++k) sum -= left[k] * right[k];
      at(i, j) = i == j ? std::sqrt(sum) : sum / at(j, j);
    }
  factors_.push_back({std::move(band)});
}

void Inverse::substitute(const Factor &factor, Array &values) const {
  const int64_t n = problem_.voxels(), row = width_ + 1;
  const auto at = [&](int64_t i, int64_t j) { return factor.band[i * row + j - i + width_]; };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = std::max<int64_t>(0, i - width_); k < i; ++k) values[i] -= at(i, k) * values[k];
    values[i] /= at(i, i);
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    values[i] /= at(i, i);
    for (int64_t k = std::max<int64_t>(0, i - width_); k < i; ++k) values[k] -= at(i, k) * values[i];
  }
}

// Three refinements with the residual in long double: the solution is then as good as its rounding, however
// ill-conditioned the matrix (its excess d over the off-diagonals is lost in the factor, not in the
// residual).
Array Inverse::operator()(const Array &rhs) const {
  const Problem &p = problem_;
  const int64_t voxels = p.voxels();
  Array x(rhs.size(), 0.0);
  for (int64_t n = 0; n < p.systems(); ++n) {
    const int64_t m = p.matrix_of(n), at = n * voxels;
    for (int round = 0; round < 4; ++round) {
      std::vector<long double> residual(voxels);
      for (int64_t a = 0; a < voxels; ++a)
        residual[a] = rhs[at + a] - static_cast<long double>(p.d(m, a)) * x[at + a];
      for (const Edge &e : edges_) {
        const long double flow =
            static_cast<long double>(p.weights.of[e.family][m * p.edge_count(e.family) + e.entry]) *
            (static_cast<long double>(x[at + e.a]) - x[at + e.b]);
        residual[e.a] -= flow;
        residual[e.b] += flow;
      }
      Array step(voxels);
      for (int64_t a = 0; a < voxels; ++a) step[place_[a]] = static_cast<double>(residual[a]);
      substitute(factors_[m], step);
      for (int64_t a = 0; a < voxels; ++a) x[at + a] += step[place_[a]];
    }
  }
  return x;
}

}  // namespace segprior::ref::softcut
