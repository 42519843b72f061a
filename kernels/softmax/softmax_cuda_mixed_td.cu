// clang-format off
// Entropic softmax on CUDA, threshold dynamics of the mixed path. With e the edge weight (0 at masked voxels),
//
//   r_i = lam (e K_i - B u_i),   B v = e (k_i * v) + k_i * (e v),   K_i = k_i * mask
//
// B^T is B with the kernel flipped. A Gaussian is separable: all axes but the first in use are passes through
// scratch fields, which hold k * v and k * (e v) so far; the first axis, or all taps of a given kernel, belong
// to the kernel that uses the result. Without an edge weight B v = 2 k * v at valid voxels, and nothing reads
// the rest.
//
// Bytes per voxel and class, float32, where caches keep a kernel's window: a pass reads v 4, writes 4 (twice
// with an edge weight); force reads 4 (8) and o 4, writes 4: 2-D 20 (28), 3-D 28 (44), given kernels 12.
// Backward: the same with u for o.
// clang-format on
#include "kernels/softmax/softmax_cuda_mixed_device.h"

namespace segprior::softmax::cuda {

namespace {

// The taps of one correlation: a box of voxels around x.
template <class T>
struct Window {
  int size[3];
  const T *taps;         // of class 0
  int64_t class_stride;  // 0: one kernel for all
  bool flipped;
};

// The field to correlate, and e times it; weighted null: not computed yet.
template <class T>
struct Source {
  const T *plain, *weighted;
};

template <class T>
struct Correlation {
  Window<T> window;
  Source<T> source;
};

// k * v and k * (e v) at one voxel; the second only with an edge weight.
template <class T>
struct Pair {
  T plain, weighted;
};

// Calls add(tap, neighbour) for the voxels of the window around x that lie in the grid.
template <class T, class Add>
__device__ void for_window(const ThresholdView<T> &td, const Window<T> &w, int class_index, int64_t x,
                           const Add &add) {
  const int64_t row = x / td.extent[2];
  const int64_t at[3] = {row / td.extent[1], row % td.extent[1], x % td.extent[2]};
  int begin[3], end[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const int radius = w.size[a] / 2;
    begin[a] = at[a] < radius ? static_cast<int>(radius - at[a]) : 0;
    const int64_t room = td.extent[a] - at[a] + radius;
    end[a] = room < w.size[a] ? static_cast<int>(room) : w.size[a];
  }
  const T *taps = w.taps + class_index * w.class_stride;
  const int last = w.size[0] * w.size[1] * w.size[2] - 1;
  for (int i = begin[0]; i < end[0]; ++i)
    for (int j = begin[1]; j < end[1]; ++j) {
      const int64_t line =
          ((at[0] + i - w.size[0] / 2) * td.extent[1] + at[1] + j - w.size[1] / 2) * td.extent[2] + at[2] -
          w.size[2] / 2;
      const int first_tap = (i * w.size[1] + j) * w.size[2];
      for (int k = begin[2]; k < end[2]; ++k)
        add(taps[w.flipped ? last - first_tap - k : first_tap + k], line + k);
    }
}

// `edge`: of the image, or null.
template <class T>
__device__ Pair<T> correlate(const ThresholdView<T> &td, const Correlation<T> &c, const T *edge,
                             int64_t field, int class_index, int64_t x) {
  Pair<T> sum{0, 0};
  const T *plain = c.source.plain + field;
  const T *weighted = c.source.weighted ? c.source.weighted + field : nullptr;
  for_window(td, c.window, class_index, x, [&](T tap, int64_t y) {
    const T value = plain[y];
    sum.plain += tap * value;
    if (edge) sum.weighted += tap * (weighted ? weighted[y] : edge[y] * value);
  });
  return sum;
}

// B v from its parts.
template <class T>
__device__ T combine(const Pair<T> &pair, const T *edge, int64_t x) {
  return edge ? edge[x] * pair.plain + pair.weighted : 2 * pair.plain;
}

template <class T>
__device__ const T *edge_of(const ThresholdView<T> &td, int64_t image) {
  return td.edge ? td.edge + image * td.edge_stride : nullptr;
}

// K_i at a voxel, without it 0.
template <class T>
__device__ T kernel_sum_at(const Mixed<T> &m, int64_t image, int i, int64_t x) {
  const ThresholdView<T> &td = m.td;
  return td.kernel_sum ? td.kernel_sum[image * td.kernel_sum_stride + i * m.in.g.voxels + x] : T(0);
}

// ---- Once a call ----

// One thread per axis.
template <class T>
__global__ void taps_kernel(Mixed<T> m) {
  double tap[kMaxTaps], slope[kMaxTaps];
  const int axis = threadIdx.x;
  gaussian_taps(m.in.coefficients->params.td_sigma, m.td.size[axis], tap, slope);
  for (int k = 0; k < m.td.size[axis]; ++k) {
    m.td.axis_taps[axis * kMaxTaps + k] = static_cast<T>(tap[k]);
    m.td.axis_slopes[axis * kMaxTaps + k] = static_cast<T>(slope[k]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) clean_edge_kernel(Mixed<T> m) {
  const Work work = work_of(m.in.g);
  if (work.x >= m.in.g.voxels) return;
  m.td.clean_edge[work.image * m.in.g.voxels + work.x] =
      valid_at(m, work.image, work.x) ? m.td.given_edge[work.image * m.td.given_stride + work.x] : T(0);
}

// K of one class per grid row.
template <class T>
__global__ void __launch_bounds__(kThreads) kernel_sum_kernel(Mixed<T> m, Window<T> window) {
  const Work work = work_of(m.in.g);
  if (work.x >= m.in.g.voxels) return;
  const int i = blockIdx.y;
  T sum = 0;
  for_window(m.td, window, i, work.x, [&](T tap, int64_t y) {
    if (valid_at(m, work.image, y)) sum += tap;
  });
  m.td.kernel_sum[work.image * m.td.kernel_sum_stride + i * m.in.g.voxels + work.x] = sum;
}

// ---- An iteration ----

// One axis of a Gaussian; a class per grid row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    pass_kernel(Mixed<T> m, Gate gate, Correlation<T> c, T *plain, T *weighted) {
  const Work work = work_of(m.in.g);
  if (!active(gate, work.image) || work.x >= m.in.g.voxels) return;
  const int64_t field = (work.image * m.in.g.classes + blockIdx.y) * m.in.g.voxels;
  const Pair<T> sum = correlate(m.td, c, edge_of(m.td, work.image), field, blockIdx.y, work.x);
  plain[field + work.x] = sum.plain;
  if (weighted) weighted[field + work.x] = sum.weighted;
}

// A class per grid row.
template <class T>
__global__ void __launch_bounds__(kThreads) force_kernel(Mixed<T> m, Gate gate, Correlation<T> c, T *force) {
  const Work work = work_of(m.in.g);
  if (!active(gate, work.image) || work.x >= m.in.g.voxels) return;
  const int i = blockIdx.y;
  const int64_t field = (work.image * m.in.g.classes + i) * m.in.g.voxels;
  const T *edge = edge_of(m.td, work.image);
  T value = combine(correlate(m.td, c, edge, field, i, work.x), edge, work.x);
  const T sum = kernel_sum_at(m, work.image, i, work.x);
  value -= edge ? edge[work.x] * sum : sum;
  force[field + work.x] =
      m.in.features[field + work.x] + static_cast<T>(m.in.coefficients->params.td_lam) * value;
}

// A class per grid row: grad_field <- lam B^T R and, as <R, B u> = <B^T R, u>, the sums of lam's gradient;
// with the slope of an axis in `c` only the sums, of sigma's.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    adjoint_kernel(Mixed<T> m, MixedAdjoint<T> a, Correlation<T> c, bool slope) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image)) return;
  const int i = blockIdx.y;
  double product = 0;
  if (work.x < g.voxels) {
    const int64_t field = (work.image * g.classes + i) * g.voxels, k = field + work.x;
    const T *edge = edge_of(m.td, work.image);
    const T adjoint = combine(correlate(m.td, c, edge, field, i, work.x), edge, work.x);
    product = static_cast<double>(a.u[k]) * adjoint;
    if (!slope) a.grad_field[k] = static_cast<T>(m.in.coefficients->params.td_lam) * adjoint;
    if (!slope && m.td.kernel_sum) {
      const T sum = kernel_sum_at(m, work.image, i, work.x);
      product -= static_cast<double>(a.base.grad_logits[k]) * (edge ? edge[work.x] * sum : sum);
    }
  }
  product = block_sum(product);
  if (threadIdx.x == 0)
    a.td_partials[((work.image * 2 + (slope ? 1 : 0)) * g.classes + i) * g.chunks + work.chunk] += product;
}

// Half of the edge's gradient: sum_i u_i (k^T * R_i) with `c` for R and `factor` u, or, `minus_sum`,
// sum_i R_i ((k * u_i) - K_i) with `c` for u and `factor` R.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    edge_kernel(Mixed<T> m, MixedAdjoint<T> a, Correlation<T> c, const T *factor, bool minus_sum) {
  const Geometry<T> &g = m.in.g;
  const Work work = work_of(g);
  if (!active(a.gate, work.image) || work.x >= g.voxels) return;
  T total = 0;
  for (int i = 0; i < g.classes; ++i) {
    const int64_t field = (work.image * g.classes + i) * g.voxels;
    T sum = correlate<T>(m.td, c, nullptr, field, i, work.x).plain;
    if (minus_sum) sum -= kernel_sum_at(m, work.image, i, work.x);
    total += factor[field + work.x] * sum;
  }
  a.td_edge[work.image * g.voxels + work.x] += total;
}

// Gradient of a given kernel, one block per image, class and tap d:
//   sum_x R(x) (e(x) (u(x+d) - mask(x+d)) + e(x+d) u(x+d))     mask(x+d) for a kernel per class alone
template <class T>
__global__ void __launch_bounds__(kThreads) kernel_grad_kernel(Mixed<T> m, MixedAdjoint<T> a) {
  const ThresholdView<T> &td = m.td;
  const int tap = static_cast<int>(blockIdx.x % td.taps);
  const int64_t k = blockIdx.x / td.taps, image = k / m.in.g.classes;  // k = image * I + class
  if (!active(a.gate, image)) return;
  const int offset[3] = {tap / (td.size[1] * td.size[2]) - td.size[0] / 2,
                         tap / td.size[2] % td.size[1] - td.size[1] / 2, tap % td.size[2] - td.size[2] / 2};
  int64_t begin[3], count[3];  // the x with x + d in the grid
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    begin[c] = offset[c] < 0 ? -offset[c] : 0;
    count[c] = td.extent[c] - (offset[c] < 0 ? -offset[c] : offset[c]);
    if (count[c] < 0) count[c] = 0;
  }
  const int64_t shift = (offset[0] * td.extent[1] + offset[1]) * td.extent[2] + offset[2];
  const T *edge = edge_of(td, image), *u = a.u + k * m.in.g.voxels;
  const T *r = a.base.grad_logits + k * m.in.g.voxels;
  double sum = 0;
  const int64_t rows = count[0] * count[1];
  for (int64_t row = threadIdx.x / 32; row < rows; row += kThreads / 32) {
    const int64_t line =
        ((begin[0] + row / count[1]) * td.extent[1] + begin[1] + row % count[1]) * td.extent[2] + begin[2];
    for (int64_t column = threadIdx.x % 32; column < count[2]; column += 32) {
      const int64_t x = line + column, y = x + shift;
      const T e = edge ? edge[x] : T(1), far = edge ? edge[y] : T(1);
      const T valid = td.per_class && valid_at(m, image, y) ? T(1) : T(0);
      sum += static_cast<double>(r[x]) * (e * (u[y] - valid) + far * u[y]);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) a.td_kernel[blockIdx.x] += sum;
}

// ---- Host ----

template <class T>
dim3 class_grid(const Mixed<T> &m) {
  return dim3(static_cast<unsigned>(m.in.g.batch * m.in.g.chunks), m.in.g.classes);
}

template <class T>
Window<T> given_window(const ThresholdView<T> &td, bool flipped) {
  return {{td.size[0], td.size[1], td.size[2]}, td.kernel, td.per_class ? td.taps : 0, flipped};
}

template <class T>
Window<T> axis_window(const ThresholdView<T> &td, int axis, const T *taps) {
  Window<T> w{{1, 1, 1}, taps + axis * kMaxTaps, 0, false};
  w.size[axis] = td.size[axis];
  return w;
}

// Everything but the last step of the correlation with `field`; that step is returned. `slope_axis`: the axis
// whose taps are replaced by their derivative, or -1.
template <class T>
Correlation<T> begin_correlation(const Mixed<T> &m, const Gate &gate, const T *field, bool flipped,
                                 int slope_axis, cudaStream_t stream) {
  const ThresholdView<T> &td = m.td;
  Source<T> source{field, nullptr};
  if (!td.gaussian) return {given_window(td, flipped), source};
  const auto window = [&](int axis) {
    return axis_window<T>(td, axis, axis == slope_axis ? td.axis_slopes : td.axis_taps);
  };
  const int nd = m.in.g.nd, first_axis = nd == 1 ? 2 : 0;
  for (int k = 0; k < nd - 1; ++k) {
    const int axis = 2 - k;  // 2-D uses axes 0 and 2
    launch("td_pass", pass_kernel<T>, class_grid(m), dim3(kThreads), 0, stream, m, gate,
           Correlation<T>{window(axis), source}, td.plain[k], td.weighted[k]);
    source = {td.plain[k], td.weighted[k]};
  }
  return {window(first_axis), source};
}

}  // namespace

