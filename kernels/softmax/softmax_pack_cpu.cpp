// The compact form of `saved` on the CPU. Bytes per element and direction, float32: 6.
#include "kernels/softmax/softmax_pack.h"

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {
namespace {

// f(first element of a vector, bound) for every dual vector; its components are `voxels` apart.
template <class T, class F>
void for_vectors(const Problem &p, const Packed &packed, int threads, const F &f) {
  const int64_t voxels = p.grid.voxels(), nd = p.grid.nd;
  const int64_t planes = packed.slots * (packed.dual_elements / (voxels * nd));
  const double lam = p.tv ? read_scalar<T>(p.lam) : 0;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < planes; ++k) {
    const int64_t image = k / p.grid.classes % p.grid.batch;
    const T *edge =
        p.has_edge ? static_cast<const T *>(p.edge) + (p.edge_shared ? 0 : image * voxels) : nullptr;
    for (int64_t x = 0; x < voxels; ++x) f(k * nd * voxels + x, edge ? lam * edge[x] : lam);
  }
}

// f(element) for every u.
template <class F>
void for_u(const Problem &p, const Packed &packed, int threads, const F &f) {
  const int64_t voxels = p.grid.voxels(), planes = packed.slots * (packed.u_elements / voxels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < planes; ++k)
    for (int64_t x = k * voxels; x < (k + 1) * voxels; ++x) f(x);
}

}  // namespace

template <class T>
void pack(const Problem &p, const void *full_saved, void *compact, int threads) {
  Arena full_arena(const_cast<void *>(full_saved)), arena(compact);
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  const int64_t voxels = p.grid.voxels();
  for_vectors<T>(p, packed, threads, [&](int64_t k, double bound) {
    for (int c = 0; c < p.grid.nd; ++c)
      packed.duals[k + c * voxels] = pack_dual(full.slots[k + c * voxels], bound);
  });
  for_u(p, packed, threads, [&](int64_t k) { packed.u[k] = pack_u(full.u_slots[k]); });
  std::copy_n(static_cast<const char *>(full_saved) + packed.tail_offset, packed.tail_bytes, packed.tail);
}

template <class T>
void unpack(const Problem &p, const void *compact, void *full_saved, int threads) {
  Arena full_arena(full_saved), arena(const_cast<void *>(compact));
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  const int64_t voxels = p.grid.voxels();
  for_vectors<T>(p, packed, threads, [&](int64_t k, double bound) {
    const double scale = unpack_scale(packed.duals + k, voxels, p.grid.nd, bound);
    for (int c = 0; c < p.grid.nd; ++c)
      full.slots[k + c * voxels] = scale == 0 ? T{0} : static_cast<T>(scale * packed.duals[k + c * voxels]);
  });
  for_u(p, packed, threads, [&](int64_t k) { full.u_slots[k] = static_cast<T>(unpack_u(packed.u[k])); });
  std::copy_n(packed.tail, packed.tail_bytes, static_cast<char *>(full_saved) + packed.tail_offset);
}

template void pack<float>(const Problem &, const void *, void *, int);
template void pack<double>(const Problem &, const void *, void *, int);
template void unpack<float>(const Problem &, const void *, void *, int);
template void unpack<double>(const Problem &, const void *, void *, int);

}  // namespace segprior::softmax
