"""`segprior.losses` against the formulas in NumPy: every term, activation and reduction."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from conftest import Golden, golden_names
from losses_problem import CALLS, SHAPES, WEIGHTS, check, make
from losses_reference import TERMS, Reference

import segprior
from segprior import Status, losses


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_terms(shape: tuple[int, ...], activation: str | None, reduction: str) -> None:
    problem = make(shape, activation)
    scores, labels = problem.pop("scores"), problem.pop("labels")
    found = losses.combined(scores, labels, **WEIGHTS, **problem, reduction=reduction)
    check(found, Reference(scores, labels, **problem), WEIGHTS, reduction)


@pytest.mark.parametrize("name", CALLS)
def test_each_alone(name: str) -> None:
    problem = make((2, 3, 7, 5))
    scores, labels = problem["scores"], problem["labels"]
    common = {key: problem[key] for key in ("mask", "labelled", "class_weights")}
    expected = Reference(scores, labels, **common)
    assert name in TERMS
    for reduction in ("mean", "sum"):
        found = CALLS[name](scores, labels, **common, reduction=reduction)
        check(found, expected, {name: 1.0}, reduction)
    default = CALLS[name](scores, labels)
    np.testing.assert_allclose(default.value, Reference(scores, labels).term(name, "mean"), rtol=1e-12)
    apart = CALLS[name](scores, labels, **common, reduction="none")
    whole = expected.voxels[name] if name in expected.voxels else expected.items[name]
    assert apart.value.shape == whole.shape
    np.testing.assert_allclose(apart.value, whole, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(apart.terms[name], expected.term(name, "sum"), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_size_penalty(activation: str | None, reduction: str) -> None:
    problem = make((3, 4, 6, 5), activation)
    scores, common = problem["scores"], {key: problem[key] for key in ("activation", "mask", "class_weights")}
    row = problem["lower"][0]
    bounds: list[dict[str, Any]] = [
        {"lower": problem["lower"], "upper": problem["upper"]},
        {"lower": problem["lower"], "normalise": "voxels"},
        {"upper": row},
        {"lower": row.tolist(), "upper": (row + 1)[None]},
        {"lower": [0, 3, 0, 30], "upper": [np.inf, np.inf, 2, 40]},
    ]
    for given in bounds:
        as_arrays = {key: np.array(v) if isinstance(v, list) else v for key, v in given.items()}
        expected = Reference(scores, **as_arrays, **common)
        found = losses.size_penalty(scores, **given, **common, reduction=reduction)
        if reduction == "none":
            np.testing.assert_allclose(found.value, expected.items["size"], rtol=1e-11, atol=1e-12)
        else:
            check(found, expected, {"size": 1.0}, reduction)


@pytest.mark.parametrize("groups", [[0, 0, 1, 0], [3, 1, 1, 3], [2, 2, 2, 2], [3, 2, 1, 0]])
def test_groups(groups: list[int]) -> None:
    problem = make((4, 3, 6, 5))
    scores, lower, upper = problem["scores"], problem["lower"], problem["upper"]
    expected = Reference(scores, lower=lower, upper=upper, groups=groups)
    kinds = [groups, np.array(groups), np.array(groups, np.int32)]
    for given in kinds:
        found = losses.size_penalty(scores, lower, upper, groups=given)
        check(found, expected, {"size": 1.0})
    one = losses.size_penalty(scores, lower[0], groups=groups)
    check(one, Reference(scores, lower=lower[0], groups=groups), {"size": 1.0})
    # Bounds of the groups that there are.
    rows = max(groups) + 1
    few = losses.size_penalty(scores, lower[:rows], upper[:rows], groups=groups)
    assert few.value == found.value
    g, h = few.backward(), found.backward()
    assert g.lower.shape == (rows, 3) and np.array_equal(g.lower, h.lower[:rows])
    assert np.array_equal(g.scores, h.scores)


def test_wrong_groups_fail() -> None:
    problem = make((3, 2, 6, 5))
    scores, lower = problem["scores"], problem["lower"]
    good = losses.size_penalty(scores, lower, groups=[0, 1, 2]).items["size"]
    wrong: list[dict[str, Any]] = [
        {"groups": [0, 1, 3]},
        {"groups": [0, 1, -1]},
        {"groups": np.array([0, 1, 2**32])},
        # A group without a row of bounds.
        {"groups": [0, 1, 2], "lower": lower[:2]},
    ]
    for given in wrong:
        for reduction in ("mean", "sum"):
            r = losses.size_penalty(scores, **{"lower": lower, "reduction": reduction, **given})
            assert [i.status for i in r.info] == [0, 0, Status.INVALID_PARAMETER]
            assert np.isnan(r.value) and np.isnan(r.terms["size"]) and np.isnan(r.items["size"][2]).all()
            assert np.array_equal(r.items["size"][:2], good[:2])
            gradient = r.backward().scores
            assert np.isnan(gradient[2]).all() and np.isfinite(gradient[:2]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"squared": False},
        {"batch": True},
        {"smooth_nr": 0.0, "smooth_dr": 0.0},
        {"smooth_nr": 1.0, "smooth_dr": 2.0, "squared": False, "batch": True},
        {"focal_gamma": 0.0, "focal_dice_gamma": 1.0},
        {"focal_gamma": 0.5, "focal_dice_threshold": 0.4, "focal_dice_gamma": 3.0},
        {"focal_gamma": 3.7, "focal_dice_threshold": 0.0, "focal_dice_gamma": 1.5},
        {"ignore_index": 1},
        {"ignore_index": None},
        {"log_offset": 0.01, "activation": None},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    problem = make((3, 3, 6, 5), options.get("activation", "softmax"))
    scores, labels = problem["scores"], problem["labels"]
    if "ignore_index" in options:  # 255 is then a label out of range
        labels[labels == 255] = 2
    found = losses.combined(scores, labels, lower=problem["lower"], **WEIGHTS, **options)
    check(found, Reference(scores, labels, lower=problem["lower"], **options), WEIGHTS)
    gamma = options.get("focal_gamma", 2.0)
    assert (
        losses.focal(
            scores, labels, gamma=gamma, **pick(options, "activation", "ignore_index", "log_offset")
        ).value
        == (found.terms["focal"])
    )
    sharp = {
        "threshold": options.get("focal_dice_threshold", 0.5),
        "gamma": options.get("focal_dice_gamma", 2.0),
    }
    shared = pick(options, "activation", "ignore_index", "squared", "batch", "smooth_nr", "smooth_dr")
    assert losses.focal_dice(scores, labels, **sharp, **shared).value == found.terms["focal_dice"]
    assert losses.dice(scores, labels, **shared).value == found.terms["dice"]


def pick(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def test_weights_per_term() -> None:
    problem = make((2, 3, 6, 5))
    scores, labels, lower = problem["scores"], problem["labels"], problem["lower"]
    rows = np.random.default_rng(3).uniform(0.5, 2, size=(5, 3))
    rows[1, 2] = 0
    found = losses.combined(scores, labels, **WEIGHTS, lower=lower, class_weights=rows)
    for k, name in enumerate(TERMS):
        expected = Reference(scores, labels, lower=lower, class_weights=rows[k])
        np.testing.assert_allclose(found.terms[name], expected.term(name), rtol=1e-12, err_msg=name)
    assert found.backward().class_weights.shape == (5, 3)


def test_failed_images_leave_the_others_alone() -> None:
    problem = make((5, 3, 6, 5))
    scores, labels = problem["scores"], np.abs(problem["labels"]) % 3
    lower, upper = problem["lower"], problem["upper"]
    good = losses.combined(scores, labels, **WEIGHTS, lower=lower, upper=upper, reduction="sum")
    scores[0, 1, 2, 3] = np.nan
    labels[1, 2, 3] = 3
    lower[3, 1] = upper[3, 1] + 1
    r = losses.combined(scores, labels, **WEIGHTS, lower=lower, upper=upper, reduction="sum")
    wrong, ok = Status.INVALID_PARAMETER, Status.CONVERGED
    assert r.info.status == [Status.NONFINITE_INPUT, wrong, ok, wrong, ok]
    assert np.isnan(r.value)
    gradient, before = r.backward().scores, good.backward().scores
    for b, status in enumerate(r.info.status):
        same = np.array_equal(r.items["dice"][b], good.items["dice"][b])
        same = same and np.array_equal(gradient[b], before[b])
        assert same if status == ok else np.isnan(gradient[b]).all() and np.isnan(r.items["dice"][b]).all()


def test_what_a_term_of_weight_0_leaves_unread() -> None:
    problem = make((2, 3, 6, 5))
    scores, labels = problem["scores"], problem["labels"]
    alone = losses.combined(scores, labels, dice=1.0)
    wrong: dict[str, Any] = {"lower": [np.nan, 1, 2], "upper": [0.0, 0, 0], "groups": [7, -1]}
    r = losses.combined(scores, labels, dice=1.0, size=0, **wrong)
    assert r.value == alone.value and r.info.status == [Status.CONVERGED] * 2
    gradient = r.backward()
    assert (gradient.lower == 0).all() and (gradient.upper == 0).all()
    bounds = losses.combined(scores, size=1.0, lower=problem["lower"])
    for given in (np.full((2, 6, 5), 77), np.full((2, 6, 5), -3)):
        r = losses.combined(scores, given, size=1.0, lower=problem["lower"])
        assert r.value == bounds.value and r.info.status == [Status.CONVERGED] * 2


def test_size_penalty_of_16_bits() -> None:
    """The gradient overflows where a size is far off, as the documentation says; not per voxel."""
    scores = np.zeros((1, 2, 512, 512), np.float16)
    plain, scaled = (
        losses.size_penalty(scores, upper=[1.0, np.inf], normalise=n, reduction="sum").backward().scores
        for n in (None, "voxels")
    )
    assert not np.isfinite(plain).any() and np.isfinite(scaled).all() and (scaled[:, 0] > 0).all()


def test_extreme_logits() -> None:
    scores = np.zeros((1, 2, 4), np.float32)
    scores[0, 0] = [1e4, -1e4, 1e30, -1e30]
    labels = np.zeros((1, 4), np.uint8)
    r = losses.cross_entropy(scores, labels, reduction="none")
    np.testing.assert_allclose(r.value[0], [0, 1e4, 0, 1e30], rtol=1e-6)
    assert np.isfinite(r.backward(np.ones_like(r.value)).scores).all()
    # A probability of 0 is no infinite loss.
    p = losses.cross_entropy(np.eye(2)[None], np.array([[1, 1]]), activation=None, reduction="none")
    np.testing.assert_allclose(p.value, [[-np.log(1e-10), 0]], atol=1e-9)


def test_threads_do_not_change_a_bit() -> None:
    problem = make((2, 3, 131, 121))
    scores, labels = problem["scores"].astype(np.float32), problem["labels"]
    found = [losses.combined(scores, labels, **WEIGHTS, lower=[5.0, 6, 7], threads=n) for n in (1, 2, 3)]
    for r in found[1:]:
        assert r.value == found[0].value
        assert np.array_equal(r.backward().scores, found[0].backward().scores)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", golden_names("loss"))
def test_golden(name: str, dtype: Any) -> None:
    """`loss` is the sum over images and classes, without smoothing."""
    case = Golden(name)
    logits = case["logits"].astype(dtype)
    term = TERMS[int(case.number("term") or 0)]
    labels = None if case["labels"] is None else case["labels"].astype(np.int32)
    target = None if case["target"] is None else case["target"].astype(dtype)
    arguments: dict[str, Any] = {"smooth_nr": 0.0, "smooth_dr": 0.0, term: 1.0}
    if term == "size":
        arguments.update({name: case[name].astype(dtype) for name in ("lower", "upper")})
    if term == "focal_dice":
        arguments["focal_dice_threshold"] = case.number("threshold")
        arguments["focal_dice_gamma"] = case.number("gamma")
    # Goldens have one of the two where they could have both.
    labels = None if target is not None else labels
    r = losses.combined(logits, labels, target=target, reduction="sum", **arguments)
    # Of the largest: 56 voxels with sums in another order.
    rtol = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(r.value, case["loss"].reshape(()), rtol=rtol)
    gradient, expected = r.backward().scores, case["grad_logits"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=rtol * max(1.0, np.abs(expected).max()))
    if dtype == np.float64:
        again = losses.combined(
            case["prob"], labels, target=target, reduction="sum", activation=None, log_offset=0.0, **arguments
        )
        np.testing.assert_allclose(again.value, case["loss"].reshape(()), rtol=1e-12)


def test_golden_vectors_are_there() -> None:
    assert len(golden_names("loss")) >= 5


def test_size_bounds() -> None:
    volumes = np.array([[10, 0, 90], [40, 20, 40], [100, 0, 0]])
    tags = losses.size_bounds(volumes, "tags", voxels=100)
    there = volumes > 0
    assert np.array_equal(tags.lower, there) and np.array_equal(tags.upper, 100 * there)
    assert tags.lower.dtype == np.float32
    lower, upper = losses.size_bounds(volumes, "common", dtype="float64")
    np.testing.assert_allclose(lower, 0.9 * there * [10, 20, 40], rtol=1e-15)
    np.testing.assert_allclose(upper, 1.1 * there * [100, 20, 90], rtol=1e-15)
    lower, upper = losses.size_bounds(volumes, "individual", factors=(0.5, 2), dtype="float64")
    assert np.array_equal(lower, 0.5 * volumes) and np.array_equal(upper, 2.0 * volumes)
    assert losses.size_bounds(np.zeros((0, 3), np.int64), "common").lower.shape == (0, 3)


def test_docstring_example() -> None:
    failed, tried = doctest.testmod(losses)
    assert tried > 0 and failed == 0


def test_names() -> None:
    assert segprior.losses is losses and segprior.metrics
    r = losses.dice(np.zeros((1, 2, 3)), np.zeros((1, 3), np.uint8))
    assert repr(r) == "LossResult(dice of scores [1, 2, 3] on cpu)"
    assert repr(r.backward()) == "LossGradients(scores)"
