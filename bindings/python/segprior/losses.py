"""Losses of segmentation with labels of any kind: full, partial, soft, or only the sizes of the classes.

Each function reads the scores once and returns a `LossResult`; its `backward` reads them once more.

>>> import numpy as np
>>> from segprior import losses
>>> random = np.random.default_rng(0)
>>> scores = random.normal(size=(2, 3, 16, 16)).astype(np.float32)
>>> labels = random.integers(0, 3, size=(2, 16, 16)).astype(np.uint8)
>>> labels[:, 4:] = 255  # not known
>>> r = losses.combined(scores, labels, cross_entropy=1.0, size=0.01, lower=[60, 0, 0], normalise="voxels")
>>> sorted(r.terms), r.backward().scores.shape
(['cross_entropy', 'size'], (2, 3, 16, 16))

Arguments that they have in common, for B images, I classes (1 .. 256), 1 to 3 spatial axes S. With S_i the
probability of class i at a voxel, y its label and t_i its target, 1 where y = i, else 0:

    scores: [B, I, *S], C-contiguous; float32, float64, float16 or bfloat16 (computed in float32 if 16-bit).
        NumPy (bfloat16: ml_dtypes), or any array with ``__dlpack__`` (torch, CuPy, JAX on the CPU); read in
        place, never copied. All results are of their framework, on their device.
    labels: y [B, *S] or [B, 1, *S], bool, uint8, int32 or int64: 0 .. I - 1 (0 .. I with `background`).
        Negative labels and `ignore_index` mean: not known.
    target: in place of labels t itself, [B, I, *S], of the scores' dtype (soft, >= 0), bool or uint8. A
        constant: no gradient.
    activation: "softmax": scores are logits, S their softmax over the classes. "sigmoid": scores are logits
        and the classes independent of one another, ``S = 1 / (1 + exp(-score))``; cross entropy and focal loss
        are then binary, with the term of 1 - t. None: scores are the probabilities S.
    reduction: "sum" (the C library's default): over images (groups) and classes. "mean": that divided by
        - size penalty: the pairs of an image (group) and a class of weight > 0 that have a bound;
        - cross entropy, focal loss: the weight ``sum w_i t_i`` of the labelled voxels. So too where t is soft
          (torch: their number) and for the focal loss (MONAI: B I J, J the voxels of an image). "sigmoid": the
          labelled voxels times the classes of weight > 0;
        - Dice losses: the pairs of an image with a labelled voxel and a class of weight > 0;
        and 0 where that is 0 (torch: NaN if nothing is labelled). "none": see `LossResult.value`.
    ignore_index: this label means: not known. 255 unless given, and none where 255 is a class. None: none but
        the negative ones.
    background: only with ``activation="sigmoid"``. False: t_i = 1 where y = i, as MONAI's sigmoid of one-hot
        labels has it. True: label 0 is a background without a channel, t_i = 1 where y = i + 1; what a binary
        network, one channel for the labels 0 and 1, needs. Not read with `target`.
    mask: valid voxels, bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked. A masked voxel takes part in nothing,
        whatever its scores hold (NaN too). None: all valid.
    labelled: likewise; 0: the label is not known, whatever `labels` or `target` say. None: they say it.
    class_weights: w >= 0, [I]; numbers, or an array of the scores' dtype (float32 if that has 16 bits). None: 1.
    log_offset: >= 0; with ``activation=None``, ln S is ``ln(S + log_offset)``.
    threads: CPU threads; None: the OpenMP default. The result does not depend on it.
    stream: a cudaStream_t as an integer to work on, which lives as long as the result; None: the current
        stream of the scores' framework. It waits for that stream's work on the arguments; to make others wait
        for the results is the caller's part.

An image with NaN or infinite scores, labels out of range, negative probabilities or targets (or targets that are
not finite, or uint8 above 1), or weights, bounds or groups outside their domain fails: its items and gradient are NaN, so is what sums over it, and `LossResult.info` says why.
The gradients of the other images do not change, but for `groups` and ``batch=True``.

All raise InvalidTypeError (a TypeError) for what is not an array of the dtypes above, InvalidValueError (a
ValueError) for a value, shape, stride or device, the text naming the argument; DeviceError, OutOfMemoryError,
LibraryError.

References: [CC] Kervadec et al., "Constrained-CNN losses for weakly supervised segmentation", arXiv 1805.04628.
[SC] Bonfiglio, "SoftCut", Politecnico di Milano, 2022.
"""

from __future__ import annotations

