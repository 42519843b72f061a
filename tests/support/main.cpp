// The one main() of every test executable: doctest's, and
//   segprior_tests --time-cases [text]   times the cases whose expression contains the text, on every device
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstring>

#include "tests/cases/time_cases.h"

int main(int argc, char **argv) {
  if (argc > 1 && std::strcmp(argv[1], "--time-cases") == 0)
    return segprior::test::time_cases(argc > 2 ? argv[2] : "");
  return doctest::Context(argc, argv).run();
}
