// One dual step of one image on the CPU: a single pass over the image that updates the dual, forms the new
// logits in the place of u, and sums the masses. Shared by forward and by backward's recomputation.
//
// Why one pass is enough: a row's step needs u of the row and of its forward neighbours, and the new dual of
// its backward neighbours. Walking the slices upwards, u of a slice may be overwritten as soon as the slice
// is done. Each thread walks its own band of slices; what it needs from the bands beside it is copied (u of
// the slice after) or computed twice (the dual of the slice before) first, into halos.
#pragma once

#include <cstring>

#include "kernels/common/parallel.h"
#include "kernels/softmax/softmax.h"
#include "kernels/softmax/softmax_cpu_mask.h"
#include "kernels/softmax/softmax_cpu_rows.h"
#include "kernels/softmax/softmax_math.h"

namespace segprior::softmax {

// One image of the call: geometry and inputs. With a mask, edges are the masked copies: read them after
// prepare_mask.
template <class T>
struct Image {
  const Problem &problem;
  const RowKernels<T> &rows;
  int64_t index;
  const T *features;
  const T *edge, *td_edge;  // null: 1
  const T *valid, *link;    // as in MaskBuffers; null without a mask

  Image(const Problem &p, int64_t b, const MaskBuffers<T> &mask)
      : problem(p),
        rows(row_kernels<T>()),
        index(b),
        features(static_cast<const T *>(p.features) + b * plane()),
        edge(mask.edge ? mask.edge : of_image(p.has_edge, p.edge, p.edge_shared)),
        td_edge(mask.td_edge ? mask.td_edge : of_image(p.td.has_edge, p.td.edge, p.td.edge_shared)),
        valid(mask.valid),
        link(mask.link) {}

  const Grid &grid() const { return problem.grid; }
  int classes() const { return static_cast<int>(grid().classes); }
  int64_t voxels() const { return grid().voxels(); }
  int64_t plane() const { return grid().classes * voxels(); }  // all classes of a scalar field
  int64_t dual_size() const { return plane() * grid().nd; }
  int64_t slices() const { return grid().extent[0]; }
  int64_t slice_size() const { return grid().extent[1] * grid().extent[2]; }
  int64_t columns() const { return grid().extent[2]; }
  const T *edge_row(int64_t offset) const { return edge ? edge + offset : nullptr; }

  // Of the first row.
  RowShape<T> shape(T *scratch) const {
    RowShape<T> s{columns(), voxels(), classes(), grid().nd, {}, scratch, valid, link};
    for (int c = 0; c < s.nd; ++c) s.inv_spacing[c] = static_cast<T>(grid().inv_spacing[grid().axes[c]]);
    return s;
  }

  // f(slice, row, offset of the row in the image) for the rows of slices [begin, end), in order.
  template <class F>
  void for_rows(int64_t begin, int64_t end, const F &f) const {
    for (int64_t s = begin; s < end; ++s)
      for (int64_t r = 0; r < grid().extent[1]; ++r) f(s, r, s * slice_size() + r * columns());
  }

  // The rows one voxel ahead of, or behind, a row of a scalar field, for the components that are not the
  // column axis. At the border: the row itself, or `zeros`.
  void ahead(const T *field, int64_t slice, int64_t row, int64_t offset, Strided<const T> (&out)[2]) const {
    for (int c = 0; c + 1 < grid().nd; ++c) {
      const bool last = c == 0 ? slice + 1 == slices() : row + 1 == grid().extent[1];
      out[c] = {field + offset + (last ? 0 : (c == 0 ? slice_size() : columns())), voxels()};
    }
  }
  DualRow<T> dual_row(const T *dual, int64_t slice, int64_t row, int64_t offset, const T *zeros) const {
    DualRow<T> d{dual + offset, {}};
    for (int c = 0; c + 1 < grid().nd; ++c) {
      const bool first = c == 0 ? slice == 0 : row == 0;
      const int64_t back = c == 0 ? slice_size() : columns();
      d.prev[c] = first ? Strided<const T>{zeros, 0}
                        : Strided<const T>{dual + c * voxels() + offset - back, grid().nd * voxels()};
    }
    return d;
  }

 private:
  const T *of_image(bool present, const void *field, bool shared) const {
    return present ? static_cast<const T *>(field) + (shared ? 0 : index) * voxels() : nullptr;
  }
};

// Scratch of one team. `thread` parts are per thread.
template <class T>
struct SweepBuffers {
  int64_t row_scratch;  // elements per thread
  int64_t halo;         // elements per thread and halo
  T *scratch, *halo_u, *halo_v, *zeros;
  double *mass;     // [slices][classes]
  double *restart;  // [slices]

  static SweepBuffers carve(const Problem &p, int threads, Arena &arena) {
    const Grid &g = p.grid;
    SweepBuffers b{};
    b.row_scratch = scratch_size<T>(static_cast<int>(g.classes), g.extent[2]);
    b.halo = p.tv && g.nd > 1 && threads > 1 ? g.classes * g.extent[1] * g.extent[2] : 0;
    b.scratch = arena.take<T>(threads * b.row_scratch);
    b.halo_u = arena.take<T>(threads * b.halo);
    b.halo_v = arena.take<T>(threads * b.halo);
    b.zeros = arena.take<T>(g.extent[2]);
    b.mass = arena.take<double>(g.extent[0] * g.classes);
    b.restart = arena.take<double>(g.extent[0]);
    return b;
  }
};

// The iterate of one image: v, and q when accelerated (else null). [I, nd, J].
template <class T>
struct Iterate {
  T *v, *q;
};

template <class T>
class Sweep {
 public:
  Sweep(const Image<T> &image, const Params &params, const SweepBuffers<T> &buffers, const Team &team)
      : image_(image),
        params_(params),
        buffers_(buffers),
        team_(team),
        shape_(image.shape(buffers.scratch + team.rank * buffers.row_scratch)),
        begin_(team.begin(image.slices())),
        end_(team.end(image.slices())) {}

