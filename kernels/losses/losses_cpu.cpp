// The CPU backend: threads share the chunks of all images; the few numbers per image and class are worked out
// serially, in a fixed order. Formulas and traffic: losses.md.
#include <omp.h>

#include <cstring>
#include <limits>

#include "kernels/losses/losses_cpu_chunks.h"

namespace segprior::losses {
namespace {

template <class F>
auto with_type(Storage storage, const F &f) {
  return storage == Storage::f64 ? f(double{}) : f(float{});
}

// A larger gradient does not stay in the caches until it is used. Writing past them saves reading its lines
// first: a quarter of the time of backward.
constexpr int64_t kCacheBytes = 16 << 20;

int64_t chunk_count(const Problem &p) { return (p.voxels + kChunk - 1) / kChunk; }

// The scratch of all threads.
template <class T>
class Threads {
 public:
  Threads(Arena &arena, const Problem &p, int threads) : p_(p), threads_(threads) {
    Arena one;
    Scratch<T>(one, p);
    bytes_ = one.used();
    base_ = arena.take<char>(static_cast<int64_t>(bytes_), threads);
  }

  // work(scratch, image, chunk) for all chunks.
  template <class Work>
  void for_chunks(const Work &work) const {
    const int64_t chunks = chunk_count(p_), units = p_.batch * chunks;
#pragma omp parallel num_threads(threads_)
    {
      Arena arena(base_ + omp_get_thread_num() * bytes_);
      const Scratch<T> scratch(arena, p_);
#pragma omp for schedule(dynamic)
      for (int64_t unit = 0; unit < units; ++unit)
        work(Chunk<T>{&p_, &scratch, unit / chunks, unit % chunks * kChunk,
                      std::min(p_.voxels, (unit % chunks + 1) * kChunk)},
             unit);
    }
  }

 private:
  const Problem &p_;
  const int threads_;
  size_t bytes_;
  char *base_;
};

template <class T>
struct ForwardWorkspace {
  State state;       // where none is saved
  double *sums;      // [B][chunks][kSums][I]
  double *labelled;  // [B][chunks]
  int32_t *status;   // [B][chunks]
  T *voxel_factors;  // [2][I]
  Threads<T> threads;

  ForwardWorkspace(Arena &arena, const Problem &p, int thread_count)
      : state(arena, p),
        sums(arena.take<double>(p.batch * chunk_count(p), kSums * p.classes)),
        labelled(arena.take<double>(p.batch * chunk_count(p))),
        status(arena.take<int32_t>(p.batch * chunk_count(p))),
        voxel_factors(arena.take<T>(2 * p.classes)),
        threads(arena, p, thread_count) {}
};

template <class T>
struct BackwardWorkspace {
  T *coefficients;  // [B][kCoefficients][I]
  Threads<T> threads;

