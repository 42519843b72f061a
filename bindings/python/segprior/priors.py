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
            accelerated, half again with star classes. A larger step is allowed and may oscillate.
        edge: weight e(x) >= 0 per voxel, array [*S], [1, *S] or [B, *S], float64 if the features are, else
            float32. None: 1.
    """

    lam: Any = 1.0
    tau: Any = None
    edge: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """Volume of each class, in voxels: ``sum_x u_i(x) = V_i`` ([VPTV] eq. 7) or two-sided bounds ([STD] 4.2).

    ``Volume(v)`` prescribes volumes; they should add up to the voxel count J of an image, masked voxels not
    counted (otherwise the result is the one for V scaled to J, and `info` says `INFEASIBLE_VOLUME`).
    ``Volume(lower=a, upper=b)`` bounds them; either may be left out. A class with volume (or upper bound)
    0 is excluded: ``u_i = 0``.

    Attributes:
        v, lower, upper: [I] for every image or [B, I]; a sequence of numbers, or an array on the features'
            device, float64 if they are, else float32. ``upper`` may hold inf.
    """

    v: Any = None
    lower: Any = None
    upper: Any = None

    def __post_init__(self) -> None:
        if self.v is not None and (self.lower is not None or self.upper is not None):
            raise InvalidValueError("volume: give either volumes or bounds (lower, upper), not both")
        if self.v is None and self.lower is None and self.upper is None:
            raise InvalidValueError("volume: give volumes, or lower and/or upper bounds")


@dataclasses.dataclass(frozen=True, eq=False)
class ThresholdDynamics:
    """Threshold dynamics: adds ``lam * <edge u, k * (1 - u)>`` to the energy ([STD] Algorithm 1, Appendix A).

    ``k * (1 - u)`` is the heat that leaves a class through its boundary; for a narrow kernel the term grows
    with the boundary's length. It is linearised at the last iterate in each iteration. With ``lam > eps`` the
    energy need not be convex: together with TV or star shapes some voxels of a boundary may then flip for
    ever, and the residual stays above any `tol`.

    Attributes:
        lam: weight λ >= 0, in units of the features; a float or a one-element array on their device.
        size: voxels per axis of the Gaussian kernel ``exp(-|d|^2 / (2 sigma^2))``, sum 1: odd, 1 .. 15.
        sigma: its width in voxels, > 0; a float or a one-element array on the features' device.
        kernel: any other kernel instead: [*K] or, one per class, [I, *K], each extent odd, 1 .. 15, in the
            order of the spatial axes; applied as a correlation with zero padding. An array on the features'
            device (float64 if they are, else float32), or nested sequences of numbers. `size` and `sigma`
            are unused then.
        edge: weight e'(x) >= 0 per voxel, array [*S], [1, *S] or [B, *S] of that dtype. None: 1.
    """

    lam: Any = 1.0
    size: int = 7
    sigma: Any = 5.0
    kernel: Any = None
    edge: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Star:
    """Class `cls` is star-shaped about `center` ([STD] Algorithm 3): u rises along every ray to the centre.

    The constraint is ``s . grad u >= 0`` with s(x) the unit vector from x to the centre.

    Attributes:
        cls: class, 0 .. I-1; no class has two stars.
        center: voxel indices in the order of the spatial axes (0 is the middle of the first voxel; any finite
            position): [nd] for every image or [B, nd]; a sequence of numbers, or an array on the features'
            device, float64 if they are, else float32.
        tau: step of the dual iteration > 0, a float or a one-element array, given for all stars or for none.
            None: the largest stable one, ``2 eps / sum_d h_d**-2`` for one star class (`eps` in 2-D with unit
            spacing, [STD]'s value), half of that for several; half again with TV and half again if
            accelerated.
    """

    cls: int
    center: Any
    tau: Any = None
