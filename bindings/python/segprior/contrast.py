"""Edge weights for `softcut` from the contrast of an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._call import number
from .errors import InvalidTypeError, InvalidValueError

# The first and the second voxel of each edge of softcut's two `diagonals`, in an image [C, H, W].
_DIAGONALS = [
    (np.s_[:, :-1, :-1], np.s_[:, 1:, 1:]),
    (np.s_[:, :-1, 1:], np.s_[:, 1:, :-1]),
]


def contrast_edges(
    image: Any,
    weight: float = 1.0,
    beta: float | str = "auto",
    diagonals: bool = False,
    *,
    floor: float = 0.0,
    channel_axis: int | None = None,
    dtype: Any = np.float32,
) -> Any:
    """Edge weights that are small where an image changes: ``w = weight max(exp(-beta |dI|²), floor)``.

    |dI|² is the squared difference of the two voxels' values, added up over the channels; on diagonals the
    weight is divided by their length, sqrt(2).

    Args:
        image: real numbers, [*S] with 1 to 3 spatial axes, one axis more with `channel_axis`. Anything that
            NumPy reads.
        weight: w of an edge without contrast, >= 0.
        beta: >= 0, in units of 1 / image². "auto": ``1 / (2 mean |dI|²)``, the mean over all edges returned
            (Boykov and Jolly, Rother et al.); 0 for a flat image.
        diagonals: whether the diagonals of a 2-D image are returned as well.
        floor: 0 .. 1; keeps what strong edges enclose attached to its surroundings.
        channel_axis: the axis of the image that holds its channels; None: a grey image.
        dtype: float32, float64 or float16 of the result.

    Returns:
        The argument `edges` of `softcut` for one image: a tuple of arrays [1, 1, *S] with one entry less on
        an axis each. With ``diagonals=True`` the pair (edges, diagonals).

    Raises:
        InvalidTypeError, InvalidValueError: an argument is wrong; the text names it.
    """
    weight, floor = number("weight", weight), number("floor", floor)
    if not 0 <= weight < math.inf:
        raise InvalidValueError(f"weight = {weight}; it must be >= 0 and finite")
    if not 0 <= floor <= 1:
        raise InvalidValueError(f"floor = {floor}; it must be 0 .. 1")
    kind = np.dtype(dtype)
    if kind not in (np.float16, np.float32, np.float64):
        raise InvalidTypeError(f"dtype is {kind}; it must be float32, float64 or float16")
    contrast = _contrast(image, diagonals, channel_axis)
    rate = _rate(beta, contrast)
    axes = len(contrast) - 2 if diagonals else len(contrast)
    lengths = [1.0] * axes + [math.sqrt(2)] * 2
    found = [
        np.ascontiguousarray(weight / length * np.maximum(np.exp(-rate * c), floor)[None, None], kind)
        for c, length in zip(contrast, lengths)
    ]
    return (tuple(found[:axes]), tuple(found[axes:])) if diagonals else tuple(found)


def automatic_beta(image: Any, diagonals: bool = False, *, channel_axis: int | None = None) -> float:
    """The value of ``beta="auto"`` in `contrast_edges`."""
    return _rate("auto", _contrast(image, diagonals, channel_axis))


def _contrast(image: Any, diagonals: bool, channel_axis: int | None) -> list[np.ndarray]:
    """|dI|² of the edges along each axis, then of the diagonals."""
    values, axes = _channels_first(image, channel_axis)
    if diagonals and axes != 2:
        raise InvalidValueError(f"diagonals = True needs 2 spatial axes; image has {axes}")
    whole = slice(None)
    pairs: list[Any] = [
        ((whole,) * (1 + axis) + (slice(None, -1),), (whole,) * (1 + axis) + (slice(1, None),))
        for axis in range(axes)
    ]
    pairs += _DIAGONALS if diagonals else []
    return [((values[a] - values[b]) ** 2).sum(0) for a, b in pairs]


def _channels_first(image: Any, channel_axis: int | None) -> tuple[np.ndarray, int]:
    """The image as float64 [C, *S], and the number of its spatial axes."""
    try:
        values = np.asarray(image, np.float64)
        channels = values[None] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"image, channel_axis = {channel_axis!r}: {error}") from error
    axes = channels.ndim - 1
    if not 1 <= axes <= 3:
        raise InvalidValueError(
            f"image has shape {values.shape}, channel_axis = {channel_axis}; it must have 1 to 3 spatial axes"
        )
    if not np.isfinite(values).all():
        raise InvalidValueError("image holds NaN or infinite values; it must be finite")
    return channels, axes


def _rate(beta: float | str, contrast: list[np.ndarray]) -> float:
    if isinstance(beta, str):
        if beta != "auto":
            raise InvalidValueError(f"beta is {beta!r}; it must be a number >= 0 or 'auto'")
        mean = sum(c.sum() for c in contrast) / max(sum(c.size for c in contrast), 1)
        return float(1 / (2 * mean)) if mean > 0 else 0.0
    rate = number("beta", beta)
    if not 0 <= rate < math.inf:
        raise InvalidValueError(f"beta = {rate}; it must be >= 0 and finite, or 'auto'")
    return rate
