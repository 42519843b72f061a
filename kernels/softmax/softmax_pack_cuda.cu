// The compact form of `saved` on CUDA, one thread per element. Bytes per element and direction, float32: 6.
#include <algorithm>

#include "kernels/softmax/softmax_cuda_device.h"
#include "kernels/softmax/softmax_pack.h"

namespace segprior::softmax::cuda {

namespace {

// What the bound of a dual depends on.
template <class T>
struct Bounds {
  Scalar lam;
  const T *edge;
  bool edge_shared, accelerate;
  int64_t voxels, per_image, batch;
  int parts;

  __device__ double at(int64_t k) const {
    const int64_t row = k / voxels, x = k - row * voxels, image = row / per_image % batch;
    const double given = lam.device ? static_cast<double>(*static_cast<const T *>(lam.device)) : lam.host;
    const int part = static_cast<int>(row / (per_image * batch) % parts);
    const double bound = given * bound_factor(accelerate, part);
    return edge ? bound * edge[(edge_shared ? 0 : image * voxels) + x] : bound;
  }
};

__device__ inline int64_t element() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(Bounds<T> bounds, Saved<T> full, Packed packed, const char *full_tail) {
  const int64_t k = element();
  if (k < packed.slots * packed.parts * packed.dual_elements)
    packed.duals[k] = pack_dual(full.slots[k], bounds.at(k));
  if (k < packed.slots * packed.u_elements) packed.u[k] = pack_u(full.u_slots[k]);
  if (k < static_cast<int64_t>(packed.tail_bytes)) packed.tail[k] = full_tail[k];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(Bounds<T> bounds, Saved<T> full, Packed packed, char *full_tail) {
  const int64_t k = element();
  if (k < packed.slots * packed.parts * packed.dual_elements)
    full.slots[k] = static_cast<T>(unpack_dual(packed.duals[k], bounds.at(k)));
  if (k < packed.slots * packed.u_elements) full.u_slots[k] = static_cast<T>(unpack_u(packed.u[k]));
  if (k < static_cast<int64_t>(packed.tail_bytes)) full_tail[k] = packed.tail[k];
}

template <class T>
Bounds<T> bounds_of(const Problem &p, int parts) {
  return {p.lam,           static_cast<const T *>(p.edge), p.edge_shared, p.accelerate,
          p.grid.voxels(), p.grid.classes * p.grid.nd,     p.grid.batch,  parts};
}

dim3 blocks_of(const Packed &packed) {
  const int64_t elements =
      std::max({packed.slots * packed.parts * packed.dual_elements, packed.slots * packed.u_elements,
                static_cast<int64_t>(packed.tail_bytes)});
  return dim3(static_cast<unsigned>(ceil_div(elements, kThreads)));
}

}  // namespace

template <class T>
void pack(const Problem &p, const void *full_saved, void *compact, cudaStream_t stream) {
  Arena full_arena(const_cast<void *>(full_saved)), arena(compact);
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  launch("pack", pack_kernel<T>, blocks_of(packed), dim3(kThreads), 0, stream, bounds_of<T>(p, packed.parts),
         full, packed, static_cast<const char *>(full_saved) + packed.tail_offset);
}

template <class T>
void unpack(const Problem &p, const void *compact, void *full_saved, cudaStream_t stream) {
  Arena full_arena(full_saved), arena(const_cast<void *>(compact));
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  launch("unpack", unpack_kernel<T>, blocks_of(packed), dim3(kThreads), 0, stream,
         bounds_of<T>(p, packed.parts), full, packed, static_cast<char *>(full_saved) + packed.tail_offset);
}

template void pack<float>(const Problem &, const void *, void *, cudaStream_t);
template void pack<double>(const Problem &, const void *, void *, cudaStream_t);
template void unpack<float>(const Problem &, const void *, void *, cudaStream_t);
template void unpack<double>(const Problem &, const void *, void *, cudaStream_t);

}  // namespace segprior::softmax::cuda