from typing import Any

from ._call import IGNORE_INDEX, not_negative
from ._losses_call import TERMS, LossCall
from ._losses_forward import at_least_one, compute, dice_options, fraction, label_arguments
from .errors import InvalidValueError
from .losses_result import LossGradients, LossResult
from .proposals import ProposalResult, lagrangian_proposal
from .size_bounds import SizeBounds, size_bounds

__all__ = [
    "LossGradients",
    "LossResult",
    "ProposalResult",
    "SizeBounds",
    "combined",
    "cross_entropy",
    "dice",
    "focal",
    "focal_dice",
    "lagrangian_proposal",
    "partial_cross_entropy",
    "size_bounds",
    "size_penalty",
]


def cross_entropy(
    scores: Any,
    labels: Any = None,
    *,
    target: Any = None,
    activation: str | None = "softmax",
    reduction: str = "mean",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    log_offset: float = 1e-10,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Cross entropy, ``w_i sum_x t_i (-ln S_i)`` over the labelled voxels. Arguments: see the module."""
    return compute(
        LossCall(scores, {"cross_entropy": 1.0}, activation, reduction, stream, threads),
        **label_arguments(labels, target, ignore_index, background, labelled, mask, class_weights),
        log_offset=not_negative("log_offset", log_offset),
    )


def partial_cross_entropy(
    scores: Any,
    labels: Any = None,
    *,
    target: Any = None,
    activation: str | None = "softmax",
    reduction: str = "sum",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    log_offset: float = 1e-10,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Cross entropy over the few voxels whose label is known, as [CC] section 3 has it: `cross_entropy` with
    ``reduction="sum"``. Arguments: see the module."""
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
        threads=threads,
        stream=stream,
    )


