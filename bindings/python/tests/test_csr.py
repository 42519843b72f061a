"""`segprior.csr_solve` against scipy: SoftCut's matrices, further edges, reports, wrong arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from softcut_problem import make, matrix, solve, sparse

import segprior
from segprior import InvalidTypeError, InvalidValueError, Status


def far_edges(count: int = 50, extra: int = 40) -> Any:
    """A path with edges far beyond the neighbours, as scipy's csr."""
    random = np.random.default_rng(0)
    a = np.concatenate([np.arange(count - 1), random.integers(0, count // 2, extra)])
    b = np.concatenate([np.arange(1, count), random.integers(count // 2, count, extra)])
    w = random.uniform(0, 10, a.size)
    weights = sparse.csr_matrix((w, (a, b)), (count, count))
    weights = weights + weights.T
    found = sparse.csr_matrix(sparse.diags(1 + np.asarray(weights.sum(1)).ravel()) - weights)
    found.sort_indices()
    return found


def arguments(a: Any, dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    return a.indptr, a.indices, a.data.astype(dtype)


@pytest.mark.parametrize("preconditioner", ["ic0", "none"])
def test_softcut_with_its_own_matrix(preconditioner: str) -> None:
    problem = make((1, 3, 15, 18), shared=True, diagonals=True, conductance=True)
    offsets, columns, values = segprior.softcut_csr(**problem.arguments)
    right = problem.scores.reshape(3, -1)
    r = segprior.csr_solve(offsets, columns, values[0], right, tol=1e-12, preconditioner=preconditioner)
    assert (r.info.status == Status.CONVERGED).all(), r.info
    want = solve(problem, problem.scores).reshape(3, -1)
    np.testing.assert_allclose(r.x, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_further_edges(dtype: Any) -> None:
    a, right = far_edges(), np.random.default_rng(1).normal(size=50).astype(dtype)
    tol = 1e-5 if dtype == np.float32 else 1e-12
    r = segprior.csr_solve(*arguments(a, dtype), right, tol)
    assert r.x.dtype == dtype and r.x.shape == (50,) and r.info.status[0] == Status.CONVERGED
    np.testing.assert_allclose(r.x, np.linalg.solve(a.toarray(), right), rtol=0, atol=20 * tol)
    again = segprior.csr_solve(*arguments(a, dtype), right, 2 * tol, x0=r.x)
    assert again.info.iterations[0] == 0
    np.testing.assert_array_equal(again.x, r.x)


def test_reports() -> None:
    a, right = far_edges(), np.ones((2, 50))
    right[1, 3] = np.nan
    r = segprior.csr_solve(*arguments(a), right, max_iters=1)
    assert list(r.info.status) == [Status.ITERATION_CAP, Status.NONFINITE_INPUT]
    assert np.isfinite(r.x[0]).all() and np.isnan(r.x[1]).all()
    broken = segprior.csr_solve(*arguments(-a), right[0])
    assert broken.info.status[0] == Status.BREAKDOWN


def test_empty() -> None:
    r = segprior.csr_solve(*arguments(far_edges()), np.empty((0, 50)))
    assert r.x.shape == (0, 50) and r.info.status.shape == (0,)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    a, right = far_edges(), torch.ones(50, dtype=torch.float64)
    r = segprior.csr_solve(*map(torch.from_numpy, arguments(a)), right)
    assert isinstance(r.x, torch.Tensor)
    np.testing.assert_allclose(a @ r.x.numpy(), right.numpy(), rtol=0, atol=1e-5)


def test_wrong_arguments() -> None:
    a, right = far_edges(), np.ones(50)
    good = dict(zip(("row_offsets", "columns", "values"), arguments(a)), rhs=right)

    def rejected(error: type[Exception], text: str, **changes: Any) -> None:
        with pytest.raises(error, match=text):
            segprior.csr_solve(**{**good, **changes})

    rejected(InvalidTypeError, "row_offsets has dtype int64; it must be int32", row_offsets=a.indptr.astype(int))
    rejected(InvalidTypeError, "columns has dtype", columns=a.data)
    rejected(InvalidTypeError, "values has dtype float32", values=a.data.astype(np.float32))
    rejected(InvalidTypeError, "rhs has dtype", rhs=np.ones(50, np.int32))
    rejected(InvalidTypeError, "x0 has dtype", x0=np.ones(50, np.float32))
    rejected(InvalidValueError, r"row_offsets has shape \[50\]", row_offsets=a.indptr[1:])
    rejected(InvalidValueError, "columns has shape", columns=a.indices[None])
    rejected(InvalidValueError, "values has shape", values=a.data[1:])
    rejected(InvalidValueError, r"x0 has shape \[1, 50\]", x0=np.ones((1, 50)))
    rejected(InvalidValueError, "rhs has shape", rhs=np.float64(1) * np.ones((1, 1, 50)))
    rejected(InvalidValueError, "columns must ascend", columns=a.indices[::-1].copy())
    rejected(InvalidValueError, "values must be finite", values=np.where(a.data > 1, np.nan, a.data))
    rejected(InvalidValueError, "tol = 0", tol=0)
    rejected(InvalidValueError, "max_iters = 0", max_iters=0)
    rejected(InvalidValueError, "preconditioner is 'ilu'", preconditioner="ilu")


def test_the_matrix_of_softcut() -> None:
    """The two ways to the same matrix agree."""
    problem = make((1, 1, 6, 5))
    offsets, columns, values = segprior.softcut_csr(**problem.arguments)
    a = sparse.csr_matrix((values[0], columns, offsets))
    np.testing.assert_allclose(a.toarray(), matrix(problem, 0, 0).toarray(), rtol=1e-14)
