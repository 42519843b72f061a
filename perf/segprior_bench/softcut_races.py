"""Entries "softcut", "softcut_backward" and "softcut_growth": solvers at an equal true residual.

Every contender stops by a rule of its own. So each is given ever smaller tolerances until its x has the residual that
the problem asks for, in float64 and in every system, and is timed with the first that does. One that cannot get
there is listed with the residual it reached.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from typing import Any, Callable

import numpy as np

from .races import MEMORY_SHARE, Bench, _graph, _reason, _release_memory, available_memory, to_numpy
from .softcut_ours import CsrCall, SoftcutCall
from .softcut_problem import SoftcutProblem
from .timing import Contender, race

RIVALS = ["softcut_torch", "softcut_scipy", "softcut_pyamg", "softcut_klu", "softcut_cupy"]
SOLVERS = ["auto", "cg", "jacobi", "multigrid", "chebyshev", "direct"]
TIGHTER = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3)  # factors on the target
SLOW = 5.0  # seconds: whoever takes longer is timed twice instead of round by round
TOO_SLOW = 120.0  # seconds: no tighter tolerance is tried after that
FILL_BYTES = 1200  # per voxel that a sparse factorisation of 2048^2 needs, roughly
GRADIENT = 1e-4  # relative root mean square by which gradients may differ at a residual of 1e-6

Build = Callable[[float], Callable[[], Any]]  # a tolerance to a call


@dataclasses.dataclass
class Entrant:
    """A contender that has reached the target, or the reason why it does not race."""

    name: str
    reason: str | None = None
    call: Any = None
    residual: float | None = None
    seconds: float = 0.0  # of its run at the tolerance found


def _solution(result: Any) -> np.ndarray:
    return to_numpy(result[0] if isinstance(result, tuple) else result)


def tune(name: str, problem: SoftcutProblem, build: Build) -> Entrant:
    """The loosest tolerance of TIGHTER that reaches the target."""
    best, residual = float("inf"), float("nan")
    try:
        for factor in TIGHTER:
            call = build(factor * problem.target)
            began = time.perf_counter()
            result = call()
            x = _solution(result)
            seconds = time.perf_counter() - began
            residual = problem.residual(x)
            if residual <= problem.target:
                return Entrant(name, None, call, residual, seconds)
            best = min(best, residual)
            if seconds > TOO_SLOW:
                return Entrant(name, f"residual {residual:.1e} after {seconds:.0f} s")
    except Exception as error:  # a rival's failure is a result, not ours
        _release_memory()
        return Entrant(name, _reason(error))
    return Entrant(name, f"reaches a residual of {best if best < np.inf else residual:.1e} only")


def _too_big(problem: SoftcutProblem) -> str | None:
    """Of a factorisation."""
    needed = FILL_BYTES * problem.voxels * (1 if len(problem.spatial) < 3 else 10)
    if needed <= MEMORY_SHARE * available_memory():
        return None
    return f"needs about {needed / 1e9:.0f} GB for the factors, {available_memory() / 1e9:.0f} GB are free"


def _ours(bench: Bench, problem: SoftcutProblem, solvers: list[str], backward: bool) -> list[Entrant]:
    found = []
    for solver in solvers:
        name = f"segprior {solver}"
        reason = _too_big(problem) if solver == "direct" else None
        if reason is not None:
            found.append(Entrant(name, reason))
            continue

        def build(tol: float, solver: str = solver) -> SoftcutCall:
            return SoftcutCall(problem, bench.device, bench.threads, solver, tol, backward)

        found.append(tune(name, problem, build))
    first = found[0]
    if bench.device == "cuda" and first.reason is None:
        try:
            found.append(dataclasses.replace(first, name=f"{first.name}, CUDA graph", call=_graph(first.call)))
        except Exception as error:
            found.append(Entrant(f"{first.name}, CUDA graph", _reason(error)))
    if not backward:
        csr = "segprior csr_solve, IC(0)"
        found.append(tune(csr, problem, lambda tol: CsrCall(problem, bench.device, bench.threads, tol)))
    if first.reason is not None:
        raise RuntimeError(f"{first.name}: {first.reason}")
    return found


def _rivals(bench: Bench, problem: SoftcutProblem, modules: list[str], backward: bool) -> list[Entrant]:
    found = []
    for module in modules:
        rival = importlib.import_module("rivals." + module)
        for name in rival.CONTENDERS:
            reason = _cannot_run(bench, problem, rival, name, backward)
            if reason is not None:
                found.append(Entrant(name, reason))
                continue
            more = {"backward": True} if backward else {}

            def build(tol: float, rival: Any = rival, name: str = name, more: Any = more) -> Any:
                return rival.make(name, problem, bench.device, bench.threads, tol, **more)

            found.append(tune(name, problem, build))
    return found


def _cannot_run(bench: Bench, problem: SoftcutProblem, rival: Any, name: str, backward: bool) -> str | None:
    if bench.out_of_time():
        return "out of time"
    if rival.WHERE not in ("both", bench.device):
        return "no CUDA device" if rival.WHERE == "cuda" else "runs on the CPU only"
    reason: str | None = rival.unavailable()
    if reason is None and backward and not getattr(rival, "BACKWARD", False):
        reason = "has no backward here"
    if reason is None and name in rival.DIRECT:
        reason = _too_big(problem)
    return reason


def _time(bench: Bench, entrants: list[Entrant]) -> dict[str, Contender]:
    """Contenders take turns; slow ones have their run of `tune` and one more."""
    contenders = {e.name: Contender(e.name, [e.call]) for e in entrants}
    quick = [contenders[e.name] for e in entrants if e.seconds < SLOW]
    race(quick, bench.device, min(bench.rounds, 5), 0.1 if bench.device == "cuda" else 0.4)
    for entrant in entrants:
        if entrant.seconds >= SLOW:
            began = time.perf_counter()
            entrant.call()
            contenders[entrant.name].samples = [entrant.seconds, time.perf_counter() - began]
    return contenders


def _gradients_differ(reference: Any, other: Any) -> str | None:
    for mine, theirs in zip(reference[1:], other[1:]):
        mine, theirs = to_numpy(mine), to_numpy(theirs)
        difference = float(np.linalg.norm(mine - theirs) / np.linalg.norm(mine))
        if not difference < GRADIENT:
            return f"its gradients differ by {difference:.1e} (relative root mean square)"
    return None


def run(
    bench: Bench,
    entry: str,
    problem: SoftcutProblem,
    solvers: list[str] = SOLVERS,
    rivals: list[str] = RIVALS,
) -> list[dict[str, Any]]:
    """One race. Returns the rows; the first is ours with the solver "auto"."""
    backward = entry == "softcut_backward"
    own = _ours(bench, problem, solvers, backward)
    others = _rivals(bench, problem, rivals, backward)
    if backward:
        reference = tuple(to_numpy(a).copy() for a in own[0].call())
        for entrant in [*own[1:], *others]:
            if entrant.reason is None:
                entrant.reason = _gradients_differ(reference, entrant.call())
    entrants = [e for e in own + others if e.reason is None]
    contenders = _time(bench, entrants)
    first, theirs = contenders[own[0].name], [e.name for e in others if e.reason is None]
    common = dict(
        entry=entry,
        operator="softcut",
        what="forward + backward, same matrix" if backward else "forward",
        shape=problem.label,
        dtype=problem.dtype,
        w_max=problem.w_max,
        residual_target=problem.target,
    )
    rows = []
    for entrant in entrants:
        c = contenders[entrant.name]
        ours = entrant in own
        ratios = {name: round(contenders[name].median / c.median, 2) for name in theirs} if ours else None
        rows.append(
            bench.report.row(
                **common,
                who=entrant.name,
                median_ms=c.median * 1e3,
                min_ms=c.best * 1e3,
                runs=len(c.samples),
                iterations=getattr(entrant.call, "iterations", None),
                residual=entrant.residual,
                ns_per_voxel=c.median * 1e9 / (problem.systems * problem.voxels),
                times_segprior=c.median / first.median,
                ratio_to=ratios,
            )
        )
    rows += [bench.report.row(**common, who=e.name, not_run=e.reason) for e in own + others if e.reason]
    for entrant in entrants:
        entrant.call = None
    del contenders, first
    _release_memory()
    return rows
