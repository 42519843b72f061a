"""A problem for the losses as tensors, and the calls that are made of it."""

from __future__ import annotations

from typing import Any, Optional

import torch

from segprior import losses as reference
from segprior.torch import losses

WEIGHTS = {"size": 0.01, "cross_entropy": 1.0, "focal": 0.7, "dice": -0.5, "focal_dice": 1.3}
#: name: the function of segprior.torch, that of segprior, and the arguments it takes beside scores and labels
CALLS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "cross_entropy": (losses.cross_entropy, reference.cross_entropy, ("labels",)),
    "partial_cross_entropy": (losses.partial_cross_entropy, reference.partial_cross_entropy, ("labels",)),
    "focal": (losses.focal, reference.focal, ("labels",)),
    "dice": (losses.dice, reference.dice, ("labels",)),
    "focal_dice": (losses.focal_dice, reference.focal_dice, ("labels",)),
    "size_penalty": (losses.size_penalty, reference.size_penalty, ("lower", "upper")),
    "combined": (losses.combined, reference.combined, ("labels", "lower", "upper")),
}
#: with a gradient
PARAMETERS = ("class_weights", "lower", "upper")


def make(
    shape: tuple[int, ...] = (2, 3, 5, 4),
    activation: Optional[str] = "softmax",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores, labels (some not known), bounds that some classes break, masks and weights."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> torch.Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64)

    count, classes, *spatial = shape
    scores = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (count, *spatial), generator=generator)
    labels[uniform(count, *spatial) < 0.1] = 255
    share = labels[0].numel() / classes
    lower = 2 * share * uniform(count, classes)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "scores": (scores.softmax(1) if activation is None else scores).to(dtype),
        "labels": labels,
        "lower": lower.to(real),
        "upper": (lower + share * uniform(count, classes)).to(real),
        "mask": uniform(count, *spatial) < 0.8,
        "labelled": uniform(count, *spatial) < 0.9,
        "class_weights": (0.5 + uniform(classes)).to(real),
        "activation": activation,
    }


def arguments_of(name: str, problem: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the call of this name."""
    taken = ["scores", "mask", "class_weights", "activation", *CALLS[name][2]]
    taken += ["labelled"] if "labels" in taken else []
    return {key: problem[key] for key in taken} | (WEIGHTS if name == "combined" else {})


def with_grad(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copies of the tensors, those with a gradient as leaves that require it."""
    return {
        key: value.clone().requires_grad_(key == "scores" or key in PARAMETERS)
        if isinstance(value, torch.Tensor)
        else value
        for key, value in arguments.items()
    }


def leaves(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in arguments.items() if isinstance(v, torch.Tensor) and v.requires_grad}
