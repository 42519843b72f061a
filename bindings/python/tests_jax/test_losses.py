"""The losses: the same numbers as `segprior.losses`, bit for bit, forward and backward; golden vectors."""

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
from segprior import losses as numpy_losses
from segprior.jax import losses

NAMES = ("cross_entropy", "partial_cross_entropy", "focal", "dice", "focal_dice", "size_penalty")
TERMS = ("size", "cross_entropy", "focal", "dice", "focal_dice")


def problem(dtype: Any = np.float64) -> tuple[Any, Any, dict[str, Any]]:
    """Scores, labels, and what all losses take."""
    random = np.random.default_rng(9)
    scores = random.normal(size=(2, 3, 5, 6)).astype(dtype)
    labels = random.integers(0, 3, (2, 5, 6)).astype(np.uint8)
    labels[0, 0] = 255
    weights = random.uniform(0.5, 2, 3).astype(np.float64 if dtype == np.float64 else np.float32)
    mask = (random.uniform(size=(5, 6)) < 0.9).astype(np.uint8)
    return scores, labels, {"class_weights": weights, "mask": mask}


def call(module: Any, name: str, scores: Any, labels: Any, **more: Any) -> Any:
    if name == "size_penalty":
        return module.size_penalty(scores, [9.0, 0.0, 3.0], [[11.0, 2.0, 4.0]], **more)
    return getattr(module, name)(scores, labels, **more)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_same_as_numpy(name: str, reduction: str, dtype: Any) -> None:
    scores, labels, more = problem(dtype)
    more["reduction"] = reduction
    if dtype in (np.float16, ml_dtypes.bfloat16):
        more.pop("class_weights")
    result = call(numpy_losses, name, scores, labels, **more)
    weights = {"class_weights": more.pop("class_weights")} if "class_weights" in more else {}
    if reduction == "none" and name in NAMES[:3]:
        more.update(weights)  # no gradient
        weights = {}
    found, pull = jax.vjp(
        lambda s, w: call(losses, name, s, labels, **more, **w), jnp.asarray(scores), weights
    )
    same(found, result.value)
    grad = np.random.default_rng(0).normal(size=found.shape).astype(found.dtype)
    expected = result.backward(grad, ["scores", *weights])
    scores_gradient, weights_gradient = pull(jnp.asarray(grad))
    same(scores_gradient, expected.scores)
    for key, gradient in weights_gradient.items():
        same(gradient, getattr(expected, key))


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_activations(activation: str | None) -> None:
    scores, labels, more = problem()
    if activation is None:
        scores = np.asarray(jax.nn.softmax(scores, 1))
    weights = {name: 0.5 for name in TERMS}
    bounds = {"lower": [9.0, 0.0, 3.0]}
    given = {"activation": activation, "reduction": "sum", **bounds, **weights, **more}
    result = numpy_losses.combined(scores, labels, **given)
    value, gradient = jax.value_and_grad(losses.combined)(scores, labels, **given)
    same(value, result.value)
    same(gradient, result.backward().scores)


def test_targets_and_labelled() -> None:
    scores, labels, _ = problem()
    random = np.random.default_rng(1)
    target = random.dirichlet(np.ones(3), (2, 5, 6)).transpose(0, 3, 1, 2).copy()
    labelled = random.uniform(size=(2, 5, 6)) < 0.5
    given = {"target": target, "labelled": labelled}
    same(losses.cross_entropy(scores, **given), numpy_losses.cross_entropy(scores, **given).value)
    gradient = jax.grad(lambda t: losses.cross_entropy(scores, target=t))(jnp.asarray(target))
    assert not np.any(gradient)  # a constant, as documented
    ints = labels.astype(np.int32)[:, None]
    same(losses.dice(scores, ints), numpy_losses.dice(scores, ints).value)


@pytest.mark.parametrize("groups", [None, [0, 0], [1, 0]])
@pytest.mark.parametrize("rows", [1, 2])
def test_bounds(rows: int, groups: Any) -> None:
    scores, _, _ = problem()
    random = np.random.default_rng(2)
    lower = random.uniform(5, 14, (rows, 3))
    upper = lower + 0.5
    groups = groups if groups is None else np.array(groups)
    given = {"groups": groups, "normalise": "voxels"}
    result = numpy_losses.size_penalty(scores, lower, upper, **given)
    found, gradients = jax.value_and_grad(losses.size_penalty, (0, 1, 2))(scores, lower, upper, **given)
    same(found, result.value)
    expected = result.backward()
    for gradient, right in zip(gradients, (expected.scores, expected.lower, expected.upper)):
        same(gradient, right)


def test_bounds_of_fewer_groups_than_images() -> None:
    random = np.random.default_rng(3)
    scores, lower = random.normal(size=(4, 3, 5, 6)), random.uniform(5, 14, (2, 3))
    groups = np.array([0, 1, 0, 1])
    result = numpy_losses.size_penalty(scores, lower, groups=groups)
    found, gradient = jax.value_and_grad(lambda b: losses.size_penalty(scores, b, groups=groups))(
        jnp.asarray(lower)
    )
    same(found, result.value)
    same(gradient, result.backward().lower)


@pytest.mark.parametrize("name", NAMES)
def test_difference_quotients(name: str) -> None:
    scores, labels, more = problem()
    weights = more.pop("class_weights")
    check_grads(
        lambda s, w: call(losses, name, s, labels, class_weights=w, **more),
        (scores, weights),
        order=1,
        modes=["rev"],
        atol=1e-6,
        rtol=1e-6,
    )


def test_empty() -> None:
    value, gradient = jax.value_and_grad(losses.dice)(jnp.zeros((0, 3, 4)), np.zeros((0, 4), np.uint8))
    assert value == 0 and gradient.shape == (0, 3, 4)


@pytest.mark.parametrize("name", golden_names("loss"))
def test_golden(name: str) -> None:
    """50 epsilons, as for the softmax."""
    case = Golden(name)
    term = TERMS[int(case.number("term"))]
    labels, target = case["labels"], case["target"]
    given: dict[str, Any] = {term: 1.0, "reduction": "sum", "smooth_nr": 0.0, "smooth_dr": 0.0}
    given["labels"] = None if labels is None else labels.astype(np.int64)
    given.update(target=target, lower=case["lower"], upper=case["upper"])
    if "threshold" in case.words:
        given.update(focal_dice_threshold=case.number("threshold"), focal_dice_gamma=case.number("gamma"))
    elif "gamma" in case.words:
        given["focal_gamma"] = case.number("gamma")
    value, gradient = jax.value_and_grad(losses.combined)(case["logits"], **given)
    tolerance = 50 * np.finfo(np.float64).eps
    assert abs(value - case["loss"][0]) <= tolerance * max(1, abs(case["loss"][0]))
    right = case["grad_logits"]
    assert np.abs(gradient - right).max() <= 8 * tolerance * max(1, np.abs(right).max())


def test_gradient_that_does_not_exist() -> None:
    scores, labels, more = problem()

    def value(w: Any) -> Any:
        return jnp.sum(losses.focal(scores, labels, class_weights=w, reduction="none"))

    with pytest.raises(segprior.NotSupportedError, match="class_weights"):
        jax.grad(value)(jnp.asarray(more["class_weights"]))
