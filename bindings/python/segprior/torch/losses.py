"""The losses of `segprior.losses` as functions of tensors, connected to autograd.

>>> import torch
>>> from segprior.torch import losses
>>> scores = torch.randn(2, 3, 16, 16, requires_grad=True)
>>> labels = torch.randint(0, 3, (2, 16, 16))
>>> labels[:, 4:] = 255  # not known
>>> loss = losses.combined(scores, labels, cross_entropy=1.0, size=0.01, lower=[60, 0, 0], normalise="voxels")
>>> loss.backward()
>>> scores.grad.shape
torch.Size([2, 3, 16, 16])

Arguments, formulas and reductions are those of `segprior.losses`; what is different here:

    results: tensors; [] for "mean" and "sum", for "none" [B, *S] of the cross entropies and the focal loss
        and [B, I] of the others. Of the scores' dtype, float32 if that has 16 bits.
    gradients: of scores, class_weights, lower and upper, where these require them. class_weights have none
        with ``reduction="none"`` of the cross entropies and the focal loss. There are no second derivatives.
        A target or a number (a weight of a term, gamma, ...) that requires grad is an error.
    tensors: on one device; any strides (what is not contiguous is copied). labels may be int8 and int16 too,
        a target of any dtype that fits into the scores' without loss; class_weights, lower, upper of any
        floating-point dtype, or numbers. On CUDA pass tensors: numbers are copied to the device at each call.
    autocast: scores of 16 bits are computed in float32 from a float32 copy, as torch does for its losses.
        Without autocast they are read as they are, which is the same arithmetic in half the memory.
    threads: those of torch (`torch.get_num_threads`). On CUDA the work is queued on torch's current stream;
        nothing waits for it, and it can be captured in a CUDA graph.

A failed image (NaN scores, a label out of range, ...) makes the loss NaN; the status of
`combined_with_terms` tells which it was.

Raises: as `segprior.losses`, and NotSupportedError (a NotImplementedError) for derivatives that do not exist.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from .._call import IGNORE_INDEX
from .._losses_call import TERMS
from ..errors import InvalidValueError
from ._loss_call import Numbers, compute

__all__ = [
    "TERMS",
    "LossOutput",
    "combined",
    "combined_with_terms",
    "cross_entropy",
    "dice",
    "focal",
    "focal_dice",
    "partial_cross_entropy",
    "size_penalty",
]

_ALONE = {term: tuple([float(other == term) for other in TERMS]) for term in TERMS}


class LossOutput(NamedTuple):
    """What `combined_with_terms` returns; gradients flow through all but `status`.

    Attributes:
        value: the loss [].
        terms: [5], each term reduced and without its weight, in the order of `TERMS`; 0 where a term's weight
            is 0. Learned weights go ``(weights * output.terms).sum()``.
        items: [5, B, I], each term unreduced. Size penalties with `groups` have those in the rows of the
            images, Dice losses with ``batch=True`` the whole batch in row 0; the other rows are then 0.
        status: [B] int32, numbers of `segprior.Status`, on the scores' device: CONVERGED, or why an image
            failed.
    """

    value: Tensor
    terms: Tensor
    items: Tensor
    status: Tensor


def cross_entropy(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    target: Optional[Tensor] = None,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    log_offset: float = 1e-10,
) -> Tensor:
    """`segprior.losses.cross_entropy`, ``w_i sum_x t_i (-ln S_i)`` over the labelled voxels."""
    return _one_term(
        "cross_entropy",
        scores,
        activation,
        reduction,
        labels=(labels, target, ignore_index, background, labelled),
        mask=mask,
        class_weights=class_weights,
        log_offset=log_offset,
    )


def partial_cross_entropy(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    target: Optional[Tensor] = None,
    activation: Optional[str] = "softmax",
    reduction: str = "sum",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    log_offset: float = 1e-10,
) -> Tensor:
    """`segprior.losses.partial_cross_entropy`: `cross_entropy` with ``reduction="sum"``."""
    return cross_entropy(
        scores,
        labels,
        target=target,
        activation=activation,
        reduction=reduction,
        ignore_index=ignore_index,
        background=background,
        mask=mask,
        labelled=labelled,
        class_weights=class_weights,
        log_offset=log_offset,
    )


def focal(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    target: Optional[Tensor] = None,
    gamma: float = 2.0,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    log_offset: float = 1e-10,
) -> Tensor:
    """`segprior.losses.focal`, ``w_i sum_x t_i (1 - S_i)^gamma (-ln S_i)`` over the labelled voxels."""
    return _one_term(
        "focal",
        scores,
        activation,
        reduction,
        labels=(labels, target, ignore_index, background, labelled),
        mask=mask,
        class_weights=class_weights,
        focal_gamma=gamma,
        log_offset=log_offset,
    )


def dice(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    target: Optional[Tensor] = None,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
) -> Tensor:
    """`segprior.losses.dice`, of each class
    ``w_i (1 - (2 sum_x S_i t_i + smooth_nr) / (sum_x S_i² + sum_x t_i² + smooth_dr))``."""
    return _one_term(
        "dice",
        scores,
        activation,
        reduction,
        labels=(labels, target, ignore_index, background, labelled),
        mask=mask,
        class_weights=class_weights,
        dice_squared=squared,
        dice_smooth_nr=smooth_nr,
        dice_smooth_dr=smooth_dr,
        dice_batch=batch,
    )


def focal_dice(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    target: Optional[Tensor] = None,
    threshold: float = 0.5,
    gamma: float = 2.0,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
) -> Tensor:
    """`segprior.losses.focal_dice`: `dice` of sharpened probabilities."""
    return _one_term(
        "focal_dice",
        scores,
        activation,
        reduction,
        labels=(labels, target, ignore_index, background, labelled),
        mask=mask,
        class_weights=class_weights,
        dice_squared=squared,
        dice_smooth_nr=smooth_nr,
        dice_smooth_dr=smooth_dr,
        dice_batch=batch,
        focal_dice_threshold=threshold,
        focal_dice_gamma=gamma,
    )


def size_penalty(
    scores: Tensor,
    lower: Optional[Numbers] = None,
    upper: Optional[Numbers] = None,
    *,
    groups: Optional[Numbers] = None,
    normalise: Optional[str] = None,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    mask: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
) -> Tensor:
    """`segprior.losses.size_penalty`, ``w_i n (V_i - bound_i)²`` where the size V_i is out of bounds."""
    return _one_term(
        "size",
        scores,
        activation,
        reduction,
        mask=mask,
        class_weights=class_weights,
        bounds=(lower, upper, groups, normalise),
    )


def combined(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    size: float = 0.0,
    cross_entropy: float = 0.0,
    focal: float = 0.0,
    dice: float = 0.0,
    focal_dice: float = 0.0,
    target: Optional[Tensor] = None,
    lower: Optional[Numbers] = None,
    upper: Optional[Numbers] = None,
    groups: Optional[Numbers] = None,
    normalise: Optional[str] = None,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    focal_gamma: float = 2.0,
    focal_dice_threshold: float = 0.5,
    focal_dice_gamma: float = 2.0,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    log_offset: float = 1e-10,
) -> Tensor:
    """`segprior.losses.combined`: the weighted sum of this module's losses in one pass over the scores."""
    return combined_with_terms(
        scores,
        labels,
        size=size,
        cross_entropy=cross_entropy,
        focal=focal,
        dice=dice,
        focal_dice=focal_dice,
        target=target,
        lower=lower,
        upper=upper,
        groups=groups,
        normalise=normalise,
        squared=squared,
        smooth_nr=smooth_nr,
        smooth_dr=smooth_dr,
        batch=batch,
        focal_gamma=focal_gamma,
        focal_dice_threshold=focal_dice_threshold,
        focal_dice_gamma=focal_dice_gamma,
        activation=activation,
        reduction=reduction,
        ignore_index=ignore_index,
        background=background,
        mask=mask,
        labelled=labelled,
        class_weights=class_weights,
        log_offset=log_offset,
    ).value


