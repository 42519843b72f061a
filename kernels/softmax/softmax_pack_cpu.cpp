// The compact form of `saved` on the CPU. Bytes per element and direction, float32: 6.
#include "kernels/softmax/softmax_pack.h"

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {
namespace {

// f(full element, packed element, bound) for every dual, f_u(full, packed) for every u; then the tail.
template <class T, class F, class G>
void for_elements(const Problem &p, const Saved<T> &full, const Packed &packed, int threads, const F &f,
                  const G &f_u) {
  const int64_t voxels = p.grid.voxels(), per_image = p.grid.classes * p.grid.nd;
  const int64_t duals = packed.slots * packed.parts * p.grid.batch * per_image;
  const double lam = p.tv ? read_scalar<T>(p.lam) : 0;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < duals; ++k) {
    const int64_t image = k / per_image % p.grid.batch;
    const int part = static_cast<int>(k / (per_image * p.grid.batch) % packed.parts);
    const double factor = lam * bound_factor(p.accelerate, part);
    const T *edge =
        p.has_edge ? static_cast<const T *>(p.edge) + (p.edge_shared ? 0 : image * voxels) : nullptr;
    for (int64_t x = 0; x < voxels; ++x)
      f(full.slots[k * voxels + x], packed.duals[k * voxels + x], edge ? factor * edge[x] : factor);
  }
  const int64_t rows = packed.slots * (packed.u_elements / voxels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < rows; ++k)
    for (int64_t x = k * voxels; x < (k + 1) * voxels; ++x) f_u(full.u_slots[x], packed.u[x]);
}

}  // namespace

template <class T>
void pack(const Problem &p, const void *full_saved, void *compact, int threads) {
  Arena full_arena(const_cast<void *>(full_saved)), arena(compact);
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  for_elements<T>(
      p, full, packed, threads, [](T value, int16_t &out, double bound) { out = pack_dual(value, bound); },
      [](T value, uint16_t &out) { out = pack_u(value); });
  std::copy_n(static_cast<const char *>(full_saved) + packed.tail_offset, packed.tail_bytes, packed.tail);
}

template <class T>
void unpack(const Problem &p, const void *compact, void *full_saved, int threads) {
  Arena full_arena(full_saved), arena(const_cast<void *>(compact));
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  for_elements<T>(
      p, full, packed, threads,
      [](T &out, int16_t value, double bound) { out = static_cast<T>(unpack_dual(value, bound)); },
      [](T &out, uint16_t value) { out = static_cast<T>(unpack_u(value)); });
  std::copy_n(packed.tail, packed.tail_bytes, static_cast<char *>(full_saved) + packed.tail_offset);
}

template void pack<float>(const Problem &, const void *, void *, int);
template void pack<double>(const Problem &, const void *, void *, int);
template void unpack<float>(const Problem &, const void *, void *, int);
template void unpack<double>(const Problem &, const void *, void *, int);

}  // namespace segprior::softmax
