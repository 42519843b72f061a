#!/usr/bin/env bash
# Builds the documentation: static pages in docs/_build/html that load nothing from elsewhere. The interface's
# reference comes from the headers (Doxygen), the docstrings and the command's --help. Warnings are errors, and
# docs/check_site.py looks for what is missing. Neither the library nor PyTorch nor JAX is needed.
#
# Installs Doxygen (Debian, Ubuntu) and, into ${XDG_CACHE_HOME:-~/.cache}/segprior/venv-docs, the packages of
# docs/requirements.txt with their dependencies, about 190 MB; Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=${XDG_CACHE_HOME:-$HOME/.cache}/segprior/venv-docs
output=docs/_build

if ! command -v doxygen >/dev/null; then
  echo "== installing doxygen: reads the comments of the headers"
  command -v apt-get >/dev/null || { echo "apt-get not found: install doxygen by hand"; exit 1; }
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  export DEBIAN_FRONTEND=noninteractive
  install_doxygen() { $sudo apt-get install -y -q --no-install-recommends doxygen; }
  install_doxygen >/dev/null 2>&1 || { $sudo apt-get update -q && install_doxygen; }
fi

stamp=$( { python3 -VV; cat docs/requirements.txt; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$environment/segprior-stamp" 2>/dev/null)" != "$stamp" ]; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer"; exit 1; }
  echo "== installing into $environment: $(grep -o '^[a-z-]*' docs/requirements.txt | paste -sd' ')"
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install -q --disable-pip-version-check -r docs/requirements.txt
  echo "$stamp" >"$environment/segprior-stamp"
fi

rm -rf "$output"
mkdir -p "$output"
doxygen docs/Doxyfile
"$environment/bin/sphinx-build" -q -n -W --keep-going -b html -d "$output/doctrees" docs "$output/html"
"$environment/bin/python" docs/check_site.py "$output"
echo "documentation: $output/html/index.html"