def combined_with_terms(
    scores: Tensor,
    labels: Optional[Tensor] = None,
    *,
    size: float = 0.0,
    cross_entropy: float = 0.0,
    focal: float = 0.0,
    dice: float = 0.0,
    focal_dice: float = 0.0,
    target: Optional[Tensor] = None,
    lower: Optional[Numbers] = None,
    upper: Optional[Numbers] = None,
    groups: Optional[Numbers] = None,
    normalise: Optional[str] = None,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    focal_gamma: float = 2.0,
    focal_dice_threshold: float = 0.5,
    focal_dice_gamma: float = 2.0,
    activation: Optional[str] = "softmax",
    reduction: str = "mean",
    ignore_index: Optional[int] = IGNORE_INDEX,
    background: bool = False,
    mask: Optional[Tensor] = None,
    labelled: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    log_offset: float = 1e-10,
) -> LossOutput:
    """`combined`, and the value of each of its terms."""
    if reduction == "none":
        raise InvalidValueError("reduction is 'none'; there are 'mean' and 'sum', and the items")
    found = compute(
        scores,
        (size, cross_entropy, focal, dice, focal_dice),
        activation,
        reduction,
        labels=(labels, target, ignore_index, background, labelled),
        mask=mask,
        class_weights=class_weights,
        bounds=(lower, upper, groups, normalise),
        dice_squared=squared,
        dice_smooth_nr=smooth_nr,
        dice_smooth_dr=smooth_dr,
        dice_batch=batch,
        focal_gamma=focal_gamma,
        focal_dice_threshold=focal_dice_threshold,
        focal_dice_gamma=focal_dice_gamma,
        log_offset=log_offset,
    )
    return LossOutput(found.total, found.terms, found.items, found.report.view(torch.int32)[:, 0])


def _one_term(
    term: str, scores: Tensor, activation: Optional[str], reduction: str, **arguments: Any
) -> Tensor:
    """The loss of one term, as `reduction` wants it."""
    per_voxel = reduction == "none" and term in ("cross_entropy", "focal")
    found = compute(scores, _ALONE[term], activation, reduction, alone=term, voxels=per_voxel, **arguments)
    if per_voxel:
        return found.voxels
    return found.items[TERMS[term]] if reduction == "none" else found.total
