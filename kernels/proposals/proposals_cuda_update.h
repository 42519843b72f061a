// The new duals of an image from the sums of its chunks: what the block does that finished the image's last
// chunk.
#pragma once

#include "kernels/common/cuda.h"
#include "kernels/common/reduce.h"
#include "kernels/proposals/proposals_cuda.h"

namespace segprior::proposals::cuda {

// Thread 0's value to all threads of the block.
template <class V>
__device__ inline V broadcast(V value) {
  SEGPRIOR_SHARED(V, shared, 1);
  if (threadIdx.x == 0) shared[0] = value;
  __syncthreads();
  const V result = shared[0];
  __syncthreads();
  return result;
}

// sums[image] <- the chunks' parts, a warp per sum, in a fixed order.
__device__ inline void add_parts(const Args &a, int64_t image) {
  constexpr unsigned kWarp = 32;
  const int64_t count = sums_of(a.p.classes);
  const unsigned lane = threadIdx.x % kWarp;
  for (int64_t k = threadIdx.x / kWarp; k < count; k += kBlock / kWarp) {
    const double *parts = a.parts + (image * count + k) * a.chunks;
    double sum = 0;
    for (int64_t c = lane; c < a.chunks; c += kWarp) sum += parts[c];
    for (unsigned step = kWarp / 2; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (lane == 0) a.sums[image * count + k] = sum;
  }
  __syncthreads();
}

// Whole block, a thread per class. Chooses and does one EXACT step.
template <class T>
__device__ inline void exact_step(const Args &a, int64_t image, bool mine, const Bounds &b, double volume,
                                  double spread, bool feasible) {
  double *at = a.dual + image * a.p.classes + threadIdx.x;
  const double dual = mine ? *at : -INFINITY;
  const bool allowed = dual > -INFINITY;
  const int movers = broadcast(static_cast<int>(block_sum(allowed && moves(b, dual, volume) ? 1.0 : 0.0)));
  Choice choice;
  Candidate c{};
  if (allowed) {
    c = candidate<T>(b, dual, volume, spread, movers);
    choice.add(c, dual);
  }
  double added[3] = {choice.plain_gain, choice.slope, choice.bend}, ends[2] = {choice.up, -choice.down};
  block_reduce(added, Sum());
  block_reduce(ends, Max());
  choice = Choice{};
  choice.plain_gain = added[0];
  choice.slope = added[1];
  choice.bend = added[2];
  choice.up = ends[0];
  choice.down = -ends[1];
  const double damping = broadcast(feasible ? choice.damping() : 0.0);
  const double next = allowed ? next_dual(c, dual, damping) : dual;
  double common = 0;
  if (!feasible) {
    double extremes[2] = {allowed ? -next : -INFINITY, allowed ? next : -INFINITY};
    block_reduce(extremes, Max());
    common = broadcast(common_part(-extremes[0], extremes[1]));
  }
  if (allowed) *at = next - common;
}

// Whole block. `running` as in Args, or null.
template <class T>
__device__ inline void update(const Args &a, int64_t image, unsigned *running) {
  const Problem &p = a.p;
  add_parts(a, image);
  const int64_t i = threadIdx.x;
  const bool mine = i < p.classes;
  const double *sums = a.sums + image * sums_of(p.classes), *rest = sums + kPerClass * p.classes;
  const Bounds b = mine ? bounds_of<T>(p, image, i) : Bounds{0, 0};
  const double volume = mine ? sums[kVolume * p.classes + i] : 0;
  const double spread = mine ? sums[kSpread * p.classes + i] : 0;

  State state = a.state[image];
  if (state.iterations == 0) {
    double bounds[3] = {b.valid() ? 0.0 : 1.0, b.lower, b.upper};
    block_reduce(bounds, Sum());
    state.status = first_status(bounds[0] == 0, bounds[1], bounds[2], rest[kValid], rest[kFinite]);
  }
  double worst[2] = {0, 0};
  if (mine) {
    worst[0] = unsettled(p.method, b, a.dual[image * p.classes + i], volume);
    worst[1] = b.outside(volume);
  }
  block_reduce(worst, Max());
  if (threadIdx.x == 0) {
    if (failed(state.status))
      state.running = 0;
    else
      advance(state, p, worst[0], worst[1]);
    a.state[image] = state;
    if (running && state.running) atomicAdd(running, 1u);
  }
  state = broadcast(state);
  if (!state.running) return;
  if (p.method == Method::exact) {
    exact_step<T>(a, image, mine, b, volume, spread, state.status != SEGPRIOR_INFEASIBLE_VOLUME);
  } else if (mine) {
    Multipliers &m = a.multipliers[image * p.classes + i];
    m.ascend<T>(b, volume, p.step);
    a.dual[image * p.classes + i] = m.dual();
  }
}

}  // namespace segprior::proposals::cuda
