"""`segprior.torch.losses` is `segprior.losses` to the bit, values and gradients, for tensors of all kinds."""

from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from losses_cases import CALLS, PARAMETERS, WEIGHTS, arguments_of, leaves, make, with_grad

import segprior
from segprior.torch import losses

ACTIVATIONS = ["softmax", "sigmoid", None]


def check(name: str, arguments: dict[str, Any]) -> None:
    """Value and gradients of the torch function against those of the NumPy-like one."""
    function, expected, _ = CALLS[name]
    own = with_grad(arguments)
    found = function(**own)
    result = expected(**arguments)
    assert found.isfinite().all()
    assert torch.equal(found.detach(), result.value)
    per_voxel = arguments.get("reduction") == "none" and found.dim() == arguments["scores"].dim() - 1
    if per_voxel:  # no gradient of class_weights
        own["class_weights"] = own["class_weights"].detach()
        found = function(**own)
    grad = torch.rand(found.shape, dtype=found.dtype)
    gradients = torch.autograd.grad(found, tuple(leaves(own).values()), grad)
    g = result.backward(grad)
    for key, gradient in zip(leaves(own), gradients):
        assert torch.equal(gradient, getattr(g, key)), key


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", CALLS)
def test_bits(name: str, activation: Optional[str]) -> None:
    check(name, arguments_of(name, make(activation=activation)))


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("name", [name for name in CALLS if name != "combined"])
def test_reductions(name: str, reduction: str) -> None:
    check(name, arguments_of(name, make()) | {"reduction": reduction})


