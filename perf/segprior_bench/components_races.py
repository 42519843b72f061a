"""Entry "components": connected components of binary maps."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .checked_race import Entrant
from .checked_race import run as checked
from .components_ours import ComponentsCall
from .components_problem import ComponentsProblem
from .races import Bench, to_numpy

RIVALS = ["components_scipy", "components_skimage", "components_cc3d"]


def differing(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the components, ours and theirs, that do not correspond one to one; the background is one of them."""
    theirs = theirs.reshape(mine.shape).astype(np.int64)
    first, second = int(mine.max()) + 1, int(theirs.max()) + 1
    pairs = np.unique(mine.astype(np.int64) * second + theirs)
    a, b = np.bincount(pairs // second, minlength=first), np.bincount(pairs % second, minlength=second)
    background = 0.0 if ((mine == 0) == (theirs == 0)).all() else 1.0
    return max(float((a != 1).mean()), float((b != 1).mean()), background)


def _compare(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, bool]:
    found = differing(mine, theirs)
    return found, found == 0


def run(bench: Bench, problem: ComponentsProblem) -> list[dict[str, Any]]:
    def ours(threads: int) -> Any:
        return lambda: ComponentsCall(problem, bench.device, threads)

    entrants = [Entrant("segprior", ours(bench.threads), is_ours=True)]
    if bench.device == "cpu" and bench.threads > 1:
        entrants.append(Entrant("segprior, 1 thread", ours(1), is_ours=True))
    for module in RIVALS:
        rival = importlib.import_module("rivals." + module)
        reason = rival.unavailable() if bench.device == "cpu" else "runs on the CPU only"
        entrants.append(Entrant(rival.NAME, lambda r=rival: r.make(problem), reason))
    common = dict(
        entry="components",
        operator="components",
        what=problem.kind,
        shape=problem.label,
        dtype="uint8",
    )
    scale = ("ns_per_voxel", float(problem.voxels))
    keep = lambda components: to_numpy(components).copy()  # noqa: E731
    return checked(bench, common, entrants, _compare, keep, scale)
