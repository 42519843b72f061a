#!/usr/bin/env bash
# Tests the Python package as a user gets it: source archive, wheel made from it (tools/wheel.sh), wheel installed into
# a fresh environment, then used from another folder, with no source tree and, where the kernel allows it, no network.
#   tools/test_wheel.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

fail() { echo "wheel: $*"; exit 1; }

echo "== source archive and wheel"
"$root/tools/wheel.sh" "$work"
if tar tzf "$work"/segprior-*.tar.gz | grep -E '^[^/]*/(tests|perf|docs|build|out|third_party)/|\.so(\.|$)'; then
  fail "the archive holds files that no build needs"
fi
wheel=$(ls "$work"/segprior-*.whl)
[[ $wheel == *-py3-none-linux_*.whl ]] || fail "its tag is for more or less than Linux and any Python 3: $wheel"
contents=$(python3 -m zipfile -l "$wheel")
for file in segprior/py.typed segprior/torch/__init__.py segprior/jax/__init__.py licenses/LICENSE licenses/NOTICE; do
  grep -q "$file" <<<"$contents" || fail "it lacks $file"
done
libraries=$(grep -c 'libsegprior\.so' <<<"$contents" || true)
[ "$libraries" -eq 1 ] || fail "it holds $libraries copies of libsegprior.so, not one"

echo "== installation"
python3 -m venv "$work/fresh"
"$work/fresh/bin/python" -m pip install -q "$wheel"
mkdir "$work/elsewhere"
cd "$work/elsewhere"
offline=()
if unshare -rn true 2>/dev/null; then
  offline=(unshare -rn)
else
  echo "   this machine does not let a program give up the network: it runs with it"
fi
# run <command of the fresh environment> [arguments]: with nothing of this shell's environment
run() {
  local program=$work/fresh/bin/$1
  shift
  env -i PATH=/usr/bin:/bin HOME="$work" "${offline[@]}" "$program" "$@"
}

run segprior info | tee info.log
grep -q "^library .*$work/fresh/" info.log || fail "the library is not the wheel's own"
version=$(sed -n 's/^#define SEGPRIOR_VERSION_[A-Z]* //p' "$root/include/segprior/core.h" | paste -sd.)
[ "$(run segprior --version)" = "segprior $version" ] || fail "its version is not $version"
run segprior selftest --device cpu | tee selftest.log
grep -q '^[1-9][0-9]* passed, 0 failed$' selftest.log || fail "the self-test failed"
run segprior bench --device cpu --shape 1x3x16x17 --seconds 0.01 >bench.log || fail "the benchmark failed"
run python -c 'import segprior, segprior.losses, segprior.metrics, segprior.presets'
# What is optional says what to install.
if run segprior segment none.png >segment.log 2>&1 || ! grep -q "pip install 'segprior\[cli\]'" segment.log; then
  cat segment.log
  fail "segment does not say what it lacks"
fi
echo "wheel $version: built from the source archive, installed and used without either"
