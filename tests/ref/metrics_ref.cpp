#include "tests/ref/metrics_ref.h"

#include <array>
#include <cmath>
#include <deque>

namespace segprior::ref::metrics {

namespace {

constexpr double kNaN = NAN;

double fraction(int64_t part, int64_t whole) {
  return whole == 0 ? kNaN : static_cast<double>(part) / static_cast<double>(whole);
}

double mean_of_known(const Array &values, size_t begin) {
  double sum = 0;
  int count = 0;
  for (size_t k = begin; k < values.size(); ++k)
    if (!std::isnan(values[k])) sum += values[k], ++count;
  return count == 0 ? kNaN : sum / count;
}

// A place in an image, or a step: as many as the image has axes.
using Place = std::array<int64_t, 3>;

Place coordinates(const Ints &spatial, int64_t v) {
  Place at{};
  for (size_t k = spatial.size(); k-- > 0; v /= spatial[k]) at[k] = v % spatial[k];
  return at;
}

// -1: outside of the image.
int64_t index_of(const Ints &spatial, const Place &at) {
  int64_t v = 0;
  for (size_t k = 0; k < spatial.size(); ++k) {
    if (at[k] < 0 || at[k] >= spatial[k]) return -1;
    v = v * spatial[k] + at[k];
  }
  return v;
}

// All steps to neighbours: one axis changes by 1, or, if `full`, any number of them.
std::vector<Place> steps(size_t axes, bool full) {
  std::vector<Place> list;
  const int64_t all = static_cast<int64_t>(std::pow(3, axes));
  for (int64_t code = 0; code < all; ++code) {
    Place step{};
    int changed = 0;
    for (int64_t rest = code, k = 0; k < static_cast<int64_t>(axes); ++k, rest /= 3) {
      step[k] = rest % 3 - 1;
      changed += step[k] != 0;
    }
    if (changed == 1 || (full && changed > 0)) list.push_back(step);
  }
  return list;
}

}  // namespace

int64_t Map::voxels() const {
  int64_t count = 1;
  for (int64_t extent : spatial) count *= extent;
  return count;
}

bool Map::counts(int64_t b, int64_t v) const {
  if (mask.empty()) return true;
  return mask[(mask.size() == values.size() ? b * voxels() : 0) + v] != 0;
}

Confusion confusion(const Map &labels, const Ints &prediction, int64_t classes, int64_t ignore_label) {
  Confusion c{Ints(labels.batch * classes * classes), Ints(labels.batch)};
  for (int64_t b = 0; b < labels.batch; ++b)
    for (int64_t v = 0; v < labels.voxels(); ++v) {
      const int64_t label = labels.values[b * labels.voxels() + v], p = prediction[b * labels.voxels() + v];
      if (!labels.counts(b, v) || label < 0 || label == ignore_label) continue;
      if (label >= classes || p < 0 || p >= classes)
        ++c.invalid[b];
      else
        ++c.matrix[(b * classes + label) * classes + p];
    }
  return c;
}

Ints largest(const Array &scores, int64_t batch, int64_t classes) {
  const int64_t voxels = static_cast<int64_t>(scores.size()) / (batch * classes);
  Ints result;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t v = 0; v < voxels; ++v) {
      int64_t best = -1;
      const auto score = [&](int64_t i) { return scores[(b * classes + i) * voxels + v]; };
      for (int64_t i = 0; i < classes; ++i)
        if (!std::isnan(score(i)) && (best < 0 || score(i) > score(best))) best = i;
      result.push_back(best);
    }
  return result;
}

Scores scores(const Ints &matrices, int64_t classes) {
  Scores s;
  for (size_t first = 0; first < matrices.size(); first += classes * classes) {
    const auto entry = [&](int64_t i, int64_t j) { return matrices[first + i * classes + j]; };
    int64_t all = 0, right = 0;
    const size_t begin = s.iou.size();
    for (int64_t i = 0; i < classes; ++i) {
      const int64_t tp = entry(i, i);
      int64_t fn = 0, fp = 0;
      for (int64_t j = 0; j < classes; ++j) {
        if (j != i) fn += entry(i, j), fp += entry(j, i);
        all += entry(i, j);
      }
      right += tp;
      s.iou.push_back(fraction(tp, tp + fp + fn));
      s.dice.push_back(fraction(2 * tp, 2 * tp + fp + fn));
      s.precision.push_back(fraction(tp, tp + fp));
      s.recall.push_back(fraction(tp, tp + fn));
    }
    s.accuracy.push_back(fraction(right, all));
    s.mean_iou.push_back(mean_of_known(s.iou, begin));
    s.mean_dice.push_back(mean_of_known(s.dice, begin));
  }
  return s;
}

Ints volumes(const Map &map, int64_t classes) {
  Ints result(map.batch * classes);
  for (int64_t b = 0; b < map.batch; ++b)
    for (int64_t v = 0; v < map.voxels(); ++v) {
      const int64_t label = map.values[b * map.voxels() + v];
      if (map.counts(b, v) && label >= 0 && label < classes) ++result[b * classes + label];
    }
  return result;
}

Ints faces(const Map &map, int64_t classes) {
  const int64_t axes = static_cast<int64_t>(map.spatial.size());
  Ints result(map.batch * classes * axes);
  for (int64_t b = 0; b < map.batch; ++b)
    for (int64_t v = 0; v < map.voxels(); ++v)
      for (int64_t d = 0; d < axes; ++d) {
        Place at = coordinates(map.spatial, v);
        ++at[d];
        const int64_t w = index_of(map.spatial, at);
        if (w < 0 || !map.counts(b, v) || !map.counts(b, w)) continue;
        const int64_t one = map.values[b * map.voxels() + v], other = map.values[b * map.voxels() + w];
        for (int64_t label : {one, other})
          if (one != other && label >= 0 && label < classes) ++result[(b * classes + label) * axes + d];
      }
  return result;
}

Components components(const Map &map, bool full, bool by_value, int64_t background, int64_t classes) {
  const int64_t voxels = map.voxels();
  Components c{Ints(map.batch * voxels), Ints(map.batch), Ints(map.batch * classes)};
  const std::vector<Place> neighbours = steps(map.spatial.size(), full);
  for (int64_t b = 0; b < map.batch; ++b) {
    const auto value = [&](int64_t v) { return map.values[b * voxels + v]; };
    const auto inside = [&](int64_t v) { return map.counts(b, v) && value(v) != background; };
    for (int64_t first = 0; first < voxels; ++first) {
      if (!inside(first) || c.components[b * voxels + first] != 0) continue;
      const int64_t number = ++c.count[b];
      if (value(first) >= 0 && value(first) < classes) ++c.class_count[b * classes + value(first)];
      c.components[b * voxels + first] = number;
      std::deque<int64_t> queue{first};
      for (; !queue.empty(); queue.pop_front()) {
        const Place here = coordinates(map.spatial, queue.front());
        for (const Place &step : neighbours) {
          Place there = here;
          for (size_t d = 0; d < there.size(); ++d) there[d] += step[d];
          const int64_t v = index_of(map.spatial, there);
          if (v < 0 || !inside(v) || c.components[b * voxels + v] != 0) continue;
          if (by_value && value(v) != value(queue.front())) continue;
          c.components[b * voxels + v] = number;
          queue.push_back(v);
        }
      }
    }
  }
  return c;
}

}  // namespace segprior::ref::metrics
