"""The named methods of the papers: `softmax` with the priors and the parameters of each.

| function     | priors                 | parameters of its paper                                        |
|--------------|------------------------|----------------------------------------------------------------|
| `tv_softmax` | TV                     | eps 0.5, lam 1, 30 iterations                                  |
| `vptv`       | TV, volume             | the same; eps 1 in a U-net, 0.01 for hand-made features        |
| `emtv`       | TV                     | eps 1; Gaussian mixture re-estimated between sweeps            |
| `std`        | threshold dynamics     | eps 1, lam 1, 7 x 7 kernel, sigma 5, start S(o), 10 iterations |
| `vp_std`     | TD, volume             | the same                                                       |
| `ss_std`     | TD, star shapes        | eps 0.1, lam 0.75, the same kernel and start, 50 iterations    |

Steps are `softmax`'s defaults, the largest stable ones: in 2-D the papers' eps / 2 (TV) and eps (one star
class). All take `softmax`'s other arguments by name and return its `Result`; `emtv` returns an `EMTV`.

[VPTV] arXiv 1909.09931; [STD] arXiv 2002.03989.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._call import integer
from .errors import InvalidValueError
from .mixture import Mixture, kmeans
from .priors import TV, Star, ThresholdDynamics, Volume
from .softmax import Result, softmax

__all__ = ["EMTV", "emtv", "ss_std", "std", "tv_softmax", "vp_std", "vptv"]


def tv_softmax(
    features: Any, eps: Any = 0.5, lam: Any = 1.0, iters: int = 30, *, edge: Any = None, **more: Any
) -> Result:
    """TV-softmax: `vptv` without volumes."""
    return softmax(features, eps, iters, tv=TV(lam, edge=edge), **more)


def vptv(
    features: Any,
    volume: Any,
    eps: Any = 0.5,
    lam: Any = 1.0,
    iters: int = 30,
    *,
    edge: Any = None,
    **more: Any,
) -> Result:
    """VPTV-softmax, [VPTV] Algorithm 1.

    Args:
        features: o [B, I, *S]. volume: voxels per class, [I] or [B, I], or a `Volume`.
        eps: ε > 0: 0.5 in the paper's DeepLab, 1 in its U-net, 0.01 for its hand-made features in [0, 1].
        lam: TV weight λ >= 0. iters: T. edge: e(x) of `TV`. more: further arguments of `softmax`.
    """
    return softmax(features, eps, iters, tv=TV(lam, edge=edge), volume=_volume(volume), **more)


def std(
    features: Any,
    eps: Any = 1.0,
    lam: Any = 1.0,
    iters: int = 10,
    *,
    size: int = 7,
    sigma: Any = 5.0,
    edge: Any = None,
    **more: Any,
) -> Result:
    """STD-softmax (soft threshold dynamics), [STD] Algorithm 1, started from S(o).

    Args:
        features: o [B, I, *S]. eps: ε > 0. iters: T.
        lam, size, sigma, edge: weight, kernel and edge field, as in `ThresholdDynamics`.
        more: further arguments of `softmax`.
    """
    td = ThresholdDynamics(lam, size, sigma, edge=edge)
    return softmax(features, eps, iters, td=td, **{"init_eps": 1.0, **more})


def vp_std(features: Any, volume: Any, **more: Any) -> Result:
    """VP-STD (volume-preserving STD), [STD] Algorithm 2: `std` with a volume prior.

    Args:
        features: o [B, I, *S]. volume: voxels per class, [I] or [B, I], or a `Volume`.
        more: arguments of `std` and `softmax`.
    """
    return std(features, volume=_volume(volume), **more)


def ss_std(
    features: Any, star: Sequence[Star], eps: Any = 0.1, lam: Any = 0.75, iters: int = 50, **more: Any
) -> Result:
    """SS-STD (star-shaped STD), [STD] Algorithm 3: `std` with star-shaped classes.

    Args:
        features: o [B, I, *S]. star: the star-shaped classes and their centres.
        eps: ε > 0. lam: weight λ >= 0 of threshold dynamics. iters: T.
        more: arguments of `std` and `softmax`.
    """
    return std(features, eps, lam, iters, star=star, **more)


def _volume(volume: Any) -> Volume:
    return volume if isinstance(volume, Volume) else Volume(volume)


@dataclasses.dataclass(frozen=True)
class EMTV:
    """Result of `emtv`.

    Attributes:
        u: class probabilities [I, *S]. mixture: the Gaussians that belong to it.
        sweeps: sweeps done. change: max |u - u of the sweep before|.
    """

    u: np.ndarray
    mixture: Mixture
    sweeps: int
    change: float


def emtv(
    image: np.ndarray,
    classes: int,
    lam: float = 1.0,
    *,
    channel_axis: int | None = None,
    sweeps: int = 50,
    iters: int = 30,
    tol: float = 1e-3,
    seed: int = 0,
    mask: Any = None,
    **more: Any,
) -> EMTV:
    """EMTV ([VPTV] section 6): a Gaussian mixture fitted by EM whose E-step is the TV-softmax with ε = 1.

    Starts from k-means. A sweep computes u from the features
    ``o_i = ln(weight_i N(h; mean_i, covariance_i))`` with `iters` iterations, started from the last sweep's
    dual, then re-estimates the mixture with u as responsibilities. With ``lam=0`` this is EM.

    Args:
        image: grey [*S], or with channels along `channel_axis`; real numbers, 1 to 3 spatial axes. Read and
            computed in float64 on the CPU.
        classes: number of classes, >= 2, ordered from dark to bright at the start.
        lam: TV weight λ >= 0, in nats per boundary voxel.
        sweeps: their cap, >= 1. tol: stop when ``max |u - u of the sweep before| < tol``. seed: of k-means.
        mask: [*S] or [1, *S], as in `softmax`; masked pixels are no part of the mixture and may be NaN.
        more: further arguments of `softmax`: spacing, threads, an edge-weighted ``tv``, ...

    Raises:
        InvalidValueError: fewer distinct values than classes, NaN in the image, or a value out of range.
    """
    pixels, spatial = _pixels(image, channel_axis)
    valid = np.ones(len(pixels), bool) if mask is None else np.asarray(mask, bool).ravel()
    if valid.size != len(pixels):
        raise InvalidValueError(f"mask has shape {np.shape(mask)}; it must be {spatial}")
    if not np.isfinite(pixels[valid]).all():
        raise InvalidValueError("image holds NaN or infinite values")
    pixels = np.where(valid[:, None], pixels, 0)
    sweeps = integer("sweeps", sweeps, 1)
    classes = integer("classes", classes, 2)
    # As wide as quantisation to 8 bits and a little more: no class can shrink to one value. In units of the
    # image, at the start too: a start wider than the image would make all classes one.
    floor = 1e-4 * float(np.ptp(pixels[valid])) ** 2
    mixture = kmeans(pixels[valid], classes, seed, floor=floor)
    arguments = {
        "tv": TV(lam),
        "checkpoint": 0,
        "mask": None if mask is None else valid.reshape(spatial),
        **more,
    }
    result: Result | None = None
    change = np.inf
    for done in range(1, sweeps + 1):
        features = mixture.log_likelihood(pixels).reshape(1, classes, *spatial)
        before = result
        result = softmax(features, 1.0, iters, warm_start=before, **arguments)
        u = result.u.reshape(classes, -1)
        change = np.inf if before is None else float(np.abs(result.u - before.u).max())
        mixture = Mixture.estimate(pixels, u, floor)
        if change < tol:
            break
    assert result is not None
    return EMTV(result.u[0], mixture, done, change)


def _pixels(image: Any, channel_axis: int | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """[J, C] and *S."""
    values = np.asarray(image, np.float64)
    values = values[..., None] if channel_axis is None else np.moveaxis(values, channel_axis, -1)
    if not 2 <= values.ndim <= 4:
        raise InvalidValueError(
            f"image has shape {np.shape(image)}; it must have 1 to 3 spatial axes, and its channels along "
            "`channel_axis`"
        )
    return np.ascontiguousarray(values).reshape(-1, values.shape[-1]), values.shape[:-1]
