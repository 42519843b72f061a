"""Loss problems of the benchmark: random logits and labels, and the sizes that the classes should have."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

IGNORED = 255
FOCAL_GAMMA, FOCAL_DICE_THRESHOLD, FOCAL_DICE_GAMMA, SMOOTH = 2.0, 0.5, 2.0, 1e-5

# Title: weights of the terms. The sum of its terms, each a mean, is what everybody computes, with its gradient.
CASES: dict[str, dict[str, float]] = {
    "CE": {"cross_entropy": 1.0},
    "Dice": {"dice": 1.0},
    "CE + Dice": {"cross_entropy": 1.0, "dice": 1.0},
    "size + partial CE": {"size": 0.01, "cross_entropy": 1.0},
    "all five": {"size": 0.01, "cross_entropy": 1.0, "focal": 1.0, "dice": 1.0, "focal_dice": 1.0},
}


@dataclasses.dataclass(frozen=True)
class LossProblem:
    """float32 logits [B, I, *S], uint8 labels. Arrays are made on first use and are the same for the same seed."""

    shape: tuple[int, ...]
    case: str
    seed: int = 0

    @property
    def weights(self) -> dict[str, float]:
        return CASES[self.case]

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def classes(self) -> int:
        return self.shape[1]

    @property
    def voxels(self) -> int:
        """Of one image."""
        return math.prod(self.spatial)

    @property
    def size(self) -> int:
        """Voxels x classes of the whole batch, "pxc" in the tables."""
        return math.prod(self.shape)

    @property
    def label(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def least_bytes(self) -> int:
        """Forward and backward each read logits and labels, backward writes the gradient."""
        return 3 * 4 * self.size + 2 * self.shape[0] * self.voxels

    @functools.cached_property
    def scores(self) -> np.ndarray:
        return 2 * np.random.default_rng((self.seed, 1)).standard_normal(self.shape, np.float32)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """uint8 [B, *S]; with partial CE one voxel in a thousand is known."""
        shape = (self.shape[0], *self.spatial)
        random = np.random.default_rng((self.seed, 2))
        found = random.integers(0, self.classes, shape, np.uint8)
        if "partial" in self.case:
            unknown = random.random(shape) >= 0.001
            unknown.flat[0] = False  # the mean over no voxel is NaN for some
            found[unknown] = IGNORED
        return found

    @functools.cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [B, I]: within 10 % of random sizes, which add up to the voxels of an image."""
        share = np.random.default_rng((self.seed, 3)).uniform(0.5, 1.5, self.shape[:2])
        volumes = share / share.sum(1, keepdims=True) * self.voxels
        return (0.9 * volumes).astype(np.float32), (1.1 * volumes).astype(np.float32)
