"""`size_bounds`: bounds for the size penalty and for proposals, from the true sizes of the classes."""

from __future__ import annotations

import ctypes as ct
import math
from typing import Any, NamedTuple

from . import _ffi
from ._arrays import INTEGERS
from ._call import Work, choice, integer, number
from .errors import InvalidTypeError, InvalidValueError

__all__ = ["SizeBounds", "size_bounds"]

_KINDS = {
    "tags": _ffi.BOUNDS_TAGS,
    "common": _ffi.BOUNDS_COMMON,
    "individual": _ffi.BOUNDS_INDIVIDUAL,
}
_DTYPES = {"float32": _ffi.FLOAT32, "float64": _ffi.FLOAT64}


class SizeBounds(NamedTuple):
    """What `size_bounds` returns: arrays [B, I] in voxels, in the framework of the volumes."""

    lower: Any
    upper: Any


def size_bounds(
    volumes: Any,
    kind: str = "tags",
    *,
    voxels: int | None = None,
    factors: tuple[float, float] = (0.9, 1.1),
    dtype: str = "float32",
    threads: int | None = None,
    stream: int | None = None,
) -> SizeBounds:
    """Bounds of the sizes of classes from their true sizes V. A class with V = 0 is absent: its bounds are 0, 0.

    Args:
        volumes: V [B, I], int32 or int64, as `segprior.metrics.volumes` counts them.
        kind: what is known of the sizes. "tags": whether the class is there, bounds 1 and J ([CC] eq. 5);
            "common": ``low min V`` and ``high max V`` over the images that have the class ([CC] eq. 6);
            "individual": ``low V`` and ``high V`` ([CC] eq. 7).
        voxels: J >= 1, the voxels of an image; needed by "tags", not read by the others.
        factors: (low, high), finite, ``0 <= low <= high``; not read by "tags".
        dtype: "float32" or "float64", of the bounds: the latter if the scores are.
        threads, stream: as for the losses.

    Raises: as the losses.

    References: [CC] Kervadec et al., arXiv 1805.04628.
    """
    lib = _ffi.library()
    code = choice("kind", kind, _KINDS)
    real = choice("dtype", dtype, _DTYPES)
    if voxels is None and kind == "tags":
        raise InvalidValueError("voxels is None; kind 'tags' needs the number of voxels of an image")
    count = 0 if voxels is None else integer("voxels", voxels, 1, 63)
    if not isinstance(factors, (tuple, list)) or len(factors) != 2:
        raise InvalidTypeError(f"factors is {factors!r}; it must be a pair of numbers, (low, high)")
    low, high = (number(f"factors[{i}]", factor) for i, factor in enumerate(factors))
    if not 0 <= low <= high < math.inf:
        raise InvalidValueError(f"factors = {(low, high)}; they must be finite with 0 <= low <= high")
    work = Work(volumes, "volumes", INTEGERS, stream, threads)
    if len(work.lead.shape) != 2:
        raise InvalidValueError(f"volumes has shape {work.lead.shape}; it must be [B, I]")
    work.widen_lead(volumes)
    context = work.context()
    with work.framework.on_stream(work.stream):
        lower, lower_view = work.made("lower", work.lead.shape, real)
        upper, upper_view = work.made("upper", work.lead.shape, real)
        lib.check(
            lib.size_bounds(
                *(context.handle, code, ct.byref(work.lead.tensor), count, low, high),
                *(ct.byref(lower_view.tensor), ct.byref(upper_view.tensor)),
            )
        )
    work.hold(work.arrays, work.stream)
    return SizeBounds(work.framework.finish(lower), work.framework.finish(upper))
