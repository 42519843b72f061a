// A mask as the CPU's row kernels read it, worked out once an image: factors 1 and 0, and edge weights
// without the caller's values at masked voxels. Forward and backward both carve it.
#pragma once

#include "kernels/common/parallel.h"
#include "kernels/softmax/softmax.h"

namespace segprior::softmax {

// All null without a mask.
template <class T>
struct MaskBuffers {
  T *valid;  // [J] 1, or 0 at masked voxels
  T *link;   // [nd, J] 1 where the gradient's component exists: voxel and forward neighbour are valid
  T *edge, *td_edge;  // [J] the image's, 0 at masked voxels; null if the problem has none
  double *count;      // [slices] valid voxels

  static MaskBuffers carve(const Problem &p, Arena &arena) {
    if (!p.has_mask) return {};
    const Grid &g = p.grid;
    MaskBuffers b{};
    b.valid = arena.take<T>(g.voxels());
    b.link = arena.take<T>(g.voxels() * g.nd);
    b.edge = arena.take<T>(p.has_edge ? g.voxels() : 0);
    b.td_edge = arena.take<T>(p.td.has_edge ? g.voxels() : 0);
    b.count = arena.take<double>(g.extent[0]);
    return b;
  }
};

// Fills the buffers for image b, if there is a mask. Collective; ends with a barrier.
template <class T>
void prepare_mask(const Problem &p, int64_t b, const MaskBuffers<T> &buffers, const Team &team);

// The number of voxels that take part, after prepare_mask.
template <class T>
double valid_voxels(const Problem &p, const MaskBuffers<T> &buffers);

}  // namespace segprior::softmax
