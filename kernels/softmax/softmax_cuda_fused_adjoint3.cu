// Instances of the fused backward iteration for 3-D grids.
#include "kernels/softmax/softmax_cuda_fused_adjoint.h"

namespace segprior::softmax::cuda {

template <class T>
void fused_adjoint_step_3d(const Grid &grid, const Inputs<T> &in, const Adjoint<T> &a, int t, const T *v,
                           const T *v_next, cudaStream_t stream) {
  dispatch_fused_adjoint<T, 3>(grid, in, a, t, v, v_next, stream);
}

template void fused_adjoint_step_3d(const Grid &, const Inputs<float> &, const Adjoint<float> &, int,
                                    const float *, const float *, cudaStream_t);
template void fused_adjoint_step_3d(const Grid &, const Inputs<double> &, const Adjoint<double> &, int,
                                    const double *, const double *, cudaStream_t);

}  // namespace segprior::softmax::cuda
