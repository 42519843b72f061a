"""Arguments of the losses as the operator `segprior::loss` wants them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor

from .._call import choice, flag, ignored_label, not_negative, number
from .._losses_call import ACTIVATIONS, NORMALISE, REDUCTIONS, TERMS
from .._losses_forward import at_least_one, fraction
from ..errors import InvalidTypeError, InvalidValueError, NotSupportedError
from ._define import apply
from ._loss_op import loss
from ._options import remembered, to_text
from ._tensors import leading, parameter_dtype, require_tensor, tensor_of

Numbers = Union[Tensor, Sequence[Any]]
_NARROW_LABELS = (torch.int8, torch.int16)
_INT32 = torch.iinfo(torch.int32)
# The checks of fields of segprior_loss_opts.
_RULES: dict[str, Callable[[str, Any], Any]] = {
    "dice_squared": flag,
    "dice_smooth_nr": not_negative,
    "dice_smooth_dr": not_negative,
    "dice_batch": flag,
    "focal_gamma": not_negative,
    "focal_dice_threshold": fraction,
    "focal_dice_gamma": at_least_one,
    "log_offset": not_negative,
}


class Outputs(NamedTuple):
    """Of the operator."""

    total: Tensor
    terms: Tensor
    items: Tensor
    voxels: Tensor
    report: Tensor
    saved: Tensor


def compute(
    scores: Tensor,
    weights: tuple[float, ...],
    activation: Optional[str],
    reduction: str,
    *,
    labels: tuple[Any, ...] = (None, None, None, False, None),
    mask: Optional[Tensor] = None,
    class_weights: Optional[Numbers] = None,
    bounds: tuple[Any, ...] = (None, None, None, None),
    alone: str = "",
    voxels: bool = False,
    **options: Any,
) -> Outputs:
    """Calls the operator.

    Args:
        weights: of the terms, in the order of `TERMS`.
        labels: labels, target, ignore_index, background, labelled. bounds: lower, upper, groups, normalise.
        alone: the term, if it is the only one. voxels: whether the loss of each voxel is wanted.
        options: other fields of segprior_loss_opts, as the caller has them.
    """
    scores = leading("scores", scores)  # first, so that a soft target keeps its digits
    given, target, ignore_index, background, labelled = labels
    lower, upper, groups, normalise = bounds
    text, on = _options(
        *(scores.shape[1], alone, activation, reduction, ignore_index, background, normalise, *weights),
        **options,
    )
    if given is not None and target is not None:
        raise InvalidValueError("labels and target are both given; give one of them")
    if given is None and target is None and on != ("size",):
        raise InvalidValueError("labels and target are both None; give one of them")
    if "size" in on and lower is None and upper is None:
        raise InvalidValueError("lower and upper are both None; the size penalty needs one of them")
    tensors = (
        scores,
        None if given is None else _labels(given, scores),
        None if target is None else _target(target, scores),
        None if mask is None else field("mask", mask, scores),
        None if labelled is None else field("labelled", labelled, scores),
        None if class_weights is None else _class_weights(class_weights, scores, rows=not alone),
        None if lower is None else bound("lower", lower, scores, groups is not None),
        None if upper is None else bound("upper", upper, scores, groups is not None),
        None if groups is None else _groups(groups, scores),
    )
    return Outputs(*apply(loss, *tensors, text, voxels))


@remembered
def _options(
    classes: int,
    alone: str,
    activation: Any,
    reduction: Any,
    ignore_index: Any,
    background: Any,
    normalise: Any,
    *weights: Any,
    **options: Any,
) -> tuple[str, tuple[str, ...]]:
    """Options as text, and the terms that are on."""
    checked = {
        field: _RULES[field](*_number(field.removeprefix("dice_").removeprefix(f"{alone}_"), value))
        for field, value in options.items()
    }
    factors = [number(*_number(term, weight)) for term, weight in zip(TERMS, weights)]
    for term, factor in zip(TERMS, factors):
        if not -math.inf < factor < math.inf:  # isfinite cannot be traced
            raise InvalidValueError(f"{term} = {factor}; it must be finite")
    on = tuple([term for term, factor in zip(TERMS, factors) if factor != 0])
    if not on:
        raise InvalidValueError(f"{', '.join(TERMS)} are all 0; one of these weights must be another number")
    if flag("background", background) and activation != "sigmoid":
        raise InvalidValueError("background is True; it is for activation='sigmoid', independent classes")
    text = to_text(
        weights=factors,
        activation=choice("activation", activation, ACTIVATIONS),
        reduction=choice("reduction", reduction, REDUCTIONS),
        ignore_label=ignored_label(ignore_index, classes + int(background)),
        background=bool(background),
        size_per_voxel=choice("normalise", normalise, NORMALISE),
        **checked,
    )
    return text, on


def _number(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, Tensor):  # which may require grad
        raise InvalidTypeError(f"{name} is a tensor; it must be a number: the losses have no gradient of it")
    return name, value


def _without_channel(value: Tensor, axes: int) -> Tensor:
    """[B, 1, *S] as [B, *S], where S has `axes` axes; anything else as it is."""
    return value.squeeze(1) if value.dim() == axes + 2 and value.shape[1] == 1 else value


def _labels(labels: Any, scores: Tensor) -> Tensor:
    labels = _without_channel(require_tensor("labels", labels), scores.dim() - 2)
    return labels.to(torch.int32) if labels.dtype in _NARROW_LABELS else labels


def _target(target: Any, scores: Tensor) -> Tensor:
    target = require_tensor("target", target)
    if target.requires_grad and torch.is_grad_enabled():
        raise NotSupportedError(
            "target requires grad, but the losses have no gradient of it; pass target.detach()"
        )
    if target.dtype in (torch.bool, torch.uint8):
        return target
    # Only where no digit is lost: whole numbers, and floats that the scores' dtype can hold.
    exact = not target.is_floating_point() or torch.promote_types(target.dtype, scores.dtype) == scores.dtype
    return target.to(scores.dtype) if exact else target


def field(name: str, value: Any, scores: Tensor) -> Tensor:
    """[*S], [1, *S], [B, *S] or [B, 1, *S] as [1, *S] or [B, *S]."""
    value = require_tensor(name, value)
    batch, _, *spatial = scores.shape
    if list(value.shape) == spatial:
        return value.unsqueeze(0)
    found = _without_channel(value, len(spatial))
    if list(found.shape) not in ([1, *spatial], [batch, *spatial]):
        raise InvalidValueError(
            f"{name} has shape {list(value.shape)}; it must be [*S], [1, *S] or [B, *S], here {spatial}, "
            f"{[1, *spatial]} or {[batch, *spatial]}"
        )
    return found


def parameter(name: str, value: Numbers, scores: Tensor) -> Tensor:
    """A tensor as it is, but for its dtype; numbers as a tensor on the scores' device."""
    dtype = parameter_dtype(scores)
    if not isinstance(value, Tensor):
        return tensor_of(name, value, "", dtype, scores.device)
    if not value.is_floating_point():
        raise InvalidTypeError(f"{name} has dtype {value.dtype}; it must be one of floating-point numbers")
    if value.device != scores.device:  # the library calls bounds by other names
        raise InvalidValueError(f"{name} lives on {value.device}; it must be on {scores.device}")
    return value.to(dtype)


