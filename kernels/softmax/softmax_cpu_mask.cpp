#include "kernels/softmax/softmax_cpu_mask.h"

#include <algorithm>

namespace segprior::softmax {
namespace {

// The rows of a grid's slices [begin, end): f(slice, row, offset of the row in the image).
template <class F>
void for_rows(const Grid &g, int64_t begin, int64_t end, const F &f) {
  for (int64_t s = begin; s < end; ++s)
    for (int64_t r = 0; r < g.extent[1]; ++r) f(s, r, (s * g.extent[1] + r) * g.extent[2]);
}

}  // namespace

template <class T>
void prepare_mask(const Problem &p, int64_t b, const MaskBuffers<T> &buffers, const Team &team) {
  if (!p.has_mask) return;
  const Grid &g = p.grid;
  const uint8_t *mask = p.mask + (p.mask_shared ? 0 : b) * g.voxels();
  const T *edge =
      p.has_edge ? static_cast<const T *>(p.edge) + (p.edge_shared ? 0 : b) * g.voxels() : nullptr;
  const T *td_edge =
      p.td.has_edge ? static_cast<const T *>(p.td.edge) + (p.td.edge_shared ? 0 : b) * g.voxels() : nullptr;
  const int64_t columns = g.extent[2], stride[3] = {g.extent[1] * columns, columns, 1};
  for_rows(g, team.begin(g.extent[0]), team.end(g.extent[0]), [&](int64_t s, int64_t r, int64_t offset) {
    const uint8_t *here = mask + offset;
    double count = 0;
    for (int64_t x = 0; x < columns; ++x) {
      buffers.valid[offset + x] = here[x] ? T{1} : T{0};
      count += here[x] != 0;
      if (edge) buffers.edge[offset + x] = here[x] ? edge[offset + x] : T{0};
      if (td_edge) buffers.td_edge[offset + x] = here[x] ? td_edge[offset + x] : T{0};
    }
    buffers.count[s] = (r == 0 ? 0 : buffers.count[s]) + count;
    for (int c = 0; c < g.nd; ++c) {
      const int axis = g.axes[c];
      T *link = buffers.link + c * g.voxels() + offset;
      const bool last = (axis == 0 && s + 1 == g.extent[0]) || (axis == 1 && r + 1 == g.extent[1]);
      const int64_t pairs = last ? 0 : (axis == 2 ? columns - 1 : columns);
      const uint8_t *ahead = here + stride[axis];
      for (int64_t x = 0; x < pairs; ++x) link[x] = here[x] && ahead[x] ? T{1} : T{0};
      std::fill(link + pairs, link + columns, T{0});
    }
  });
  team.barrier();
}

template <class T>
double valid_voxels(const Problem &p, const MaskBuffers<T> &buffers) {
  if (!p.has_mask) return static_cast<double>(p.grid.voxels());
  double count = 0;
  for (int64_t s = 0; s < p.grid.extent[0]; ++s) count += buffers.count[s];
  return count;
}

template void prepare_mask<float>(const Problem &, int64_t, const MaskBuffers<float> &, const Team &);
template void prepare_mask<double>(const Problem &, int64_t, const MaskBuffers<double> &, const Team &);
template double valid_voxels<float>(const Problem &, const MaskBuffers<float> &);
template double valid_voxels<double>(const Problem &, const MaskBuffers<double> &);

}  // namespace segprior::softmax
