"""SoftCut: the same numbers as `segprior.softcut`, bit for bit; first and second derivatives; golden
vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import Golden, golden_names, same
from jax.test_util import check_grads

import segprior
import segprior.jax as sj

SHAPES = {
    "1d": (2, 2, 7),
    "2d": (2, 2, 5, 6),
    "diagonal": (2, 2, 5, 6),
    "shared": (2, 3, 4, 5),
    "3d": (1, 2, 3, 4, 3),
}


def problem(kind: str, dtype: Any = np.float64, edge_dtype: Any = None) -> dict[str, Any]:
    random = np.random.default_rng(8)
    batch, classes, *spatial = SHAPES[kind]
    matrices = 1 if kind == "shared" else classes

    def weights(*cut: int) -> Any:
        shape = (batch, matrices, *(extent - (axis in cut) for axis, extent in enumerate(spatial)))
        return random.uniform(0.1, 3, shape).astype(edge_dtype or dtype)

    found = {
        "scores": random.normal(size=SHAPES[kind]).astype(dtype),
        "edges": tuple(weights(axis) for axis in range(len(spatial))),
    }
    if kind == "diagonal":
        found["diagonals"] = (weights(0, 1), weights(0, 1))
    if kind in ("diagonal", "shared"):
        found["conductance"] = random.uniform(0.5, 2, (batch, matrices, *spatial)).astype(dtype)
    return found


@pytest.mark.parametrize(
    "dtype, edge_dtype",
    [(np.float64, None), (np.float32, None), (np.float32, np.float16), (np.float32, ml_dtypes.bfloat16)],
)
@pytest.mark.parametrize("kind", SHAPES)
def test_same_as_numpy(kind: str, dtype: Any, edge_dtype: Any) -> None:
    p = problem(kind, dtype, edge_dtype)
    tol = 1e-5
    expected = segprior.softcut(**p, tol=tol)
    found = sj.softcut_with_report(**p, tol=tol)
    same(found.x, expected.x)
    same(found.report.status, expected.info.status.astype(np.int32))
    same(found.report.iterations, expected.info.iterations.astype(np.int32))
    same(found.report.residual, expected.info.residual)
    grad_x = np.random.default_rng(0).normal(size=expected.x.shape).astype(dtype)
    (gradients,) = jax.vjp(lambda p: sj.softcut(**p, tol=tol), jax.tree.map(jnp.asarray, p))[1](grad_x)
    by_numpy = expected.backward(grad_x)
    for name in p:
        jax.tree.map(same, gradients[name], getattr(by_numpy, name))


@pytest.mark.parametrize(
    "options", [{"solver": "cg"}, {"norm": "l1", "absolute": True, "batch": True}, {"max_iters": 3}]
)
def test_options(options: dict[str, Any]) -> None:
    p = problem("2d")
    same(sj.softcut(**p, **options), segprior.softcut(**p, **options).x)


def test_start() -> None:
    p = problem("2d")
    x0 = np.random.default_rng(1).normal(size=p["scores"].shape)
    same(sj.softcut(**p, x0=x0), segprior.softcut(**p, x0=x0).x)
    assert not np.any(jax.grad(lambda x0: jnp.sum(sj.softcut(**p, x0=x0)))(x0))


@pytest.mark.parametrize("kind", SHAPES)
def test_derivatives(kind: str) -> None:
    """First and second, against difference quotients."""
    check_grads(
        lambda p: sj.softcut(**p, tol=1e-13, backward_tol=1e-13),
        (problem(kind),),
        order=2,
        modes=["rev"],
        atol=1e-6,
        rtol=1e-6,
    )


def test_second_derivatives_as_numpy() -> None:
    p = problem("diagonal")
    random = np.random.default_rng(3)
    grad_x = random.normal(size=p["scores"].shape)
    weight = random.normal(size=p["edges"][0].shape)

    def of_gradient(p: dict[str, Any], grad_x: Any) -> Any:
        gradient = jax.grad(lambda p: jnp.sum(sj.softcut(**p) * grad_x))(p)
        return jnp.sum(gradient["edges"][0] * weight)

    found, found_grad_x = jax.jit(jax.grad(of_gradient, (0, 1)))(p, grad_x)
    second = segprior.softcut(**p).backward(grad_x).backward(edges=(weight, None))
    same(found_grad_x, second.grad_x)
    for name in p:
        jax.tree.map(same, found[name], getattr(second, name))


def test_no_third_derivative() -> None:
    p = problem("1d")

    def once(e: Any) -> Any:
        return jnp.sum(sj.softcut(p["scores"], (e,)) ** 2)

    def twice(e: Any) -> Any:
        return jnp.sum(jax.grad(once)(e) ** 2)

    def thrice(e: Any) -> Any:
        return jnp.sum(jax.grad(twice)(e) ** 2)

    with pytest.raises(segprior.NotSupportedError, match="no third"):
        jax.grad(thrice)(p["edges"][0])


def test_empty() -> None:
    scores = jnp.zeros((0, 2, 4))
    found, pull = jax.vjp(sj.softcut, scores, (jnp.ones((0, 2, 3)),))
    assert found.shape == scores.shape and pull(found)[1][0].shape == (0, 2, 3)


def test_failed_system() -> None:
    p = problem("2d")
    p["edges"][0][0, 1, 0, 0] = -1
    found = sj.softcut_with_report(**p)
    assert found.report.status[0, 1] == sj.Status.INVALID_PARAMETER and np.isnan(found.x[0, 1]).all()
    assert np.isfinite(found.x[1]).all()


@pytest.mark.parametrize("name", golden_names("softcut"))
def test_golden(name: str) -> None:
    """Solved to 1e-13, where the condition number, below 1e4 here, leaves 1e-9."""
    case = Golden(name)
    axes = len(case.words["shape"]) - 2
    given = [case["p"], *(case[f"w{axis}"] for axis in range(axes))]
    given = [jnp.asarray(array)[None] for array in given]
    found, pull = jax.vjp(
        lambda scores, *edges: sj.softcut(scores, edges, tol=1e-13, backward_tol=1e-13), *given
    )
    expected = [case["grad_p"], *(case[f"grad_w{axis}"] for axis in range(axes))]
    assert np.abs(found[0] - case["x"]).max() < 1e-9
    for gradient, right in zip(pull(jnp.asarray(case["grad_x"])[None]), expected):
        assert np.abs(gradient[0] - right).max() < 1e-9 * max(1, np.abs(right).max())
