// What forward looks at before an image's first iteration.
#pragma once

#include <algorithm>

#include "kernels/softmax/softmax_cpu.h"
#include "kernels/softmax/softmax_cpu_star.h"

namespace segprior::softmax {

// The largest of f(slice) >= 0 over the image's slices, the same on every thread. Collective. `slice_max` is
// scratch [slices].
template <class F>
double max_over_slices(const Team &team, int64_t slices, double *slice_max, const F &f) {
  for (int64_t s = team.begin(slices); s < team.end(slices); ++s) slice_max[s] = f(s);
  team.barrier();
  double result = 0;
  for (int64_t s = 0; s < slices; ++s) result = std::max(result, slice_max[s]);
  team.barrier();
  return result;
}

template <class T>
class Scan {
 public:
  Scan(const Image<T> &image, const Params &params, const StarForce<T> &star, const Team &team,
       double *slice_max)
      : image_(image), p_(image.problem), params_(params), star_(star), team_(team), slice_max_(slice_max) {}

  // The status before the first iteration (rank 0's counts), and f_0 [classes]. Collective; parameters, mask
  // and stars are prepared. `voxels`: the valid ones.
  int32_t run(double voxels, double *f) const;

 private:
  struct Range {
    double largest;  // magnitude; NaN and Inf count as infinite
    bool negative;   // some value is
  };
  // Over the valid voxels of `planes` planes. Collective.
  Range range(const void *field, int64_t planes, bool want_negative) const;

  const Image<T> &image_;
  const Problem &p_;
  const Params &params_;
  const StarForce<T> &star_;
  const Team team_;
  double *const slice_max_;
};

}  // namespace segprior::softmax
