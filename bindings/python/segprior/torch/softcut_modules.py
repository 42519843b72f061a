"""SoftCut as layers of a network, whose edge weights a convolution predicts: `SoftCut2d`, `SoftCut3d`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._call import flag, integer, positive
from ..errors import InvalidValueError
from ._tensors import require_tensor
from .softcut import options_of, softcut

# Of d. Systems with small conductances are badly conditioned, and d = 0 would be outside its domain.
_LEAST_CONDUCTANCE = 1e-3


class PredictedEdges(NamedTuple):
    """What the edge head of a SoftCut layer says of a feature map, as arguments of `segprior.torch.softcut`.

    Attributes:
        edges: one tensor [B, M, *S] per spatial axis m, ``S[m] - 1`` entries on axis m; M = 1 if the classes
            share them, else K.
        diagonals: with 8 neighbours two tensors [B, M, H - 1, W - 1], else None.
        conductance: d [B, M, *S], None if the layer has none.
    """

    edges: tuple[Tensor, ...]
    diagonals: Optional[tuple[Tensor, Tensor]]
    conductance: Optional[Tensor]


class _SoftCut(nn.Module):
    """The edge head and the solve; the offsets of the directions decide on the dimension."""

    def __init__(
        self,
        convolution: type[nn.Module],
        offsets: Sequence[tuple[int, ...]],
        in_channels: int,
        classes: int,
        shared: bool,
        kernel_size: int,
        conductance: bool,
        weight: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.classes = integer("classes", classes, 1)
        self.shared = flag("shared", shared)
        self.conductance = flag("conductance", conductance)
        self.weight = positive("weight", weight)
        if integer("kernel_size", kernel_size, 1) % 2 == 0:
            raise InvalidValueError(
                f"kernel_size = {kernel_size}; it must be odd, for a weight on every edge"
            )
        options_of(norm="l2", absolute=False, batch=False, **options)  # a wrong one is an error here already
        self.options = options
        self._offsets = tuple(offsets)
        channels = integer("in_channels", in_channels, 1)
        maps = (len(offsets) + conductance) * self._matrices
        self.head = convolution(channels, maps, kernel_size, padding=kernel_size // 2)
        self.reset_parameters()

    @property
    def _matrices(self) -> int:
        return 1 if self.shared else self.classes

    def reset_parameters(self) -> None:
        """Initial values of the head: torch's of a convolution, biases 0: weights begin near `weight`."""
        self.head.reset_parameters()  # type: ignore[operator]
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def edges(self, features: Tensor) -> PredictedEdges:
        """The head's edges for a feature map [B, C, *S]; of float64 if the features are, else float32."""
        axes = len(self._offsets[0])
        channels = self.head.in_channels
        if require_tensor("features", features).dim() != 2 + axes or features.shape[1] != channels:
            shape = tuple(features.shape)
            raise InvalidValueError(
                f"features has shape {shape}; it must be [B, {channels}, *S], {axes} spatial axes"
            )
        maps = self.head(features)
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        maps = maps.unflatten(1, (-1, self._matrices)).unbind(1)
        weights = [
            _softplus(_midpoints(values, offset)) * self.weight for values, offset in zip(maps, self._offsets)
        ]
        diagonals = (weights[axes], weights[axes + 1]) if len(weights) > axes else None
        conductance = None
        if self.conductance:
            conductance = _LEAST_CONDUCTANCE + (1 - _LEAST_CONDUCTANCE) * _softplus(maps[-1])
        return PredictedEdges(tuple(weights[:axes]), diagonals, conductance)

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        """x [B, K, *S] from scores [B, K, *S] and a feature map [B, C, *S], from which the edges come."""
        edges, diagonals, conductance = self.edges(features)
        expected = (features.shape[0], self.classes, *features.shape[2:])
        if require_tensor("scores", scores).shape != expected:
            raise InvalidValueError(
                f"scores has shape {tuple(scores.shape)}; with these features it must be {tuple(expected)}"
            )
        p = scores.to(edges[0].dtype)
        if conductance is not None:
            p = p * conductance
        x = softcut(p, edges, diagonals, conductance, **self.options)
        return x if torch.is_autocast_enabled(scores.device.type) else x.to(scores.dtype)

    def extra_repr(self) -> str:
        settings = {
            **{"classes": self.classes, "shared": self.shared, "conductance": self.conductance},
            **{"weight": self.weight, **self.options},
        }
        return ", ".join(f"{name}={value!r}" for name, value in settings.items() if value is not None)


