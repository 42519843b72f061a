// The compact form of `saved` on CUDA, one thread per vector. Bytes per element and direction, float32: 6.
#include <algorithm>

#include "kernels/softmax/softmax_cuda_device.h"
#include "kernels/softmax/softmax_pack.h"

namespace segprior::softmax::cuda {

namespace {

// Where the dual vectors of all slots are, and what bounds them.
template <class T>
struct Vectors {
  Scalar lam;
  const T *edge;
  bool edge_shared;
  int64_t count, voxels, classes, batch;
  int nd;

  // First element of vector k, whose components are `voxels` apart.
  __device__ int64_t first(int64_t k) const { return k / voxels * nd * voxels + k % voxels; }
  __device__ double bound(int64_t k) const {
    const double given = lam.device ? static_cast<double>(*static_cast<const T *>(lam.device)) : lam.host;
    const int64_t image = k / (voxels * classes) % batch;
    return edge ? given * edge[(edge_shared ? 0 : image * voxels) + k % voxels] : given;
  }
};

__device__ inline int64_t element() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(Vectors<T> vectors, Saved<T> full, Packed packed, const char *full_tail) {
  const int64_t k = element();
  if (k < vectors.count) {
    const int64_t first = vectors.first(k);
    const double bound = vectors.bound(k);
    for (int c = 0; c < vectors.nd; ++c)
      packed.duals[first + c * vectors.voxels] = pack_dual(full.slots[first + c * vectors.voxels], bound);
  }
  if (k < packed.slots * packed.u_elements) packed.u[k] = pack_u(full.u_slots[k]);
  if (k < static_cast<int64_t>(packed.tail_bytes)) packed.tail[k] = full_tail[k];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(Vectors<T> vectors, Saved<T> full, Packed packed, char *full_tail) {
  const int64_t k = element();
  if (k < vectors.count) {
    const int64_t first = vectors.first(k);
    const double scale = unpack_scale(packed.duals + first, vectors.voxels, vectors.nd, vectors.bound(k));
    for (int c = 0; c < vectors.nd; ++c) {
      const int64_t at = first + c * vectors.voxels;
      full.slots[at] = scale == 0 ? T(0) : static_cast<T>(scale * packed.duals[at]);
    }
  }
  if (k < packed.slots * packed.u_elements) full.u_slots[k] = static_cast<T>(unpack_u(packed.u[k]));
  if (k < static_cast<int64_t>(packed.tail_bytes)) full_tail[k] = packed.tail[k];
}

template <class T>
Vectors<T> vectors_of(const Problem &p, const Packed &packed) {
  const Grid &g = p.grid;
  return {p.lam,         static_cast<const T *>(p.edge),
          p.edge_shared, packed.slots * packed.dual_elements / g.nd,
          g.voxels(),    g.classes,
          g.batch,       g.nd};
}

template <class T>
dim3 blocks_of(const Vectors<T> &vectors, const Packed &packed) {
  const int64_t elements =
      std::max({vectors.count, packed.slots * packed.u_elements, static_cast<int64_t>(packed.tail_bytes)});
  return dim3(static_cast<unsigned>(ceil_div(elements, kThreads)));
}

}  // namespace

template <class T>
void pack(const Problem &p, const void *full_saved, void *compact, cudaStream_t stream) {
  Arena full_arena(const_cast<void *>(full_saved)), arena(compact);
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  const Vectors<T> vectors = vectors_of<T>(p, packed);
  launch("pack", pack_kernel<T>, blocks_of(vectors, packed), dim3(kThreads), 0, stream, vectors, full, packed,
         static_cast<const char *>(full_saved) + packed.tail_offset);
}

template <class T>
void unpack(const Problem &p, const void *compact, void *full_saved, cudaStream_t stream) {
  Arena full_arena(full_saved), arena(const_cast<void *>(compact));
  const Saved<T> full = carve_saved<T>(p, full_arena);
  const Packed packed = carve_packed<T>(p, arena);
  const Vectors<T> vectors = vectors_of<T>(p, packed);
  launch("unpack", unpack_kernel<T>, blocks_of(vectors, packed), dim3(kThreads), 0, stream, vectors, full,
         packed, static_cast<char *>(full_saved) + packed.tail_offset);
}

template void pack<float>(const Problem &, const void *, void *, cudaStream_t);
template void pack<double>(const Problem &, const void *, void *, cudaStream_t);
template void unpack<float>(const Problem &, const void *, void *, cudaStream_t);
template void unpack<double>(const Problem &, const void *, void *, cudaStream_t);

}  // namespace segprior::softmax::cuda
