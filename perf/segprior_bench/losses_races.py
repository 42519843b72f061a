"""Entries "losses" and "proposals": forward and backward of losses, and the Lagrangian proposal found in two ways."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .checked_race import Entrant
from .checked_race import run as checked
from .losses_ours import LossCall, ProposalCall
from .losses_problem import LossProblem
from .races import Bench, _graph, to_numpy

RIVALS = ["losses_torch", "losses_torch_compile", "losses_monai"]
SLOW_START = {"losses_torch_compile"}
# float32 sums of 10^6 numbers; of the loss, relative, and of the gradient, relative root mean square.
LOSS, GRADIENT = 1e-4, 1e-4
PROPOSAL = 1e-2  # of |Q - Q'|: the gradient's steps end where the sizes are nearly right


def _difference(mine: Any, theirs: Any) -> tuple[float, bool]:
    """The larger of the loss's and the gradient's, relative."""
    loss = abs(float(theirs[0]) - float(mine[0])) / abs(float(mine[0]))
    gradient = float(np.linalg.norm(mine[1] - theirs[1]) / np.linalg.norm(mine[1]))
    return max(loss, gradient), loss < LOSS and gradient < GRADIENT


def _keep(result: Any) -> tuple[float, np.ndarray]:
    total, gradient = (to_numpy(a) for a in result)
    return float(total.reshape(())), gradient.copy()


def _rivals(bench: Bench, problem: LossProblem) -> list[Entrant]:
    found = []
    for module in RIVALS:
        rival = importlib.import_module("rivals." + module)
        reason = rival.unavailable(bench.device)
        if reason is None and not rival.supports(problem):
            reason = "does not have these terms"
        if reason is None and bench.quick and module in SLOW_START:
            reason = "not with --quick (compiles for a long time)"
        found.append(Entrant(rival.NAME, lambda r=rival: r.make(problem, bench.device), reason))
    return found


def run(bench: Bench, problem: LossProblem) -> list[dict[str, Any]]:
    def ours() -> LossCall:
        return LossCall(problem, bench.device, bench.threads)

    entrants = [Entrant("segprior", ours, is_ours=True)]
    if bench.device == "cuda":
        entrants.append(Entrant("segprior, CUDA graph", lambda: _replay(ours()), is_ours=True))
    common = dict(
        entry="losses",
        operator="losses",
        what=f"{problem.case}, forward + backward",
        shape=problem.label,
        dtype="float32",
    )
    entrants += _rivals(bench, problem)
    scale = ("ns_per_pxc", float(problem.size))
    return checked(bench, common, entrants, _difference, _keep, scale, problem.least_bytes)


def _replay(call: LossCall) -> Any:
    """The call as a CUDA graph, with its results."""
    replay = _graph(call)

    def again() -> Any:
        replay()
        return call.total, call.gradient

    return again


def run_proposals(bench: Bench, problem: LossProblem) -> list[dict[str, Any]]:
    def ours(method: str, step: float | None = None) -> Any:
        return lambda: ProposalCall(problem, bench.device, bench.threads, method, step)

    def describe(call: ProposalCall) -> dict[str, Any]:
        iterations, violation = call.report()
        return dict(iterations=iterations, violation_voxels=violation)

    def difference(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, bool]:
        found = float(abs(mine - theirs).max())
        return found, found < PROPOSAL

    entrants = [
        Entrant("segprior exact", ours("exact"), is_ours=True),
        Entrant("segprior gradient, step 5e-5", ours("gradient"), is_ours=True),
        # The curvature of the dual is at most J / 2: this step is too small to diverge, the default is not.
        Entrant("segprior gradient, step 2 / J", ours("gradient", 2 / problem.voxels), is_ours=True),
    ]
    common = dict(
        entry="proposals",
        operator="proposals",
        what="Lagrangian proposal, one bound per class",
        shape=problem.label,
        dtype="float32",
    )
    scale = ("ns_per_pxc", float(problem.size))
    keep = lambda proposal: to_numpy(proposal).copy()  # noqa: E731
    return checked(bench, common, entrants, difference, keep, scale, describe=describe)
