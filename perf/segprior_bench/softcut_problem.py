"""SoftCut problems of the benchmark: edge weights of synthetic images, which are the same everywhere.

Patches with noise; weights between w_max / 10^4 and w_max, median 0.8 w_max. The noise is a hash of the voxel's
number, so that any program can make the same problem.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Iterator

import numpy as np


def hash01(index: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) from integers mod 2^32."""
    h = index.astype(np.uint32) * np.uint32(2654435761)
    h ^= h >> np.uint32(16)
    h *= np.uint32(2246822519)
    h ^= h >> np.uint32(13)
    h *= np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return h / 2.0**32


@dataclasses.dataclass(frozen=True)
class SoftcutProblem:
    """[B, 1, *S]: one system per image, d = 1. Arrays are made on first use.

    `target`: the relative residual (L2, in float64) that everybody has to reach in every system.
    """

    shape: tuple[int, ...]
    w_max: float
    dtype: str = "float64"
    target: float = 1e-6

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def systems(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def voxels(self) -> int:
        return math.prod(self.spatial)

    @property
    def label(self) -> str:
        return "x".join(map(str, self.shape))

    @functools.cached_property
    def _image(self) -> np.ndarray:
        """[B, 1, *S]; image n is shifted by n columns."""
        images = np.arange(self.shape[0]).reshape(-1, *[1] * len(self.spatial))
        at = np.ogrid[tuple(slice(n) for n in self.spatial)]
        wave = np.sin(0.145 * (at[-1] + images) + 0.3)
        for axis, (rate, phase) in zip(range(len(at) - 2, -1, -1), ((0.83, 0.1), (0.71, 0.2))):
            wave = wave * np.cos(rate * 0.145 * at[axis] + phase)
        return (wave > 0.1)[:, None] + 0.5 * (hash01(self._numbers) - 0.5)

    @functools.cached_property
    def _numbers(self) -> np.ndarray:
        return np.arange(math.prod(self.shape), dtype=np.uint64).reshape(self.shape)

    @functools.cached_property
    def scores(self) -> np.ndarray:
        return (self._image + 0.2 * (hash01(self._numbers + np.uint64(1000000)) - 0.5)).astype(self.dtype)

    @functools.cached_property
    def edges(self) -> tuple[np.ndarray, ...]:
        found = []
        for axis in range(2, len(self.shape)):
            contrast = np.diff(self._image, axis=axis)
            weights = self.w_max * np.maximum(np.exp(-9.2 * contrast**2), 1e-4)
            found.append(np.ascontiguousarray(weights, self.dtype))
        return tuple(found)

    @functools.cached_property
    def grad_x(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal(self.shape).astype(self.dtype)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """A x in float64, [B, K, *S]."""
        found = x.astype(np.float64)
        for axis, w in enumerate(self.edges, 2):
            flux = w.astype(np.float64) * np.diff(x.astype(np.float64), axis=axis)
            head = [slice(None)] * x.ndim
            tail = list(head)
            head[axis], tail[axis] = slice(None, -1), slice(1, None)
            found[tuple(head)] -= flux
            found[tuple(tail)] += flux
        return found

    def residual(self, x: Any) -> float:
        """The largest |p - A x| / |p| of the systems, in float64: what decides whether a solver is done."""
        p = self.scores.astype(np.float64)
        axes = tuple(range(2, p.ndim))
        r = p - self.apply(x)
        return float(np.sqrt(((r**2).sum(axes) / (p**2).sum(axes)).max()))

    def matrices(self) -> Iterator[Any]:
        """The assembled systems, csr_matrix each."""
        from scipy.sparse import csr_matrix

        voxels = np.arange(self.voxels, dtype=np.int32).reshape(self.spatial)
        for n in range(self.shape[0]):
            diagonal = np.ones(self.voxels, self.dtype)
            rows, columns, values = [voxels.ravel()], [voxels.ravel()], [diagonal]
            for axis, extent in enumerate(self.spatial):
                a = voxels.take(range(extent - 1), axis).ravel()
                b = voxels.take(range(1, extent), axis).ravel()
                w = self.edges[axis][n, 0].ravel()
                np.add.at(diagonal, a, w)
                np.add.at(diagonal, b, w)
                rows, columns, values = rows + [a, b], columns + [b, a], values + [-w, -w]
            entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
            matrix = csr_matrix(entries, (self.voxels, self.voxels))
            matrix.sort_indices()
            yield matrix
