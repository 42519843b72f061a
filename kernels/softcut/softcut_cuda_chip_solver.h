// Conjugate gradients of one system in the blocks of a team: softcut_cuda_chip.h.
//
// One reduction an iteration, and two meetings of the team: after the sums, and after the new search
// direction is in place. That takes the square of the next residual before there is one: with g = M^-1 A p,
//   (r - alpha A p)' M^-1 (r - alpha A p) = (r, z) - 2 alpha (z, A p) + alpha^2 (A p, g),
// which only beta needs; (r, z) itself is summed anew in every iteration, so that no error is carried on
// (Meurant, Multitasking the conjugate gradient method on the Cray X-MP/48, 1987; D'Azevedo, Eijkhout,
// Romine, LAPACK Working Note 56). A p is a product, not a recurrence as in the variant of Chronopoulos and
// Gear: that saves two vectors, and x gets as accurate as with the plain method, where theirs loses digits
// that restarts have to win back.
//
// In place of r the registers hold z = M^-1 r: the diagonal of M is known where the weights are loaded for A
// p, and not needed where z and p are updated. All of it is scaled by a power of two, so that squares of tiny
// residuals, such as those of gradients, do not vanish.
#pragma once

#include "kernels/softcut/softcut_cuda_chip_team.h"

namespace segprior::softcut::cuda {

#if defined(__CUDACC__) || defined(FAKECUDA)

// The padded entry of the i-th family at a voxel.
template <Shape shape, class T>
__device__ inline T padded_weight(const Operator<T> &a, int64_t matrix, int i, const Site &s) {
  const int f = Neighbourhood<shape>::family(i);
  if (!a.edges[f] || !has_ahead(a, f, s)) return 0;
  return a.edges[f][matrix * a.edge_count[f] + edge_ahead(a, f, s)];
}

// Weights and conductance of the voxels begin, ..., begin + count - 1 of a matrix, and the weights of their
// edges behind, to `to`; by the threads first, first + step, ...
template <Shape shape, class T>
__device__ inline void pad_matrix(const Operator<T> &a, int64_t matrix, const PaddedMatrix &layout,
                                  int64_t begin, int64_t count, int64_t first, int64_t step, T *to) {
  const auto site_of = [&](int64_t v) {
    const int64_t line = quotient(v, a.extent[2]), slice = quotient(line, a.extent[1]);
    return Site{v, slice, line - slice * a.extent[1], v - line * a.extent[2]};
  };
#pragma unroll
  for (int i = 0; i < Neighbourhood<shape>::kCount; ++i)
    for (int64_t k = first - layout.stride[i]; k < count; k += step)
      to[layout.weights[i] + k] =
          begin + k < 0 ? T(0) : padded_weight<shape>(a, matrix, i, site_of(begin + k));
  if (!a.conductance) return;
  for (int64_t k = first; k < count; k += step)
    to[layout.conductance + k] = a.conductance[matrix * a.voxels + begin + k];
}

// A number close to 1 / x, for positive x of any size. The inverse of a preconditioner need not be exact,
// only the same whenever it is asked for; a division has a branch, which keeps the loads of voxels from
// overlapping.
__device__ inline float near_reciprocal(float x) {
#if defined(FAKECUDA)
  return 1 / x;
#else
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
__device__ inline double near_reciprocal(double x) {
#if defined(FAKECUDA)
  return 1 / x;
#else
  double y;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(y) : "d"(x));
  return y * (2 - x * y);
#endif
}

// The part of a system that one block has. For the iterations, a warp has P kWarp voxels in a row, a lane
// every kWarp-th of them: a distance that is known when the kernel is compiled, so that one register holds
// the addresses of all. Their state is in arrays over k < P.
template <class T, Shape shape, int P, class Team>
class ChipBand {
 public:
  __device__ ChipBand(const Chip<T> &chip, const Team &team, const T *matrix, T *direction)
      : chip_(chip),
        team_(team),
        matrix_(matrix),
        direction_(direction + chip.bands.pad),
        begin_(team.system() * chip.a.voxels + chip.bands.begin(team.rank())),
        count_(chip.bands.count(team.rank())),
        first_(static_cast<int>(threadIdx.x) / kWarp * kWarp * P + static_cast<int>(threadIdx.x) % kWarp),
        left_(count_ - first_),
        own_direction_(direction_ + first_),
        own_x_(chip.solve.x + begin_ + first_),
        own_matrix_(matrix + first_),
        own_rhs_(chip.solve.rhs + begin_ + first_) {
    for (int i = threadIdx.x; i < chip.bands.pad; i += blockDim.x)
      direction_[i - chip.bands.pad] = direction_[count_ + i] = 0;
    if constexpr (Team::kMany) {
      const Bands &bands = chip.bands;
      const int rank = team.rank();
      before_ = rank > 0 ? cluster_shared(direction_, rank - 1) + bands.count(rank - 1) : nullptr;
      after_ = rank + 1 < bands.blocks ? cluster_shared(direction_, rank + 1) : nullptr;
    }
  }

