"""The picture of the training experiment: images, truth, and what each network finds."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .training_cells import CLASSES

SCALE = 3  # pixels of the picture per pixel of an image
_GAP, _TITLE = 6, 34
_COLOURS = np.array([[255, 255, 255], [177, 148, 209], [86, 54, 130]], np.uint8)
_WRONG = np.array([[120, 120, 120], [213, 94, 0], [240, 228, 66]], np.uint8)  # by the class found


def _photograph(image: np.ndarray) -> np.ndarray:
    """[3, H, W] as RGB, enlarged."""
    shown = (255 * np.clip(image, 0, 1)).astype(np.uint8)
    return np.moveaxis(shown, 0, -1).repeat(SCALE, 0).repeat(SCALE, 1)


def _labels(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Label map [H, W] as RGB, enlarged: pixels that are not as in `truth` in strong colours."""
    shown = np.where((found == truth)[..., None], _COLOURS[found], _WRONG[found])
    return shown.repeat(SCALE, 0).repeat(SCALE, 1)


def _outlined(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """With thin lines around cell and nucleus."""
    large = truth.repeat(SCALE, 0).repeat(SCALE, 1)
    for least in range(1, CLASSES):
        shape = large >= least
        picture = np.where((shape & ~ndimage.binary_erosion(shape))[..., None], np.uint8(0), picture)
    return picture


def draw(
    path: Path, rows: Sequence[tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]]], titles: Sequence[str]
) -> None:
    """One line per row (image [3, H, W], truth [H, W], label maps [H, W]); `titles`: of the label maps."""
    side = rows[0][1].shape[0] * SCALE
    step = side + _GAP
    width, height = (len(titles) + 2) * step - _GAP, _TITLE + len(rows) * step - _GAP
    canvas = Image.new("RGB", (width, height), "white")
    for line, (image, truth, maps) in enumerate(rows):
        cells = [_photograph(image), _outlined(_labels(truth, truth), truth)]
        cells += [_outlined(_labels(found, truth), truth) for found in maps]
        for column, cell in enumerate(cells):
            canvas.paste(Image.fromarray(cell), (column * step, _TITLE + line * step))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=19)
    for column, title in enumerate(["image", "truth", *titles]):
        pen.text((column * step + side / 2, _TITLE - 8), title, fill="black", font=font, anchor="ms")
    canvas.quantize(255).save(path, optimize=True)

