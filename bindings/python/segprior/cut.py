"""Cutting an object out of one image by SoftCut: seed pixels, and edge weights from the image's contrast.

With seeds s (1 foreground, 0 background): ``d_a x_a + sum_b w_ab (x_a - x_b) = p_a`` where d is large and
``p = d s`` at seeds, d is tiny and ``p = d / 2`` elsewhere. x in [0, 1] is the soft foreground: about the
probability that a random walk over the edges meets foreground first (Grady's random walker).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from .contrast import automatic_beta, contrast_edges
from .errors import InvalidValueError
from .report import Status
from .softcut import SOLVERS, softcut

_LEAK = 1e-6  # conductance towards 1/2 of a pixel that is no seed: decides where no seed reaches


@dataclasses.dataclass(frozen=True)
class CutSettings:
    """What to compute. Defaults are the command line's.

    Attributes:
        foreground, background: (x, y) of the seeds: x the column, y the row, from 0; at least one each.
        weight: edge weight w > 0 where the image is flat.
        beta: >= 0; how fast weights fall with contrast: ``exp(-beta |dI|² / (2 mean |dI|²))``.
        floor: 0 .. 1, least weight in units of `weight`: what strong edges enclose follows its surroundings.
        seed_radius: >= 0; a seed is a disc of pixels.
        seed_conductance: > 0; large: x is exactly 1 or 0 there.
        solver: as of `softcut`.
        tol: > 0; root mean square of the residual at which the solver stops.
        threads: CPU threads; None: all.
    """

    foreground: Sequence[tuple[int, int]] = ()
    background: Sequence[tuple[int, int]] = ()
    weight: float = 1.0
    beta: float = 5.0
    floor: float = 1e-4
    seed_radius: float = 3.0
    seed_conductance: float = 1000.0
    solver: str = "auto"
    tol: float = 1e-8
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Cut:
    """Result of `cut`.

    Attributes:
        x: soft foreground [H, W], float64 in [0, 1]. mask: x > 1/2, bool [H, W].
        status, iterations, residual: how the solver ended. seconds: time of the call.
    """

    x: np.ndarray
    mask: np.ndarray
    status: Status
    iterations: int
    residual: float
    seconds: float


def check(settings: CutSettings) -> None:
    """Raises InvalidValueError with one clear sentence if the settings cannot work."""
    for name in ("weight", "seed_conductance", "tol"):
        if not 0 < getattr(settings, name) < np.inf:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be > 0 and finite")
    for name in ("beta", "seed_radius"):
        if not 0 <= getattr(settings, name) < np.inf:
            raise InvalidValueError(f"{name} = {getattr(settings, name)}; it must be >= 0 and finite")
    if not 0 <= settings.floor <= 1:
        raise InvalidValueError(f"floor = {settings.floor}; it must be 0 .. 1")
    if settings.solver not in SOLVERS:
        raise InvalidValueError(f"solver = {settings.solver!r}; it must be one of {', '.join(SOLVERS)}")
    for name in ("foreground", "background"):
        if not getattr(settings, name):
            raise InvalidValueError(f"{name} has no seed; both foreground and background need at least one")


def discs(shape: tuple[int, int], name: str, seeds: Sequence[tuple[int, int]], radius: float) -> np.ndarray:
    """The pixels [H, W] of seeds called `name` in errors."""
    height, width = shape
    rows, columns = np.ogrid[:height, :width]
    found = np.zeros(shape, bool)
    for x, y in seeds:
        if not (0 <= x < width and 0 <= y < height):
            raise InvalidValueError(
                f"{name} = {x},{y} lies outside the image; x must be 0 .. {width - 1}, y 0 .. {height - 1}"
            )
        found |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return found


def cut(image: np.ndarray, settings: CutSettings) -> Cut:
    """Cuts an object out of an image [H, W] or [H, W, 3]."""
    check(settings)
    shape = image.shape[:2]
    inside, outside = (
        discs(shape, name, getattr(settings, name), settings.seed_radius)
        for name in ("foreground", "background")
    )
    both = np.argwhere(inside & outside)
    if len(both):
        y, x = both[0]
        raise InvalidValueError(
            f"pixel {x},{y} is seed of both foreground and background; "
            f"seed_radius = {settings.seed_radius:g} may be too large"
        )
    channels = None if image.ndim == 2 else -1
    edges, diagonals = contrast_edges(
        image,
        settings.weight,
        settings.beta * automatic_beta(image, True, channel_axis=channels),
        diagonals=True,
        floor=settings.floor,
        channel_axis=channels,
        dtype=np.float64,
    )
    conductance = np.where(inside | outside, settings.seed_conductance, _LEAK)
    scores = conductance * np.where(inside, 1.0, np.where(outside, 0.0, 0.5))
    began = time.perf_counter()
    result = softcut(
        scores[None, None],
        edges,
        diagonals,
        conductance[None, None],
        solver=settings.solver,
        tol=settings.tol,
        max_iters=5000,
        absolute=True,
        threads=settings.threads,
    )
    x, info = np.clip(result.x[0, 0], 0, 1), result.info[0, 0]  # the last digits may lie outside
    return Cut(
        x=x,
        mask=x > 0.5,
        status=info.status,
        iterations=info.iterations,
        residual=info.residual,
        seconds=time.perf_counter() - began,
    )
