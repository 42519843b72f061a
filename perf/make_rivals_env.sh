#!/usr/bin/env bash
# Makes the environment in which the benchmark finds its rivals: PyTorch and JAX (about 6 GB with what they pull
# in). Outside the source tree, because it outlives a clone; perf/bench.py looks for it in the same place.
#
#   perf/make_rivals_env.sh [folder]     default: ${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-bench
set -euo pipefail

target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-bench}
needed_gib=12 # the packages, and as much again while pip unpacks them

if [ -x "$target/bin/python" ] && "$target/bin/python" -c 'import numpy, torch' 2>/dev/null; then
  echo "$target is there and has torch"
  exit 0
fi
mkdir -p "$(dirname "$target")"
free_gib=$(($(df -Pk "$(dirname "$target")" | awk 'NR == 2 {print $4}') / 1024 / 1024))
if [ "$free_gib" -lt $needed_gib ]; then
  echo "only $free_gib GiB free at $target; $needed_gib are needed" >&2
  exit 1
fi
python3 -m venv "$target"
"$target/bin/python" -m pip install -q --disable-pip-version-check --no-cache-dir numpy torch setuptools
# JAX is a rival among others: the benchmark says that it did not run where it is missing.
"$target/bin/python" -m pip install -q --disable-pip-version-check --no-cache-dir jax || echo "JAX: not installed"
"$target/bin/python" -c 'import numpy, torch; print("numpy", numpy.__version__, "torch", torch.__version__)'
