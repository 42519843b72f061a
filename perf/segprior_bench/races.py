"""Entries "forward", "backward" and "threads": libsegprior and its rivals on the same input, in turns.

Before anything is timed, each rival's result is compared with ours; one that differs is listed, not timed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import importlib
import math
import sys
import time
from typing import Any, Callable

import numpy as np

from . import ours
from .problem import Problem
from .report import Report
from .timing import Contender, race

# In the order in which they are asked; `slow_start` ones compile for many seconds per shape.
RIVALS = ["torch_eager", "torch_functional", "torch_graph", "triton_kernels", "torch_compile", "jax_scan"]
PRIOR_RIVALS = ["torch_priors", "torch_priors_separable"]  # of the methods with threshold dynamics
SLOW_START = {"torch_compile", "jax_scan"}
# float32 after 30 iterations agrees to about 1e-6; the gradient jumps where |y| crosses lam, so a few voxels
# differ more: it is compared in the root mean square, relative.
TOLERANCE_U, TOLERANCE_GRADIENT = 1e-4, 2e-2
# Threshold dynamics with lam > eps, as SS-STD has it, is expansive: 50 iterations turn rounding differences of
# 1e-7 into 1e-3 at some boundary voxels, between any two implementations.
TOLERANCE_U_EXPANSIVE = 1e-2
AUTOGRAD_BYTES = 100  # per pxc and iteration: 28 saved, the rest gaps in glibc's heap (see memory.py)
MEMORY_SHARE = 0.9  # of the free memory that a rival may need


class Bench:
    """What all entries share."""

    def __init__(
        self, report: Report, device: str, threads: int, copy_rate: float, quick: bool, deadline: float
    ) -> None:
        self.report, self.device, self.threads, self.quick = report, device, threads, quick
        self.copy_rate = copy_rate  # bytes per second
        self.deadline = deadline
        self.rounds = 3 if quick else 5 if device == "cuda" else 7

    def out_of_time(self) -> bool:
        return time.monotonic() > self.deadline


def to_numpy(array: Any) -> np.ndarray:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def available_memory() -> int:
    """Bytes that can be used without swapping; a very large number if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 62


def differences(mine: Any, theirs: Any, backward: bool) -> tuple[float, float | None]:
    """(max |du|, relative root mean square of the gradient's difference)."""
    if not backward:
        return float(np.abs(to_numpy(mine) - to_numpy(theirs)).max()), None
    du = float(np.abs(to_numpy(mine[0]) - to_numpy(theirs[0])).max())
    mine_g, theirs_g = to_numpy(mine[1]), to_numpy(theirs[1])
    return du, float(np.linalg.norm(mine_g - theirs_g) / np.linalg.norm(theirs_g))


def fields(bench: Bench, problem: Problem, contender: Contender, what: str) -> dict[str, Any]:
    """Of a timed contender's row."""
    moved = problem.forward_bytes + (problem.backward_bytes if what.startswith("backward") else 0)
    return dict(
        median_ms=contender.median * 1e3,
        min_ms=contender.best * 1e3,
        runs=len(contender.samples),
        ns_per_pxc_iteration=contender.median * 1e9 / (problem.size * problem.iterations),
        bytes=moved,
        copy_percent=100 * moved / contender.median / bench.copy_rate,
    )


def _cannot_run(bench: Bench, problem: Problem, rival: Any, name: str, backward: bool) -> str | None:
    """The reason, or None."""
    if bench.out_of_time():
        return "out of time"
    if name in SLOW_START and bench.quick:
        return "not with --quick (compiles for a long time)"
    reason = rival.unavailable(bench.device)
    if reason is None and backward and not getattr(rival, "BACKWARD", True):
        reason = "has no backward"
    if reason is None and not getattr(rival, "supports", lambda _: True)(problem):
        reason = "does not support this shape"
    if reason is None and backward and bench.device == "cpu":
        needed = AUTOGRAD_BYTES * problem.size * problem.iterations
        if needed > MEMORY_SHARE * available_memory():
            reason = f"needs about {needed / 1e9:.0f} GB, {available_memory() / 1e9:.0f} GB are free"
    return reason


