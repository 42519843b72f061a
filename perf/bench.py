#!/usr/bin/env python3
"""Benchmark of libsegprior against other implementations. What is measured and how to read it: perf/README.md.

Prints tables, and writes JSON lines to perf/results/<device>-<date>.jsonl (or --output). Never fails for want of
a rival: one that cannot run is listed with the reason. The exit status is 1 if one of our own entries failed, 77
if there is no CUDA device (or no torch, which makes the inputs there).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable

# SciPy's and PyAMG's dot products are too short for threads: on a busy machine they slow them down a hundredfold.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bindings" / "python")]

CPU_SHAPES = ["1x21x513x513", "1x2x512x512", "8x2x256x256", "1x2x128x128x128", "16x4x64x64"]
# The headline settings of the streaming kernels, then a 4K frame and a volume (with its own T).
CUDA_SHAPES = ["1x4x512x512", "16x4x512x512", "16x4x1024x1024", "16x21x513x513", "1x4x3840x2160", "1x2x512x512x512"]
CUDA_ITERATIONS = {"1x2x512x512x512": 100}
PRIOR_SHAPES = ["1x21x513x513", "8x2x256x256"]  # of the methods other than VPTV
QUICK_SHAPES = ["1x2x512x512", "8x2x256x256"]
ENTRIES = ["forward", "backward", "memory", "convergence", "threads", "softcut", "softcut_backward", "softcut_growth"]
ENTRIES += ["losses", "proposals", "components"]
# SoftCut: (shape, dtype, relative residual to reach); float32 cannot reach 1e-6 with large weights.
SOFTCUT_SETTINGS = [
    ("32x1x256x256", "float64", 1e-6),
    ("1x1x2048x2048", "float64", 1e-6),
    ("32x1x256x256", "float32", 1e-3),
]
SOFTCUT_WEIGHTS = [10.0, 100.0, 1000.0]
SOFTCUT_SIDES = [256, 512, 1024, 2048]  # of one image
SOFTCUT_GROWTH = ["auto", "multigrid", "cg"]
LOSS_SHAPES = ["8x4x512x512", "2x4x128x128x128"]
COMPONENT_SHAPES = ["2048x2048", "128x128x128"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two shapes, few runs, no compiled rivals: a minute")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=ENTRIES, action="append", help="this entry alone; may be repeated")
    parser.add_argument("--shape", action="append", help="instead of the standard ones, e.g. 1x2x512x512")
    parser.add_argument("--method", action="append", choices=METHODS, help="this alone; may be repeated")
    parser.add_argument("--output", "--json", type=Path, metavar="FILE", help="JSON lines; default: perf/results/")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of all contenders; default: all cores")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="start nothing new after that; "
                        "default: none on the CPU, 120 on CUDA")
    return parser.parse_args()


def use_threads(wanted: int | None) -> int:
    """The process itself is confined to as many cores: JAX cannot be told otherwise."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    threads = wanted or len(cores)
    if threads < len(cores):
        os.sched_setaffinity(0, cores[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        import torch

        torch.set_num_threads(threads)
    except ImportError:
        pass
    return threads


def cuda_is_there() -> bool:
    try:
        import torch

        return bool(torch.cuda.is_available())
    except ImportError:
        return False


METHODS = ["std", "vp_std", "ss_std", "tv_softmax", "softcut", "losses", "components"]
Job = tuple[str, str, Callable[[Any], list[dict[str, Any]]]]  # entry, title, function of the Bench


def softcut_jobs(options: argparse.Namespace) -> list[Job]:
    from segprior_bench import softcut_races
    from segprior_bench.softcut_problem import SoftcutProblem

    def race(entry: str, label: str, dtype: str, target: float, weight: float, *solvers: list[str]) -> Job:
        given = SoftcutProblem(tuple(int(n) for n in label.split("x")), weight, dtype, target)
        title = f"{entry} {label}, {dtype}, weights up to {weight:g}, residual <= {target:g}, {options.device}"
        return entry, title, lambda bench: softcut_races.run(bench, entry, given, *solvers)

    settings = [("4x1x64x64", "float64", 1e-6)] if options.quick else SOFTCUT_SETTINGS
    if options.shape:
        settings = [(label, "float64", 1e-6) for label in options.shape]
    # The rounding of float32 is above its target where weights are 1000.
    pairs = [(s, w) for s in settings for w in SOFTCUT_WEIGHTS if s[1] == "float64" or w <= 100]
    found = [race("softcut", *setting, weight) for setting, weight in pairs]
    found += [race("softcut_backward", *setting, 100.0) for setting in settings]
    sides = [] if options.shape else [64, 128] if options.quick else SOFTCUT_SIDES
    labels = [f"1x1x{side}x{side}" for side in sides]
    return found + [race("softcut_growth", label, "float64", 1e-6, 100.0, SOFTCUT_GROWTH) for label in labels]


def losses_jobs(options: argparse.Namespace) -> list[Job]:
    """Losses, and the proposals."""
    from segprior_bench import losses_races
    from segprior_bench.losses_problem import CASES, LossProblem

    found: list[Job] = []
    shapes = options.shape or (["2x4x64x64"] if options.quick else LOSS_SHAPES)
    for label in shapes:
        shape = tuple(int(n) for n in label.split("x"))
        for case in CASES:
            given = LossProblem(shape, case)
            title = f"losses {case}, {label}, forward + backward, float32, {options.device}"
            found.append(("losses", title, lambda bench, p=given: losses_races.run(bench, p)))
    for label in shapes:
        given = LossProblem(tuple(int(n) for n in label.split("x")), "size + partial CE")
        title = f"proposals {label}, sizes within 10 %, float32, {options.device}"
        found.append(("proposals", title, lambda bench, p=given: losses_races.run_proposals(bench, p)))
    return found


def components_jobs(options: argparse.Namespace) -> list[Job]:
    from segprior_bench import components_races
    from segprior_bench.components_problem import DENSITIES, ComponentsProblem

    found: list[Job] = []
    for label in options.shape or (["128x128"] if options.quick else COMPONENT_SHAPES):
        spatial = tuple(int(n) for n in label.split("x"))
        for density in (0.5, None) if options.quick else (*DENSITIES, None):
            for full in (False, True):
                given = ComponentsProblem(spatial, density, full)
                title = f"components {label}, {given.kind}, {options.device}"
                found.append(("components", title, lambda bench, p=given: components_races.run(bench, p)))
    return found


# Methods with entries of their own; a shape of one says nothing to another.
OWN_ENTRIES = {
    "softcut": (("softcut", "softcut_backward", "softcut_growth"), softcut_jobs),
    "losses": (("losses", "proposals"), losses_jobs),
    "components": (("components",), components_jobs),
}


def jobs(options: argparse.Namespace) -> list[Job]:
    """Of the methods or entries asked for; of all if none is, but then a shape is one of softmax's."""
    chosen = set(options.method or ())
    if not chosen and options.only:
        chosen = {m for m, (entries, _) in OWN_ENTRIES.items() if any(e in entries for e in options.only)}
        named = {e for entries, _ in OWN_ENTRIES.values() for e in entries}
        chosen |= {"softmax"} if any(e not in named for e in options.only) else set()
    elif not chosen:
        chosen = {"softmax"} | (set() if options.shape else set(OWN_ENTRIES))
    found = softmax_jobs(options) if chosen - set(OWN_ENTRIES) else []
    return found + [job for m, (_, make) in OWN_ENTRIES.items() if m in chosen for job in make(options)]


def softmax_jobs(options: argparse.Namespace) -> list[Job]:
    from segprior_bench import convergence, memory, problem, races

    def race(entry: str, label: str, rivals: list[str] = races.RIVALS, method: str = "vptv") -> Job:
        given = problem.parse(label, method)
        if options.device == "cuda" and label in CUDA_ITERATIONS:
            given = dataclasses.replace(given, iterations=CUDA_ITERATIONS[label])
        title = f"{entry} {method} {label}, T = {given.iterations}, {given.dtype}, {options.device}"
        return entry, title, lambda bench: races.run(bench, entry, given, rivals)

    def priors(chosen: list[str]) -> list[Job]:
        """The other methods of the papers."""
        return [
            race(entry, label, races.RIVALS if method == "tv_softmax" else races.PRIOR_RIVALS, method)
            for entry in ("forward", "backward")
            for method in problem.METHODS
            if method in (options.method or ["std", "vp_std", "ss_std"])
            for label in chosen
        ]

    shapes = options.shape or (QUICK_SHAPES if options.quick else None)
    if options.device == "cuda":
        # What compiles for long comes last, so that a time limit takes it rather than a headline.
        slow = [name for name in races.RIVALS if name in races.SLOW_START]
        fast = [name for name in races.RIVALS if name not in races.SLOW_START]
        shapes = shapes or CUDA_SHAPES
        both = [race("forward", s, fast) for s in shapes] + [race("backward", s, fast) for s in shapes]
        if options.method:
            return priors(shapes)
        return both + priors(shapes[1:4:2]) + [race("forward", s, slow) for s in shapes]
    found: list[Job] = []
    shapes = shapes or CPU_SHAPES
    if options.method:
        return priors(shapes)
    found += [race("forward", label) for label in shapes]
    found += [race("backward", label) for label in shapes]
    found += priors(PRIOR_SHAPES if not options.shape and not options.quick else shapes)
    for label in shapes[:2]:
        given = problem.parse(label)
        found.append(("memory", f"memory {label}, T = 30, float32", lambda b, p=given: memory.run(b, p)))
    for size in (64,) if options.quick else (64, 128):
        for eps, lam in convergence.SETTINGS:
            title = f"convergence 1x3x{size}x{size}, eps {eps:g}, lam {lam:g}: until max|u-u*| < 1e-3"
            found.append(("convergence", title, lambda b, a=(size, eps, lam): convergence.run(b, *a)))
    for label in shapes[:3]:
        given = problem.parse(label)
        found.append(("threads", f"threads {label}, T = 30, float32", lambda b, p=given: races.thread_scaling(b, p)))
    return found


def versions() -> dict[str, str]:
    found = {}
    for name in ("numpy", "torch", "jax", "triton", "scipy", "skimage", "pyamg", "torch_sparse_solve", "cupy", "monai"):
        try:
            found[name] = str(__import__(name).__version__)
        except Exception:
            found[name] = "none"
    return found


def main() -> int:
    options = parse_arguments()
    from segprior_bench.environment import enter

    enter(__file__, needed=False)
    threads = use_threads(options.threads)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # leave the others their share of a GPU's memory
    if options.device == "cuda" and not cuda_is_there():
        print("no CUDA device that torch can use: skipped")
        return 77
    from segprior import _ffi
    from segprior_bench import report
    from segprior_bench.races import Bench
    from segprior_bench.timing import copy_bandwidth

    if sys.platform == "linux":  # autograd is hungry: should memory run out, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    began = time.monotonic()
    limit = options.time_limit or (120 if options.device == "cuda" else float("inf"))
    name = report.device_name(options.device)
    common = dict(commit=report.commit(), device=name, threads=threads)
    output = options.output or report.default_output(options.device)
    out = report.Report(output, common)
    rate = copy_bandwidth(options.device, threads)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%FT%TZ")
    machine = dict(date=now, copy_gb_per_s=rate / 1e9, load_average=report.load_average(), versions=versions())
    out.row(entry="machine", library=_ffi.library().version_string, **machine)
    print(f"{name}, {threads} threads, copy {rate / 1e9:.1f} GB/s, load average {machine['load_average']}, {now}")
    bench = Bench(out, options.device, threads, rate, options.quick, began + limit)
    failures = 0
    for entry, title, work in jobs(options):
        if options.only and entry not in options.only:
            continue
        if bench.out_of_time():
            out.row(entry=entry, who="segprior", title=title, not_run="out of time")
            print(f"\n{title}: out of time", flush=True)
            continue
        try:
            report.print_table(title, entry, work(bench))
        except Exception as error:
            failures += 1
            out.row(entry=entry, who="segprior", title=title, not_run=f"failed: {type(error).__name__}: {error}")
            print(f"\n{title}: FAILED", flush=True)
            traceback.print_exc()
    out.close()
    print(f"\n{output}, {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
