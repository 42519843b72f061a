"""`segprior.losses.lagrangian_proposal`: what its definition asks for, and the volume prior of `softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from losses_reference import difference_quotient, probabilities

import segprior
from segprior import Status, losses


def make(shape: tuple[int, ...], seed: int = 0) -> tuple[Any, Any, Any]:
    """Logits, and bounds of which about half are broken by the plain softmax."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=shape)
    sizes = probabilities(logits, "softmax").sum(tuple(range(2, len(shape))))
    voxels = np.prod(shape[2:])
    other = random.dirichlet(np.ones(shape[1]), size=shape[0]) * voxels
    goal = 0.7 * sizes + 0.3 * other
    return logits, 0.95 * goal, 1.05 * goal


def check(
    logits: Any, lower: Any, upper: Any, r: losses.ProposalResult, tol: float, mask: Any = None
) -> None:
    """Q = S(z + f), within the bounds; a class is pushed up only to its lower, down only to its upper bound."""
    axes = tuple(range(2, logits.ndim))
    wide = r.dual.reshape(*r.dual.shape, *(1,) * len(axes))
    expected = probabilities(logits + wide, "softmax")
    expected = expected if mask is None else expected * mask[:, None]
    np.testing.assert_allclose(r.proposal, expected, atol=1e-12)
    np.testing.assert_allclose(r.volume, expected.sum(axes), rtol=1e-12)
    slack = tol * np.prod(logits.shape[2:])
    assert (r.volume >= lower - slack).all() and (r.volume <= upper + slack).all()
    # Only differences of duals matter where their sum over the classes is free.
    assert (r.volume[r.dual > 0] <= np.broadcast_to(lower, r.dual.shape)[r.dual > 0] + slack).all()
    assert (r.volume[r.dual < 0] >= np.broadcast_to(upper, r.dual.shape)[r.dual < 0] - slack).all()


@pytest.mark.parametrize("shape", [(2, 3, 31), (3, 4, 9, 11), (1, 2, 5, 3, 7), (2, 21, 13, 9)])
def test_is_what_it_should_be(shape: tuple[int, ...]) -> None:
    logits, lower, upper = make(shape)
    r = losses.lagrangian_proposal(logits, lower, upper, tol=1e-10)
    assert r.info.status == [Status.CONVERGED] * shape[0] and (r.info.iterations > 0).all()
    check(logits, lower, upper, r, 1e-10)
    assert (r.info.residual <= 1e-10 * np.prod(shape[2:])).all()


@pytest.mark.parametrize("kind", ["lower", "upper", "both", "row"])
def test_the_same_as_softmax_with_volume_bounds(kind: str) -> None:
    logits, lower, upper = make((2, 3, 12, 11), seed=1)
    if kind == "row":
        bounds = {"lower": [40.0, 0.0, 10.0], "upper": [70.0, 60.0, float("inf")]}
    else:
        bounds = {name: b for name, b in (("lower", lower), ("upper", upper)) if kind in (name, "both")}
    expected = segprior.softmax(
        logits, eps=1.0, iters=5000, tol=1e-12, volume=segprior.Volume(**bounds), accelerate=False
    )
    assert expected.info.status == [Status.CONVERGED] * 2
    r = losses.lagrangian_proposal(logits, **bounds, tol=1e-12)
    np.testing.assert_allclose(r.proposal, expected.u, atol=1e-9)


def test_both_methods_end_at_the_same() -> None:
    logits, _, _ = make((2, 3, 6, 7), seed=2)
    # The gradient method stops at the first Q with the sizes: the same only where bounds are tight from one side.
    lower = np.array([[20.0, 0, 0], [0, 22.0, 0]])
    exact = losses.lagrangian_proposal(logits, lower, tol=1e-9)
    slow = losses.lagrangian_proposal(logits, lower, method="gradient", step=0.05, max_iters=20000, tol=1e-9)
    assert slow.info.status == exact.info.status == [Status.CONVERGED] * 2
    np.testing.assert_allclose(slow.proposal, exact.proposal, atol=1e-6)
    assert (slow.info.iterations > exact.info.iterations).all()
    # As the paper has it: 500 small steps.
    default = losses.lagrangian_proposal(logits, lower, method="gradient")
    assert default.info.status == [Status.ITERATION_CAP] * 2 and (default.info.iterations == 500).all()
    assert (default.info.residual > 0).all()


def test_bounds_that_hold_change_nothing() -> None:
    logits, _, _ = make((2, 3, 6, 7))
    for r in (
        losses.lagrangian_proposal(logits),
        losses.lagrangian_proposal(logits, [0, 0, 0], [42, 42, 42]),
    ):
        assert (r.info.iterations == 0).all() and (r.dual == 0).all()
        np.testing.assert_allclose(r.proposal, probabilities(logits, "softmax"), atol=1e-14)