  BackwardWorkspace(Arena &arena, const Problem &p, int thread_count)
      : coefficients(arena.take<T>(p.batch * p.classes, kCoefficients)), threads(arena, p, thread_count) {}
};

size_t cpu_workspace(const Problem &p, Pass pass, int threads) {
  return with_type(p.storage, [&](auto t) {
    using T = decltype(t);
    Arena arena;
    if (pass == Pass::forward)
      ForwardWorkspace<T>(arena, p, threads);
    else
      BackwardWorkspace<T>(arena, p, threads);
    return arena.used();
  });
}

size_t cpu_saved(const Problem &p) {
  Arena arena;
  State(arena, p);
  return arena.used();
}

// ---- Forward -------------------------------------------------------------------------------------------

// The chunks of an image, added in their order.
template <class T>
void add_chunks(const Problem &p, const ForwardWorkspace<T> &w, const State &state, int64_t b) {
  const int64_t chunks = chunk_count(p), size = kSums * p.classes;
  double *sums = state.sums + b * size;
  std::fill_n(sums, size, 0.0);
  state.labelled[b] = 0;
  state.status[b] = SEGPRIOR_CONVERGED;
  for (int64_t c = b * chunks; c < (b + 1) * chunks; ++c) {
    for (int64_t k = 0; k < size; ++k) sums[k] += w.sums[c * size + k];
    state.labelled[b] += w.labelled[c];
    if (w.status[c] != SEGPRIOR_CONVERGED && state.status[b] != SEGPRIOR_NONFINITE_INPUT)
      state.status[b] = w.status[c];
  }
}

// From the sums to the outputs that have no voxels.
template <class T>
void finish(const Problem &p, const State &state, const Outputs &out) {
  const Numbers<T> numbers(p, state);
  for (int64_t b = 0; b < p.batch; ++b) numbers.finish_image(b);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.classes; ++i) numbers.pool_volume(b, i);
  for (int which = 0; p.dice_batch && which < kSums; ++which)
    for (int64_t i = 0; i < p.classes; ++i) numbers.pool_batch(which, i);
  T *items = static_cast<T *>(out.items), *terms = static_cast<T *>(out.terms);
  for (int term = 0; term < kTerms; ++term) {
    double sum = 0, count = 0;
    for (int64_t row = 0; row < p.batch; ++row)
      for (int64_t i = 0; i < p.classes; ++i) {
        const double item = numbers.item(term, row, i);
        sum += item;
        count += numbers.counted(term, row, i);
        if (items) items[(term * p.batch + row) * p.classes + i] = static_cast<T>(item);
      }
    numbers.finish_term(term, sum, count);
    if (terms) terms[term] = static_cast<T>(state.value[term]);
  }
  if (out.total) *static_cast<T *>(out.total) = static_cast<T>(numbers.total());
  for (int64_t b = 0; out.info && b < p.batch; ++b) out.info[b] = {state.status[b], 0, 0};
}

// outputs.voxels of an image that failed.
template <class T>
void fail_voxels(const Problem &p, int64_t b, T *voxels) {
  const uint8_t *mask = p.has_mask ? p.mask + (p.mask_shared ? 0 : b * p.voxels) : nullptr;
  for (int64_t x = 0; x < p.voxels; ++x)
    voxels[x] = mask && !mask[x] ? T{0} : std::numeric_limits<T>::quiet_NaN();
}

template <class T>
void forward(const Problem &p, const Outputs &out, void *workspace, void *saved, int threads) {
  Arena arena(workspace), saved_arena(saved);
  const ForwardWorkspace<T> w(arena, p, threads);
  const State state = saved ? State(saved_arena, p) : w.state;
  const Numbers<T> numbers(p, state);
  for (int64_t i = 0; i < p.classes; ++i) {
    const auto factor = [&](int term) {
      return p.on(term) ? static_cast<T>(p.weights[term] * numbers.weight(term, i)) : T{0};
    };
    w.voxel_factors[i] = factor(SEGPRIOR_LOSS_CROSS_ENTROPY);
    w.voxel_factors[p.classes + i] = factor(SEGPRIOR_LOSS_FOCAL);
  }
  T *voxels = static_cast<T *>(out.voxels);
  const ChunkKernels<T> &kernels = chunk_kernels<T>();
  w.threads.for_chunks([&](const Chunk<T> &chunk, int64_t unit) {
    kernels.forward({chunk, w.sums + unit * kSums * p.classes, w.labelled + unit, w.status + unit,
                     voxels ? voxels + chunk.image * p.voxels : nullptr, w.voxel_factors});
  });
  for (int64_t b = 0; b < p.batch; ++b) add_chunks(p, w, state, b);
  finish<T>(p, state, out);
  for (int64_t b = 0; voxels && b < p.batch; ++b)
    if (state.status[b] != SEGPRIOR_CONVERGED) fail_voxels(p, b, voxels + b * p.voxels);
}

// ---- Backward ------------------------------------------------------------------------------------------

// `rows` rows of one number per class, each the sum of value(row or term, class) over `summed` of them.
template <class T, class Value>
void write_rows(void *grad, bool accumulate, int64_t rows, int64_t all, int64_t classes, const Value &value) {
  if (!grad) return;
  T *out = static_cast<T *>(grad);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < classes; ++i) {
      double sum = 0;
      for (int64_t k = rows == 1 ? 0 : row; k < (rows == 1 ? all : row + 1); ++k) sum += value(k, i);
      T &to = out[row * classes + i];
      to = static_cast<T>(sum + (accumulate ? to : 0));
    }
}

