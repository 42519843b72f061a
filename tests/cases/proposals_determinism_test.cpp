// Same bits: for every thread count, run to run, whatever the buffers held before, and for each image alone.
// Nothing outside the outputs is written, nothing inside is left unwritten, nothing is allocated.
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/cases/proposals_cases.h"
#include "tests/support/alloc_count.h"

#if defined(SEGPRIOR_WITH_CUDA)
#include <cuda_runtime.h>  // says whether it is the fake one
#endif
#if defined(FAKECUDA)
#include "fakecuda/control.h"
#endif

using namespace segprior;
using namespace segprior::test;
using ref::Array;
using ref::proposals::Problem;

namespace {

constexpr int32_t kMethods[] = {SEGPRIOR_PROPOSAL_EXACT, SEGPRIOR_PROPOSAL_GRADIENT};
using Bytes = std::vector<unsigned char>;

// A few iterations; images that need fewer stop before.
ProposalSettings settings_of(const ProposalCase &c, int32_t method) {
  ProposalSettings settings;
  settings.dtype = c.dtype;
  settings.opts.method = method;
  settings.opts.iterations = 6;
  settings.opts.step = 0.01;
  settings.opts.tolerance = 1e-3;
  return settings;
}

Bytes run(const ProposalCase &c, Device &device, const ProposalSettings &settings) {
  ProposalCall call(device, c.problem(), settings);
  REQUIRE_MESSAGE(call.forward() == SEGPRIOR_OK, std::string(segprior_last_error()));
  CHECK(call.violations().empty());
  if (settings.canaries) CHECK(call.canaries_intact());
  return call.output_bytes();
}

// Without the mask, whose images do not hold the same numbers of voxels, image 2 of these stops before image
// 0.
Problem uneven(bool tiny) {
  Problem p = ProposalCase{tiny ? std::vector<int64_t>{5, 7} : std::vector<int64_t>{67, 71}, 3, 3,
                           ProposalBounds::equality, 2}
                  .problem();
  for (int64_t k = 2 * p.classes; k < 3 * p.classes; ++k) {
    p.lower[k] = 0;
    p.upper[k] = static_cast<double>(p.voxels());
  }
  return p;
}

void check_alone(bool tiny) {
  const Problem p = uneven(tiny);
  for (segprior_device which : all_devices())
    for (int32_t method : kMethods)
      for (int iterations : {1, 30}) {
        Device device(which);
        ProposalSettings settings;
        settings.opts.method = method;
        settings.opts.iterations = iterations;
        settings.opts.step = 1 / static_cast<double>(p.voxels());
        settings.opts.tolerance = 1e-4;
        ProposalCall all(device, p, settings);
        REQUIRE(all.forward() == SEGPRIOR_OK);
        CHECK(all.infos()[2].iterations == 0);
        CHECK(all.infos()[0].iterations > 0);
        for (int64_t b = 0; b < p.batch; ++b) {
          ProposalCall alone(device, p.image(b), settings);
          REQUIRE(alone.forward() == SEGPRIOR_OK);
          CAPTURE(b);
          CAPTURE(method);
          CHECK(alone.proposal->get() == image_of(all.proposal->get(), b, p.batch));
          CHECK(alone.dual->get() == image_of(all.dual->get(), b, p.batch));
          CHECK(alone.volume->get() == image_of(all.volume->get(), b, p.batch));
          CHECK(alone.infos()[0].iterations == all.infos()[b].iterations);
          CHECK(alone.infos()[0].status == all.infos()[b].status);
        }
      }
}

}  // namespace

TEST_CASE("proposals: the same bits for every number of threads") {
  for (const ProposalCase &c :
       {ProposalCase{{131, 127}, 3, 2, ProposalBounds::boxes, 3, SEGPRIOR_FLOAT32, true},
        ProposalCase{{97, 89}, 21, 1, ProposalBounds::equality, 3, SEGPRIOR_FLOAT16},
        ProposalCase{{61, 67}, 2, 4, ProposalBounds::lower_of_one},
        ProposalCase{{40009}, 5, 1, ProposalBounds::boxes, 3, SEGPRIOR_FLOAT32, true}})
    for (int32_t method : kMethods) {
      Device one({SEGPRIOR_CPU, 0}, 1);
      const Bytes want = run(c, one, settings_of(c, method));
      for (int threads : {2, 3, 5}) {
        Device several({SEGPRIOR_CPU, 0}, threads);
        CHECK_MESSAGE(run(c, several, settings_of(c, method)) == want, c, ": ", threads, " threads");
      }
    }
}

