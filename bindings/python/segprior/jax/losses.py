"""Losses of segmentation as JAX functions: `segprior.losses` with the same arguments, returning arrays.

>>> import jax, jax.numpy as jnp
>>> from segprior.jax import losses
>>> scores = jax.random.normal(jax.random.key(0), (2, 3, 16, 16))
>>> labels = jnp.ones((2, 16, 16), jnp.uint8)
>>> value, gradient = jax.value_and_grad(losses.dice)(scores, labels)
>>> value.shape, gradient.shape
((), (2, 3, 16, 16))

What the arguments mean is written there. Scores, class weights, lower and upper bounds have gradients if they
are JAX arrays; labels, soft targets and masks are constants. Class weights and bounds are converted to
float64 if the scores are, else float32; labels are bool, uint8, int32 or int64, groups int32. Numbers and
names are constants of the program. The value is of that real dtype: a scalar, or with ``reduction="none"``
[B, *S] of `cross_entropy` and `focal` and [B, I] of the others. An image that fails, for a label out of range
say, makes it NaN. First derivatives only.

`vmap` with ``reduction="none"`` is one call with more images (unless a shared argument is mapped or has a
gradient, or the batch or groups count as one image), else a loop of calls.

All raise as `segprior.jax.softmax` does. References: see `segprior.losses`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .. import _ffi
from .._call import IGNORE_INDEX, not_negative
from .._losses_call import TERMS, LossCall
from .._losses_forward import at_least_one, dice_options, fraction
from ..errors import InvalidValueError
from ._arguments import Given, dtype_name, fitted, is_array, saved_bytes, stand_in, varying_alike
from ._losses import Plan, evaluate

__all__ = [
    "combined",
    "cross_entropy",
    "dice",
    "focal",
    "focal_dice",
    "partial_cross_entropy",
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
) -> jax.Array:
    """Cross entropy, ``w_i sum_x t_i (-ln S_i)`` over the labelled voxels. Arguments: `segprior.losses`."""
    arguments = _labels(labels, target, ignore_index, background, labelled)
    options = {"log_offset": not_negative("log_offset", log_offset)}
    return _compute(
        scores, {"cross_entropy": 1.0}, activation, reduction, options, arguments, mask, class_weights
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
) -> jax.Array:
    """`cross_entropy` with ``reduction="sum"``, as [CC] section 3 has it for few labelled voxels."""
    return cross_entropy(**locals())


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
) -> jax.Array:
    """Focal loss, ``w_i sum_x t_i (1 - S_i)^gamma (-ln S_i)`` ([SC] eq. 26). Arguments:
    `segprior.losses.focal`."""
    arguments = _labels(labels, target, ignore_index, background, labelled)
    options = {
        "focal_gamma": not_negative("gamma", gamma),
        "log_offset": not_negative("log_offset", log_offset),
    }
    return _compute(scores, {"focal": 1.0}, activation, reduction, options, arguments, mask, class_weights)


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
) -> jax.Array:
    """Dice loss of each class ([SC] eq. 7). Arguments: `segprior.losses.dice`."""
    arguments = _labels(labels, target, ignore_index, background, labelled)
    options = dice_options(squared, smooth_nr, smooth_dr, batch)
    return _compute(scores, {"dice": 1.0}, activation, reduction, options, arguments, mask, class_weights)


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
) -> jax.Array:
    """`dice` of sharpened probabilities ([SC] eq. 28). Arguments: `segprior.losses.focal_dice`."""
    arguments = _labels(labels, target, ignore_index, background, labelled)
    options = {
        **dice_options(squared, smooth_nr, smooth_dr, batch),
        "focal_dice_threshold": fraction("threshold", threshold),
        "focal_dice_gamma": at_least_one("gamma", gamma),
    }
    return _compute(
        scores, {"focal_dice": 1.0}, activation, reduction, options, arguments, mask, class_weights
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
) -> jax.Array:
    """Penalty of classes that are too small or too large ([CC] eq. 3). Arguments:
    `segprior.losses.size_penalty`."""
    bounds = (lower, upper, groups, normalise)
    return _compute(
        scores, {"size": 1.0}, activation, reduction, {}, None, mask, class_weights, bounds=bounds
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
) -> jax.Array:
    """Weighted sum of the losses in one pass over the scores: a scalar. Arguments:
    `segprior.losses.combined`."""
    if reduction == "none":
        raise InvalidValueError("reduction is 'none'; combined has 'mean' and 'sum'")
    weights = {"size": size, "cross_entropy": cross_entropy, "focal": focal, "dice": dice}
    weights["focal_dice"] = focal_dice
    options = {
        **dice_options(squared, smooth_nr, smooth_dr, batch),
        "focal_gamma": not_negative("focal_gamma", focal_gamma),
        "focal_dice_threshold": fraction("focal_dice_threshold", focal_dice_threshold),
        "focal_dice_gamma": at_least_one("focal_dice_gamma", focal_dice_gamma),
        "log_offset": not_negative("log_offset", log_offset),
    }
    arguments = _labels(labels, target, ignore_index, background, labelled)
    bounds = (lower, upper, groups, normalise)
    return _compute(
        *(scores, weights, activation, reduction, options, arguments, mask, class_weights),
        bounds=bounds,
        rows=True,
    )


def _labels(labels: Any, target: Any, ignore_index: Any, background: Any, labelled: Any) -> dict[str, Any]:
    """The arguments of `LossCall.add_labels`."""
    return {
        "labels": labels,
        "target": target,
        "ignore_index": ignore_index,
        "background": background,
        "labelled": labelled,
    }


def _compute(
    scores: Any,
    weights: dict[str, Any],
    activation: Any,
    reduction: Any,
    options: dict[str, Any],
    labels: dict[str, Any] | None,
    mask: Any,
    class_weights: Any,
    bounds: tuple[Any, ...] = (None, None, None, None),
    rows: bool = False,
) -> jax.Array:
    """`options`: fields of segprior_loss_opts, checked; `bounds`: lower, upper, groups, normalise; `rows`:
    class weights may have one per term."""
    scores = jnp.asarray(scores) if is_array(scores) else scores
    call = LossCall(
        stand_in(scores) if is_array(scores) else scores, weights, activation, reduction, None, None
    )
    if not call.terms:
        raise InvalidValueError(f"{', '.join(TERMS)} are all 0; one of these weights must be another number")
    for name, value in options.items():
        setattr(call.opts, name, value)
    given = Given(scores)
    given.arrays["scores"] = scores
    if labels is not None:
        call.add_labels(
            **{
                name: given.array(name, value) if name in ("labels", "target", "labelled") else value
                for name, value in labels.items()
            }
        )
    call.add_mask(given.array("mask", mask))
    call.add_class_weights(given.numbers("class_weights", class_weights), rows)
    lower, upper, groups, normalise = bounds
    call.add_bounds(
        given.numbers("lower", lower), given.numbers("upper", upper), _groups(given, groups), normalise
    )
    arrays = {name: _fitted(name, array, call.views[name].shape) for name, array in given.arrays.items()}
    return _value(call, arrays)


def _groups(given: Given, groups: Any) -> Any:
    """As int32, which the library has, where they are integers."""
    if groups is None:
        return None
    found = jnp.asarray(groups)
    is_whole = jnp.issubdtype(found.dtype, jnp.integer)
    return given.keep("groups", found.astype(jnp.int32)) if is_whole else groups


def _fitted(name: str, array: Any, shape: tuple[int, ...]) -> Any:
    """Bounds of fewer groups than images get rows of NaN, which fail the image of a wrong group."""
    if name in ("lower", "upper") and array.ndim == 2 and 1 < array.shape[0] < shape[0]:
        return jnp.pad(array, ((0, shape[0] - array.shape[0]), (0, 0)), constant_values=jnp.nan)
    return fitted(array, shape)


def _value(call: LossCall, arrays: dict[str, Any]) -> jax.Array:
    lib, scores = _ffi.library(), arrays["scores"]
    size = saved_bytes(call, call.views.values(), lib.loss_saved_size, call.opts, call.inputs)
    shape: tuple[int, ...]
    if call.is_reduced:
        output, shape = "total", (1,)
    elif call.is_per_voxel:
        output, shape = "voxels", (call.batch, *call.spatial)
    else:
        output, shape = "items", (len(TERMS), call.batch, call.classes)
    plan = Plan(
        options=bytes(call.opts),
        scores=(tuple(scores.shape), dtype_name(scores)),
        output=output,
        value=(tuple(shape), "float64" if call.real == _ffi.FLOAT64 else "float32"),
        saved_bytes=size,
        pools_images=bool(call.is_reduced or call.opts.dice_batch or "groups" in arrays),
    )
    found = evaluate(plan, varying_alike(arrays))
    if output == "total":
        return found[0]
    return found[TERMS[call.terms[0]]] if output == "items" else found
