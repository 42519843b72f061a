"""Arguments of `segprior.torch.softmax` as those of the operator: tensors, and options as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .._call import choice, flag, integer, number, positive
from ..errors import InvalidTypeError, InvalidValueError
from ..priors import TV, Star, ThresholdDynamics, Volume
from ..result import MODES
from ..softmax import PATHS, default_checkpoint, spacing_steps
from ._options import remembered, to_text
from ._softmax_op import INPUTS
from ._tensors import leading, parameter_dtype, require_tensor, tensor_of

_SLOTS = {name: i for i, name in enumerate(INPUTS)}
_OTHERS: list[Optional[Tensor]] = [None] * (len(INPUTS) - 1)


def operator_arguments(
    features: Any,
    eps: Any,
    iters: Any,
    init_eps: Any,
    tol: Any,
    tv: Optional[TV],
    accelerate: Any,
    volume: Optional[Volume],
    spacing: Optional[Sequence[float]],
    warm_start: Any,
    td: Optional[ThresholdDynamics],
    star: Optional[Sequence[Star]],
    mask: Optional[Tensor],
    *settings: Any,
) -> tuple[list[Optional[Tensor]], str, int]:
    """The operator's tensors, its options, and the interval at which iterates are kept for backward.

    `settings`: the last parameters of `_options`.
    """
    features = leading("features", features)
    given = _Tensors(features)
    numbers: list[Any] = [given.scalar("eps", eps)]
    numbers += (None, None, None) if tv is None else given.tv(tv)
    if volume is not None:
        given.volume(volume)
    numbers += (None, None, None, None) if td is None else given.threshold_dynamics(td)
    numbers += ((), None) if star is None else given.stars(star)
    if mask is not None:
        given.field("mask", mask, torch.uint8)
    if warm_start is not None:
        given.warm_start(warm_start, tv is not None, volume is not None, bool(star))
    if spacing is not None:
        spacing = spacing_steps(spacing, features.dim() - 2)
    numbers += (iters, init_eps, tol, accelerate, spacing, *settings)
    return (given.slots, *_options(*numbers))


class _Tensors:
    """The tensors of a call, one slot for each of `INPUTS`.

    Methods put tensors into their slots; those about priors return what is given as numbers instead.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.dtype = parameter_dtype(features)
        self.slots: list[Optional[Tensor]] = [features, *_OTHERS]

    def convert(self, name: str, value: Tensor) -> Tensor:
        """In the features' precision: parameters of a network may have another."""
        if value.dtype.is_complex:
            raise InvalidTypeError(f"{name} has dtype {value.dtype}; it must be real")
        return value if value.dtype == self.dtype else value.to(self.dtype)

    def numbers(self, name: str, value: Any, rule: str) -> Tensor:
        """A tensor, or sequences of numbers as a tensor."""
        if isinstance(value, Tensor):
            return self.convert(name, value)
        return tensor_of(name, value, rule, self.dtype, self.features.device)

    def scalar(self, name: str, value: Any) -> Any:
        """None if it is a tensor, which goes to its slot."""
        if not isinstance(value, Tensor):
            return value
        self.slots[_SLOTS[name]] = self._single(name, value)
        return None

    def _single(self, name: str, value: Tensor) -> Tensor:
        if value.numel() != 1:
            raise InvalidValueError(f"{name} has shape {list(value.shape)}; it must have one element")
        return self.convert(name, value).reshape(1)

    def field(self, name: str, value: Any, dtype: Optional[torch.dtype] = None) -> None:
        """[*S], [1, *S] or [B, *S], as the latter two."""
        require_tensor(name, value)
        if dtype is None:
            value = self.convert(name, value)
        elif value.dtype not in (dtype, torch.bool):
            raise InvalidTypeError(f"{name} has dtype {value.dtype}; it must be bool or uint8")
        self.slots[_SLOTS[name]] = value[None] if value.dim() == self.features.dim() - 2 else value

    def tv(self, tv: TV) -> tuple[Any, Any, Any]:
        if not isinstance(tv, TV):
            raise InvalidTypeError(f"tv is {type(tv).__name__}; it must be segprior.TV or None")
        if tv.edge is not None:
            self.field("tv_edge", tv.edge)
        return True, self.scalar("tv_lam", tv.lam), self.scalar("tv_tau", tv.tau)

    def volume(self, volume: Volume) -> None:
        if not isinstance(volume, Volume):
            raise InvalidTypeError(f"volume is {type(volume).__name__}; it must be segprior.Volume or None")
        batch, classes = self.features.shape[:2]
        given = {"volume": volume.v, "volume_lower": volume.lower, "volume_upper": volume.upper}
        for name, value in given.items():
            if value is None:
                continue
            bounds = self.numbers(name, value, "[I] or [B, I]")
            if bounds.dim() == 1:
                if bounds.shape[0] != classes:
                    raise InvalidValueError(
                        f"{name} has shape {list(bounds.shape)}; "
                        f"it must be [{classes}] or [{batch}, {classes}]"
                    )
                bounds = bounds.expand(batch, classes)
            self.slots[_SLOTS[name]] = bounds

    def threshold_dynamics(self, td: ThresholdDynamics) -> tuple[Any, Any, Any, Any]:
        if not isinstance(td, ThresholdDynamics):
            raise InvalidTypeError(
                f"td is {type(td).__name__}; it must be segprior.ThresholdDynamics or None"
            )
        if td.edge is not None:
            self.field("td_edge", td.edge)
        lam = self.scalar("td_lam", td.lam)
        if td.kernel is None:
            return True, lam, td.size, self.scalar("td_sigma", td.sigma)
        self.slots[_SLOTS["td_kernel"]] = self.numbers("td_kernel", td.kernel, "[*K] or [I, *K]")
        return True, lam, None, None

    def stars(self, stars: Sequence[Star]) -> tuple[tuple[int, ...], Any]:
        rule = "it must be a list of segprior.Star, or None"
        if not isinstance(stars, (list, tuple)):
            raise InvalidTypeError(f"star is {type(stars).__name__}; {rule}")
        for m, star in enumerate(stars):
            if not isinstance(star, Star):
                raise InvalidTypeError(f"star[{m}] is {type(star).__name__}; {rule}")
        if not stars:
            return (), None
        centers = [self._center(f"star[{m}].center", star.center) for m, star in enumerate(stars)]
        self.slots[_SLOTS["star_center"]] = torch.stack(centers, 1)
        classes = tuple([integer(f"star[{m}].cls", star.cls, 0) for m, star in enumerate(stars)])
        return classes, self._star_steps([star.tau for star in stars])

    def _center(self, name: str, value: Any) -> Tensor:
        center = self.numbers(name, value, "[nd] or [B, nd]")
        batch, axes = self.features.shape[0], self.features.dim() - 2
        if center.shape not in ((axes,), (batch, axes)):
            raise InvalidValueError(
                f"{name} has shape {list(center.shape)}; it must be [{axes}] or [{batch}, {axes}], "
                "an index per spatial axis"
            )
        if center.device != self.features.device:  # torch.stack's own error would not name it
            raise InvalidValueError(
                f"{name} lives on {center.device}; it must be on the features' device {self.features.device}"
            )
        return center.expand(batch, axes)

    def _star_steps(self, steps: list[Any]) -> Any:
        """One number for all stars, if that is what was given."""
        if None in [tau if tau is None else 0 for tau in steps]:
            if any(tau is not None for tau in steps):
                m = [tau is None for tau in steps].index(True)
                raise InvalidValueError(f"star[{m}].tau is None; give a step for every star or for none")
            return None
        steps = [
            tau if isinstance(tau, Tensor) else positive(f"star[{m}].tau", tau, True)
            for m, tau in enumerate(steps)
        ]
        if not any([isinstance(tau, Tensor) for tau in steps]) and len(set(steps)) == 1:
            return steps[0]
        singles = [self.numbers(f"star[{m}].tau", tau, "") for m, tau in enumerate(steps)]
        self.slots[_SLOTS["star_tau"]] = torch.cat(
            [self._single(f"star[{m}].tau", tau) for m, tau in enumerate(singles)]
        )
        return None

    def warm_start(self, start: Any, tv: bool, volume: bool, star: bool) -> None:
        """A previous output serves whatever priors this call has; a dual given by hand needs its prior."""
        if not isinstance(start, (tuple, list)) or len(start) not in (2, 3, 5):
            raise InvalidTypeError(
                "warm_start must be a SoftmaxOutput, (tv_dual, volume_dual) or "
                "(tv_dual, volume_dual, star_dual)"
            )
        if len(start) == 5:
            start = [dual if on else None for dual, on in zip(start[1:4], (tv, volume, star))]
        for name, dual in zip(("init_tv_dual", "init_volume_dual", "init_star_dual"), start):
            if dual is not None:
                given = require_tensor(f"warm_start's {name[5:]}", dual)
                self.slots[_SLOTS[name]] = self.convert(name, given).detach()


