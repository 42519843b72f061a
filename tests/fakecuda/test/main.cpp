// Entry of the fake runtime's own tests. `--planted NAME` runs one planted bug and nothing else: some bugs
// end the process, so the tests run them in a child.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "planted.h"

#if defined(__SANITIZE_THREAD__)
// Each report counts, also where an equal one was seen under another thread order.
extern "C" const char *__tsan_default_options() {
  return "suppress_equal_stacks=0:suppress_equal_addresses=0";
}
#endif

int main(int argc, char **argv) {
  if (argc == 3 && std::string(argv[1]) == "--planted") {
    for (const Planted &bug : planted_bugs())
      if (std::string(bug.name) == argv[2]) {
        const float result = bug.run();
        std::printf("result %g\n", result);
        return 0;
      }
    return 2;
  }
  return doctest::Context(argc, argv).run();
}