def _ours(bench: Bench, problem: Problem, backward: bool) -> tuple[list[Contender], dict[str, str]]:
    """segprior as the Python package calls it, its variants, and those that failed with the reason."""

    def call(p: Problem, checkpoint: int) -> ours.Call:
        return ours.Call(p, bench.device, bench.threads, backward=backward, checkpoint=checkpoint)

    default = max(1, round(math.sqrt(problem.iterations)))  # the Python package's
    first = call(problem, default)
    found = [Contender("segprior", [first])]
    variants: dict[str, Callable[[], list[Callable[[], Any]]]] = {}
    if backward:
        found[0].name = f"segprior, checkpoint every {default}"
        variants["segprior, checkpoint every 1"] = lambda: [call(problem, 1)]
    if bench.device == "cuda":
        variants[found[0].name + ", CUDA graph"] = lambda: [_graph(first)]
        sets = min(8, 1 + (256 << 20) // (problem.size * problem.itemsize))  # more than any L2 cache
        if not backward and sets > 1:
            seeds = [dataclasses.replace(problem, seed=s) for s in range(sets)]
            variants[f"segprior, cold L2 ({sets} input sets)"] = lambda: [call(p, default) for p in seeds]
    failed = {}
    for name, build in variants.items():
        try:
            calls = build()
            calls[0]()
            found.append(Contender(name, calls))
        except Exception as error:
            failed[name] = _reason(error)
    return found, failed


def _reason(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"failed: {type(error).__name__}: {first_line}"[:200]


def _graph(call: Any) -> Callable[[], Any]:
    import torch

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call.use_stream(torch.cuda.current_stream().cuda_stream)
        call()
    call.use_stream(0)
    return graph.replay


def run(bench: Bench, entry: str, problem: Problem, rivals: list[str] = RIVALS) -> list[dict[str, Any]]:
    """One race; entry is "forward" or "backward". Returns the rows."""
    backward = entry == "backward"
    common = dict(
        entry=entry,
        operator=problem.operator,
        what="backward unrolled (forward with saved + backward)" if backward else "forward",
        shape=problem.label,
        dtype=problem.dtype,
        iterations=problem.iterations,
    )
    contenders, left_out = _ours(bench, problem, backward)
    reference = contenders[0].calls[0]()
    reference = tuple(to_numpy(a).copy() for a in reference) if backward else to_numpy(reference).copy()
    own = len(contenders)
    found: dict[str, tuple[float, float | None]] = {}
    for name in rivals:
        rival = importlib.import_module("rivals." + name)
        try:
            reason = _cannot_run(bench, problem, rival, name, backward)
            if reason is None:
                function = rival.make(problem, bench.device, backward)
                du, dg = differences(reference, function(), backward)
                found[rival.NAME] = du, dg
                expansive = "td" in problem.priors and problem.lam > problem.eps
                if not du < (TOLERANCE_U_EXPANSIVE if expansive else TOLERANCE_U) or not (dg is None or dg < TOLERANCE_GRADIENT):
                    reason = f"its result differs: max|du| {du:.1e}, gradient {dg}"
        except Exception as error:  # a rival's failure is a result, not ours
            reason = _reason(error)
            _release_memory()
        if reason is None:
            contenders.append(Contender(rival.NAME, [function], getattr(rival, "WALL_CLOCK", False)))
        else:
            left_out[rival.NAME] = reason
    race(contenders, bench.device, bench.rounds, 0.1 if bench.device == "cuda" else 0.4)
    rows = []
    for index, contender in enumerate(contenders):
        du, dg = found.get(contender.name, (None, None))
        ratios = None
        if index < own:
            ratios = {c.name: round(c.median / contender.median, 2) for c in contenders[own:]}
        rows.append(
            bench.report.row(
                **common,
                who=contender.name,
                **fields(bench, problem, contender, entry),
                times_segprior=contender.median / contenders[0].median,
                times_segprior_min=contender.best / contenders[0].best,
                ratio_to=ratios,
                difference=du if dg is None else dg,
                max_du=du,
            )
        )
    rows += [bench.report.row(**common, who=name, not_run=reason) for name, reason in left_out.items()]
    function = None  # with the contenders, it holds the inputs
    del contenders, reference
    _release_memory()
    return rows


def _release_memory() -> None:
    """Allocators keep what autograd has freed; the next race, or a child process, may need it."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def thread_scaling(bench: Bench, problem: Problem) -> list[dict[str, Any]]:
    """Forward with 1, 2, 4, … threads, ours and torch eager."""
    counts = sorted({1 << k for k in range(12) if 1 << k < bench.threads} | {1, bench.threads})
    contenders = [Contender(f"segprior, {n} threads", [ours.Call(problem, threads=n)]) for n in counts]
    eager = importlib.import_module("rivals.torch_eager")
    reason = eager.unavailable("cpu")
    if reason is None:
        import torch

        function = eager.make(problem, "cpu", False)

        def with_threads(n: int) -> Callable[[], Any]:
            def call() -> Any:
                torch.set_num_threads(n)
                return function()

            return call

        contenders += [Contender(f"{eager.NAME}, {n} threads", [with_threads(n)]) for n in counts]
    race(contenders, "cpu", bench.rounds, 0.3)
    rows = []
    common = dict(entry="threads", operator=problem.operator, what="forward", dtype=problem.dtype)
    common |= dict(shape=problem.label, iterations=problem.iterations)
    for contender in contenders:
        first = next(c for c in contenders if c.name.partition(",")[0] == contender.name.partition(",")[0])
        same = next(c for c in contenders if c.name == "segprior," + contender.name.rpartition(",")[2])
        rows.append(
            bench.report.row(
                **common | dict(threads=int(contender.name.split()[-2])),
                who=contender.name,
                **fields(bench, problem, contender, "forward"),
                times_segprior=contender.median / same.median,  # with the same threads
                speedup=first.median / contender.median,
            )
        )
    if reason is not None:
        rows.append(bench.report.row(**common, who=eager.NAME, not_run=reason))
    else:
        torch.set_num_threads(bench.threads)
    return rows
