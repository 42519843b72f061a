// The fused adjoint of threshold dynamics: softmax_cuda_td_adjoint.h.
#include "kernels/softmax/softmax_cuda_td_adjoint.h"

#include "kernels/softmax/softmax_cuda_td_tile.h"

namespace segprior::softmax::cuda {

namespace {

enum { kLogSum, kLamProduct, kTdSums };

template <class T, int R>
constexpr int adjoint_blocks_per_sm() {
  return sizeof(T) == sizeof(float) && R <= 3 ? 2 : 1;
}

template <class T, int R, int P>
__global__ void __launch_bounds__(kTdThreads, adjoint_blocks_per_sm<T, R>())
    td_adjoint_kernel(Inputs<T> in, TdAdjoint<T> a, TdPlan plan) {
  using Tile = FlatTile<T, R, P>;
  constexpr int kCount = Cells<T, Tile>::kCount;
  const Geometry<T> &g = in.g;
  const unsigned tile = blockIdx.x % plan.tiles();
  const int64_t image = blockIdx.x / plan.tiles();
  if (a.t >= a.iterations[image]) return;
  const bool end = a.t + 1 == a.iterations[image];
  const int y0 = tile / plan.tiles_x * Tile::kRows, x0 = tile % plan.tiles_x * Tile::kColumns;
  const int tx = threadIdx.x % Tile::kColumns, first_row = threadIdx.x / Tile::kColumns * P;
  const int classes = g.classes;
  const unsigned voxels = static_cast<unsigned>(g.voxels);
  T *cells = dynamic_shared<T>(), *convolved = cells + Tile::kCells;

  const Params &p = in.coefficients->params;
  const T inv_eps = static_cast<T>(1 / p.eps), lam = static_cast<T>(p.td_lam);
  T tap_x[2 * R + 1], tap_y[2 * R + 1];
  load_taps<T, R>(a.taps + 2 * kMaxTaps, a.sizes[2], tap_x);
  load_taps<T, R>(a.taps, a.sizes[0], tap_y);

  const int64_t offset = image * classes * voxels;
  const T *u_next = (end ? a.final_u : a.u_next) + offset, *grad = (end ? a.grad_u : a.grad) + offset;
  const T *u = a.u + offset;
  T *grad_next = a.grad_next + offset;

  Cells<T, Tile> mine;  // of u_next
  mine.place(plan, y0, x0);
  T incoming[kCount], mean[kCount] = {};
  for (int i = 0; i < classes; ++i) {
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (mine.at[k] != mine.kOutside)
        mean[k] += grad[i * voxels + mine.at[k]] * u_next[i * voxels + mine.at[k]];
  }
  const auto load = [&](int i) {
    mine.load(u_next + i * voxels);
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (mine.at[k] != mine.kOutside) incoming[k] = grad[i * voxels + mine.at[k]];
  };

  unsigned at[P];
  bool inside[P];
#pragma unroll
  for (int j = 0; j < P; ++j) {
    const int y = y0 + first_row + j, x = x0 + tx;
    inside[j] = y < plan.rows && x < plan.columns;
    at[j] = inside[j] ? y * plan.columns + x : 0;
  }

  double sums[kTdSums] = {};
  load(0);
  for (int i = 0; i < classes; ++i) {
    T log_sum = 0, product = 0, old[P], blurred[P];
#pragma unroll
    for (int j = 0; j < P; ++j) old[j] = u[i * voxels + at[j]];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      if (!mine.exists(k)) continue;
      T r = 0;
      if (mine.at[k] != mine.kOutside) {
        r = mine.raw[k] * (incoming[k] - mean[k]) * inv_eps;
        if (mine.inner(k)) {
          log_sum += log_term(r, mine.raw[k]);
          if (a.grad_features) a.grad_features[offset + i * voxels + mine.at[k]] += r;
        }
      }
      cells[threadIdx.x + k * kTdThreads] = r;
    }
    __syncthreads();
    if (i + 1 < classes) load(i + 1);
    convolve_rows<T, Tile>(cells, tap_x, convolved);
    __syncthreads();
    convolve_column<T, Tile>(convolved, tap_y, first_row, tx, blurred);
#pragma unroll
    for (int j = 0; j < P; ++j) {
      if (!inside[j]) continue;
      const T adjoint = 2 * blurred[j];
      grad_next[i * voxels + at[j]] = lam * adjoint;
      product += old[j] * adjoint;
    }
    sums[kLogSum] += log_sum;
    sums[kLamProduct] += product;
  }