  __device__ bool leads() const { return team_.rank() == 0 && threadIdx.x == 0; }

  __device__ void solve();

  // x, of the band.
  template <class F>
  __device__ void fill(const F &value) {
    for (int v = threadIdx.x; v < count_; v += blockDim.x) chip_.solve.x[begin_ + v] = value(v);
  }

 private:
  static constexpr bool kKeepsX = P * sizeof(T) <= 64;
  static constexpr int kOverlap = 16 / sizeof(T);

  // f(k, o) for the voxels whose state this thread has: o numbers after first_. In groups without conditions,
  // whose loads overlap: as large as registers allow.
  template <class F>
  __device__ void for_own(const F &f) {
#pragma unroll
    for (int first = 0; first < P; first += kOverlap) {
      if (left_ > (first + kOverlap - 1) * kWarp) {
#pragma unroll
        for (int k = first; k < first + kOverlap; ++k) f(k, k * kWarp);
      } else {
#pragma unroll
        for (int k = first; k < first + kOverlap; ++k)
          if (k * kWarp < left_) f(k, k * kWarp);
      }
    }
  }

  __device__ T &x(int k, int o) {
    if constexpr (kKeepsX) return x_[k];
    return own_x_[o];
  }
  __device__ T rhs(int v) const { return chip_.solve.rhs[begin_ + v]; }
  // `entry`: of matrix_, as below.
  __device__ T conductance(const T *entry) const {
    return chip_.a.conductance ? entry[chip_.layout.conductance] : T(1);
  }

  // The team meets, and sees the direction that its blocks have set in their bands: the slabs at the borders
  // go to the neighbours' halos.
  __device__ void publish_direction() const {
    if constexpr (Team::kMany) {
      __syncthreads();
      const int slab = chip_.bands.slab, last = count_ - slab;
      for (int i = threadIdx.x; i < slab; i += blockDim.x) {
        if (before_) before_[i] = direction_[i];
        if (after_) after_[i - slab] = direction_[last + i];
      }
    }
    team_.barrier();
  }

  // A times the direction, and the diagonal of M, at the voxel whose places in direction_ and matrix_ these
  // are.
  __device__ T product(const T *p, const T *entry, T &diagonal) const {
    const T own = *p, d = conductance(entry);
    T sum = d * own;
    diagonal = d;
#pragma unroll
    for (int i = 0; i < Neighbourhood<shape>::kCount; ++i) {
      const int stride = Neighbourhood<shape>::family(i) == kColumn ? 1 : chip_.layout.stride[i];
      const T *weights = entry + chip_.layout.weights[i];
      const T ahead = weights[0], behind = weights[-stride];
      sum += ahead * (own - p[stride]) + behind * (own - p[-stride]);
      diagonal += ahead + behind;
    }
    if (!chip_.jacobi) diagonal = 1;
    return sum;
  }

