// Connected components on the CPU: runs of rows are the nodes of a union-find; a thread has a band of rows,
// the bands' trees are joined afterwards, and the roots, which are the components' first runs, are numbered
// in raster order. The result does not depend on the bands: a tree's root is its smallest run, whatever the
// order of joining.
#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/common/arena.h"
#include "kernels/common/parallel.h"
#include "kernels/metrics/metrics_cpu.h"
#include "kernels/metrics/metrics_cpu_runs.h"

namespace segprior::metrics {
namespace {

struct Workspace {
  Runs runs;
  int64_t *roots;  // [threads]: components that begin in the band of each
};

Workspace carve(const Components &c, int threads, Arena &arena) {
  Runs r{};
  r.rows = c.extent[0] * c.extent[1];
  r.width = c.extent[2];
  r.words = (r.width + 63) / 64;
  r.capacity = c.by_value ? r.width : (r.width + 1) / 2;
  r.inside = arena.take<uint64_t>(r.rows, r.words);
  r.starts = arena.take<uint64_t>(r.rows, r.words);
  r.first = arena.take<int32_t>(r.rows, r.words);
  r.parent = arena.take<int32_t>(r.rows, r.capacity);
  return {r, arena.take<int64_t>(threads)};
}

// The work of one thread on one image.
template <class T>
class Band {
 public:
  Band(const Components &c, int64_t b, const Workspace &workspace, const Team &team)
      : c_(c),
        kernels_(run_kernels<T>()),
        runs_(workspace.runs),
        roots_(workspace.roots),
        team_(team),
        begin_(team.begin(runs_.rows)),
        end_(team.end(runs_.rows)),
        values_(static_cast<const T *>(c.map) + b * c.voxels()),
        mask_(c.mask ? c.mask + (c.mask_shared ? 0 : b * c.voxels()) : nullptr) {}

  void run(int64_t b) {
    grow();
    join_bands();
    const int64_t before = count_before();
    if (c_.class_count) count_classes(c_.class_count + b * c_.classes);
    const int64_t last = number(before);
    if (c_.count && team_.rank == team_.size - 1) c_.count[b] = last;
    team_.barrier();
    if (!c_.components) return;
    for (int64_t r = begin_; r < end_; ++r) kernels_.write(runs_, r, c_.components + b * c_.voxels());
  }

 private:
  // f(an earlier row that touches row r).
  template <class F>
  void earlier(int64_t r, const F &f) const {
    const int64_t height = c_.extent[1], y = r % height;
    if (y > 0) f(r - 1);
    if (r < height) return;
    if (c_.full && y > 0) f(r - height - 1);
    f(r - height);
    if (c_.full && y + 1 < height) f(r - height + 1);
  }
  void join(int64_t r, int64_t other) const {
    kernels_.join(runs_, r, other, c_.full, c_.by_value ? values_ : nullptr);
  }

  void grow() const {
    const bool has_background =
        c_.background >= std::numeric_limits<T>::min() && c_.background <= std::numeric_limits<T>::max();
    for (int64_t r = begin_; r < end_; ++r) {
      const int64_t at = r * runs_.width;
      kernels_.find(runs_, r, values_ + at, mask_ ? mask_ + at : nullptr, static_cast<T>(c_.background),
                    has_background, c_.by_value);
      earlier(r, [&](int64_t other) {
        if (other >= begin_) join(r, other);
      });
    }
  }

  // Groups of 1, 2, 4 .. bands become one with the next group, all pairs at once: no two threads work on one
  // tree.
  void join_bands() const {
    for (int group = 1; group < team_.size; group *= 2) {
      team_.barrier();
      if (team_.rank % (2 * group) != 0 || team_.rank + group >= team_.size) continue;
      const int64_t middle = first_row(team_.rank + group);
      const int64_t end =
          std::min(first_row(std::min(team_.rank + 2 * group, team_.size)), middle + c_.extent[1] + 1);
      for (int64_t r = middle; r < end; ++r)
        earlier(r, [&](int64_t other) {
          if (other >= begin_ && other < middle) join(r, other);
        });
    }
    team_.barrier();
  }
  int64_t first_row(int rank) const { return Team{rank, team_.size, nullptr}.begin(runs_.rows); }

