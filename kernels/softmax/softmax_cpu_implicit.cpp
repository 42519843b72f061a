// Implicit backward on the CPU for TV and volume: the derivative of the converged map. Conjugate gradients
// solve
//
//   M(a, beta) = (P grad J u_bar, sum_x J u_bar);   then  o_bar = J u_bar - J K(a, beta)
//
// with the system of softmax_cpu_implicit.h and its diagonal as preconditioner. Derivation: softmax.md.
//
// Memory per voxel and class: 5 nd + 4 numbers, whatever the number of iterations was. Bytes moved per step
// of conjugate gradients, float32, nd = 2: J 8 + 4 + 4, M 4 + 16 + 4 + 8, update 32 + 4, direction 20: 104.
#include <algorithm>

#include "kernels/softmax/softmax_cpu_grads.h"
#include "kernels/softmax/softmax_cpu_implicit.h"

namespace segprior::softmax {
namespace {

template <class T>
struct ImplicitWorkspace {
  BackwardWorkspace<T> batch;  // what is summed over the batch at the end; the rest is not used
  ImplicitBuffers<T> mine;

  static ImplicitWorkspace carve(const Problem &p, int threads, int team_index, Arena &arena) {
    const int64_t images = p.grid.batch;
    ImplicitWorkspace w{};
    w.batch.scalars = arena.take<ScalarGrads>(images);
    w.batch.grad_bound = arena.take<T>(p.tv ? images * p.grid.voxels() : 0);
    for (int k = 0; k < team_count(threads, images); ++k) {
      const ImplicitBuffers<T> b = ImplicitBuffers<T>::carve(p, team_size(threads, images), arena);
      if (k == team_index) w.mine = b;
    }
    return w;
  }
};

template <class T>
class Implicit : ImplicitSystem<T> {
 public:
  Implicit(const Problem &p, const T *grad_u, const Grads &grads, const ImplicitWorkspace<T> &workspace,
           const Saved<T> &saved, const Image<T> &image, const Team &team)
      : ImplicitSystem<T>(p, workspace.mine, saved, image, team),
        grads_(grads),
        grad_u_(grad_u + b_ * image.plane()),
        grad_bound_(p.tv ? workspace.batch.grad_bound + b_ * image.voxels() : nullptr),
        scalars_(workspace.batch.scalars[b_]) {}

  void run() {
    if (team_.rank == 0) {
      *w_.solve = {};
      w_.solve->params = read_params<T>(p_);
      std::fill_n(w_.zeros, w_.columns, T{0});
      scalars_ = {};
    }
    team_.barrier();
    if (failed(saved_.status[b_])) return fill_failed();
    this->rebuild_u();
    if (p_.tv) this->linearise();
    right_hand_side();
    while (!solve().done) step();
    finish();
  }

 private:
  using System = ImplicitSystem<T>;
  using System::ahead, System::apply_jacobian, System::coupled, System::dual, System::f,
      System::for_differences, System::for_duals, System::for_rows, System::solve, System::total;
  using System::b_, System::begin_, System::classes_, System::end_, System::image_, System::p_,
      System::saved_, System::team_, System::w_;

  // r = (P grad J u_bar, sums of J u_bar), a = beta = 0, p = z.
  void right_hand_side() {
    apply_jacobian(grad_u_, nullptr, nullptr, T{1});
    team_.barrier();
    if (p_.tv) this->gradient_rows(w_.r, nullptr);
    team_.barrier();
    for_duals([&](int64_t k, int64_t x, double &rr, double &rz) {
      w_.a[k] = 0;
      w_.p[k] = w_.r[k] / w_.diagonal[x];
      rr += static_cast<double>(w_.r[k]) * w_.r[k];
      rz += static_cast<double>(w_.r[k]) * w_.p[k];
    });
    this->diagonal_of_beta();
    team_.barrier();
    if (team_.rank == 0) {
      double rr = total(w_.dots, 2, 0), rz = total(w_.dots, 2, 1);
      for (int i = 0; i < classes_; ++i) {
        w_.beta[i] = 0;
        w_.r_beta[i] = coupled(i) ? total(w_.sums, classes_, i) : 0;
        w_.p_beta[i] = w_.r_beta[i] / w_.diagonal_beta[i];
        rr += w_.r_beta[i] * w_.r_beta[i];
        rz += w_.r_beta[i] * w_.p_beta[i];
      }
      solve().rhs = rr;
      solve().rz = rz;
      // A right-hand side that is not a number leaves nothing to solve, and is no solution.
      solve().relative = rr > 0 ? 1 : rr;
      solve().done = !(rr > 0);
      solve().converged = rr == 0;
    }
    team_.barrier();
  }

