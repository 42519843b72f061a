#!/usr/bin/env bash
# Tests of segprior.torch and segprior.jax, in the environment of tools/bindings_env.sh, against the library in a build
# folder; builds the handlers for JAX there. Ends with a summary; exit status 1 if anything failed.
#   tools/test_bindings.sh build [pytest options]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=$1
shift

mkdir -p "$build"
tools/bindings_env.sh 2>&1 | tee "$build/bindings-env.log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
python=$(tail -n1 "$build/bindings-env.log")/bin/python

cmake -S . -B "$build" -DSEGPRIOR_PYTHON="$python" >"$build/configure-jax.log" 2>&1 ||
  { cat "$build/configure-jax.log"; exit 1; }
grep -E '^-- (JAX|jaxlib)' "$build/configure-jax.log" | sed 's/^--/  /'
cmake --build "$build" --target segprior segprior_jax || exit 1

folder=$(cd "$build" && pwd)
export PYTHONPATH=$PWD/bindings/python SEGPRIOR_LIBRARY=$folder/libsegprior.so
export SEGPRIOR_JAX_LIBRARY=$folder/libsegprior_jax.so
rm -f "$build"/pytest-{torch,jax}.log
status=0
for framework in torch jax; do
  echo "== segprior.$framework"
  "$python" -m pytest "bindings/python/tests_$framework" -q -p no:cacheprovider "$@" 2>&1 |
    tee "$build/pytest-$framework.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || status=1
done
for page in README.md bindings/python/README.md docs/methods.md; do
  "$python" tools/run_readme_examples.py --frameworks --readme $page --build "$build" --python "$python" || status=1
done
python3 tools/summarise_tests.py "$build" --bindings
exit $status