template <class T>
void backward(const Problem &p, const Cotangents &cotangents, const Grads &grads, void *workspace,
              const void *saved, int threads) {
  Arena arena(workspace), saved_arena(const_cast<void *>(saved));
  const BackwardWorkspace<T> w(arena, p, threads);
  const State state(saved_arena, p);
  const Numbers<T> numbers(p, state);
  const Incoming<T> in{static_cast<const T *>(cotangents.total), static_cast<const T *>(cotangents.terms),
                       static_cast<const T *>(cotangents.items)};
  write_rows<T>(
      grads.class_weights, grads.accumulate, p.weight_rows, kTerms, p.classes,
      [&](int64_t term, int64_t i) { return numbers.weight_gradient(in, static_cast<int>(term), i); });
  write_rows<T>(grads.size_lower, grads.accumulate, p.lower_rows, p.batch, p.classes,
                [&](int64_t g, int64_t i) { return numbers.lower_gradient(in, g, i); });
  write_rows<T>(grads.size_upper, grads.accumulate, p.upper_rows, p.batch, p.classes,
                [&](int64_t g, int64_t i) { return numbers.upper_gradient(in, g, i); });
  if (!grads.scores) return;
  const int64_t size = kCoefficients * p.classes;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.classes; ++i)
      numbers.coefficients(in, b, i, w.coefficients + b * size + i, p.classes);
  const int64_t image_bytes = p.classes * p.voxels *
                              (p.storage == Storage::f64   ? 8
                               : p.storage == Storage::f32 ? 4
                                                           : 2);
  const T *voxels = static_cast<const T *>(cotangents.voxels);
  const ChunkKernels<T> &kernels = chunk_kernels<T>();
  w.threads.for_chunks([&](const Chunk<T> &chunk, int64_t) {
    kernels.backward({chunk, w.coefficients + chunk.image * size,
                      state.status[chunk.image] != SEGPRIOR_CONVERGED,
                      voxels ? voxels + chunk.image * p.voxels : nullptr,
                      static_cast<char *>(grads.scores) + chunk.image * image_bytes, grads.accumulate,
                      p.batch * image_bytes > kCacheBytes});
  });
}

// ---- The table -----------------------------------------------------------------------------------------

void cpu_forward(const Problem &p, const Outputs &out, void *workspace, void *saved, int threads, void *) {
  with_type(p.storage, [&](auto t) { forward<decltype(t)>(p, out, workspace, saved, threads); });
}

void cpu_backward(const Problem &p, const Cotangents &cotangents, const Grads &grads, void *workspace,
                  const void *saved, int threads, void *) {
  with_type(p.storage,
            [&](auto t) { backward<decltype(t)>(p, cotangents, grads, workspace, saved, threads); });
}

template <class T>
void write_bounds(const Bounds &b) {
  for (int64_t i = 0; i < b.classes; ++i) {
    int64_t least = 0, most = 0;  // over the images that have the class
    for (int64_t k = i; k < b.batch * b.classes; k += b.classes) {
      if (b.volumes[k] <= 0) continue;
      least = least == 0 ? b.volumes[k] : std::min(least, b.volumes[k]);
      most = std::max(most, b.volumes[k]);
    }
    for (int64_t k = i; k < b.batch * b.classes; k += b.classes) {
      const bool common = b.kind == SEGPRIOR_BOUNDS_COMMON, present = b.volumes[k] > 0;
      double lower = b.low * static_cast<double>(common ? least : b.volumes[k]);
      double upper = b.high * static_cast<double>(common ? most : b.volumes[k]);
      if (b.kind == SEGPRIOR_BOUNDS_TAGS) lower = 1, upper = static_cast<double>(b.voxels);
      static_cast<T *>(b.lower)[k] = static_cast<T>(present ? lower : 0);
      static_cast<T *>(b.upper)[k] = static_cast<T>(present ? upper : 0);
    }
  }
}

void cpu_bounds(const Bounds &b, int, void *) { b.f64 ? write_bounds<double>(b) : write_bounds<float>(b); }

}  // namespace

const Backend kCpu{cpu_workspace, cpu_saved, cpu_forward, cpu_backward, cpu_bounds};

}  // namespace segprior::losses
