// Cases of TV and volumes.
#include "tests/cases/cases.h"

namespace segprior::test {

namespace {

using Edge = Case::Edge;
using Volumes = Case::Volumes;

std::vector<Case> build() {
  std::vector<Case> list;
  const auto add = [&](const Case &c) { list.push_back(c); };

  // Small enough for the race detector: every kernel once, several blocks where the grid allows.
  add(Case({9, 37}, 3, 2).name("vptv").f32().tv(0.3).equal().iterations(4).race());
  add(Case({5, 7}, 2)
          .name("accelerated, tolerance, checkpoints")
          .tv(0.3)
          .equal()
          .accelerate()
          .iterations(7)
          .tolerance(1e-9, 2)
          .checkpoint(3)
          .race());
  add(Case({3, 4, 6}, 5)
          .name("3-D, edge, box")
          .f32()
          .tv(0.4)
          .edge(Edge::per_image)
          .volumes(Volumes::box)
          .iterations(3)
          .race());
  add(Case({40}, 9, 2)
          .name("1-D, generic class count")
          .f32()
          .tv(0.3)
          .edge(Edge::shared)
          .equal()
          .warm_start()
          .iterations(3)
          .device_scalars()
          .race());
  add(Case({6, 7}, 4, 2).name("softmax alone").f32().iterations(2).race());

  // No prior, one prior.
  for (int64_t classes : {1, 2, 3, 4, 5, 8, 9, 21, 64, 256})
    add(Case({3, 11}, classes).name("softmax alone").iterations(2).small());
  for (bool f32 : {false, true}) {
    const auto both = [&](Case c) { add(f32 ? c.f32() : c); };
    for (int64_t classes : {1, 2, 3, 4, 5, 8, 9, 21})
      both(Case({13, 17}, classes).name("every class count").tv(0.3).equal().iterations(5).small());
    both(Case({5, 33}, 64).name("every class count").tv(0.3).equal().iterations(5));
    both(Case({3, 5}, 256).name("every class count").tv(0.3).equal().iterations(3));

    // Every extent that matters to vector widths and tiles.
    for (int64_t n : {1, 2, 31, 32, 33, 127, 128, 129, 257})
      both(Case({n}, 3, 2).name("1-D extents").tv(0.3).equal().iterations(6));
    for (int64_t n : {1, 31, 33, 67})
      for (int64_t m : {1, 7, 31, 33, 101})
        both(Case({n, m}, 3).name("2-D extents").tv(0.3).equal().iterations(4));
    both(Case({1, 17}, 2).name("one row").tv(0.3).equal().small());
    both(Case({17, 1}, 2).name("one column").tv(0.3).equal().small());
    both(Case({1, 1}, 3).name("one voxel").tv(0.3).equal().small());
    both(Case({1, 1, 1}, 3, 2).name("one voxel").tv(0.3).equal().small());
    both(Case({1, 1, 19}, 3).name("3-D, one line").tv(0.3).equal().small());
    both(Case({7, 1, 5}, 3).name("3-D, flat axis").tv(0.3).equal().small());
    both(Case({5, 7, 11}, 3, 2).name("3-D").tv(0.3).equal().small());
    both(Case({6, 9, 37}, 2).name("3-D, two classes").tv(0.3).equal());
    both(Case({9, 33, 35}, 4).name("3-D, several tiles").tv(0.3).equal().iterations(5));
    both(Case({4, 6, 5}, 21).name("3-D, many classes").tv(0.3).equal().iterations(5));
    both(Case({70, 200}, 3, 2).name("several tiles").tv(0.3).equal().iterations(8));
    both(Case({150, 131}, 5).name("several bands").tv(0.3).edge(Edge::per_image).equal().iterations(6));
    both(Case({65, 140}, 21).name("several tiles, many classes").tv(0.3).equal().iterations(4));
    both(Case({5000}, 2).name("1-D, long").tv(0.3).equal().iterations(6));

    // Priors and options, at one odd size.
    both(Case({11, 13}, 3, 3).name("tv alone").tv(0.4).small());
    both(Case({11, 13}, 3, 3).name("volume alone").equal().small());
    both(Case({11, 13}, 4, 2).name("excluded class").tv(0.3).volumes(Volumes::equal_zero).small());
    both(Case({11, 13}, 4, 2).name("excluded class, no tv").volumes(Volumes::equal_zero).small());
    both(Case({11, 13}, 5, 2).name("box").tv(0.3).volumes(Volumes::box).small());
    both(Case({11, 13}, 5, 2).name("box, open and zero").tv(0.3).volumes(Volumes::box_open).small());
    both(Case({11, 13}, 5, 2).name("lower alone").tv(0.3).volumes(Volumes::lower).small());
    both(Case({11, 13}, 5, 2).name("upper alone").tv(0.3).volumes(Volumes::upper).small());
    both(Case({11, 13}, 3, 2).name("edge").tv(0.4).edge(Edge::per_image).equal().small());
    both(Case({11, 13}, 3, 2).name("shared edge").tv(0.4).edge(Edge::shared).equal().small());
    both(Case({5, 4, 7}, 3, 2)
             .name("3-D shared edge")
             .tv(0.4)
             .edge(Edge::shared)
             .volumes(Volumes::box)
             .small());
    both(Case({23}, 3, 2).name("1-D edge").tv(0.4).edge(Edge::per_image).small());
    both(Case({11, 13}, 3, 2).name("spacing").tv(0.4).spacing({2, 0.75}).equal().small());
    both(Case({5, 6, 7}, 2, 2).name("spacing 3-D").tv(0.4).spacing({3, 1.25, 0.8}).equal().small());
    both(Case({29}, 2).name("spacing 1-D").tv(0.4).spacing({0.7}).small());
    both(Case({11, 13}, 3).name("lam 0").tv(0).equal().small());
    both(Case({11, 13}, 3, 2).name("given step").tv(0.3, 0.1).equal().small());
    both(Case({11, 13}, 3, 2).name("step beyond the limit").tv(0.3, 0.6).equal().small());
    both(Case({11, 13}, 3, 2).name("own eps of the start").tv(0.3).init_eps(1).equal().small());
    both(Case({11, 13}, 3, 2).name("small eps").tv(0.3).eps(0.05).equal().iterations(20).small());
    both(Case({11, 13}, 3, 2).name("large eps").tv(0.3).eps(4).equal().small());
    both(Case({11, 13}, 3, 2).name("no iteration").tv(0.3).equal().iterations(0).small());
    both(Case({11, 13}, 3, 2)
             .name("no iteration, own eps of the start")
             .tv(0.3)
             .equal()
             .init_eps(1)
             .iterations(0)
             .small());
    both(Case({11, 13}, 3, 2).name("one iteration").tv(0.3).equal().iterations(1).small());
    both(Case({11, 13}, 3, 2).name("two iterations").tv(0.3).equal().iterations(2).checkpoint(2).small());
    both(Case({11, 13}, 3, 2).name("scalars on the device").tv(0.3, 0.1).equal().device_scalars().small());
    both(Case({11, 13}, 3, 2)
             .name("scalars on the device, default step")
             .tv(0.3)
             .equal()
             .device_scalars()
             .small());
    both(Case({11, 13}, 3, 2).name("warm start").tv(0.3).equal().warm_start().small());
    both(Case({5, 6, 7}, 3).name("warm start, box").tv(0.3).volumes(Volumes::box_open).warm_start().small());
    both(Case({11, 13}, 3, 2).name("accumulate").tv(0.3).edge(Edge::shared).equal().accumulate().small());
    both(Case({11, 13}, 3, 2)
             .name("accumulate, box")
             .tv(0.3)
             .volumes(Volumes::box)
             .init_eps(0.9)
             .accumulate()
             .small());
    for (int n : {2, 3, 7, 12, 13, 100})
      both(Case({11, 13}, 3, 2).name("checkpoints").tv(0.3).equal().iterations(12).checkpoint(n).small());

    // Acceleration.
    both(Case({11, 13}, 3, 2).name("accelerated").tv(0.4).equal().accelerate().iterations(14).small());
    both(Case({11, 13}, 3).name("accelerated, one").tv(0.4).equal().accelerate().iterations(1).small());
    both(Case({11, 13}, 3).name("accelerated, two").tv(0.4).equal().accelerate().iterations(2).small());
    both(Case({11, 13}, 3, 2).name("accelerated, tv alone").tv(0.4).accelerate().iterations(25).small());
    both(Case({11, 13}, 3, 2).name("accelerated, volume alone").equal().accelerate().iterations(5).small());
    both(Case({11, 13}, 4, 2)
             .name("accelerated, all")
             .tv(0.4)
             .edge(Edge::per_image)
             .volumes(Volumes::box_open)
             .spacing({1.5, 0.8})
             .accelerate()
             .iterations(12)
             .warm_start()
             .init_eps(0.8)
             .small());
    // A weak TV prior lets the momentum overshoot: it restarts, at different iterations in the two images.
    both(
        Case({7, 8}, 3, 2).name("accelerated, restarts").tv(0.1).equal().accelerate().iterations(24).small());
    both(Case({4, 5, 3}, 3, 2)
             .name("accelerated, restarts in 3-D")
             .tv(0.1)
             .eps(1)
             .equal()
             .accelerate()
             .iterations(30)
             .checkpoint(4)
             .small());
    both(Case({5, 6, 7}, 3, 2).name("accelerated, 3-D").tv(0.4).equal().accelerate().iterations(15).small());
    both(Case({37}, 3, 2).name("accelerated, 1-D").tv(0.4).equal().accelerate().iterations(15).small());
    both(Case({11, 13}, 9).name("accelerated, nine classes").tv(0.3).equal().accelerate().small());
    for (int n : {2, 5, 12, 100})
      both(Case({11, 13}, 3, 2)
               .name("accelerated, checkpoints")
               .tv(0.4)
               .equal()
               .accelerate()
               .iterations(12)
               .checkpoint(n)
               .small());
    both(Case({70, 133}, 3).name("accelerated, several tiles").tv(0.4).equal().accelerate().iterations(12));

    // Tolerance stops; the images of a batch stop at different iterations.
    for (bool accelerate : {false, true}) {
      Case c({9, 10}, 3, 4);
      c.name("tolerance stop").tv(0.2).eps(1).equal().iterations(60).tolerance(3e-3, 2).checkpoint(5).small();
      both(accelerate ? c.accelerate() : c);
      Case d({9, 10}, 3, 2);
      d.name("tolerance never reached").tv(0.4).equal().iterations(9).tolerance(1e-30, 4).small();
      both(accelerate ? d.accelerate() : d);
      Case e({9, 10}, 3, 2);
      e.name("tolerance at once").tv(0.4).equal().iterations(9).tolerance(10, 1).checkpoint(2).small();
      both(accelerate ? e.accelerate() : e);
    }
  }
  add_prior_cases(list);
  return list;
}

}  // namespace

const std::vector<Case> &softmax_cases() {
  static const std::vector<Case> list = build();
  return list;
}

}  // namespace segprior::test
