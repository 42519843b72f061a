"""Wrong arguments of `segprior.torch.losses`: the error names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from losses_cases import make

from segprior import InvalidTypeError, InvalidValueError, NotSupportedError, SegpriorError
from segprior.torch import losses

SCORES, LABELS = torch.zeros(2, 3, 5, 4), torch.zeros(2, 5, 4, dtype=torch.int64)
GOOD: dict[str, Any] = {"scores": SCORES, "labels": LABELS, "cross_entropy": 1.0}
WRONG: list[tuple[dict[str, Any], type[SegpriorError], str]] = [
    ({"scores": np.zeros((2, 3, 5))}, InvalidTypeError, r"scores is ndarray; it must be a torch.Tensor"),
    ({"scores": SCORES[0, 0]}, InvalidValueError, r"scores has shape \[5, 4\]"),
    ({"scores": SCORES.to(torch.int32)}, InvalidTypeError, r"scores.*int32"),
    ({"scores": SCORES.to(torch.complex64)}, InvalidTypeError, r"scores has dtype torch.complex64"),
    ({"labels": None}, InvalidValueError, r"labels and target are both None"),
    ({"target": SCORES}, InvalidValueError, r"labels and target are both given"),
    ({"labels": LABELS.numpy()}, InvalidTypeError, r"labels is ndarray"),
    ({"labels": LABELS.float()}, InvalidTypeError, r"labels.*float32"),
    ({"labels": LABELS[:, :3]}, InvalidValueError, r"labels.*3"),
    ({"labels": None, "target": SCORES.double()}, InvalidTypeError, r"target.*float64"),
    ({"labels": None, "target": SCORES[:, :2]}, InvalidValueError, r"target"),
    ({"mask": LABELS[0]}, InvalidTypeError, r"mask.*int64"),
    ({"mask": LABELS[:, :3].bool()}, InvalidValueError, r"mask has shape \[2, 3, 4\]"),
    ({"labelled": [1, 2]}, InvalidTypeError, r"labelled is list"),
    ({"class_weights": [1.0, 2.0]}, InvalidValueError, r"class_weights has shape \[2\]; it must be \[3\]"),
    ({"class_weights": "abc"}, InvalidTypeError, r"class_weights is 'abc'"),
    ({"class_weights": LABELS[0, 0, :3]}, InvalidTypeError, r"class_weights has dtype torch.int64"),
    (
        {"size": 1.0, "lower": [torch.ones((), requires_grad=True), 2.0, 3.0]},
        NotSupportedError,
        r"lower is a sequence of tensors that require grad",
    ),
    ({"size": 1.0}, InvalidValueError, r"lower and upper are both None"),
    ({"size": 1.0, "lower": [1.0, 2.0]}, InvalidValueError, r"lower has shape \[2\]"),
    ({"size": 1.0, "lower": torch.zeros(3, 3)}, InvalidValueError, r"lower has shape \[3, 3\]"),
    ({"size": 1.0, "upper": torch.zeros(3, 3), "groups": [0, 1]}, InvalidValueError, r"upper.*G groups"),
    ({"groups": torch.zeros(2)}, InvalidTypeError, r"groups has dtype torch.float32"),
    ({"groups": [0, 1, 2]}, InvalidValueError, r"groups"),
    ({"normalise": "volume"}, InvalidValueError, r"normalise is 'volume'"),
    ({"cross_entropy": 0}, InvalidValueError, r"are all 0"),
    ({"dice": float("nan")}, InvalidValueError, r"dice = nan; it must be finite"),
    ({"dice": "1"}, InvalidTypeError, r"dice is '1'"),
    (
        {"dice": torch.ones((), requires_grad=True)},
        InvalidTypeError,
        r"dice is a tensor; it must be a number",
    ),
    ({"activation": "tanh"}, InvalidValueError, r"activation is 'tanh'"),
    ({"reduction": "none"}, InvalidValueError, r"reduction is 'none'"),
    ({"reduction": "max"}, InvalidValueError, r"reduction is 'max'"),
    ({"ignore_index": 2.5}, InvalidValueError, r"ignore_index = 2.5"),
    ({"background": True}, InvalidValueError, r"background is True"),
    ({"background": 1.0}, InvalidTypeError, r"background is 1.0"),
    ({"squared": [True]}, InvalidTypeError, r"squared is \[True\]"),
    ({"batch": 1.0}, InvalidTypeError, r"batch is 1.0"),
    ({"smooth_nr": -1}, InvalidValueError, r"smooth_nr = -1.0; it must be >= 0"),
    ({"focal_gamma": -1}, InvalidValueError, r"focal_gamma = -1.0"),
    ({"focal_dice_gamma": 0.5}, InvalidValueError, r"focal_dice_gamma = 0.5; it must be >= 1"),
    ({"focal_dice_threshold": 2}, InvalidValueError, r"focal_dice_threshold = 2.0; it must be 0 .. 1"),
    ({"log_offset": float("inf")}, InvalidValueError, r"log_offset = inf"),
]


@pytest.mark.parametrize("changed, error, text", WRONG)
def test_messages(changed: dict[str, Any], error: type[SegpriorError], text: str) -> None:
    losses.combined(**GOOD)  # whose options are then known, which must not hide what is wrong
    losses.combined(**GOOD, squared=True, batch=True, background=False)
    for _ in range(2):
        with pytest.raises(error, match=text):
            losses.combined(**{**GOOD, **changed})


def test_names_of_single_terms() -> None:
    with pytest.raises(InvalidValueError, match=r"^gamma = -1.0"):
        losses.focal(SCORES, LABELS, gamma=-1)
    with pytest.raises(InvalidValueError, match=r"^gamma = 0.5"):
        losses.focal_dice(SCORES, LABELS, gamma=0.5)
    with pytest.raises(InvalidValueError, match=r"^threshold = -1.0"):
        losses.focal_dice(SCORES, LABELS, threshold=-1)
    with pytest.raises(InvalidValueError, match=r"^class_weights has shape \[5, 3\]; it must be \[3\]$"):
        losses.dice(SCORES, LABELS, class_weights=torch.ones(5, 3))


def test_target_that_requires_grad() -> None:
    target = torch.zeros_like(SCORES).requires_grad_()
    with pytest.raises(NotSupportedError, match=r"target requires grad.*target.detach\(\)"):
        losses.dice(SCORES, target=target)
    with torch.no_grad():
        losses.dice(SCORES, target=target)


def test_other_device() -> None:
    with pytest.raises(
        InvalidValueError, match=r"labels lives on meta; it must be on the device of scores, cpu"
    ):
        losses.dice(SCORES, LABELS.to("meta"))
    with pytest.raises(InvalidValueError, match=r"^lower lives on meta; it must be on cpu"):
        losses.size_penalty(SCORES, torch.zeros(3, device="meta"))


def test_arrays_without_a_hash_are_numbers() -> None:
    problem = make()
    found = losses.focal(problem["scores"], problem["labels"], gamma=np.array(2.0))
    assert torch.equal(found, losses.focal(problem["scores"], problem["labels"]))
