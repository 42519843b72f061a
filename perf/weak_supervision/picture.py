"""The figure: a few validation images, and where each method sees the object."""

from __future__ import annotations

from pathlib import Path

from segprior import gallery

from .shapes import Data
from .training import Run

IMAGES = (0, 1, 2, -1)  # the first three, which have the object, and the last, which has not: not chosen by result
TRUTH, FOUND = "#56b4e9", "#e69f00"


def draw(path: Path, validation: Data, runs: list[Run]) -> None:
    """One row per image: the image with the true outline, then with the outline that each run predicts."""
    canvas, axes = gallery.figure(len(IMAGES), len(runs) + 1, validation.images.shape[1:], 0.1)
    for row, image in enumerate(IMAGES):
        line = axes[row * (len(runs) + 1) :][: len(runs) + 1]
        for ax in line:
            ax.imshow(validation.images[image], cmap="gray", vmin=-0.8, vmax=1.6)
        if row == 0:
            line[0].set_title("image, truth", fontsize=8)
        line[0].contour(validation.truth[image], [0.5], colors=TRUTH, linewidths=1)
        for ax, run in zip(line[1:], runs):
            if row == 0:
                ax.set_title(run.method.replace(", ", ",\n"), fontsize=8)
            found = run.prediction[image]
            if 0 < found.mean() < 1:
                ax.contour(found, [0.5], colors=FOUND, linewidths=1)
            elif found.all():  # nothing to outline: the whole image
                ax.imshow(found, cmap="Wistia", alpha=0.5)
    gallery.save(canvas, path)
