#!/usr/bin/env bash
# Makes the Python environment for the tests of segprior.torch and segprior.jax, and prints its folder as the last
# line. Outside the source tree, because it outlives a clone: ${XDG_CACHE_HOME:-~/.cache}/segprior/venv-bindings, or the
# folder that SEGPRIOR_BINDINGS_ENV names. Installs PyTorch, JAX, NumPy, SciPy, pytest and MONAI from PyPI (PyTorch for
# the CPU from its own index, where that can be reached; else with its CUDA libraries, 6 GB). Safe to repeat.
set -euo pipefail

target=${SEGPRIOR_BINDINGS_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-bindings}
python=$target/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1
needed_gib=12 # PyTorch with its CUDA libraries, and as much again while pip unpacks them

is_complete() {
  [ -x "$python" ] && "$python" -c 'import jax, monai, numpy, pytest, scipy, torch' 2>/dev/null
}

pip_install() { "$python" -m pip install -q --no-cache-dir "$@"; }

if ! is_complete; then
  echo "making $target"
  mkdir -p "$(dirname "$target")"
  [ -x "$python" ] || python3 -m venv "$target"
  # NumPy first: PyTorch's own index need not have it.
  pip_install numpy scipy pytest jax
  if ! "$python" -c 'import torch' 2>/dev/null &&
    ! pip_install --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null; then
    free_gib=$(($(df -Pk "$target" | awk 'NR == 2 {print $4}') / 1024 / 1024))
    [ "$free_gib" -ge $needed_gib ] ||
      { echo "only $free_gib GiB free at $target; $needed_gib are needed for PyTorch with CUDA" >&2; exit 1; }
    echo "   PyTorch's index for the CPU cannot be reached: the one of PyPI, with CUDA libraries"
    pip_install torch
  fi
  pip_install --no-deps monai # its own list asks for no more than NumPy and PyTorch
  is_complete || { echo "$target lacks packages:"; "$python" -c 'import jax, monai, numpy, pytest, scipy, torch'; }
fi
"$python" -c 'import jax, monai, torch; print("torch", torch.__version__, "jax", jax.__version__, "monai", monai.__version__)'
echo "$target"
