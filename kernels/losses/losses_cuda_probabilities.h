// S from the scores of one thread, and what the groups of a block tell one another for it.
#pragma once

#include "kernels/losses/losses_cuda_voxels.h"

namespace segprior::losses::cuda {

// ---- Between the groups of a tile -------------------------------------------------------------------------

// Two exchanges need no barrier between them: who writes `mine` has passed the barrier behind its last
// reader, and `result` is written behind a barrier that its readers have reached.
template <class T, int V>
class Exchange {
 public:
  SEGPRIOR_HD static size_t bytes(const Grid &grid) {
    return grid.groups > 1 ? 2 * sizeof(T) * (grid.groups + 1) * grid.tile : 0;
  }

  __device__ Exchange(const Grid &grid, T *shared)
      : groups_(grid.groups),
        columns_(grid.teams * kWarp),
        size_(static_cast<int>(grid.tile)),
        result_(shared),
        mine_(shared + 2 * size_) {}

  __device__ bool needed() const { return groups_ > 1; }

  // In: the greatest score of this group's classes and the sum of the exponentials relative to it, less the 1
  // of the greatest; out: the same of all classes.
  __device__ void softmax(T (&max)[V], T (&rest)[V]) const {
    if (!needed()) return;
    write(0, max);
    write(1, rest);
    __syncthreads();
    for (int c = thread_rank(); c < size_; c += block_threads()) {
      T top = at(0, 0, c);
      int first = 0;
      for (int g = 1; g < groups_; ++g)
        if (at(g, 0, c) > top) {
          top = at(g, 0, c);
          first = g;
        }
      T sum = at(first, 1, c);
      for (int g = 0; g < groups_; ++g)
        if (g != first) sum += (1 + at(g, 1, c)) * exp_of(at(g, 0, c) - top);
      result_[c] = top;
      result_[size_ + c] = sum;
    }
    __syncthreads();
    read(0, max);
    read(1, rest);
  }

  // Over the groups.
  __device__ void sum(T (&values)[V]) const {
    if (!needed()) return;
    write(0, values);
    __syncthreads();
    for (int c = thread_rank(); c < size_; c += block_threads()) {
      T sum = at(0, 0, c);
      for (int g = 1; g < groups_; ++g) sum += at(g, 0, c);
      result_[c] = sum;
    }
    __syncthreads();
    read(0, values);
  }

 private:
  // Voxel v of a thread is column v * columns_ + its place: no bank conflicts.
  __device__ int column() const { return static_cast<int>(threadIdx.y * kWarp + threadIdx.x); }
  __device__ T &at(int group, int which, int c) const { return mine_[(2 * group + which) * size_ + c]; }
  __device__ void write(int which, const T (&values)[V]) const {
#pragma unroll
    for (int v = 0; v < V; ++v) at(threadIdx.z, which, v * columns_ + column()) = values[v];
  }
  __device__ void read(int which, T (&values)[V]) const {
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = result_[which * size_ + v * columns_ + column()];
  }