@remembered
def _options(
    eps: Any,
    tv: Optional[bool],
    tv_lam: Any,
    tv_tau: Any,
    td: Optional[bool],
    td_lam: Any,
    td_size: Any,
    td_sigma: Any,
    star_classes: tuple[int, ...],
    star_tau: Any,
    iters: Any,
    init_eps: Any,
    tol: Any,
    accelerate: Any,
    spacing: Optional[tuple[float, ...]],
    checkpoint: Any,
    compact_saved: Any,
    check_interval: Any,
    path: Any,
    mode: Any,
    implicit_iters: Any,
    implicit_tol: Any,
) -> tuple[str, int]:
    """Options as text, without `checkpoint_interval`, and what that is if a gradient is needed.

    None: the library's default, or given as a tensor.
    """

    numbers = {"iters": iters, "init_eps": init_eps, "tol": tol, "implicit_tol": implicit_tol}
    for name, value in numbers.items():
        if isinstance(value, Tensor):  # which may require grad
            raise InvalidTypeError(f"{name} is a tensor; it must be a number")

    def optional(rule: Any, name: str, value: Any, *more: Any) -> Any:
        return None if value is None else rule(name, value, *more)

    iterations = integer("iters", iters, 0)
    backward = choice("mode", mode, MODES)
    for name, value in (("implicit_iters", implicit_iters), ("implicit_tol", implicit_tol)):
        if value is not None and mode != "implicit":
            raise InvalidValueError(f"{name} = {value!r} is for mode 'implicit' only; mode is {mode!r}")
    text = to_text(
        iterations=iterations,
        eps=optional(number, "eps", eps),
        init_eps=optional(positive, "init_eps", init_eps, True),
        tolerance=optional(positive, "tol", tol, True),
        check_interval=integer("check_interval", check_interval, 1),
        accelerate=tol is not None if accelerate is None else flag("accelerate", accelerate),
        compact_saved=flag("compact_saved", compact_saved),
        path=choice("path", path, PATHS),
        spacing=spacing,
        tv=tv,
        tv_lam=optional(number, "tv_lam", tv_lam),
        tv_tau=optional(positive, "tv_tau", tv_tau, True),
        td=td,
        td_lam=optional(number, "td_lam", td_lam),
        td_size=optional(integer, "td_size", td_size, 1),
        td_sigma=optional(number, "td_sigma", td_sigma),
        star_count=len(star_classes) or None,
        star_classes=star_classes or None,
        star_tau=star_tau,
        backward_mode=backward,
        implicit_iterations=optional(integer, "implicit_iters", implicit_iters, 1),
        implicit_tolerance=optional(positive, "implicit_tol", implicit_tol, True),
    )
    if mode == "last":
        return text, 0
    if checkpoint is not None:
        return text, integer("checkpoint", checkpoint, 0)
    return text, max(1, iterations) if mode == "implicit" else default_checkpoint(iterations)
