// The compact form of `saved`: TV duals and u, the bulk of it, as 16-bit fixed point; star duals and the
// small histories unchanged. Forward writes the full form into its workspace and packs it; backward unpacks
// first.
//
// A dual component is bounded by lam e (|q| <= lam e; extrapolated by the momentum |v| <= 3 lam e), so the
// step of the fixed point is at most 3 lam e / 32767; u's is 1 / 65535. Error: half a step.
#pragma once

#include "kernels/common/host_device.h"
#include "kernels/softmax/softmax.h"

namespace segprior::softmax {

SEGPRIOR_HD inline int16_t pack_dual(double value, double bound) {
  const double ratio = value / bound;  // NaN for 0 / 0: a dual that cannot move
  return ratio == ratio ? static_cast<int16_t>(rint(fmin(fmax(ratio, -1.0), 1.0) * 32767)) : int16_t{0};
}
SEGPRIOR_HD inline double unpack_dual(int16_t value, double bound) {
  return value == 0 ? 0 : value * (bound / 32767);
}
SEGPRIOR_HD inline uint16_t pack_u(double value) {
  return value > 0 ? static_cast<uint16_t>(rint(fmin(value, 1.0) * 65535)) : uint16_t{0};  // NaN: 0
}
SEGPRIOR_HD inline double unpack_u(uint16_t value) { return value / 65535.0; }

// Bound of part `part` of a slot, over lam e.
SEGPRIOR_HD inline double bound_factor(bool accelerate, int part) { return accelerate && part == 0 ? 3 : 1; }

struct Packed {
  int64_t slots;          // checkpoints + 1
  int64_t dual_elements;  // per slot and part
  int parts;
  int64_t u_elements;  // per slot
  int16_t *duals;      // [slots][parts][dual_elements]
  uint16_t *u;         // [slots][u_elements]
  char *tail;          // what is not packed
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
  packed.dual_elements = saved.part_size;
  packed.parts = saved.parts;
  packed.u_elements = saved.u_size;
  packed.tail_offset = saved.packed_bytes;
  packed.tail_bytes = full.used() - saved.packed_bytes;
  packed.duals = arena.take<int16_t>(saved.parts * saved.part_size, packed.slots);
  packed.u = arena.take<uint16_t>(saved.u_size, packed.slots);
  packed.tail = arena.take<char>(static_cast<int64_t>(packed.tail_bytes));
  return packed;
}

}  // namespace segprior::softmax
