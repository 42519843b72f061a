"""Maps whose connected components the benchmark labels: random voxels of a given density, and blobs."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

DENSITIES = (0.1, 0.3, 0.5, 0.6, 0.9)
BLOB_SCALE = 6  # voxels


@dataclasses.dataclass(frozen=True)
class ComponentsProblem:
    """A uint8 map [*S] of zeros and ones. `density` None: blobs, which cover half of it."""

    spatial: tuple[int, ...]
    density: float | None
    full: bool  # neighbours across edges and corners too
    seed: int = 0

    @property
    def voxels(self) -> int:
        return math.prod(self.spatial)

    @property
    def label(self) -> str:
        return "x".join(map(str, self.spatial))

    @property
    def kind(self) -> str:
        what = "blobs" if self.density is None else f"density {self.density:g}"
        return f"{what}, {'full' if self.full else 'faces'}"

    @functools.cached_property
    def map(self) -> np.ndarray:
        random = np.random.default_rng((self.seed, 1))
        if self.density is not None:
            return (random.random(self.spatial, np.float32) < self.density).astype(np.uint8)
        # Smooth noise: the sum over a window of BLOB_SCALE voxels, three times, is nearly a Gaussian.
        field = random.standard_normal(self.spatial, np.float32)
        for axis in range(field.ndim):
            for _ in range(3):
                field = sum(np.roll(field, shift, axis) for shift in range(BLOB_SCALE))
        return (field > 0).astype(np.uint8)
