#!/usr/bin/env bash
# Builds and runs all tests: ctest in the given build folder, then the Python package's. Ends with a summary;
# exit status 1 if anything failed.
#   tools/run_tests.sh build [ctest options]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=$1
shift

cmake --build "$build" || exit 1
rm -f "$build"/{ctest,pytest,Testing/Temporary/LastTest}.log
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "$@" 2>&1 | tee "$build/ctest.log"
ctest_status=${PIPESTATUS[0]}
.venv/bin/python -m pytest bindings/python/tests -q -p no:cacheprovider 2>&1 | tee "$build/pytest.log"
pytest_status=${PIPESTATUS[0]}
python3 tools/summarise_tests.py "$build"
[ "$ctest_status" -eq 0 ] && [ "$pytest_status" -eq 0 ]
