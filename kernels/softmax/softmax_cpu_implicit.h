// clang-format off
// The linear system of the implicit backward on the CPU, for TV and volume: at a fixed point (u, q, f), with
// J v = u (v - <u, v>) / eps and K(a, beta) = beta - div a,
//
//   M(a, beta) = (P grad J K(a, beta) + mu a, sum_x J K(a, beta))
//
// is symmetric and positive semi-definite. Per voxel and class y = q - tau grad u: where |y| > b the dual sits on
// its bound (active), P removes the component along y_hat and mu = max(-y_hat . grad u, 0) / b; elsewhere P = 1
// and mu = 0. Where b = 0 the dual cannot move: P = 0. beta couples the classes whose volume bound is active.
// clang-format on
#pragma once

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"

namespace segprior::softmax {

// Scalars of the solve, changed by rank 0 between two barriers.
struct Solve {
  Params params;
  double rz, rhs, relative, alpha, direction;
  int iterations;
  bool done, converged;
};

template <class T>
struct ImplicitBuffers {
  Solve *solve;
  MaskBuffers<T> mask;
  T *u, *w, *mu, *diagonal;                                  // [I, J]; mu < 0: fixed, P = 0
  T *unit, *a, *r, *p, *mp;                                  // [I, nd, J]; unit: y_hat where active, else 0
  T *row, *zeros, *scratch;                                  // per thread
  int64_t row_scratch, columns;                              // elements per thread
  double *sums;                                              // [slices][classes]
  double *dots;                                              // [slices][2]
  double *beta, *r_beta, *p_beta, *mp_beta, *diagonal_beta;  // [classes]
  T *shift;                                                  // [classes]

  static ImplicitBuffers carve(const Problem &p, int threads, Arena &arena) {
    const Grid &g = p.grid;
    const int64_t plane = g.classes * g.voxels(), dual = p.tv ? plane * g.nd : 0;
    ImplicitBuffers b{};
    b.solve = arena.take<Solve>(1);
    b.mask = MaskBuffers<T>::carve(p, arena);
    b.u = arena.take<T>(plane);
    b.w = arena.take<T>(plane);
    b.mu = arena.take<T>(p.tv ? plane : 0);
    b.diagonal = arena.take<T>(p.tv ? plane : 0);
    for (T **field : {&b.unit, &b.a, &b.r, &b.p, &b.mp}) *field = arena.take<T>(dual);
    b.columns = g.extent[2];
    b.row_scratch = scratch_size<T>(static_cast<int>(g.classes), g.extent[2]);
    b.row = arena.take<T>(threads * b.columns);
    b.zeros = arena.take<T>(b.columns);
    b.scratch = arena.take<T>(threads * b.row_scratch);
    b.sums = arena.take<double>(g.extent[0] * g.classes);
    b.dots = arena.take<double>(g.extent[0] * 2);
    for (double **values : {&b.beta, &b.r_beta, &b.p_beta, &b.mp_beta, &b.diagonal_beta})
      *values = arena.take<double>(g.classes);
    b.shift = arena.take<T>(g.classes);
    return b;
  }
};

template <class T>
class ImplicitSystem {
 public:
  ImplicitSystem(const Problem &p, const ImplicitBuffers<T> &buffers, const Saved<T> &saved,
                 const Image<T> &image, const Team &team)
      : p_(p),
        w_(buffers),
        saved_(saved),
        team_(team),
        b_(image.index),
        image_(image),
        classes_(image.classes()),
        begin_(team.begin(image.slices())),
        end_(team.end(image.slices())),
        row_(w_.row + team.rank * w_.columns),
        q_(p.tv ? saved.slot(saved.checkpoints) + b_ * image.dual_size() : nullptr) {}

 protected:
  Solve &solve() const { return *w_.solve; }
  double eps() const { return solve().params.eps; }
  const double *f() const {
    return saved_.volume_dual + (static_cast<int64_t>(saved_.iterations[b_]) * p_.grid.batch + b_) * classes_;
  }
  // Whether class i's volume bound takes part: not excluded, and its multiplier on.
  bool coupled(int i) const {
    return p_.volume != Volume::none && std::isfinite(f()[i]) &&
           (p_.volume == Volume::equality || f()[i] != 0);
  }
  T *dual(T *field, int i, int c) const {
    return field + (static_cast<int64_t>(i) * p_.grid.nd + c) * image_.voxels();
  }
  const T *dual(const T *field, int i, int c) const { return dual(const_cast<T *>(field), i, c); }
  template <class F>
  void for_rows(const F &f) const {
    image_.for_rows(begin_, end_, f);
  }

