#!/usr/bin/env bash
# Installs a build into a temporary prefix, moves the prefix, and builds and runs the C example twice: through
# find_package(segprior CONFIG) and through pkg-config, each with a C compiler only.
#   tools/test_install.sh <build folder>
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved" # an installed tree must not remember where it was made
prefix=$work/moved
library=$(find "$prefix" -name libsegprior.so)
libdir=$(dirname "$library")

echo "== find_package"
cmake -S "$root/bindings/c" -B "$work/example" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_C_FLAGS="-Wall -Wextra -Werror -pedantic" >"$work/configure.log" ||
  { cat "$work/configure.log"; exit 1; }
cmake --build "$work/example" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
"$work/example/example"
if grep -q '^CMAKE_CXX_COMPILER:' "$work/example/CMakeCache.txt"; then
  echo "the package asked for a C++ compiler"
  exit 1
fi

echo "== pkg-config"
if ! command -v pkg-config >/dev/null; then
  echo "pkg-config is not installed: not checked"
  exit 0
fi
export PKG_CONFIG_PATH=$libdir/pkgconfig
# shellcheck disable=SC2046 # the flags are meant to be split
"${CC:-cc}" -std=c99 -Wall -Wextra -Werror -pedantic "$root/bindings/c/example.c" \
  $(pkg-config --cflags --libs segprior) -lm -o "$work/pkg-config-example"
LD_LIBRARY_PATH=$libdir "$work/pkg-config-example" >/dev/null
expected=$(sed -n 's/^#define SEGPRIOR_VERSION_[A-Z]* //p' "$root/include/segprior/core.h" | paste -sd.)
[ "$(pkg-config --modversion segprior)" = "$expected" ]
echo "version $expected: built and ran"
