"""Wrong arguments of the losses and proposals: each error names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

import segprior
from segprior import losses

S = np.zeros((2, 3, 6, 7))
Y = np.zeros((2, 6, 7), np.uint8)
MASK = np.ones((2, 6, 7), bool)
BOUNDS = np.ones((2, 3))
SINGLE = np.float32
VOLUMES = np.ones((2, 3), np.int64)
INFINITE, NAN = float("inf"), float("nan")


def ce(scores: Any = S, labels: Any = Y, **arguments: Any) -> losses.LossResult:
    return losses.cross_entropy(scores, labels, **arguments)


def size(lower: Any = BOUNDS, upper: Any = None, **arguments: Any) -> losses.LossResult:
    return losses.size_penalty(S, lower, upper, **arguments)


def combined(**arguments: Any) -> losses.LossResult:
    return losses.combined(S, **{"labels": Y, "dice": 1.0, **arguments})


def backward(grad: Any = None, reduction: str = "mean", **arguments: Any) -> Any:
    return losses.dice(S, Y, reduction=reduction).backward(grad, **arguments)


def proposal(logits: Any = S, **arguments: Any) -> losses.ProposalResult:
    return losses.lagrangian_proposal(logits, **{"lower": BOUNDS, **arguments})


def bounds(volumes: Any = VOLUMES, **arguments: Any) -> Any:
    return losses.size_bounds(volumes, **{"voxels": 42, **arguments})


VALUE: list[tuple[Callable[[], Any], str]] = [
    (lambda: ce(np.zeros((3, 4))), r"scores has shape \(3, 4\); it must be \[B, I, \*S\] with 1 to 3"),
    (lambda: ce(np.zeros((1,) * 6)), r"scores has shape"),
    (lambda: ce(np.zeros((2, 257, 1)), Y[:, 0, :1].copy()), r"scores.*257.*1 to 256"),
    (lambda: ce(S[..., ::2]), r"scores is not C-contiguous"),
    (lambda: ce(labels=None), r"labels and target are both None; give one of them"),
    (lambda: ce(target=S), r"labels and target are both given; give one of them"),
    (lambda: ce(labels=Y[0]), r"labels.*\[2, 6, 7\]"),
    (lambda: ce(labels=Y[:, :5].copy()), r"labels: shape \[2, 5, 7\].*\[2, 6, 7\]"),
    (lambda: ce(labels=np.zeros((2, 3, 6, 7), np.uint8)), r"labels.*\[2, 6, 7\]"),
    (lambda: ce(labels=np.asfortranarray(Y)), r"labels is not C-contiguous"),
    (lambda: ce(labels=None, target=S[:, :2].copy()), r"target: shape \[2, 2, 6, 7\].*\[2, 3, 6, 7\]"),
    (lambda: ce(activation="relu"), r"activation is 'relu'; it must be 'softmax', 'sigmoid', None"),
    (lambda: ce(activation=1), r"activation is 1; it must be 'softmax'"),
    (lambda: ce(reduction="max"), r"reduction is 'max'; it must be 'none', 'sum', 'mean'"),
    (lambda: ce(reduction=None), r"reduction is None; it must be 'none'"),
    (lambda: ce(background=True), r"background is True; it is for activation='sigmoid'"),
    (
        lambda: losses.dice(S, Y, activation=None, background=True),
        r"background is True; it is for activation",
    ),
    (lambda: combined(background=True), r"background is True; it is for activation='sigmoid'"),
    (lambda: ce(ignore_index=2.5), r"ignore_index = 2.5; it must be an integer"),
    (lambda: ce(ignore_index=2**63), r"ignore_index = 9223372036854775808; it must be an integer"),
    (
        lambda: ce(mask=MASK[:, :, :3].copy()),
        r"mask has shape \(2, 6, 3\); it must be \[\*S\], \[1, \*S\] or \[B, \*S\], "
        r"here \[6, 7\] or \[1, 6, 7\] or \[2, 6, 7\]$",
    ),
    (lambda: ce(labelled=MASK[0, 0]), r"labelled.*\[2, 6, 7\]"),
    (lambda: ce(class_weights=[1, 2]), r"class_weights: shape \[2\].*\[3\]"),
    (lambda: ce(class_weights=np.ones((5, 3))), r"class_weights has shape \(5, 3\); it must be \[3\]"),
    (lambda: combined(class_weights=np.ones((4, 3))), r"class_weights: shape \[4, 3\].*\[5, 3\]"),
    (lambda: ce(log_offset=-1), r"log_offset = -1.0; it must be >= 0 and finite"),
    (lambda: ce(threads=-1), r"threads = -1"),
    (lambda: ce(stream=-1), r"stream = -1"),
    (lambda: losses.focal(S, Y, gamma=-1), r"gamma = -1.0; it must be >= 0 and finite"),
    (lambda: losses.focal(S, Y, gamma=INFINITE), r"gamma = inf; it must be >= 0 and finite"),
    (lambda: losses.dice(S, Y, smooth_nr=NAN), r"smooth_nr = nan; it must be >= 0 and finite"),
    (lambda: losses.dice(S, Y, smooth_dr=-1e-9), r"smooth_dr = -1e-09; it must be >= 0 and finite"),
    (lambda: losses.focal_dice(S, Y, threshold=1.5), r"threshold = 1.5; it must be 0 .. 1"),
    (lambda: losses.focal_dice(S, Y, gamma=0.5), r"gamma = 0.5; it must be >= 1"),
    (lambda: size(lower=None), r"lower and upper are both None; the size penalty needs one of them"),
    (
        lambda: size(lower=[1, 2]),
        r"lower has shape \(2,\); it must be \[I\] or \[B, I\], here \[3\] or \[2, 3\]$",
    ),
    (lambda: size(lower=5.0), r"lower has shape \(\); it must be \[I\] or \[B, I\]"),
    (lambda: size(upper=np.ones((4, 3))), r"upper has shape \(4, 3\); .* here \[3\] or \[2, 3\]$"),
    (lambda: size(upper=np.ones((2, 2))), r"upper has shape \(2, 2\); .* here \[3\] or \[2, 3\]$"),
    (lambda: size(upper=np.ones((1, 2, 3))), r"upper has shape \(1, 2, 3\)"),
    (lambda: size(lower=np.ones((3, 3)), groups=[0, 1]), r"lower has shape \(3, 3\)"),
    (lambda: size(lower=np.ones((0, 3)), groups=[0, 1]), r"lower has shape \(0, 3\)"),
    (lambda: size(groups=[0]), r"groups: shape \[1\].*\[2\]"),
    (lambda: size(normalise="images"), r"normalise is 'images'; it must be None, 'voxels'"),
    (lambda: combined(size=1.0), r"lower and upper are both None; the size penalty needs one of them"),
    (lambda: combined(labels=None), r"labels and target are both None"),
    (lambda: combined(dice=0), r"size, cross_entropy, focal, dice, focal_dice are all 0"),
    (lambda: losses.combined(S), r"size, cross_entropy, focal, dice, focal_dice are all 0"),
    (lambda: combined(dice=NAN), r"dice = nan; it must be finite"),
    (lambda: combined(focal=INFINITE), r"focal = inf; it must be finite"),
    (lambda: combined(reduction="none"), r"reduction is 'none'; combined has 'mean' and 'sum'"),
    (lambda: combined(focal_gamma=-1), r"focal_gamma = -1.0; it must be >= 0"),
    (lambda: combined(focal_dice_threshold=-0.1), r"focal_dice_threshold = -0.1; it must be 0 .. 1"),
    (lambda: combined(focal_dice_gamma=0), r"focal_dice_gamma = 0.0; it must be >= 1"),
    (lambda: backward(np.ones(2)), r"grad has shape \(2,\); it must have one element"),
    (lambda: backward(np.ones((3, 2)), "none"), r"grad has shape \(3, 2\); it must be \(2, 3\)"),
    (lambda: ce(reduction="none").backward(BOUNDS), r"grad: .*must be.*\[2, 6, 7\]"),
    (lambda: backward(wanted=["lower"]), r"wanted has 'lower'; this call has gradients for scores$"),
    (lambda: proposal(np.zeros((3, 4))), r"logits has shape \(3, 4\); it must be \[B, I, \*S\]"),
    (lambda: proposal(lower=np.ones((3, 3))), r"lower has shape \(3, 3\); it must be \[I\] or \[B, I\]"),
    (lambda: proposal(upper=[1, 2]), r"upper has shape \(2,\); .* here \[3\] or \[2, 3\]$"),
    (lambda: proposal(mask=MASK[:, :2].copy()), r"mask has shape \(2, 2, 7\); .* or \[2, 6, 7\]$"),
    (lambda: proposal(method="newton"), r"method is 'newton'; it must be 'exact', 'gradient'"),
    (lambda: proposal(max_iters=-1), r"max_iters = -1; it must be an integer >= 0"),
    (lambda: proposal(step=0), r"step = 0.0; it must be > 0 and finite$"),
    (lambda: proposal(step=INFINITE), r"step = inf; it must be > 0 and finite$"),
    (lambda: proposal(tol=-1e-3), r"tol = -0.001; it must be >= 0 and finite"),
    (lambda: bounds(np.ones(3, np.int64)), r"volumes has shape \(3,\); it must be \[B, I\]"),
    (lambda: bounds(kind="some"), r"kind is 'some'; it must be 'tags', 'common', 'individual'"),
    (lambda: bounds(voxels=None), r"voxels is None; kind 'tags' needs the number of voxels"),
    (lambda: bounds(voxels=0), r"voxels = 0; it must be an integer >= 1"),
    (lambda: bounds(dtype="int64"), r"dtype is 'int64'; it must be 'float32', 'float64'"),
    (
        lambda: bounds(factors=(1.1, 0.9)),
        r"factors = \(1.1, 0.9\); they must be finite with 0 <= low <= high",
    ),
    (lambda: bounds(factors=[-1, 1]), r"factors = \(-1.0, 1.0\); they must be finite"),
    (lambda: bounds(factors=(1, INFINITE)), r"factors = \(1.0, inf\); they must be finite"),
    (lambda: bounds(factors=(NAN, 1)), r"factors = \(nan, 1.0\); they must be finite"),
]

TYPE: list[tuple[Callable[[], Any], str]] = [
    (lambda: ce([[1.0]]), r"scores is list; it must be an array"),
    (lambda: ce(S.astype(int)), r"scores has dtype int64; it must be float32, float64, float16 or bfloat16"),
    (lambda: ce(labels=[[0]]), r"labels is list; it must be an array"),
    (lambda: ce(labels=Y.astype(float)), r"labels has dtype float64; it must be bool, uint8, int32 or int64"),
    (
        lambda: ce(labels=Y.astype(np.int16)),
        r"labels has dtype int16; it must be bool, uint8, int32 or int64",
    ),
    (lambda: ce(labels=Y.astype(">i4")), r"labels has dtype >i4"),
    (lambda: ce(labels=None, target=S.astype(SINGLE)), r"target.*float32.*float64"),
    (
        lambda: ce(labels=None, target=S.astype(int)),
        r"target has dtype int64; it must be float32.*bool or uint8",
    ),
    (lambda: ce(ignore_index="none"), r"ignore_index is 'none'; it must be an integer"),
    (lambda: ce(background="yes"), r"background is 'yes'; it must be True or False"),
    (lambda: ce(mask=MASK.astype(int)), r"mask has dtype int64; it must be bool or uint8"),
    (lambda: ce(labelled=MASK.astype(SINGLE)), r"labelled has dtype float32; it must be bool or uint8"),
    (lambda: ce(class_weights=np.ones(3, SINGLE)), r"class_weights.*float32.*float64"),
    (lambda: ce(class_weights=["a"]), r"class_weights must be an array or numbers \[I\]"),
    (lambda: ce(log_offset="small"), r"log_offset is 'small'; it must be a number"),
    (lambda: losses.focal(S, Y, gamma="two"), r"gamma is 'two'; it must be a number"),
    (lambda: losses.dice(S, Y, squared="yes"), r"squared is 'yes'; it must be True or False"),
    (lambda: losses.dice(S, Y, batch=2), r"batch is 2; it must be True or False"),
    (lambda: size(lower=BOUNDS.astype(SINGLE)), r"lower.*float32.*float64"),
    (lambda: size(upper=BOUNDS.astype(int)), r"upper has dtype int64; it must be float32 or float64"),
    (lambda: size(groups=[0.5, 1]), r"groups must be an array or numbers \[B\]"),
    (lambda: size(groups=np.zeros(2, np.uint8)), r"groups has dtype uint8; it must be int32 or int64"),
    (lambda: combined(dice="1"), r"dice is '1'; it must be a number"),
    (lambda: backward(np.ones(1, SINGLE)), r"grad.*float32.*float64"),
    (lambda: backward(np.ones((2, 3), SINGLE), "none"), r"grad has dtype float32; it must be float64"),
    (lambda: backward(None, "none"), r"grad is NoneType; it must be an array of value's shape"),
    (lambda: backward("1"), r"grad is '1'; it must be a number"),
    (lambda: backward(wanted="scores"), r"wanted is 'scores'; it must be a list"),
    (lambda: proposal(S.astype(int)), r"logits has dtype int64"),
    (lambda: proposal(lower=BOUNDS.astype(SINGLE)), r"lower.*float32.*float64"),
    (lambda: bounds([[1, 2]]), r"volumes is list; it must be an array"),
    (lambda: bounds(np.ones((2, 3))), r"volumes has dtype float64; it must be int32 or int64"),
    (lambda: bounds(factors=0.9), r"factors is 0.9; it must be a pair of numbers"),
]


@pytest.mark.parametrize("call, text", VALUE)
def test_values(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidValueError, match=text):
        call()


@pytest.mark.parametrize("call, text", TYPE)
def test_types(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(segprior.InvalidTypeError, match=text):
        call()


def test_no_c_words() -> None:
    """The C structs' names do not show."""
    for call, _ in VALUE + TYPE:
        with pytest.raises(segprior.SegpriorError) as raised:
            call()
        text = str(raised.value)
        for word in (
            "inputs.",
            "opts.",
            "outputs.",
            "grads.",
            "cotangents.",
            "size_lower",
            "SEGPRIOR_",
            "NULL",
        ):
            assert word not in text


class Elsewhere:
    """Claims to lie on a CUDA device; its memory is never touched."""

    def __init__(self, array: np.ndarray) -> None:
        from test_arrays import Edited

        self.edited = Edited(array)
        self.edited.dl.device_type = 2

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.edited.__dlpack_device__()

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.edited.__dlpack__(**arguments)


@pytest.mark.parametrize("name", ["labels", "mask", "labelled", "class_weights", "lower", "upper"])
def test_arguments_on_another_device(name: str) -> None:
    arrays = {"labels": Y, "mask": MASK.view(np.uint8), "labelled": Y, "class_weights": np.ones(3)}
    given = {name: Elsewhere(arrays.get(name, BOUNDS))}
    with pytest.raises(segprior.InvalidValueError, match=rf"{name}.*cuda"):
        combined(**{"size": 1.0, "lower": BOUNDS, **given})


def test_grad_on_another_device() -> None:
    with pytest.raises(segprior.InvalidValueError, match="grad lives on cuda:0; it must be on cpu"):
        backward(Elsewhere(BOUNDS), "none")
    with pytest.raises(segprior.InvalidValueError, match="grad.*cuda"):
        backward(Elsewhere(np.ones(1)))
