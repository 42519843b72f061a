"""PyTorch: conjugate gradients as layers of this kind are written, the way of the SoftCut paper.

Matrix-free with slices, all systems of the batch at once, one stopping test of the whole batch (the mean of |r|
over everything), whose number the host reads in every iteration. Backward: the same solver for the adjoint, and the
gradient of the edges.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench.softcut_problem import SoftcutProblem

WHERE = "both"
CAP = 100000


def unavailable() -> str | None:
    try:
        import torch  # noqa: F401
    except Exception as error:
        return f"torch cannot be imported ({error})"
    return None


def apply(edges: Any, x: Any) -> Any:
    out = x.clone()
    for axis, w in enumerate(edges, 2):
        n = x.shape[axis] - 1
        flux = w * (x.narrow(axis, 1, n) - x.narrow(axis, 0, n))
        out.narrow(axis, 0, n).sub_(flux)
        out.narrow(axis, 1, n).add_(flux)
    return out


def solve(edges: Any, p: Any, tol: float) -> tuple[Any, int]:
    """x with mean |p - A x| <= tol over the whole batch."""
    axes = tuple(range(2, p.ndim))
    x = p.clone()
    r = p - apply(edges, x)
    d = r.clone()
    rho = (r * r).sum(axes, keepdim=True)
    for iteration in range(CAP):
        if float(r.abs().mean()) <= tol:
            return x, iteration
        q = apply(edges, d)
        alpha = rho / (d * q).sum(axes, keepdim=True)
        x.addcmul_(alpha, d)
        r.addcmul_(alpha, q, value=-1)
        new = (r * r).sum(axes, keepdim=True)
        d.mul_(new / rho).add_(r)
        rho = new
    return x, CAP


CONTENDERS = {"torch CG, batched": None}
DIRECT: set[str] = set()
BACKWARD = True


class _Solver:
    def __init__(self, problem: SoftcutProblem, device: str, tol: float, backward: bool) -> None:
        import torch

        arrays = [problem.scores, *problem.edges, problem.grad_x]
        self._p, *self._edges, self._grad_x = (torch.from_numpy(a).to(device) for a in arrays)
        scale = [float(t.abs().mean()) for t in (self._p, self._grad_x)]
        self._tol, self._backward_tol = (tol * s for s in scale)
        self._backward = backward
        self.iterations: int | None = None

    def __call__(self) -> Any:
        x, self.iterations = solve(self._edges, self._p, self._tol)
        if not self._backward:
            return x
        adjoint, _ = solve(self._edges, self._grad_x, self._backward_tol)
        return x, adjoint, *(-adjoint.diff(dim=m) * x.diff(dim=m) for m in range(2, x.ndim))


def make(
    name: str, problem: SoftcutProblem, device: str, threads: int, tol: float, backward: bool = False
) -> Callable[[], Any]:
    return _Solver(problem, device, tol, backward)