  // Component c of the differences of one row: those of its first `count` voxels exist, the neighbour is
  // `stride` ahead.
  struct Ahead {
    int64_t stride, count;
    T inv_h;
    const T *link;
  };
  Ahead ahead(int c, int64_t s, int64_t r, int64_t offset) const {
    const Grid &g = p_.grid;
    const int axis = g.axes[c];
    const bool last = axis == 0 ? s + 1 == g.extent[0] : (axis == 1 && r + 1 == g.extent[1]);
    return {axis == 0 ? image_.slice_size() : (axis == 1 ? g.extent[2] : 1),
            last ? 0 : (axis == 2 ? g.extent[2] - 1 : g.extent[2]), static_cast<T>(g.inv_spacing[axis]),
            image_.link ? image_.link + c * image_.voxels() + offset : nullptr};
  }
  // f(x, difference of `field` along component c) for the voxels of one row, 0 where there is none.
  template <class F>
  void for_differences(const T *field, const Ahead &a, const F &f) const {
    for (int64_t x = 0; x < a.count; ++x) {
      const T slope = a.inv_h * (field[x + a.stride] - field[x]);
      f(x, a.link ? slope * a.link[x] : slope);
    }
    for (int64_t x = a.count; x < w_.columns; ++x) f(x, T{0});
  }

  double total(const double *per_slice, int64_t stride, int64_t at) const {
    double sum = 0;
    for (int64_t s = 0; s < image_.slices(); ++s) sum += per_slice[s * stride + at];
    return sum;
  }

