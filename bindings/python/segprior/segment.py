"""Segmentation of one image by k-means similarity and the entropic softmax ([VPTV] section 6).

Intensities in [0, 1]; class means (and covariances) by k-means; similarity ``c_i = |h - m_i|^2``, or the
Mahalanobis distance; features ``o = -c``; the accelerated iteration down to a tolerance; label = argmax of u.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Callable

import numpy as np

from . import images
from .errors import InvalidValueError
from .priors import TV, Volume
from .report import Status
from .softmax import Result, softmax

METRICS = ("euclidean", "mahalanobis")
# Each chunk starts without momentum, when steps are short: a check that comes too early would take that for
# convergence (seen at every 10th iteration; gone at every 50th).
_CHECK_INTERVAL = 50
_KMEANS_SAMPLE = 50_000  # pixels that k-means looks at; more change the means by less than the pixel noise


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compute. Defaults are the command line's.

    Attributes:
        classes: number of classes I, 2 .. 256, ordered from dark to bright.
        volume: fraction of the image per class, sum 1; None: no volume prior.
        eps: entropy weight ε > 0; small gives crisp maps.
        tv: TV weight λ >= 0; 0: without.
        edge: β >= 0 of the edge function ``e = 1 / (1 + β |∇(k * h)|)``; 0: e = 1.
        edge_sigma: width of the Gaussian k in pixels.
        metric: "euclidean" (squared) or "mahalanobis".
        spacing: pixel size (row, column).
        tol: stop when ``max |u_(t+1) - u_t| < tol``.
        iters: cap of the iterations.
        chunk: iterations between two reports of progress. The momentum starts anew with each.
        seed: of k-means.
        threads: CPU threads; None: all.
    """

    classes: int = 2
    volume: Sequence[float] | None = None
    eps: float = 0.05
    tv: float = 0.1
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
        asked: volume fraction per class, None without a volume prior. reached: ``mean_x u_i``.
        labelled: fraction of pixels whose label is the class.
        status, iterations, residual: how the iteration ended. seconds: time of the iteration.
    """

    labels: np.ndarray
    u: np.ndarray
    asked: np.ndarray | None
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
    for name in ("eps", "tol", "edge_sigma"):
        if not 0 < getattr(settings, name) < np.inf:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be > 0 and finite")
    for name in ("tv", "edge"):
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
    if settings.volume is not None:
        _check_volume(np.asarray(settings.volume, np.float64), settings.classes)


def _check_volume(volume: np.ndarray, classes: int) -> None:
    if volume.shape != (classes,):
        raise InvalidValueError(f"volume has {volume.size} fractions for {classes} classes")
    if not (volume >= 0).all():
        raise InvalidValueError(f"volume = {_list(volume)}; fractions must be >= 0")
    if not abs(volume.sum() - 1) <= 1e-3:
        raise InvalidValueError(f"volume = {_list(volume)} sums to {volume.sum():g}; fractions must sum to 1")


def _list(values: np.ndarray) -> str:
    return ",".join(f"{v:g}" for v in values)


def similarity(image: np.ndarray, classes: int, metric: str = "euclidean", seed: int = 0) -> np.ndarray:
    """Cost c_i(x) of giving pixel x to class i, float64 [I, H, W]; classes ordered from dark to bright.

    Mahalanobis: ``(h - m_i)^T S_i^-1 (h - m_i)`` with the covariance of the class's pixels; its unit is that
    variance, so it wants a larger `eps` and `tv` than the squared distance.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    sample = pixels
    if len(pixels) > _KMEANS_SAMPLE:
        sample = pixels[np.random.default_rng(seed).choice(len(pixels), _KMEANS_SAMPLE, replace=False)]
    if len(np.unique(sample, axis=0)) < classes:
        raise InvalidValueError(f"the image has fewer distinct colours than the {classes} classes asked for")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(classes, n_init=4, random_state=seed).fit(sample)
    brightness = fitted.cluster_centers_ @ images.LUMA if image.ndim == 3 else fitted.cluster_centers_[:, 0]
    order = np.argsort(brightness, kind="stable")
    cost = np.empty((classes, len(pixels)))
    for row, cluster in zip(cost, order):
        offset = pixels - fitted.cluster_centers_[cluster]
        if metric == "mahalanobis":
            members = sample[fitted.labels_ == cluster] - fitted.cluster_centers_[cluster]
            # 1e-4: the variance of quantisation to 8 bits and a little more; keeps flat clusters invertible.
            covariance = members.T @ members / len(members) + 1e-4 * np.eye(pixels.shape[1])
            row[:] = np.einsum("xc,xc->x", offset, np.linalg.solve(covariance, offset.T).T)
        else:
            row[:] = np.einsum("xc,xc->x", offset, offset)
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


def solve(
    cost: np.ndarray, settings: Settings, edge: np.ndarray | None = None, progress: Progress | None = None
) -> Segmentation:
    """The iteration for a given cost [I, H, W] (see `similarity`) and edge field [H, W]."""
    check(settings)
    features = np.ascontiguousarray(-cost[None], np.float32)
    pixels = cost[0].size
    asked = None
    volume = None
    if settings.volume is not None:
        asked = np.asarray(settings.volume, np.float64)
        asked = asked / asked.sum()
        volume = Volume(list(asked * pixels))
    tv = TV(lam=settings.tv, edge=None if edge is None else np.ascontiguousarray(edge, np.float32))
    iterative = settings.tv > 0 or volume is not None
    cap = settings.iters if iterative else 0  # without priors the start is the answer
    done = 0
    start: Result | None = None
    began = time.perf_counter()
    while True:
        result = softmax(
            features,
            eps=settings.eps,
            iters=min(settings.chunk, cap - done),
            tol=settings.tol,
            tv=tv if settings.tv > 0 else None,
            volume=volume,
            spacing=settings.spacing,
            warm_start=start,
            checkpoint=0,
            check_interval=_CHECK_INTERVAL,
            threads=settings.threads,
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
        asked=asked,
        reached=u.mean((1, 2), dtype=np.float64),
        labelled=np.bincount(labels.ravel(), minlength=settings.classes) / pixels,
        status=info.status if iterative else Status.CONVERGED,
        iterations=done,
        residual=info.residual,
        seconds=time.perf_counter() - began,
    )
