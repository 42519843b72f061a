// Forward on the CPU: per image a scan of the inputs, the start, T sweeps (softmax_cpu_sweep.h) with the
// volume step between them, and the outputs. Rank 0 of the image's team does the scalar work between two
// barriers.
#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {
namespace {

// State of the image a team works on, shared by its threads.
struct Shared {
  Params params;
  Progress progress;
};

template <class T>
struct Buffers {
  Shared *shared;
  SweepBuffers<T> sweep;
  double *slice_max;             // [slices]
  double *f, *f_new, *log_mass;  // [classes]
  T *shift, *pending;            // [classes]
  T *before;                     // u before a checked iteration [I, J]
  Iterate<T> work;               // unless every iterate goes into `saved`

  static Buffers carve(const Problem &p, int threads, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t plane = g.classes * g.voxels();
    const bool work = p.tv && p.checkpoint_interval != 1;
    Buffers b{};
    b.shared = arena.take<Shared>(1);
    b.sweep = SweepBuffers<T>::carve(p, threads, arena);
    b.slice_max = arena.take<double>(g.extent[0]);
    b.f = arena.take<double>(g.classes);
    b.f_new = arena.take<double>(g.classes);
    b.log_mass = arena.take<double>(g.classes);
    b.shift = arena.take<T>(g.classes);
    b.pending = arena.take<T>(g.classes);
    b.before = arena.take<T>(plane);
    b.work = {arena.take<T>(work ? plane * g.nd : 0), arena.take<T>(work && p.accelerate ? plane * g.nd : 0)};
    return b;
  }
};

template <class T>
Buffers<T> carve_all(const Problem &p, int threads, int team_index, Arena &arena) {
  Buffers<T> mine{};
  for (int k = 0; k < team_count(threads, p.grid.batch); ++k) {
    const Buffers<T> b = Buffers<T>::carve(p, team_size(threads, p.grid.batch), arena);
    if (k == team_index) mine = b;
  }
  return mine;
}

template <class T>
class Forward {
 public:
  Forward(const Problem &p, const Outputs &outputs, const Buffers<T> &buffers, const Saved<T> &saved,
          const Team &team, int64_t b)
      : p_(p),
        outputs_(outputs),
        buffers_(buffers),
        saved_(saved),
        team_(team),
        b_(b),
        image_(p, b),
        sweep_(image_, buffers.shared->params, buffers.sweep, team),
        u_(static_cast<T *>(outputs.u) + b * image_.plane()) {}

  void run() {
    scan();
    if (failed(progress().status)) {
      fill_failed();
    } else {
      start();
      iterate();
    }
    finish();
  }

 private:
  const Params &params() const { return buffers_.shared->params; }
  Progress &progress() { return buffers_.shared->progress; }
  int64_t classes() const { return p_.grid.classes; }
  bool volume() const { return p_.volume != Volume::none; }

  // The largest of f(slice) over the image, the same on every thread. Collective.
  template <class F>
  double max_over_slices(const F &f) {
    for (int64_t s = sweep_.begin(); s < sweep_.end(); ++s) buffers_.slice_max[s] = f(s);
    team_.barrier();
    double result = 0;
    for (int64_t s = 0; s < image_.slices(); ++s) result = std::max(result, buffers_.slice_max[s]);
    team_.barrier();
    return result;
  }

  double max_abs(const T *field, int64_t planes) {
    const int64_t size = image_.slice_size();
    return max_over_slices([&](int64_t s) {
      double result = 0;
      for (int64_t i = 0; i < planes; ++i)
        result = std::max<double>(result, image_.rows.max_abs(size, field + i * image_.voxels() + s * size));
      return result;
    });
  }

