// The matrix in compressed rows, on the CPU. Threads share the grid's rows; where a row's entries begin
// follows from the shape alone.
#include <algorithm>

#include "kernels/softcut/softcut_cpu.h"
#include "kernels/softcut/softcut_matrix.h"

namespace segprior::softcut {
namespace {

// The neighbours of a voxel in ascending order: family, and whether it is the previous one.
struct Neighbour {
  int family;
  bool previous;
};
constexpr Neighbour kBefore[] = {
    {kSlice, true}, {kDiagonal, true}, {kRow, true}, {kAnti, true}, {kColumn, true}};
constexpr Neighbour kAfter[] = {
    {kColumn, false}, {kAnti, false}, {kRow, false}, {kDiagonal, false}, {kSlice, false}};

struct Voxel {
  int64_t at[3];
};

// f(index of the neighbour, entry of the edge's array) if there is one.
template <class F>
void visit(const Grid &g, const Voxel &v, Neighbour n, const F &f) {
  if (!g.has[n.family]) return;
  int64_t other[3], start[3];
  for (int axis = 0; axis < 3; ++axis) {
    const int step = kStep[n.family][axis];
    other[axis] = v.at[axis] + (n.previous ? -step : step);
    if (other[axis] < 0 || other[axis] >= g.extent[axis]) return;
    start[axis] =
        std::min(v.at[axis], other[axis]);  // also of an anti-diagonal: its entry is the left column's
  }
  const int64_t rows = g.edge_extent(n.family, 1), columns = g.edge_extent(n.family, 2);
  f((other[0] * g.extent[1] + other[1]) * g.extent[2] + other[2],
    (start[0] * rows + start[1]) * columns + start[2]);
}

}  // namespace

template <class T>
void cpu_csr(const Problem &p, int32_t *row_offsets, int32_t *columns, T *values, int threads) {
  const Grid &g = p.grid;
  int64_t entries = g.voxels();
  for (int f = 0; f < kFamilies; ++f) entries += 2 * g.edge_count(f);
  // A voxel's entries begin where those of its predecessor end.
  int64_t offset = 0, index = 0;
  for (Voxel v{{0, 0, 0}}; v.at[0] < g.extent[0]; ++v.at[0])
    for (v.at[1] = 0; v.at[1] < g.extent[1]; ++v.at[1])
      for (v.at[2] = 0; v.at[2] < g.extent[2]; ++v.at[2], ++index) {
        row_offsets[index] = static_cast<int32_t>(offset);
        const auto put = [&](int64_t other, int64_t) { columns[offset++] = static_cast<int32_t>(other); };
        for (const Neighbour n : kBefore) visit(g, v, n, put);
        put(index, 0);
        for (const Neighbour n : kAfter) visit(g, v, n, put);
      }
  row_offsets[index] = static_cast<int32_t>(offset);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t job = 0; job < g.matrices() * g.extent[0] * g.extent[1]; ++job) {
    const int64_t rows = g.extent[0] * g.extent[1], line = job % rows;
    const Matrix<T> a = matrix_of<T>(p, job / rows);
    T *out = values + job / rows * entries;
    Voxel v{{line / g.extent[1], line % g.extent[1], 0}};
    for (; v.at[2] < g.extent[2]; ++v.at[2]) {
      const int64_t voxel = line * g.extent[2] + v.at[2];
      int64_t at = row_offsets[voxel];
      T diagonal = a.conductance ? a.conductance[voxel] : T{1};
      const auto put = [&](Neighbour n) {
        visit(g, v, n, [&](int64_t, int64_t entry) {
          const T weight = a.edges[n.family][entry];
          diagonal += weight;
          out[at++] = T{0} - weight;  // no -0
        });
      };
      for (const Neighbour n : kBefore) put(n);
      T &centre = out[at++];
      for (const Neighbour n : kAfter) put(n);
      centre = diagonal;
    }
  }
}

template void cpu_csr(const Problem &, int32_t *, int32_t *, float *, int);
template void cpu_csr(const Problem &, int32_t *, int32_t *, double *, int);

}  // namespace segprior::softcut
