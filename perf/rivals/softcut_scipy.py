"""SciPy: conjugate gradients on the assembled CSR matrix, and SuperLU. Assembly is not timed.

Systems are shared out among threads: SciPy's loops release the interpreter lock. Backward: the adjoint system with
the same factors, and the gradient of the edges.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import numpy as np

from segprior_bench.softcut_problem import SoftcutProblem

WHERE = "cpu"
BACKWARD = True
Solve = Callable[[Any], tuple[Any, int]]  # p to x and its iterations


def unavailable() -> str | None:
    try:
        import scipy.sparse  # noqa: F401
    except Exception as error:
        return f"SciPy cannot be imported ({error})"
    return None


class EachSystem:
    """`prepare(matrix, tol)` sets a solver of one system up; its time counts."""

    def __init__(
        self,
        problem: SoftcutProblem,
        threads: int,
        tol: float,
        backward: bool,
        prepare: Callable[[Any, float], Solve],
    ) -> None:
        sides = [problem.scores] + ([problem.grad_x] if backward else [])
        right = [side.reshape(problem.systems, -1) for side in sides]
        self._work = [(matrix, *p) for matrix, *p in zip(problem.matrices(), *right)]
        self._shape, self._tol, self._prepare = problem.shape, tol, prepare
        self._pool = ThreadPoolExecutor(threads)
        self.iterations: int | None = None

    def _one(self, work: Any) -> list[tuple[Any, int]]:
        matrix, *right = work
        solve = self._prepare(matrix, self._tol)
        return [solve(p) for p in right]

    def __call__(self) -> Any:
        found = list(self._pool.map(self._one, self._work))
        self.iterations = max(solved[0][1] for solved in found) or None
        fields = [np.stack([x for x, _ in side]).reshape(self._shape) for side in zip(*found)]
        if len(fields) == 1:
            return fields[0]
        x, adjoint = fields
        edges = (-np.diff(adjoint, axis=m) * np.diff(x, axis=m) for m in range(2, x.ndim))
        return x, adjoint, *edges


def _cg(matrix: Any, tol: float) -> Solve:
    from scipy.sparse.linalg import cg

    def solve(p: Any) -> tuple[Any, int]:
        count = 0

        def step(_: Any) -> None:
            nonlocal count
            count += 1

        x, _ = cg(matrix, p, x0=p.copy(), rtol=tol, maxiter=100000, callback=step)
        return x, count

    return solve


def _lu(matrix: Any, tol: float) -> Solve:
    from scipy.sparse.linalg import splu

    # A symmetric ordering and no pivoting: what SuperLU's manual advises for matrices like these.
    options = {"SymmetricMode": True}
    factors = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    return lambda p: (factors.solve(p), 0)


CONTENDERS: dict[str, Any] = {"scipy cg, CSR": _cg, "scipy splu (SuperLU)": _lu}
DIRECT = {"scipy splu (SuperLU)"}


def make(
    name: str, problem: SoftcutProblem, device: str, threads: int, tol: float, backward: bool = False
) -> Callable[[], Any]:
    return EachSystem(problem, threads, tol, backward, CONTENDERS[name])
