"""PyTorch, eager: the losses as a good user of the framework writes them, gradients by autograd.

Labels are given as int64, which the framework's functions want: the conversion is not in the time.
"""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench import losses_problem
from segprior_bench.losses_problem import LossProblem

from .torch_eager import unavailable  # noqa: F401  part of a rival's interface

NAME = "torch eager"


def supports(problem: LossProblem) -> bool:
    return True


def _dice(s: Any, t: Any, axes: list[int]) -> Any:
    """Mean over images and classes, squares in the denominator."""
    smooth = losses_problem.SMOOTH
    fraction = (2 * (s * t).sum(axes) + smooth) / ((s * s).sum(axes) + t.sum(axes) + smooth)
    return (1 - fraction).mean()


def loss(weights: dict[str, float], logits: Any, labels: Any, lower: Any, upper: Any) -> Any:
    """Terms share the softmax and the one-hot labels."""
    import torch
    from torch.nn import functional as F

    ignored, total = losses_problem.IGNORED, 0
    axes = list(range(2, logits.ndim))
    if list(weights) == ["cross_entropy"]:
        return weights["cross_entropy"] * F.cross_entropy(logits, labels, ignore_index=ignored)
    if "cross_entropy" in weights or "focal" in weights:
        log_s = torch.log_softmax(logits, 1)
        s = log_s.exp()
    else:
        s = torch.softmax(logits, 1)
    if "cross_entropy" in weights:
        total = total + weights["cross_entropy"] * F.nll_loss(log_s, labels, ignore_index=ignored)
    if "focal" in weights:
        log_true = log_s.gather(1, labels[:, None])
        focal = -((1 - log_true.exp()) ** losses_problem.FOCAL_GAMMA) * log_true
        total = total + weights["focal"] * focal.mean()
    if "dice" in weights or "focal_dice" in weights:
        target = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
    if "dice" in weights:
        total = total + weights["dice"] * _dice(s, target, axes)
    if "focal_dice" in weights:
        z = (s - losses_problem.FOCAL_DICE_THRESHOLD + 0.5).clamp(0, 1)
        near, far = z**losses_problem.FOCAL_DICE_GAMMA, (1 - z) ** losses_problem.FOCAL_DICE_GAMMA
        total = total + weights["focal_dice"] * _dice(near / (near + far), target, axes)
    if "size" in weights:
        size = s.sum(axes)
        outside = torch.relu(lower - size) ** 2 + torch.relu(size - upper) ** 2
        total = total + weights["size"] * outside.mean() / logits[0, 0].numel()
    return total


def tensors(problem: LossProblem, device: str) -> list[Any]:
    """Logits, int64 labels, bounds."""
    import torch

    arrays = (problem.scores, problem.labels.astype("int64"), *problem.bounds)
    return [torch.from_numpy(a).to(device) for a in arrays]


def make(problem: LossProblem, device: str, function: Callable[..., Any] = loss) -> Callable[[], Any]:
    """`function`: a compiled `loss`."""
    import torch

    logits, labels, lower, upper = tensors(problem, device)
    logits.requires_grad_()

    def forward_backward() -> Any:
        total = function(problem.weights, logits, labels, lower, upper)
        (gradient,) = torch.autograd.grad(total, logits)
        return total.detach(), gradient

    return forward_backward
