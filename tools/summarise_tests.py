#!/usr/bin/env python3
"""Adds up test results: ctest's own, the doctest cases inside its tests, and pytest's.

    tools/summarise_tests.py build [--bindings]

Reads what tools/run_tests.sh, or with --bindings tools/test_bindings.sh, leaves in the build folder. A missing or
truncated log counts as one failure.
"""

import pathlib
import re
import sys


def ctest(text):
    match = re.search(r"tests passed, (\d+) tests? failed out of (\d+)", text)
    return (int(match[2]) - int(match[1]), int(match[1])) if match else (0, 1)


def doctest(text):
    # A program that crashed prints no summary; ctest has counted it as failed.
    cases = re.findall(r"\[doctest\] test cases: *\d+ *\| *(\d+) passed *\| *(\d+) failed", text)
    return sum(int(c[0]) for c in cases), sum(int(c[1]) for c in cases)


def pytest(text):
    last = text.strip().split("\n")[-1]
    counts = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?)\b", last)}
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0) if counts else 1


TESTS = (("ctest", "ctest.log", ctest),
         ("doctest cases", "Testing/Temporary/LastTest.log", doctest),
         ("pytest", "pytest.log", pytest))
BINDINGS = (("pytest torch", "pytest-torch.log", pytest), ("pytest jax", "pytest-jax.log", pytest))


def main():
    build = pathlib.Path(sys.argv[1])
    for name, log, count in BINDINGS if "--bindings" in sys.argv else TESTS:
        path = build / log
        passed, failed = count(path.read_text(errors="replace") if path.exists() else "")
        print(f"{name}: {passed} passed, {failed} failed")


if __name__ == "__main__":
    main()