class SoftCut2d(_SoftCut):
    """SoftCut ([SC] eq. 22) as the last layer of a network for images: it smooths scores along edges whose
    weights are learned.

    A convolution, the edge head, maps the features to one value g per voxel and direction. An edge's weight
    comes from g at the middle of the edge, by linear interpolation the mean of g at its two ends a and b:

        w_ab = weight * softplus((g_a + g_b) / 2) / ln 2

    so weights are positive, and begin around `weight`, where g = 0. With a conductance,
    ``d = 0.001 + 0.999 softplus(g) / ln 2`` of one map more says how much a voxel's own scores count:

        d_a x_a + sum_b w_ab (x_a - x_b) = d_a p_a

    hence ``min p <= x <= max p`` in each class, and x = p where all weights are 0.

    >>> import torch, segprior.torch
    >>> layer = segprior.torch.SoftCut2d(in_channels=16, classes=3, neighbours=8, weight=5.0)
    >>> features, scores = torch.randn(2, 16, 32, 32), torch.randn(2, 3, 32, 32)
    >>> layer(scores, features).shape
    torch.Size([2, 3, 32, 32])

    Args:
        in_channels: C of the feature map [B, C, H, W]. classes: K of the scores [B, K, H, W].
        neighbours: 4, or 8 with the diagonals.
        shared: one set of weights for all classes, which is the cheaper by far; False: one for each class.
        kernel_size: of the head, odd; 1 or 3 is usual.
        conductance: predict d too. False: d = 1.
        weight: > 0, scale of the weights. Smoothing reaches over about sqrt(weight) voxels.
        tol, backward_tol: of the solves. The defaults are ones that float32 can meet with weights up to 1000.
        backward_max_iters: None, or a cap; 1 is the cheap backward pass with one iteration of the solver.
        solver, max_iters, path: as in `segprior.torch.softcut`.

    `edges(features)` returns the weights: for looking at them, or for `softcut_with_report`.
    Scores of float16 or bfloat16 are solved in float32; x has their dtype, under autocast float32.

    References:
        [SC] Bonfiglio, "SoftCut", Politecnico di Milano, 2022.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        neighbours: int = 4,
        shared: bool = True,
        *,
        kernel_size: int = 1,
        conductance: bool = False,
        weight: float = 1.0,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iters: Optional[int] = None,
        backward_tol: float = 1e-4,
        backward_max_iters: Optional[int] = None,
        path: str = "auto",
    ) -> None:
        if neighbours not in (4, 8):
            raise InvalidValueError(f"neighbours = {neighbours!r}; it must be 4 or 8")
        # Offsets from an edge's one end to the other; those of the diagonals in the order of `softcut`.
        offsets = [(1, 0), (0, 1), (1, 1), (1, -1)][: neighbours // 2]
        options = {
            **{"solver": solver, "tol": tol, "max_iters": max_iters, "backward_tol": backward_tol},
            **{"backward_max_iters": backward_max_iters, "path": path},
        }
        super().__init__(
            nn.Conv2d, offsets, in_channels, classes, shared, kernel_size, conductance, weight, options
        )


class SoftCut3d(_SoftCut):
    """`SoftCut2d` for volumes [B, K, D, H, W], with 6 neighbours.

    >>> import torch, segprior.torch
    >>> layer = segprior.torch.SoftCut3d(in_channels=8, classes=2)
    >>> layer(torch.randn(1, 2, 8, 16, 16), torch.randn(1, 8, 8, 16, 16)).shape
    torch.Size([1, 2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        shared: bool = True,
        *,
        kernel_size: int = 1,
        conductance: bool = False,
        weight: float = 1.0,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iters: Optional[int] = None,
        backward_tol: float = 1e-4,
        backward_max_iters: Optional[int] = None,
        path: str = "auto",
    ) -> None:
        offsets = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        options = {
            **{"solver": solver, "tol": tol, "max_iters": max_iters, "backward_tol": backward_tol},
            **{"backward_max_iters": backward_max_iters, "path": path},
        }
        super().__init__(
            nn.Conv3d, offsets, in_channels, classes, shared, kernel_size, conductance, weight, options
        )


def _softplus(values: Tensor) -> Tensor:
    """1 at 0."""
    return functional.softplus(values) / math.log(2)


def _midpoints(values: Tensor, offset: tuple[int, ...]) -> Tensor:
    """The mean of [B, M, *S] at both ends of every edge of a direction."""
    first, second = values, values
    for axis, step in enumerate(offset, start=2):
        if step:
            extent = values.shape[axis] - 1
            begin = (0, 1) if step > 0 else (1, 0)
            first, second = first.narrow(axis, begin[0], extent), second.narrow(axis, begin[1], extent)
    return (first + second) / 2
