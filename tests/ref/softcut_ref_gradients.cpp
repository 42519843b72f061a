// Gradients, residuals and the exported matrix of the reference.
#include <cmath>
#include <map>

#include "tests/ref/softcut_ref.h"

namespace segprior::ref::softcut {

Edges zero_edges(const Problem &p) {
  Edges zero;
  for (int f = 0; f < kFamilies; ++f) zero.of[f].assign(p.matrices() * p.edge_count(f), 0.0);
  return zero;
}

void add_products(const Problem &p, const Array &l, const Array &x, Edges &edges, Array &conductance) {
  const int64_t voxels = p.voxels();
  const std::vector<Edge> list = edges_of(p);
  for (int64_t n = 0; n < p.systems(); ++n) {
    const int64_t m = p.matrix_of(n), at = n * voxels;
    for (const Edge &e : list)
      edges.of[e.family][m * p.edge_count(e.family) + e.entry] -=
          (l[at + e.a] - l[at + e.b]) * (x[at + e.a] - x[at + e.b]);
    if (!conductance.empty())
      for (int64_t a = 0; a < voxels; ++a) conductance[m * voxels + a] -= l[at + a] * x[at + a];
  }
}

Gradients backward(const Problem &p, const Inverse &inverse, const Array &x, const Array &grad_x) {
  Gradients g;
  g.scores = inverse(grad_x);
  g.edges = zero_edges(p);
  g.conductance.assign(p.conductance.size(), 0.0);
  add_products(p, g.scores, x, g.edges, g.conductance);
  return g;
}

SecondGradients double_backward(const Problem &p, const Inverse &inverse, const Array &x, const Array &l,
                                const Gradients &cotangents) {
  SecondGradients g;
  Array y = apply(p, cotangents.edges, cotangents.conductance, x),
        z = apply(p, cotangents.edges, cotangents.conductance, l);
  for (size_t k = 0; k < y.size(); ++k) {
    y[k] = (cotangents.scores.empty() ? 0 : cotangents.scores[k]) - y[k];
    z[k] = -z[k];
  }
  g.grad_x = inverse(y);
  g.scores = inverse(z);
  g.edges = zero_edges(p);
  g.conductance.assign(p.conductance.size(), 0.0);
  add_products(p, g.grad_x, l, g.edges, g.conductance);
  add_products(p, g.scores, x, g.edges, g.conductance);
  return g;
}

std::vector<double> residuals(const Problem &p, const Rule &rule, const Array &x, const Array &rhs) {
  const int64_t groups = rule.batch ? 1 : p.systems(),
                size = groups ? static_cast<int64_t>(x.size()) / groups : 0;
  const Array product = apply(p, x);
  const auto term = [&](double value) { return rule.l1 ? std::fabs(value) : value * value; };
  std::vector<double> all;
  for (int64_t g = 0; g < groups; ++g) {
    double residual = 0, scale = 0;
    for (int64_t k = g * size; k < (g + 1) * size; ++k) {
      residual += term(rhs[k] - product[k]);
      scale += rule.absolute ? 1 : term(rhs[k]);
    }
    const double ratio = residual == 0 ? 0 : residual / scale;
    all.push_back(rule.l1 ? ratio : std::sqrt(ratio));
  }
  return all;
}

Csr csr(const Problem &p) {
  const int64_t voxels = p.voxels();
  const std::vector<Edge> edges = edges_of(p);
  Csr out;
  for (int64_t m = 0; m < p.matrices(); ++m) {
    std::vector<std::map<int64_t, double>> rows(voxels);
    for (int64_t a = 0; a < voxels; ++a) rows[a][a] = p.d(m, a);
    for (const Edge &e : edges) {
      const double w = p.weights.of[e.family][m * p.edge_count(e.family) + e.entry];
      rows[e.a][e.a] += w;
      rows[e.b][e.b] += w;
      rows[e.a][e.b] = rows[e.b][e.a] = -w;
    }
    if (m == 0) out.row_offsets.push_back(0);
    for (int64_t a = 0; a < voxels; ++a) {
      for (const auto &[column, value] : rows[a]) {
        if (m == 0) out.columns.push_back(static_cast<int32_t>(column));
        out.values.push_back(value);
      }
      if (m == 0) out.row_offsets.push_back(static_cast<int32_t>(out.columns.size()));
    }
  }
  return out;
}

}  // namespace segprior::ref::softcut
