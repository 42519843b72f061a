"""PyAMG: algebraic multigrid with conjugate gradients, set-up included. Assembly is not timed.

Backward: the adjoint system with the same hierarchy.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

from segprior_bench.softcut_problem import SoftcutProblem

from .softcut_scipy import EachSystem, Solve

WHERE = "cpu"
BACKWARD = True


def unavailable() -> str | None:
    try:
        import pyamg  # noqa: F401
    except Exception as error:
        return f"PyAMG cannot be imported ({error})"
    return None


def _prepare(matrix: Any, tol: float, build: str) -> Solve:
    import pyamg

    hierarchy = getattr(pyamg, build)(matrix)

    def solve(p: Any) -> tuple[Any, int]:
        residuals: list[float] = []
        x = hierarchy.solve(p, x0=p.copy(), tol=tol, maxiter=1000, accel="cg", residuals=residuals)
        return x, len(residuals) - 1

    return solve


CONTENDERS = {
    "PyAMG smoothed aggregation, CG": "smoothed_aggregation_solver",
    "PyAMG Ruge-Stueben, CG": "ruge_stuben_solver",
}
DIRECT: set[str] = set()


def make(
    name: str, problem: SoftcutProblem, device: str, threads: int, tol: float, backward: bool = False
) -> Callable[[], Any]:
    prepare = functools.partial(_prepare, build=CONTENDERS[name])
    return EachSystem(problem, threads, tol, backward, prepare)