TEST_CASE("proposals: the same bits whatever the buffers held, and nothing else is written [small]") {
  for (const ProposalCase &c : tiny_proposal_cases())
    for (segprior_device which : all_devices())
      for (int32_t method : kMethods) {
        Device device(which);
        ProposalSettings settings = settings_of(c, method);
        const Bytes want = run(c, device, settings);
        settings.poison = 0x5a;
        settings.canaries = true;
        CHECK_MESSAGE(run(c, device, settings) == want, c);
      }
}

TEST_CASE("proposals: an image's result does not depend on the others") { check_alone(false); }
TEST_CASE("proposals: an image's result does not depend on the others, tiny [small] [race]") {
  check_alone(true);
}

TEST_CASE("proposals: outputs that are not wanted change nothing [small]") {
  const ProposalCase c = tiny_proposal_cases()[1];
  for (segprior_device which : all_devices()) {
    Device device(which);
    ProposalCall all(device, c.problem(), settings_of(c, 0)), bare(device, c.problem(), settings_of(c, 0));
    bare.outputs.dual = bare.outputs.volume = nullptr;
    bare.outputs.info = nullptr;
    REQUIRE(all.forward() == SEGPRIOR_OK);
    REQUIRE(bare.forward() == SEGPRIOR_OK);
    CHECK(bare.proposal->memory().content() == all.proposal->memory().content());
  }
}

TEST_CASE("proposals: calls do not allocate") {
  if (!can_count_allocations()) return;
  for (int threads : {2, 5}) {  // by images, and within an image
    Device device({SEGPRIOR_CPU, 0}, threads);
    const ProposalCase c{{67, 71}, 3, 3, ProposalBounds::boxes, 3, SEGPRIOR_FLOAT16, true};
    for (int32_t method : kMethods) {
      ProposalCall call(device, c.problem(), settings_of(c, method));
      REQUIRE(call.forward() == SEGPRIOR_OK);  // starts the threads
      const int64_t before = call.allocations();
      REQUIRE(call.forward() == SEGPRIOR_OK);
      CHECK(call.allocations() == before);
    }
  }
}

#if defined(FAKECUDA)
TEST_CASE("proposals: the same bits for every order of CUDA threads and blocks [small]") {
  Device device({SEGPRIOR_CUDA, 0});
  ProposalCase c{{31, 37}, 3, 2, ProposalBounds::boxes, 3, SEGPRIOR_FLOAT32, true};
  for (int64_t classes : {3, 25}) {
    c.classes = classes;
    const ProposalSettings settings = settings_of(c, SEGPRIOR_PROPOSAL_EXACT);
    const Bytes first = run(c, device, settings);
    fakecuda::set_order(fakecuda::Order::reverse);
    CHECK_MESSAGE(run(c, device, settings) == first, "reverse order gives other bits");
    for (uint64_t seed : {1, 2}) {
      fakecuda::set_order(fakecuda::Order::random, seed);
      CHECK_MESSAGE(run(c, device, settings) == first, "other bits in the order ", fakecuda::order_text());
    }
    fakecuda::set_order(fakecuda::Order::forward);
  }
}

TEST_CASE("proposals: one kernel or a launch per pass give the same bits [small]") {
  Device device({SEGPRIOR_CUDA, 0});
  const ProposalCase c{{31, 37}, 3, 2, ProposalBounds::boxes, 3};
  ProposalSettings settings = settings_of(c, SEGPRIOR_PROPOSAL_EXACT);
  settings.opts.tolerance = 0.03;  // both images stop after one iteration or two
  uint64_t before = fakecuda::launch_count();
  const auto launches = [&] {
    const uint64_t count = fakecuda::launch_count() - before;
    before += count;
    return count;
  };
  const Bytes persistent = run(c, device, settings);
  CHECK(launches() == 3);
  settings.opts.iterations = 2;
  const Bytes streaming = run(c, device, settings);
  CHECK(launches() == 2 + 3);
  CHECK(streaming == persistent);
  settings.opts.iterations = 0;
  CHECK(run(c, device, settings) != persistent);
}
#endif
