// Instances of the fused iteration for 3-D grids.
#include "kernels/softmax/softmax_cuda_fused.h"

namespace segprior::softmax::cuda {

template <class T>
void fused_step_3d(const Grid &grid, const Inputs<T> &in, const Step<T> &step, const Finish &finish,
                   bool advance, unsigned *tickets, cudaStream_t stream) {
  dispatch_fused<T, 3>(grid, in, step, finish, advance, tickets, stream);
}

template void fused_step_3d(const Grid &, const Inputs<float> &, const Step<float> &, const Finish &, bool,
                            unsigned *, cudaStream_t);
template void fused_step_3d(const Grid &, const Inputs<double> &, const Step<double> &, const Finish &, bool,
                            unsigned *, cudaStream_t);

}  // namespace segprior::softmax::cuda
