"""What is computed: one method of the papers (VPTV-softmax, STD, ...) on random data."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np



@dataclasses.dataclass(frozen=True)
class Method:
    """Priors and defaults of a paper's method: [VPTV] Algorithm 1, [STD] Algorithms 1 to 3."""

    priors: tuple[str, ...]  # of "tv", "volume", "td", "star"
    iterations: int
    eps: float
    lam: float  # of TV or of threshold dynamics
    init_eps: float | None  # None: eps


METHODS = {
    "vptv": Method(("tv", "volume"), 30, 1.0, 1.0, None),
    "tv_softmax": Method(("tv",), 30, 1.0, 1.0, None),
    "std": Method(("td",), 10, 1.0, 1.0, 1.0),
    "vp_std": Method(("td", "volume"), 10, 1.0, 1.0, 1.0),
    "ss_std": Method(("td", "star"), 50, 0.1, 0.75, 1.0),
}
TD_SIZE, TD_SIGMA = 7, 5.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything that a contender needs. Arrays are made on first use and are the same for the same seed."""

    shape: tuple[int, ...]  # [B, I, *S]
    iterations: int = 30
    eps: float = 1.0
    lam: float = 1.0
    method: str = "vptv"
    seed: int = 0
    dtype: str = "float32"

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def priors(self) -> tuple[str, ...]:
        return METHODS[self.method].priors

    @property
    def init_eps(self) -> float:
        return METHODS[self.method].init_eps or self.eps

    @property
    def operator(self) -> str:
        return "softmax: " + " + ".join(self.priors)

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
    def star_tau(self) -> float:
        """The step of one star class: the papers' eps in 2-D."""
        return 2 * self.eps / self.axes

    @property
    def star_center(self) -> np.ndarray:
        """[B, 1, nd]: class 0's, the middle of the image."""
        middle = np.array([(n - 1) / 2 for n in self.spatial], np.dtype(self.dtype))
        return np.tile(middle, (self.shape[0], 1, 1))

    @property
    def forward_bytes(self) -> int:
        """Least traffic of a fused iteration, times the iterations: read o; read and write q, or u without TV."""
        state = 2 * self.axes if "tv" in self.priors else 2
        return self.size * self.itemsize * (1 + state) * self.iterations

    @property
    def backward_bytes(self) -> int:
        """The same for the adjoint: read state, o and the gradients of both, write the gradients."""
        state = self.axes if "tv" in self.priors else 1
        return self.size * self.itemsize * 3 * (1 + state) * self.iterations

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


def parse(label: str, method: str = "vptv", **changes: object) -> Problem:
    """Problem of "1x21x513x513" with a method's defaults."""
    m = METHODS[method]
    values: dict[str, object] = dict(iterations=m.iterations, eps=m.eps, lam=m.lam, method=method)
    return Problem(tuple(int(n) for n in label.split("x")), **(values | changes))  # type: ignore[arg-type]
