#!/usr/bin/env bash
# On a machine with an NVIDIA GPU and no network, in at most 8 minutes: builds for that GPU, runs the whole
# suite on the device and a part of it under compute-sanitizer's four tools, captures and replays a CUDA graph,
# benchmarks, and writes one results file, perf/results/gpu-<device>-<date>.jsonl: a line about the machine, one
# per step, and the benchmark's own. A failed step does not stop the others; the exit status is 1 then.
#
# Needs nvcc and CMake; uses python3 with torch, pytest and compute-sanitizer where they are found. Headers come
# from third_party/ (see make gpu-kit) or the system.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

deadline=470 # seconds, of the 480 promised
build='build-gpu'
logs=$PWD/$build/logs
mkdir -p "$logs" perf/results
export PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1 PYTHONPATH=$PWD/bindings/python
export SEGPRIOR_LIBRARY=$PWD/$build/libsegprior.so

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n1)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n1 | tr -d '. ')
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n1)
name=$(echo "${device:-no-device}" | tr -cs 'A-Za-z0-9' - | sed 's/^-*//; s/-*$//' | tr '[:upper:]' '[:lower:]')
results=$PWD/perf/results/gpu-$name-$(date -u +%Y%m%d-%H%M%S).jsonl
commit=$(git rev-parse HEAD 2>/dev/null || cat COMMIT 2>/dev/null || echo unknown)

json() { # json <key> <value>...: one line of JSON; values that are numbers stay numbers
  local line='' key value
  while [ $# -gt 0 ]; do
    key=$1 value=$2
    shift 2
    [[ $value =~ ^-?[0-9]+(\.[0-9]+)?$ ]] || value="\"$(printf %s "$value" | tr '\n\t' '  ' | sed 's/[\\"]/\\&/g')\""
    line="$line${line:+, }\"$key\": $value"
  done
  printf '{%s}\n' "$line"
}

failures=0
# step <name> <time limit in seconds> <command...>: output to the terminal and to a log of its own
step() {
  local name=$1 limit=$2 start=$SECONDS status left=$((deadline - SECONDS)) log result
  shift 2
  log=$logs/${name// /-}.log
  printf '\n==== %s\n' "$name"
  if [ $left -lt 5 ]; then
    status=124
    echo "no time left" | tee "$log"
  else
    timeout -k 5 $((limit < left ? limit : left)) bash -c '"$@"' bash "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
  fi
  case $status in
    0) result=passed ;;
    77) result=skipped ;;
    124 | 137) result="out of time" ;;
    *) result=failed ;;
  esac
  [ "$result" = passed ] || [ "$result" = skipped ] || failures=$((failures + 1))
  json step "$name" result "$result" exit_status "$status" seconds $((SECONDS - start)) \
    last_line "$(grep -v '^ *$' "$log" | tail -n1)" >>"$results"
  echo "---- $name: $result ($((SECONDS - start)) s)"
}

configure() {
  local generator=() architecture=${capability:-90}-real # without a GPU: at least the build is checked
  command -v ninja >/dev/null && generator=(-G Ninja)
  [ "$architecture" = 90-real ] && architecture=90a-real
  cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DSEGPRIOR_CUDA=ON \
    "-DSEGPRIOR_CUDA_ARCHITECTURES=$architecture" -DSEGPRIOR_PTXAS_REPORT=ON
}

compile() {
  cmake --build "$build" -j "$(nproc)" --target segprior segprior_tests graph_capture >"$logs/compile-all.log" 2>&1
  local status=$?
  if [ $status -ne 0 ]; then
    grep -vE '^ptxas info|^ +[0-9]+ bytes' "$logs/compile-all.log" | tail -n 60
    return $status
  fi
  python3 tools/ptxas_report.py "$logs/compile-all.log" || true # an unchanged build has nothing to report
}

graph_capture() { # it skips itself where the library sees no GPU; here that is a failure
  "$build/tests/graph_capture" || return 1
}

python_tests() {
  python3 -c 'import numpy, pytest' 2>/dev/null || { echo "no python3 with numpy and pytest: skipped"; return 77; }
  python3 -m pytest -q -p no:cacheprovider bindings/python/tests
}

torch_tests() {
  python3 -c 'import torch, numpy, pytest' 2>/dev/null || { echo "no python3 with torch and pytest: skipped"; return 77; }
  python3 -m pytest -q -p no:cacheprovider bindings/python/tests_torch
}

self_test() { # its arrays on the device are torch's or CuPy's; without either it says so
  python3 -c 'import numpy' 2>/dev/null || { echo "no python3 with numpy: skipped"; return 77; }
  python3 -m segprior.cli selftest
}

sanitizer() { # sanitizer <tool>: a part of the cases in which every kernel runs
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer not found: skipped"; return 77; }
  compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 "$build/tests/segprior_tests" \
    --test-case="$sanitizer_cases"
}

benchmark() {
  [ -e perf/bench.py ] || { echo "perf/bench.py is not there: skipped"; return 77; }
  python3 -c 'import numpy' 2>/dev/null || { echo "no python3 with numpy: skipped"; return 77; }
  python3 perf/bench.py --device cuda --time-limit 120 --json "$logs/bench.jsonl"
}

sanitizer_cases='*[race]*' # the smallest cases, as for the race detector of the fake runtime
export -f configure compile graph_capture python_tests torch_tests self_test sanitizer benchmark
export build logs capability sanitizer_cases

json device "${device:-none}" compute_capability "${capability:-0}" driver "${driver:-none}" \
  nvcc "$(nvcc --version 2>/dev/null | grep -o 'release [0-9.]*')" commit "$commit" \
  date "$(date -u +%FT%TZ)" cpus "$(nproc)" | tee "$results"
step "find a GPU" 20 nvidia-smi -L
step "configure" 60 configure
step "compile" 200 compile
step "tests on the device" 120 "$build/tests/segprior_tests"
step "graph capture" 30 graph_capture
for tool in memcheck racecheck initcheck synccheck; do
  step "compute-sanitizer $tool" 40 sanitizer $tool
done
step "self-test" 30 self_test
step "python tests" 60 python_tests
step "torch tests" 60 torch_tests
step "benchmark" 150 benchmark
[ ! -s "$logs/bench.jsonl" ] || cat "$logs/bench.jsonl" >>"$results"

printf '\n==== %s\n' "$results"
grep '"step"' "$results" | sed -E 's/.*"step": "([^"]*)", "result": "([^"]*)".*/\2: \1/'
[ "$failures" -eq 0 ] || { echo "$failures steps failed"; exit 1; }
