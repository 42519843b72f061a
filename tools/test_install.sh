#!/usr/bin/env bash
# Installs a build into a temporary prefix, moves the prefix, and uses it as others do:
#   * the C example through find_package(segprior CONFIG) and through pkg-config, with a C compiler only;
#   * the C++ example both ways, with exceptions and without them;
#   * LuaJIT, from the installed headers and library alone;
#   * a host that loads and unloads the library.
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
strict=(-Wall -Wextra -Werror -pedantic)
strict_cxx=(-std=c++17 "${strict[@]}" -Wshadow -Wconversion)

# quietly <log> <command...>: shows the log if the command fails
quietly() {
  "${@:2}" >"$work/$1.log" 2>&1 || { cat "$work/$1.log"; return 1; }
}

# find_package_build <folder> <cmake options...>: builds bindings/c there
find_package_build() {
  local folder=$work/$1
  quietly "$1-configure" cmake -S "$root/bindings/c" -B "$folder" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS="${strict[*]}" "${@:2}"
  quietly "$1-build" cmake --build "$folder"
}

echo "== find_package: C"
find_package_build c
"$work/c/example"
if grep -q '^CMAKE_CXX_COMPILER:' "$work/c/CMakeCache.txt"; then
  echo "the package asked for a C++ compiler"
  exit 1
fi

echo "== find_package: C++"
find_package_build cxx -DEXAMPLE_CXX=ON -DCMAKE_CXX_FLAGS="${strict_cxx[*]}"
find_package_build cxx-returning -DEXAMPLE_CXX=ON -DCMAKE_CXX_FLAGS="${strict_cxx[*]} -fno-exceptions"
(cd "$work/cxx" && ./example_cxx)
(cd "$work/cxx-returning" && ./example_cxx >"$work/returning.txt" 2>&1) || { cat "$work/returning.txt"; exit 1; }
cmp "$work/cxx/example.pgm" "$work/cxx-returning/example.pgm"
printf 'P5\n# a comment\n4 3\n255\nabcdefghijkl' >"$work/small.pgm" # a picture of one's own
"$work/cxx/example_cxx" "$work/small.pgm" 0.5 "$work/small-result.pgm" >"$work/small.txt"
[ "$(wc -c <"$work/small-result.pgm")" = $((11 + 12)) ]
if "$work/cxx/example_cxx" "$work/small.pgm" -1 "$work/none.pgm" >"$work/refused.txt" 2>&1; then
  echo "a negative share was accepted"
  exit 1
fi
grep -q 'no result' "$work/refused.txt"

echo "== C++ without exceptions: an ignored status is an error"
# compiles <statement>: a function with that statement
compiles() {
  printf '#include <segprior/segprior.hpp>\nvoid f(segprior::Context &context) { %s }\n' "$1" |
    "${CXX:-c++}" "${strict_cxx[@]}" -fno-exceptions -I"$prefix/include" -fsyntax-only -x c++ - 2>"$work/cxx.log"
}
compiles 'static_cast<void>(context.set_threads(1));' || { cat "$work/cxx.log"; exit 1; }
if compiles 'context.set_threads(1);'; then
  echo "it was accepted"
  exit 1
fi
grep -q nodiscard "$work/cxx.log" || { cat "$work/cxx.log"; exit 1; }

echo "== LuaJIT"
if command -v luajit >/dev/null; then
  SEGPRIOR_LIBRARY=$library SEGPRIOR_INCLUDE=$prefix/include luajit "$root/bindings/lua/example.lua"
else
  echo "luajit is not installed: not checked"
fi

echo "== loading and unloading"
quietly unload-build "${CC:-cc}" -std=c99 "${strict[@]}" -I"$prefix/include" "$root/tools/unload.c" -ldl -o "$work/unload"
OMP_WAIT_POLICY=active "$work/unload" "$library"

echo "== pkg-config"
if ! command -v pkg-config >/dev/null; then
  echo "pkg-config is not installed: not checked"
  exit 0
fi
export PKG_CONFIG_PATH=$libdir/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs segprior)"
"${CC:-cc}" -std=c99 "${strict[@]}" "$root/bindings/c/example.c" "${flags[@]}" -lm -o "$work/pkg-config-c"
LD_LIBRARY_PATH=$libdir "$work/pkg-config-c" >/dev/null
for mode in -fexceptions -fno-exceptions; do
  "${CXX:-c++}" "${strict_cxx[@]}" $mode "$root/bindings/c/example.cpp" "${flags[@]}" -o "$work/pkg-config-cxx"
  LD_LIBRARY_PATH=$libdir "$work/pkg-config-cxx" "$work/small.pgm" 0.5 "$work/small-result.pgm" >/dev/null
done
expected=$(sed -n 's/^#define SEGPRIOR_VERSION_[A-Z]* //p' "$root/include/segprior/core.h" | paste -sd.)
[ "$(pkg-config --modversion segprior)" = "$expected" ]
echo "version $expected: built and ran"