  // One step of preconditioned conjugate gradients.
  void step() {
    apply_jacobian(nullptr, w_.p_beta, p_.tv ? w_.p : nullptr, T{1});
    team_.barrier();
    if (p_.tv) this->gradient_rows(w_.mp, w_.p);
    for_duals(
        [&](int64_t k, int64_t, double &pmp, double &) { pmp += static_cast<double>(w_.p[k]) * w_.mp[k]; });
    team_.barrier();
    if (team_.rank == 0) {
      double pmp = total(w_.dots, 2, 0);
      for (int i = 0; i < classes_; ++i) {
        w_.mp_beta[i] = coupled(i) ? total(w_.sums, classes_, i) : 0;
        pmp += w_.p_beta[i] * w_.mp_beta[i];
      }
      solve().alpha = pmp > 0 ? solve().rz / pmp : 0;
    }
    team_.barrier();
    const T alpha = static_cast<T>(solve().alpha);
    for_duals([&](int64_t k, int64_t x, double &rr, double &rz) {
      w_.a[k] += alpha * w_.p[k];
      w_.r[k] -= alpha * w_.mp[k];
      rr += static_cast<double>(w_.r[k]) * w_.r[k];
      rz += static_cast<double>(w_.r[k]) * (w_.r[k] / w_.diagonal[x]);
    });
    team_.barrier();
    if (team_.rank == 0) end_step();
    team_.barrier();
    if (solve().done) return;
    const T direction = static_cast<T>(solve().direction);
    for_duals([&](int64_t k, int64_t x, double &, double &) {
      w_.p[k] = w_.r[k] / w_.diagonal[x] + direction * w_.p[k];
    });
    team_.barrier();
  }

  void end_step() {
    Solve &s = solve();
    double rr = total(w_.dots, 2, 0), rz = total(w_.dots, 2, 1);
    for (int i = 0; i < classes_; ++i) {
      w_.beta[i] += s.alpha * w_.p_beta[i];
      w_.r_beta[i] -= s.alpha * w_.mp_beta[i];
      rr += w_.r_beta[i] * w_.r_beta[i];
      rz += w_.r_beta[i] * w_.r_beta[i] / w_.diagonal_beta[i];
    }
    s.relative = std::sqrt(rr / s.rhs);
    s.converged = s.relative <= p_.implicit_tolerance;
    ++s.iterations;
    // alpha = 0: no descent is left in this precision.
    s.done = s.converged || s.iterations >= p_.implicit_iterations || s.alpha == 0;
    s.direction = s.rz > 0 ? rz / s.rz : 0;
    s.rz = rz;
    for (int i = 0; i < classes_; ++i)
      w_.p_beta[i] = w_.r_beta[i] / w_.diagonal_beta[i] + s.direction * w_.p_beta[i];
  }