template <class T>
void MixedThreshold<T>::prepare(const Mixed<T> &m, cudaStream_t stream) {
  const ThresholdView<T> &td = m.td;
  const auto images = [](int64_t stride, const Geometry<T> &g) { return stride == 0 ? 1 : g.batch; };
  const Geometry<T> &g = m.in.g;
  if (td.gaussian) launch("td_taps", taps_kernel<T>, dim3(1), dim3(3), 0, stream, m);
  if (td.clean_edge)
    launch("td_clean_edge", clean_edge_kernel<T>, dim3(images(td.edge_stride, g) * g.chunks), dim3(kThreads),
           0, stream, m);
  if (td.kernel_sum)
    launch("td_kernel_sum", kernel_sum_kernel<T>, dim3(images(td.kernel_sum_stride, g) * g.chunks, g.classes),
           dim3(kThreads), 0, stream, m, given_window(td, false));
}

template <class T>
void MixedThreshold<T>::force(const Mixed<T> &m, const Gate &gate, const T *u, T *force,
                              cudaStream_t stream) {
  const Correlation<T> c = begin_correlation(m, gate, u, false, -1, stream);
  launch("td_force", force_kernel<T>, class_grid(m), dim3(kThreads), 0, stream, m, gate, c, force);
}

template <class T>
void MixedThreshold<T>::adjoint(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  const Correlation<T> c = begin_correlation(m, a.gate, a.base.grad_logits, true, -1, stream);
  launch("td_adjoint", adjoint_kernel<T>, class_grid(m), dim3(kThreads), 0, stream, m, a, c, false);
}

