#!/usr/bin/env bash
# Formats the sources with clang-format 14 (other versions format differently); --check only compares.
set -euo pipefail
cd "$(dirname "$0")/.."

format=
for candidate in clang-format-14 clang-format .venv/bin/clang-format; do
  if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
    format=$candidate
    break
  fi
done
if [ -z "$format" ]; then
  [ -x .venv/bin/python ] || { echo "clang-format 14 not found: apt-get install clang-format-14, or make env"; exit 1; }
  .venv/bin/python -m pip install -q --disable-pip-version-check clang-format==14.0.6
  format=.venv/bin/clang-format
fi

mode=(-i)
[ "${1:-}" = --check ] && mode=(--dry-run --Werror)
git ls-files -co --exclude-standard -z -- '*.c' '*.cpp' '*.cu' '*.h' '*.hpp' | xargs -0 "$format" "${mode[@]}"
echo "format: checked with $("$format" --version)"
