"""MONAI's DiceLoss and DiceCELoss, as its users call them: softmax and one-hot inside, gradients by autograd."""

from __future__ import annotations

from typing import Any, Callable

from segprior_bench import losses_problem
from segprior_bench.losses_problem import LossProblem

from . import losses_torch, torch_eager

NAME = "MONAI"
_LOSSES = {"Dice": "DiceLoss", "CE + Dice": "DiceCELoss"}


def unavailable(device: str) -> str | None:
    try:
        from monai import losses  # noqa: F401
    except Exception as error:
        return f"MONAI cannot be imported ({error})"
    return torch_eager.unavailable(device)


def supports(problem: LossProblem) -> bool:
    return problem.case in _LOSSES


def make(problem: LossProblem, device: str) -> Callable[[], Any]:
    import torch
    from monai import losses

    smooth = dict(smooth_nr=losses_problem.SMOOTH, smooth_dr=losses_problem.SMOOTH)
    loss = getattr(losses, _LOSSES[problem.case])(softmax=True, to_onehot_y=True, squared_pred=True, **smooth)
    logits, labels, *_ = losses_torch.tensors(problem, device)
    logits.requires_grad_()
    labels = labels[:, None]

    def forward_backward() -> Any:
        total = loss(logits, labels)
        (gradient,) = torch.autograd.grad(total, logits)
        return total.detach(), gradient

    return forward_backward
