"""Segmentation of one image by k-means similarity and the entropic softmax ([VPTV] section 6).

Intensities in [0, 1]; class means (and covariances) by k-means; similarity ``c_i = |h - m_i|^2``, or the
Mahalanobis distance; features ``o = -c``; the accelerated iteration down to a tolerance; label = argmax of u.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from . import images
from .errors import InvalidValueError
from .mixture import kmeans
from .priors import TV, Star, ThresholdDynamics, Volume
from .report import Status
from .softmax import Result, softmax

METRICS = ("euclidean", "mahalanobis")
# Each chunk starts without momentum, when steps are short: a check that comes too early would take that for
# convergence (seen at every 10th iteration; gone at every 50th).
_CHECK_INTERVAL = 50


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compute. Defaults are the command line's.

    Attributes:
        classes: number of classes I, 2 .. 256, ordered from dark to bright.
        volume: fraction of the image per class, sum 1; None: no volume prior.
        volume_bounds: (lower, upper) fraction of the image per class instead; None: none.
        eps: entropy weight ε > 0; small gives crisp maps.
        tv: TV weight λ >= 0; 0: without.
        threshold_dynamics: weight λ >= 0 of threshold dynamics; 0: without.
        td_size, td_sigma: its Gaussian kernel: pixels per axis (odd, 1 .. 15), width in pixels.
        star: (x, y, class) of each star-shaped class: x the column, y the row of its centre, from 0.
        edge: β >= 0 of the edge function ``e = 1 / (1 + β |∇(k * h)|)``; 0: e = 1.
        edge_sigma: width of the Gaussian k in pixels.
        metric: "euclidean" (squared) or "mahalanobis".
        spacing: pixel size (row, column).
        tol: stop when ``max |u_(t+1) - u_t| < tol``.
        iters: cap of the iterations.
        chunk: iterations between two reports of progress. The momentum starts anew with each. With
            threshold dynamics, which duals alone cannot continue, all iterations are one chunk.
        seed: of k-means.
        threads: CPU threads; None: all.
    """

    classes: int = 2
    volume: Sequence[float] | None = None
    volume_bounds: Sequence[tuple[float, float]] | None = None
    eps: float = 0.05
    tv: float = 0.1
    threshold_dynamics: float = 0.0
    td_size: int = 7
    td_sigma: float = 5.0
    star: Sequence[tuple[float, float, int]] = ()
    edge: float = 0.0
    edge_sigma: float = 1.0
    metric: str = "euclidean"
    spacing: tuple[float, float] = (1.0, 1.0)
    tol: float = 1e-3
    iters: int = 2000
    chunk: int = 500
    seed: int = 0
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Result of `segment`.

    Attributes:
        labels: class of each pixel, uint8 [H, W]. u: class probabilities, float32 [I, H, W].
        asked: (lower, upper) volume fraction per class, equal where a volume is prescribed; None without a
            volume prior. reached: ``mean_x u_i``.
        labelled: fraction of pixels whose label is the class.
        status, iterations, residual: how the iteration ended. seconds: time of the iteration.
    """

    labels: np.ndarray
    u: np.ndarray
    asked: list[tuple[float, float]] | None
    reached: np.ndarray
    labelled: np.ndarray
    status: Status
    iterations: int
    residual: float
    seconds: float


def check(settings: Settings) -> None:
    """Raises InvalidValueError with one clear sentence if the settings cannot work."""
    if not 2 <= settings.classes <= 256:
        raise InvalidValueError(f"classes = {settings.classes}; it must be 2 .. 256")
    for name in ("eps", "tol", "edge_sigma", "td_sigma"):
        if not 0 < getattr(settings, name) < np.inf:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be > 0 and finite")
    for name in ("tv", "edge", "threshold_dynamics"):
        if not 0 <= getattr(settings, name) < np.inf:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be >= 0 and finite")
    for name in ("iters", "chunk"):
        if getattr(settings, name) < 1:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be >= 1")
    if len(settings.spacing) != 2 or not all(0 < h < np.inf for h in settings.spacing):
        raise InvalidValueError(
            f"spacing = {settings.spacing}; it must be two positive numbers (row, column)"
        )
    if settings.metric not in METRICS:
        raise InvalidValueError(f"metric = {settings.metric!r}; it must be one of {', '.join(METRICS)}")
    if settings.td_size % 2 != 1 or not 1 <= settings.td_size <= 15:
        raise InvalidValueError(f"td_size = {settings.td_size}; it must be odd, 1 .. 15")
    if settings.volume is not None and settings.volume_bounds is not None:
        raise InvalidValueError("volume and volume_bounds are both given; they exclude each other")
    if settings.volume is not None:
        _check_volume(np.asarray(settings.volume, np.float64), settings.classes)
    if settings.volume_bounds is not None:
        _check_bounds(settings.volume_bounds, settings.classes)
    seen = set()
    for x, y, cls in settings.star:
        text = f"star = {x:g},{y:g}:{cls}"
        if not 0 <= cls < settings.classes:
            raise InvalidValueError(f"{text}; the class must be 0 .. {settings.classes - 1}")
        if not np.isfinite([x, y]).all():
            raise InvalidValueError(f"{text}; the centre must be finite")
        if cls in seen:
            raise InvalidValueError(f"{text}; class {cls} has a star already")
        seen.add(cls)


def _check_volume(volume: np.ndarray, classes: int) -> None:
    if volume.shape != (classes,):
        raise InvalidValueError(f"volume has {volume.size} fractions for {classes} classes")
    if not (volume >= 0).all():
        raise InvalidValueError(f"volume = {_list(volume)}; fractions must be >= 0")
    if not abs(volume.sum() - 1) <= 1e-3:
        raise InvalidValueError(f"volume = {_list(volume)} sums to {volume.sum():g}; fractions must sum to 1")


def _check_bounds(bounds: Sequence[tuple[float, float]], classes: int) -> None:
    if len(bounds) != classes:
        raise InvalidValueError(f"volume_bounds has {len(bounds)} pairs for {classes} classes")
    for k, (lower, upper) in enumerate(bounds):
        if not 0 <= lower <= upper:
            raise InvalidValueError(
                f"volume_bounds of class {k} = {lower:g}:{upper:g}; it must be 0 <= lower <= upper"
            )
    least, most = (sum(column) for column in zip(*bounds))
    if least > 1 + 1e-3 or most < 1 - 1e-3:
        raise InvalidValueError(
            f"volume_bounds allow {least:g} to {most:g} of the image in all; 1 must lie between"
        )


def _list(values: np.ndarray) -> str:
    return ",".join(f"{v:g}" for v in values)


def similarity(image: np.ndarray, classes: int, metric: str = "euclidean", seed: int = 0) -> np.ndarray:
    """Cost c_i(x) of giving pixel x to class i, float64 [I, H, W]; classes ordered from dark to bright.

    Mahalanobis: ``(h - m_i)^T S_i^-1 (h - m_i)`` with the covariance of the class's pixels; its unit is that
    variance, so it wants a larger `eps` and `tv` than the squared distance.
    """
    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    mixture = kmeans(pixels, classes, seed, images.LUMA if image.ndim == 3 else None)
    if metric == "mahalanobis":
        cost = mixture.mahalanobis(pixels)
    else:
        cost = np.stack([((pixels - mean) ** 2).sum(1) for mean in mixture.means])
    return cost.reshape(classes, *image.shape[:2])


def edge_function(image: np.ndarray, beta: float, sigma: float, spacing: Sequence[float]) -> np.ndarray:
    """``e = 1 / (1 + beta |grad (k * h)|)`` of the brightness, k a Gaussian ([VPTV] section 6); [H, W]."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(images.grey(image), sigma, mode="nearest")
    # np.gradient needs two samples along an axis; an axis of one pixel has no slope.
    slopes = [
        np.gradient(smooth, step, axis=axis) if smooth.shape[axis] > 1 else np.zeros_like(smooth)
        for axis, step in enumerate(spacing)
    ]
    return np.asarray(1 / (1 + beta * np.sqrt(sum(slope**2 for slope in slopes))))


