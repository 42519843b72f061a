// The bad-input tables of softmax.h, options: each with values outside its range.
#include <cmath>
#include <limits>

#include "tests/capi/bad_arguments.h"

using namespace segprior;
using namespace segprior::test;

namespace {

using Opts = segprior_softmax_opts;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Case box() {
  Case c({5, 7}, 3, 2);
  return c.f32().tv(0.3).volumes(Case::Volumes::box).iterations(3);
}
Case stars() {
  Case c({5, 7}, 3, 2);
  return c.f32().star({0, 2}).iterations(3);
}

template <class T>
void add(std::vector<Bad> &table, const std::string &name, T Opts::*member, const std::vector<T> &values) {
  for (T value : values) {
    const std::string text =
        std::isfinite(static_cast<double>(value)) ? " = " + std::to_string(static_cast<int>(value)) : " = ";
    table.push_back({name + text, SEGPRIOR_ERROR_VALUE, "opts." + name + text,
                     [=](CallArguments &a) { a.call.opts.*member = value; }});
  }
}

}  // namespace

TEST_CASE("softmax options: values outside their range [small]") {
  using Whole = std::vector<int32_t>;
  using Real = std::vector<double>;
  std::vector<Bad> table;
  add(table, "iterations", &Opts::iterations, Whole{-1});
  add(table, "accelerate", &Opts::accelerate, Whole{-1, 2});
  add(table, "tolerance", &Opts::tolerance, Real{-1, kNaN, kInf});
  add(table, "check_interval", &Opts::check_interval, Whole{0, -3});
  add(table, "checkpoint_interval", &Opts::checkpoint_interval, Whole{-1});
  add(table, "tv", &Opts::tv, Whole{-1, 2});
  add(table, "backward_mode", &Opts::backward_mode, Whole{-1, 3});
  add(table, "accumulate", &Opts::accumulate, Whole{-1, 2});
  add(table, "reserved", &Opts::reserved, Whole{1});
  add(table, "eps", &Opts::eps, Real{0, -1, kNaN, kInf});
  add(table, "init_eps", &Opts::init_eps, Real{-1, kNaN, kInf});
  add(table, "tv_lam", &Opts::tv_lam, Real{-1, kNaN, kInf});
  add(table, "tv_tau", &Opts::tv_tau, Real{-1, kNaN, kInf});
  add(table, "td", &Opts::td, Whole{-1, 2});
  add(table, "td_size", &Opts::td_size, Whole{-1, 0, 2, 14, 16, 17});
  add(table, "td_lam", &Opts::td_lam, Real{-1, kNaN, kInf});
  add(table, "td_sigma", &Opts::td_sigma, Real{0, -1, kNaN, kInf});
  add(table, "star_count", &Opts::star_count, Whole{-1, 257});
  add(table, "path", &Opts::path, Whole{-1, 3});
  add(table, "star_tau", &Opts::star_tau, Real{-1, kNaN, kInf});
  add(table, "compact_saved", &Opts::compact_saved, Whole{-1, 2});
  add(table, "implicit_iterations", &Opts::implicit_iterations, Whole{-1, 0});
  add(table, "implicit_tolerance", &Opts::implicit_tolerance, Real{0, -1, kNaN, kInf});
  const auto spacing = [&](int axis, double value) {
    const std::string name = "spacing[" + std::to_string(axis) + "]";
    table.push_back({name, SEGPRIOR_ERROR_VALUE, "opts." + name + " = ",
                     [=](CallArguments &a) { a.call.opts.spacing[axis] = value; }});
  };
  for (int axis : {0, 1, 2})
    for (double value : {0.0, -2.0, kNaN, kInf}) spacing(axis, value);
  for (Function function : kAllFunctions) check_bad(box(), function, table);
}

TEST_CASE("softmax options: the star classes [small]") {
  const auto classes = [](const std::string &what, const std::string &names, std::vector<int32_t> values) {
    return Bad{what, SEGPRIOR_ERROR_VALUE, names, [=](CallArguments &a) {
                 static thread_local std::vector<int32_t> keep;
                 keep = values;
                 a.call.opts.star_count = static_cast<int32_t>(keep.size());
                 a.call.opts.star_classes = keep.data();
               }};
  };
  const std::vector<Bad> table{
      {"no list", SEGPRIOR_ERROR_NULL_POINTER, "opts.star_classes",
       [](CallArguments &a) { a.call.opts.star_classes = nullptr; }},
      classes("negative", "opts.star_classes[0] = -1 must be 0 to 2", {-1, 2}),
      classes("beyond the classes", "opts.star_classes[1] = 3 must be 0 to 2", {0, 3}),
      classes("twice", "opts.star_classes[1] = 2 must not be repeated", {2, 2}),
      classes("more than the classes", "opts.star_count = 4", {0, 1, 2, 0}),
  };
  for (Function function : kAllFunctions) check_bad(stars(), function, table);
}

TEST_CASE("softmax options: compact saved state excludes warm starts [small]") {
  const Bad compact{"compact", SEGPRIOR_ERROR_NOT_SUPPORTED, "opts.compact_saved",
                    [](CallArguments &a) { a.call.opts.compact_saved = 1; }};
  Case tv({5, 7}, 3, 2), volume({5, 7}, 3, 2), star({5, 7}, 3, 2);
  tv.f32().tv(0.3).warm_start().iterations(3);
  volume.f32().equal().warm_start().iterations(3);
  star.f32().star({1}).warm_start().iterations(3);
  for (const Case &c : {tv, volume, star})
    for (Function function : kAllFunctions) check_bad(c, function, {compact});
}
