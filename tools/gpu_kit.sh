#!/usr/bin/env bash
# Packs dist/segprior-gpu-kit.tar.gz: the tracked sources, and under third_party/ the two header-only
# dependencies, so that `make gpu` works on a machine without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=$((30 * 1024 * 1024))

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kit=$work/segprior-gpu-kit
mkdir -p "$kit" dist

git ls-files -z | xargs -0 cp --parents -t "$kit"

# add_headers <header> <Debian package>
add_headers() {
  local folder=third_party/${1%/*} file
  if [ ! -d "$folder" ]; then
    file=$(echo "#include <$1>" | c++ -M -x c++ - 2>/dev/null | tr ' ' '\n' | grep "/$1\$") ||
      { echo "$1 not found: run make env first"; exit 1; }
    folder=${file%/*}
  fi
  mkdir -p "$kit/third_party"
  cp -rL "$folder" "$kit/third_party/"
  local licence=/usr/share/doc/$2/copyright
  [ ! -e "$licence" ] || cp "$licence" "$kit/third_party/${1%/*}/LICENSE"
}
add_headers hwy/highway.h libhwy-dev
add_headers doctest/doctest.h doctest-dev
git rev-parse HEAD >"$kit/COMMIT"

archive=dist/segprior-gpu-kit.tar.gz
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -cf - \
  segprior-gpu-kit | gzip -9n >"$archive"
size=$(stat -c %s "$archive")
echo "$archive: $((size / 1024)) KiB; on the GPU machine: tar xf ${archive##*/} && cd segprior-gpu-kit && make gpu"
[ "$size" -le "$limit" ] || { echo "larger than 30 MiB"; exit 1; }