  // For the row at `offset`, with this thread's scratch.
  RowShape<T> shape(int64_t offset) const {
    RowShape<T> s = shape_;
    if (s.valid) s.valid += offset, s.link += offset;
    return s;
  }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  const T *zeros() const { return buffers_.zeros; }

  // u <- S(u + shift) over this thread's band: turns pending logits into u.
  void finish_logits(T *u, const T *shift) const { finish_slices(u, shift, begin_, end_); }

  // One step. `base` [I, J]: features, with the force of the priors that keep u subtracted. `u` holds u, or
  // logits that still need `pending` added and the softmax taken (null: u). Afterwards it holds the new
  // logits (keep_logits) or the new u. Ends without a barrier.
  void step(const T *base, T *u, const T *pending, const Iterate<T> &in, const Iterate<T> &out, double beta,
            const T *shift, bool keep_logits) const {
    if (pending && begin_ < end_) {
      finish_slices(u, pending, begin_, begin_ + 1);
      if (end_ - begin_ > 1) finish_slices(u, pending, end_ - 1, end_);
    }
    const bool halos = buffers_.halo > 0 && team_.size > 1;
    if (halos) {
      team_.barrier();
      fill_halos(u, in, beta);
      team_.barrier();
    }
    for (int64_t s = begin_; s < end_; ++s) {
      if (pending && s + 2 < end_) finish_slices(u, pending, s + 1, s + 2);
      step_slice(base, u, in, out, beta, shift, keep_logits, s, halos);
    }
  }

 private:
  void finish_slices(T *u, const T *shift, int64_t begin, int64_t end) const {
    image_.for_rows(begin, end, [&](int64_t, int64_t, int64_t offset) {
      image_.rows.softmax(shape(offset), u + offset, T{1}, shift, u + offset);
    });
  }

  StepRow<T> step_row(const T *u, const Iterate<T> &in, double beta, int64_t s, int64_t r,
                      int64_t offset) const {
    StepRow<T> row{};
    row.shape = shape(offset);
    row.accelerate = in.q != nullptr;
    row.u = u + offset;
    image_.ahead(u, s, r, offset, row.u_next);
    row.v_in = in.v ? in.v + offset : nullptr;
    row.q_in = in.q ? in.q + offset : nullptr;
    row.edge = image_.edge_row(offset);
    row.lam = static_cast<T>(params_.lam);
    row.tau = static_cast<T>(params_.tau);
    row.beta = static_cast<T>(beta);
    return row;
  }

  void fill_halos(const T *u, const Iterate<T> &in, double beta) const {
    if (begin_ == end_) return;
    const int64_t size = image_.slice_size();
    T *halo_u = buffers_.halo_u + team_.rank * buffers_.halo;
    T *halo_v = buffers_.halo_v + team_.rank * buffers_.halo;
    if (end_ < image_.slices())
      for (int i = 0; i < image_.classes(); ++i)
        std::memcpy(halo_u + i * size, u + i * image_.voxels() + end_ * size, size * sizeof(T));
    if (begin_ > 0)
      image_.for_rows(begin_ - 1, begin_, [&](int64_t s, int64_t r, int64_t offset) {
        image_.rows.step_halo(step_row(u, in, beta, s, r, offset), {halo_v + r * image_.columns(), size});
      });
  }

  void step_slice(const T *base, T *u, const Iterate<T> &in, const Iterate<T> &out, double beta,
                  const T *shift, bool keep_logits, int64_t slice, bool halos) const {
    double *mass = buffers_.mass + slice * image_.classes(), *restart = buffers_.restart + slice;
    for (int i = 0; i < image_.classes(); ++i) mass[i] = 0;
    *restart = 0;
    image_.for_rows(slice, slice + 1, [&](int64_t s, int64_t r, int64_t offset) {
      StepRow<T> row = step_row(u, in, beta, s, r, offset);
      if (in.v) {
        const DualRow<T> dual = image_.dual_row(out.v, s, r, offset, buffers_.zeros);
        for (int c = 0; c < 2; ++c) row.v_prev[c] = dual.prev[c];
        if (halos && s == begin_ && s > 0)
          row.v_prev[0] = {buffers_.halo_v + team_.rank * buffers_.halo + r * image_.columns(),
                           image_.slice_size()};
        if (halos && s + 1 == end_ && end_ < image_.slices())
          row.u_next[0] = {buffers_.halo_u + team_.rank * buffers_.halo + r * image_.columns(),
                           image_.slice_size()};
        row.v_out = out.v + offset;
        row.q_out = out.q ? out.q + offset : nullptr;
      }
      row.features = base + offset;
      row.inv_eps = static_cast<T>(1 / params_.eps);
      row.shift = shift;
      row.out = u + offset;
      row.keep_logits = keep_logits;
      row.mass = keep_logits ? mass : nullptr;
      row.restart = restart;
      image_.rows.step(row);
    });
  }

  const Image<T> &image_;
  const Params &params_;
  const SweepBuffers<T> &buffers_;
  const Team team_;
  const RowShape<T> shape_;
  const int64_t begin_, end_;
};

}  // namespace segprior::softmax