  block_reduce(sums, Sum());
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int k = 0; k < kTdSums; ++k) {
    double &sum = a.sums[(image * kTdSums + k) * plan.tiles() + tile];
    sum = end ? sums[k] : sum + sums[k];
  }
}

// One block per image.
template <class T>
__global__ void __launch_bounds__(kTdThreads)
    td_collect_kernel(TdAdjoint<T> a, unsigned tiles, double *eps_partials, int64_t eps_stride,
                      double *lam_partials, int64_t lam_stride) {
  const int64_t image = blockIdx.x;
  if (a.iterations[image] == 0) return;
  const double *sums = a.sums + image * kTdSums * tiles;
  const double log_sum = sum_of(sums + kLogSum * tiles, tiles);
  const double product = sum_of(sums + kLamProduct * tiles, tiles);
  if (threadIdx.x != 0) return;
  eps_partials[image * eps_stride] += log_sum;
  lam_partials[image * lam_stride] += product;
}

// Calls f with the tile type of (R, P).
template <class T, class F>
auto with_adjoint_tile(int radius, F f) {
  return radius <= 3 ? f(FlatTile<T, 3, 4>()) : f(FlatTile<T, 7, 2>());
}

template <class T>
size_t place_adjoint_tiles(TdPlan &plan) {
  return with_adjoint_tile<T>(plan.radius, [&](auto tile) {
    using Tile = decltype(tile);
    plan.per_thread = Tile::kPerThread;
    plan.tiles_y = static_cast<int>(ceil_div(plan.rows, Tile::kRows));
    return Tile::shared_bytes(0, false);
  });
}

}  // namespace

TdPlan td_adjoint_plan(const Problem &p, size_t shared_memory) {
  TdPlan plan = td_plan(p, shared_memory);
  if (plan.tiles() == 0 || plan.deep || p.volume != Volume::none) return {};
  plan.shared_bytes =
      p.dtype == DType::f32 ? place_adjoint_tiles<float>(plan) : place_adjoint_tiles<double>(plan);
  return plan;
}

template <class T>
void td_adjoint_step(const Inputs<T> &in, const TdAdjoint<T> &a, const TdPlan &plan, cudaStream_t stream) {
  with_adjoint_tile<T>(plan.radius, [&](auto tile) {
    using Tile = decltype(tile);
    launch("td_adjoint_fused", td_adjoint_kernel<T, Tile::kRadius, Tile::kPerThread>,
           dim3(static_cast<unsigned>(in.g.batch * plan.tiles())), dim3(kTdThreads), plan.shared_bytes,
           stream, in, a, plan);
  });
}

template <class T>
void td_adjoint_collect(const Inputs<T> &in, const TdAdjoint<T> &a, const TdPlan &plan, double *eps_partials,
                        int64_t eps_stride, double *lam_partials, int64_t lam_stride, cudaStream_t stream) {
  launch("td_collect", td_collect_kernel<T>, dim3(static_cast<unsigned>(in.g.batch)), dim3(kTdThreads), 0,
         stream, a, plan.tiles(), eps_partials, eps_stride, lam_partials, lam_stride);
}

template void td_adjoint_step(const Inputs<float> &, const TdAdjoint<float> &, const TdPlan &, cudaStream_t);
template void td_adjoint_step(const Inputs<double> &, const TdAdjoint<double> &, const TdPlan &,
                              cudaStream_t);
template void td_adjoint_collect(const Inputs<float> &, const TdAdjoint<float> &, const TdPlan &, double *,
                                 int64_t, double *, int64_t, cudaStream_t);
template void td_adjoint_collect(const Inputs<double> &, const TdAdjoint<double> &, const TdPlan &, double *,
                                 int64_t, double *, int64_t, cudaStream_t);

}  // namespace segprior::softmax::cuda