  // Checks the inputs, resolves the parameters and sets the image's progress.
  void scan() {
    const double feature = max_abs(image_.features, classes());
    double edge = 1, dual = 0;
    bool edge_valid = true;
    if (image_.edge) {
      edge = max_abs(image_.edge, 1);
      const int64_t size = image_.slice_size();
      edge_valid = std::isfinite(edge) && max_over_slices([&](int64_t s) {
                                            const T *e = image_.edge + s * size;
                                            int negative = 0;
                                            for (int64_t x = 0; x < size; ++x) negative |= e[x] < 0;
                                            return negative;
                                          }) == 0;
    }
    if (p_.has_init_tv) dual = max_abs(init_dual(), classes() * p_.grid.nd);
    if (team_.rank == 0) {
      Shared &shared = *buffers_.shared;
      shared.params = read_params<T>(p_);
      bool finite = std::isfinite(feature) && std::isfinite(dual), valid = shared.params.valid && edge_valid;
      bool feasible = true;
      double volume_dual = 0;
      VolumeCheck check;
      for (int64_t i = 0; i < classes(); ++i) {
        const double upper = upper_bound<T>(p_, b_, i);
        const T *init = static_cast<const T *>(p_.init_volume);
        double f = p_.has_init_volume ? init[b_ * classes() + i] : 0;
        if (volume()) {
          check.add(lower_bound<T>(p_, b_, i), upper);
          if (excluded(upper)) f = -INFINITY;
          if (!excluded(upper)) {
            finite = finite && std::isfinite(f);
            volume_dual = std::max(volume_dual, std::abs(f));
          }
        }
        buffers_.f[i] = f;
      }
      if (volume()) {
        const double voxels = static_cast<double>(image_.voxels());
        valid = valid && check.valid(voxels);
        feasible = check.feasible(voxels);
      }
      const bool range = in_range({feature, edge, dual, volume_dual}, shared.params,
                                  p_.grid.inv_spacing_sum(), p_.tv, sizeof(T) == sizeof(float));
      shared.progress =
          start_progress(start_status(finite, valid, range, feasible), p_.iterations, p_.accelerate);
      std::fill_n(buffers_.sweep.zeros, image_.columns(), T{0});
      dual_shift(image_.classes(), buffers_.f, shared.params.eps, buffers_.shift);
      dual_shift(image_.classes(), buffers_.f, shared.params.init_eps, buffers_.pending);
    }
    team_.barrier();
  }

  const T *init_dual() const { return static_cast<const T *>(p_.init_tv) + b_ * image_.dual_size(); }

  // Where the iterate after t iterations lives.
  Iterate<T> iterate_at(int64_t t) const {
    if (!p_.tv) return {nullptr, nullptr};
    if (p_.checkpoint_interval == 0 || t % p_.checkpoint_interval != 0) return buffers_.work;
    return slot(t / p_.checkpoint_interval);
  }
  Iterate<T> slot(int64_t k) const {
    const int64_t offset = b_ * image_.dual_size();
    return {saved_.slot(k) + offset, p_.accelerate ? saved_.slot(k, 1) + offset : nullptr};
  }

  // Copies this thread's band of `planes` planes.
  void copy_band(const T *from, int64_t planes, T *to) const {
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    for (int64_t i = 0; i < planes; ++i)
      std::copy_n(from + i * image_.voxels() + begin, (sweep_.end() - sweep_.begin()) * size,
                  to + i * image_.voxels() + begin);
  }

