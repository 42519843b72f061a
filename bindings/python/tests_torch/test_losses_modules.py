"""The loss modules against MONAI's and torch's, and what is different on purpose."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, Optional

import pytest
import torch

import segprior
from segprior.torch import CombinedLoss, DiceLoss, FocalDiceLoss, PartialCELoss, SizePenaltyLoss, losses

SHAPES = [(2, 3, 6, 5), (1, 4, 5, 4, 3), (3, 2, 11)]


def problem(shape: tuple[int, ...] = SHAPES[0], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, N, *S], float64, and labels [B, 1, *S]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    return logits, torch.randint(0, max(2, shape[1]), (shape[0], 1, *shape[2:]), generator=generator)


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).double()


def same(own: torch.Tensor, other: torch.Tensor, logits: torch.Tensor) -> None:
    """Values and gradients; sums in another order, and MONAI's weights are float32."""
    torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)
    grad = torch.rand_like(other)
    found, expected = (
        torch.autograd.grad(value, logits, grad, retain_graph=True)[0] for value in (own, other)
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_dice_is_monais(
    shape: tuple[int, ...], reduction: str, batch: bool, include_background: bool
) -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem(shape)
    weight = [0.5, 2.0, 1.5, 3.0][: shape[1] - (not include_background)]
    for options in (
        {"softmax": True, "to_onehot_y": True},
        {"sigmoid": True, "to_onehot_y": True, "squared_pred": True},
        {"softmax": True, "to_onehot_y": True, "weight": weight, "smooth_nr": 0.5, "smooth_dr": 0.25},
        {"sigmoid": True, "to_onehot_y": True, "weight": 2.0},
    ):
        if "weight" in options and shape[1] - (not include_background) == 1:
            continue  # MONAI leaves a single class's weight out
        arguments = dict(options, reduction=reduction, batch=batch, include_background=include_background)
        same(DiceLoss(**arguments)(logits, labels), monai.DiceLoss(**arguments)(logits, labels), logits)
        arguments["to_onehot_y"] = False
        target = one_hot(labels, shape[1])
        same(DiceLoss(**arguments)(logits, target), monai.DiceLoss(**arguments)(logits, target), logits)


def test_dice_of_probabilities_is_monais() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem()
    own, other = (kind(to_onehot_y=True)(logits.softmax(1), labels) for kind in (DiceLoss, monai.DiceLoss))
    same(own, other, logits)


def test_soft_targets_are_monais() -> None:
    """Without squares; with them MONAI writes 2 sum p t another way, which is the same number."""
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, _ = problem()
    target = torch.rand_like(logits)
    for squared in (False, True):
        own, other = (kind(softmax=True, squared_pred=squared) for kind in (DiceLoss, monai.DiceLoss))
        same(own(logits, target), other(logits, target), logits)


def test_one_channel_is_monais() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem((2, 1, 6, 5))
    for target in (labels.double(), labels.float(), labels):
        own, other = (kind(sigmoid=True)(logits, target) for kind in (DiceLoss, monai.DiceLoss))
        same(own, other, logits)


def test_masked_dice_is_monais() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem()
    mask = torch.rand(2, 1, 6, 5) < 0.7
    target = one_hot(labels, 3)
    other = monai.MaskedDiceLoss(softmax=True)(logits, target, mask.double())
    same(DiceLoss(softmax=True)(logits, target, mask), other, logits)


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.5)])
def test_combined_is_monais_dice_ce(include_background: bool, weight: Optional[tuple[float, ...]]) -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem()
    common: dict[str, Any] = {
        **{"softmax": True, "to_onehot_y": True, "include_background": include_background, "batch": True},
        "weight": None if weight is None else torch.tensor(weight, dtype=torch.float64),
    }
    own = CombinedLoss(**common, cross_entropy=0.7, dice=1.2)
    other = monai.DiceCELoss(**common, lambda_ce=0.7, lambda_dice=1.2)
    same(own(logits, labels), other(logits, labels), logits)


def test_combined_of_one_channel_is_monais_dice_ce() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    logits, labels = problem((2, 1, 6, 5))
    own, other = (kind(sigmoid=True)(logits, labels) for kind in (CombinedLoss, monai.DiceCELoss))
    same(own, other, logits)


def test_meta_tensors() -> None:
    data = pytest.importorskip("monai.data", reason="MONAI is not installed")
    logits, labels = problem()
    for target in (data.MetaTensor(labels), data.MetaTensor(labels.float())):
        found = DiceLoss(softmax=True, to_onehot_y=True)(data.MetaTensor(logits), target)
        assert found.item() == DiceLoss(softmax=True, to_onehot_y=True)(logits, labels).item()
        assert torch.autograd.grad(found, logits)[0].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_labels_of_any_dtype(dtype: torch.dtype) -> None:
    logits, labels = problem()
    own = PartialCELoss(softmax=True, to_onehot_y=True, ignore_index=2)(logits, labels.to(dtype))
    other = torch.nn.functional.cross_entropy(logits, labels[:, 0], ignore_index=2)
    same(own, other, logits)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_partial_cross_entropy_is_torchs(reduction: str) -> None:
    logits, labels = problem()
    labels[torch.rand(labels.shape) < 0.5] = 255
    for weight in (None, torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)):
        module = PartialCELoss(softmax=True, to_onehot_y=True, reduction=reduction, weight=weight)
        other = torch.nn.functional.cross_entropy(
            logits, labels[:, 0], weight, ignore_index=255, reduction=reduction
        )
        same(module(logits, labels), other, logits)
    partial = PartialCELoss(softmax=True, to_onehot_y=True, reduction=reduction, include_background=False)
    without = labels[:, 0].where(labels[:, 0] > 0, 255)
    other = torch.nn.functional.cross_entropy(logits, without, ignore_index=255, reduction=reduction)
    same(partial(logits, labels), other, logits)


