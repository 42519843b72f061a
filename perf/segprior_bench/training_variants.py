"""The layers that end the U-Net, with the parameters of their papers, and what each is told of a test image.

Every layer maps the network's outputs to class probabilities u [B, 3, H, W]; the loss is that of u, whichever layer
made it. A model is trained once per layer; where a layer uses knowledge of the image (volumes, a
centre), training gets the true one, and the test is made with the true one and again with what is to be had without it.

[VPTV] arXiv 1909.09931; [STD] arXiv 2002.03989; [SC] Bonfiglio, SoftCut, 2022.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, NamedTuple

import torch
from segprior import TV, Star, ThresholdDynamics, Volume, metrics
from segprior import torch as priors

from .training_cells import CLASSES, NUCLEUS

FLOAT32_TOLERANCE = 1e-5  # of the linear solves; rounding allows no smaller one with weights of a hundred


class Known(NamedTuple):
    """What a layer may be told of each image: volumes in pixels, [B, 3] or [3], centers [B, 2] of the nuclei."""

    volumes: torch.Tensor
    centers: torch.Tensor


Layer = Callable[[torch.Tensor, Known], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Test:
    """A row of the table: a trained network with `layer` on top."""

    name: str
    layer: Layer
    told: str = ""  # what the layer is told of the test image that plain softmax is not


@dataclasses.dataclass(frozen=True)
class Variant:
    """`layer` is trained with.

    channels: of the network's output. exact: the same layer with its exact gradient, if `layer` has another.
    """

    name: str
    layer: Layer
    tests: tuple[Test, ...]
    channels: int = CLASSES
    exact: Layer | None = None


def plain(outputs: torch.Tensor, _: Known) -> torch.Tensor:
    return outputs.softmax(1)


def tv(outputs: torch.Tensor, _: Known) -> torch.Tensor:
    """TV-softmax with [VPTV]'s numbers for a U-net."""
    return priors.softmax(outputs, 1.0, 30, tv=TV(1.0))


def vptv(outputs: torch.Tensor, known: Known) -> torch.Tensor:
    """[VPTV] Algorithm 1."""
    return priors.softmax(outputs, 1.0, 30, tv=TV(1.0), volume=Volume(known.volumes))


def std(outputs: torch.Tensor, _: Known) -> torch.Tensor:
    """[STD] Algorithm 1."""
    return priors.softmax(outputs, 1.0, 10, init_eps=1.0, td=ThresholdDynamics(1.0, size=7, sigma=5.0))


def ss_std(outputs: torch.Tensor, known: Known) -> torch.Tensor:
    """[STD] Algorithm 3; the nucleus is star-shaped."""
    td, star = ThresholdDynamics(0.75, size=7, sigma=5.0), [Star(NUCLEUS, known.centers)]
    return priors.softmax(outputs, 0.1, 50, init_eps=1.0, td=td, star=star)


def ss_std_unaided(outputs: torch.Tensor, known: Known) -> torch.Tensor:
    """The same about a centre found by itself: the middle of the largest nucleus that there is without the star."""
    td = ThresholdDynamics(0.75, size=7, sigma=5.0)
    found = priors.softmax(outputs, 0.1, 50, init_eps=1.0, td=td).argmax(1) == NUCLEUS
    return ss_std(outputs, known._replace(centers=middles(found)))


def middles(found: torch.Tensor) -> torch.Tensor:
    """Centre of mass [B, 2] of the largest component of each map of `found`, bool [B, H, W]; the image's if none."""
    pieces = metrics.components(found).labels
    centers = torch.empty(len(found), 2)
    for n, labels in enumerate(pieces):
        sizes = torch.bincount(labels.flatten())
        sizes[0] = 0
        largest = labels == sizes.argmax()  # of an empty map: 0, which is everywhere
        centers[n] = largest.nonzero().float().mean(0)
    return centers


def softcut(outputs: torch.Tensor, _: Known) -> torch.Tensor:
    """[SC] for several classes: three plain softmax scores and two edge weights of every pixel, one to the pixel
    below, one to the pixel on the right. The classes share the edges, so that x adds up to 1 like the scores."""
    return _softcut(outputs, None)


def softcut_one_step(outputs: torch.Tensor, _: Known) -> torch.Tensor:
    """The same, but the backward solve stops after one step of conjugate gradients."""
    return _softcut(outputs, 1)


def _softcut(outputs: torch.Tensor, backward_steps: int | None) -> torch.Tensor:
    scores, heads = outputs[:, :CLASSES].softmax(1), outputs[:, CLASSES:]
    weights = 100 * torch.sigmoid(heads - 3)  # 0 .. 100, about 5 at the start
    return priors.softcut(
        scores,
        (weights[:, :1, :-1], weights[:, 1:, :, :-1]),
        solver="cg",
        tol=FLOAT32_TOLERANCE,
        backward_tol=FLOAT32_TOLERANCE,
        backward_max_iters=backward_steps,
    )


def variants(mean_volumes: torch.Tensor) -> list[Variant]:
    """`mean_volumes`: [3], of the training set."""

    def vptv_of_the_mean(outputs: torch.Tensor, known: Known) -> torch.Tensor:
        return vptv(outputs, known._replace(volumes=mean_volumes))

    true_volumes, true_center = "true volumes", "true centre"
    return [
        Variant(
            "softmax",
            plain,
            (
                Test("softmax", plain),
                Test("softmax; TV at test only", tv),
                Test("softmax; STD at test only", std),
                Test("softmax; VPTV at test only", vptv, true_volumes),
            ),
        ),
        Variant("TV", tv, (Test("TV-softmax", tv),)),
        Variant(
            "VPTV",
            vptv,
            (
                Test("VPTV-softmax", vptv, true_volumes),
                Test("VPTV-softmax, mean volumes", vptv_of_the_mean),
            ),
        ),
        Variant("STD", std, (Test("STD-softmax", std),)),
        Variant(
            "SS-STD",
            ss_std,
            (Test("SS-STD", ss_std, true_center), Test("SS-STD, centre found", ss_std_unaided)),
        ),
        Variant("SoftCut", softcut, (Test("SoftCut", softcut),), CLASSES + 2),
        Variant(
            "one-step",
            softcut_one_step,
            (Test("SoftCut, one-step backward", softcut),),
            CLASSES + 2,
            exact=softcut,
        ),
    ]
