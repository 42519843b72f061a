// Confusion matrices, volumes and faces on the CPU: threads share chunks of voxels, turn them block by block
// into keys (which cell a voxel counts in), count these into a small histogram on their stack, and add that
// to the result with integer atomics. Memory is read once, and each row of a label map once more for each of
// its two neighbours; what is written is small.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/metrics/metrics_cpu.h"

namespace segprior::metrics {
namespace {

constexpr int64_t kChunk = 1 << 16;  // voxels of a job: they outweigh its histogram's cells
constexpr int kSmall = 64;           // classes: a larger matrix would outgrow stack and first cache

// add(key, how often) for each key. Neighbours are mostly alike: then 16 take one step.
template <class Add>
void count_keys(const int32_t *keys, int64_t count, const Add &add) {
  constexpr int kGroup = 16;
  int64_t k = 0;
  for (; k + kGroup <= count; k += kGroup) {
    int32_t other = 0;
    for (int j = 0; j < kGroup; ++j) other |= keys[k + j] ^ keys[k];
    if (other == 0) {
      add(keys[k], kGroup);
    } else {
      for (int j = 0; j < kGroup; ++j) add(keys[k + j], 1);
    }
  }
  for (; k < count; ++k) add(keys[k], 1);
}

// What labels of type T are compared as: the compiler's vectors hold twice as many of the narrow one.
template <class T>
using Label = std::conditional_t<sizeof(T) == sizeof(int64_t), int64_t, int32_t>;

// The keys of labels: `none` for those outside of 0 .. classes - 1.
void class_keys(LabelType type, const void *labels, int64_t at, int64_t count, int32_t classes, int32_t none,
                int32_t *keys) {
  with_labels(type, labels, [&](auto *typed) {
    const auto *from = typed + at;
    for (int64_t k = 0; k < count; ++k) {
      const Label<std::decay_t<decltype(*from)>> label = from[k];
      keys[k] = label >= 0 && label < classes ? static_cast<int32_t>(label) : none;
    }
  });
}

// ---- Confusion -----------------------------------------------------------------------------------------

// The predicted classes; -1: out of range, or all scores are NaN.
void predict(const Confusion &c, int64_t b, int64_t x, int64_t count, int32_t *out) {
  if (c.scores) {
    const int64_t bytes = c.scores_are == Storage::f64 ? 8 : c.scores_are == Storage::f32 ? 4 : 2;
    const char *scores = static_cast<const char *>(c.scores) + (b * c.classes * c.voxels + x) * bytes;
    return largest_of(c.scores_are)(scores, c.classes, c.voxels, count, out);
  }
  class_keys(c.prediction_type, c.prediction, b * c.voxels + x, count, static_cast<int32_t>(c.classes), -1,
             out);
}

// Cells of the matrix in raster order, then one for invalid voxels and one for those that do not count.
void confusion_keys(const Confusion &c, int64_t b, int64_t x, int64_t count, int32_t *keys) {
  predict(c, b, x, count, keys);
  const int32_t classes = static_cast<int32_t>(c.classes), invalid = classes * classes, unknown = invalid + 1;
  with_labels(c.label_type, c.labels, [&](auto *labels) {
    const auto *from = labels + b * c.voxels + x;
    using T = Label<std::decay_t<decltype(*from)>>;
    // A negative one adds nothing: nor does what no label can be.
    const bool possible = c.ignore_label >= 0 && c.ignore_label <= std::numeric_limits<T>::max();
    const T ignore = possible ? static_cast<T>(c.ignore_label) : T{-1};
    for (int64_t k = 0; k < count; ++k) {
      const T label = from[k];
      const bool valid = label >= 0 && label < classes && keys[k] >= 0;
      const int32_t cell = valid ? static_cast<int32_t>(label) * classes + keys[k] : invalid;
      keys[k] = label < 0 || label == ignore ? unknown : cell;
    }
  });
  if (!c.mask) return;
  const uint8_t *mask = c.mask + (c.mask_shared ? 0 : b * c.voxels) + x;
  for (int64_t k = 0; k < count; ++k) keys[k] = mask[k] ? keys[k] : unknown;
}

void count_chunk(const Confusion &c, int64_t b, int64_t begin, int64_t end) {
  const int32_t cells = static_cast<int32_t>(c.classes * c.classes);
  int64_t *matrix = c.matrix + b * cells, invalid = 0;
  int32_t keys[kBlock];
  uint32_t histogram[kSmall * kSmall + 2];  // of at most kChunk voxels
  const bool small = c.classes <= kSmall;
  if (small) std::fill_n(histogram, cells + 2, 0);
  for (int64_t x = begin; x < end; x += kBlock) {
    const int64_t count = std::min(kBlock, end - x);
    confusion_keys(c, b, x, count, keys);
    if (small)
      count_keys(keys, count, [&](int32_t key, int often) { histogram[key] += often; });
    else
      count_keys(keys, count, [&](int32_t key, int often) {
        if (key < cells) add_to(matrix[key], often);
        if (key == cells) invalid += often;
      });
  }
  if (small) {
    for (int32_t k = 0; k < cells; ++k) add_to(matrix[k], histogram[k]);
    invalid = histogram[cells];
  }
  if (c.invalid) add_to(c.invalid[b], invalid);
}

// ---- Volumes and faces ---------------------------------------------------------------------------------

constexpr int64_t kLocal = 256;  // classes whose counts a job keeps on its stack

// Where a job counts: its own histogram, or the result itself.
struct Counts {
  int64_t *volumes, *faces;  // [I], [I, axes]
  bool own;