def test_ignored_labels() -> None:
    logits, labels = problem()
    ignored = torch.rand(labels.shape) < 0.3
    masked = DiceLoss(softmax=True, to_onehot_y=True)(logits, labels, ~ignored)
    own = DiceLoss(softmax=True, to_onehot_y=True, ignore_index=7)(logits, labels.masked_fill(ignored, 7))
    same(own, masked, logits)
    binary, labels = problem((2, 1, 6, 5))
    masked = DiceLoss(sigmoid=True)(binary, labels, ~ignored)
    own = DiceLoss(sigmoid=True, ignore_index=7)(binary, labels.masked_fill(ignored, 7))
    same(own, masked, binary)


def test_focal_dice() -> None:
    logits, labels = problem()
    own = FocalDiceLoss(0.4, 3.0, softmax=True, to_onehot_y=True, weight=[1.0, 2.0, 3.0])
    other = losses.focal_dice(logits, labels, threshold=0.4, gamma=3.0, class_weights=[1.0, 2.0, 3.0])
    same(own(logits, labels), other, logits)
    plain = FocalDiceLoss(0.5, 1.0, softmax=True, to_onehot_y=True, include_background=False)
    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, squared_pred=True)
    same(plain(logits, labels), dice(logits, labels), logits)


def test_size_penalty() -> None:
    logits, _ = problem()
    lower = torch.tensor([20.0, 15.0, 0.0], dtype=torch.float64, requires_grad=True)
    module = SizePenaltyLoss(softmax=True, include_background=False, reduction="none", normalise="voxels")
    found = module(logits, lower)
    assert found.shape == (2, 2, 1, 1)
    sizes = logits.softmax(1).sum((2, 3))[:, 1:]
    expected = (lower[1:] - sizes).clamp(min=0).square() / 30
    same(found[..., 0, 0], expected, logits)
    found.sum().backward()
    assert lower.grad is not None and lower.grad[0] == 0 and lower.grad[1] > 0
    summed = SizePenaltyLoss(softmax=True, reduction="sum")(logits, upper=[5.0, 5.0, 5.0], groups=[0, 0])
    total = logits.softmax(1).sum((0, 2, 3))
    torch.testing.assert_close(summed, (total - 5).clamp(min=0).square().sum())


def test_combined_terms() -> None:
    """Every term at once; without the background only in those of classes."""
    logits, labels = problem()
    weights = {"size": 0.1, "cross_entropy": 1.0, "focal": 0.5, "dice": 0.7, "focal_dice": 0.3}
    module = CombinedLoss(False, True, softmax=True, weight=[1.0, 2.0, 3.0], **weights)
    found = module(logits, labels, lower=[30.0, 12.0, 12.0])
    bounds, no, full = {"lower": [30.0, 12.0, 12.0]}, [0.0, 2.0, 3.0], [1.0, 2.0, 3.0]
    expected = (
        0.1 * losses.size_penalty(logits, **bounds, class_weights=no)
        + losses.cross_entropy(logits, labels, class_weights=full)
        + 0.5 * losses.focal(logits, labels, class_weights=full)
        + 0.7 * losses.dice(logits, labels, class_weights=no, squared=False)
        + 0.3 * losses.focal_dice(logits, labels, class_weights=no, squared=False)
    )
    same(found, expected, logits)


