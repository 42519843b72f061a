"""What is computed: one VPTV-softmax (TV and equality volumes, [VPTV] Algorithm 1) on random data."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything that a contender needs. Arrays are made on first use and are the same for the same seed."""

    shape: tuple[int, ...]  # [B, I, *S]
    iterations: int = 30
    eps: float = 1.0
    lam: float = 1.0
    seed: int = 0
    dtype: str = "float32"

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def axes(self) -> int:
        return len(self.spatial)

    @property
    def voxels(self) -> int:
        return math.prod(self.spatial)

    @property
    def size(self) -> int:
        """Voxels x classes of the whole batch, "pxc" in the tables."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def tau(self) -> float:
        """The largest stable step at unit spacing: the papers' eps / 2 in 2-D."""
        return self.eps / self.axes

    @property
    def forward_bytes(self) -> int:
        """Least traffic of a fused iteration: read o and q, write q; times the iterations."""
        return self.size * self.itemsize * (1 + 2 * self.axes) * self.iterations

    @property
    def backward_bytes(self) -> int:
        """The same for the adjoint: read q, o and the gradients of both, write the gradients."""
        return self.size * self.itemsize * 3 * (1 + self.axes) * self.iterations

    # One generator per array, so that asking for one does not change another.
    @functools.cached_property
    def features(self) -> np.ndarray:
        return self._normal(1) * np.dtype(self.dtype).type(2)

    @functools.cached_property
    def grad_u(self) -> np.ndarray:
        return self._normal(2)

    @functools.cached_property
    def volume(self) -> np.ndarray:
        """[B, I] voxels, adding up to the voxels of an image."""
        share = np.random.default_rng((self.seed, 3)).uniform(0.5, 1.5, self.shape[:2])
        return (share / share.sum(1, keepdims=True) * self.voxels).astype(self.dtype)

    def _normal(self, stream: int) -> np.ndarray:
        return np.random.default_rng((self.seed, stream)).standard_normal(self.shape, np.dtype(self.dtype))

    @property
    def label(self) -> str:
        return "x".join(map(str, self.shape))


def parse(label: str, **changes: object) -> Problem:
    """Problem of "1x21x513x513"."""
    return Problem(tuple(int(n) for n in label.split("x")), **changes)  # type: ignore[arg-type]
