"""`segprior.softcut` against scipy: every solver, shape and kind of matrix; reports, stops, failures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import Golden, golden_names
from softcut_problem import Problem, make, matrix, residual, solve

import segprior
from segprior import NotSupportedError, Status

SOLVERS = ("auto", "cg", "jacobi", "multigrid", "chebyshev", "direct")
KINDS: dict[str, dict[str, Any]] = {
    "1d": {"shape": (2, 3, 40)},
    "2d": {"shape": (2, 3, 23, 18)},
    "2d, diagonals": {"shape": (2, 2, 14, 17), "diagonals": True},
    "2d, conductance": {"shape": (1, 3, 16, 15), "conductance": True},
    "2d, shared": {"shape": (2, 3, 15, 18), "shared": True, "diagonals": True, "conductance": True},
    "2d, one row": {"shape": (1, 2, 1, 21)},
    "3d": {"shape": (1, 2, 9, 7, 8)},
    "3d, shared, conductance": {"shape": (2, 2, 5, 9, 6), "shared": True, "conductance": True},
    "one voxel": {"shape": (2, 2, 1, 1)},
}


def softcut(problem: Problem, **more: Any) -> segprior.SoftcutResult:
    try:
        return segprior.softcut(**problem.arguments, **more)
    except NotSupportedError:
        if more.get("solver") != "direct":
            raise
        pytest.skip("the library was built without Eigen")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_against_scipy(kind: str, solver: str) -> None:
    problem = make(**KINDS[kind])
    r = softcut(problem, solver=solver, tol=1e-12)
    assert (r.info.status == Status.CONVERGED).all(), r.info
    expected = solve(problem, problem.scores)
    # A relative residual of 1e-12, times the condition number (about 100).
    np.testing.assert_allclose(r.x, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(r.info.residual, residual(problem, r.x), rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["1d", "2d, shared", "3d"])
def test_float32(kind: str, solver: str) -> None:
    problem = make(**KINDS[kind]).astype(np.float32)
    r = softcut(problem, solver=solver, tol=1e-5)
    assert r.x.dtype == np.float32 and (r.info.status == Status.CONVERGED).all(), r.info
    assert (residual(problem, r.x) < 1.1e-5).all()
    np.testing.assert_allclose(r.x, solve(problem, problem.scores), rtol=0, atol=1e-3)


# float32: its rounding times the condition number of the case with strong edges.
@pytest.mark.parametrize("dtype, bound", [(np.float64, 1e-11), (np.float32, 5e-4)])
@pytest.mark.parametrize("name", golden_names("softcut"))
def test_golden(name: str, dtype: Any, bound: float) -> None:
    case = Golden(name)
    shape = [int(n) for n in case.numbers("shape") or []]
    scores, grad_x = (case[n].astype(dtype).reshape(shape) for n in ("p", "grad_x"))
    axes = range(len(shape) - 2)
    edges = tuple(np.ascontiguousarray(case[f"w{m}"].astype(dtype))[None] for m in axes)
    tol = 1e-13 if dtype == np.float64 else 1e-6
    r = segprior.softcut(scores, edges, tol=tol, backward_tol=tol)
    g = r.backward(grad_x)
    pairs = [(r.x, case["x"]), (g.scores, case["grad_p"])]
    pairs += [(g.edges[m], case[f"grad_w{m}"]) for m in axes]
    for found, expected in pairs:
        scale = max(1.0, float(np.abs(expected).max()))
        assert found.dtype == dtype and float(np.abs(found[0] - expected).max()) <= bound * scale


def photograph_like(shape: tuple[int, ...], weight: float, seed: int = 0) -> Problem:
    """Blocks of flat grey with noise: scores and edge weights as an image gives them."""
    random = np.random.default_rng(seed)
    spatial = shape[2:]
    image = random.random([-(-n // 32) for n in spatial])
    for axis, extent in enumerate(spatial):
        image = image.repeat(32, axis).take(range(extent), axis)
    image = image + random.normal(scale=0.05, size=spatial)
    edges = segprior.contrast_edges(image, weight, beta=100.0, dtype=np.float64)
    return Problem(random.normal(size=shape), edges, None, None, random.normal(size=shape))


def test_512_squared() -> None:
    problem = photograph_like((1, 1, 512, 512), 100.0)
    r = softcut(problem, tol=1e-9)
    assert r.info[0, 0].status == Status.CONVERGED
    assert np.abs(r.x - solve(problem, problem.scores)).max() < 1e-6
    single = softcut(problem.astype(np.float32), tol=1e-5)
    assert np.abs(single.x - r.x).max() < 1e-3


def test_64_cubed() -> None:
    from scipy.sparse.linalg import cg

    problem = photograph_like((1, 1, 64, 64, 64), 10.0)
    r = softcut(problem, tol=1e-9)
    expected, failed = cg(matrix(problem, 0, 0), problem.scores.ravel(), rtol=1e-11)
    assert not failed
    np.testing.assert_allclose(r.x.ravel(), expected, rtol=0, atol=1e-7)


def test_what_the_header_promises() -> None:
    problem = make((1, 2, 20, 21), weight=100.0)
    r = softcut(problem, tol=1e-13)
    np.testing.assert_allclose(r.x.sum((2, 3)), problem.scores.sum((2, 3)), atol=1e-9)
    assert problem.scores.min() <= r.x.min() and r.x.max() <= problem.scores.max()
    constant = np.full_like(problem.scores, 0.3)
    same = segprior.softcut(constant, problem.edges)
    assert np.array_equal(same.x, constant) and (same.info.iterations == 0).all()
    free = segprior.softcut(problem.scores, tuple(map(np.zeros_like, problem.edges)))
    assert np.array_equal(free.x, problem.scores)
    nothing = segprior.softcut(np.zeros_like(problem.scores), problem.edges, x0=problem.scores)
    assert (nothing.x == 0).all() and (nothing.info.status == Status.CONVERGED).all()


def test_classes_share_a_matrix() -> None:
    problem = make((2, 3, 12, 13), shared=True, conductance=True)

    def spread(array: Any) -> Any:
        return array if array.shape[1] == 3 else np.ascontiguousarray(array.repeat(3, 1))

    each = problem.map(spread)
    one, many = softcut(problem, tol=1e-12), softcut(each, tol=1e-12)
    np.testing.assert_allclose(one.x, many.x, atol=1e-11)
    g, h = one.backward(problem.grad_x), many.backward(problem.grad_x)
    assert g.edges[0].shape == (2, 1, 11, 13) and g.conductance.shape == (2, 1, 12, 13)
    for found, apart in zip((*g.edges, g.conductance), (*h.edges, h.conductance)):
        np.testing.assert_allclose(found, apart.sum(1, keepdims=True), atol=1e-4)


def test_a_system_does_not_depend_on_its_neighbours() -> None:
    problem = make((2, 2, 30, 17))
    together = softcut(problem)
    alone = softcut(problem.map(lambda array: np.ascontiguousarray(array[1:, 1:])))
    assert np.array_equal(together.x[1, 1], alone.x[0, 0])
    assert together.info[1, 1] == alone.info[0, 0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_threads_do_not_change_a_bit(solver: str) -> None:
    problem = make((1, 3, 61, 64), weight=50.0).astype(np.float32)
    one, two = softcut(problem, solver=solver, threads=1), softcut(problem, solver=solver, threads=2)
    assert np.array_equal(one.x, two.x)
    g, h = (r.backward(problem.grad_x) for r in (one, two))
    assert np.array_equal(g.scores, h.scores) and all(map(np.array_equal, g.edges, h.edges))


def test_start() -> None:
    problem = make((1, 1, 30, 30), weight=100.0)
    cold = softcut(problem, solver="cg", tol=1e-10)
    warm = softcut(problem, solver="cg", tol=1e-8, x0=cold.x)
    assert cold.info[0, 0].iterations > 20
    assert warm.info[0, 0].iterations == 0 and np.array_equal(warm.x, cold.x)


def test_cap_and_precision() -> None:
    problem = make((1, 2, 30, 30), weight=100.0)
    capped = softcut(problem, solver="cg", max_iters=3)
    assert (capped.info.status == Status.ITERATION_CAP).all() and (capped.info.iterations == 3).all()
    np.testing.assert_allclose(capped.info.residual, residual(problem, capped.x), rtol=1e-6)
    single = problem.astype(np.float32)
    limit = softcut(single, solver="cg", tol=1e-12)
    assert (limit.info.status == Status.PRECISION_LIMIT).all()
    np.testing.assert_allclose(limit.info.residual, residual(single, limit.x), rtol=0.2)
    assert "2 PRECISION_LIMIT" in repr(limit.info)


def test_stopping_rules() -> None:
    problem = make((2, 2, 25, 25), weight=50.0)
    problem.scores[0] *= 100
    relative = softcut(problem, solver="cg", tol=1e-3, norm="l1")
    np.testing.assert_allclose(relative.info.residual, residual(problem, relative.x, 1), rtol=1e-6)
    assert (relative.info.residual <= 1e-3).all()
    absolute = softcut(problem, solver="cg", tol=1e-3, norm="l1", absolute=True)
    size = np.abs(problem.scores).mean((2, 3))
    np.testing.assert_allclose(absolute.info.residual, residual(problem, absolute.x, 1) * size, rtol=1e-6)
    assert (absolute.info.residual <= 1e-3).all()
    assert (absolute.info.iterations[0] > relative.info.iterations[0]).all()
    together = softcut(problem, solver="cg", tol=1e-3, norm="l1", absolute=True, batch=True)
    assert len(set(together.info.iterations.ravel())) == 1
    assert together.info.residual.mean() <= 1e-3 < together.info.residual.max()
    square = softcut(problem, solver="cg", tol=1e-3, absolute=True)
    scale = np.sqrt((problem.scores**2).mean((2, 3)))
    np.testing.assert_allclose(square.info.residual, residual(problem, square.x) * scale, rtol=1e-6)


def test_failed_systems_leave_the_others_alone() -> None:
    problem = make((2, 2, 12, 11), conductance=True)
    good = softcut(problem)
    problem.scores[0, 1, 3, 4] = np.nan
    problem.edges[1][1, 0, 2, 2] = -1
    r = softcut(problem)
    assert r.info[0, 1].status == Status.NONFINITE_INPUT and np.isnan(r.x[0, 1]).all()
    assert r.info[1, 0].status == Status.INVALID_PARAMETER and np.isnan(r.x[1, 0]).all()
    assert np.isnan(r.info.residual[0, 1]) and r.info.iterations[0, 1] == 0
    for index in ((0, 0), (1, 1)):
        assert np.array_equal(r.x[index], good.x[index]) and r.info[index] == good.info[index]
    g = r.backward(problem.grad_x)
    assert np.isnan(g.scores[0, 1]).all() and np.isfinite(g.scores[0, 0]).all()
    assert g.info[1, 0].status == Status.INVALID_PARAMETER
    problem.conductance[1, 1, 0, 0] = 0
    assert softcut(problem).info[1, 1].status == Status.INVALID_PARAMETER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_csr(kind: str, dtype: Any) -> None:
    problem = make(**KINDS[kind]).astype(dtype)
    rows, columns, values = segprior.softcut_csr(**problem.arguments)
    assert rows.dtype == columns.dtype == np.int32 and values.dtype == dtype
    images, classes = problem.scores.shape[:2]
    matrices = problem.edges[0].shape[1]
    assert values.shape == (images * matrices, len(columns))
    for b in range(images):
        for k in range(classes):
            expected = matrix(problem, b, k)
            assert np.array_equal(rows, expected.indptr) and np.array_equal(columns, expected.indices)
            found = values[b * matrices + min(k, matrices - 1)]
            np.testing.assert_allclose(found, expected.data, rtol=4 * np.finfo(dtype).eps)


def test_empty() -> None:
    for shape in ((0, 2, 4, 5), (2, 0, 4, 5), (2, 2, 0, 5)):
        scores = np.zeros(shape)
        edges = tuple(np.zeros([max(n - (a == m + 2), 0) for a, n in enumerate(shape)]) for m in range(2))
        r = segprior.softcut(scores, edges)
        assert r.x.shape == shape and r.info.status.shape == shape[:2]
        g = r.backward(scores)
        assert g.edges[1].shape == edges[1].shape and not g.edges[0].any()
        assert g.backward(scores=scores).grad_x.shape == shape


def test_reports() -> None:
    problem = make((2, 3, 6, 7))
    r = softcut(problem)
    assert repr(r) == "SoftcutResult(x=[2, 3, 6, 7] on cpu)"
    assert r.info.iterations.shape == r.info.residual.shape == r.info.status.shape == (2, 3)
    assert re.fullmatch(r"Systems\(6 CONVERGED, at most \d+ iterations\)", repr(r.info))
    one = r.info[1, 2]
    assert one.status is Status.CONVERGED and one.residual <= 1e-6 and type(one.iterations) is int
    assert repr(r.backward(problem.grad_x)) == "SoftcutGradients(scores, edges)"
