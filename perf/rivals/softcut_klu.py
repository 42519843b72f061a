"""torch_sparse_solve: KLU, the direct solver of the SoftCut paper's implementation. Assembly is not timed.

Needs SuiteSparse's headers and a build (perf/make_rivals_env.sh).
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from segprior_bench.softcut_problem import SoftcutProblem

WHERE = "cpu"


def unavailable() -> str | None:
    try:
        import torch_sparse_solve_cpp  # noqa: F401
    except Exception as error:
        return f"torch_sparse_solve cannot be imported ({error})"
    return None


CONTENDERS = {"torch_sparse_solve (KLU)": None}
DIRECT = set(CONTENDERS)
BACKWARD = True


def make(
    name: str, problem: SoftcutProblem, device: str, threads: int, tol: float, backward: bool = False
) -> Callable[[], Any]:
    import torch
    import torch_sparse_solve

    indices, values = [], []
    for n, matrix in enumerate(problem.matrices()):
        coo = matrix.tocoo()
        indices.append(np.stack([np.full(coo.nnz, n), coo.row, coo.col]))
        values.append(coo.data.astype(np.float64))
    size = (problem.systems, problem.voxels, problem.voxels)
    entries = (np.concatenate(indices, 1), np.concatenate(values))
    a = torch.sparse_coo_tensor(*entries, size, check_invariants=False).coalesce()
    columns = (problem.systems, problem.voxels, 1)
    b, grad_x = (torch.from_numpy(p.astype(np.float64)).reshape(columns) for p in (problem.scores, problem.grad_x))

    def solve() -> Any:
        return torch_sparse_solve.solve(a, b).reshape(problem.shape)

    def solve_and_differentiate() -> Any:
        x = torch_sparse_solve.solve(a, b.requires_grad_())
        (adjoint,) = torch.autograd.grad(x, b, grad_x)
        x, adjoint = (t.detach().reshape(problem.shape) for t in (x, adjoint))
        return x, adjoint, *(-adjoint.diff(dim=m) * x.diff(dim=m) for m in range(2, x.ndim))

    return solve_and_differentiate if backward else solve