  // o_bar = J(u_bar - K(a, beta)) and what follows from it.
  void finish() {
    apply_jacobian(grad_u_, w_.beta, p_.tv ? w_.a : nullptr, T{-1});
    team_.barrier();
    T *features = grads_.features ? static_cast<T *>(grads_.features) + b_ * image_.plane() : nullptr;
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      double *dots = w_.dots + 2 * s;  // gradients of eps and lam
      if (r == 0) dots[0] = dots[1] = 0;
      if (p_.tv) std::fill_n(grad_bound_ + offset, w_.columns, T{0});
      for (int i = 0; i < classes_; ++i) {
        const int64_t at = i * image_.voxels() + offset;
        for (int64_t x = at; x < at + w_.columns; ++x)
          if (w_.u[x] > 0) dots[0] -= static_cast<double>(w_.w[x]) * std::log(static_cast<double>(w_.u[x]));
        if (features)
          for (int64_t x = at; x < at + w_.columns; ++x)
            features[x] = grads_.accumulate ? features[x] + w_.w[x] : w_.w[x];
        for (int c = 0; p_.tv && c < p_.grid.nd; ++c) {
          const T *unit = dual(w_.unit, i, c) + offset;
          for_differences(w_.w + at, ahead(c, s, r, offset),
                          [&](int64_t x, T slope) { grad_bound_[offset + x] += unit[x] * slope; });
        }
      }
      for (int64_t x = offset; p_.tv && x < offset + w_.columns; ++x)
        dots[1] += static_cast<double>(image_.edge ? image_.edge[x] : 1) * grad_bound_[x];
    });
    team_.barrier();
    if (team_.rank != 0) return;
    scalars_.eps = total(w_.dots, 2, 0);
    scalars_.lam = p_.tv ? total(w_.dots, 2, 1) : 0;
    write_bounds();
    const int32_t status = solve().converged ? SEGPRIOR_CONVERGED : SEGPRIOR_ITERATION_CAP;
    if (grads_.info) grads_.info[b_] = {status, solve().iterations, solve().relative};
  }

  void write_bounds() const {
    const auto write = [&](void *grad, int i, double value) {
      if (!grad) return;
      T &out = static_cast<T *>(grad)[b_ * classes_ + i];
      out = static_cast<T>(value + (grads_.accumulate ? out : 0));
    };
    for (int i = 0; i < classes_ && p_.volume != Volume::none; ++i) {
      const bool equality = p_.volume == Volume::equality, on = coupled(i);
      write(grads_.volume_upper, i, on && (equality || f()[i] < 0) ? w_.beta[i] : 0);
      write(grads_.volume_lower, i, on && !equality && f()[i] > 0 ? w_.beta[i] : 0);
    }
  }

  void fill_failed() {
    const int64_t size = image_.slice_size(), first = begin_ * size, n = (end_ - begin_) * size;
    const T nan = static_cast<T>(NAN);
    T *features = grads_.features ? static_cast<T *>(grads_.features) + b_ * image_.plane() : nullptr;
    for (int i = 0; features && i < classes_; ++i)
      std::fill_n(features + i * image_.voxels() + first, n, nan);
    if (p_.tv) std::fill_n(grad_bound_ + first, n, nan);
    if (team_.rank != 0) return;
    scalars_.eps = scalars_.lam = NAN;
    for (void *grad : {grads_.volume_lower, grads_.volume_upper})
      if (grad) std::fill_n(static_cast<T *>(grad) + b_ * classes_, classes_, nan);
    if (grads_.info) grads_.info[b_] = {saved_.status[b_], 0, NAN};
  }

  const Grads &grads_;
  const T *const grad_u_;
  T *const grad_bound_;
  ScalarGrads &scalars_;
};

}  // namespace

template <class T>
size_t implicit_workspace(const Problem &p, int threads) {
  Arena arena;
  ImplicitWorkspace<T>::carve(p, threads, 0, arena);
  return arena.used();
}

template <class T>
void backward_implicit(const Problem &p, const void *grad_u, const Grads &grads, void *workspace,
                       const void *saved_memory, int threads) {
  Arena saved_arena(const_cast<void *>(saved_memory));
  const Saved<T> saved = carve_saved<T>(p, saved_arena);
  for_images(threads, p.grid.batch, [&](const Team &team, int team_index, int64_t b) {
    Arena arena(workspace);
    const ImplicitWorkspace<T> w = ImplicitWorkspace<T>::carve(p, threads, team_index, arena);
    const Image<T> image(p, b, w.mine.mask);
    prepare_mask(p, b, w.mine.mask, team);
    Implicit<T>(p, static_cast<const T *>(grad_u), grads, w, saved, image, team).run();
  });
  Arena arena(workspace);
  finish_batch(p, grads, ImplicitWorkspace<T>::carve(p, threads, 0, arena).batch);
}

template size_t implicit_workspace<float>(const Problem &, int);
template size_t implicit_workspace<double>(const Problem &, int);
template void backward_implicit<float>(const Problem &, const void *, const Grads &, void *, const void *,
                                       int);
template void backward_implicit<double>(const Problem &, const void *, const Grads &, void *, const void *,
                                        int);

}  // namespace segprior::softmax
