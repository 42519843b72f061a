"""Figures of the demonstration: what shape priors do, what ε does (two experiments of the papers), and SoftCut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import images, presets
from .cut import Cut, CutSettings
from .priors import Star
from .segment import Settings, segment
from .softmax import softmax


class Panel(NamedTuple):
    """One picture of a figure: title, and u of the object [H, W]."""

    title: str
    u: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """A noisy picture [H, W], its object [H, W] (bool), and the object's centre (row, column)."""

    image: np.ndarray
    thing: np.ndarray
    center: tuple[float, float]


def occluded_star(size: int = 128, noise: float = 0.3, seed: int = 0) -> Scene:
    """A bright five-armed object (0.8 on 0.2) behind a dark bar, and a bright spot that is no part of it."""
    rows, columns = np.mgrid[:size, :size] / (size / 128)
    center = (60.0, 56.0)
    down, right = rows - center[0], columns - center[1]
    radius, angle = np.hypot(down, right), np.arctan2(down, right)
    thing = radius < 38 * (1 + 0.2 * np.cos(5 * angle + 0.4))
    bar = abs(0.8 * down + 0.6 * right - 13) < 3.5
    spot = np.hypot(rows - 112, columns - 112) < 9
    clean = np.where((thing & ~bar) | spot, 0.8, 0.2)
    noisy = clean + np.random.default_rng(seed).normal(scale=noise, size=clean.shape)
    return Scene(noisy, thing, (center[0] * size / 128, center[1] * size / 128))


def shapes(scene: Scene, threads: int | None = None) -> list[Panel]:
    """The experiment of [STD] Fig. 6: softmax, STD, SS-STD and VP-STD of the same features, ε = 0.1."""
    features = np.stack([-((scene.image - 0.2) ** 2), -((scene.image - 0.8) ** 2)])[None].astype(np.float32)
    inside = float(scene.thing.sum())
    volume = [scene.thing.size - inside, inside]
    common: dict[str, Any] = {"eps": 0.1, "checkpoint": 0, "threads": threads}
    # Star duals take thousands of plain iterations, hundreds of accelerated ones. With lam > eps a few pixels
    # of SS-STD's outline flip for ever: it ends at the cap.
    limit: dict[str, Any] = {**common, "lam": 1.0, "iters": 500, "tol": 1e-3}
    found = [
        ("softmax", softmax(features, **common)),
        ("STD", presets.std(features, **limit)),
        ("SS-STD", presets.ss_std(features, [Star(1, scene.center)], **limit)),
        ("VP-STD", presets.vp_std(features, volume, **limit)),
    ]
    return [Panel(title, r.u[0, 1]) for title, r in found]


def overlap(u: np.ndarray, thing: np.ndarray) -> float:
    """Intersection over union of the pixels where u > 1/2 and the object."""
    label = u > 0.5
    return float((label & thing).sum() / (label | thing).sum())


def draw_shapes(path: Path, scene: Scene, panels: list[Panel]) -> None:
    """One row: the picture, then u of each method, with the true outline."""
    canvas, axes = figure(1, len(panels) + 1, scene.image.shape)
    axes[0].imshow(scene.image, cmap="gray", vmin=-0.3, vmax=1.3)
    axes[0].set_title("noise, a bar, a spot", fontsize=13)
    for ax, panel in zip(axes[1:], panels):
        ax.imshow(panel.u, cmap="gray", vmin=0, vmax=1)
        ax.contour(scene.thing, [0.5], colors="#e69f00", linewidths=1)
        share = panel.u.sum(dtype=np.float64) / scene.thing.sum()
        ax.set_title(
            f"{panel.title}\noverlap {100 * overlap(panel.u, scene.thing):.0f} %, volume {100 * share:.0f} %",
            fontsize=12,
        )
    save(canvas, path)


ENTROPIES = (0.2, 0.1, 0.05, 0.02, 0.01)


def entropies(image: np.ndarray, fraction: float, threads: int | None = None) -> list[Panel]:
    """The experiment of [VPTV] Fig. 6: VPTV-softmax of one picture with ever smaller ε."""
    base = Settings(classes=2, tv=0.1, volume=(1 - fraction, fraction), threads=threads)
    runs = [(eps, segment(image, dataclasses.replace(base, eps=eps))) for eps in ENTROPIES]
    return [Panel(f"ε = {eps:g}", run.u[1]) for eps, run in runs]


def undecided(u: np.ndarray) -> float:
    """Share of the pixels with u between 0.05 and 0.95."""
    return float(((u > 0.05) & (u < 0.95)).mean())


def draw_entropies(path: Path, image: np.ndarray, panels: list[Panel]) -> None:
    """Two rows: the picture, then u for each ε."""
    canvas, axes = figure(2, 3, image.shape)
    axes[0].imshow(images.rgb8(image))
    axes[0].set_title("photograph", fontsize=13)
    for ax, panel in zip(axes[1:], panels):
        ax.imshow(panel.u, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"{panel.title}: {100 * undecided(panel.u):.0f} % undecided", fontsize=13)
    save(canvas, path)


def draw_cut(path: Path, image: np.ndarray, settings: CutSettings, found: Cut) -> None:
    """One row: the picture with its seeds, the soft foreground, the cut out object on white."""
    canvas, axes = figure(1, 3, image.shape, 0.45)
    axes[0].imshow(images.rgb8(image))
    seeds = (("o", "#ffffff", "foreground"), ("X", "#111111", "background"))
    for marker, colour, name in seeds:
        x, y = zip(*getattr(settings, name))
        edge = "#111111" if colour == "#ffffff" else "#ffffff"
        axes[0].scatter(x, y, s=70, c=colour, edgecolors=edge, marker=marker, linewidths=1.2)
    axes[0].set_title(
        f"{len(settings.foreground)} clicks on the object, {len(settings.background)} around it", fontsize=13
    )
    axes[1].imshow(found.x, cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("x, the soft foreground", fontsize=13)
    axes[2].imshow(np.where(found.mask[..., None], images.rgb8(image), 255))
    axes[2].set_title(f"x > 1/2: {100 * found.mask.mean():.0f} % of the picture", fontsize=13)
    save(canvas, path)


def figure(rows: int, columns: int, shape: tuple[int, ...], margin: float = 0.6) -> tuple[Any, Any]:
    """A figure for pictures [H, W], without a window, and its axes in reading order.

    `margin`: inches for the title of each row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = 13.5 / columns  # inches
    canvas = Figure(
        figsize=(13.5, rows * (width * shape[0] / shape[1] + margin)),
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08),
    )
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(rows, columns).ravel()
    for ax in axes:
        ax.set_axis_off()
    return canvas, axes


def save(canvas: Any, path: Path) -> None:
    images.write_atomically(path, lambda file: canvas.savefig(file, format="png", dpi=110))
