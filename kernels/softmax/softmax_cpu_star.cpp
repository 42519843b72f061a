#include "kernels/softmax/softmax_cpu_star.h"

#include <algorithm>

namespace segprior::softmax {
namespace {

// f(slice, row, offset of the row, offset of the row one voxel back along component c) for this thread's
// rows. Before the first row of an axis comes the last one: every direction along the axis is 0 there.
template <class T, class F>
void for_band(const Image<T> &image, const Team &team, const F &f) {
  const int64_t *extent = image.grid().extent;
  image.for_rows(team.begin(image.slices()), team.end(image.slices()), [&](int64_t s, int64_t r, int64_t at) {
    const int64_t back[2] = {s == 0 ? at + (extent[0] - 1) * image.slice_size() : at - image.slice_size(),
                             r == 0 ? at + (extent[1] - 1) * image.columns() : at - image.columns()};
    f(s, r, at, back);
  });
}

// Per voxel of a row: f(x, c - x, [1 / h_c, or 0 where component c does not exist]).
template <class T, class F>
void for_offsets(const Image<T> &image, const T *center, int64_t s, int64_t r, int64_t at, const F &f) {
  const Grid &g = image.grid();
  const int64_t last[3] = {g.extent[0] - 1, g.extent[1] - 1, g.extent[2] - 1};
  for (int64_t x = 0; x < g.extent[2]; ++x) {
    const int64_t position[3] = {s, r, x};
    T offset[3], scale[3];
    for (int c = 0; c < g.nd; ++c) {
      const int axis = g.axes[c];
      const bool exists =
          image.link ? image.link[c * image.voxels() + at + x] > 0 : position[axis] < last[axis];
      offset[c] = center[c] - static_cast<T>(position[axis]);
      scale[c] = exists ? static_cast<T>(g.inv_spacing[axis]) : T{0};
    }
    f(x, offset, scale);
  }
}

template <class T>
const T *center_of(const Image<T> &image, int m) {
  const Problem &p = image.problem;
  return static_cast<const T *>(p.star.center) + (image.index * p.star.count + m) * p.grid.nd;
}

template <class T>
void rows_ahead(const Image<T> &image, const T *plane, int64_t s, int64_t r, int64_t at,
                const T *(&next)[2]) {
  Strided<const T> rows[2] = {};
  image.ahead(plane, s, r, at, rows);
  for (int c = 0; c < 2; ++c) next[c] = rows[c].row;
}

}  // namespace

template <class T>
void StarForce<T>::prepare() const {
  if (stars() == 0) return;
  const Problem &p = image_.problem;
  for (int m = 0; m < stars(); ++m) {
    if (team_.rank == 0)
      buffers_.tau[m] = p.star.has_tau        ? static_cast<double>(static_cast<const T *>(p.star.tau)[m])
                        : p.star.tau_host > 0 ? p.star.tau_host
                                              : step_rule(p).star_tau_slope() * params_.eps;
    T *direction = buffers_.direction + direction_offset(m);
    T *grad = buffers_.grad_direction ? buffers_.grad_direction + direction_offset(m) : nullptr;
    for_band(image_, team_, [&](int64_t s, int64_t r, int64_t at, const int64_t *) {
      const int64_t position[3] = {s, r, 0};
      StarDirectionRow<T> row{};
      row.columns = image_.columns();
      row.voxels = image_.voxels();
      row.nd = p.grid.nd;
      for (int c = 0; c < row.nd; ++c) {
        const int axis = p.grid.axes[c];
        const bool last = axis != 2 && position[axis] + 1 == p.grid.extent[axis];
        row.offset[c] = center_of(image_, m)[c] - static_cast<T>(position[axis]);
        row.scale[c] = last ? T{0} : static_cast<T>(p.grid.inv_spacing[axis]);
      }
      row.link = image_.link ? image_.link + at : nullptr;
      row.direction = direction + at;
      image_.rows.star_directions(row);
      for (int c = 0; grad && c < p.grid.nd; ++c)
        std::fill_n(grad + c * image_.voxels() + at, image_.columns(), T{0});
    });
  }
  team_.barrier();
}

template <class T>
bool StarForce<T>::centers_finite() const {
  for (int m = 0; m < stars(); ++m)
    for (int c = 0; c < image_.grid().nd; ++c)
      if (!std::isfinite(center_of(image_, m)[c])) return false;
  return true;
}

template <class T>
bool StarForce<T>::tau_valid() const {
  for (int m = 0; m < stars(); ++m)
    if (!(buffers_.tau[m] > 0 && buffers_.tau[m] < INFINITY)) return false;
  return true;
}

template <class T>
double StarForce<T>::max_tau() const {
  return stars() > 0 ? *std::max_element(buffers_.tau, buffers_.tau + stars()) : 0;
}

template <class T>
void StarForce<T>::step(const T *u, const StarIterate<T> &in, const StarIterate<T> &out, double beta,
                        double *restart) const {
  for (int m = 0; m < stars(); ++m) {
    const T *plane = u + class_offset(m);
    const int64_t star = m * image_.voxels();
    for_band(image_, team_, [&](int64_t s, int64_t r, int64_t at, const int64_t *) {
      if (restart && m == 0 && r == 0) restart[s] = 0;
      double sum = 0;
      StarStepRow<T> row{};
      row.columns = image_.columns();
      row.voxels = image_.voxels();
      row.nd = image_.grid().nd;
      row.u = plane + at;
      rows_ahead(image_, plane, s, r, at, row.u_next);
      row.direction = buffers_.direction + direction_offset(m) + at;
      row.v_in = in.v + star + at;
      row.v_out = out.v + star + at;
      row.g_in = in.g ? in.g + star + at : nullptr;
      row.g_out = out.g ? out.g + star + at : nullptr;
      row.tau = static_cast<T>(buffers_.tau[m]);
      row.beta = static_cast<T>(beta);
      row.restart = &sum;
      image_.rows.star_step(row);
      if (restart) restart[s] += sum / buffers_.tau[m];
    });
  }
}

template <class T>
void StarForce<T>::add_divergence(int m, const T *field, double scale, const T *from, T *out) const {
  const T *direction = buffers_.direction + direction_offset(m);
  field += m * image_.voxels();
  from += class_offset(m);
  out += class_offset(m);
  for_band(image_, team_, [&](int64_t, int64_t, int64_t at, const int64_t *back) {
    StarDivergenceRow<T> row{};
    row.columns = image_.columns();
    row.voxels = image_.voxels();
    row.nd = image_.grid().nd;
    row.v = field + at;
    row.direction = direction + at;
    for (int c = 0; c + 1 < row.nd; ++c) {
      row.v_prev[c] = field + back[c];
      row.direction_prev[c] = direction + c * image_.voxels() + back[c];
    }
    row.scale = static_cast<T>(scale);
    row.from = from + at;
    row.out = out + at;
    image_.rows.star_divergence(row);
  });
}

template <class T>
void StarForce<T>::force(const T *from, const T *v, T *base) const {
  for (int m = 0; m < stars(); ++m) add_divergence(m, v, -1, from, base);
}

template <class T>
void StarForce<T>::adjoint_u(const T *grad_y, T *grad_u) const {
  for (int m = 0; m < stars(); ++m) add_divergence(m, grad_y, buffers_.tau[m], grad_u, grad_u);
}

template <class T>
void StarForce<T>::adjoint(const T *grad_logits, const T *u, const T *v_in, const T *v_out, T *grad_y,
                           T *grad_v, double beta, double beta_next, bool want_center,
                           double *grad_tau) const {
  if (stars() == 0) return;
  for (int m = 0; m < stars(); ++m) {
    const T *u_plane = u + class_offset(m), *grad_plane = grad_logits + class_offset(m);
    const int64_t star = m * image_.voxels();
    for_band(image_, team_, [&](int64_t s, int64_t r, int64_t at, const int64_t *) {
      double *sum = buffers_.partial + s * stars() + m;
      if (r == 0) *sum = 0;
      StarAdjointRow<T> row{};
      row.columns = image_.columns();
      row.voxels = image_.voxels();
      row.nd = image_.grid().nd;
      row.grad_logits = grad_plane + at;
      rows_ahead(image_, grad_plane, s, r, at, row.grad_logits_next);
      row.u = u_plane + at;
      rows_ahead(image_, u_plane, s, r, at, row.u_next);
      row.direction = buffers_.direction + direction_offset(m) + at;
      row.v_in = v_in + star + at;
      row.v_out = v_out + star + at;
      row.grad_y = grad_y + star + at;
      row.grad_v = grad_v ? grad_v + star + at : nullptr;
      row.tau = static_cast<T>(buffers_.tau[m]);
      row.beta = static_cast<T>(beta);
      row.beta_next = static_cast<T>(beta_next);
      if (want_center) row.grad_direction = buffers_.grad_direction + direction_offset(m) + at;
      row.tau_sum = sum;
      image_.rows.star_adjoint(row);
    });
  }
  team_.barrier();
  if (team_.rank == 0)
    for (int64_t s = 0; s < image_.slices(); ++s)
      for (int m = 0; m < stars(); ++m) grad_tau[m] += buffers_.partial[s * stars() + m];
  team_.barrier();
}

template <class T>
void StarForce<T>::center_gradient(double *grad_center) const {
  const int nd = image_.grid().nd, per_slice = stars() * nd;
  for (int m = 0; m < stars(); ++m) {
    const T *grad = buffers_.grad_direction + direction_offset(m);
    for_band(image_, team_, [&](int64_t s, int64_t r, int64_t at, const int64_t *) {
      double *sum = buffers_.partial + s * per_slice + m * nd;
      if (r == 0) std::fill_n(sum, nd, 0.0);
      for_offsets(image_, center_of(image_, m), s, r, at, [&](int64_t x, const T *offset, const T *scale) {
        T unit[3], grad_unit[3], part[3];
        const T length = star_direction(nd, offset, unit);
        for (int c = 0; c < nd; ++c) grad_unit[c] = scale[c] * grad[c * image_.voxels() + at + x];
        star_direction_adjoint(nd, length, unit, grad_unit, part);
        for (int c = 0; c < nd; ++c) sum[c] += part[c];
      });
    });
  }
  team_.barrier();
  if (team_.rank == 0 && stars() > 0) {
    std::fill_n(grad_center, per_slice, 0.0);
    for (int64_t s = 0; s < image_.slices(); ++s)
      for (int k = 0; k < per_slice; ++k) grad_center[k] += buffers_.partial[s * per_slice + k];
  }
  team_.barrier();
}

template class StarForce<float>;
template class StarForce<double>;

}  // namespace segprior::softmax
