"""Layers with priors, for the place of a network's last softmax: `PriorSoftmax` and the papers' presets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._call import integer, number
from ..errors import InvalidTypeError, InvalidValueError
from ..priors import TV, Star, ThresholdDynamics, Volume
from .softmax import SoftmaxOutput, WarmStart, softmax, softmax_with_duals

__all__ = ["PriorSoftmax", "STDSoftmax", "VPTVSoftmax"]

Bounds = Union[Volume, Tensor, Sequence[Any]]
Centers = Union[Tensor, Sequence[Any]]
_FREE = "td_kernel"  # any values are allowed
_BOUNDS = ("v", "lower", "upper")


class PriorSoftmax(nn.Module):
    """The entropic softmax with priors as a layer: scores [B, I, *S] to probabilities of that shape.

    >>> import torch, segprior
    >>> from segprior.torch import PriorSoftmax
    >>> layer = PriorSoftmax(eps=0.5, iters=20, tv=segprior.TV(lam=1.0), learnable=("eps", "tv_lam"))
    >>> scores = torch.randn(2, 3, 32, 32, requires_grad=True)
    >>> u = layer(scores, volume=torch.tensor([300.0, 300.0, 424.0]))
    >>> u.square().mean().backward()
    >>> layer.raw_tv_lam.grad.shape, layer.values()["tv_lam"].item()
    (torch.Size([]), 1.0)

    What is in `learnable` becomes a parameter ``raw_<name>``. Values that must be positive are
    ``softplus(raw) = ln(1 + e^raw)``, and raw starts where that is the given value, so every step of an
    optimiser leaves them valid. (Weight decay pulls raw towards 0, the value towards ln 2.)

    Args:
        eps, iters, init_eps, tol, accelerate, spacing: as in `segprior.torch.softmax`.
        tv, td: the priors, with their initial values.
        volume: the volumes in voxels, [I] or [B, I], or a `Volume`, of calls that give none; None: without.
            Kept in float64 whatever the layer is converted to: 16 bits do not hold voxel counts.
        star: classes that are star-shaped; `forward` then needs their centres. star_tau: step of their duals.
        learnable: any of "eps", "tv_lam", "tv_tau", "td_lam", "td_sigma", "star_tau", each with an initial
            value > 0; "tv_edge", "td_edge": maps [*S] or [1, *S] of such values, for images of one size;
            "td_kernel": [*K] or [I, *K] of any values.
        return_logits: `forward` returns ``ln max(u, m)``, m the smallest normal number of u's dtype: scores
            for ``cross_entropy`` and the like, whose softmax is u. m keeps values and gradients finite; no
            gradient comes through entries with u < m: in float32, of classes whose score lies 87 eps below
            another's; in float16 (m = 6e-5) 10 eps, too soon for training, so convert such scores before.
        mode, checkpoint, compact_saved, check_interval, path, implicit_iters, implicit_tol: as in
            `segprior.torch.softmax`.

    Tensors among the initial values that are not learnt become buffers, which move with the layer and are not
    in its `state_dict`.

    Raises:
        InvalidValueError, InvalidTypeError: an argument is wrong; the text names it.
    """

    def __init__(
        self,
        eps: Any = 1.0,
        iters: int = 30,
        *,
        init_eps: Optional[float] = None,
        tol: Optional[float] = None,
        accelerate: Optional[bool] = None,
        spacing: Optional[Sequence[float]] = None,
        tv: Optional[TV] = None,
        td: Optional[ThresholdDynamics] = None,
        volume: Optional[Bounds] = None,
        star: Sequence[int] = (),
        star_tau: Any = None,
        learnable: Sequence[str] = (),
        return_logits: bool = False,
        mode: str = "unrolled",
        checkpoint: Optional[int] = None,
        compact_saved: bool = False,
        check_interval: int = 10,
        path: str = "auto",
        implicit_iters: Optional[int] = None,
        implicit_tol: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.iters = iters
        self.return_logits = return_logits
        self.star = tuple([integer(f"star[{m}]", cls, 0) for m, cls in enumerate(star)])
        self.options: dict[str, Any] = {
            **{"init_eps": init_eps, "tol": tol, "accelerate": accelerate, "spacing": spacing},
            **{"checkpoint": checkpoint, "compact_saved": compact_saved, "check_interval": check_interval},
            **{"path": path, "mode": mode, "implicit_iters": implicit_iters, "implicit_tol": implicit_tol},
        }
        initial: dict[str, Any] = {"eps": eps}
        self.has_tv, self.has_td = tv is not None, td is not None
        if tv is not None:
            if not isinstance(tv, TV):
                raise InvalidTypeError(f"tv is {type(tv).__name__}; it must be segprior.TV or None")
            initial.update(tv_lam=tv.lam, tv_tau=tv.tau, tv_edge=tv.edge)
        if td is not None:
            if not isinstance(td, ThresholdDynamics):
                kind = type(td).__name__
                raise InvalidTypeError(f"td is {kind}; it must be segprior.ThresholdDynamics or None")
            self.td_size = td.size
            initial.update(td_lam=td.lam, td_edge=td.edge)
            initial.update({"td_sigma": td.sigma} if td.kernel is None else {"td_kernel": td.kernel})
        if self.star:
            initial.update(star_tau=star_tau)
        self._hold(initial, learnable)
        self._hold_volume(volume)

    def _hold(self, initial: dict[str, Any], learnable: Sequence[str]) -> None:
        if isinstance(learnable, str):
            raise InvalidTypeError(f"learnable is {learnable!r}; it must be a sequence of names")
        for name in learnable:
            if name not in initial:
                raise InvalidValueError(f"learnable has {name!r}; this layer has {', '.join(initial)}")
        self._raw = tuple([name for name in initial if name in learnable])
        for name in self._raw:
            self.register_parameter(f"raw_{name}", nn.Parameter(_raw(name, initial.pop(name))))
        self._fixed = tuple([name for name, value in initial.items() if isinstance(value, Tensor)])
        for name in self._fixed:
            self.register_buffer(f"fixed_{name}", initial.pop(name).detach().clone(), persistent=False)
        self._numbers = initial

    def _hold_volume(self, volume: Optional[Bounds]) -> None:
        self.has_volume = volume is not None
        for name in _BOUNDS:
            value = None if volume is None else getattr(_as_volume(volume), name)
            if value is not None:
                value = torch.as_tensor(value, dtype=torch.float64).detach().clone()
            self.register_buffer(f"volume_{name}", value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PriorSoftmax:
        """Volumes go to the layer's device, but keep their dtype."""
        volumes = {name: self._buffers[name] for name in [f"volume_{bound}" for bound in _BOUNDS]}
        super()._apply(fn, recurse)
        for name, volume in volumes.items():
            converted = self._buffers[name]
            if volume is not None and converted is not None:
                self._buffers[name] = volume.to(converted.device)
        return self

    def values(self) -> dict[str, Any]:
        """The present value of every parameter: a number, None for a default, or a tensor."""
        values = dict(self._numbers)
        for name in self._fixed:
            values[name] = getattr(self, f"fixed_{name}")
        for name in self._raw:
            raw = getattr(self, f"raw_{name}")
            values[name] = raw if name == _FREE else softplus(raw)
        return values

    def forward(
        self,
        features: Tensor,
        volume: Optional[Bounds] = None,
        *,
        mask: Optional[Tensor] = None,
        centers: Optional[Centers] = None,
        tv_edge: Optional[Tensor] = None,
        td_edge: Optional[Tensor] = None,
        warm_start: Optional[WarmStart] = None,
    ) -> Tensor:
        """u [B, I, *S], or its logarithm (`return_logits`).

        Args:
            features: o [B, I, *S].
            volume: voxels per class, [I] or [B, I], or a `Volume`, instead of the layer's.
            mask: bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked.
            centers: of the star classes, in voxels: [M, nd] or [B, M, nd], or M of them, [nd] or [B, nd].
            tv_edge, td_edge: [*S], [1, *S] or [B, *S], instead of the layer's.
            warm_start: an earlier `SoftmaxOutput`, as in `segprior.torch.softmax`.
        """
        arguments = self._arguments(volume, centers, tv_edge, td_edge)
        u = softmax(features, iters=self.iters, mask=mask, warm_start=warm_start, **arguments, **self.options)
        return u.clamp_min(torch.finfo(u.dtype).tiny).log() if self.return_logits else u

    def with_duals(
        self,
        features: Tensor,
        volume: Optional[Bounds] = None,
        *,
        mask: Optional[Tensor] = None,
        centers: Optional[Centers] = None,
        tv_edge: Optional[Tensor] = None,
        td_edge: Optional[Tensor] = None,
        warm_start: Optional[WarmStart] = None,
    ) -> SoftmaxOutput:
        """u, its duals and the report, for the arguments of `forward`."""
        arguments = self._arguments(volume, centers, tv_edge, td_edge)
        return softmax_with_duals(
            features, iters=self.iters, mask=mask, warm_start=warm_start, **arguments, **self.options
        )

    def _arguments(
        self,
        volume: Optional[Bounds],
        centers: Optional[Centers],
        tv_edge: Optional[Tensor],
        td_edge: Optional[Tensor],
    ) -> dict[str, Any]:
        values = self.values()
        for name, edge, on in (("tv_edge", tv_edge, self.has_tv), ("td_edge", td_edge, self.has_td)):
            if edge is not None:
                if not on:
                    raise InvalidValueError(f"{name} is given, but this layer has no {name[:2]}")
                values[name] = edge
        arguments = {"eps": values["eps"], "star": self._stars(centers, values)}
        if self.has_tv:
            arguments["tv"] = TV(values["tv_lam"], values["tv_tau"], values["tv_edge"])
        if self.has_td:
            kernel = values.get("td_kernel")
            arguments["td"] = ThresholdDynamics(
                values["td_lam"], self.td_size, values.get("td_sigma"), kernel, values["td_edge"]
            )
        if volume is not None:
            arguments["volume"] = _as_volume(volume)
        elif self.has_volume:
            arguments["volume"] = Volume(self.volume_v, self.volume_lower, self.volume_upper)
        return arguments

    def _stars(self, centers: Optional[Centers], values: dict[str, Any]) -> Optional[list[Star]]:
        count = len(self.star)
        if centers is None:
            if count:
                raise InvalidValueError(f"centers is None; the star classes {list(self.star)} need theirs")
            return None
        if isinstance(centers, Tensor):
            if centers.dim() < 2:
                shape = list(centers.shape)
                raise InvalidValueError(f"centers has shape {shape}; it must be [M, nd] or [B, M, nd]")
            centers = centers.unbind(-2)
        if len(centers) != count:
            found = len(centers)
            raise InvalidValueError(f"centers are of {found} classes; this layer has {count} star classes")
        return [Star(cls, center, values["star_tau"]) for cls, center in zip(self.star, centers)]

    def extra_repr(self) -> str:
        parts = [f"iters={self.iters}"]
        for name, value in self.values().items():
            if value is not None:
                parts.append(f"{name}={_shown(value)}{' (learnable)' if name in self._raw else ''}")
        parts += ["volume"] if self.has_volume else []
        parts += [f"star={list(self.star)}"] if self.star else []
        parts += [f"mode={self.options['mode']}"] if self.options["mode"] != "unrolled" else []
        return ", ".join(parts + (["return_logits"] if self.return_logits else []))


