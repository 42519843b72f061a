// The checker is tested like a product: every planted bug must be caught, under every thread order, and the
// repaired kernel must pass.
#include <doctest/doctest.h>

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "fakecuda/control.h"
#include "kernels/common/cuda.h"
#include "planted.h"

namespace {

using fakecuda::Order;

struct Run {
  Order order;
  uint64_t seed;
};
const Run kRuns[] = {
    {Order::forward, 0}, {Order::reverse, 0}, {Order::random, 1}, {Order::random, 2}, {Order::random, 3}};

struct RestoreOrder {
  ~RestoreOrder() { fakecuda::set_order(Order::forward); }
};

// What a child process says; its status in `status`.
std::string run_child(const std::string &name, const Run &run, int &status) {
  char self[4096];
  FILE *link = popen(("readlink -f /proc/" + std::to_string(getpid()) + "/exe").c_str(), "r");
  REQUIRE(link);
  REQUIRE(std::fgets(self, sizeof self, link));
  pclose(link);
  self[std::strcspn(self, "\n")] = 0;
  const char *order = run.order == Order::forward   ? "forward"
                      : run.order == Order::reverse ? "reverse"
                                                    : "random";
  const std::string command = std::string("SEGPRIOR_FAKECUDA_ORDER=") + order +
                              " SEGPRIOR_FAKECUDA_SEED=" + std::to_string(run.seed) + " '" + self +
                              "' --planted " + name + " 2>&1";
  FILE *child = popen(command.c_str(), "r");
  REQUIRE(child);
  std::string output;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, child)) > 0;) output.append(buffer, n);
  status = pclose(child);
  return output;
}

// The breach's text, empty if the kernel passed.
std::string breach(const Planted &bug) {
  fakecuda::expect_errors(true);
  std::string text;
  try {
    bug.run();
  } catch (const segprior::Error &error) {
    CHECK(error.status == SEGPRIOR_ERROR_CUDA);
    text = error.what();
  }
  fakecuda::expect_errors(false);
  return text;
}

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("planted bugs are caught") {
  RestoreOrder restore;
  for (const Planted &bug : planted_bugs()) {
    std::set<float> results;
    for (const Run &run : kRuns) {
      fakecuda::set_order(run.order, run.seed);
      const std::string order = fakecuda::order_text();
      CAPTURE(bug.name);
      CAPTURE(order);
      switch (bug.caught) {
        case Caught::race:
          if (fakecuda::detects_races()) {
            fakecuda::ExpectRaces races;
            bug.run();
            CHECK(races.count() > 0);
          }
          break;
        case Caught::breach: {
          const std::string text = breach(bug);
          CAPTURE(text);
          CHECK(contains(text, bug.text));
          CHECK(contains(text, "seed " + std::to_string(run.seed)));
          break;
        }
        case Caught::address:
          if (!fakecuda::detects_races()) {
            int status;
            const std::string output = run_child(bug.name, run, status);
            CAPTURE(output);
            CHECK(status != 0);
            CHECK(contains(output, "ERROR: AddressSanitizer"));
            CHECK(contains(output, "order " + order));
          } else if (bug.text[0]) {
            fakecuda::ExpectRaces races;  // neighbours share the overrun element
            CHECK(contains(breach(bug), bug.text));
          }
          break;
        case Caught::not_a_number:
          CHECK(std::isnan(bug.run()));
          break;
        case Caught::bits:
          results.insert(bug.run());
          break;
      }
    }
    if (bug.caught == Caught::bits) CHECK(results.size() > 1);
  }
}

TEST_CASE("the repaired kernels pass, with the same bits in every order") {
  RestoreOrder restore;
  for (const Planted &bug : planted_bugs()) {
    CAPTURE(bug.name);
    float first = 0;
    for (const Run &run : kRuns) {
      fakecuda::set_order(run.order, run.seed);
      const float result = bug.correct();
      if (&run == kRuns) first = result;
      CHECK(std::memcmp(&result, &first, sizeof first) == 0);
      CHECK(std::isfinite(result));
    }
  }
}

TEST_CASE("after a breach the next launch works") {
  for (const Planted &bug : planted_bugs()) {
    if (bug.caught != Caught::breach) continue;
    CAPTURE(bug.name);
    const int before = fakecuda::error_count();
    CHECK(!breach(bug).empty());
    CHECK(fakecuda::error_count() == before + 1);
    CHECK(cudaGetLastError() == cudaSuccess);  // check() has cleared it
    CHECK(std::isfinite(bug.correct()));
  }
}