  // u = S((o - div q + f) / eps) of the final state.
  void rebuild_u() {
    const double last = saved_.iterations[b_] == 0 ? solve().params.init_eps : eps();
    if (team_.rank == 0) dual_shift(classes_, p_.volume != Volume::none ? f() : nullptr, last, w_.shift);
    team_.barrier();
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      RowShape<T> shape = image_.shape(w_.scratch + team_.rank * w_.row_scratch);
      if (shape.valid) shape.valid += offset;
      const DualRow<T> row = p_.tv ? image_.dual_row(q_, s, r, offset, w_.zeros) : DualRow<T>{};
      image_.rows.logits(shape, image_.features + offset, p_.tv ? &row : nullptr, static_cast<T>(1 / last),
                         w_.shift, w_.u + offset);
      image_.rows.softmax(shape, w_.u + offset, T{1}, nullptr, w_.u + offset);
    });
    team_.barrier();
  }

  // unit, mu, and the diagonal of M for the preconditioner.
  void linearise() {
    const T lam = static_cast<T>(solve().params.lam), tau = static_cast<T>(solve().params.tau);
    const T inv_eps = static_cast<T>(1 / eps());
    const int nd = p_.grid.nd;
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      for (int i = 0; i < classes_; ++i) {
        const T *u = w_.u + i * image_.voxels() + offset;
        T *mu = w_.mu + i * image_.voxels() + offset, *diagonal = w_.diagonal + i * image_.voxels() + offset;
        std::fill_n(row_, w_.columns, T{0});
        std::fill_n(mu, w_.columns, T{0});
        std::fill_n(diagonal, w_.columns, T{0});
        for (int c = 0; c < nd; ++c) {
          const Ahead a = ahead(c, s, r, offset);
          const T *q = dual(q_, i, c) + offset;
          T *unit = dual(w_.unit, i, c) + offset;
          for_differences(u, a, [&](int64_t x, T slope) {
            const T y = q[x] - tau * slope;
            unit[x] = y;
            row_[x] += y * y;
            mu[x] -= y * slope;
            if (x < a.count)
              diagonal[x] =
                  std::max(diagonal[x], a.inv_h * a.inv_h * inv_eps *
                                            (u[x] * (1 - u[x]) + u[x + a.stride] * (1 - u[x + a.stride])));
          });
        }
        for (int64_t x = 0; x < w_.columns; ++x) {
          const T bound = image_.edge ? lam * image_.edge[offset + x] : lam;
          const T norm = std::sqrt(row_[x]), inverse = norm > bound ? 1 / norm : 0;
          for (int c = 0; c < nd; ++c) dual(w_.unit, i, c)[offset + x] *= inverse;
          mu[x] = bound > 0 ? std::max(mu[x] * inverse, T{0}) / bound : T{-1};
          // Voxels that hardly move get a floor: they have next to no right-hand side either.
          diagonal[x] = std::max(diagonal[x], T(1e-6) * inv_eps) + std::max(mu[x], T{0});
        }
      }
    });
    team_.barrier();
  }

  // w <- J(incoming + beta - div a) and its sums per slice and class; null: not in the sum.
  void apply_jacobian(const T *incoming, const double *beta, const T *a, T sign) const {
    const T inv_eps = static_cast<T>(1 / eps());
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      double *sums = w_.sums + s * classes_;
      if (r == 0) std::fill_n(sums, classes_, 0.0);
      std::fill_n(row_, w_.columns, T{0});
      for (int i = 0; i < classes_; ++i) {
        T *w = w_.w + i * image_.voxels() + offset;
        const T *u = w_.u + i * image_.voxels() + offset;
        const T *from = incoming ? incoming + i * image_.voxels() + offset : nullptr;
        const T shift = beta ? sign * static_cast<T>(beta[i]) : 0;
        for (int64_t x = 0; x < w_.columns; ++x) w[x] = (from ? from[x] : 0) + shift;
        if (a) subtract_divergence(a, i, s, r, offset, sign, w);
        for (int64_t x = 0; x < w_.columns; ++x) row_[x] += u[x] * w[x];
      }
      for (int i = 0; i < classes_; ++i) {
        T *w = w_.w + i * image_.voxels() + offset;
        const T *u = w_.u + i * image_.voxels() + offset;
        double sum = 0;
        for (int64_t x = 0; x < w_.columns; ++x) {
          w[x] = u[x] * (w[x] - row_[x]) * inv_eps;
          sum += w[x];
        }
        sums[i] += sum;
      }
    });
  }

  // w -= sign div a of class i, one row. Components that point out of the grid are 0.
  void subtract_divergence(const T *a, int i, int64_t s, int64_t r, int64_t offset, T sign, T *w) const {
    const Grid &g = p_.grid;
    for (int c = 0; c < g.nd; ++c) {
      const int axis = g.axes[c];
      const T *v = dual(a, i, c) + offset;
      const T scale = sign * static_cast<T>(g.inv_spacing[axis]);
      for (int64_t x = 0; x < w_.columns; ++x) w[x] -= scale * v[x];
      if (axis == 2)
        for (int64_t x = 1; x < w_.columns; ++x) w[x] += scale * v[x - 1];
      else if (axis == 0 ? s > 0 : r > 0)
        for (int64_t x = 0, back = axis == 0 ? image_.slice_size() : w_.columns; x < w_.columns; ++x)
          w[x] += scale * v[x - back];
    }
  }

  // out <- P grad w + mu a (a null: without), one row of class i.
  void project_gradient(int i, int64_t s, int64_t r, int64_t offset, const T *a, T *out) const {
    const T *w = w_.w + i * image_.voxels() + offset, *mu = w_.mu + i * image_.voxels() + offset;
    std::fill_n(row_, w_.columns, T{0});
    for (int c = 0; c < p_.grid.nd; ++c) {
      const T *unit = dual(w_.unit, i, c) + offset;
      T *to = dual(out, i, c) + offset;
      for_differences(w, ahead(c, s, r, offset), [&](int64_t x, T slope) {
        to[x] = slope;
        row_[x] += unit[x] * slope;
      });
    }
    for (int c = 0; c < p_.grid.nd; ++c) {
      const T *unit = dual(w_.unit, i, c) + offset, *from = a ? dual(a, i, c) + offset : nullptr;
      T *to = dual(out, i, c) + offset;
      for (int64_t x = 0; x < w_.columns; ++x) {
        const T projected = to[x] - unit[x] * row_[x];
        to[x] = mu[x] < 0 ? T{0} : projected + (from ? mu[x] * from[x] : 0);
      }
    }
  }

  void gradient_rows(T *out, const T *a) const {
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      for (int i = 0; i < classes_; ++i) project_gradient(i, s, r, offset, a, out);
    });
  }

  // f(dual offset, x offset) -> {term 0, term 1} summed per slice over all dual elements of the band.
  template <class F>
  void for_duals(const F &f) const {
    if (!p_.tv) {
      for (int64_t s = begin_; s < end_; ++s) w_.dots[2 * s] = w_.dots[2 * s + 1] = 0;
      return;
    }
    for_rows([&](int64_t s, int64_t r, int64_t offset) {
      double *dots = w_.dots + 2 * s;
      if (r == 0) dots[0] = dots[1] = 0;
      for (int i = 0; i < classes_; ++i)
        for (int c = 0; c < p_.grid.nd; ++c) {
          const int64_t at = (static_cast<int64_t>(i) * p_.grid.nd + c) * image_.voxels() + offset;
          const int64_t scalar = i * image_.voxels() + offset;
          double first = 0, second = 0;
          for (int64_t x = 0; x < w_.columns; ++x) f(at + x, scalar + x, first, second);
          dots[0] += first;
          dots[1] += second;
        }
    });
  }

  // Every thread adds up all voxels of its classes: once a call.
  void diagonal_of_beta() const {
    const double inv_eps = 1 / eps();
    for (int i = team_.rank; i < classes_; i += team_.size) {
      double sum = 0;
      for (int64_t x = 0; x < image_.voxels(); ++x) {
        const double u = w_.u[i * image_.voxels() + x];
        sum += u * (1 - u);
      }
      w_.diagonal_beta[i] = std::max(sum, 1e-6) * inv_eps;
    }
  }

  const Problem &p_;
  const ImplicitBuffers<T> &w_;
  const Saved<T> &saved_;
  const Team team_;
  const int64_t b_;
  const Image<T> &image_;
  const int classes_;
  const int64_t begin_, end_;  // this thread's band of slices
  T *const row_;

 private:
  const T *const q_;
};

}  // namespace segprior::softmax
