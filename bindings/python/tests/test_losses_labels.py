"""`segprior.losses`: labels of every kind, unknown ones and masks, and what a mean then divides by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from losses_problem import CALLS, SHAPES, WEIGHTS, check, make
from losses_reference import Reference, one_hot, probabilities

from segprior import Status, losses


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
@pytest.mark.parametrize("channel", [False, True])
def test_label_dtypes(dtype: Any, channel: bool) -> None:
    scores = np.random.default_rng(1).normal(size=(2, 2, 6, 5)).astype(np.float32)
    labels = (np.arange(60).reshape(2, 6, 5) % 7 < 3).astype(dtype)
    weights = {"cross_entropy": 1.0, "dice": 1.0}
    given = labels[:, None] if channel else labels  # as MONAI has it
    found = losses.combined(scores, given, **weights)
    check(found, Reference(scores.astype(np.float64), labels.astype(int)), weights)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_background(shape: tuple[int, ...], reduction: str) -> None:
    """Independent classes without a channel for label 0: the targets are those of the labels less 1."""
    problem = make(shape, "sigmoid", background=True)
    scores, labels = problem.pop("scores"), problem.pop("labels")
    found = losses.combined(scores, labels, background=True, **WEIGHTS, **problem, reduction=reduction)
    check(found, Reference(scores, labels, background=True, **problem), WEIGHTS, reduction)
    known = problem.pop("labelled") & (labels >= 0) & (labels != 255)
    target = one_hot(labels, shape[1], background=True)
    same = losses.combined(scores, target=target, labelled=known, **WEIGHTS, **problem, reduction=reduction)
    np.testing.assert_allclose(same.value, found.value, rtol=1e-13)
    np.testing.assert_allclose(same.backward().scores, found.backward().scores, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_targets(activation: str | None) -> None:
    problem = make((2, 3, 6, 5), activation)
    scores, labels = problem["scores"], np.abs(problem["labels"]) % 3
    weights = {name: weight for name, weight in WEIGHTS.items() if name != "size"}
    soft = probabilities(np.random.default_rng(2).normal(size=scores.shape), "softmax")
    found = losses.combined(scores, target=soft, **weights, activation=activation)
    check(found, Reference(scores, target=soft, activation=activation), weights)
    hard = one_hot(labels, 3)
    known = losses.combined(scores, labels, **weights, activation=activation)
    for target in (hard, hard.astype(np.uint8), hard.astype(bool)):
        same = losses.combined(scores, target=target, **weights, activation=activation)
        np.testing.assert_allclose(same.value, known.value, rtol=1e-13)
        np.testing.assert_allclose(same.backward().scores, known.backward().scores, rtol=1e-11, atol=1e-14)


def test_wrong_targets_fail() -> None:
    scores = np.random.default_rng(10).normal(size=(2, 3, 6, 5))
    hard = one_hot(np.random.default_rng(11).integers(0, 3, size=(2, 6, 5)), 3)
    mask = np.ones((2, 6, 5), bool)
    mask[1, 2, 3] = False
    for wrong in (np.uint8(2), -0.5, np.nan, np.inf):
        target = hard.astype(np.asarray(wrong).dtype)
        target[1, 0, 2, 3] = wrong
        r = losses.combined(scores, target=target, cross_entropy=1.0, dice=1.0)
        assert r.info.status == [Status.CONVERGED, Status.INVALID_PARAMETER]
        assert np.isnan(r.value) and np.isnan(r.backward().scores[1]).all()
        hidden = losses.combined(scores, target=target, cross_entropy=1.0, dice=1.0, mask=mask)
        assert hidden.info.status == [Status.CONVERGED] * 2 and np.isfinite(hidden.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
@pytest.mark.parametrize("name", CALLS)
def test_a_binary_network(name: str, dtype: Any) -> None:
    """One channel; label 1 is its class. Without `background` label 0 would be, and 1 out of range."""
    random = np.random.default_rng(9)
    scores, labels = random.normal(size=(2, 1, 6, 5)), random.integers(0, 2, size=(2, 6, 5)).astype(dtype)
    given: dict[str, Any] = {"activation": "sigmoid", "background": True}
    found = CALLS[name](scores, labels, **given)
    check(found, Reference(scores, labels.astype(int), **given), {name: 1.0})
    target = labels.astype(np.uint8)[:, None]
    assert CALLS[name](scores, target=target, activation="sigmoid").value == found.value
    r = CALLS[name](scores, labels, activation="sigmoid")
    assert r.info.status == [Status.INVALID_PARAMETER] * 2 and np.isnan(r.value)
    outside = labels.astype(int)
    outside[1, 2, 3] = 2
    r = CALLS[name](scores, outside, **given)
    assert r.info.status == [Status.CONVERGED, Status.INVALID_PARAMETER]


def test_partial_cross_entropy() -> None:
    problem = make((2, 3, 7, 5))
    scores, labels = problem["scores"], problem["labels"]
    labels[:, 2:] = -1
    expected = Reference(scores, labels)
    np.testing.assert_allclose(
        losses.partial_cross_entropy(scores, labels).value, expected.term("cross_entropy", "sum"), rtol=1e-12
    )
    mean = losses.partial_cross_entropy(scores, labels, reduction="mean")
    assert mean.value == losses.cross_entropy(scores, labels).value
    unknown = losses.partial_cross_entropy(scores, labels, reduction="none").value
    assert (unknown[:, 2:] == 0).all() and (unknown[:, :2] != 0).any()


@pytest.mark.parametrize("mask_axes", ["spatial", "shared", "each", "channel"])
def test_masks_hide_everything(mask_axes: str) -> None:
    problem = make((2, 3, 7, 5))
    scores, labels, lower = problem["scores"], np.abs(problem["labels"]) % 3, problem["lower"]
    mask = problem["mask"][:1] if mask_axes in ("spatial", "shared") else problem["mask"]
    hidden = np.broadcast_to(~mask, labels.shape)
    expected = Reference(scores, labels, lower=lower, mask=mask)
    scores[np.broadcast_to(hidden[:, None], scores.shape)] = np.nan
    labels[hidden] = 77
    given = {"spatial": mask[0], "channel": mask[:, None]}.get(mask_axes, mask)
    found = losses.combined(scores, labels, **WEIGHTS, lower=lower, mask=given)
    check(found, expected, WEIGHTS)
    gradient = found.backward().scores
    assert (gradient[np.broadcast_to(hidden[:, None], scores.shape)] == 0).all() and np.isfinite(
        gradient
    ).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_to_learn_from(reduction: str) -> None:
    """Nothing known, all masked, absent classes, no voxels, no images: losses and gradients without NaN."""
    scores = np.random.default_rng(4).normal(size=(2, 3, 6, 5))
    weights = {name: weight for name, weight in WEIGHTS.items() if name != "size"}
    unknown = np.full((2, 6, 5), 255, np.uint8)
    zeros = np.zeros((2, 6, 5), np.uint8)
    for labels, more in ((unknown, {}), (zeros, {"mask": zeros}), (zeros, {"labelled": zeros})):
        r = losses.combined(scores, labels, **weights, reduction=reduction, **more)
        # The smoothing is all there is: fractions of 1.
        assert abs(r.value) < 1e-12 and (r.backward().scores == 0).all()
    absent = losses.combined(scores, zeros, **weights, reduction=reduction)
    check(absent, Reference(scores, zeros), weights, reduction)
    assert np.isfinite(absent.backward().scores).all()
    for shape in ((0, 3, 6, 5), (2, 3, 0, 5)):
        r = losses.combined(
            np.zeros(shape),
            np.zeros((shape[0], *shape[2:]), int),
            **WEIGHTS,
            lower=[1.0, 2, 3],
            reduction=reduction,
        )
        assert r.value.shape == () and r.value == 0 and r.items["dice"].shape == shape[:2]
        g = r.backward()
        assert g.scores.shape == shape and (g.lower == 0).all() and g.lower.shape == (3,)
        assert len(r.info) == shape[0]


@pytest.mark.parametrize("call", [losses.cross_entropy, losses.partial_cross_entropy, losses.focal])
def test_label_255_is_a_class_of_256(call: Any) -> None:
    random = np.random.default_rng(6)
    scores = random.normal(size=(2, 256, 9))
    labels = random.integers(250, 256, size=(2, 9)).astype(np.uint8)
    rows = {"ignore_index": None}
    assert (labels == 255).any()
    for given in (labels, labels.astype(np.int64)):
        found = call(scores, given)
        assert found.value == call(scores, given, **rows).value
        known = call(scores, given, ignore_index=255)
        assert (
            known.value
            == call(scores, np.where(given == 255, -1, given.astype(int)), **rows).value
            != found.value
        )
    # It is one of 255 classes and a background.
    few: dict[str, Any] = {"activation": "sigmoid", "background": True}
    binary = call(scores[:, :255].copy(), labels, **few)
    assert binary.value == call(scores[:, :255].copy(), labels, **few, ignore_index=None).value
    assert binary.value != call(scores[:, :255].copy(), labels, **few, ignore_index=255).value
    # With fewer classes it is none.
    fewer = call(scores[:, :255].copy(), labels)
    assert fewer.value == call(scores[:, :255].copy(), labels, ignore_index=255).value
    assert fewer.info.status == [Status.CONVERGED] * 2


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", ["dice", "focal_dice"])
def test_images_without_labels_do_not_count_in_dice(name: str, batch: bool) -> None:
    problem = make((4, 3, 6, 5))
    scores, labels = problem["scores"], problem["labels"]
    labels[1], labels[3, 1:] = -1, 255
    mask = np.ones(labels.shape, bool)
    mask[3, 0] = False
    for smooth in ({}, {"smooth_nr": 0.0}, {"smooth_nr": 2.0, "smooth_dr": 1.0}):
        r = CALLS[name](scores, labels, mask=mask, batch=batch, **smooth)
        check(r, Reference(scores, labels, mask=mask, batch=batch, **smooth), {name: 1.0})
        assert (r.items[name][[1, 3]] == 0).all() and (r.backward().scores[[1, 3]] == 0).all()
        if not batch:
            half = CALLS[name](scores[::2].copy(), labels[::2].copy(), mask=mask[::2].copy(), **smooth)
            np.testing.assert_allclose(r.value, half.value, rtol=1e-14)


def test_what_means_divide_by() -> None:
    """As the head of the module says it, where torch and MONAI differ."""
    random = np.random.default_rng(8)
    scores = random.normal(size=(2, 3, 5, 4))
    soft = probabilities(random.normal(size=scores.shape), "softmax") * random.random((2, 1, 5, 4))
    weights = np.array([0.5, 2, 3])
    given: dict[str, Any] = {"target": soft, "class_weights": weights}
    weight = (soft * weights[:, None, None]).sum()
    for name in ("cross_entropy", "focal"):
        total = CALLS[name](scores, **given, reduction="sum").value
        np.testing.assert_allclose(CALLS[name](scores, **given).value, total / weight, rtol=1e-13)
    unknown = np.full((2, 5, 4), 255, np.uint8)
    assert all(call(scores, unknown).value == 0 for call in CALLS.values())
    assert losses.cross_entropy(scores, unknown).info.status == [Status.CONVERGED] * 2
