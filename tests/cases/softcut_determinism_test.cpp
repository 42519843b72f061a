// Same bits of SoftCut: for every thread count, run to run, whatever the buffers held before, and for each
// system alone. Nothing outside the outputs is written, nothing inside is left unwritten, nothing is
// allocated.
#include <doctest/doctest.h>

#include <vector>

#include "tests/cases/softcut_check.h"
#include "tests/support/alloc_count.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::kFamilies;
using ref::softcut::Problem;
using Solver = SoftcutCase::Solver;

namespace {

using Bytes = std::vector<std::vector<unsigned char>>;

// Everything that the three calls write. A workspace holds nothing between calls.
Bytes run(const SoftcutCase &c, Device &device, const SoftcutSettings &settings) {
  SoftcutCall call(device, make_problem(c), settings);
  Bytes all;
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  call.forward_workspace->fill(static_cast<unsigned char>(~settings.poison));
  REQUIRE_MESSAGE(call.backward(make_grad_x(c)) == SEGPRIOR_OK, std::string(segprior_last_error()));
  call.backward_workspace->fill(static_cast<unsigned char>(~settings.poison));
  REQUIRE_MESSAGE(call.double_backward(call.grad_scores->get(), make_cotangents(c)) == SEGPRIOR_OK,
                  std::string(segprior_last_error()));
  all.push_back(call.x->memory().content());
  for (const auto &list : {call.gradient_list(), call.second_list()})
    for (const auto &gradient : list) all.push_back(gradient.second->memory().content());
  for (const auto *array : {&call.info, &call.backward_info, &call.second_info})
    all.push_back((*array)->content());
  if (settings.canaries) CHECK(call.canaries_intact());
  CHECK(call.violations().empty());
  return all;
}

std::vector<SoftcutCase> selection(bool tiny) {
  std::vector<SoftcutCase> list;
  int seen = 0;
  for (const SoftcutCase &c : softcut_cases())
    if (tiny ? c.size_ == SoftcutCase::Size::race : seen++ % 23 == 0) list.push_back(c);
  return list;
}

void check_buffers(bool tiny) {
  const WithClusters clusters;
  for (const SoftcutCase &c : selection(tiny))
    for (segprior_device which : all_devices()) {
      Device device(which);
      for (int32_t path : paths_of(device, c)) {
        INFO("add(" << c.text() << "); on " << name_of(which) << ", path " << path);
        SoftcutSettings settings = settings_of(c);
        settings.opts.path = path;
        const Bytes first = run(c, device, settings);
        if (!tiny) CHECK_MESSAGE(run(c, device, settings) == first, "a second run gives other bits");
        settings.canaries = true;
        settings.poison = 0x00;
        CHECK_MESSAGE(run(c, device, settings) == first,
                      "other bits on zeroed buffers: something is unwritten");
        if (tiny) continue;
        settings.poison = 0x3c;  // finite and not 0
        CHECK_MESSAGE(run(c, device, settings) == first,
                      "other bits on filled buffers: something is unwritten");
      }
    }
}

// The problem of system n alone: its own scores and matrix.
Problem alone(const Problem &p, int64_t n) {
  Problem one = p;
  one.batch = one.classes = 1;
  one.shared = false;
  const auto part = [](const Array &values, int64_t index, int64_t size) {
    return values.empty() ? values
                          : Array(values.begin() + index * size, values.begin() + (index + 1) * size);
  };
  const int64_t m = p.matrix_of(n);
  one.scores = part(p.scores, n, p.voxels());
  one.init = part(p.init, n, p.voxels());
  one.conductance = part(p.conductance, m, p.voxels());
  for (int f = 0; f < kFamilies; ++f) one.weights.of[f] = part(p.weights.of[f], m, p.edge_count(f));
  return one;
}

void check_alone(const SoftcutCase &c, Device &device, int32_t path) {
  INFO("add(" << c.text() << "); on " << name_of(device.which()) << ", path " << path);
  const Problem p = make_problem(c);
  const Array grad_x = make_grad_x(c);
  SoftcutSettings settings = settings_of(c);
  settings.opts.path = path;
  SoftcutCall together(device, p, settings);
  REQUIRE_MESSAGE(together.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  REQUIRE_MESSAGE(together.backward(grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
  const Array x = together.x->get(), l = together.grad_scores->get();
  for (int64_t n = 0; n < p.systems(); ++n) {
    const int64_t from = n * p.voxels(), to = from + p.voxels();
    SoftcutCall single(device, alone(p, n), settings);
    REQUIRE_MESSAGE(single.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
    REQUIRE(single.backward(Array(grad_x.begin() + from, grad_x.begin() + to)) == SEGPRIOR_OK);
    CHECK_MESSAGE(single.x->get() == Array(x.begin() + from, x.begin() + to), "x of system ", n);
    CHECK_MESSAGE(single.grad_scores->get() == Array(l.begin() + from, l.begin() + to), "gradient of system ",
                  n);
    CHECK(single.infos()[0].iterations == together.infos()[n].iterations);
    CHECK(single.infos()[0].residual == together.infos()[n].residual);
  }
}

}  // namespace

TEST_CASE("softcut: results do not depend on what buffers held, tiny [small]") { check_buffers(true); }
TEST_CASE("softcut: results do not depend on what buffers held") { check_buffers(false); }

TEST_CASE("softcut: the same bits for every number of CPU threads") {
  std::vector<SoftcutCase> list = selection(false);
  // Enough work for every thread, in one system and in many.
  for (Solver solver :
       {Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev, Solver::automatic}) {
    list.push_back(SoftcutCase({131, 127}, 1).f32().weights(3).solver(solver).diagonals());
    list.push_back(SoftcutCase({33, 31}, 3, 3).conductance(3).weights(3).solver(solver).shared());
    list.push_back(SoftcutCase({24, 23, 22}, 2).f32().weights(3).solver(solver));
  }
  for (const SoftcutCase &c : list) {
    INFO("add(" << c.text() << ")");
    Device one({SEGPRIOR_CPU, 0}, 1);
    if (paths_of(one, c).empty()) continue;
    const Bytes first = run(c, one, settings_of(c));
    for (int threads : {2, 3}) {
      Device device({SEGPRIOR_CPU, 0}, threads);
      CHECK_MESSAGE(run(c, device, settings_of(c)) == first, threads, " threads give other bits than one");
    }
  }
}

TEST_CASE("softcut: each system is computed as if it were alone [small]") {
  const WithClusters clusters;
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::cg, Solver::multigrid}) {
      Device device(which);
      for (bool shared : {false, true}) {
        if (shared == (solver == Solver::cg)) continue;  // the other way round: in the full test
        SoftcutCase c({4, 5}, 2, 2);
        c.f32().conductance(2).solver(solver).tolerance(1e-2).absolute().small();
        if (shared) c.shared();
        for (int32_t path : paths_of(device, c)) check_alone(c, device, path);
      }
    }
}

TEST_CASE("softcut: each system is computed as if it were alone") {
  for (segprior_device which : all_devices())
    for (Solver solver :
         {Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev, Solver::automatic}) {
      Device device(which);
      for (bool shared : {false, true}) {
        SoftcutCase c({41, 39}, 5, 3);
        c.f32().conductance(2).solver(solver).weights(2).absolute();
        if (shared) c.shared();
        for (int32_t path : paths_of(device, c)) check_alone(c, device, path);
      }
    }
}

TEST_CASE("softcut: the calls do not allocate") {
  if (!can_count_allocations()) return;
  for (Solver solver : {Solver::automatic, Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev})
    for (bool small : {false, true}) {
      SoftcutCase c({33, 31}, 3, 2);
      c.shared().diagonals().conductance(2).solver(solver).init();
      if (small) c.f16();
      INFO("add(" << c.text() << ")");
      Device device({SEGPRIOR_CPU, 0}, 2);
      const Problem p = make_problem(c);
      const Array grad_x = make_grad_x(c);
      SoftcutCall warm_up(device, p, settings_of(c));  // starts OpenMP's threads
      REQUIRE(warm_up.forward() == SEGPRIOR_OK);
      SoftcutCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      REQUIRE(call.backward(grad_x) == SEGPRIOR_OK);
      REQUIRE(call.double_backward(call.grad_scores->get(), make_cotangents(c)) == SEGPRIOR_OK);
      CHECK(call.allocations() == 0);
    }
}