class VPTVSoftmax(PriorSoftmax):
    """VPTV-softmax as a layer, [VPTV] Algorithm 1: total variation, and volumes if given here or in the call.

    eps is 0.5 in the paper's DeepLab, 1 in its U-net. For training the paper holds the duals constant in
    backward ("quasi dropout", 5.2): ``mode="last"``; the default differentiates all iterations.

    >>> layer = VPTVSoftmax(eps=1.0, learnable=("tv_lam",))
    >>> layer(torch.randn(1, 2, 16, 16), volume=[100, 156]).sum((2, 3)).round().tolist()
    [[100.0, 156.0]]

    Args:
        volume: voxels per class, [I] or [B, I], or a `Volume`; None: without, unless the call gives it.
        eps: ε > 0. lam: TV weight λ >= 0. iters: T. edge: e(x) of `TV`. more: arguments of `PriorSoftmax`.
    """

    def __init__(
        self,
        volume: Optional[Bounds] = None,
        eps: Any = 0.5,
        lam: Any = 1.0,
        iters: int = 30,
        *,
        edge: Optional[Tensor] = None,
        **more: Any,
    ) -> None:
        super().__init__(eps, iters, tv=TV(lam, edge=edge), volume=volume, **more)


class STDSoftmax(PriorSoftmax):
    """STD-softmax (soft threshold dynamics) as a layer, [STD] Algorithm 1, started from S(o).

    With volumes (given here or in the call) it is VP-STD, Algorithm 2; with ``star=`` SS-STD, Algorithm 3,
    for which the paper takes eps 0.1, lam 0.75 and 50 iterations.

    >>> layer = STDSoftmax(size=5, sigma=2.0, learnable=("td_sigma",))
    >>> layer(torch.randn(1, 2, 16, 16)).shape
    torch.Size([1, 2, 16, 16])

    Args:
        eps: ε > 0. lam: weight λ >= 0. iters: T. size, sigma: of the Gaussian kernel. edge: e'(x).
        more: arguments of `PriorSoftmax`.
    """

    def __init__(
        self,
        eps: Any = 1.0,
        lam: Any = 1.0,
        iters: int = 10,
        *,
        size: int = 7,
        sigma: Any = 5.0,
        edge: Optional[Tensor] = None,
        **more: Any,
    ) -> None:
        td = ThresholdDynamics(lam, size, sigma, edge=edge)
        super().__init__(eps, iters, td=td, **{"init_eps": 1.0, **more})


def _as_volume(volume: Bounds) -> Volume:
    return volume if isinstance(volume, Volume) else Volume(volume)


def _shown(value: Any) -> str:
    """One number, or the shape of many."""
    found = torch.as_tensor(value)
    return f"{list(found.shape)}" if found.numel() != 1 or found.is_meta else f"{found.item():.4g}"


def _raw(name: str, value: Any) -> Tensor:
    """Where the parameter `raw_<name>` starts."""
    if value is None:
        raise InvalidValueError(f"{name} is None; to be learnable it needs an initial value")
    if isinstance(value, Tensor):
        initial = value.detach().clone()
    else:
        given = value if name == _FREE else number(name, value)
        initial = torch.tensor(given, dtype=torch.get_default_dtype())
    if name == _FREE:
        return initial
    if not bool(((initial > 0) & initial.isfinite()).all()):
        text = f"{name} holds {float(initial.min())}; to be learnable"
        raise InvalidValueError(f"{text} its initial values must be > 0 and finite")
    return initial + torch.log(-torch.expm1(-initial))