def focal(
    scores: Any,
    labels: Any = None,
    *,
    target: Any = None,
    gamma: float = 2.0,
    activation: str | None = "softmax",
    reduction: str = "mean",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    log_offset: float = 1e-10,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Focal loss, ``w_i sum_x t_i (1 - S_i)^gamma (-ln S_i)`` over the labelled voxels ([SC] eq. 26).

    Args:
        gamma: >= 0; 0 is the cross entropy.
        others: see the module.
    """
    return compute(
        LossCall(scores, {"focal": 1.0}, activation, reduction, stream, threads),
        **label_arguments(labels, target, ignore_index, background, labelled, mask, class_weights),
        focal_gamma=not_negative("gamma", gamma),
        log_offset=not_negative("log_offset", log_offset),
    )


def dice(
    scores: Any,
    labels: Any = None,
    *,
    target: Any = None,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    activation: str | None = "softmax",
    reduction: str = "mean",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Dice loss of each class, with sums over the labelled voxels ([SC] eq. 7):

        w_i (1 - (2 sum_x S_i t_i + smooth_nr) / (sum_x S_i² + sum_x t_i² + smooth_dr))

    Args:
        squared: False: S_i and t_i in place of their squares.
        smooth_nr, smooth_dr: >= 0. Where the denominator is 0, and in an image without a labelled voxel, there
            is no loss. With ``smooth_nr > 0 = smooth_dr`` a class that hardly occurs has a huge one.
        batch: True: the batch is one image.
        others: see the module.
    """
    return compute(
        LossCall(scores, {"dice": 1.0}, activation, reduction, stream, threads),
        **label_arguments(labels, target, ignore_index, background, labelled, mask, class_weights),
        **dice_options(squared, smooth_nr, smooth_dr, batch),
    )


def focal_dice(
    scores: Any,
    labels: Any = None,
    *,
    target: Any = None,
    threshold: float = 0.5,
    gamma: float = 2.0,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    activation: str | None = "softmax",
    reduction: str = "mean",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """`dice` of sharpened probabilities ([SC] eq. 28): with ``z = min(1, max(0, S - threshold + 1/2))``,
    ``z^gamma / (z^gamma + (1 - z)^gamma)`` in the place of S ([SC] eq. 27, whose printed minus is wrong).

    Args:
        threshold: 0 .. 1, the probability that becomes 1/2.
        gamma: >= 1; 1 with threshold 1/2 is `dice`.
        others: see `dice` and the module.
    """
    return compute(
        LossCall(scores, {"focal_dice": 1.0}, activation, reduction, stream, threads),
        **label_arguments(labels, target, ignore_index, background, labelled, mask, class_weights),
        **dice_options(squared, smooth_nr, smooth_dr, batch),
        focal_dice_threshold=fraction("threshold", threshold),
        focal_dice_gamma=at_least_one("gamma", gamma),
    )


def size_penalty(
    scores: Any,
    lower: Any = None,
    upper: Any = None,
    *,
    groups: Any = None,
    normalise: str | None = None,
    activation: str | None = "softmax",
    reduction: str = "mean",
    mask: Any = None,
    class_weights: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Penalty of classes that are too small or too large ([CC] eq. 3), with the size ``V_i = sum_x S_i``:

        w_i n (V_i - lower_i)²  if V_i < lower_i,    w_i n (V_i - upper_i)²  if V_i > upper_i,    else 0

    Args:
        lower, upper: bounds in voxels, ``lower <= upper``, one of them at least: [I] for every image or
            [B, I]; numbers, or an array of the scores' dtype (float32 if that has 16 bits). `size_bounds`
            makes them. ``upper`` may hold inf. None: 0, inf.
        groups: [B], integers 0 .. G - 1: images of the same group form one volume, slices of a scan say, and
            V is its size ([CC] 4.4); bounds are then [I] or [G, I]. None: each image is a group.
        normalise: None: n = 1; "voxels": n = 1 / J, J the voxels of an image, as [CC]'s published code has it.
            For 16-bit scores take "voxels": a voxel's gradient is 2 n times the voxels that the size is off,
            times at most 1/4, and float16 ends at 65504.
        others: see the module.
    """
    return compute(
        LossCall(scores, {"size": 1.0}, activation, reduction, stream, threads),
        mask=mask,
        class_weights=class_weights,
        bounds=(lower, upper, groups, normalise),
    )


def combined(
    scores: Any,
    labels: Any = None,
    *,
    size: float = 0.0,
    cross_entropy: float = 0.0,
    focal: float = 0.0,
    dice: float = 0.0,
    focal_dice: float = 0.0,
    target: Any = None,
    lower: Any = None,
    upper: Any = None,
    groups: Any = None,
    normalise: str | None = None,
    squared: bool = True,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    batch: bool = False,
    focal_gamma: float = 2.0,
    focal_dice_threshold: float = 0.5,
    focal_dice_gamma: float = 2.0,
    activation: str | None = "softmax",
    reduction: str = "mean",
    ignore_index: int | None = IGNORE_INDEX,
    background: bool = False,
    mask: Any = None,
    labelled: Any = None,
    class_weights: Any = None,
    log_offset: float = 1e-10,
    threads: int | None = None,
    stream: int | None = None,
) -> LossResult:
    """Weighted sum of the losses of this module in one pass over the scores.

    Args:
        size, cross_entropy, focal, dice, focal_dice: the weights of `size_penalty`, `cross_entropy`, `focal`,
            `dice` and `focal_dice`, any finite number, not all 0; a term of weight 0 is not computed.
        labels, target: neither is needed by `size` alone, and neither is then read.
        lower, upper, groups, normalise: of `size_penalty`, which needs a bound. With ``size=0`` their shapes and
            dtypes are checked, but they are not read, and gradients of bounds are 0.
        squared, smooth_nr, smooth_dr, batch: of `dice` and `focal_dice`.
        focal_gamma: of `focal`. focal_dice_threshold, focal_dice_gamma: of `focal_dice`.
        reduction: "mean" or "sum", of each term.
        class_weights: [I] for all terms, or [5, I]: a row each for size, cross_entropy, focal, dice, focal_dice.
        others: see the module.
    """
    if reduction == "none":
        raise InvalidValueError(
            "reduction is 'none'; combined has 'mean' and 'sum', and `items` of each term"
        )
    weights = {"size": size, "cross_entropy": cross_entropy, "focal": focal, "dice": dice}
    call = LossCall(scores, {**weights, "focal_dice": focal_dice}, activation, reduction, stream, threads)
    if not call.terms:
        raise InvalidValueError(f"{', '.join(TERMS)} are all 0; one of these weights must be another number")
    bounds = (lower, upper, groups, normalise)
    return compute(
        call,
        **label_arguments(labels, target, ignore_index, background, labelled, mask, class_weights),
        **dice_options(squared, smooth_nr, smooth_dr, batch),
        bounds=bounds,
        rows=True,
        focal_gamma=not_negative("focal_gamma", focal_gamma),
        focal_dice_threshold=fraction("focal_dice_threshold", focal_dice_threshold),
        focal_dice_gamma=at_least_one("focal_dice_gamma", focal_dice_gamma),
        log_offset=not_negative("log_offset", log_offset),
    )