  int groups_, columns_, size_;
  T *result_, *mine_;  // [2][tile], [groups][2][tile]
};

// ---- S ----------------------------------------------------------------------------------------------------

// ln S and 1 - S as the losses need them; log_rest = ln(1 - S) of independent classes.
template <class T>
struct Element {
  T s, rest, log_s, log_rest;
};

// The probabilities of the classes and voxels of one thread. `sharp`: 1 - S is needed with full relative
// precision.
template <class T, Scores scores, bool sharp, int K, int V>
class Probabilities {
 public:
  // z: scores, finite but in images that fail, 0 where masked, -Inf for classes that do not exist.
  __device__ Probabilities(const T (&z)[K][V], const Sites<V> &sites, bool needs_log,
                           const Exchange<T, V> &exchange) {
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int v = 0; v < V; ++v) score_[k][v] = z[k][v];
    if constexpr (scores == Scores::logits) {
      T max[V], top[V];
      exponentials(top);
#pragma unroll
      for (int v = 0; v < V; ++v) max[v] = top[v];
      exchange.softmax(max, rest_);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const T inverse = inverse_of(1 + rest_[v]);
        below_[v] = max[v] - top[v];
        scale_[v] = sites.valid[v] ? inverse : T(0);
        if (exchange.needed()) scale_[v] *= exp_of(-below_[v]);
        // FOCAL's (1 - S)^(g - 1) ln S needs a small ln S with its relative precision.
        log_[v] = needs_log ? (sharp ? log1p(rest_[v]) : log_of(1 + rest_[v])) + below_[v] : T(0);
        rest_[v] *= inverse;
      }
    }
  }

  // S; logits: 0 where masked.
  __device__ T s(int k, int v) const {
    if constexpr (scores == Scores::logits) return exp_[k][v] * scale_[v];
    if constexpr (scores == Scores::probabilities) return score_[k][v];
    const T q = exp_of(-fabs(score_[k][v])), inverse = inverse_of(1 + q);
    return score_[k][v] >= 0 ? inverse : q * inverse;
  }
  // 1 - S of independent classes.
  __device__ T rest(int k, int v) const {
    const T q = exp_of(-fabs(score_[k][v])), inverse = inverse_of(1 + q);
    return score_[k][v] >= 0 ? q * inverse : inverse;
  }
  // CROSS_ENTROPY. What t excludes takes no part, though its logarithm may be infinite.
  __device__ T entropy(int k, int v, T t, T log_offset) const {
    const T z = score_[k][v];
    if constexpr (scores == Scores::logits) return t != 0 ? t * (log_[v] - z) : T(0);
    if constexpr (scores == Scores::probabilities) return t != 0 ? -t * log(z + log_offset) : T(0);
    return (fmax(z, T(0)) - t * z) + log1p(exp_of(-fabs(z)));  // ln(1 + exp(z)) - t z
  }
  // S with what belongs to it.
  __device__ Element<T> element(int k, int v, T log_offset) const {
    const T z = score_[k][v];
    if constexpr (scores == Scores::logits) {
      const T s = exp_[k][v] * scale_[v];
      const bool top = z == 0 && below_[v] == 0;
      return {s, top ? rest_[v] : 1 - s, z - log_[v], 0};
    } else if constexpr (scores == Scores::probabilities) {
      return {z, fmax(1 - z, T(0)), log(z + log_offset), 0};  // rounding leaves a little more than 1
    } else {
      const T q = exp_of(-fabs(z)), inverse = inverse_of(1 + q), small = q * inverse, log_sum = log1p(q);
      const bool up = z >= 0;
      return {up ? inverse : small, up ? small : inverse, fmin(z, T(0)) - log_sum, -fmax(z, T(0)) - log_sum};
    }
  }

 private:
  // Of this thread's classes, relative to the greatest score, `top`; rest_: their sum without that one's 1.
  __device__ void exponentials(T (&top)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      top[v] = score_[0][v];
#pragma unroll
      for (int k = 1; k < K; ++k) top[v] = fmax(top[v], score_[k][v]);
      rest_[v] = sharp ? 0 : -1;
      bool seen = !sharp;
#pragma unroll
      for (int k = 0; k < K; ++k) {
        score_[k][v] -= top[v];
        exp_[k][v] = exp_of(score_[k][v]);
        const bool first = !seen && score_[k][v] == 0;
        seen = seen || first;
        if (!first) rest_[v] += exp_[k][v];
      }
    }
  }

  T score_[K][V];  // logits: less the greatest of this thread's classes
  // Logits. below_: what that is below the greatest of all classes; log_: of the sum of exponentials relative
  // to it.
  T exp_[K][V], scale_[V], below_[V], log_[V], rest_[V];
};

}  // namespace segprior::losses::cuda
