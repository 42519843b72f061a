// The proposals on the CPU. An image's passes are spread over chunks of its voxels, or images over the
// threads where there are enough of them. Traffic per voxel and class, float32: 4 bytes an iteration, 8 to
// write Q.
#include <algorithm>
#include <limits>

#include "kernels/common/arena.h"
#include "kernels/common/half.h"
#include "kernels/common/parallel.h"
#include "kernels/proposals/proposals.h"
#include "kernels/proposals/proposals_cpu_rows.h"
#include "kernels/proposals/proposals_math.h"

namespace segprior::proposals {
namespace {

int64_t chunks_of(const Problem &p) { return (p.voxels + kChunk - 1) / kChunk; }

// Scratch of one team and one image at a time.
template <class T>
struct Work {
  State *state;              // [1]
  double *dual;              // [I]
  T *rounded;                // [I] the duals as the passes take them
  Multipliers *multipliers;  // [I], GRADIENT only
  double *sums;              // [sums_of(I)]
  double *parts;             // [chunks][sums_of(I)]

  Work(const Problem &p, Arena &arena)
      : state(arena.take<State>(1)),
        dual(arena.take<double>(p.classes)),
        rounded(arena.take<T>(p.classes)),
        multipliers(arena.take<Multipliers>(p.method == Method::gradient ? p.classes : 0)),
        sums(arena.take<double>(sums_of(p.classes))),
        parts(arena.take<double>(sums_of(p.classes), chunks_of(p))) {}
};

// What one thread alone does between the passes over image b.
template <class T>
class Duals {
 public:
  Duals(const Problem &p, const Work<T> &work, int64_t b) : p_(p), w_(work), b_(b) {}

  void begin() const {
    *w_.state = {1, SEGPRIOR_ITERATION_CAP, 0, 0};
    for (int64_t i = 0; i < p_.classes; ++i) {
      set(i, excluded(p_.method, bounds(i)) ? -INFINITY : 0.0);
      if (w_.multipliers) w_.multipliers[i] = {0, 0};
    }
  }

  // After a pass.
  void update() const {
    State &state = *w_.state;
    add_parts();
    if (state.iterations == 0) {
      state.status = first();
      if (failed(state.status)) {
        state.running = 0;
        return;
      }
    }
    double worst = 0, residual = 0;
    for (int64_t i = 0; i < p_.classes; ++i) {
      worst = larger(worst, unsettled(p_.method, bounds(i), w_.dual[i], volume(i)));
      residual = larger(residual, bounds(i).outside(volume(i)));
    }
    advance(state, p_, worst, residual);
    if (!state.running) return;
    if (p_.method == Method::exact)
      exact();
    else
      gradient();
  }

 private:
  Bounds bounds(int64_t i) const { return bounds_of<T>(p_, b_, i); }
  double volume(int64_t i) const { return w_.sums[kVolume * p_.classes + i]; }
  void set(int64_t i, double dual) const {
    w_.dual[i] = dual;
    w_.rounded[i] = static_cast<T>(dual);
  }

  void add_parts() const {
    const int64_t count = sums_of(p_.classes);
    std::fill_n(w_.sums, count, 0.0);
    for (int64_t c = 0; c < chunks_of(p_); ++c)
      for (int64_t k = 0; k < count; ++k) w_.sums[k] += w_.parts[c * count + k];
  }

  int32_t first() const {
    double lower = 0, upper = 0;
    bool valid = true;
    for (int64_t i = 0; i < p_.classes; ++i) {
      const Bounds b = bounds(i);
      valid = valid && b.valid();
      lower += b.lower;
      upper += b.upper;
    }
    const double *rest = w_.sums + kPerClass * p_.classes;
    return first_status(valid, lower, upper, rest[kValid], rest[kFinite]);
  }

  void gradient() const {
    for (int64_t i = 0; i < p_.classes; ++i) {
      w_.multipliers[i].template ascend<T>(bounds(i), volume(i), p_.step);
      set(i, w_.multipliers[i].dual());
    }
  }

  void exact() const {
    int movers = 0;
    for (int64_t i = 0; i < p_.classes; ++i) movers += moves(bounds(i), w_.dual[i], volume(i));
    const auto of_class = [&](int64_t i) {
      return candidate<T>(bounds(i), w_.dual[i], volume(i), w_.sums[kSpread * p_.classes + i], movers);
    };
    Choice choice;
    for (int64_t i = 0; i < p_.classes; ++i)
      if (w_.dual[i] > -INFINITY) choice.add(of_class(i), w_.dual[i]);
    const bool feasible = w_.state->status != SEGPRIOR_INFEASIBLE_VOLUME;
    const double damping = feasible ? choice.damping() : 0;
    double least = INFINITY, largest = -INFINITY;
    for (int64_t i = 0; i < p_.classes; ++i)
      if (w_.dual[i] > -INFINITY) {
        set(i, next_dual(of_class(i), w_.dual[i], damping));
        least = std::min(least, w_.dual[i]);
        largest = std::max(largest, w_.dual[i]);
      }
    if (feasible) return;
    const double common = common_part(least, largest);
    for (int64_t i = 0; i < p_.classes; ++i)
      if (w_.dual[i] > -INFINITY) set(i, w_.dual[i] - common);
  }

