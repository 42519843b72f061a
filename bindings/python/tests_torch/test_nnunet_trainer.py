"""examples/nnunet_trainer.py with stand-ins for the few names of nnU-Net that it uses."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
import torch
from torch import Tensor, nn

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "nnunet_trainer.py"


class Trainer:
    """What the example reads of nnU-Net's trainer."""

    def __init__(
        self,
        regions: bool,
        ignore: Optional[int],
        batch_dice: bool,
        ddp: bool = False,
        compiled: bool = False,
    ) -> None:
        self.label_manager = SimpleNamespace(has_regions=regions, ignore_label=ignore)
        self.configuration_manager = SimpleNamespace(batch_dice=batch_dice)
        self.is_ddp, self.device, self.enable_deep_supervision = ddp, torch.device("cpu"), True
        self.log: list[str] = []
        self._compiled = compiled

    def _do_i_compile(self) -> bool:
        return self._compiled

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        return [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]

    def print_to_log_file(self, text: str) -> None:
        self.log.append(text)


class Wrapper(nn.Module):
    """Deep supervision: the weighted sum of the losses at each resolution."""

    def __init__(self, loss: nn.Module, weights: np.ndarray) -> None:
        super().__init__()
        self.loss, self.weights = loss, weights

    def forward(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        parts = [w * self.loss(o, t) for w, o, t in zip(self.weights, outputs, targets) if w != 0]
        return torch.stack(parts).sum()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, contents in {
        "nnunetv2": {},
        "nnunetv2.training": {},
        "nnunetv2.training.loss": {},
        "nnunetv2.training.loss.deep_supervision": {"DeepSupervisionWrapper": Wrapper},
        "nnunetv2.training.nnUNetTrainer": {},
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer": {"nnUNetTrainer": Trainer},
    }.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("nnunet_trainer", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def nnunet_loss(
    logits: Tensor, target: Tensor, ignore: Optional[int], regions: bool, batch_dice: bool
) -> Tensor:
    """nnU-Net's formulas: cross entropy minus Dice, without the background where it is a class."""
    if regions:
        valid = torch.ones_like(target[:, :1]) if ignore is None else 1 - target[:, -1:]
        truth = target if ignore is None else target[:, :-1]
        probabilities = logits.sigmoid()
        entropies = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy = (entropies * valid).sum() / (valid.sum() * logits.shape[1])
    else:
        valid = torch.ones_like(target) if ignore is None else (target != ignore).double()
        known = (target * valid).long()
        truth = nn.functional.one_hot(known[:, 0], logits.shape[1]).movedim(-1, 1)[:, 1:]
        probabilities = logits.softmax(1)[:, 1:]
        outside = -100 if ignore is None else ignore
        entropy = nn.functional.cross_entropy(logits, target[:, 0].long(), ignore_index=outside)
    axes = [0, 2, 3] if batch_dice else [2, 3]
    common = (probabilities * truth * valid).sum(axes)
    both = (probabilities * valid).sum(axes) + (truth * valid).sum(axes)
    return entropy - ((2 * common + 1e-5) / (both + 1e-5)).mean()


def make(regions: bool, ignore: Optional[int], side: int = 12) -> tuple[Tensor, Tensor]:
    """Logits of 3 classes or regions; labels as floats, as nnU-Net may have them, or channels of regions."""
    logits = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    if regions:
        return logits, (torch.rand(2, 3 + (ignore is not None), side, side) < 0.4).double()
    labels = torch.randint(0, 3, (2, 1, side, side)).double()
    return logits, labels if ignore is None else labels.masked_fill(torch.rand(labels.shape) < 0.2, ignore)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [None, 3])
@pytest.mark.parametrize("regions", [False, True])
def test_formulas(example: Any, regions: bool, ignore: Optional[int], batch_dice: bool) -> None:
    logits, target = make(regions, ignore)
    own = example.SegmentationLoss(regions, ignore, batch_dice)(logits, target)
    other = nnunet_loss(logits, target, ignore, regions, batch_dice)
    torch.testing.assert_close(own, other + 1)
    found, expected = (torch.autograd.grad(value, logits)[0] for value in (own, other))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_dtypes_of_labels(example: Any, dtype: torch.dtype) -> None:
    logits, target = make(False, 3)
    loss = example.SegmentationLoss(False, 3, True)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_training_step(example: Any, monkeypatch: pytest.MonkeyPatch, regions: bool, compiled: bool) -> None:
    """Deep supervision, autocast, compiled: a network's gradients are finite, and the loss falls."""
    whole = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", whole)
    trainer = example.nnUNetTrainerSegprior(regions, 3, True, compiled=compiled)
    loss = trainer._build_loss()
    assert loss.weights.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    network = nn.Conv2d(1, 3, 3, padding=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    targets = [make(regions, 3, side)[1].float() for side in (12, 6, 3)]
    images = [target[:, :1] + 0.1 * torch.randn(target[:, :1].shape) for target in targets]
    values = []
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss([network(image) for image in images], targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert values[-1] < values[0]


def test_settings(example: Any) -> None:
    trainer = example.nnUNetTrainerSegprior(False, None, True, ddp=True)
    loss = trainer._build_loss()
    assert loss.weights[-1] > 0 and "each process" in trainer.log[0]
    trainer.enable_deep_supervision = False
    trainer.loss_options = {"dice": 0.0, "focal_dice": 1.0}
    plain = trainer._build_loss()
    assert isinstance(plain, example.SegmentationLoss) and plain.loss.arguments["focal_dice"] == 1.0
