// Instances of the fused iteration for 1-D and 2-D grids, and the choice of instance.
#include "kernels/softmax/softmax_cuda_fused.h"

namespace segprior::softmax::cuda {

int64_t fused_partials(const Problem &p) {
  const int most = p.dtype == DType::f32 ? kMostFused<float> : kMostFused<double>;
  if (!p.tv || p.grid.classes < 2 || p.grid.classes > most) return 0;
  if (p.grid.classes * p.grid.nd * p.grid.voxels() > UINT32_MAX) return 0;
  return p.grid.nd == 3 ? fused_plan<3>(p.grid).partials() : fused_plan<2>(p.grid).partials();
}

template <class T>
void fused_step(const Grid &grid, const Inputs<T> &in, const Step<T> &step, const Finish &finish,
                bool advance, unsigned *tickets, cudaStream_t stream) {
  if (grid.nd == 3)
    fused_step_3d(grid, in, step, finish, advance, tickets, stream);
  else
    dispatch_fused<T, 2>(grid, in, step, finish, advance, tickets, stream);
}

template void fused_step(const Grid &, const Inputs<float> &, const Step<float> &, const Finish &, bool,
                         unsigned *, cudaStream_t);
template void fused_step(const Grid &, const Inputs<double> &, const Step<double> &, const Finish &, bool,
                         unsigned *, cudaStream_t);

}  // namespace segprior::softmax::cuda
