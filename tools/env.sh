#!/usr/bin/env bash
# Prepares this machine: installs the packages that are missing (Debian, Ubuntu), builds the library into build/
# and makes .venv, in which `import segprior` and the command `segprior` work. Safe to repeat: what is there
# and up to date is left alone. The environment variable SEGPRIOR_CMAKE_OPTIONS holds further options of CMake, as
# -DSEGPRIOR_WERROR=ON; CUDAARCHS the CUDA architectures, as 90-real.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }
has_header() { # also in third_party/, where the offline archive keeps them
  [ -e "third_party/$1" ] || { has c++ && echo "#include <$1>" | c++ -E -x c++ - >/dev/null 2>&1; }
}

# ---- System packages ----------------------------------------------------------------------------------------

packages=()
need() { # need <package> <why>
  echo "   $1: $2"
  packages+=("$1")
}

find_missing() {
  packages=()
  { has c++ && has cc; } || need g++ "C and C++ compiler"
  has make || need make "runs the Makefile"
  has cmake || need cmake "configures the build"
  has ninja || need ninja-build "runs the build"
  has pkg-config || need pkg-config "tests of the installed library"
  has_header hwy/highway.h || need libhwy-dev "SIMD of the CPU backend (headers only)"
  has_header doctest/doctest.h || need doctest-dev "test framework (headers only)"
  has_header Eigen/SparseCholesky || has_header eigen3/Eigen/SparseCholesky ||
    need libeigen3-dev "SoftCut's direct solver (headers only)"
  has luajit || need luajit "test of the Lua binding"
  has python3 || need python3 "Python package, command line, demo"
  python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv "makes .venv"
}

say "looking for missing system packages"
find_missing
if [ ${#packages[@]} -gt 0 ]; then
  has apt-get || { echo "apt-get not found: install the packages above (or their equivalents) by hand"; exit 1; }
  sudo=
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || { echo "neither root nor sudo: as root, apt-get install ${packages[*]}"; exit 1; }
    sudo=sudo
  fi
  say "installing: ${packages[*]}"
  # An index that is there already may do: it saves a minute, and works where only some sources answer.
  install_packages() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${packages[@]}"; }
  apt_log=$(mktemp)
  install_packages >"$apt_log" 2>&1 || { $sudo apt-get update -q && install_packages; } || {
    for package in "${packages[@]}"; do
      apt-cache show "$package" >/dev/null 2>&1 ||
        echo "this distribution has no package $package (Debian 12 and Ubuntu 24.04 have all of them)"
    done
    echo "headers that the distribution lacks can be put into third_party/hwy and third_party/doctest"
    exit 1
  }
  find_missing
  [ ${#packages[@]} -eq 0 ] || { echo "still missing after the installation: ${packages[*]}"; exit 1; }
else
  echo "   none"
fi

# ---- Library ------------------------------------------------------------------------------------------------

say "building the library into build/"
mkdir -p build
# The whole output on a failure; otherwise the one line that says which backends are built.
# shellcheck disable=SC2086 # the options are meant to be split
cmake --preset release ${SEGPRIOR_CMAKE_OPTIONS:-} >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
grep -E '^-- (CUDA backend|.*CPU backend only)' build/configure.log | sed 's/^--/  /'
cmake --build build --target segprior

# ---- Python -------------------------------------------------------------------------------------------------

say "Python environment .venv"
stamp=$( { python3 -VV; cat pyproject.toml; pwd; } | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/segprior-stamp 2>/dev/null)" != "$stamp" ]; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "Python 3.9 or newer is needed"; exit 1; }
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -e ".[cli,test]"
  echo "$stamp" >.venv/segprior-stamp
else
  echo "   up to date"
fi
.venv/bin/python -c 'import segprior' # fails here rather than in the middle of a test run
.venv/bin/segprior --help >/dev/null
say "ready: .venv/bin/python with segprior, .venv/bin/segprior"
