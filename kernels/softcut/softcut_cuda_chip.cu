// A system in one block: softcut_cuda_chip.h.
#include "kernels/softcut/softcut_cuda_chip.h"

#include <climits>

#include "kernels/softcut/softcut_cuda_chip_solver.h"

namespace segprior::softcut::cuda {

namespace {

constexpr size_t kStaticBytes = 4 * 1024;  // of the sums, at most

template <class T, Shape shape, int P, bool inside>
__global__ void __launch_bounds__(kChipThreads, 1) chip_kernel(const __grid_constant__ Chip<T> chip) {
  solve_in_team<T, shape, P, inside>(chip, OneBlock());
}

template <class T, Shape shape>
__global__ void pad_kernel(const __grid_constant__ Chip<T> chip, T *padded) {
  const int64_t first = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  for (int64_t m = blockIdx.y; m < chip.a.matrices; m += gridDim.y)
    pad_matrix<shape>(chip.a, m, chip.layout, 0, chip.a.voxels, first,
                      static_cast<int64_t>(gridDim.x) * blockDim.x, padded + m * chip.layout.numbers);
}

Bands bands_of(const Grid &g, int blocks) {
  Bands bands{blocks, 1, 1, 1, 0};
  for (int axis = 2; axis >= 0; --axis)
    if (g.extent[axis] > 1) bands.slabs = static_cast<int>(g.extent[axis]);
  bands.slab = static_cast<int>(g.voxels() / bands.slabs);
  for (int block = 0; block < blocks; ++block) bands.most = std::max(bands.most, bands.count(block));
  return bands;
}

PaddedMatrix layout_of(const Problem &p, int64_t most) {
  PaddedMatrix layout{};
  const Operator<float> a = operator_of<float>(p);  // extents alone
  with_shape(p.grid, [&](auto shape) {
    using Families = Neighbourhood<shape.value>;
    for (int i = 0; i < Families::kCount; ++i) {
      const int f = Families::family(i);
      // A family without edges is padded with zeros; any step will do.
      layout.stride[i] = p.grid.edge_count(f) > 0 ? static_cast<int>(stride_of(a, f)) : 1;
      layout.weights[i] = layout.numbers + layout.stride[i];
      layout.numbers += layout.stride[i] + most;
    }
  });
  layout.conductance = layout.numbers;
  if (p.has_conductance) layout.numbers += most;
  return layout;
}

size_t element_of(const Problem &p) { return p.dtype == DType::f32 ? sizeof(float) : sizeof(double); }

template <class T>
ChipPlan plan_with(const Problem &p) {
  ChipPlan plan{};
  for (int most : {4, 8, 16, 32}) {
    plan = plan_chip(p, 1, std::min(most, kMostInside<T>), true);
    if (plan.serves) return plan;
  }
  return plan_chip(p, 1, kMostOutside<T>, false);
}
ChipPlan chip_plan(const Problem &p) {
  if (!chip_knows(p) || p.grid.systems() > INT_MAX) return ChipPlan{};
  return p.dtype == DType::f32 ? plan_with<float>(p) : plan_with<double>(p);
}

}  // namespace

ChipPlan plan_chip(const Problem &p, int blocks, int per_thread, bool inside) {
  ChipPlan plan{};
  const Grid &g = p.grid;
  if (ceil_div(g.voxels(), blocks) > static_cast<int64_t>(per_thread) * kChipThreads) return plan;
  plan.bands = bands_of(g, blocks);
  plan.layout = layout_of(p, inside ? plan.bands.most : g.voxels());
  for (const int stride : plan.layout.stride) plan.bands.pad = std::max(plan.bands.pad, stride);
  plan.inside = inside;
  plan.per_thread = per_thread;
  const int64_t warps = ceil_div(plan.bands.most, static_cast<int64_t>(per_thread) * kWarp);
  plan.threads = static_cast<int>(warps * kWarp);
  const int64_t numbers = plan.bands.most + 2 * plan.bands.pad + (inside ? plan.layout.numbers : 0);
  plan.bytes = static_cast<size_t>(numbers) * element_of(p);
  const int available = detail::device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  plan.serves = blocks <= plan.bands.slabs && plan.threads <= kChipThreads &&
                plan.bytes + kStaticBytes <= static_cast<size_t>(available);
  return plan;
}

bool chip_serves(const Problem &p) { return chip_plan(p).serves; }

// The padded matrices, if they are not in shared memory.
size_t chip_workspace(const Problem &p) {
  const ChipPlan plan = chip_plan(p);
  if (plan.inside) return 0;
  Arena arena;
  arena.take<char>(plan.layout.numbers * static_cast<int64_t>(element_of(p)), p.grid.matrices());
  return arena.used();
}

template <class T>
void chip_solve(const Problem &p, const Solve<T> &solve, void *workspace, cudaStream_t stream) {
  const ChipPlan plan = chip_plan(p);
  T *const padded = plan.inside ? nullptr : static_cast<T *>(workspace);
  const Chip<T> chip = chip_of(p, plan, solve, padded);
  const dim3 grid(static_cast<unsigned>(p.grid.systems())), block(plan.threads);
  with_shape(p.grid, [&](auto shape) {
    if (plan.inside)
      return with_per_thread<T>(plan.per_thread, [&](auto per_thread) {
        launch("softcut_chip", chip_kernel<T, shape.value, per_thread.value, true>, grid, block, plan.bytes,
               stream, chip);
      });
    const int64_t rows = std::min<int64_t>(p.grid.matrices(), USHRT_MAX);
    launch("softcut_chip_pad", pad_kernel<T, shape.value>,
           dim3(static_cast<unsigned>(ceil_div(p.grid.voxels(), kBlock)), static_cast<unsigned>(rows)),
           dim3(kBlock), 0, stream, chip, padded);
    launch("softcut_chip", chip_kernel<T, shape.value, kMostOutside<T>, false>, grid, block, plan.bytes,
           stream, chip);
  });
}

template void chip_solve(const Problem &, const Solve<float> &, void *, cudaStream_t);
template void chip_solve(const Problem &, const Solve<double> &, void *, cudaStream_t);

}  // namespace segprior::softcut::cuda
