#!/usr/bin/env bash
# Makes the environment in which the benchmark finds its rivals: PyTorch, JAX, SciPy, PyAMG, torch_sparse_solve, MONAI, scikit-image
# and cc3d (about 6 GB with what they pull in). Outside the source tree, because it outlives a clone; perf/bench.py looks for it in the same place.
#
#   perf/make_rivals_env.sh [folder]     default: ${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-bench
set -euo pipefail

target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-bench}
needed_gib=12 # the packages, and as much again while pip unpacks them

python=$target/bin/python
install() { # install <packages>: rivals that the benchmark lists as not run where they are missing
  "$python" -m pip install -q --disable-pip-version-check --no-cache-dir "$@" || echo "$*: not installed"
}
# SoftCut's rivals. torch_sparse_solve (KLU) is compiled, with SuiteSparse's headers and the torch that is there.
install_softcut_rivals() {
  "$python" -c 'import scipy, pyamg' 2>/dev/null || install scipy pyamg
  "$python" -c 'import torch_sparse_solve' 2>/dev/null && return
  if [ -e /usr/include/suitesparse/klu.h ]; then
    CPATH=/usr/include/suitesparse install --no-build-isolation torch_sparse_solve
  else
    echo "torch_sparse_solve: not installed, its build needs libsuitesparse-dev (and g++)"
  fi
}
# Of the losses and of connected components. MONAI's own list of packages asks for no more than NumPy and torch.
install_loss_rivals() {
  "$python" -c 'import monai' 2>/dev/null || install --no-deps monai
  "$python" -c 'import skimage, PIL' 2>/dev/null || install scikit-image pillow
  "$python" -c 'import cc3d' 2>/dev/null || install connected-components-3d
}
if [ -x "$python" ] && "$python" -c 'import numpy, torch' 2>/dev/null; then
  echo "$target is there and has torch"
  install_softcut_rivals
  install_loss_rivals
  exit 0
fi
mkdir -p "$(dirname "$target")"
free_gib=$(($(df -Pk "$(dirname "$target")" | awk 'NR == 2 {print $4}') / 1024 / 1024))
if [ "$free_gib" -lt $needed_gib ]; then
  echo "only $free_gib GiB free at $target; $needed_gib are needed" >&2
  exit 1
fi
python3 -m venv "$target"
"$python" -m pip install -q --disable-pip-version-check --no-cache-dir numpy torch setuptools
install jax
install_softcut_rivals
install_loss_rivals
"$python" -c 'import numpy, torch; print("numpy", numpy.__version__, "torch", torch.__version__)'
