"""CuPy on a CUDA device: conjugate gradients on the CSR matrix, plain and with cuSPARSE's incomplete factors.

For a symmetric matrix ILU(0), which is what CuPy offers, has the factors of IC(0). Set-up included, assembly not.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.softcut_problem import SoftcutProblem

WHERE = "cuda"


def unavailable() -> str | None:
    try:
        import cupyx.scipy.sparse.linalg  # noqa: F401
    except Exception as error:
        return f"CuPy cannot be imported ({error})"
    return None


CONTENDERS = {"CuPy cg, CSR": False, "CuPy cg, CSR, cuSPARSE ILU(0)": True}
DIRECT: set[str] = set()


class _Each:
    def __init__(self, problem: SoftcutProblem, tol: float, factors: bool) -> None:
        import cupy
        from cupyx.scipy.sparse import csr_matrix

        self._matrices = [csr_matrix(matrix) for matrix in problem.matrices()]
        self._right = cupy.asarray(problem.scores).reshape(problem.systems, -1)
        self._shape, self._tol, self._factors = problem.shape, tol, factors
        self.iterations: int | None = None

    def __call__(self) -> Any:
        import cupy
        from cupyx.scipy.sparse.linalg import LinearOperator, cg, spilu

        found, counts = [], []
        for matrix, p in zip(self._matrices, self._right):
            count = 0

            def step(_: Any) -> None:
                nonlocal count
                count += 1

            inverse = None
            if self._factors:
                inverse = LinearOperator(matrix.shape, spilu(matrix, fill_factor=1).solve)
            x, _ = cg(matrix, p, x0=p.copy(), tol=self._tol, maxiter=100000, M=inverse, callback=step)
            found.append(x)
            counts.append(count)
        self.iterations = max(counts)
        x = cupy.stack(found).reshape(self._shape)
        cupy.cuda.get_current_stream().synchronize()
        return x


def make(name: str, problem: SoftcutProblem, device: str, threads: int, tol: float) -> Callable[[], Any]:
    return _Each(problem, tol, CONTENDERS[name])
