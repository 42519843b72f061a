"""Gradients of `softcut`: against formulas on scipy's solutions, difference quotients, and torch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from softcut_problem import Problem, make, pairs, solve

import segprior

TIGHT: dict[str, Any] = {"tol": 1e-13, "backward_tol": 1e-13}
KINDS: dict[str, dict[str, Any]] = {
    "1d": {"shape": (2, 2, 9)},
    "2d": {"shape": (1, 2, 6, 5), "diagonals": True, "conductance": True},
    "2d, shared": {"shape": (2, 3, 5, 4), "diagonals": True, "conductance": True, "shared": True},
    "3d": {"shape": (1, 2, 3, 4, 3), "conductance": True},
}


def differences(problem: Problem, field: np.ndarray) -> list[np.ndarray]:
    """field_a - field_b of every edge, an array per array of weights."""
    flat = field.reshape(*field.shape[:2], -1)
    ends = pairs(field.shape[2:], problem.diagonals is not None)
    return [flat[..., a] - flat[..., b] for a, b in ends]


@pytest.mark.parametrize("solver", ["auto", "cg", "multigrid", "chebyshev", "direct"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_formulas(kind: str, solver: str) -> None:
    problem = make(**KINDS[kind])
    x, adjoint = solve(problem, problem.scores), solve(problem, problem.grad_x)
    products = [-dl * dx for dl, dx in zip(differences(problem, adjoint), differences(problem, x))]
    try:
        g = segprior.softcut(**problem.arguments, solver=solver, **TIGHT).backward(problem.grad_x)
    except segprior.NotSupportedError:
        pytest.skip("the library was built without Eigen")
    np.testing.assert_allclose(g.scores, adjoint, atol=1e-10)
    for found, product in zip(g.edges + (g.diagonals or ()), products):
        expected = product.sum(1, keepdims=True) if found.shape[1] == 1 else product
        np.testing.assert_allclose(found, expected, atol=1e-10)
    if problem.conductance is not None:
        expected = -adjoint * x
        expected = expected.sum(1, keepdims=True) if g.conductance.shape[1] == 1 else expected
        np.testing.assert_allclose(g.conductance, expected, atol=1e-10)
    assert (g.info.residual < 1e-12).all() and g.info.status.shape == problem.scores.shape[:2]


def moved(problem: Problem, direction: Problem, step: float) -> Problem:
    def move(value: Any, by: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple):
            return tuple(v + step * b for v, b in zip(value, by))
        return value + step * by

    names = ("scores", "edges", "diagonals", "conductance", "grad_x")
    return Problem(*(move(getattr(problem, n), getattr(direction, n)) for n in names))


def inner(one: Any, two: Any) -> float:
    """Of arrays, or tuples of them, or None."""
    if one is None:
        return 0.0
    if isinstance(one, tuple):
        return sum(inner(a, b) for a, b in zip(one, two))
    return float((one * two).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_double_backward(kind: str) -> None:
    """The derivative of <backward's results, random cotangents> along a random direction of all arguments."""
    problem = make(**KINDS[kind])
    random = np.random.default_rng(1)
    direction, weights = (problem.map(lambda a: 0.1 * random.normal(size=a.shape)) for _ in range(2))

    def value(p: Problem) -> float:
        g = segprior.softcut(**p.arguments, **TIGHT).backward(p.grad_x)
        names = ("scores", "edges", "diagonals", "conductance")
        return sum(inner(getattr(g, n), getattr(weights, n)) for n in names)

    h = segprior.softcut(**problem.arguments, **TIGHT).backward(problem.grad_x)
    second = h.backward(**weights.arguments)
    step = 1e-5
    expected = (value(moved(problem, direction, step)) - value(moved(problem, direction, -step))) / (2 * step)
    names = ("grad_x", "scores", "edges", "diagonals", "conductance")
    found = sum(inner(getattr(second, n), getattr(direction, n)) for n in names)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert second.info.iterations.shape == (2, *problem.scores.shape[:2])
    assert (second.info.residual < 1e-12).all()


