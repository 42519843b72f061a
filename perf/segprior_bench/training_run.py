"""Training of one network per variant, and its test."""

from __future__ import annotations

import dataclasses
import statistics
import time

import numpy as np
import torch
from segprior.torch import losses
from torch import nn

from .training_cells import Cells, make
from .training_network import UNet
from .training_scores import Scores, score
from .training_variants import Known, Layer, Variant, variants


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 64
    train: int = 16
    test: int = 64
    noise: float = 0.2
    more_noise: float = 0.3
    width: int = 8
    depth: int = 2
    steps: int = 300
    batch: int = 8
    rate: float = 1e-2
    longest_gradient: float = 1.0  # longer ones are cut: SS-STD's reach 80, and a few such steps undo the training


@dataclasses.dataclass
class Run:
    """A test of one trained network."""

    name: str
    told: str
    seed: int
    scores: Scores
    noisy: Scores  # the same cells under more noise, which training has not seen
    loss: float  # of training, mean of the last tenth of the steps
    step_seconds: float  # median, of the processor: a thread has it for itself only on an idle machine
    gradient_error: float | None  # where training's gradient is not exact
    found: np.ndarray  # uint8 [N, H, W], the label maps behind `scores`
    found_noisy: np.ndarray  # and behind `noisy`


def known(cells: Cells) -> Known:
    return Known(torch.from_numpy(cells.volumes), torch.from_numpy(cells.centers))


def loss_of(u: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy + Dice of class probabilities: with the cross entropy alone some networks stay for hundreds of
    steps where they know the cell but not its nucleus."""
    return losses.combined(u, labels, cross_entropy=1.0, dice=1.0, activation=None, reduction="mean")


def train(variant: Variant, settings: Settings, cells: Cells, seed: int) -> tuple[UNet, float, float]:
    """The network, the loss of the last tenth of the steps, and the median of a step's seconds.

    Start and order of the images are the same for all variants; only the last convolution has further channels
    where a layer wants them, and these are drawn after everything else.
    """
    torch.manual_seed(seed)
    network = UNet(cells.images.shape[1], variant.channels, settings.width, settings.depth)
    optimiser = torch.optim.Adam(network.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    images, labels, knowledge = torch.from_numpy(cells.images), torch.from_numpy(cells.truth), known(cells)
    order = np.random.default_rng((seed, 2))
    chosen, seconds, values = np.empty(0, np.int64), [], []
    for _ in range(settings.steps):
        if len(chosen) < settings.batch:
            chosen = np.append(chosen, order.permutation(len(images)))
        these, chosen = torch.from_numpy(chosen[: settings.batch]), chosen[settings.batch :]
        began = time.process_time()
        u = variant.layer(network(images[these]), Known(*(known_of_all[these] for known_of_all in knowledge)))
        loss = loss_of(u, labels[these])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.longest_gradient)
        optimiser.step()
        schedule.step()
        seconds.append(time.process_time() - began)
        values.append(loss.item())
    return network, statistics.mean(values[-max(settings.steps // 10, 1) :]), statistics.median(seconds)


@torch.no_grad()
def outputs_of(network: UNet, cells: Cells, batch: int) -> torch.Tensor:
    network.eval()
    return torch.cat([network(part) for part in torch.from_numpy(cells.images).split(batch)])


def test_sets(settings: Settings, seed: int) -> list[Cells]:
    """The same cells under the noise of the training and under more."""
    return [make(settings.test, settings.size, n, (seed, 1)) for n in (settings.noise, settings.more_noise)]


def gradient_error(network: UNet, settings: Settings, cells: Cells, layer: Layer, exact: Layer) -> float:
    """|g - g'| / |g'| of the loss's gradient with respect to the outputs, g' with the layer `exact`: of one batch."""
    batch = slice(settings.batch)
    outputs = outputs_of(network, cells, settings.batch)[batch]
    labels, knowledge = torch.from_numpy(cells.truth[batch]), Known(*(k[batch] for k in known(cells)))
    found = []
    for one in (layer, exact):
        leaf = outputs.clone().requires_grad_()
        loss_of(one(leaf, knowledge), labels).backward()
        found.append(leaf.grad)
    return float((found[0] - found[1]).norm() / found[1].norm())


def run(name: str, settings: Settings, seed: int) -> list[Run]:
    """Trains the variant `name` and makes its tests."""
    torch.set_num_threads(1)
    training = make(settings.train, settings.size, settings.noise, (seed, 0))
    variant = next(v for v in variants(torch.from_numpy(training.volumes.mean(0))) if v.name == name)
    network, loss, seconds = train(variant, settings, training, seed)
    error = None
    if variant.exact is not None:
        error = gradient_error(network, settings, training, variant.layer, variant.exact)
    sets = test_sets(settings, seed)
    outputs = [outputs_of(network, cells, settings.batch) for cells in sets]
    runs = []
    for test in variant.tests:
        with torch.no_grad():
            maps = [test.layer(o, known(cells)).argmax(1).byte().numpy() for o, cells in zip(outputs, sets)]
        scores = [score(cells.truth, found) for cells, found in zip(sets, maps)]
        runs.append(Run(test.name, test.told, seed, *scores, loss, seconds, error, *maps))
    return runs
