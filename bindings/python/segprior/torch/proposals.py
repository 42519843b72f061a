"""Latent proposals for torch tensors: `lagrangian_proposal`, `lagrangian_proposal_with_report`."""

from __future__ import annotations

from typing import NamedTuple, Optional

from torch import Tensor

from .._call import choice, integer, not_negative, positive
from ..proposals import METHODS
from ._loss_call import Numbers, bound, field
from ._options import to_text
from ._proposal_op import proposal
from ._tensors import leading
from .report import Report, read_report


class ProposalOutput(NamedTuple):
    """What `lagrangian_proposal_with_report` returns; constants all.

    Attributes:
        proposal: Q [B, I, *S] of the logits' dtype; 0 where masked.
        dual: f [B, I], float64 if the logits are, else float32; -inf for a class whose upper bound is 0.
        volume: sum_x Q_i [B, I], likewise.
        report: [B], how the iterations ended; the residual is how far, in voxels, `volume` is outside the
            bounds.
    """

    proposal: Tensor
    dual: Tensor
    volume: Tensor
    report: Report


def lagrangian_proposal(
    logits: Tensor,
    lower: Optional[Numbers] = None,
    upper: Optional[Numbers] = None,
    method: str = "exact",
    max_iters: int = 500,
    step: float = 5e-5,
    tol: float = 1e-6,
    mask: Optional[Tensor] = None,
) -> Tensor:
    """The segmentation Q nearest to a network's that has the sizes it should have ([CCNN]):
    ``Q = argmin KL(Q || softmax(logits))`` subject to ``lower_i <= sum_x Q_i <= upper_i`` over the simplex.

    Arguments and mathematics are those of `segprior.losses.lagrangian_proposal`; so are the values, bit for
    bit. Q is a constant, a target for the network: no gradient flows through it.

    >>> import torch, segprior.torch
    >>> logits = torch.randn(2, 3, 32, 32, requires_grad=True)
    >>> q = segprior.torch.lagrangian_proposal(logits, lower=[500, 100, 0], upper=[900, 300, 200])
    >>> q.requires_grad, (q.sum((2, 3))[:, 0] >= 499).all().item()
    (False, True)
    >>> segprior.torch.losses.cross_entropy(logits, target=q).backward()

    Args:
        logits: [B, I, *S], float32, float64, float16 or bfloat16. Under autocast 16-bit logits are converted
            to float32, and Q is float32.
        lower, upper: bounds in voxels: [I] for every image or [B, I]; numbers, or tensors, which are
            converted to float64 if the logits have that, else to float32. ``upper`` may hold inf. None: 0,
            inf.
        method, max_iters, step, tol: as in `segprior.losses.lagrangian_proposal`.
        mask: valid voxels, bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked. None: all valid.

    Raises:
        InvalidTypeError, InvalidValueError, DeviceError: as `segprior.losses.lagrangian_proposal` does.

    References:
        [CCNN] Pathak, Kraehenbuehl, Darrell, "Constrained convolutional neural networks for weakly supervised
        segmentation", arXiv 1506.03648.
    """
    return lagrangian_proposal_with_report(logits, lower, upper, method, max_iters, step, tol, mask).proposal


def lagrangian_proposal_with_report(
    logits: Tensor,
    lower: Optional[Numbers] = None,
    upper: Optional[Numbers] = None,
    method: str = "exact",
    max_iters: int = 500,
    step: float = 5e-5,
    tol: float = 1e-6,
    mask: Optional[Tensor] = None,
) -> ProposalOutput:
    """`lagrangian_proposal`, and its dual, its volumes and the report of its iterations, where infeasible
    bounds show."""
    logits = leading("logits", logits)
    options = to_text(
        method=choice("method", method, METHODS),
        iterations=integer("max_iters", max_iters, 0),
        step=positive("step", step),
        tolerance=not_negative("tol", tol),
    )
    bounds = [
        None if value is None else bound(name, value, logits)
        for name, value in (("lower", lower), ("upper", upper))
    ]
    valid = None if mask is None else field("mask", mask, logits)
    q, dual, volume, raw = proposal(logits, *bounds, valid, options)
    return ProposalOutput(q, dual, volume, read_report(raw))
