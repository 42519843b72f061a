// Reference of SoftCut: float64, written from the formulas of include/segprior/softcut.h alone. The systems
// are solved by a Cholesky factorisation with refinement, so that no iteration and no stopping rule enters.
// It shares no code with kernels/.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/ref/array.h"

namespace segprior::ref::softcut {

// A family of edges: axis 0, 1, 2, then the two diagonals of 2-D.
constexpr int kFamilies = 5, kFirstDiagonal = 3;

// Values on the edges of all matrices, per family [B, K or 1, extents of the family]; empty where absent.
struct Edges {
  Array of[kFamilies];
};

struct Problem {
  int64_t batch = 1, classes = 1;
  std::vector<int64_t> spatial;  // 1 to 3 axes
  bool shared = false;           // one matrix per image
  bool diagonals = false;
  Array scores;  // [B, K, *S]
  Edges weights;
  Array conductance;  // [B, K or 1, *S], or empty: 1
  Array init;         // [B, K, *S], or empty

  int nd() const { return static_cast<int>(spatial.size()); }
  int64_t voxels() const;
  int64_t systems() const { return batch * classes; }
  int64_t matrices() const { return shared ? batch : systems(); }
  int64_t matrix_of(int64_t system) const { return shared ? system / classes : system; }
  bool has(int family) const { return family < kFirstDiagonal ? family < nd() : diagonals; }
  std::vector<int64_t> edge_spatial(int family) const;  // extents of one matrix's array
  int64_t edge_count(int family) const;                 // 0 where absent
  double d(int64_t matrix, int64_t voxel) const;
};

// Which two voxels an entry of a family's array couples.
struct Edge {
  int family;
  int64_t entry, a, b;
};
std::vector<Edge> edges_of(const Problem &problem);

// A x for every system, with other weights and conductance where given: A(b, c) of the double backward. An
// empty `conductance` is then 0, not 1.
Array apply(const Problem &problem, const Array &x);
Array apply(const Problem &problem, const Edges &weights, const Array &conductance, const Array &x);
Array diagonal(const Problem &problem);  // of A, [M, J]

// A^-1, factorised once.
class Inverse {
 public:
  explicit Inverse(const Problem &problem);
  Array operator()(const Array &rhs) const;  // [B, K, *S]

 private:
  struct Factor {
    Array band;  // [J, width + 1]: row i holds columns i - width .. i
  };
  void factorise(int64_t matrix);
  void substitute(const Factor &factor, Array &values) const;

  const Problem &problem_;
  std::vector<Edge> edges_;
  std::vector<int64_t> place_;  // of a voxel in the order of elimination
  int64_t width_ = 0;
  std::vector<Factor> factors_;
};

struct Gradients {  // conductance: empty where the problem has none
  Array scores, conductance;
  Edges edges;
};

// For a given x (the solution): l = A^-1 grad_x and what follows from it.
Gradients backward(const Problem &problem, const Inverse &inverse, const Array &x, const Array &grad_x);

struct SecondGradients {
  Array grad_x, scores, conductance;  // y, z
  Edges edges;
};
// `cotangents`: scores a, edges b, conductance c; an empty array is 0.
SecondGradients double_backward(const Problem &problem, const Inverse &inverse, const Array &x,
                                const Array &l, const Gradients &cotangents);

// -(l_a - l_b)(x_a - x_b) summed over the classes that share an edge, and -l x; added to the outputs, which
// have been sized. The gradients of any solve are sums of these.
void add_products(const Problem &problem, const Array &l, const Array &x, Edges &edges, Array &conductance);
Edges zero_edges(const Problem &problem);

// The stopping rule's residual. Sums are over one system, or with `batch` over all.
struct Rule {
  bool l1 = false, absolute = false, batch = false;
};
std::vector<double> residuals(const Problem &problem, const Rule &rule, const Array &x, const Array &rhs);

// The matrix in compressed rows, from a table of all pairs of voxels.
struct Csr {
  std::vector<int32_t> row_offsets, columns;
  Array values;  // [M, entries]
};
Csr csr(const Problem &problem);

}  // namespace segprior::ref::softcut
