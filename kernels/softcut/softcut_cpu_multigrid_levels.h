// Where the levels of a multigrid hierarchy and their rows lie in memory.
//
// Axes of extent 1 are squeezed out: a level has axes (slab, row, column), 2-D grids being slabs of one row
// and 1-D grids one such slab. Every row of numbers is padded with zeros on both sides, so that whole
// vectors, and the neighbours in the row, can be read and written without a branch; rows outside the grid are
// rows of zeros.
#pragma once

#include <cstdint>

#include "kernels/common/arena.h"
#include "kernels/softcut/softcut_matrix.h"

namespace segprior::softcut::multigrid {

constexpr int kMaxLevels = 64, kPad = 16;
constexpr float kOmega = 0.8f;  // damping of Jacobi
// Jacobi divides by the diagonal, but by at least sum |a_ij| / kSpectrum: with the positive off-diagonals
// that a coarse operator may have, D^-1 A could else have eigenvalues above 2 / kOmega, and the
// preconditioner negative ones.
constexpr float kSpectrum = 2.4f;
constexpr float kDominance = 0.5f;  // a level with sum |g| / diagonal below this everywhere is the last one

// A direction to a neighbour: its step -1, 0 or 1 along (slab, row, column). The directions after kSelf are
// the forward ones: half of the symmetric couplings, which is what is stored, as "families" in the order of
// their directions.
constexpr int kDirections = 27, kSelf = 13, kMaxFamilies = 13;
constexpr int direction(int slab, int row, int column) { return (slab + 1) * 9 + (row + 1) * 3 + column + 1; }
constexpr int slab_step(int d) { return d / 9 - 1; }
constexpr int row_step(int d) { return d / 3 % 3 - 1; }
constexpr int column_step(int d) { return d % 3 - 1; }

struct LevelShape {
  int nd;
  int64_t extent[3];
  int64_t pitch;               // floats from row to row
  int families;                // couplings stored per voxel
  int family_of[kDirections];  // of forward directions; -1: no such coupling
  int direction_of[kMaxFamilies];

  int64_t rows() const { return extent[0] * extent[1]; }
  int64_t voxels() const { return rows() * extent[2]; }
  int64_t row_index(int64_t slab, int64_t row) const { return slab * extent[1] + row; }
  bool inside(int64_t slab, int64_t row) const {
    return slab >= 0 && slab < extent[0] && row >= 0 && row < extent[1];
  }
  int64_t vector_size() const { return rows() * pitch + kPad; }  // of one number per voxel
};

// The levels that a grid may have; the last is a single voxel.
struct Shapes {
  int count;
  LevelShape level[kMaxLevels];
  int family[kFamilies];  // level 0's family of a family of edges; -1 where it has no edges
};
Shapes shapes_of(const Grid &);

// Interpolation weights of one fine row: each array is [corners][pitch of the coarse level], the corners
// being the coarse rows around it, slab before row. Weights of the fine voxels at even columns, whose corners
// lie straight above and below, and of those at odd columns towards their left and right corners.
template <class Float>
struct Weights {
  int corners;
  Float *even, *left, *right;
};

// A neighbour as the sweeps see it.
struct Term {
  int place;           // of its row: (slab step + 1) * 3 + row step + 1
  int coupling_place;  // of the row whose family holds the coupling
  int64_t coupling;    // of which this is the place, from the row's relaxation
  int64_t column;      // step
};
constexpr int kHere = 4;  // place of the row itself

struct Level {
  LevelShape shape;
  bool varying;                       // `keep` differs from 1 - kOmega: on all levels but the first
  int64_t coarse_rows, coarse_pitch;  // rows per slab and pitch of the next level
  float *couplings;                   // [row][1 or 2, families][pitch]
  int terms;
  Term term[kDirections - 1];
  float *weights;  // [coarse row][2, 8 or 26][coarse pitch]; none on the last level

  int heads() const { return varying ? 2 : 1; }
  // What the sweeps multiply residuals by, and the part 1 - relaxation * diagonal of a value that they keep.
  float *relaxation(int64_t row) const { return couplings + row * (heads() + shape.families) * shape.pitch; }
  float *keep(int64_t row) const { return varying ? relaxation(row) + shape.pitch : nullptr; }
  float *family(int64_t row, int f) const { return relaxation(row) + (heads() + f) * shape.pitch; }
  // Weights of the fine row (slab, row). Where there is one corner in the row's own place, the even voxels
  // are coarse voxels and have no weights: `ones` stands for them.
  Weights<float> weights_of(int64_t slab, int64_t row, float *ones) const;
  // The same, towards one of its corners.
  Weights<float> weights_towards(int64_t slab, int64_t row, int64_t coarse_slab, int64_t coarse_row,
                                 float *ones) const;
};

// Number of half rows of weights per coarse row.
inline int weight_rows(int nd) { return nd == 1 ? 2 : (nd == 2 ? 8 : 26); }

// Constant rows, with padding on the left: zeros (as long as four corners), ones, and what the first level
// keeps.
struct Constants {
  float *zeros, *ones, *keep;
};

struct Hierarchy {
  Constants rows;
  int32_t *depth;  // levels in use
  Level level[kMaxLevels];
};
// The hierarchy in memory (which may be null), and its size.
Hierarchy carve_hierarchy(const Shapes &, Arena &);

void fill_constants(const Shapes &, const Constants &);

// Arrays that hold one number per voxel start with the padding on the left of the first row.
inline float *first_row(float *vector) { return vector + kPad; }

// Zeros in the padding of `rows` rows and on the left of the first.
void clear_padding(float *first, int64_t rows, int64_t columns, int64_t pitch);

}  // namespace segprior::softcut::multigrid
