"""The methods that are compared, the training of one model, and its scores."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from segprior import losses, metrics

from . import model
from .shapes import OBJECT, UNKNOWN, Data, make

CLASSES = 2


@dataclasses.dataclass(frozen=True)
class Method:
    """What the loss is made of. All but full supervision have the cross entropy of the labelled pixels."""

    name: str
    bounds: str | None = None  # kind of size bounds of the object
    proposal: bool = False  # bounds through a Lagrangian proposal, whose cross entropy is added; else the size penalty
    full: bool = False  # cross entropy of all pixels instead


METHODS = [
    Method("partial CE"),
    Method("+ tags, proposal", "tags", proposal=True),
    Method("+ tags, penalty", "tags"),
    Method("+ common bounds, proposal", "common", proposal=True),
    Method("+ common bounds, penalty", "common"),
    Method("+ individual bounds, proposal", "individual", proposal=True),
    Method("+ individual bounds, penalty", "individual"),
    Method("full supervision", full=True),
]


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 64
    train: int = 40
    validate: int = 40
    with_object: float = 0.75
    both: bool = False  # labels in the background too
    hidden: int = 24
    epochs: int = 160
    batch: int = 4
    rate: float = 5e-3
    penalty: float = 1e-2  # lambda of [CC], of the penalty divided by the number of pixels
    seed: int = 0


@dataclasses.dataclass
class Run:
    """One trained model on the validation images."""

    method: str
    labels: str
    seed: int
    dice: float  # of the object, mean over the images that have it
    mean_iou: float  # of object and background, all images together
    size: float  # predicted over true pixels of the object, all images together
    seconds: float  # of training
    prediction: np.ndarray  # uint8 [N, H, W]


def make_data(settings: Settings) -> tuple[Data, Data]:
    """Training and validation images of a seed."""
    rng = np.random.default_rng((settings.seed, 0))
    common = (settings.size, settings.with_object, settings.both, rng)
    return make(settings.train, *common), make(settings.validate, *common)


def object_bounds(truth: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds [N, CLASSES] in pixels; the background has none."""
    volumes = metrics.volumes(truth, CLASSES)
    lower, upper = losses.size_bounds(volumes, kind, voxels=truth[0].size)
    lower[:, 0], upper[:, 0] = 0, np.inf
    return lower, upper


def loss_gradient(
    method: Method, settings: Settings, logits: np.ndarray, labels: np.ndarray, lower: Any, upper: Any
) -> np.ndarray:
    """d loss / d logits of a batch."""
    if not method.proposal:
        weight = 0.0 if method.bounds is None else settings.penalty
        found = losses.combined(
            logits,
            labels,
            cross_entropy=1.0,
            size=weight,
            lower=lower,
            upper=upper,
            normalise="voxels",
            reduction="mean",
            ignore_index=UNKNOWN,
        )
        return found.backward().scores
    partial = losses.cross_entropy(logits, labels, reduction="mean", ignore_index=UNKNOWN)
    target = losses.lagrangian_proposal(logits, lower, upper, method="exact").proposal
    latent = losses.cross_entropy(logits, target=target, reduction="mean")
    return partial.backward().scores + latent.backward().scores


def train(method: Method, settings: Settings, data: Data, given: np.ndarray) -> model.Perceptron:
    """`given`: the features of the images."""
    rng = np.random.default_rng((settings.seed, 1))  # the same start and order of images for every method
    labels = data.truth if method.full else data.seeds
    lower = upper = None
    if method.bounds is not None:
        lower, upper = object_bounds(data.truth, method.bounds)
    network = model.Perceptron(given.shape[-1], settings.hidden, CLASSES, rng)
    optimiser = model.Adam(network.parameters, settings.rate)
    for _ in range(settings.epochs):
        order = rng.permutation(len(given))
        for at in range(0, len(order), settings.batch):
            chosen = order[at : at + settings.batch]
            logits = network.forward(given[chosen], data.images.shape[1:])
            bounds = (None, None) if lower is None else (lower[chosen], upper[chosen])
            grad = loss_gradient(method, settings, logits, labels[chosen], *bounds)
            optimiser.step(network.backward(grad))
    return network


def run(method: Method, settings: Settings) -> Run:
    data, validation = make_data(settings)
    given = model.features(data.images)
    scaling = model.Scaling(given)
    began = time.perf_counter()
    network = train(method, settings, data, scaling(given))
    seconds = time.perf_counter() - began
    logits = network.forward(scaling(model.features(validation.images)), validation.images.shape[1:])
    matrices = metrics.confusion_matrix(validation.truth, scores=logits, classes=CLASSES)
    present = matrices[:, OBJECT].sum(1) > 0
    dice = metrics.scores(matrices[present]).dice[:, OBJECT]
    pooled = metrics.scores(matrices.sum(0, keepdims=True))
    return Run(
        method=method.name,
        labels="both" if settings.both else "object",
        seed=settings.seed,
        dice=float(dice.mean()),
        mean_iou=float(pooled.mean_iou[0]),
        size=float(matrices[:, :, OBJECT].sum() / matrices[:, OBJECT].sum()),
        seconds=seconds,
        prediction=logits.argmax(1).astype(np.uint8),
    )