  // The sum of norm_term over the residual of a new direction.
  __device__ double residual_norm() const {
    publish_direction();
    double norm[1] = {0};
    for (int v = threadIdx.x; v < count_; v += blockDim.x) {
      T diagonal;
      const T residual = rhs(v) - product(direction_ + v, matrix_ + v, diagonal);
      norm[0] += norm_term(chip_.solve.stop.norm, static_cast<double>(residual));
    }
    team_.sum(norm);
    return norm[0];
  }

  __device__ int32_t iterate(double rhs_norm, double norm, int &iterations);

  const Chip<T> &chip_;
  const Team &team_;
  const T *matrix_;
  T *direction_;
  T *before_ = nullptr, *after_ = nullptr;  // where the neighbours' halos begin, and end
  int64_t begin_;                           // in the arrays of all systems
  int count_;
  int first_;  // of this thread's voxels; those from first_ + left_ on do not exist
  int left_;
  // At first_.
  T *own_direction_, *own_x_;
  const T *own_matrix_, *own_rhs_;
  T x_[kKeepsX ? P : 1];
};

// From x, the direction, whose residual has this norm; so it is afterwards. How it ended by its own account.
template <class T, Shape shape, int P, class Team>
__device__ int32_t ChipBand<T, shape, P, Team>::iterate(double rhs_norm, double norm, int &iterations) {
  const Stop &stop = chip_.solve.stop;
  const bool l2 = stop.norm == Norm::l2;
  // The scaled residual starts with a norm of [1, 2), as far as powers of two of T go.
  constexpr int kRange = sizeof(T) == sizeof(float) ? 100 : 900;
  int exponent = -ilogb(l2 ? sqrt(norm) : norm);
  exponent = exponent < -kRange ? -kRange : exponent > kRange ? kRange : exponent;
  const T up = static_cast<T>(scalbn(1.0, exponent)), down = static_cast<T>(scalbn(1.0, -exponent));
  const double count = static_cast<double>(chip_.a.voxels), reached = stop.absolute ? count : rhs_norm;
  const T limit = static_cast<T>(scalbn((l2 ? stop.tolerance * stop.tolerance : stop.tolerance) * reached,
                                        l2 ? 2 * exponent : exponent));
  T z[P];
  for_own([&](int k, int o) {
    T diagonal;
    const T residual = own_rhs_[o] - product(own_direction_ + o, own_matrix_ + o, diagonal);
    x(k, o) = own_direction_[o];
    z[k] = residual * up * near_reciprocal(diagonal);
  });
  team_.barrier();
  for_own([&](int k, int o) { own_direction_[o] = z[k]; });
  int32_t ending;
  for (;;) {
    publish_direction();
    enum { kPAp, kRz, kZAp, kApMAp, kNorm, kSums };
    T sums[kSums] = {}, g[P];
    for_own([&](int k, int o) {
      T diagonal;
      const T q = product(own_direction_ + o, own_matrix_ + o, diagonal), r = z[k] * diagonal;
      g[k] = q * near_reciprocal(diagonal);
      sums[kPAp] += own_direction_[o] * q;
      sums[kRz] += r * z[k];
      sums[kZAp] += z[k] * q;
      sums[kApMAp] += q * g[k];
      sums[kNorm] += norm_term(stop.norm, r);
    });
    team_.sum(sums);
    const T p_ap = sums[kPAp], rz = sums[kRz];
    ending = SEGPRIOR_CONVERGED;
    if (sums[kNorm] <= limit) break;
    ending = SEGPRIOR_ITERATION_CAP;
    if (iterations == stop.max_iterations) break;
    const bool finite = isfinite(p_ap) && isfinite(rz) && isfinite(sums[kApMAp]);
    if (!(p_ap > 0 && rz > 0) || !finite) {
      // Where squares have underflown the recurrence can tell no more: the residual of x will.
      const bool vanishes = finite && p_ap >= 0 && rz >= 0;
      ending = vanishes ? SEGPRIOR_CONVERGED : SEGPRIOR_BREAKDOWN;
      break;
    }
    const T alpha = rz / p_ap, step = alpha * down;
    const T next = rz + alpha * (alpha * sums[kApMAp] - 2 * sums[kZAp]);
    const T beta = next > 0 ? next / rz : T(0);  // negative only by rounding
    for_own([&](int k, int o) {
      const T p = own_direction_[o];
      x(k, o) += step * p;
      z[k] -= alpha * g[k];
      own_direction_[o] = z[k] + beta * p;
    });
    ++iterations;
  }
  for_own([&](int k, int o) { own_direction_[o] = x(k, o); });
  return ending;
}

template <class T, Shape shape, int P, class Team>
__device__ void ChipBand<T, shape, P, Team>::solve() {
  const Solve<T> &s = chip_.solve;
  double rhs_sums[2] = {0, 0};  // of norm_term, and of |p|, which does not vanish as squares do
  for (int v = threadIdx.x; v < count_; v += blockDim.x) {
    const double value = static_cast<double>(rhs(v));
    rhs_sums[0] += norm_term(s.stop.norm, value);
    rhs_sums[1] += fabs(value);
  }
  team_.barrier();  // matrix and padding are in place, and the whole team has started
  team_.sum(rhs_sums);

  const auto scaled = [&](double norm) {
    return scaled_residual(s.stop, norm, rhs_sums[0], static_cast<double>(chip_.a.voxels));
  };
  const auto report = [&](int32_t status, int iterations, double residual) {
    if (!leads()) return;
    s.status[team_.system()] = status;
    if (s.info) s.info[team_.system()] = {status, iterations, residual};
  };
  if (rhs_sums[1] == 0) {
    fill([](int) { return T(0); });
    report(SEGPRIOR_CONVERGED, 0, 0);
    return;
  }

  for (int v = threadIdx.x; v < count_; v += blockDim.x)
    direction_[v] = s.init ? s.init[begin_ + v] : rhs(v) / conductance(matrix_ + v);
  const double norm = residual_norm();
  double residual = scaled(norm);
  int iterations = 0;
  int32_t ending = SEGPRIOR_CONVERGED;
  if (!satisfied(s.stop, residual) && isfinite(residual)) {
    ending = iterate(rhs_sums[0], norm, iterations);
    residual = scaled(residual_norm());
  }
  // The recurrence says when to stop, the residual of x what was reached.
  int32_t status = ending;
  if (ending == SEGPRIOR_BREAKDOWN || !isfinite(residual))
    status = SEGPRIOR_BREAKDOWN;
  else if (satisfied(s.stop, residual))
    status = SEGPRIOR_CONVERGED;
  else if (ending == SEGPRIOR_CONVERGED)
    status = SEGPRIOR_PRECISION_LIMIT;

  const bool failed = status == SEGPRIOR_BREAKDOWN;
  fill([&](int v) { return failed ? static_cast<T>(NAN) : direction_[v]; });
  report(status, iterations, failed ? static_cast<double>(NAN) : residual);
}

// The whole block: its team's system. Shared memory: the direction, then, if the matrix is inside, that.
template <class T, Shape shape, int P, bool inside, class Team>
__device__ inline void solve_in_team(const Chip<T> &chip, const Team &team) {
  const int64_t system = team.system(), matrix = quotient(system, chip.a.rhs);
  T *const direction = dynamic_shared<T>();
  const Bands &bands = chip.bands;
  T *const staged = direction + 2 * bands.pad + bands.most;
  const int32_t failed = chip.solve.status[system];
  const int64_t begin = bands.begin(team.rank());
  if (inside && failed == 0)
    pad_matrix<shape>(chip.a, matrix, chip.layout, begin, bands.count(team.rank()), threadIdx.x, blockDim.x,
                      staged);
  const T *const padded = inside ? staged : chip.padded + matrix * chip.layout.numbers + begin;
  ChipBand<T, shape, P, Team> band(chip, team, padded, direction);
  if (failed == 0) {
    band.solve();
    return;
  }
  band.fill([](int) { return static_cast<T>(NAN); });
  if (band.leads() && chip.solve.info) chip.solve.info[system] = {failed, 0, NAN};
}

#endif

}  // namespace segprior::softcut::cuda
