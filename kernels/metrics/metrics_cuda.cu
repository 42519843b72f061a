// The CUDA backend of the scores, and the scores of confusion matrices: one block per matrix.
#include "kernels/metrics/metrics_cuda.h"

namespace segprior::metrics {
namespace cuda {
namespace {

// A mean over the values that are not NaN, added up in the order of the classes, as on the CPU: the same
// bits.
struct Mean {
  double sum = 0;
  int64_t count = 0;

  __device__ void add(double value) {
    if (value != value) return;
    sum += value;
    ++count;
  }
  __device__ double value() const { return count == 0 ? nan("") : sum / static_cast<double>(count); }
};

__device__ void store(double *array, int64_t index, double value) {
  if (array) array[index] = value;
}

__global__ void __launch_bounds__(kThreads) scores_kernel(Scores s) {
  SEGPRIOR_SHARED(double, iou, kThreads);
  SEGPRIOR_SHARED(double, dice, kThreads);
  SEGPRIOR_SHARED(int64_t, rows, kThreads);
  SEGPRIOR_SHARED(int64_t, diagonal, kThreads);
  for (int64_t n = blockIdx.x; n < s.count; n += gridDim.x) {
    const int64_t *matrix = s.matrices + n * s.classes * s.classes;
    Mean mean_iou, mean_dice;
    int64_t all = 0, right = 0;
    for (int64_t first = 0; first < s.classes; first += kThreads) {
      const int64_t i = first + threadIdx.x;
      if (i < s.classes) {
        int64_t row = 0, column = 0;
        for (int64_t j = 0; j < s.classes; ++j) {
          row += matrix[i * s.classes + j];
          column += matrix[j * s.classes + i];
        }
        const int64_t tp = matrix[i * s.classes + i], at = n * s.classes + i;
        iou[threadIdx.x] = fraction(tp, row + column - tp);
        dice[threadIdx.x] = fraction(2 * tp, row + column);
        rows[threadIdx.x] = row;
        diagonal[threadIdx.x] = tp;
        store(s.iou, at, iou[threadIdx.x]);
        store(s.dice, at, dice[threadIdx.x]);
        store(s.precision, at, fraction(tp, column));
        store(s.recall, at, fraction(tp, row));
      }
      __syncthreads();
      for (int64_t k = 0; threadIdx.x == 0 && k < kThreads && first + k < s.classes; ++k) {
        mean_iou.add(iou[k]);
        mean_dice.add(dice[k]);
        all += rows[k];
        right += diagonal[k];
      }
      __syncthreads();
    }
    if (threadIdx.x != 0) continue;
    store(s.accuracy, n, fraction(right, all));
    store(s.mean_iou, n, mean_iou.value());
    store(s.mean_dice, n, mean_dice.value());
  }
}

void scores(const Scores &s, int, void *stream) {
  launch("metrics_scores", scores_kernel, grid_of(s.count), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), s);
}

}  // namespace
}  // namespace cuda

const Backend kCuda{cuda::confusion, cuda::scores, cuda::geometry, cuda::components_workspace,
                    cuda::components};

}  // namespace segprior::metrics