@pytest.mark.parametrize("shape", [(3, 2, 17), (1, 4, 3, 5, 2), (2, 1, 4, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    check("combined", arguments_of("combined", make(shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    check("combined", arguments_of("combined", make(dtype=dtype)) | {"normalise": "voxels"})


def test_options() -> None:
    problem = make(activation="sigmoid")
    options = {"squared": False, "smooth_nr": 0.5, "smooth_dr": 0.25, "batch": True}
    check("dice", arguments_of("dice", problem) | options | {"background": True})
    check("focal_dice", arguments_of("focal_dice", problem) | options | {"threshold": 0.4, "gamma": 3})
    labels = problem["labels"].where(problem["labels"] < 3, 1)
    check("focal", arguments_of("focal", problem) | {"gamma": 0.5, "ignore_index": 1, "labels": labels})
    check("focal", arguments_of("focal", make(activation=None)) | {"log_offset": 0.1})
    more = {"focal_gamma": 1.5, "focal_dice_gamma": 1.5, "focal_dice_threshold": 0.3, "reduction": "sum"}
    check("combined", arguments_of("combined", problem) | options | more)
    rows = torch.rand(5, 3, dtype=torch.float64)
    check("combined", arguments_of("combined", problem) | {"class_weights": rows})


@pytest.mark.parametrize("rows", [None, 1, 2, 3])
def test_bounds_and_groups(rows: Optional[int]) -> None:
    problem = make((3, 3, 7, 5))
    bounds = {key: problem[key][0] if rows is None else problem[key][:rows] for key in ("lower", "upper")}
    arguments = arguments_of("size_penalty", problem) | bounds
    check("size_penalty", arguments | {"groups": torch.tensor([1, 0, 1])})
    if rows != 2:
        check("size_penalty", arguments)


def test_group_without_bounds() -> None:
    """An image of a group that has no row in the bounds fails, and its group with it; the others do not."""
    problem = make((3, 3, 7, 5))
    scores = problem["scores"].requires_grad_()
    found = losses.size_penalty(scores, problem["lower"][:2], groups=[2, 0, 0], reduction="none")
    assert found[0].isfinite().all() and found[2].isnan().all()
    found[0].sum().backward()
    assert scores.grad is not None and scores.grad[1:].isfinite().all()


def test_numbers_in_place_of_tensors() -> None:
    problem = make()
    numbers = {"lower": [5, 0, 3], "upper": [9.0, float("inf"), 4.0], "groups": [1, 0]}
    own = arguments_of("combined", problem) | numbers | {"class_weights": (1, 2.0, 0.5)}
    assert torch.equal(losses.combined(**own), segprior.losses.combined(**own).value)


def test_targets() -> None:
    problem = make()
    soft = problem["scores"].softmax(1)
    classes = problem["labels"].clamp(max=2)
    one_hot = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1)
    scores = problem["scores"].requires_grad_()
    assert torch.equal(
        losses.dice(scores, target=soft.detach()),
        segprior.losses.dice(scores.detach(), target=soft.detach()).value,
    )
    expected = segprior.losses.focal(scores.detach(), classes).value
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.float32, torch.float16, torch.float64):
        found = losses.focal(scores, target=one_hot.to(dtype))
        torch.testing.assert_close(found, expected, check_dtype=True)
    for target in (
        classes[:, None],
        classes.to(torch.int8),
        classes.to(torch.int16),
        classes.to(torch.int32),
    ):
        assert torch.equal(losses.focal(scores, target), expected)


def test_layouts() -> None:
    problem = make((2, 4, 6, 5))
    expected = with_grad(arguments_of("combined", problem))
    losses.combined(**expected).backward()

    def strided(value: torch.Tensor) -> torch.Tensor:
        wide = value.new_zeros([2 * extent for extent in value.shape])
        view = wide[tuple([slice(None, None, 2)] * value.dim())]
        view.copy_(value)
        return view

    for change in (strided, lambda t: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t):
        own = with_grad(arguments_of("combined", problem))
        given = {k: change(v) if isinstance(v, torch.Tensor) else v for k, v in own.items()}
        found = losses.combined(**given)
        found.backward()
        for key, leaf in leaves(own).items():
            assert torch.equal(leaf.grad, expected[key].grad), key  # type: ignore[arg-type]


def test_expanded() -> None:
    problem = make((1, 3, 5, 4))
    image, labels = problem["scores"].clone().requires_grad_(), problem["labels"].expand(3, 5, 4)
    losses.cross_entropy(image.expand(3, 3, 5, 4), labels, reduction="none").sum().backward()
    alone = image.detach().clone().requires_grad_()
    losses.cross_entropy(alone, problem["labels"], reduction="sum").backward()
    torch.testing.assert_close(image.grad, 3 * alone.grad)


def test_empty() -> None:
    for shape in ((0, 3, 5, 4), (2, 3, 0, 4)):
        own = with_grad({k: v for k, v in make((2, 3, 5, 4)).items() if k in PARAMETERS})
        scores = torch.zeros(shape, requires_grad=True, dtype=torch.float64)
        labels = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)
        bounds = {key: own[key][: shape[0]] for key in ("lower", "upper")}
        found = losses.combined(scores, labels, **WEIGHTS, **bounds, class_weights=own["class_weights"])
        found.backward()
        assert found.item() == 0 and scores.grad is not None and scores.grad.shape == shape
        assert all((leaf.grad == 0).all() for leaf in own.values())
        assert losses.focal(scores, labels, reduction="none").shape == labels.shape


def test_terms() -> None:
    arguments = arguments_of("combined", make())
    own = with_grad(arguments)
    found, expected = losses.combined_with_terms(**own), segprior.losses.combined(**arguments)
    for term, k in losses.TERMS.items():
        assert torch.equal(found.terms[k], expected.terms[term])
        assert torch.equal(found.items[k], expected.items[term])
    assert found.status.tolist() == [segprior.Status.CONVERGED] * 2
    weights = torch.tensor(list(WEIGHTS.values()), dtype=torch.float64, requires_grad=True)
    total = (weights * found.terms).sum()
    torch.testing.assert_close(total, found.value)
    same = torch.autograd.grad(total, own["scores"], retain_graph=True)[0]
    torch.testing.assert_close(same, torch.autograd.grad(found.value, own["scores"])[0])
    off = losses.combined_with_terms(arguments["scores"], arguments["labels"], dice=1.0)
    assert (off.terms != 0).tolist() == [term == "dice" for term in losses.TERMS]


def test_failed_image() -> None:
    problem = make()
    scores = problem["scores"].clone()
    scores[1, 0, 0, 0] = torch.nan
    scores.requires_grad_()
    found = losses.combined_with_terms(scores, problem["labels"], cross_entropy=1.0)
    found.value.backward()
    assert found.value.isnan() and scores.grad is not None
    assert found.status.tolist() == [segprior.Status.CONVERGED, segprior.Status.NONFINITE_INPUT]
    assert scores.grad[0].isfinite().all() and scores.grad[1].isnan().all()