def _class_weights(value: Numbers, scores: Tensor, rows: bool) -> Tensor:
    weights, classes = parameter("class_weights", value, scores), scores.shape[1]
    allowed = [[classes], [len(TERMS), classes]] if rows else [[classes]]
    if list(weights.shape) not in allowed:
        rule = " or ".join(map(str, allowed))
        raise InvalidValueError(f"class_weights has shape {list(weights.shape)}; it must be {rule}")
    return weights


def bound(name: str, value: Numbers, scores: Tensor, grouped: bool = False) -> Tensor:
    """[I], [1, I], [B, I] or, of groups, [G, I], as [1, I] or [B, I]."""
    given = parameter(name, value, scores)
    batch, classes = scores.shape[:2]
    found = given.unsqueeze(0) if given.dim() == 1 else given
    rows = found.shape[0] if found.dim() == 2 else -1
    if list(found.shape) != [rows, classes] or not (rows in (1, batch) or (grouped and 1 <= rows <= batch)):
        groups = ", or of G groups [G, I]" if grouped else ""
        raise InvalidValueError(
            f"{name} has shape {list(given.shape)}; it must be [I] or [B, I], here {[classes]} or "
            f"{[batch, classes]}{groups}"
        )
    if 1 < rows < batch:
        # Of groups without images, or NaN for a wrong group: its images then fail.
        return torch.nn.functional.pad(found, (0, 0, 0, batch - rows), value=float("nan"))
    return found


def _groups(groups: Any, scores: Tensor) -> Tensor:
    if not isinstance(groups, Tensor):
        groups = torch.tensor(groups, device=scores.device)
    if groups.dtype not in (torch.int32, torch.int64):
        raise InvalidTypeError(f"groups has dtype {groups.dtype}; it must be int32 or int64")
    return groups if groups.dtype == torch.int32 else groups.clamp(_INT32.min, _INT32.max).to(torch.int32)