def test_excluded_and_impossible() -> None:
    logits, _, _ = make((2, 3, 6, 7))
    r = losses.lagrangian_proposal(logits, upper=[0, 30, 42], tol=1e-9)
    assert (r.proposal[:, 0] == 0).all() and (r.dual[:, 0] == -np.inf).all()
    assert (r.volume[:, 1] <= 30 + 1e-6).all()
    np.testing.assert_allclose(r.proposal.sum(1), 1, atol=1e-12)
    impossible = losses.lagrangian_proposal(logits, np.array([[20, 20, 20], [1, 1, 1.0]]))
    assert impossible.info.status == [Status.INFEASIBLE_VOLUME, Status.CONVERGED]
    assert np.isfinite(impossible.proposal).all()


def test_masks_and_failures() -> None:
    logits, lower, upper = make((4, 3, 6, 7), seed=3)
    mask = np.random.default_rng(4).random((4, 6, 7)) < 0.8
    good = losses.lagrangian_proposal(logits, 0.7 * lower, upper, mask=mask, tol=1e-10)
    check(logits, 0.7 * lower, upper, good, 1e-10, mask)
    logits[np.broadcast_to(~mask[:, None], logits.shape)] = np.nan
    hidden = losses.lagrangian_proposal(logits, 0.7 * lower, upper, mask=mask, tol=1e-10)
    assert np.array_equal(hidden.proposal, good.proposal)
    assert (hidden.proposal[np.broadcast_to(~mask[:, None], logits.shape)] == 0).all()

    logits, lower, upper = make((4, 3, 6, 7), seed=3)
    good = losses.lagrangian_proposal(logits, lower, upper)
    logits[1, 0, 2, 2] = np.inf
    lower[2, 1] = upper[2, 1] + 1
    r = losses.lagrangian_proposal(logits, lower, upper)
    ok = Status.CONVERGED
    assert r.info.status == [ok, Status.NONFINITE_INPUT, Status.INVALID_PARAMETER, ok]
    for b, status in enumerate(r.info.status):
        same = np.array_equal(r.proposal[b], good.proposal[b])
        assert same if status == ok else np.isnan(r.proposal[b]).all() and np.isnan(r.volume[b]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_dtypes(dtype: Any) -> None:
    logits, lower, upper = make((2, 3, 12, 11))
    narrow, low, high = logits.astype(dtype), lower.astype(np.float32), upper.astype(np.float32)
    r = losses.lagrangian_proposal(narrow, low, high)
    assert r.proposal.dtype == dtype and r.dual.dtype == r.volume.dtype == np.float32
    assert r.info.status == [Status.CONVERGED] * 2
    expected = losses.lagrangian_proposal(narrow.astype(np.float64), lower, upper)
    # The tolerance of 1e-6 per voxel moves Q by as much; and half a unit of 16 bits.
    atol = 2e-5 + (np.finfo(dtype).eps if dtype == np.float16 else 0)
    np.testing.assert_allclose(r.proposal, expected.proposal, atol=atol)


def test_no_images_or_voxels() -> None:
    for shape in ((0, 3, 4), (2, 3, 0)):
        r = losses.lagrangian_proposal(np.zeros(shape), [1, 1, 1])
        assert r.proposal.shape == shape and r.dual.shape == shape[:2] and len(r.info) == shape[0]


def test_threads_do_not_change_a_bit() -> None:
    logits, lower, upper = make((2, 3, 131, 121))
    one, two = (losses.lagrangian_proposal(logits, lower, upper, threads=n) for n in (1, 3))
    assert np.array_equal(one.proposal, two.proposal) and np.array_equal(one.dual, two.dual)


def test_its_cross_entropy_has_the_gradient_of_the_distance() -> None:
    """d/dz min KL(Q || P) = P - Q, that of the cross entropy with the constant target Q."""
    logits, lower, upper = make((1, 3, 4, 3), seed=5)

    def distance(z: Any) -> Any:
        q, p = losses.lagrangian_proposal(z, lower, upper, tol=1e-13).proposal, probabilities(z, "softmax")
        return (q * (np.log(q) - np.log(p))).sum()

    r = losses.lagrangian_proposal(logits, lower, upper, tol=1e-13)
    g = losses.cross_entropy(logits, target=r.proposal, reduction="sum").backward().scores
    np.testing.assert_allclose(g, probabilities(logits, "softmax") - r.proposal, atol=1e-12)
    np.testing.assert_allclose(g, difference_quotient(distance, logits, 1e-5), atol=1e-7)
    assert repr(r) == "ProposalResult(proposal=[1, 3, 4, 3] on cpu)"