def test_double_backward_with_absent_cotangents() -> None:
    problem = make((1, 2, 6, 5), diagonals=True, conductance=True)
    g = segprior.softcut(**problem.arguments, **TIGHT).backward(problem.grad_x)
    zeros = problem.map(np.zeros_like)
    b = problem.edges[1]
    full = g.backward(zeros.scores, (zeros.edges[0], b), zeros.diagonals, zeros.conductance)
    short = g.backward(edges=(None, b))
    for name in ("grad_x", "scores", "conductance"):
        assert np.array_equal(getattr(full, name), getattr(short, name)), name
    assert repr(short) == "SoftcutSecondGradients(grad_x, scores, edges, diagonals, conductance)"


def test_wanted() -> None:
    problem = make((1, 2, 6, 5), conductance=True)
    r = segprior.softcut(**problem.arguments)
    everything, some = r.backward(problem.grad_x), r.backward(problem.grad_x, wanted=["edges"])
    assert some.scores is None and some.conductance is None and everything.diagonals is None
    assert all(map(np.array_equal, some.edges, everything.edges))
    with pytest.raises(segprior.InvalidValueError, match="wanted had no 'scores'"):
        some.backward(scores=problem.scores)


def test_backward_has_its_own_stop() -> None:
    problem = make((1, 2, 30, 30), weight=100.0)
    loose = segprior.softcut(**problem.arguments, solver="cg", tol=1e-10, backward_tol=1e-2)
    g = loose.backward(problem.grad_x)
    assert (g.info.iterations < loose.info.iterations).all() and (g.info.residual <= 1e-2).all()
    capped = segprior.softcut(**problem.arguments, solver="cg", backward_max_iters=2).backward(problem.grad_x)
    assert (capped.info.status == segprior.Status.ITERATION_CAP).all()
    assert (capped.info.iterations == 2).all()


def dense(scores: Any, edges: Any, diagonals: Any, conductance: Any) -> Any:
    """x by torch's dense solver, every argument a torch tensor, differentiable twice."""
    import torch

    spatial = scores.shape[2:]
    count = int(np.prod(spatial))
    systems = scores.shape[:2]
    d = torch.ones_like(scores) if conductance is None else conductance
    a = torch.diag_embed(d.expand(*systems, *spatial).reshape(*systems, count))
    for (i, j), w in zip(pairs(spatial, diagonals is not None), edges + (diagonals or ())):
        incidence = torch.zeros(i.size, count, dtype=scores.dtype)
        incidence[torch.arange(i.size), torch.from_numpy(i.ravel())] = 1
        incidence[torch.arange(i.size), torch.from_numpy(j.ravel())] = -1
        w = w.expand(*systems, *w.shape[2:]).reshape(*systems, i.size)
        a = a + torch.einsum("ei,bke,ej->bkij", incidence, w, incidence)
    return torch.linalg.solve(a, scores.reshape(*systems, count)).reshape(scores.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_against_torch_autograd(kind: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    problem = make(**KINDS[kind]).map(lambda a: torch.from_numpy(a).requires_grad_())
    leaves = [problem.scores, *problem.edges, *(problem.diagonals or ())]
    leaves += [] if problem.conductance is None else [problem.conductance]
    x = dense(**problem.arguments)
    expected = torch.autograd.grad(x, leaves, problem.grad_x, create_graph=True)
    r = segprior.softcut(**problem.arguments, **TIGHT)
    g = r.backward(problem.grad_x.detach())

    def flat(results: Any) -> list[Any]:
        found = [results.scores, *results.edges, *(results.diagonals or ())]
        return found + ([] if results.conductance is None else [results.conductance])

    torch.testing.assert_close(r.x, x.detach(), rtol=0, atol=1e-10)
    for mine, theirs in zip(flat(g), expected):
        torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=1e-9)
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(e.shape, dtype=e.dtype, generator=random) for e in expected]
    second = torch.autograd.grad(expected, [problem.grad_x, *leaves], weights)
    axes = len(problem.edges)
    h = g.backward(
        scores=weights[0],
        edges=weights[1 : 1 + axes],
        diagonals=None if problem.diagonals is None else weights[1 + axes : 3 + axes],
        conductance=None if problem.conductance is None else weights[-1],
    )
    for mine, theirs in zip([h.grad_x, *flat(h)], second):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8)
    with pytest.raises(segprior.NotSupportedError, match="grad_x requires grad"):
        r.backward(problem.grad_x)


