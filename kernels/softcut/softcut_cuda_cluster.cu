// A system in a thread-block cluster (sm_90), whose blocks each have a band of it: softcut_cuda_chip.h. Per
// iteration, the cluster meets twice, each block once more, and what crosses from block to block is two slabs
// of the search direction and five sums.
#include <climits>

#include "kernels/softcut/softcut_cuda_chip_solver.h"

namespace segprior::softcut::cuda {

namespace {

template <class T, Shape shape, int P>
__global__ void __launch_bounds__(kChipThreads, 1) cluster_kernel(const __grid_constant__ Chip<T> chip) {
  solve_in_team<T, shape, P, true>(chip, Cluster());
}

// f(kernel) for the kernel that a plan means.
template <class T, class F>
void with_kernel(const Problem &p, const ChipPlan &plan, const F &f) {
  with_shape(p.grid, [&](auto shape) {
    with_per_thread<T>(plan.per_thread,
                       [&](auto per_thread) { f(cluster_kernel<T, shape.value, per_thread.value>); });
  });
}

// The fewest blocks that need few voxels a thread, or else few enough: an iteration is mostly waiting. Never
// by the number of systems, on which no system's bits may depend.
template <class T>
ChipPlan plan_with(const Problem &p) {
  for (int most : {8, 16, 32})
    for (int blocks : {2, 4, 8, 16}) {
      ChipPlan plan = plan_chip(p, blocks, std::min(most, kMostInside<T>), true);
      if (plan.serves)
        with_kernel<T>(p, plan, [&](auto kernel) {
          plan.serves = clusters_fit(kernel, dim3(plan.threads), blocks, plan.bytes);
        });
      if (plan.serves) return plan;
    }
  return ChipPlan{};
}
ChipPlan cluster_plan(const Problem &p) {
  constexpr int kMostBlocks = 16;
  if (!chip_knows(p) || p.grid.systems() > INT_MAX / kMostBlocks) return ChipPlan{};
  return p.dtype == DType::f32 ? plan_with<float>(p) : plan_with<double>(p);
}

}  // namespace

bool cluster_serves(const Problem &p) { return cluster_plan(p).serves; }

size_t cluster_workspace(const Problem &) { return 0; }

template <class T>
void cluster_solve(const Problem &p, const Solve<T> &solve, void *, cudaStream_t stream) {
  const ChipPlan plan = cluster_plan(p);
  const unsigned blocks = static_cast<unsigned>(plan.bands.blocks);
  with_kernel<T>(p, plan, [&](auto kernel) {
    launch_cluster("softcut_cluster", kernel, dim3(static_cast<unsigned>(p.grid.systems()) * blocks),
                   dim3(plan.threads), blocks, plan.bytes, stream, chip_of<T>(p, plan, solve, nullptr));
  });
}

template void cluster_solve(const Problem &, const Solve<float> &, void *, cudaStream_t);
template void cluster_solve(const Problem &, const Solve<double> &, void *, cudaStream_t);

}  // namespace segprior::softcut::cuda
