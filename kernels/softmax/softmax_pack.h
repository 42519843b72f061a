// The compact form of `saved`: TV duals and u, the bulk of it, as 16-bit fixed point; star duals and the
// small histories unchanged. Forward writes the full form into its workspace and packs it; backward unpacks
// first.
//
// A dual component is bounded by lam e, so the step of its fixed point is lam e / 32767; u's is 1 / 65535.
// Error: half a step. Where the projection clips, |q| = lam e, and the adjoint has to see that the next step
// clips again: a vector whose length is within the rounding of the bound is put back onto it. (An
// extrapolated point lies on no bound, so accelerated iterations have no compact form.)
#pragma once

#include "kernels/common/host_device.h"
#include "kernels/softmax/softmax.h"

namespace segprior::softmax {

SEGPRIOR_HD inline int16_t pack_dual(double value, double bound) {
  const double ratio = value / bound;  // NaN for 0 / 0: a dual that cannot move
  return ratio == ratio ? static_cast<int16_t>(rint(fmin(fmax(ratio, -1.0), 1.0) * 32767)) : int16_t{0};
}
// Factor of the nd components, `stride` apart, of one vector.
SEGPRIOR_HD inline double unpack_scale(const int16_t *value, int64_t stride, int nd, double bound) {
  double square = 0;
  for (int c = 0; c < nd; ++c) square += static_cast<double>(value[c * stride]) * value[c * stride];
  if (square == 0) return 0;  // `bound` may be anything at a masked voxel
  const double length = sqrt(square);
  return fabs(length - 32767) <= 0.5 * sqrt(static_cast<double>(nd)) ? bound / length : bound / 32767;
}
SEGPRIOR_HD inline uint16_t pack_u(double value) {
  return value > 0 ? static_cast<uint16_t>(rint(fmin(value, 1.0) * 65535)) : uint16_t{0};  // NaN: 0
}
SEGPRIOR_HD inline double unpack_u(uint16_t value) { return value / 65535.0; }

struct Packed {
  int64_t slots;          // checkpoints + 1
  int64_t dual_elements;  // per slot; 0 without TV
  int64_t u_elements;     // per slot
  int16_t *duals;         // [slots][dual_elements]
  uint16_t *u;            // [slots][u_elements]
  char *tail;             // what is not packed
  size_t tail_bytes;
  size_t tail_offset;  // of the same bytes in the full form
};

// Where things are in the compact form. In the full form duals and u come first, so the rest is one block.
template <class T>
Packed carve_packed(const Problem &p, Arena &arena) {
  Arena full;
  const Saved<T> saved = carve_saved<T>(p, full);
  Packed packed{};
  if (p.checkpoint_interval == 0) return packed;
  packed.slots = saved.checkpoints + 1;
  packed.dual_elements = saved.parts * saved.part_size;
  packed.u_elements = saved.u_size;
  packed.tail_offset = saved.packed_bytes;
  packed.tail_bytes = full.used() - saved.packed_bytes;
  packed.duals = arena.take<int16_t>(packed.dual_elements, packed.slots);
  packed.u = arena.take<uint16_t>(saved.u_size, packed.slots);
  packed.tail = arena.take<char>(static_cast<int64_t>(packed.tail_bytes));
  return packed;
}

}  // namespace segprior::softmax
