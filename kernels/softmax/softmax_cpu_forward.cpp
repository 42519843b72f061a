// Forward on the CPU: per image a scan of the inputs, the start, T iterations, and the outputs. An iteration
// is the forces of threshold dynamics and stars, which need all of u and leave o - r in `base`, one sweep
// (softmax_cpu_sweep.h), and the volume step. Rank 0 of the image's team does the scalar work between two
// barriers.
#include <algorithm>

#include "kernels/softmax/softmax_cpu_scan.h"
#include "kernels/softmax/softmax_cpu_td.h"

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
  MaskBuffers<T> mask;
  TdBuffers<T> td;
  StarBuffers<T> star;
  double *slice_max;             // [slices]
  double *f, *f_new, *log_mass;  // [classes]
  T *shift, *pending;            // [classes]
  T *before;                     // u before a checked iteration [I, J]
  Iterate<T> work;               // unless every iterate goes into `saved`
  StarIterate<T> star_work;      // likewise
  double *star_restart;          // [slices]
  T *base;                       // o - r of the priors that keep u [I, J]

  static Buffers carve(const Problem &p, int threads, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t plane = g.classes * g.voxels();
    const int64_t stars = p.star.count * g.voxels();
    const bool work = p.checkpoint_interval != 1, tv_work = p.tv && work;
    Buffers b{};
    b.shared = arena.take<Shared>(1);
    b.sweep = SweepBuffers<T>::carve(p, threads, arena);
    b.mask = MaskBuffers<T>::carve(p, arena);
    b.td = TdBuffers<T>::carve(p, threads, false, arena);
    b.star = StarBuffers<T>::carve(p, false, arena);
    b.slice_max = arena.take<double>(g.extent[0]);
    b.f = arena.take<double>(g.classes);
    b.f_new = arena.take<double>(g.classes);
    b.log_mass = arena.take<double>(g.classes);
    b.shift = arena.take<T>(g.classes);
    b.pending = arena.take<T>(g.classes);
    b.before = arena.take<T>(plane);
    b.work = {arena.take<T>(tv_work ? plane * g.nd : 0),
              arena.take<T>(tv_work && p.accelerate ? plane * g.nd : 0)};
    b.star_work = {arena.take<T>(work ? stars : 0), arena.take<T>(work && p.accelerate ? stars : 0)};
    b.star_restart = arena.take<double>(p.star.count > 0 ? g.extent[0] : 0);
    b.base = arena.take<T>(p.keeps_u() ? plane : 0);
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
        image_(p, b, buffers.mask),
        sweep_(image_, buffers.shared->params, buffers.sweep, team),
        td_(image_, buffers.shared->params, buffers.td, team),
        star_(image_, buffers.shared->params, buffers.star, team),
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

  // Checks the inputs, resolves the parameters and sets the image's progress.
  void scan() {
    Shared &shared = *buffers_.shared;
    if (team_.rank == 0) shared.params = read_params<T>(p_);
    team_.barrier();
    prepare_mask(p_, b_, buffers_.mask, team_);
    star_.prepare();
    const double voxels = valid_voxels(p_, buffers_.mask);
    const int32_t status =
        Scan<T>(image_, params(), star_, team_, buffers_.slice_max).run(voxels, buffers_.f);
    if (team_.rank == 0) {
      shared.progress = start_progress(status, p_.iterations, p_.accelerate);
      std::fill_n(buffers_.sweep.zeros, image_.columns(), T{0});
      dual_shift(image_.classes(), buffers_.f, params().eps, buffers_.shift);
      dual_shift(image_.classes(), buffers_.f, params().init_eps, buffers_.pending);
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
  StarIterate<T> star_at(int64_t t) const {
    if (p_.star.count == 0) return {nullptr, nullptr};
    if (p_.checkpoint_interval == 0 || t % p_.checkpoint_interval != 0) return buffers_.star_work;
    return star_slot(t / p_.checkpoint_interval);
  }
  StarIterate<T> star_slot(int64_t k) const {
    const int64_t offset = b_ * star_size();
    return {saved_.star_slot(k) + offset, p_.accelerate ? saved_.star_slot(k, 1) + offset : nullptr};
  }
  int64_t star_size() const { return p_.star.count * image_.voxels(); }
  void save_u(int64_t k) const { copy_band(u_, classes(), saved_.u_slot(k) + b_ * image_.plane()); }

  // Copies this thread's band of `planes` planes.
  void copy_band(const T *from, int64_t planes, T *to) const {
    const int64_t size = image_.slice_size(), begin = sweep_.begin() * size;
    for (int64_t i = 0; i < planes; ++i)
      std::copy_n(from + i * image_.voxels() + begin, (sweep_.end() - sweep_.begin()) * size,
                  to + i * image_.voxels() + begin);
  }

  // v_0 = q_0 and u_0 = S((o - div q_0 - div(g_0 s) + f_0) / eps0).
  void start() {
    const Iterate<T> first = iterate_at(0);
    const StarIterate<T> first_star = star_at(0);
    if (p_.td.on) td_.prepare();
    if (p_.tv) {
      p_.has_init_tv ? copy_init(first.v) : zero_band(first.v, classes() * p_.grid.nd);
      if (first.q) copy_band(first.v, classes() * p_.grid.nd, first.q);
    }
    if (p_.star.count > 0) {
      p_.star.has_init ? copy_init_star(first_star.v) : zero_band(first_star.v, p_.star.count);
      if (first_star.g) copy_band(first_star.v, p_.star.count, first_star.g);
    }
    if (p_.keeps_u()) copy_band(image_.features, classes(), buffers_.base);
    team_.barrier();
    if (p_.star.has_init) star_.force(image_.features, first_star.v, buffers_.base);
    const T scale = static_cast<T>(1 / params().init_eps);
    image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
      const RowShape<T> shape = sweep_.shape(offset);
      if (!p_.has_init_tv)
        return image_.rows.softmax(shape, base() + offset, scale, buffers_.pending, u_ + offset);
      const DualRow<T> dual = image_.dual_row(first.v, s, r, offset, sweep_.zeros());
      image_.rows.logits(shape, base() + offset, &dual, scale, buffers_.pending, u_ + offset);
      image_.rows.softmax(shape, u_ + offset, T{1}, nullptr, u_ + offset);
    });
    if (saved_.volume_dual && team_.rank == 0) save_f(0);
    team_.barrier();
  }

  // What the sweep takes for features.
  const T *base() const { return p_.keeps_u() ? buffers_.base : image_.features; }

  void zero_band(T *field, int64_t planes) const { fill_band(field, planes, T{0}); }

  void fill_band(T *field, int64_t planes, T value) const {
    const int64_t size = image_.slice_size();
    for (int64_t i = 0; i < planes; ++i)
      std::fill_n(field + i * image_.voxels() + sweep_.begin() * size, (sweep_.end() - sweep_.begin()) * size,
                  value);
  }

  // A warm start; components that point out of the grid, or to or from a masked voxel, become 0.
  void copy_init(T *dual) const {
    copy_band(init_dual(), classes() * p_.grid.nd, dual);
    const int64_t *extent = p_.grid.extent;
    for (int64_t i = 0; i < classes() * p_.grid.nd; ++i) {
      const int64_t component = i % p_.grid.nd;
      const int axis = p_.grid.axes[component];
      image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t s, int64_t r, int64_t offset) {
        T *row = dual + i * image_.voxels() + offset;
        if (image_.link) return keep_where(image_.link + component * image_.voxels() + offset, row);
        if ((axis == 0 && s + 1 == extent[0]) || (axis == 1 && r + 1 == extent[1]))
          std::fill_n(row, image_.columns(), T{0});
        if (axis == 2) row[image_.columns() - 1] = 0;
      });
    }
  }
  void copy_init_star(T *dual) const {
    copy_band(static_cast<const T *>(p_.star.init) + b_ * star_size(), p_.star.count, dual);
    for (int64_t m = 0; image_.valid && m < p_.star.count; ++m)
      image_.for_rows(sweep_.begin(), sweep_.end(), [&](int64_t, int64_t, int64_t offset) {
        keep_where(image_.valid + offset, dual + m * image_.voxels() + offset);
      });
  }
  void keep_where(const T *on, T *row) const {
    for (int64_t x = 0; x < image_.columns(); ++x) row[x] = on[x] > 0 ? row[x] : T{0};
  }

  void iterate() {
    bool logits_pending = false;  // u_ holds logits that lack `pending`; the same on every thread
    for (int t = 0; progress().running; ++t) {
      const bool checked = takes_residual(p_, outputs_.info, t);
      if (checked || p_.keeps_u()) {
        if (logits_pending) sweep_.finish_logits(u_, buffers_.pending);
        logits_pending = false;
        if (checked) copy_band(u_, classes(), buffers_.before);
        team_.barrier();
      }
      if (p_.keeps_u()) update_base(t);
      sweep_.step(base(), u_, logits_pending ? buffers_.pending : nullptr, iterate_at(t), iterate_at(t + 1),
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

  // base <- o - r of threshold dynamics and stars, from a complete u. Ends without a barrier, when nobody
  // reads u any more.
  void update_base(int t) const {
    if (p_.checkpoint_interval > 0 && t % p_.checkpoint_interval == 0) save_u(t / p_.checkpoint_interval);
    if (p_.td.on) td_.force(u_, buffers_.base);
    const StarIterate<T> next = star_at(t + 1);
    star_.step(u_, star_at(t), next, buffers_.shared->progress.beta,
               p_.accelerate ? buffers_.star_restart : nullptr);
    team_.barrier();
    star_.force(p_.td.on ? buffers_.base : image_.features, next.v, buffers_.base);
  }

  // max |u - before|. Collective.
  double change() {
    const int64_t size = image_.slice_size();
    return max_over_slices(team_, image_.slices(), buffers_.slice_max, [&](int64_t s) {
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
    if (p_.accelerate) {
      for (int64_t s = 0; s < image_.slices(); ++s) restart += buffers_.sweep.restart[s];
      // The fields' steps differ: each sum counts in units of its own.
      if (p_.star.count > 0) {
        if (p_.tv) restart /= params().tau;
        for (int64_t s = 0; s < image_.slices(); ++s) restart += buffers_.star_restart[s];
      }
    }
    advance(progress(), t, p_.iterations, p_.accelerate, restart > 0, checked, residual, p_.tolerance);
  }

  void fill_failed() {
    const T nan = static_cast<T>(NAN);
    fill_band(u_, classes(), nan);
    if (outputs_.tv_dual)
      fill_band(static_cast<T *>(outputs_.tv_dual) + b_ * image_.dual_size(), classes() * p_.grid.nd, nan);
    if (outputs_.star_dual)
      fill_band(static_cast<T *>(outputs_.star_dual) + b_ * star_size(), p_.star.count, nan);
    if (team_.rank == 0) std::fill_n(buffers_.f, classes(), NAN);
    team_.barrier();
  }

  // Duals, saved state and info.
  void finish() {
    const Progress &done = progress();
    if (!failed(done.status)) {
      const bool saves = p_.checkpoint_interval > 0;
      const int64_t planes = classes() * p_.grid.nd;
      // The last iteration has no momentum: v is the feasible dual.
      const T *v = iterate_at(done.iterations).v, *star = star_at(done.iterations).v;
      if (saves && p_.tv && slot(saved_.checkpoints).v != v) copy_band(v, planes, slot(saved_.checkpoints).v);
      if (saves && star && star_slot(saved_.checkpoints).v != star)
        copy_band(star, p_.star.count, star_slot(saved_.checkpoints).v);
      if (saves && p_.keeps_u()) save_u(saved_.checkpoints);
      if (outputs_.tv_dual)
        copy_band(v, planes, static_cast<T *>(outputs_.tv_dual) + b_ * image_.dual_size());
      if (outputs_.star_dual)
        copy_band(star, p_.star.count, static_cast<T *>(outputs_.star_dual) + b_ * star_size());
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
  const ThresholdForce<T> td_;
  const StarForce<T> star_;
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
