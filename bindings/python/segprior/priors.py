"""The priors of the entropic softmax. They only hold what the caller gives; `softmax` checks it."""

from __future__ import annotations

import dataclasses
from typing import Any

from .errors import InvalidValueError


@dataclasses.dataclass(frozen=True, eq=False)
class TV:
    """Total variation: adds ``lam * sum_x edge(x) |grad u|(x)`` to the energy ([VPTV] eq. 5; [STD] for edge).

    Attributes:
        lam: weight λ >= 0, in units of the features; a float or a one-element array on their device.
        tau: step of the dual iteration > 0, a float or a one-element array. None: the largest stable one,
            ``eps / sum_d h_d**-2`` (`eps / 2` in 2-D with unit spacing, the papers' value), half of that when
            accelerated. A larger step is allowed and may oscillate.
        edge: weight e(x) >= 0 per voxel, array [*S], [1, *S] or [B, *S] of the features' dtype. None: 1.
    """

    lam: Any = 1.0
    tau: Any = None
    edge: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """Volume of each class, in voxels: ``sum_x u_i(x) = V_i`` ([VPTV] eq. 7) or two-sided bounds ([STD] 4.2).

    ``Volume(v)`` prescribes volumes; they should add up to the voxel count J of an image (otherwise the
    result is the one for V scaled to J, and `info` says `INFEASIBLE_VOLUME`). ``Volume(lower=a, upper=b)`` bounds
    them; either may be left out. A class with volume (or upper bound) 0 is excluded: ``u_i = 0``.

    Attributes:
        v, lower, upper: [I] for every image or [B, I]; an array of the features' dtype and device, or a
            sequence of numbers. ``upper`` may hold inf.
    """

    v: Any = None
    lower: Any = None
    upper: Any = None

    def __post_init__(self) -> None:
        if self.v is not None and (self.lower is not None or self.upper is not None):
            raise InvalidValueError("volume: give either volumes or bounds (lower, upper), not both")
        if self.v is None and self.lower is None and self.upper is None:
            raise InvalidValueError("volume: give volumes, or lower and/or upper bounds")
