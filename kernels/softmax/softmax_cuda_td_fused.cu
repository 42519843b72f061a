// The fused threshold dynamics iteration on 1-D and 2-D grids, and the choice of tiles:
// softmax_cuda_td_fused.h.
#include "kernels/softmax/softmax_cuda_td_fused.h"

#include "kernels/softmax/softmax_cuda_td_tile.h"

namespace segprior::softmax::cuda {

namespace {

// Blocks per SM that the compiler has to make room for.
template <class T, int R, int P, bool FromLogits>
constexpr int td_blocks_per_sm() {
  constexpr bool kFloat = sizeof(T) == sizeof(float);
  constexpr int kBlocks = kFloat && R <= 3 ? 3 : (kFloat || R <= 3 ? 2 : 1);
  return FromLogits && P == 4 && kBlocks > 1 ? kBlocks - 1 : kBlocks;
}

// FromLogits: step.from_logits, as a constant, because the normalisers cost registers.
template <class T, int R, int P, bool FromLogits>
__global__ void __launch_bounds__(kTdThreads, td_blocks_per_sm<T, R, P, FromLogits>())
    td_kernel(Inputs<T> in, TdStep<T> step, Finish finish, TdPlan plan, bool advance, unsigned *tickets) {
  using Tile = FlatTile<T, R, P>;
  const Geometry<T> &g = in.g;
  const unsigned tile = blockIdx.x % plan.tiles();
  const int64_t image = blockIdx.x / plan.tiles();
  if (!active(step.gate, image)) return;
  const int y0 = tile / plan.tiles_x * Tile::kRows, x0 = tile % plan.tiles_x * Tile::kColumns;
  const int tx = threadIdx.x % Tile::kColumns, first_row = threadIdx.x / Tile::kColumns * P;
  const int classes = g.classes;
  const unsigned voxels = static_cast<unsigned>(g.voxels);

  T *logits = dynamic_shared<T>();  // [I][tile], each element used by its own thread until the masses
  T *cells = logits + Tile::fields(classes, false) * Tile::kVoxels, *convolved = cells + Tile::kCells;

  const Coefficients &c = *in.coefficients;
  const T scale = static_cast<T>(c.scale), scale_u = static_cast<T>(step.t == 0 ? c.init_scale : c.scale);
  const T weight = static_cast<T>(2 * c.params.td_lam);
  const double *f = step.f ? step.f + image * classes : nullptr;
  T tap_x[2 * R + 1], tap_y[2 * R + 1];
  load_taps<T, R>(step.taps + 2 * kMaxTaps, step.sizes[2], tap_x);
  load_taps<T, R>(step.taps, step.sizes[0], tap_y);

  const int64_t image_offset = image * classes * voxels;
  const T *features = in.features + image_offset, *from = step.from + image_offset;
  T *to = step.to + image_offset, *saved_u = step.u ? step.u + image_offset : nullptr;

  Cells<T, Tile> mine;
  mine.place(plan, y0, x0);
  if (FromLogits) mine.normalise(from, voxels, classes, f, scale_u);

  unsigned at[P];
  bool inside[P];
#pragma unroll
  for (int j = 0; j < P; ++j) {
    const int y = y0 + first_row + j, x = x0 + tx;
    inside[j] = y < plan.rows && x < plan.columns;
    at[j] = inside[j] ? y * plan.columns + x : 0;
  }

  mine.load(from);
  for (int i = 0; i < classes; ++i) {
    const T shift = f ? static_cast<T>(f[i]) : T(0);
    T o[P], force[P];
#pragma unroll
    for (int j = 0; j < P; ++j) o[j] = features[i * voxels + at[j]];
    mine.template store<FromLogits>(cells, scale_u, shift, saved_u ? saved_u + i * voxels : nullptr);
    __syncthreads();
    if (i + 1 < classes) mine.load(from + (i + 1) * voxels);
    convolve_rows<T, Tile>(cells, tap_x, convolved);
    __syncthreads();
    convolve_column<T, Tile>(convolved, tap_y, first_row, tx, force);
#pragma unroll
    for (int j = 0; j < P; ++j) {
      const T logit = o[j] + weight * force[j];
      if (f && inside[j]) to[i * voxels + at[j]] = logit;
      logits[i * Tile::kVoxels + (first_row + j) * Tile::kColumns + tx] = logit * scale + shift * scale;
    }
  }

#pragma unroll
  for (int j = 0; j < P; ++j) {
    T *z = logits + (first_row + j) * Tile::kColumns + tx;
    softmax_of_column(z, Tile::kVoxels, classes);
    for (int i = 0; i < classes; ++i) {
      if (!f && inside[j]) to[i * voxels + at[j]] = z[i * Tile::kVoxels];
      if (f && !inside[j]) z[i * Tile::kVoxels] = 0;
    }
  }
  finish_tile(in, step, finish, plan, advance, tickets, image, tile, logits, Tile::kVoxels);
}

template <class T, int R, int P>
void launch_td(const Inputs<T> &in, const TdStep<T> &step, const Finish &finish, const TdPlan &plan,
               bool advance, unsigned *tickets, cudaStream_t stream) {
  const auto kernel = step.from_logits ? td_kernel<T, R, P, true> : td_kernel<T, R, P, false>;
  launch("td_fused", kernel, dim3(static_cast<unsigned>(in.g.batch * plan.tiles())), dim3(kTdThreads),
         plan.shared_bytes, stream, in, step, finish, plan, advance, tickets);
}

// Calls f with the tile type of (R, P).
template <class T, class F>
auto with_tile(int radius, int per_thread, F f) {
  if (radius <= 3) return per_thread == 4 ? f(FlatTile<T, 3, 4>()) : f(FlatTile<T, 3, 2>());
  return per_thread == 4 ? f(FlatTile<T, 7, 4>()) : f(FlatTile<T, 7, 2>());
}

template <class T, class F>
auto with_deep_tile(int radius, F f) {
  return radius <= 3 ? f(DeepTile<T, 3>()) : f(DeepTile<T, 7>());
}

template <class T>
void place_tiles(const Grid &g, TdPlan &plan) {
  const auto shape = [&](auto tile) {
    using Tile = decltype(tile);
    plan.shared_bytes = Tile::shared_bytes(g.classes, plan.deep);
    plan.tiles_y = static_cast<int>(ceil_div(plan.rows, Tile::kRows));
    plan.tiles_x = static_cast<int>(ceil_div(plan.columns, Tile::kColumns));
    plan.segments = static_cast<int>(ceil_div(plan.slices, kTdSegment));
  };
  if (plan.deep) return with_deep_tile<T>(plan.radius, shape);
  constexpr size_t kPlenty = 64 * 1024;  // with more, few blocks share an SM: rather tiles of half the height
  for (int per_thread : {4, 2}) {
    plan.per_thread = per_thread;
    with_tile<T>(plan.radius, per_thread, shape);
    if (plan.shared_bytes <= kPlenty) break;
  }
}

}  // namespace

TdPlan td_plan(const Problem &p, size_t shared_memory) {
  const Grid &g = p.grid;
  const ThresholdDynamics &td = p.td;
  if (!td.on || !td.gaussian || td.has_edge || p.has_mask || p.star.count > 0 || p.tv) return {};
  if (g.classes < 2 || g.classes * g.voxels() > UINT32_MAX) return {};
  constexpr size_t kStatic = 1024;  // at most, of static shared memory: that of the reductions
  TdPlan plan{};
  plan.deep = g.nd == 3;
  for (int size : td.size) plan.radius = size / 2 > plan.radius ? size / 2 : plan.radius;
  plan.slices = plan.deep ? static_cast<int>(g.extent[0]) : 1;
  plan.rows = static_cast<int>(g.extent[plan.deep ? 1 : 0]);
  plan.columns = static_cast<int>(g.extent[2]);
  if (p.dtype == DType::f32)
    place_tiles<float>(g, plan);
  else
    place_tiles<double>(g, plan);
  return plan.shared_bytes + kStatic <= shared_memory ? plan : TdPlan{};
}

template <class T>
void td_fused_step(const Inputs<T> &in, const TdStep<T> &step, const Finish &finish, const TdPlan &plan,
                   bool advance, unsigned *tickets, cudaStream_t stream) {
  if (plan.deep) return td_fused_step_3d<T>(in, step, finish, plan, advance, tickets, stream);
  with_tile<T>(plan.radius, plan.per_thread, [&](auto tile) {
    using Tile = decltype(tile);
    launch_td<T, Tile::kRadius, Tile::kPerThread>(in, step, finish, plan, advance, tickets, stream);
  });
}

template void td_fused_step(const Inputs<float> &, const TdStep<float> &, const Finish &, const TdPlan &,
                            bool, unsigned *, cudaStream_t);
template void td_fused_step(const Inputs<double> &, const TdStep<double> &, const Finish &, const TdPlan &,
                            bool, unsigned *, cudaStream_t);

}  // namespace segprior::softmax::cuda
