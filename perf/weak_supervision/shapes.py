"""Synthetic images with an object of known size, things that resemble it, and a few labelled pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

UNKNOWN = 255  # the label of a pixel whose class is not known
OBJECT = 1  # class 0 is the background


@dataclasses.dataclass(frozen=True)
class Data:
    images: np.ndarray  # float32 [N, H, W]
    truth: np.ndarray  # uint8 [N, H, W]: 0, OBJECT
    seeds: np.ndarray  # uint8 [N, H, W]: 0, OBJECT, or UNKNOWN nearly everywhere


def _bar(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line of 2 to 3 pixels' width and 12 to 24 pixels' length, anywhere."""
    size = len(rows)
    row, column = rng.uniform(0, size, 2)
    angle, half = rng.uniform(0, np.pi), rng.uniform(6, 12)
    along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
    across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    return (abs(along) < half) & (abs(across) < rng.uniform(1, 1.5))


def _object(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance from the middle of a lobed ellipse, 1 at its edge; it covers about 1.5 to 12 % of the image."""
    size = len(rows)
    area = size**2 * np.exp(rng.uniform(np.log(0.015), np.log(0.12)))
    aspect, turn, phase = rng.uniform(1, 1.6), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    radius = np.sqrt(area / np.pi)
    row, column = rng.uniform(1.1 * radius, size - 1.1 * radius, 2)
    down, right = rows - row, columns - column
    along = (down * np.sin(turn) + right * np.cos(turn)) / np.sqrt(aspect)
    across = (down * np.cos(turn) - right * np.sin(turn)) * np.sqrt(aspect)
    edge = radius * (1 + 0.12 * np.cos(3 * np.arctan2(across, along) + phase))
    return np.hypot(along, across) / edge


def make(count: int, size: int, with_object: float, both: bool, rng: np.random.Generator) -> Data:
    """`count` images [size, size], a share `with_object` of which has the object.

    The object is bright in its middle and fades towards its edge; how bright it is differs from image to image. Bars as
    bright as it are part of the background, here and in the images without it. About 0.1 % of an image's pixels are
    labelled, in the middle half of the object, where one would click; with `both`, half of them lie anywhere in the
    background instead, and all of them where there is no object. Without `both`, such an image has no labels.
    """
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    images = np.empty((count, size, size), np.float32)
    truth = np.zeros((count, size, size), np.uint8)
    seeds = np.full((count, size, size), UNKNOWN, np.uint8)
    labelled = max(round(0.001 * size**2), 2)
    for n in range(count):
        image = 0.12 * ndimage.gaussian_filter(rng.standard_normal((size, size)), 6, mode="wrap") * 6 * np.pi**0.5 * 2
        for _ in range(rng.integers(1, 4)):
            image[_bar(rows, columns, rng)] += rng.uniform(0.5, 1)
        inside = 0
        if n < round(with_object * count):
            distance = _object(rows, columns, rng)
            truth[n] = distance < 1
            image += np.where(distance < 1, rng.uniform(0.6, 1.2) * (1 - 0.7 * distance**2), 0)
            inside = labelled - (labelled // 2 if both else 0)
            _label(seeds[n], distance < 0.5, OBJECT, inside, rng)
        if both:
            _label(seeds[n], truth[n] == 0, 0, labelled - inside, rng)
        images[n] = image + rng.normal(scale=0.25, size=image.shape)
    return Data(images, truth, seeds)


def _label(seeds: np.ndarray, where: np.ndarray, label: int, count: int, rng: np.random.Generator) -> None:
    """Labels `count` pixels of `where`, chosen at random."""
    places = np.flatnonzero(where)
    seeds.flat[rng.choice(places, min(count, len(places)), replace=False)] = label
