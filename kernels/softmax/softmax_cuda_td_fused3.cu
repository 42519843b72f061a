// The fused threshold dynamics iteration on 3-D grids: softmax_cuda_td_fused.h.
#include "kernels/softmax/softmax_cuda_td_tile.h"

namespace segprior::softmax::cuda {

namespace {

// FromLogits: step.from_logits, as a constant, because the normalisers cost registers.
template <class T, int R, bool FromLogits>
__global__ void __launch_bounds__(kTdThreads, sizeof(T) == sizeof(float) && R <= 3 ? 2 : 1)
    td_kernel_3d(Inputs<T> in, TdStep<T> step, Finish finish, TdPlan plan, bool advance, unsigned *tickets) {
  using Tile = DeepTile<T, R>;
  constexpr int P = Tile::kPerThread, kTaps = 2 * R + 1;
  const Geometry<T> &g = in.g;
  const unsigned tile = blockIdx.x % plan.tiles();
  const int64_t image = blockIdx.x / plan.tiles();
  if (!active(step.gate, image)) return;
  const int x0 = tile % plan.tiles_x * Tile::kColumns;
  const int y0 = tile / plan.tiles_x % plan.tiles_y * Tile::kRows;
  const int first = tile / (plan.tiles_x * plan.tiles_y) * kTdSegment;
  const int end = first + kTdSegment < plan.slices ? first + kTdSegment : plan.slices;
  const int tx = threadIdx.x % Tile::kColumns, first_row = threadIdx.x / Tile::kColumns * P;
  const int classes = g.classes;
  const unsigned voxels = static_cast<unsigned>(g.voxels), plane = plan.rows * plan.columns;

  // Each element of the first three is used by its own thread until the masses.
  T *logits = dynamic_shared<T>();             // [I][tile]
  T *sums = logits + classes * Tile::kVoxels;  // [I][tile] w summed over the slices
  T *recent = sums + classes * Tile::kVoxels;  // [I][kTaps][tile] slice s in entry s mod kTaps
  T *cells = recent + classes * kTaps * Tile::kVoxels, *convolved = cells + Tile::kCells;

  const Coefficients &c = *in.coefficients;
  const T scale = static_cast<T>(c.scale), scale_u = static_cast<T>(step.t == 0 ? c.init_scale : c.scale);
  const T weight = static_cast<T>(2 * c.params.td_lam);
  const double *f = step.f ? step.f + image * classes : nullptr;
  T tap_x[kTaps], tap_y[kTaps], tap_z[kTaps];
  load_taps<T, R>(step.taps + 2 * kMaxTaps, step.sizes[2], tap_x);
  load_taps<T, R>(step.taps + kMaxTaps, step.sizes[1], tap_y);
  load_taps<T, R>(step.taps, step.sizes[0], tap_z);

  const int64_t image_offset = image * classes * voxels;
  const T *features = in.features + image_offset, *from = step.from + image_offset;
  T *to = step.to + image_offset, *saved_u = step.u ? step.u + image_offset : nullptr;

  Cells<T, Tile> mine;
  mine.place(plan, y0, x0);
  unsigned at[P], own[P];  // in a plane; in the tile
  bool inside[P];
#pragma unroll
  for (int j = 0; j < P; ++j) {
    const int y = y0 + first_row + j, x = x0 + tx;
    inside[j] = y < plan.rows && x < plan.columns;
    at[j] = inside[j] ? y * plan.columns + x : 0;
    own[j] = (first_row + j) * Tile::kColumns + tx;
    for (int i = 0; f && i < classes; ++i) sums[i * Tile::kVoxels + own[j]] = 0;
  }

  for (int s = first - R; s < end + R; ++s) {
    const bool exists = s >= 0 && s < plan.slices;
    T *const entry = recent + (s + kTaps) % kTaps * Tile::kVoxels;
    const T *source = from + (exists ? s : 0) * plane;
    if (exists && FromLogits) mine.normalise(source, voxels, classes, f, scale_u);
    if (exists) mine.load(source);
    for (int i = 0; i < classes; ++i) {
      T blurred[P] = {};
      if (exists) {
        const bool saves = saved_u && s >= first && s < end;
        mine.template store<FromLogits>(cells, scale_u, f ? static_cast<T>(f[i]) : T(0),
                                        saves ? saved_u + i * voxels + s * plane : nullptr);
        __syncthreads();
        if (i + 1 < classes) mine.load(source + (i + 1) * voxels);
        convolve_rows<T, Tile>(cells, tap_x, convolved);
        __syncthreads();
        convolve_column<T, Tile>(convolved, tap_y, first_row, tx, blurred);
      }
#pragma unroll
      for (int j = 0; j < P; ++j) entry[i * kTaps * Tile::kVoxels + own[j]] = blurred[j];
    }

    const int slice = s - R;  // the one that is complete now
    if (slice < first) continue;
#pragma unroll
    for (int j = 0; j < P; ++j) {
      if (!inside[j]) continue;
      const unsigned x = slice * plane + at[j];
      T *const z = logits + own[j];
      for (int i = 0; i < classes; ++i) {
        T force = 0;
#pragma unroll
        for (int k = 0; k < kTaps; ++k)
          force += tap_z[k] * recent[(i * kTaps + (slice - R + k + kTaps) % kTaps) * Tile::kVoxels + own[j]];
        const T logit = features[i * voxels + x] + weight * force;
        if (f) to[i * voxels + x] = logit;
        z[i * Tile::kVoxels] = logit * scale + (f ? static_cast<T>(f[i]) * scale : T(0));
      }
      softmax_of_column(z, Tile::kVoxels, classes);
      for (int i = 0; i < classes; ++i) {
        const T u = z[i * Tile::kVoxels];
        if (f)
          sums[i * Tile::kVoxels + own[j]] += u;
        else
          to[i * voxels + x] = u;
      }
    }
  }
  finish_tile(in, step, finish, plan, advance, tickets, image, tile, sums, Tile::kVoxels);
}

template <class T, int R>
void launch_td_3d(const Inputs<T> &in, const TdStep<T> &step, const Finish &finish, const TdPlan &plan,
                  bool advance, unsigned *tickets, cudaStream_t stream) {
  const auto kernel = step.from_logits ? td_kernel_3d<T, R, true> : td_kernel_3d<T, R, false>;
  launch("td_fused_3d", kernel, dim3(static_cast<unsigned>(in.g.batch * plan.tiles())), dim3(kTdThreads),
         plan.shared_bytes, stream, in, step, finish, plan, advance, tickets);
}

}  // namespace

template <class T>
void td_fused_step_3d(const Inputs<T> &in, const TdStep<T> &step, const Finish &finish, const TdPlan &plan,
                      bool advance, unsigned *tickets, cudaStream_t stream) {
  if (plan.radius <= 3)
    launch_td_3d<T, 3>(in, step, finish, plan, advance, tickets, stream);
  else
    launch_td_3d<T, 7>(in, step, finish, plan, advance, tickets, stream);
}

template void td_fused_step_3d(const Inputs<float> &, const TdStep<float> &, const Finish &, const TdPlan &,
                               bool, unsigned *, cudaStream_t);
template void td_fused_step_3d(const Inputs<double> &, const TdStep<double> &, const Finish &, const TdPlan &,
                               bool, unsigned *, cudaStream_t);

}  // namespace segprior::softmax::cuda