MODULES = [
    DiceLoss(softmax=True, to_onehot_y=True, weight=[1.0, 2.0, 3.0]),
    FocalDiceLoss(softmax=True, to_onehot_y=True, include_background=False),
    PartialCELoss(softmax=True, to_onehot_y=True),
    CombinedLoss(softmax=True, to_onehot_y=True, include_background=False),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_as_a_module(module: torch.nn.Module) -> None:
    """Copies, pickles, state_dict, compiled."""
    logits, labels = problem()
    labels[0, 0, 0, 0] = -1
    expected = module(logits, labels)
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    again = copy.deepcopy(module)
    again.load_state_dict(torch.load(buffer))
    for other in (again, pickle.loads(pickle.dumps(module)), copy.deepcopy(copy.deepcopy(module)).double()):
        assert torch.equal(other(logits, labels), expected) and repr(other) == repr(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    same(compiled(logits, labels), expected, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(logits.bfloat16(), labels).dtype == torch.float32


def test_repr() -> None:
    text = repr(DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0.0))
    assert "activation='softmax'" in text and "smooth_nr=0.0" in text and "to_onehot_y=True" in text


LOGITS, LABELS = problem()[0].detach(), problem()[1]
BINARY = problem((2, 1, 6, 5))[0].detach()
REFUSED: list[tuple[Any, str]] = [
    (lambda: DiceLoss(other_act=torch.tanh), "other_act"),
    (lambda: DiceLoss(jaccard=True), "jaccard"),
    (lambda: DiceLoss(soft_label=True), "soft_label"),
]
WRONG: list[tuple[Any, str]] = [
    (lambda: DiceLoss(sigmoid=True, softmax=True), "sigmoid and softmax are both True"),
    (lambda: DiceLoss(reduction="max"), "reduction is 'max'"),
    (lambda: CombinedLoss(reduction="none"), "reduction is 'none'"),
    (lambda: DiceLoss(weight=[-1.0, 1.0]), r"weight = \[-1.0, 1.0\]"),
    (lambda: DiceLoss(include_background=1.0), "include_background is 1.0"),  # type: ignore[arg-type]
    (lambda: DiceLoss(weight="heavy"), "weight is 'heavy'"),  # type: ignore[arg-type]
    (lambda: DiceLoss(softmax=True)(LOGITS, LABELS), "target has shape .* or labels with to_onehot_y=True"),
    (lambda: DiceLoss(to_onehot_y=True)(LOGITS, LOGITS), "target has shape .* must be labels"),
    (lambda: DiceLoss(ignore_index=1)(LOGITS, LOGITS), "ignore_index = 1 is for labels"),
    (lambda: DiceLoss(softmax=True)(BINARY, BINARY), "input has one channel"),
    (lambda: DiceLoss(include_background=False)(BINARY, BINARY), "input has one channel"),
    (lambda: DiceLoss(weight=[1.0, 2.0])(LOGITS, LOGITS), "weight has 2 entries; 3 channels"),
    (
        lambda: DiceLoss(weight=[1.0, 2.0, 3.0], include_background=False)(LOGITS, LOGITS),
        "weight has 3 entries; 2 channels",
    ),
    (lambda: DiceLoss()(LOGITS.numpy(), LABELS), "input is ndarray"),
    (lambda: DiceLoss()(LOGITS, LABELS.numpy()), "target is ndarray"),
    (lambda: DiceLoss()(LOGITS, LOGITS.softmax(1), LOGITS), "mask"),
]


@pytest.mark.parametrize("call, text", REFUSED)
def test_refused(call: Any, text: str) -> None:
    with pytest.raises(segprior.NotSupportedError, match=text):
        call()


@pytest.mark.parametrize("call, text", WRONG)
def test_messages(call: Any, text: str) -> None:
    with pytest.raises((segprior.InvalidValueError, segprior.InvalidTypeError), match=text):
        call()


def test_what_is_no_probability_fails_loudly() -> None:
    logits, labels = problem()
    assert DiceLoss(to_onehot_y=True)(logits, labels).isnan()
    assert DiceLoss(softmax=True, to_onehot_y=True)(logits, labels + 1).isnan()  # label 3 of 3 classes


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_float_that_is_no_label_fails_loudly(wrong: float) -> None:
    logits, labels = problem()
    labels = labels.float()
    labels[0, 0, 0, 0] = wrong
    assert DiceLoss(softmax=True, to_onehot_y=True)(logits, labels).isnan()
    binary, labels = problem((2, 1, 6, 5))
    labels = labels.float()
    labels[0, 0, 0, 0] = float("nan")
    assert PartialCELoss(sigmoid=True)(binary, labels).isnan()


def test_negative_labels_are_not_known() -> None:
    for shape, options in ((SHAPES[0], {"softmax": True}), ((2, 1, 6, 5), {"sigmoid": True})):
        logits, labels = problem(shape)
        hidden = torch.rand(labels.shape) < 0.4
        loss = PartialCELoss(to_onehot_y=True, **options)
        same(loss(logits, labels.masked_fill(hidden, -1)), loss(logits, labels, ~hidden), logits)


def test_means_of_unlabelled_images_and_weights_of_0() -> None:
    """Where the mean is not MONAI's, and a weight that MONAI leaves out."""
    logits, labels = problem()
    labels[1] = 7
    half = DiceLoss(softmax=True, to_onehot_y=True, ignore_index=7)(logits, labels)
    alone = DiceLoss(softmax=True, to_onehot_y=True)(logits[:1], labels[:1])
    torch.testing.assert_close(half, alone)
    weighted = DiceLoss(softmax=True, to_onehot_y=True, weight=[0.0, 1.0, 1.0])(logits[:1], labels[:1])
    two = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits[:1], labels[:1])
    torch.testing.assert_close(weighted, two)
    two_classes, labels = problem((3, 2, 11))
    one = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(two_classes, labels)
    double = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, weight=2.0)(
        two_classes, labels
    )
    torch.testing.assert_close(double, 2 * one)