  void add(int64_t *counts, int64_t index, int64_t often) const {
    if (own)
      counts[index] += often;
    else
      add_to(counts[index], often);
  }
};

class GeometryJob {
 public:
  GeometryJob(const Geometry &g, int64_t b, const Counts &counts)
      : g_(g),
        counts_(counts),
        none_(static_cast<int32_t>(g.classes)),
        labels_(b * g.voxels()),
        mask_(g.mask_shared ? 0 : labels_) {}

  // Rows of all slices, and the columns [x, x + count) of them.
  void run(int64_t first_row, int64_t last_row, int64_t x, int64_t count) {
    const int64_t height = g_.extent[1], width = g_.extent[2], rows = g_.extent[0] * height;
    const int64_t across = std::min(count + 1, width - x);
    int32_t buffers[3][kBlock + 1], *here = buffers[0], *below = buffers[1], *behind = buffers[2];
    bool at_hand = false;
    for (int64_t r = first_row; r < last_row; ++r) {
      if (!at_hand) read(r * width + x, across, here);
      if (g_.volumes)
        count_keys(here, count, [&](int32_t key, int often) {
          if (key < none_) counts_.add(counts_.volumes, key, often);
        });
      at_hand = (r + 1) % height != 0;
      if (g_.faces) {
        pairs(here, here + 1, across - 1, g_.axes - 1);
        if (at_hand) read((r + 1) * width + x, across, below), pairs(here, below, count, g_.axes - 2);
        if (r + height < rows) read((r + height) * width + x, count, behind), pairs(here, behind, count, 0);
        std::swap(here, below);
      } else {
        at_hand = false;
      }
    }
  }

 private:
  // The classes of voxels: I if the label is of no class, I + 1 where masked.
  void read(int64_t at, int64_t count, int32_t *keys) const {
    class_keys(g_.type, g_.labels, labels_ + at, count, none_, none_, keys);
    if (!g_.mask) return;
    const uint8_t *mask = g_.mask + mask_ + at;
    for (int64_t k = 0; k < count; ++k) keys[k] = mask[k] ? keys[k] : none_ + 1;
  }

  void pairs(const int32_t *a, const int32_t *b, int64_t count, int axis) const {
    constexpr int kGroup = 16;
    const auto face = [faces = counts_.faces + axis, counts = counts_, axes = g_.axes,
                       none = none_](int32_t key) {
      if (key < none) counts.add(faces, static_cast<int64_t>(key) * axes, 1);
    };
    for (int64_t k = 0; k < count;) {
      const int64_t end = std::min(k + kGroup, count);
      int32_t other = 0;
      for (int64_t j = k; j < end; ++j) other |= a[j] ^ b[j];
      for (; k < end && other != 0; ++k)
        if (a[k] != b[k] && a[k] <= none_ && b[k] <= none_) face(a[k]), face(b[k]);
      k = end;
    }
  }

  const Geometry &g_;
  const Counts &counts_;
  const int32_t none_;
  const int64_t labels_, mask_;  // where the image's begin
};

void geometry_chunk(const Geometry &g, int64_t b, int64_t first_row, int64_t last_row, int64_t x,
                    int64_t last_x) {
  int64_t *volumes = g.volumes ? g.volumes + b * g.classes : nullptr;
  int64_t *faces = g.faces ? g.faces + b * g.classes * g.axes : nullptr;
  int64_t own_volumes[kLocal], own_faces[kLocal * kAxes];
  Counts counts{volumes, faces, g.classes <= kLocal};
  if (counts.own) {
    counts.volumes = own_volumes;
    counts.faces = own_faces;
    std::fill_n(own_volumes, g.classes, 0);
    std::fill_n(own_faces, g.classes * g.axes, 0);
  }
  GeometryJob job(g, b, counts);
  for (; x < last_x; x += kBlock) job.run(first_row, last_row, x, std::min(kBlock, last_x - x));
  if (!counts.own) return;
  for (int64_t k = 0; volumes && k < g.classes; ++k) add_to(volumes[k], own_volumes[k]);
  for (int64_t k = 0; faces && k < g.classes * g.axes; ++k) add_to(faces[k], own_faces[k]);
}

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

void clear(int64_t *counts, int64_t count) {
  if (counts) std::memset(counts, 0, count * sizeof *counts);
}

}  // namespace

void confusion_cpu(const Confusion &c, int threads, void *) {
  if (c.batch == 0) return;
  clear(c.matrix, c.batch * c.classes * c.classes);
  clear(c.invalid, c.batch);
  const int64_t chunks = parts(c.voxels, kChunk);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t job = 0; job < c.batch * chunks; ++job) {
    const int64_t begin = job % chunks * kChunk;
    count_chunk(c, job / chunks, begin, std::min(begin + kChunk, c.voxels));
  }
}

void geometry_cpu(const Geometry &g, int threads, void *) {
  clear(g.volumes, g.batch * g.classes);
  clear(g.faces, g.batch * g.classes * g.axes);
  if (g.batch == 0 || g.voxels() == 0 || g.classes == 0) return;
  const int64_t width = g.extent[2], rows = g.extent[0] * g.extent[1];
  const int64_t rows_each = std::max<int64_t>(1, kChunk / width), bands = parts(rows, rows_each);
  const int64_t columns = parts(width, kChunk), jobs = g.batch * bands * columns;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t job = 0; job < jobs; ++job) {
    const int64_t band = job / columns, x = job % columns * kChunk, row = band % bands * rows_each;
    geometry_chunk(g, band / bands, row, std::min(row + rows_each, rows), x, std::min(x + kChunk, width));
  }
}

}  // namespace segprior::metrics
