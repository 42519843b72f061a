// Cases of threshold dynamics, star shapes, masks, 16-bit features and implicit gradients, and every mix of
// priors.
#include "tests/cases/cases.h"

namespace segprior::test {

namespace {

using Edge = Case::Edge;
using Volumes = Case::Volumes;
using Mask = Case::Mask;
using Centers = Case::Centers;

// {none, TV} x {none, TD} x {none, star} x {no, equality, box volumes} x {no mask, mask} in 1, 2 and 3 axes.
void add_mixes(std::vector<Case> &list) {
  const std::vector<std::vector<int64_t>> shapes{{23}, {7, 11}, {5, 3, 6}};
  for (const bool f32 : {false, true})
    for (size_t axes = 0; axes < shapes.size(); ++axes)
      for (int bits = 0; bits < 16; ++bits)
        for (const Volumes volumes : {Volumes::none, Volumes::equal, Volumes::box}) {
          Case c(shapes[axes], 3, 2);
          c.name("mix").volumes(volumes).iterations(5);
          if (bits & 1) c.tv(0.3);
          if (bits & 2) c.td(0.25);
          if (bits & 4) c.star({1});
          if (bits & 8) c.mask(Mask::per_image);
          if (f32) c.f32();
          // The fake runtime takes each mix once or twice: 2-D in float32, the others by turns in float64.
          const bool turn = f32 ? axes == 1 : (axes == 0) == (bits % 3 == 0) && axes != 1;
          list.push_back(turn ? c.small() : c);
        }
}

void add_threshold_dynamics(std::vector<Case> &list, bool f32) {
  const auto add = [&](Case c) { list.push_back(f32 ? c.f32() : c); };
  for (const int64_t classes : {1, 2, 5, 8, 9, 21})
    add(Case({11, 13}, classes).name("td, every class count").td(0.3).init_eps(1).iterations(5).small());
  for (const int size : {1, 3, 5, 7, 15})
    add(Case({13, 17}, 3).name("td, kernel sizes").td(0.3, size, 0.4 * size).iterations(4).small());
  add(Case({5, 6, 7}, 3).name("td, kernel of 7 in 3-D").td(0.3, 7, 2).iterations(3).small());
  add(Case({4, 5, 6}, 2).name("td, kernel of 15 in 3-D").td(0.3, 15, 5).iterations(2));
  add(Case({37}, 3, 2).name("td, 1-D").td(0.3, 7, 5).iterations(5).small());
  add(Case({2, 3}, 3, 2).name("td, extents smaller than the kernel").td(0.3, 15, 5).small());
  add(Case({1, 9}, 3).name("td, one row").td(0.3, 7, 2).small());
  add(Case({9, 1}, 3).name("td, one column").td(0.3, 7, 2).small());
  add(Case({1, 1, 1}, 3, 2).name("td, one voxel").td(0.3, 7, 2).small());
  add(Case({3, 1, 19}, 2).name("td, flat axis").td(0.3, 5, 2).small());
  add(Case({18, 67}, 3).name("td, several tiles").td(0.4, 7, 3).equal().iterations(2).small());
  add(Case({11, 66}, 15).name("td, several tiles of many classes").td(0.4, 5, 2).iterations(2).small());
  add(Case({18, 17, 5}, 2).name("td, several tiles in 3-D").td(0.4, 5, 2).equal().iterations(2).small());
  add(Case({33, 65}, 4).name("td, several tiles").td(0.5, 7, 5).init_eps(1).iterations(5));
  add(Case({67, 131}, 2, 2).name("td, several tiles").td(0.5, 7, 5).iterations(4));
  add(Case({9, 18, 35}, 3).name("td, several tiles in 3-D").td(0.3).iterations(3));
  add(Case({601}, 3).name("td, 1-D, several tiles").td(0.3, 15, 4).iterations(4));

  add(Case({11, 13}, 3, 2).name("td, given kernel").td(0.4).td_kernel({3, 5}).small());
  add(Case({11, 13}, 3, 2).name("td, kernel per class").td(0.4).td_kernel({5, 3}, true).small());
  add(Case({5, 6, 4}, 2, 2).name("td, anisotropic in 3-D").td(0.4).td_kernel({1, 5, 3}).small());
  add(Case({5, 6, 4}, 2).name("td, per class in 3-D").td(0.4).td_kernel({3, 1, 7}, true).small());
  add(Case({17}, 3, 2).name("td, per class in 1-D").td(0.4).td_kernel({5}, true).small());
  add(Case({2, 3}, 2).name("td, given, larger than the image").td(0.4).td_kernel({15, 9}, true).small());
  add(Case({11, 13}, 3, 2).name("td, given, edge").td(0.4).td_kernel({3, 5}).td_edge(Edge::shared).small());
  add(Case({11, 13}, 3, 2).name("td, one tap").td(0.4).td_kernel({1, 1}, true).small());

  add(Case({11, 13}, 3, 2).name("td, edge").td(0.4).td_edge(Edge::per_image).small());
  add(Case({5, 6, 4}, 3, 2).name("td, shared edge").td(0.4).td_edge(Edge::shared).small());
  add(Case({11, 13}, 3, 2)
          .name("td, edge, mask")
          .td(0.4)
          .td_edge(Edge::per_image)
          .mask(Mask::shared)
          .small());
  add(Case({11, 13}, 3, 2).name("td, lam 0").td(0).td_edge(Edge::per_image).small());
  add(Case({11, 13}, 3, 2).name("td, scalars on the device").td(0.4).device_scalars().small());
  add(Case({11, 13}, 3, 2).name("td, no iteration").td(0.4).init_eps(1).iterations(0).small());
  add(Case({11, 13}, 3, 2).name("td, one iteration").td(0.4).iterations(1).small());
  add(Case({11, 13}, 3, 2).name("td, small eps").td(1).eps(0.1).init_eps(1).iterations(6).small());
  add(Case({11, 13}, 3, 2).name("td, paper's defaults").td(1, 7, 5).eps(1).init_eps(1).small());
  add(Case({11, 13}, 4, 2)
          .name("td, excluded class")
          .td(0.3)
          .volumes(Volumes::equal_zero)
          .mask(Mask::per_image)
          .small());
  add(Case({11, 13}, 3, 2).name("td, warm start").td(0.3).equal().warm_start().small());
  add(Case({11, 13}, 3, 2)
          .name("td, accumulate")
          .td(0.3)
          .td_kernel({3, 3})
          .td_edge(Edge::shared)
          .volumes(Volumes::box)
          .accumulate()
          .small());
  for (const int n : {2, 5, 7, 100})
    add(Case({7, 9}, 3, 2).name("td, checkpoints").td(0.4).equal().iterations(7).checkpoint(n).small());
  add(Case({9, 10}, 3, 3)
          .name("td, tolerance stop")
          .td(0.2)
          .eps(1)
          .equal()
          .iterations(60)
          .tolerance(3e-3, 2)
          .checkpoint(5)
          .small());
}

void add_stars(std::vector<Case> &list, bool f32) {
  const auto add = [&](Case c) { list.push_back(f32 ? c.f32() : c); };
  for (const Centers centers : {Centers::on_voxel, Centers::between, Centers::outside}) {
    add(Case({7, 8}, 2, 2).name("star, centres").star({1}).centers(centers).small());
    add(Case({4, 5, 3}, 3).name("star, centres in 3-D").star({0, 2}).centers(centers).small());
    add(Case({19}, 3, 2).name("star, centres in 1-D").star({1}).centers(centers).small());
  }
  add(Case({7, 8}, 5, 2).name("several stars").star({4, 0, 2}).small());
  add(Case({5, 7}, 21).name("many classes, many stars").star({20, 3, 7, 11, 0}).iterations(5).small());
  add(Case({5, 7}, 9).name("every class a star").star({0, 1, 2, 3, 4, 5, 6, 7, 8}).iterations(5).small());
  add(Case({1, 1}, 2).name("star, one voxel").star({1}).small());
  add(Case({1, 13}, 2).name("star, one row").star({1}).small());
  add(Case({7, 8}, 3, 2).name("star, given step").star({1}, 0.2).small());
  add(Case({7, 8}, 3, 2).name("stars, given steps").star({1, 0}, 0.1).small());
  add(Case({7, 8}, 3, 2).name("star, scalars on the device").star({1}, 0.2).device_scalars().small());
  add(Case({7, 8}, 3, 2).name("star, spacing").star({1}).spacing({2, 0.75}).small());
  add(Case({3, 4, 5}, 3).name("star, spacing in 3-D").star({2}).spacing({3, 1.25, 0.8}).small());
  add(Case({7, 8}, 3, 2).name("star, excluded class").star({0, 1}).volumes(Volumes::equal_zero).small());
  add(Case({7, 8}, 3, 2).name("star, warm start").star({1}).warm_start().small());
  add(Case({7, 8}, 3, 2)
          .name("star, warm start, tv, mask")
          .star({1})
          .tv(0.3)
          .mask(Mask::shared)
          .warm_start()
          .small());
  add(Case({7, 8}, 3, 2).name("star, no iteration").star({1}).warm_start().iterations(0).small());
  add(Case({7, 8}, 3, 2).name("star, own eps of the start").star({1, 2}).init_eps(1).small());
  add(Case({7, 8}, 3, 2).name("star, accumulate").star({1, 2}).accumulate().small());
  add(Case({7, 8}, 3, 2).name("star, accelerated").star({1}).accelerate().iterations(12).small());
  add(Case({7, 8}, 3, 2).name("stars, accelerated").star({2, 1}).equal().accelerate().iterations(12).small());
  add(Case({7, 8}, 3, 2).name("star, tv, accelerated").star({1}).tv(0.3).accelerate().iterations(12).small());
  add(Case({3, 5, 4}, 3, 2)
          .name("star, tv, td, accelerated, mask")
          .star({1, 0})
          .tv(0.3)
          .td(0.2)
          .mask(Mask::per_image)
          .accelerate()
          .warm_start()
          .iterations(9)
          .checkpoint(4)
          .small());
  add(Case({6, 7}, 3, 2)
          .name("star, accelerated, restarts")
          .star({0})
          .accelerate()
          .iterations(60)
          .seed(6)
          .small());
  for (const int n : {2, 5, 100}) {
    add(Case({6, 7}, 3, 2).name("star, checkpoints").star({1}).td(0.2).iterations(7).checkpoint(n).small());
    add(Case({6, 7}, 3, 2)
            .name("star, accelerated, checkpoints")
            .star({1, 2})
            .tv(0.3)
            .equal()
            .accelerate()
            .iterations(7)
            .checkpoint(n)
            .small());
  }
  for (const bool accelerate : {false, true}) {
    Case c({6, 7}, 3, 3);
    c.name("star, tolerance stop").star({1}).eps(1).iterations(80).tolerance(5e-3, 2).checkpoint(5).small();
    add(accelerate ? c.accelerate() : c);
  }
  add(Case({35, 66}, 3).name("star, several tiles").star({1}).td(0.3, 5, 2).iterations(5));
  add(Case({9, 17, 34}, 2).name("star, several tiles in 3-D").star({0}).iterations(4));
}

void add_masks(std::vector<Case> &list, bool f32) {
  const auto add = [&](Case c) { list.push_back(f32 ? c.f32() : c); };
  for (const Mask mask : {Mask::per_image, Mask::shared}) {
    add(Case({9, 11}, 3, 3).name("mask, softmax alone").mask(mask).small());
    add(Case({9, 11}, 3, 3).name("mask, edge").tv(0.4).edge(Edge::per_image).equal().mask(mask).small());
    add(Case({9, 11}, 3, 3).name("mask, shared edge").tv(0.4).edge(Edge::shared).mask(mask).small());
    add(Case({9, 11}, 4, 2).name("mask, box").tv(0.3).volumes(Volumes::box_open).mask(mask).small());
    add(Case({4, 5, 7}, 3, 2).name("mask, warm start").tv(0.3).equal().mask(mask).warm_start().small());
    add(Case({9, 11}, 3, 2).name("mask, accelerated").tv(0.3).equal().mask(mask).accelerate().small());
  }
  for (const int64_t classes : {1, 2, 4, 5, 8, 9, 21})
    add(Case({7, 35}, classes)
            .name("mask, class counts")
            .tv(0.3)
            .equal()
            .mask(Mask::shared)
            .iterations(4)
            .small());
  add(Case({5, 9}, 64).name("mask, many classes").tv(0.3).equal().mask(Mask::shared).iterations(3));
  add(Case({1, 1}, 3, 2).name("mask, one voxel").tv(0.3).equal().mask(Mask::shared).small());
  add(Case({9, 11}, 3, 2).name("mask, spacing").tv(0.3).spacing({2, 0.75}).mask(Mask::shared).small());
  add(Case({9, 10}, 3, 3)
          .name("mask, tolerance stop, checkpoints")
          .tv(0.2)
          .eps(1)
          .equal()
          .mask(Mask::per_image)
          .iterations(60)
          .tolerance(3e-3, 2)
          .checkpoint(5)
          .small());
  add(Case({9, 11}, 3, 2).name("mask, accumulate").tv(0.3).equal().mask(Mask::shared).accumulate().small());
  add(Case({67, 133}, 3).name("mask, several tiles").tv(0.3).equal().mask(Mask::shared).iterations(5));
  add(Case({9, 33, 35}, 2).name("mask, several tiles in 3-D").tv(0.3).mask(Mask::shared).iterations(4));
}

void add_small_types(std::vector<Case> &list) {
  for (const bool half : {true, false}) {
    const auto add = [&](Case c) { list.push_back(half ? c.f16() : c.bf16()); };
    add(Case({9, 11}, 3, 2).name("16-bit, softmax alone").iterations(2).small());
    add(Case({9, 11}, 3, 2).name("16-bit, tv, edge, volumes").tv(0.3).edge(Edge::shared).equal().small());
    add(Case({9, 11}, 3, 2)
            .name("16-bit, accelerated, box")
            .tv(0.3)
            .volumes(Volumes::box)
            .accelerate()
            .small());
    add(Case({5, 6, 7}, 2).name("16-bit, checkpoints").tv(0.3).equal().checkpoint(3).small());
    add(Case({9, 11}, 3, 2)
            .name("16-bit, td, mask")
            .td(0.3)
            .td_edge(Edge::per_image)
            .mask(Mask::per_image)
            .small());
    add(Case({7, 9}, 3, 2).name("16-bit, star, warm start").star({1}).equal().warm_start().small());
    add(Case({9, 11}, 3, 2).name("16-bit, accumulate").tv(0.3).equal().accumulate().small());
    add(Case({3, 5}, 21).name("16-bit, many classes").tv(0.3).equal().device_scalars().small());
    add(Case({65, 70}, 4).name("16-bit, several tiles").tv(0.3).equal().iterations(6));
  }
}

// On the CPU, which ignores it, these are further mixes.
void add_paths(std::vector<Case> &list, bool f32) {
  const auto add = [&](Case c) { list.push_back(f32 ? c.f32() : c); };
  for (const int32_t path : {SEGPRIOR_PATH_STREAMING, SEGPRIOR_PATH_ON_CHIP}) {
    add(Case({13, 17}, 3, 2).name("path").tv(0.3).equal().path(path).small());
    add(Case({13, 17}, 3, 2).name("path, tv alone").tv(0.3).path(path).iterations(7).checkpoint(3).small());
    add(Case({13, 17}, 2, 2).name("path, box").tv(0.3).volumes(Volumes::box).path(path).small());
    add(Case({13, 17}, 3, 2).name("path, accelerated").tv(0.3).equal().accelerate().path(path).small());
    add(Case({32, 33}, 4).name("path").tv(0.3).equal().path(path).iterations(5).small());
    add(Case({37}, 3, 2).name("path, 1-D").tv(0.3).equal().path(path).small());
    add(Case({5, 6, 7}, 2, 2).name("path, 3-D").tv(0.3).equal().path(path).small());
    add(Case({13, 17}, 3, 2)
            .name("path, edge, warm start")
            .tv(0.3)
            .edge(Edge::per_image)
            .equal()
            .warm_start()
            .path(path)
            .small());
    add(Case({9, 10}, 3, 3)
            .name("path, tolerance stop")
            .tv(0.2)
            .eps(1)
            .equal()
            .iterations(60)
            .tolerance(3e-3, 2)
            .checkpoint(5)
            .path(path)
            .small());
  }
}

// Small, so that they converge in a few hundred iterations. The tolerance is far enough above rounding for
// every implementation to stop at the same check.
void add_implicit(std::vector<Case> &list) {
  const auto add = [&](Case c) {
    list.push_back(c.eps(1).iterations(1500).tolerance(1e-13, 10).checkpoint(1500).implicit());
  };
  add(Case({4, 5}, 3, 2).name("implicit, tv").tv(0.2).accelerate());
  add(Case({4, 5}, 3, 2).name("implicit, tv, volumes").tv(0.2).equal().accelerate().small());
  add(Case({4, 5}, 3, 2).name("implicit, tv, box").tv(0.2).volumes(Volumes::box).accelerate());
  add(Case({4, 5}, 3, 2)
          .name("implicit, edge, mask")
          .tv(0.3)
          .edge(Edge::shared)
          .equal()
          .mask(Mask::per_image)
          .accelerate());
  add(Case({3, 2, 4}, 3).name("implicit, 3-D").tv(0.2).equal().spacing({2, 1, 0.75}).accelerate());
  add(Case({4, 5}, 4, 2).name("implicit, excluded class").tv(0.2).volumes(Volumes::equal_zero).accelerate());
  add(Case({4, 5}, 3, 2).name("implicit, volumes alone").equal());
  add(Case({4, 5}, 3, 2).name("implicit, td").td(0.3).td_edge(Edge::per_image).small());
  add(Case({4, 5}, 3, 2).name("implicit, td, volumes").td(0.3).equal());
  add(Case({4, 5}, 3, 2).name("implicit, kernel").td(0.3).td_kernel({3, 5}, true).mask(Mask::shared));
  add(Case({4, 5}, 3).name("implicit, star").star({1}).accelerate().small());
  add(Case({4, 5}, 3).name("implicit, all").tv(0.1).td(0.2).star({1}).equal().accelerate());
}

}  // namespace

void add_prior_cases(std::vector<Case> &list) {
  const auto add = [&](const Case &c) { list.push_back(c); };
  // Small enough for the race detector.
  add(Case({7, 19}, 3, 2).name("td").f32().td(0.3, 5, 2).iterations(2).race());
  add(Case({3, 4, 5}, 2)
          .name("td, volumes, edge, 3-D")
          .td(0.3)
          .td_edge(Edge::shared)
          .equal()
          .iterations(2)
          .race());
  add(Case({5, 6}, 3, 2)
          .name("star, accelerated")
          .f32()
          .star({1, 2})
          .accelerate()
          .iterations(4)
          .checkpoint(3)
          .race());
  add(Case({5, 6}, 3, 2)
          .name("all priors, mask")
          .tv(0.3)
          .td(0.2)
          .td_kernel({3, 5}, true)
          .star({1})
          .volumes(Volumes::box)
          .mask(Mask::per_image)
          .iterations(3)
          .checkpoint(2)
          .race());
  add(Case({5, 9}, 3, 2).name("mask").f16().tv(0.3).equal().mask(Mask::shared).iterations(3).race());

  add_mixes(list);
  for (const bool f32 : {false, true}) {
    add_threshold_dynamics(list, f32);
    add_stars(list, f32);
    add_masks(list, f32);
    add_paths(list, f32);
  }
  add_small_types(list);
  add_implicit(list);
}

}  // namespace segprior::test