def check_16_bit(narrow: Any, problem: Problem) -> None:
    """`narrow` makes 16-bit arrays: results are those of the widened edges, gradients rounded once."""
    small = Problem(
        problem.scores, tuple(map(narrow, problem.edges)), None, problem.conductance, problem.grad_x
    )
    wide = Problem(*(getattr(small, n) for n in ("scores", "edges", "diagonals", "conductance", "grad_x")))
    wide.edges = tuple(w.astype(np.float32) if hasattr(w, "astype") else w.float() for w in small.edges)
    r, reference = (segprior.softcut(**p.arguments) for p in (small, wide))
    g, expected = r.backward(problem.grad_x), reference.backward(problem.grad_x)
    assert (r.x == reference.x).all() and (g.scores == expected.scores).all()
    for found, full, given in zip(g.edges, expected.edges, small.edges):
        assert found.dtype == given.dtype
        assert (found == narrow(full)).all()
    h = g.backward(edges=tuple(map(narrow, problem.edges)))
    assert h.edges[0].dtype == small.edges[0].dtype and h.grad_x.dtype == problem.scores.dtype


def test_16_bit_edges() -> None:
    problem = make((1, 2, 12, 13), conductance=True).astype(np.float32)
    check_16_bit(lambda array: array.astype(np.float16), problem)


def test_torch_16_bit_edges() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    problem = make((1, 2, 12, 13), conductance=True).astype(np.float32).map(torch.from_numpy)
    for kind in (torch.bfloat16, torch.float16):
        check_16_bit(lambda array, kind=kind: array.to(kind), problem)


def test_jax() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    problem = make((1, 2, 8, 9), diagonals=True).astype(np.float32)
    r = segprior.softcut(**problem.map(jax.numpy.asarray).arguments)
    g = r.backward(jax.numpy.asarray(problem.grad_x))
    expected = segprior.softcut(**problem.arguments)
    assert isinstance(r.x, jax.Array) and isinstance(g.diagonals[1], jax.Array)
    assert np.array_equal(np.asarray(r.x), expected.x)
    assert np.array_equal(np.asarray(g.edges[0]), expected.backward(problem.grad_x).edges[0])


def test_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass waits for the streams of those before it, and holds what it reads."""
    from test_streams import Recorder

    from segprior import _call, _ffi

    recorder = Recorder()
    monkeypatch.setattr(_call, "framework_for", lambda *_: recorder)
    monkeypatch.setattr(_ffi.Context, "configure", lambda *_: None)
    problem = make((1, 2, 6, 5))
    r = segprior.softcut(**problem.arguments)
    recorder.current = 2
    g = r.backward(problem.grad_x)
    recorder.current = 3
    g.backward(scores=problem.scores)
    assert [step for step in recorder.log if step[0] == "wait"] == [("wait", 2, 1), ("wait", 3, 2)]
    read = [*problem.edges, problem.scores, problem.grad_x, r.x]
    assert {(array.ctypes.data, 2) for array in read} <= set(recorder.held)
    assert {(array.ctypes.data, 3) for array in (*problem.edges, r.x, g.scores)} <= set(recorder.held)