Progress = Callable[[int, float], None]


def segment(image: np.ndarray, settings: Settings, progress: Progress | None = None) -> Segmentation:
    """Segments an image [H, W] or [H, W, 3] with values in [0, 1].

    Args:
        progress: called after each chunk with the iterations done and the residual.
    """
    check(settings)
    cost = similarity(image, settings.classes, settings.metric, settings.seed)
    edge = None
    if settings.edge > 0 and settings.tv > 0:
        edge = edge_function(image, settings.edge, settings.edge_sigma, settings.spacing)
    return solve(cost, settings, edge, progress)


def _asked(settings: Settings) -> list[tuple[float, float]] | None:
    if settings.volume is not None:
        total = sum(settings.volume)
        return [(v / total, v / total) for v in settings.volume]
    return None if settings.volume_bounds is None else list(settings.volume_bounds)


def _priors(settings: Settings, pixels: int, edge: np.ndarray | None) -> dict[str, Any]:
    """The arguments of `softmax` for the priors that are on."""
    found: dict[str, Any] = {}
    if settings.tv > 0:
        found["tv"] = TV(settings.tv, edge=None if edge is None else np.ascontiguousarray(edge, np.float32))
    if settings.threshold_dynamics > 0:
        found["td"] = ThresholdDynamics(settings.threshold_dynamics, settings.td_size, settings.td_sigma)
    if settings.star:
        found["star"] = [Star(cls, (y, x)) for x, y, cls in settings.star]
    asked = _asked(settings)
    if asked is not None:
        lower, upper = ([pixels * bound for bound in column] for column in zip(*asked))
        found["volume"] = Volume(lower) if settings.volume is not None else Volume(lower=lower, upper=upper)
    return found


def solve(
    cost: np.ndarray, settings: Settings, edge: np.ndarray | None = None, progress: Progress | None = None
) -> Segmentation:
    """The iteration for a given cost [I, H, W] (see `similarity`) and edge field [H, W]."""
    check(settings)
    features = np.ascontiguousarray(-cost[None], np.float32)
    priors = _priors(settings, cost[0].size, edge)
    cap = settings.iters if priors else 0  # without priors the start is the answer
    chunk = cap if "td" in priors else settings.chunk
    done = 0
    start: Result | None = None
    began = time.perf_counter()
    while True:
        result = softmax(
            features,
            eps=settings.eps,
            iters=min(chunk, cap - done),
            tol=settings.tol,
            spacing=settings.spacing,
            warm_start=start,
            checkpoint=0,
            check_interval=_CHECK_INTERVAL,
            threads=settings.threads,
            **priors,
        )
        info, start = result.info[0], result
        done += info.iterations
        if progress is not None:
            progress(done, info.residual)
        if info.status != Status.ITERATION_CAP or done >= cap:
            break
    u = result.u[0]
    labels = u.argmax(0).astype(np.uint8)
    return Segmentation(
        labels=labels,
        u=u,
        asked=_asked(settings),
        reached=u.mean((1, 2), dtype=np.float64),
        labelled=np.bincount(labels.ravel(), minlength=settings.classes) / labels.size,
        status=info.status if priors else Status.CONVERGED,
        iterations=done,
        residual=info.residual,
        seconds=time.perf_counter() - began,
    )
