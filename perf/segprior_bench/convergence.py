"""Entry "convergence": work until max |u - u*| < 1e-3, the papers' plain iteration against the accelerated one.

A noisy image of three classes, the hand-made model of [VPTV] section 6: cost (h - m_i)^2 with known means and
volumes. u*: 50000 accelerated iterations in float64. The iterates are float32, as users run them. Iteration
counts are tried on a grid that grows by 5 %; the first that is close enough counts, and is then timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ours
from .problem import Problem
from .races import Bench
from .timing import Contender, race

TOLERANCE = 1e-3
CAP = 20_000
REFERENCE_ITERATIONS = 50_000
MEANS = (0.2, 0.5, 0.8)
NOISE = 0.2
# (eps, lam): soft, hand-made, the command line's defaults
SETTINGS = [(0.5, 0.5), (0.1, 0.2), (0.05, 0.1)]


class Image(Problem):
    """A disc and a band on a background, with noise; `shape` is (1, 3, n, n)."""

    @property
    def features(self) -> np.ndarray:  # type: ignore[override]
        noise = np.random.default_rng(self.seed).normal(0, NOISE, self.spatial)
        image = np.array(MEANS)[self._labels()] + noise
        cost = [(image - mean) ** 2 for mean in MEANS]
        return np.ascontiguousarray(-np.stack(cost)[None], self.dtype)

    @property
    def volume(self) -> np.ndarray:  # type: ignore[override]
        return np.bincount(self._labels().ravel(), minlength=3)[None].astype(self.dtype)

    def _labels(self) -> np.ndarray:
        n = self.spatial[0]
        y, x = np.mgrid[:n, :n] / n
        labels = np.zeros((n, n), int)
        labels[(x - 0.35) ** 2 + (y - 0.4) ** 2 < 0.06] = 1
        labels[(x + y > 1.25) & (x + y < 1.6)] = 2
        return labels


def _grid() -> list[int]:
    counts, n = [], 10.0
    while n <= CAP:
        counts.append(round(n))
        n *= 1.05
    return counts


def _error(call: ours.Call, exact: np.ndarray) -> float:
    return float(np.abs(call() - exact).max())


def _accelerated(bench: Bench, make: Any, exact: np.ndarray) -> tuple[int | None, float]:
    """Momentum does not survive a warm start: every count starts from the beginning."""
    error = np.inf
    for n in _grid():
        error = _error(ours.Call(make(n), threads=1, accelerate=True), exact)
        if error < TOLERANCE:
            return n, error
    return None, error


def _plain(bench: Bench, make: Any, exact: np.ndarray) -> tuple[int | None, float]:
    """(q, f) is its whole state: each count continues the one before."""
    start, done, error = None, 0, np.inf
    for n in _grid():
        problem = make(n - done)
        call = ours.Call(problem, threads=1, start=start)
        call.keep_duals(problem)
        error, start, done = _error(call, exact), call, n
        if error < TOLERANCE:
            return n, error
    return None, error


def run(bench: Bench, size: int, eps: float, lam: float) -> list[dict[str, Any]]:
    def make(iterations: int, dtype: str = "float32") -> Problem:
        return Image((1, 3, size, size), iterations, eps, lam, dtype=dtype)

    common = dict(entry="convergence", operator="softmax: TV + volume", shape=make(1).label, dtype="float32")
    common |= dict(what=f"until max|u-u*| < {TOLERANCE:g}", eps=eps, lam=lam)
    star, half = (
        ours.Call(make(n, "float64"), threads=1, accelerate=True)().copy()
        for n in (REFERENCE_ITERATIONS, REFERENCE_ITERATIONS // 2)
    )
    found = {"accelerated": _accelerated(bench, make, star), "plain (the papers')": _plain(bench, make, star)}
    contenders = {
        name: Contender(name, [ours.Call(make(n or CAP), threads=bench.threads, accelerate=name == "accelerated")])
        for name, (n, _) in found.items()
    }
    race(list(contenders.values()), "cpu", 3, 0.1)
    first = contenders["accelerated"]
    return [
        bench.report.row(
            **common,
            who=name,
            iterations=n if n is not None else f"> {CAP}",
            reached=n is not None,
            median_ms=contenders[name].median * 1e3,
            min_ms=contenders[name].best * 1e3,
            difference=error,
            times_segprior=contenders[name].median / first.median,
            uncertainty_of_reference=float(np.abs(star - half).max()),
        )
        for name, (n, error) in found.items()
    ]