  const Problem &p_;
  const Work<T> &w_;
  const int64_t b_;
};

template <class T>
void write_small(const Problem &p, const Outputs &out, const Work<T> &work, int64_t b) {
  const State &state = *work.state;
  const bool bad = failed(state.status);
  for (int64_t i = 0; i < p.classes; ++i) {
    const int64_t at = b * p.classes + i;
    if (out.dual) static_cast<T *>(out.dual)[at] = bad ? static_cast<T>(NAN) : work.rounded[i];
    if (out.volume) static_cast<T *>(out.volume)[at] = static_cast<T>(bad ? NAN : work.sums[i]);
  }
  if (out.info) out.info[b] = {state.status, state.iterations, bad ? NAN : state.residual};
}

// NaN in voxels [begin, end) of every class.
void write_nan(const Problem &p, int64_t begin, int64_t end, void *proposal) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto fill = [&](auto *to, auto value) {
    for (int64_t i = 0; i < p.classes; ++i)
      std::fill(to + i * p.voxels + begin, to + i * p.voxels + end, value);
  };
  switch (p.storage) {
    case Storage::f64:
      return fill(static_cast<double *>(proposal), static_cast<double>(nan));
    case Storage::f32:
      return fill(static_cast<float *>(proposal), nan);
    case Storage::f16:
      return fill(static_cast<uint16_t *>(proposal), Half::narrow(nan));
    case Storage::bf16:
      return fill(static_cast<uint16_t *>(proposal), Bfloat::narrow(nan));
  }
}

int64_t element_size(Storage storage) {
  return storage == Storage::f64 ? 8 : storage == Storage::f32 ? 4 : 2;
}

template <class T>
size_t run(const Problem &p, const Outputs &out, void *workspace, int threads) {
  Arena arena(workspace);
  const int teams = team_count(threads, p.batch);
  T *scratch = arena.take<T>(scratch_size<T>(p.classes), threads);
  const size_t first = arena.used();
  Work<T>(p, arena);
  const size_t bytes = arena.used() - first;  // of one team
  if (!workspace) {
    for (int k = 1; k < teams; ++k) Work<T>(p, arena);
    return arena.used();
  }
  const RowKernels<T> &kernels = row_kernels<T>();
  const int64_t chunks = chunks_of(p), count = sums_of(p.classes);
  for_images(threads, p.batch, [&](const Team &team, int index, int64_t b) {
    Arena own(static_cast<char *>(workspace) + first + index * bytes);
    const Work<T> work(p, own);
    const Duals<T> duals(p, work, b);
    T *mine = scratch + (index + team.rank) * scratch_size<T>(p.classes);
    const int64_t offset = b * p.classes * p.voxels * element_size(p.storage);
    const Image<T> image{p.classes,
                         p.voxels,
                         p.storage,
                         static_cast<const char *>(p.logits) + offset,
                         p.has_mask ? p.mask + (p.mask_shared ? 0 : b * p.voxels) : nullptr,
                         work.rounded};
    if (team.rank == 0) duals.begin();
    team.barrier();
    while (work.state->running) {
      for (int64_t c = team.begin(chunks); c < team.end(chunks); ++c)
        kernels.sums(image, c * kChunk, std::min((c + 1) * kChunk, p.voxels), mine, work.parts + c * count);
      team.barrier();
      if (team.rank == 0) duals.update();
      team.barrier();
    }
    if (team.rank == 0) write_small(p, out, work, b);
    char *proposal = static_cast<char *>(out.proposal) + offset;
    for (int64_t c = team.begin(chunks); c < team.end(chunks); ++c) {
      const int64_t begin = c * kChunk, end = std::min(begin + kChunk, p.voxels);
      if (failed(work.state->status))
        write_nan(p, begin, end, proposal);
      else
        kernels.write(image, begin, end, mine, proposal);
    }
  });
  return arena.used();
}

size_t dispatch(const Problem &p, const Outputs &out, void *workspace, int threads) {
  return p.storage == Storage::f64 ? run<double>(p, out, workspace, threads)
                                   : run<float>(p, out, workspace, threads);
}

size_t workspace_size(const Problem &p, int threads) { return dispatch(p, Outputs{}, nullptr, threads); }

void forward(const Problem &p, const Outputs &out, void *workspace, int threads, void *) {
  dispatch(p, out, workspace, threads);
}

}  // namespace

const Backend kCpu{workspace_size, forward};

}  // namespace segprior::proposals
