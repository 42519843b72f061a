// The CPU backend of the scores, and the scores of confusion matrices, which are a few numbers.
#include "kernels/metrics/metrics_cpu.h"

namespace segprior::metrics {
namespace {

constexpr double kNaN = __builtin_nan("");

// A mean over the values that are not NaN, added up in the order of the classes.
struct Mean {
  double sum = 0;
  int64_t count = 0;

  void add(double value) {
    if (value != value) return;
    sum += value;
    ++count;
  }
  double value() const { return count == 0 ? kNaN : sum / static_cast<double>(count); }
};

void store(double *array, int64_t index, double value) {
  if (array) array[index] = value;
}

void scores_of(const Scores &s, int64_t n) {
  const int64_t classes = s.classes, *matrix = s.matrices + n * classes * classes;
  Mean iou, dice;
  int64_t all = 0, right = 0;
  for (int64_t i = 0; i < classes; ++i) {
    int64_t row = 0, column = 0;
    for (int64_t j = 0; j < classes; ++j) {
      row += matrix[i * classes + j];
      column += matrix[j * classes + i];
    }
    const int64_t tp = matrix[i * classes + i], at = n * classes + i;
    const double iou_i = fraction(tp, row + column - tp), dice_i = fraction(2 * tp, row + column);
    all += row;
    right += tp;
    iou.add(iou_i);
    dice.add(dice_i);
    store(s.iou, at, iou_i);
    store(s.dice, at, dice_i);
    store(s.precision, at, fraction(tp, column));
    store(s.recall, at, fraction(tp, row));
  }
  store(s.accuracy, n, fraction(right, all));
  store(s.mean_iou, n, iou.value());
  store(s.mean_dice, n, dice.value());
}

void scores_cpu(const Scores &s, int threads, void *) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t n = 0; n < s.count; ++n) scores_of(s, n);
}

}  // namespace

const Backend kCpu{confusion_cpu, scores_cpu, geometry_cpu, components_workspace_cpu, components_cpu};

}  // namespace segprior::metrics
