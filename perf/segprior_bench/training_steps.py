"""Time of a training step of a U-Net of realistic size with each layer, in turns."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import torch

from .training_cells import make
from .training_network import UNet
from .training_run import known, loss_of
from .training_variants import Known, Variant, variants
from .timing import Contender, race


@dataclasses.dataclass(frozen=True)
class Steps:
    """A U-Net of half the usual width on `batch` images of `size` x `size` pixels."""

    size: int = 256
    batch: int = 4
    width: int = 32
    depth: int = 4
    rounds: int = 5

    @property
    def label(self) -> str:
        return f"{self.batch}x3x{self.size}x{self.size}"


def _whole_step(
    variant: Variant, steps: Steps, images: torch.Tensor, labels: torch.Tensor, told: Known
) -> Callable[[], None]:
    """A closure: forward, loss, backward, optimiser."""
    torch.manual_seed(0)
    network = UNet(images.shape[1], variant.channels, steps.width, steps.depth)
    optimiser = torch.optim.Adam(network.parameters())

    def step() -> None:
        u = variant.layer(network(images), told)
        loss = loss_of(u, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _layer_alone(variant: Variant, labels: torch.Tensor, told: Known) -> Callable[[], None]:
    """A closure: the layer and the loss on given outputs, forward and backward."""
    torch.manual_seed(0)
    outputs = 2 * torch.randn(len(labels), variant.channels, *labels.shape[1:])
    outputs.requires_grad_()

    def step() -> None:
        torch.autograd.grad(loss_of(variant.layer(outputs, told), labels), outputs)

    return step


def measure(steps: Steps) -> list[dict[str, Any]]:
    """A row per layer. `speed_lost_percent`: of the steps per second with softmax, 100 (1 - t_softmax / t)."""
    cells = make(steps.batch, steps.size, 0.2, (0, 0))
    images, labels, told = torch.from_numpy(cells.images), torch.from_numpy(cells.truth), known(cells)
    chosen = [v for v in variants(told.volumes.mean(0)) if v.exact is None]
    whole = [Contender(v.name, [_whole_step(v, steps, images, labels, told)]) for v in chosen]
    alone = [Contender(v.name, [_layer_alone(v, labels, told)]) for v in chosen]
    race(whole, "cpu", steps.rounds, 0.0)
    race(alone, "cpu", steps.rounds, 0.2)
    return [
        dict(
            entry="unet_step",
            what=f"U-Net of width {steps.width}, depth {steps.depth}",
            shape=steps.label,
            who=step.name,
            median_ms=1e3 * step.median,
            min_ms=1e3 * step.best,
            runs=len(step.samples),
            layer_ms=1e3 * layer.median,
            times_softmax=step.median / whole[0].median,
            speed_lost_percent=100 * (1 - whole[0].median / step.median),
            # From the layers alone, which the noise of the long steps does not reach.
            speed_lost_by_layer_percent=100 * (1 - 1 / (1 + (layer.median - alone[0].median) / whole[0].median)),
        )
        for step, layer in zip(whole, alone)
    ]
