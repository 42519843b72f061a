#include "tests/cases/softcut_cases.h"

namespace segprior::test {

namespace {

using Solver = SoftcutCase::Solver;
using Weights = SoftcutCase::Weights;
using List = std::vector<SoftcutCase>;

constexpr Solver kIterative[] = {Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev};
constexpr int32_t kPaths[] = {SEGPRIOR_PATH_STREAMING, SEGPRIOR_PATH_ON_CHIP, SEGPRIOR_PATH_CLUSTER,
                              SEGPRIOR_PATH_PERSISTENT};

// Small enough for the race detector: every solver and path once.
void add_race(List &list) {
  const auto add = [&](SoftcutCase c) { list.push_back(c.tolerance(1e-2).race()); };
  add(SoftcutCase({7, 9}, 2).f32().solver(Solver::cg).path(SEGPRIOR_PATH_STREAMING));
  add(SoftcutCase({7, 9}, 2).f32().solver(Solver::multigrid).path(SEGPRIOR_PATH_STREAMING).conductance(2));
  add(SoftcutCase({5, 6}, 2).f32().solver(Solver::multigrid).path(SEGPRIOR_PATH_PERSISTENT).shared());
  add(SoftcutCase({3, 4, 5}, 2).f32().solver(Solver::jacobi).path(SEGPRIOR_PATH_PERSISTENT).conductance(2));
  add(SoftcutCase({19, 17}, 3).f32().solver(Solver::jacobi).path(SEGPRIOR_PATH_ON_CHIP).shared().diagonals());
  add(SoftcutCase({23, 29}, 2).f32().solver(Solver::cg).path(SEGPRIOR_PATH_CLUSTER).conductance(2));
  add(SoftcutCase({37}, 2, 2).solver(Solver::chebyshev).path(SEGPRIOR_PATH_STREAMING).weights(0.3));
  add(SoftcutCase({6, 7}, 2).bf16().solver(Solver::cg).accumulate());
}

// For the fake runtime. Paths that serve a case are all taken where it names none. Loose tolerances: an error
// in a kernel is larger than they are.
void add_small(List &list) {
  const auto add = [&](SoftcutCase c) {
    if (c.tolerance_ == 0) c.tolerance(c.float32_ ? 1e-3 : 1e-5);
    list.push_back(c.small());
  };
  for (Solver solver : kIterative) {
    add(SoftcutCase({9, 11}, 3).name("solver").f32().solver(solver));
    add(SoftcutCase({6, 5}, 2).name("solver").diagonals().conductance(2).shared().solver(solver));
    add(SoftcutCase({4, 5, 6}, 2).name("solver, 3-D").f32().shared().conductance(2).solver(solver));
  }
  for (int64_t n : {1, 2, 33}) add(SoftcutCase({n}, 2).name("1-D").f32());
  for (Solver solver : {Solver::jacobi, Solver::multigrid}) {
    add(SoftcutCase({1, 1}, 1).name("one voxel").conductance(3).diagonals().solver(solver));
    add(SoftcutCase({1, 31}, 2).name("thin").f32().diagonals().solver(solver));
    add(SoftcutCase({37, 1, 2}, 1).name("thin").f32().solver(solver));
  }
  add(SoftcutCase({5, 4}, 21).name("many classes").f32().shared().tolerance(1e-2));
  add(SoftcutCase({3, 3}, 1, 5).name("batch").f32());
  add(SoftcutCase({9, 8}, 1).name("strong").weights(100).solver(Solver::multigrid));
  add(SoftcutCase({9, 8}, 2).name("no coupling").f32().weights(0, Weights::constant));
  add(SoftcutCase({9, 8}, 2).name("cut edges").f32().weights(2, Weights::cut));
  add(SoftcutCase({6, 7}, 2).f16().shared().diagonals().conductance(2).accumulate());
  add(SoftcutCase({6, 7}, 2).name("warm start, accumulating").init().accumulate().conductance(2));
  add(SoftcutCase({6, 7}, 2, 2).name("rule").f32().absolute().l1().batch_rule().init());
  add(SoftcutCase({6, 7}, 2, 2).name("rule").f32().l1());
  add(SoftcutCase({6, 7}, 2, 2).name("rule").f32().absolute().solver(Solver::multigrid));
  add(SoftcutCase({6, 7}, 2, 2).name("cap").f32().weights(30).tolerance(1e-6).cap(3));
  // Many tiles, one after another: none may see what another one leaves for the next pass.
  add(SoftcutCase({97, 101}, 1)
          .name("passes")
          .f32()
          .weights(0.3)
          .tolerance(1e-2)
          .solver(Solver::chebyshev)
          .path(SEGPRIOR_PATH_STREAMING));
  // Several tiles of work, several blocks of a cluster.
  add(SoftcutCase({37, 41}, 1).name("tiles").f32().weights(0.1).tolerance(1e-1).solver(Solver::jacobi));
  add(SoftcutCase({37, 41}, 1).name("tiles").f32().weights(0.1).tolerance(1e-1).solver(Solver::multigrid));
}

void add_extents(List &list) {
  const auto add = [&](const SoftcutCase &c) { list.push_back(c); };
  for (int64_t n : {1, 2, 3, 31, 32, 33, 127, 128, 129, 257, 1009})
    for (Solver solver : kIterative)
      add(SoftcutCase({n}, 3, 2).name("1-D extents").conductance(3).solver(solver));
  const int64_t extents[] = {1, 2, 17, 31, 33};
  for (int64_t h : extents)
    for (int64_t w : extents)
      for (bool f32 : {false, true}) {
        SoftcutCase c({h, w}, 2, 2);
        c.name("2-D extents");
        if (f32) c.f32().shared();
        if ((h + w) % 3 == 0) c.diagonals();
        if ((h + w) % 2 == 0) c.conductance(5);
        add(SoftcutCase(c).solver(Solver::jacobi));
        add(SoftcutCase(c).solver(Solver::multigrid));
      }
  for (int64_t z : {1, 2, 5, 8})
    for (int64_t y : {1, 3, 7})
      for (int64_t x : {1, 2, 9, 16}) {
        add(SoftcutCase({z, y, x}, 2).name("3-D extents").f32().conductance(2).solver(Solver::multigrid));
        add(SoftcutCase({z, y, x}, 2).name("3-D extents").shared().solver(Solver::cg));
      }
  for (std::vector<int64_t> thin :
       {std::vector<int64_t>{2, 401}, {401, 2}, {1, 2, 301}, {151, 2, 3}, {3, 131, 2}})
    for (Solver solver : kIterative)
      add(SoftcutCase(thin, 2).name("thin").weights(3).conductance(2).solver(solver));
}

void add_counts(List &list) {
  const auto add = [&](const SoftcutCase &c) { list.push_back(c); };
  for (int64_t classes : {1, 2, 3, 4, 5, 8, 21})
    for (int64_t batch : {1, 2, 5})
      for (bool shared : {false, true}) {
        SoftcutCase c({11, 13}, classes, batch);
        c.name("counts");
        if (shared) c.shared();
        add(SoftcutCase(c).f32().solver(Solver::jacobi).diagonals());
        add(SoftcutCase(c).solver(Solver::multigrid).conductance(10));
        if (classes == 3) add(SoftcutCase(c).solver(Solver::chebyshev).accumulate());
        if (classes == 3) add(SoftcutCase(c).solver(Solver::cg).init());
      }
}

void add_weights(List &list) {
  const auto add = [&](const SoftcutCase &c) { list.push_back(c); };
  for (Solver solver : kIterative)
    for (const std::vector<int64_t> &spatial : {std::vector<int64_t>{23, 29}, {7, 8, 9}}) {
      const SoftcutCase c = SoftcutCase(spatial, 2).solver(solver);
      add(SoftcutCase(c).name("no coupling").weights(0, Weights::constant));
      add(SoftcutCase(c).name("weak").weights(1e-4));
      add(SoftcutCase(c).name("cut edges").weights(5, Weights::cut).conductance(2));
      add(SoftcutCase(c).name("even").weights(10, Weights::constant));
      add(SoftcutCase(c).name("cut edges").f32().weights(3, Weights::cut));
      if (solver == Solver::chebyshev) continue;  // hundreds of steps more
      add(SoftcutCase(c).name("strong").weights(1000).tolerance(1e-8));
      add(SoftcutCase(c).name("strong").weights(30).f32().tolerance(1e-4));
      add(SoftcutCase(c).name("ten decades").weights(1e4, Weights::decades).tolerance(1e-8));
      add(SoftcutCase(c).name("ten decades").weights(1e4, Weights::decades).f32().tolerance(1e-2));
    }
  for (Solver solver : {Solver::jacobi, Solver::multigrid})
    for (double spread : {10.0, 1e3})
      for (bool shared : {false, true}) {
        SoftcutCase c({23, 29}, 2);
        c.name("conductance").conductance(spread).solver(solver).weights(5);
        if (shared) c.shared().diagonals();
        add(SoftcutCase(c).tolerance(1e-8));
        add(SoftcutCase(c).f32().tolerance(1e-3));
      }
  for (Solver solver : kIterative) {
    add(SoftcutCase({13, 17}, 3, 2).name("16-bit").f16().solver(solver).shared().conductance(2));
    add(SoftcutCase({13, 17}, 3, 2).name("16-bit").bf16().solver(solver).diagonals().accumulate());
    add(SoftcutCase({5, 6, 7}, 2)
            .name("16-bit")
            .f16()
            .solver(solver)
            .weights(20, Weights::cut)
            .tolerance(1e-4));
  }
}

void add_rules(List &list) {
  const auto add = [&](const SoftcutCase &c) { list.push_back(c); };
  for (Solver solver : kIterative)
    for (bool f32 : {false, true})
      for (int rule = 0; rule < 8; ++rule) {
        SoftcutCase c({12, 11}, 2, 3);
        c.name("rule").solver(solver);
        if (f32) c.f32();
        if (rule & 1) c.l1();
        if (rule & 2) c.absolute();
        if (rule & 4) c.batch_rule();
        add(c);
        add(SoftcutCase(c).tolerance(1e-2));  // residuals far above rounding
        if (solver != Solver::chebyshev) add(SoftcutCase(c).name("cap").weights(100).tolerance(1e-6).cap(4));
        if (rule == 5) add(SoftcutCase(c).init().accumulate().shared());
      }
  add(SoftcutCase({12, 11}, 2).name("cap between two looks").solver(Solver::chebyshev).weights(100).cap(13));
}

void add_solvers(List &list) {
  const auto add = [&](const SoftcutCase &c) { list.push_back(c); };
  for (Solver solver : {Solver::automatic, Solver::direct})
    for (bool f32 : {false, true}) {
      const auto both = [&](SoftcutCase c) { add((f32 ? c.f32() : c).solver(solver)); };
      both(SoftcutCase({33, 31}, 3, 2).name("solver"));
      both(SoftcutCase({33, 31}, 3, 2).name("solver").shared().conductance(10).diagonals());
      both(SoftcutCase({9, 8, 7}, 2).name("solver").weights(30).tolerance(1e-4));
      both(SoftcutCase({101}, 2).name("solver").weights(0.3).accumulate());
      both(SoftcutCase({1, 1, 1}, 2).name("solver"));
      both(SoftcutCase({17, 19}, 2).name("solver").weights(1e4, Weights::decades).tolerance(1e-2));
      if (solver == Solver::automatic)
        both(SoftcutCase({64, 65}, 2).name("solver").weights(100).tolerance(1e-3).init());
    }
  // Large enough for several blocks on every path of a real device.
  for (int32_t path : kPaths)
    for (Solver solver : {Solver::cg, Solver::jacobi, Solver::multigrid}) {
      const bool resident = path == SEGPRIOR_PATH_ON_CHIP || path == SEGPRIOR_PATH_CLUSTER;
      if (resident && solver == Solver::multigrid) continue;
      const SoftcutCase c = SoftcutCase({64, 49}, 3, 2).name("path").f32().solver(solver).path(path);
      add(SoftcutCase(c).shared().diagonals());
      add(SoftcutCase(c).conductance(3));
    }
}

List build() {
  List list;
  add_race(list);
  add_small(list);
  add_extents(list);
  add_counts(list);
  add_weights(list);
  add_rules(list);
  add_solvers(list);
  return list;
}

}  // namespace

const List &softcut_cases() {
  static const List list = build();
  return list;
}

}  // namespace segprior::test
