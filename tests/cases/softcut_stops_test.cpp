// When SoftCut stops, and what it says about it: the rules, the cap, warm starts, vanishing right-hand sides,
// the limit of the dtype's precision, empty tensors, absent results.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "tests/cases/softcut_check.h"
#include "tests/support/compare.h"

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::softcut::Problem;
using Solver = SoftcutCase::Solver;
using Weights = SoftcutCase::Weights;

namespace {

constexpr Solver kIterative[] = {Solver::cg, Solver::jacobi, Solver::multigrid, Solver::chebyshev};

// A device and a solver at a time.
template <class F>
void everywhere(const F &f) {
  for (segprior_device which : all_devices())
    for (Solver solver : kIterative) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      f(device, solver);
    }
}

}  // namespace

TEST_CASE("softcut: a warm start at the solution takes no iteration and is returned [small]") {
  everywhere([](Device &device, Solver solver) {
    for (bool f32 : {false, true}) {
      SoftcutCase c({5, 7}, 2);
      c.conductance(2).solver(solver).tolerance(f32 ? 1e-5 : 1e-10);
      if (f32) c.f32();
      const SoftcutPrepared prepared(c);
      Problem warm = prepared.problem;
      warm.init = rounded(prepared.x, c.dtype());
      SoftcutCall call(device, warm, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      CHECK(call.x->get() == warm.init);
      for (const segprior_info &info : call.infos()) {
        CHECK(info.iterations == 0);
        CHECK(info.status == SEGPRIOR_CONVERGED);
      }
    }
  });
}

TEST_CASE("softcut: a loose tolerance takes the start p / d [small]") {
  everywhere([](Device &device, Solver solver) {
    SoftcutCase c({5, 7}, 2);
    c.conductance(2).solver(solver).tolerance(100);
    const Problem p = make_problem(c);
    SoftcutCall call(device, p, settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    Array want;
    for (size_t k = 0; k < p.scores.size(); ++k) want.push_back(p.scores[k] / p.conductance[k]);
    CHECK_CLOSE("x", call.x->get(), want, 1e-14);
    for (const segprior_info &info : call.infos()) CHECK(info.iterations == 0);
  });
}

TEST_CASE("softcut: scores of zero give zero, whatever the start [small]") {
  everywhere([](Device &device, Solver solver) {
    for (int rule = 0; rule < 8; ++rule) {
      SoftcutCase c({5, 7}, 2, 2);
      c.f32().init().solver(solver).tolerance(1e-4);
      if (rule & 1) c.l1();
      if (rule & 2) c.absolute();
      if (rule & 4) c.batch_rule();
      INFO("rule " << rule);
      Problem p = make_problem(c);
      const int64_t zero = 2, from = zero * p.voxels();
      for (int64_t k = 0; k < p.voxels(); ++k) p.scores[from + k] = 0;
      SoftcutCall call(device, p, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const Array x = call.x->get();
      for (int64_t k = 0; k < p.voxels(); ++k) CHECK(x[from + k] == 0);
      const segprior_info info = call.infos()[zero];
      CHECK(info.status == SEGPRIOR_CONVERGED);
      if (!c.batch_rule_) CHECK(info.iterations == 0);
      CHECK(info.residual == 0);
      for (double value : x) CHECK(std::isfinite(value));
      // Its gradients: l is what it would be, those of weights and conductance vanish with x.
      REQUIRE(call.backward(Array(p.scores.size(), 0.0)) == SEGPRIOR_OK);
      for (const auto &gradient : call.gradient_list()) CHECK(max_abs(gradient.second->get()) == 0);
      for (const segprior_info &backward : call.backward_infos()) {
        CHECK(backward.status == SEGPRIOR_CONVERGED);
        CHECK(backward.iterations == 0);
        CHECK(backward.residual == 0);
      }
    }
  });
}

TEST_CASE("softcut: the cap is kept and reported [small]") {
  everywhere([](Device &device, Solver solver) {
    SoftcutCase c({9, 8}, 2);
    c.weights(100).solver(solver).tolerance(1e-12).cap(3);
    SoftcutCall call(device, make_problem(c), settings_of(c));
    call.opts.backward_max_iterations = 2;
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(make_grad_x(c)) == SEGPRIOR_OK);
    for (const segprior_info &info : call.infos()) {
      CHECK(info.status == SEGPRIOR_ITERATION_CAP);
      CHECK(info.iterations == 3);
      CHECK(info.residual > 1e-12);
    }
    for (const segprior_info &info : call.backward_infos()) {
      CHECK(info.status == SEGPRIOR_ITERATION_CAP);
      CHECK(info.iterations == 2);
    }
    call.opts.backward_max_iterations = 0;  // as max_iterations
    REQUIRE(call.backward(make_grad_x(c)) == SEGPRIOR_OK);
    for (const segprior_info &info : call.backward_infos()) CHECK(info.iterations == 3);
  });
}

TEST_CASE("softcut: the batch rule stops all systems together [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::cg, Solver::multigrid, Solver::chebyshev}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      SoftcutCase c({7, 6}, 2, 2);
      c.solver(solver).tolerance(1e-6).absolute().l1();
      Problem p = make_problem(c);
      for (int64_t k = 0; k < p.voxels(); ++k) p.scores[k] *= 1e-6;  // this one alone would stop at once
      SoftcutCall separate(device, p, settings_of(c)), together(device, p, settings_of(c.batch_rule()));
      REQUIRE(separate.forward() == SEGPRIOR_OK);
      REQUIRE(together.forward() == SEGPRIOR_OK);
      const auto alone = separate.infos(), batch = together.infos();
      CHECK(alone[0].iterations < alone[3].iterations);
      double sum = 0;
      for (const segprior_info &info : batch) {
        CHECK(info.iterations == batch[0].iterations);
        CHECK(info.status == SEGPRIOR_CONVERGED);
        sum +=
            info.residual / static_cast<double>(batch.size());  // of equally large systems: the batch's mean
      }
      CHECK(sum <= 1e-6 * (1 + 1e-9));
      CHECK(batch[0].iterations > alone[0].iterations);
    }
}

TEST_CASE("softcut: float32 says where its precision ends [small]") {
  for (segprior_device which : all_devices())
    for (Solver solver : {Solver::jacobi, Solver::multigrid}) {
      INFO(name_of(which) << ", solver " << static_cast<int>(solver));
      Device device(which);
      // Rounding x alone leaves a residual of about 2^-24 * 4e4 |x|.
      SoftcutCase c({12, 11}, 1);
      c.f32().weights(1e4).solver(solver).tolerance(1e-6);
      const SoftcutPrepared prepared(c);
      SoftcutCall call(device, prepared.problem, settings_of(c));
      REQUIRE(call.forward() == SEGPRIOR_OK);
      const segprior_info info = call.infos()[0];
      CHECK_MESSAGE(info.status == SEGPRIOR_PRECISION_LIMIT, "status ", info.status, ", iterations ",
                    info.iterations, ", residual ", info.residual);
      CHECK(info.residual > 1e-6);
      CHECK(info.residual < 0.2);
      CHECK_CLOSE("x", call.x->get(), prepared.x, 2e-3 * max_abs(prepared.x));
    }
}

TEST_CASE("softcut: empty tensors are valid and nothing is written [small]") {
  for (segprior_device which : all_devices()) {
    Device device(which);
    for (int empty = 0; empty < 5; ++empty) {
      SoftcutCase c({3, 4}, 2, 2);
      if (empty == 0) c.batch_ = 0;
      if (empty == 1) c.classes_ = 0;
      if (empty == 2) c.spatial_ = {0, 4};
      if (empty == 3) c.spatial_ = {3, 0};
      if (empty == 4) c = SoftcutCase({0, 3, 0}, 2).shared();
      if (empty < 4) c.diagonals();
      INFO("add(" << c.text() << "); on " << name_of(which));
      const Problem p = make_problem(c);
      SoftcutCall call(device, p, settings_of(c));
      CHECK(call.forward_workspace->bytes() == 0);
      CHECK(call.saved->bytes() == 0);
      CHECK_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_MESSAGE(call.backward({}) == SEGPRIOR_OK, std::string(segprior_last_error()));
      CHECK_MESSAGE(call.double_backward({}, make_cotangents(c)) == SEGPRIOR_OK,
                    std::string(segprior_last_error()));
      // Edges may have entries where there is no voxel; they are not touched either.
      for (const auto *array : {&call.info, &call.backward_info, &call.second_info})
        CHECK((*array)->content() == std::vector<unsigned char>((*array)->bytes(), kPoison));
      int64_t entries = -1;
      CHECK(segprior_softcut_csr_size(device.context(), &call.inputs, &entries) == SEGPRIOR_OK);
      CHECK(entries == 0);
    }
  }
}

TEST_CASE("softcut: what is not wanted is not written, and the rest is the same [small]") {
  for (segprior_device which : all_devices())
    for (bool shared : {false, true}) {
      INFO(name_of(which) << ", shared " << shared);
      Device device(which);
      SoftcutCase c({4, 5}, 2, 2);
      c.f32().diagonals().conductance(2).tolerance(1e-3);
      if (shared) c.shared();
      const Problem p = make_problem(c);
      const Array grad_x = make_grad_x(c);
      const ref::softcut::Gradients cotangents = make_cotangents(c);
      SoftcutCall full(device, p, settings_of(c)), call(device, p, settings_of(c));
      call.outputs.info = nullptr;
      REQUIRE(full.forward() == SEGPRIOR_OK);
      REQUIRE(call.forward() == SEGPRIOR_OK);
      CHECK(call.x->get() == full.x->get());
      CHECK(call.info->content() == std::vector<unsigned char>(call.info->bytes(), kPoison));
      REQUIRE(full.backward(grad_x) == SEGPRIOR_OK);
      const Array l = full.grad_scores->get();
      REQUIRE(full.double_backward(l, cotangents) == SEGPRIOR_OK);
      // One gradient at a time; the last round: none, but infos.
      const auto check = [](const auto &got, const auto &want, size_t wanted) {
        for (size_t k = 0; k < got.size(); ++k) {
          const auto content = got[k].second->memory().content();
          const auto expected = k == wanted ? want[k].second->memory().content()
                                            : std::vector<unsigned char>(content.size(), kPoison);
          const std::string name = got[k].first;
          CHECK_MESSAGE(content == expected, name, (k == wanted ? " differs" : " was written"));
        }
      };
      const auto list = call.gradient_list();
      for (size_t wanted = 0; wanted <= list.size(); ++wanted) {
        segprior_softcut_grads &g = call.grads;
        g = {};
        g.struct_size = sizeof g;
        const segprior_tensor **slots[] = {&g.scores,       &g.edges[0],     &g.edges[1],
                                           &g.diagonals[0], &g.diagonals[1], &g.conductance};
        REQUIRE(list.size() == 6);
        if (wanted < 6) *slots[wanted] = list[wanted].second->view();
        if (wanted == 6) g.info = static_cast<segprior_info *>(call.backward_info->data());
        REQUIRE_MESSAGE(call.backward(grad_x) == SEGPRIOR_OK, std::string(segprior_last_error()));
        check(list, full.gradient_list(), wanted);
        if (wanted == 6) CHECK(call.backward_info->content() == full.backward_info->content());
      }
      const auto second = call.second_list();
      for (size_t wanted = 0; wanted <= second.size(); ++wanted) {
        segprior_softcut_second_grads &g = call.second_grads;
        g = {};
        g.struct_size = sizeof g;
        const segprior_tensor **slots[] = {&g.grad_x,       &g.scores,       &g.edges[0],   &g.edges[1],
                                           &g.diagonals[0], &g.diagonals[1], &g.conductance};
        REQUIRE(second.size() == 7);
        if (wanted < 7) *slots[wanted] = second[wanted].second->view();
        if (wanted == 7) g.info = static_cast<segprior_info *>(call.second_info->data());
        REQUIRE_MESSAGE(call.double_backward(l, cotangents) == SEGPRIOR_OK,
                        std::string(segprior_last_error()));
        check(second, full.second_list(), wanted);
        if (wanted == 7) CHECK(call.second_info->content() == full.second_info->content());
      }
    }
}

TEST_CASE("softcut: absent cotangents count as zero [small]") {
  for (segprior_device which : all_devices()) {
    INFO(name_of(which));
    Device device(which);
    SoftcutCase c({4, 5}, 2);
    c.diagonals().conductance(2);
    const Problem p = make_problem(c);
    SoftcutCall call(device, p, settings_of(c));
    REQUIRE(call.forward() == SEGPRIOR_OK);
    REQUIRE(call.backward(make_grad_x(c)) == SEGPRIOR_OK);
    const Array l = call.grad_scores->get();
    ref::softcut::Gradients all = make_cotangents(c);
    for (int absent = 0; absent < 3; ++absent) {
      INFO("absent " << absent);
      ref::softcut::Gradients zero = all, none = all;
      const auto drop = [](Array &zeroed, Array &emptied) {
        zeroed.assign(zeroed.size(), 0.0);
        emptied.clear();
      };
      if (absent == 0) drop(zero.scores, none.scores);
      if (absent == 1) drop(zero.conductance, none.conductance);
      for (int f = 0; absent == 2 && f < ref::softcut::kFamilies; ++f)
        drop(zero.edges.of[f], none.edges.of[f]);
      REQUIRE(call.double_backward(l, zero) == SEGPRIOR_OK);
      std::vector<Array> want;
      for (const auto &gradient : call.second_list()) want.push_back(gradient.second->get());
      REQUIRE_MESSAGE(call.double_backward(l, none) == SEGPRIOR_OK, std::string(segprior_last_error()));
      size_t k = 0;
      for (const auto &gradient : call.second_list())
        CHECK_CLOSE(std::string(gradient.first), gradient.second->get(), want[k++], 1e-12);
    }
  }
}
