"""A problem for the losses, the calls of each, and their check against the formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from losses_reference import Reference, probabilities

from segprior import Status, losses

WEIGHTS = {"size": 0.01, "cross_entropy": 1.0, "focal": 0.7, "dice": -0.5, "focal_dice": 1.3}
SHAPES = [(2, 3, 31), (2, 3, 7, 11), (1, 2, 3, 5, 7), (3, 21, 33), (1, 1, 13), (2, 64, 17), (1, 2, 1, 1)]
# Of sums in another order, and of exp and log to the last bit or two.
RTOL = {np.float64: 1e-11, np.float32: 2e-5}
CALLS: dict[str, Any] = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "dice": losses.dice,
    "focal_dice": losses.focal_dice,
}


def make(
    shape: tuple[int, ...], activation: str | None = "softmax", seed: int = 0, background: bool = False
) -> dict[str, Any]:
    """Scores, labels (some not known), bounds that some classes break, mask and weights."""
    random = np.random.default_rng(seed)
    count, classes, *spatial = shape
    logits = 2 * random.normal(size=shape)
    labels = random.integers(-1, classes + background, size=(count, *spatial))
    labels[random.random(labels.shape) < 0.1] = 255
    voxels = int(np.prod(spatial))
    lower = random.uniform(0, 2 * voxels / classes, size=(count, classes))
    return {
        "scores": logits
        if activation == "softmax"
        else probabilities(logits, "softmax" if activation is None else None),
        "labels": labels,
        "activation": activation,
        "lower": lower,
        "upper": lower + random.uniform(0, voxels / classes, size=lower.shape),
        "mask": random.random((count, *spatial)) < 0.8,
        "labelled": random.random((count, *spatial)) < 0.9,
        "class_weights": random.uniform(0.5, 2, size=classes),
    }


def check(
    found: losses.LossResult, expected: Reference, weights: dict[str, float], reduction: str = "mean"
) -> None:
    rtol = RTOL[found.value.dtype.type]
    assert all(info.status == Status.CONVERGED for info in found.info)
    assert sorted(found.terms) == sorted(found.items) == sorted(weights)
    for name in weights:
        # Dice losses near 0 are differences of numbers near 1.
        np.testing.assert_allclose(
            found.items[name], expected.items[name], rtol=rtol, atol=rtol, err_msg=name
        )
        np.testing.assert_allclose(found.terms[name], expected.term(name, reduction), rtol=rtol, err_msg=name)
    np.testing.assert_allclose(found.value, expected.total(weights, reduction), rtol=rtol)
    assert found.value.shape == ()
