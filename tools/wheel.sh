#!/usr/bin/env bash
# Makes the source archive of the Python package, and the wheel from that archive, in a folder.
#   tools/wheel.sh dist
# The wheel has the CUDA backend where nvcc is found. SEGPRIOR_CMAKE_OPTIONS and CUDAARCHS apply as in tools/env.sh:
# SEGPRIOR_CMAKE_OPTIONS=-DSEGPRIOR_CUDA=OFF makes one for the CPU, =ON refuses to make one without CUDA.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

python3 -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q build
"$work/tools/bin/python" -m build --sdist --outdir "$work" "$root" >"$work/sdist.log" 2>&1 ||
  { cat "$work/sdist.log"; exit 1; }
mkdir "$work/source"
tar xzf "$work"/segprior-*.tar.gz -C "$work/source" --strip-components=1

# The compilers that CMake takes by itself; scikit-build-core would take those that Python was built with.
export CC=${CC:-cc} CXX=${CXX:-c++}
# With ccache (.ci/run): paths below the source are compared relative to it, and the build folder lies where it lies in
# a clone, so that the objects of an earlier build of the same sources are found.
cd "$work/source"
if ! CCACHE_BASEDIR=$work/source CMAKE_ARGS=${SEGPRIOR_CMAKE_OPTIONS:-} "$work/tools/bin/python" -m pip wheel . \
  --no-deps --no-cache-dir -w "$work" -C build-dir=build -v >"$work/wheel.log" 2>&1; then
  grep -vE '^ *(ptxas info|[0-9]+ bytes stack frame)' "$work/wheel.log" | tail -n 60
  exit 1
fi
grep -E -- '-- (CUDA backend|.*CPU backend only|Eigen|JAX|jaxlib)' "$work/wheel.log" | sed 's/^.*-- /   /'
mv "$work"/segprior-*.tar.gz "$work"/segprior-*.whl "$target/"
ls -l "$target"/segprior-*
