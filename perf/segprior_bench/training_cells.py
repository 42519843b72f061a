"""Synthetic stained white blood cells: a nucleus inside its cytoplasm, among red cells that look much like it."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

BACKGROUND, CYTOPLASM, NUCLEUS = range(3)
CLASSES = 3

# Mean colours. Cytoplasm and red cells differ little; platelets have the colour of a pale nucleus.
_PLASMA = np.array([0.91, 0.88, 0.87])
_RED_CELL = np.array([0.84, 0.69, 0.74])
_CYTOPLASM = np.array([0.75, 0.68, 0.80])
_NUCLEUS = np.array([0.50, 0.36, 0.66])
_PLATELET = np.array([0.58, 0.45, 0.70])


@dataclasses.dataclass(frozen=True)
class Cells:
    """Images of one white cell each.

    Attributes:
        images: float32 [N, 3, H, W], about 0 to 1. truth: uint8 [N, H, W] of BACKGROUND, CYTOPLASM, NUCLEUS.
        volumes: float32 [N, 3], pixels of each class. centers: float32 [N, 2], row and column of the point
            about which the nucleus is star-shaped.
    """

    images: np.ndarray
    truth: np.ndarray
    volumes: np.ndarray
    centers: np.ndarray


class _Outline:
    """A closed curve around `center`, its distance from there a few cosines of the angle; star-shaped about it."""

    def __init__(self, center: np.ndarray, radius: float, waves: dict[int, float], rng: np.random.Generator) -> None:
        self.center, self.radius = center, radius
        self._waves = [(k, rng.uniform(0, most), rng.uniform(0, 2 * np.pi)) for k, most in waves.items()]

    def distance(self, size: int) -> np.ndarray:
        """[size, size]: 0 in the centre, 1 on the curve, growing along each ray."""
        rows, columns = np.mgrid[:size, :size]
        down, right = rows - self.center[0], columns - self.center[1]
        angle = np.arctan2(down, right)
        edge = self.radius * (1 + sum(a * np.cos(k * angle + phase) for k, a, phase in self._waves))
        return np.hypot(down, right) / edge


def make(count: int, size: int, noise: float, seed: tuple[int, ...]) -> Cells:
    """`count` images of `size` x `size` pixels with noise of that deviation.

    The same seed gives the same cells with any noise: the noise has random numbers of its own.
    """
    rng, noise_rng = np.random.default_rng((*seed, 0)), np.random.default_rng((*seed, 1))
    images = np.empty((count, 3, size, size), np.float32)
    truth = np.empty((count, size, size), np.uint8)
    centers = np.empty((count, 2), np.float32)
    for n in range(count):
        image, truth[n], centers[n] = _one(size, rng)
        images[n] = image + noise * noise_rng.standard_normal(image.shape)
    volumes = np.stack([(truth == k).sum((1, 2)) for k in range(CLASSES)], 1).astype(np.float32)
    return Cells(images, truth, volumes, centers)


def _one(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image [3, size, size] without noise, labels and the nucleus's centre."""
    cell = _Outline(rng.uniform(0.33, 0.67, 2) * size, rng.uniform(0.19, 0.31) * size, {2: 0.12, 3: 0.06}, rng)
    inside = cell.distance(size) < 1
    nucleus = _nucleus(cell, inside, size, rng)
    colour = np.broadcast_to(_PLASMA, (size, size, 3)).copy()
    for _ in range(rng.integers(4, 8)):
        _add_red_cell(colour, cell, size, rng)
    for _ in range(rng.integers(1, 4)):
        platelet = _Outline(rng.uniform(0, size, 2), rng.uniform(1, 2.2), {2: 0.2}, rng)
        colour[platelet.distance(size) < 1] = _PLATELET
    colour[inside] = _CYTOPLASM
    for _ in range(rng.integers(0, 4)):  # granules, dark spots in the cytoplasm
        granule = _Outline(cell.center + rng.normal(scale=0.5 * cell.radius, size=2), rng.uniform(0.8, 1.5), {}, rng)
        colour[(granule.distance(size) < 1) & inside] = _PLATELET
    core = nucleus.distance(size) < 1
    colour[core] = _NUCLEUS
    labels = np.where(core, NUCLEUS, np.where(inside, CYTOPLASM, BACKGROUND)).astype(np.uint8)
    return _stain(colour, size, rng), labels, nucleus.center


def _nucleus(cell: _Outline, inside: np.ndarray, size: int, rng: np.random.Generator) -> _Outline:
    """A lobed outline within the cell, at least two pixels from its border; shrunk until it fits."""
    room = ndimage.binary_erosion(inside, iterations=2)
    center = cell.center + rng.uniform(-0.25, 0.25, 2) * cell.radius
    outline = _Outline(center, rng.uniform(0.45, 0.8) * cell.radius, {2: 0.2, 3: 0.2, 4: 0.1}, rng)
    while (outline.distance(size) < 1)[~room].any():
        outline.radius *= 0.95
    return outline


def _add_red_cell(colour: np.ndarray, cell: _Outline, size: int, rng: np.random.Generator) -> None:
    """Half of them touch the white cell; all have a pale middle."""
    radius = rng.uniform(0.09, 0.13) * size
    center = rng.uniform(0, size, 2)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        center = cell.center + (cell.radius + 0.9 * radius) * np.array([np.sin(angle), np.cos(angle)])
    distance = _Outline(center, radius, {2: 0.08}, rng).distance(size)[..., None]
    pale = 0.6 * np.exp(-((distance / 0.4) ** 2))
    colour[:] = np.where(distance < 1, (1 - pale) * _RED_CELL + pale * _PLASMA, colour)


def _stain(colour: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """[3, size, size]: stained more or less strongly, unevenly over the image, through a soft lens."""
    strength = rng.uniform(0.75, 1.25)
    slope = np.tensordot(rng.uniform(-0.25, 0.25, 2), np.mgrid[:size, :size] / (size - 1) - 0.5, 1)
    absorbed = -np.log(colour) * (strength + slope)[..., None]  # Beer and Lambert
    light = np.exp(-absorbed) + rng.normal(scale=0.02, size=3) + 0.15 * slope[..., None]
    return np.asarray(ndimage.gaussian_filter(np.moveaxis(light, -1, 0), (0, 0.8, 0.8)))