template <class T>
void MixedThreshold<T>::parameters(const Mixed<T> &m, const MixedAdjoint<T> &a, cudaStream_t stream) {
  const T *r = a.base.grad_logits;
  const auto correlation = [&](const T *field, bool flipped, int slope_axis) {
    return begin_correlation(m, a.gate, field, flipped, slope_axis, stream);
  };
  const auto edge = [&](const Correlation<T> &c, const T *factor, bool minus_sum) {
    launch("td_edge", edge_kernel<T>, dim3(m.in.g.batch * m.in.g.chunks), dim3(kThreads), 0, stream, m, a, c,
           factor, minus_sum);
  };
  if (a.td_edge) {
    edge(correlation(r, true, -1), a.u, false);
    edge(correlation(a.u, false, -1), r, true);
  }
  for (int axis = 0; a.want_sigma && axis < 3; ++axis)
    if (m.td.size[axis] > 1)
      launch("td_sigma", adjoint_kernel<T>, class_grid(m), dim3(kThreads), 0, stream, m, a,
             correlation(r, true, axis), true);
  if (a.td_kernel)
    launch("td_kernel_grad", kernel_grad_kernel<T>, dim3(m.in.g.batch * m.in.g.classes * m.td.taps),
           dim3(kThreads), 0, stream, m, a);
}

template struct MixedThreshold<float>;
template struct MixedThreshold<double>;

}  // namespace segprior::softmax::cuda