  int32_t first_run(int64_t r) const { return static_cast<int32_t>(r * runs_.capacity); }
  int32_t end_run(int64_t r) const {
    const int64_t word = (r + 1) * runs_.words - 1;
    return runs_.first[word] + __builtin_popcountll(runs_.starts[word]);
  }

  // How many components begin before this band.
  int64_t count_before() const {
    if (team_.size == 1) return 0;
    int64_t count = 0, before = 0;
    for (int64_t r = begin_; r < end_; ++r)
      for (int32_t k = first_run(r), end = end_run(r); k < end; ++k) count += runs_.parent[k] == k;
    roots_[team_.rank] = count;
    team_.barrier();
    for (int k = 0; k < team_.rank; ++k) before += roots_[k];
    return before;
  }

  void count_classes(int64_t *class_count) const {
    constexpr int kLocal = 256;
    int64_t local[kLocal] = {};
    for (int64_t r = begin_; r < end_; ++r) {
      int32_t run = first_run(r);
      for (int64_t w = 0; w < runs_.words; ++w)
        for (uint64_t starts = runs_.starts[r * runs_.words + w]; starts; starts &= starts - 1, ++run) {
          if (runs_.parent[run] != run) continue;
          const int64_t value = values_[r * runs_.width + w * 64 + __builtin_ctzll(starts)];
          if (value < 0 || value >= c_.classes) continue;
          value < kLocal ? static_cast<void>(++local[value]) : add_to(class_count[value], 1);
        }
    }
    for (int64_t k = 0; k < std::min<int64_t>(kLocal, c_.classes); ++k) add_to(class_count[k], local[k]);
  }

  // Numbers the roots of the band from before + 1 on; returns the last number. Runs whose tree has its root
  // in the band get the number at once. The others keep a way to it: a run that joined a tree of an earlier
  // band points there, the rest of its tree at that run. Nothing of an earlier band is read: its thread works
  // there.
  int64_t number(int64_t last) const {
    const int32_t first = first_run(begin_);
    int32_t *parent = runs_.parent;
    for (int64_t r = begin_; r < end_; ++r)
      for (int32_t k = first_run(r), end = end_run(r); k < end; ++k) {
        const int32_t above = parent[k];
        if (above == k)
          parent[k] = -static_cast<int32_t>(++last);
        else if (above >= first)
          parent[k] = parent[above] < 0 || parent[above] >= first ? parent[above] : above;
      }
    return last;
  }

  const Components &c_;
  const RunKernels<T> &kernels_;
  const Runs runs_;
  int64_t *const roots_;
  const Team team_;
  const int64_t begin_, end_;  // rows
  const T *const values_;
  const uint8_t *const mask_;
};

}  // namespace

size_t components_workspace_cpu(const Components &c, int threads) {
  Arena arena;
  for (int k = 0; k < team_count(threads, c.batch); ++k) carve(c, threads, arena);
  return arena.used();
}

void components_cpu(const Components &c, void *workspace, int threads, void *) {
  if (c.batch == 0) return;
  if (c.class_count && c.classes > 0)
    std::memset(c.class_count, 0, c.batch * c.classes * sizeof *c.class_count);
  if (c.voxels() == 0) {
    if (c.count) std::memset(c.count, 0, c.batch * sizeof *c.count);
    return;
  }
  Arena one;
  carve(c, threads, one);
  for_images(threads, c.batch, [&](const Team &team, int index, int64_t b) {
    Arena arena(static_cast<char *>(workspace) + index * one.used());
    const Workspace own = carve(c, threads, arena);
    with_labels(c.type, c.map, [&](auto *values) {
      Band<std::remove_cv_t<std::remove_pointer_t<decltype(values)>>>(c, b, own, team).run(b);
    });
  });
}

}  // namespace segprior::metrics