  // v_0 = q_0 and u_0 = S((o - div q_0 + f_0) / eps0).
  void start() {
    const Iterate<T> first = iterate_at(0);
    if (p_.tv) {
      p_.has_init_tv ? copy_init(first.v) : zero_band(first.v);
      if (first.q) copy_band(first.v, classes() * p_.grid.nd, first.q);
      team_.barrier();
    }
    const T scale = static_cast<T>(1 / params().init_eps);
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      if (!p_.has_init_tv)
        return image_.rows.softmax(sweep_.shape(), image_.features + offset, scale, buffers_.pending,
                                   u_ + offset);
      const DualRow<T> dual = image_.dual_row(first.v, s, r, offset, sweep_.zeros());
      image_.rows.logits(sweep_.shape(), image_.features + offset, &dual, scale, buffers_.pending,
                         u_ + offset);
      image_.rows.softmax(sweep_.shape(), u_ + offset, T{1}, nullptr, u_ + offset);
    });
    if (saved_.volume_dual && team_.rank == 0) save_f(0);
    team_.barrier();
  }

  void zero_band(T *dual) const {
    const int64_t size = image_.slice_size();
    for (int64_t i = 0; i < classes() * p_.grid.nd; ++i)
      std::fill_n(dual + i * image_.voxels() + sweep_.begin() * size, (sweep_.end() - sweep_.begin()) * size,
                  T{0});
  }

  // A warm start; components at the far border, which point out of the grid, become 0.
  void copy_init(T *dual) const {
    copy_band(init_dual(), classes() * p_.grid.nd, dual);
    const int64_t *extent = p_.grid.extent;
    for (int64_t i = 0; i < classes() * p_.grid.nd; ++i) {
      const int axis = p_.grid.axes[i % p_.grid.nd];
      image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
        T *row = dual + i * image_.voxels() + offset;
        if ((axis == 0 && s + 1 == extent[0]) || (axis == 1 && r + 1 == extent[1]))
          std::fill_n(row, image_.columns(), T{0});
        if (axis == 2) row[image_.columns() - 1] = 0;
      });
    }
  }

  void iterate() {
    bool logits_pending = false;  // u_ holds logits that lack `pending`; the same on every thread
    for (int t = 0; progress().running; ++t) {
      const bool checked = p_.tolerance > 0 ? is_check(t, p_.iterations, p_.check_interval)
                                            : outputs_.info && t + 1 == p_.iterations;
      if (checked) {
        if (logits_pending) sweep_.finish_logits(u_, buffers_.pending);
        logits_pending = false;
        copy_band(u_, classes(), buffers_.before);
        team_.barrier();
      }
      sweep_.step(u_, logits_pending ? buffers_.pending : nullptr, iterate_at(t), iterate_at(t + 1),
                  progress().beta, buffers_.shift, volume());
      logits_pending = volume();
      team_.barrier();
      if (volume() && team_.rank == 0) volume_update(t);
      double residual = 0;
      if (checked) {
        team_.barrier();
        if (logits_pending) sweep_.finish_logits(u_, buffers_.pending);
        logits_pending = false;
        residual = change();
      }
      if (team_.rank == 0) end_iteration(t, checked, residual);
      team_.barrier();
    }
    if (logits_pending) sweep_.finish_logits(u_, buffers_.pending);
  }

  // max |u - before|. Collective.
  double change() {
    const int64_t size = image_.slice_size();
    return max_over_slices([&](int64_t s) {
      double result = 0;
      for (int64_t i = 0; i < classes(); ++i) {
        const int64_t offset = i * image_.voxels() + s * size;
        result =
            std::max<double>(result, image_.rows.max_difference(size, u_ + offset, buffers_.before + offset));
      }
      return result;
    });
  }

  // f_t+1 from the masses of w; leaves its change in `pending`.
  void volume_update(int t) {
    const double eps = params().eps;
    for (int64_t i = 0; i < classes(); ++i) {
      double mass = 0;
      for (int64_t s = 0; s < image_.slices(); ++s) mass += buffers_.sweep.mass[s * classes() + i];
      buffers_.log_mass[i] = log_mass(mass, sizeof(T) == sizeof(float));
      buffers_.f_new[i] = volume_step(buffers_.f[i], buffers_.log_mass[i], lower_bound<T>(p_, b_, i),
                                      upper_bound<T>(p_, b_, i), eps)
                              .dual;
    }
    dual_change(image_.classes(), buffers_.f_new, buffers_.f, eps, buffers_.pending);
    std::copy_n(buffers_.f_new, classes(), buffers_.f);
    dual_shift(image_.classes(), buffers_.f, eps, buffers_.shift);
    if (saved_.volume_dual) {
      save_f(t + 1);
      std::copy_n(buffers_.log_mass, classes(), saved_.log_mass + (t * p_.grid.batch + b_) * classes());
    }
  }

  void save_f(int64_t t) const {
    std::copy_n(buffers_.f, classes(), saved_.volume_dual + (t * p_.grid.batch + b_) * classes());
  }

  void end_iteration(int t, bool checked, double residual) {
    if (saved_.momentum) saved_.momentum[t * p_.grid.batch + b_] = progress().beta;
    double restart = 0;
    if (p_.accelerate)
      for (int64_t s = 0; s < image_.slices(); ++s) restart += buffers_.sweep.restart[s];
    advance(progress(), t, p_.iterations, p_.accelerate, restart > 0, checked, residual, p_.tolerance);
  }

  void fill_failed() {
    const int64_t begin = sweep_.begin() * image_.slice_size();
    const int64_t n = sweep_.end() * image_.slice_size() - begin;
    for (int64_t i = 0; i < classes(); ++i)
      std::fill_n(u_ + i * image_.voxels() + begin, n, static_cast<T>(NAN));
    if (outputs_.tv_dual) {
      T *dual = static_cast<T *>(outputs_.tv_dual) + b_ * image_.dual_size();
      for (int64_t i = 0; i < classes() * p_.grid.nd; ++i)
        std::fill_n(dual + i * image_.voxels() + begin, n, static_cast<T>(NAN));
    }
    if (team_.rank == 0) std::fill_n(buffers_.f, classes(), NAN);
    team_.barrier();
  }

  // Duals, saved state and info.
  void finish() {
    const Progress &done = progress();
    if (p_.tv && !failed(done.status)) {
      const Iterate<T> last = iterate_at(done.iterations);
      const int64_t planes = classes() * p_.grid.nd;
      if (p_.checkpoint_interval > 0) {
        const Iterate<T> end = slot(saved_.checkpoints);
        if (end.v != last.v) copy_band(last.v, planes, end.v);
      }
      // The last iteration has no momentum: v is q, the feasible dual.
      if (outputs_.tv_dual)
        copy_band(last.v, planes, static_cast<T *>(outputs_.tv_dual) + b_ * image_.dual_size());
    }
    if (team_.rank != 0) return;
    if (outputs_.volume_dual)
      for (int64_t i = 0; i < classes(); ++i)
        static_cast<T *>(outputs_.volume_dual)[b_ * classes() + i] = static_cast<T>(buffers_.f[i]);
    if (saved_.iterations) {
      saved_.iterations[b_] = done.iterations;
      saved_.status[b_] = done.status;
    }
    if (outputs_.info) outputs_.info[b_] = {done.status, done.iterations, done.residual};
  }

  const Problem &p_;
  const Outputs &outputs_;
  const Buffers<T> &buffers_;
  const Saved<T> &saved_;
  const Team team_;
  const int64_t b_;
  const Image<T> image_;
  const Sweep<T> sweep_;
  T *const u_;
};

}  // namespace

template <class T>
size_t forward_workspace(const Problem &p, int threads) {
  Arena arena;
  carve_all<T>(p, threads, 0, arena);
  return arena.used();
}

template <class T>
void forward(const Problem &p, const Outputs &outputs, void *workspace, void *saved_memory, int threads) {
  Arena saved_arena(saved_memory);
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  for_images(threads, p.grid.batch, [&](const Team &team, int team_index, int64_t b) {
    Arena arena(workspace);
    const Buffers<T> buffers = carve_all<T>(p, threads, team_index, arena);
    Forward<T>(p, outputs, buffers, saved, team, b).run();
  });
}

template size_t forward_workspace<float>(const Problem &, int);
template size_t forward_workspace<double>(const Problem &, int);
template void forward<float>(const Problem &, const Outputs &, void *, void *, int);
template void forward<double>(const Problem &, const Outputs &, void *, void *, int);

}  // namespace segprior::softmax
