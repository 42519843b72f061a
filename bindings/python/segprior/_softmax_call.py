"""Arguments of one call of the entropic softmax, checked and held as the C library's structs."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable
from typing import Any

from . import _ffi
from ._arrays import FIELD, PARAMETER, View, is_array, repeat_rows, stack
from ._call import Call, integer, number, positive
from .errors import InvalidTypeError, InvalidValueError
from .priors import TV, Star, ThresholdDynamics, Volume
from .report import Info


class SoftmaxCall(Call):
    """Options and inputs of one forward call; kept for its backward."""

    def __init__(self, features: Any, stream: int | None, threads: int | None) -> None:
        lib = _ffi.library()
        super().__init__(features, "features", "B, I", FIELD, stream, threads)
        # Everything but the features, u and their gradients.
        self.parameter_dtype = _ffi.FLOAT64 if self.lead.dtype == _ffi.FLOAT64 else _ffi.FLOAT32
        self.opts = _ffi.SoftmaxOpts()
        lib.check(lib.softmax_opts_init(ct.byref(self.opts), ct.sizeof(self.opts)))
        self.inputs = _ffi.SoftmaxInputs(struct_size=ct.sizeof(_ffi.SoftmaxInputs))
        # Arguments that may have been lifted to [B, ...]: what their gradient must come back as.
        self.given_shapes: dict[str, tuple[int, ...]] = {}
        self.center_shapes: list[tuple[int, ...]] = []
        self.star_classes: tuple[int, ...] = ()
        self.views: dict[str, View] = {}
        self.add("features", self.lead)

    def add(self, name: str, source: View) -> None:
        self.views[name] = source
        setattr(self.inputs, name, ct.pointer(source.tensor))

    def add_scalar(self, name: str, value: Any) -> None:
        """A float goes to the options, a one-element array to the inputs."""
        if is_array(value):
            source = self.view(value, name)
            if math.prod(source.shape) != 1:
                raise InvalidValueError(f"{name} has shape {source.shape}; it must have one element")
            self.add(name, source.reshaped((1,)))
        else:
            setattr(self.opts, name, number(name, value))

    def add_field(self, name: str, field: Any, allowed: tuple[int, ...] = PARAMETER) -> None:
        """[*S], [1, *S] or [B, *S]."""
        source = self.view(field, name, allowed)
        self.given_shapes[name] = source.shape
        lifted = len(source.shape) == len(self.spatial)
        self.add(name, source.reshaped((1, *source.shape)) if lifted else source)

    def _numbers(self, name: str, value: Any, rule: str) -> Any:
        return self.numbers(name, value, rule, self.parameter_dtype)

    def add_tv(self, tv: Any) -> None:
        if not isinstance(tv, TV):
            raise InvalidTypeError(f"tv is {type(tv).__name__}; it must be segprior.TV or None")
        self.opts.tv = 1
        self.add_scalar("tv_lam", tv.lam)
        if tv.tau is not None:
            self.add_scalar("tv_tau", tv.tau if is_array(tv.tau) else positive("tv_tau", tv.tau, True))
        if tv.edge is not None:
            self.add_field("tv_edge", tv.edge)

    def add_volume(self, volume: Any) -> None:
        if not isinstance(volume, Volume):
            raise InvalidTypeError(f"volume is {type(volume).__name__}; it must be segprior.Volume or None")
        bounds = {"volume": volume.v, "volume_lower": volume.lower, "volume_upper": volume.upper}
        for name, value in bounds.items():
            if value is not None:
                self._add_bounds(name, value)

    def _add_bounds(self, name: str, value: Any) -> None:
        value = self._numbers(name, value, "[I] or [B, I]")
        source = self.view(value, name)
        self.given_shapes[name] = source.shape
        if len(source.shape) == 1:
            if source.shape[0] != self.classes:
                raise InvalidValueError(
                    f"{name} has shape {source.shape}; it must be [{self.classes}] or "
                    f"[{self.batch}, {self.classes}]"
                )
            source = repeat_rows(value, source, self.batch, self.stream)
            self.arrays.append(source.keep[0])
        self.add(name, source)

    def add_threshold_dynamics(self, td: Any) -> None:
        if not isinstance(td, ThresholdDynamics):
            raise InvalidTypeError(
                f"td is {type(td).__name__}; it must be segprior.ThresholdDynamics or None"
            )
        self.opts.td = 1
        self.add_scalar("td_lam", td.lam)
        if td.kernel is None:
            self.opts.td_size = integer("td_size", td.size, 1)
            self.add_scalar("td_sigma", td.sigma)
        else:
            kernel = self._numbers("td_kernel", td.kernel, "[*K] or [I, *K]")
            self.add("td_kernel", self.view(kernel, "td_kernel"))
            self.given_shapes["td_kernel"] = self.views["td_kernel"].shape
        if td.edge is not None:
            self.add_field("td_edge", td.edge)

    def add_stars(self, stars: Any) -> None:
        rule = "it must be a list of segprior.Star, or None"
        if not isinstance(stars, (list, tuple)):
            raise InvalidTypeError(f"star is {type(stars).__name__}; {rule}")
        for m, star in enumerate(stars):
            if not isinstance(star, Star):
                raise InvalidTypeError(f"star[{m}] is {type(star).__name__}; {rule}")
        if not stars:
            return
        self.star_classes = tuple(integer(f"star[{m}].cls", star.cls, 0) for m, star in enumerate(stars))
        self.opts.star_count = len(stars)
        self._star_classes = (ct.c_int32 * len(stars))(*self.star_classes)  # read by every call
        self.opts.star_classes = self._star_classes
        axes, centers, sources = len(self.spatial), [], []
        for m, star in enumerate(stars):
            name = f"star[{m}].center"
            center = self._numbers(name, star.center, "[nd] or [B, nd]")
            source = self._stacked(center, name)
            if source.shape not in ((axes,), (self.batch, axes)):
                raise InvalidValueError(
                    f"{name} has shape {source.shape}; it must be [{axes}] or [{self.batch}, {axes}], "
                    "an index per spatial axis"
                )
            centers.append(center)
            sources.append(source)
        self.center_shapes = [source.shape for source in sources]
        self._add_stack("star_center", centers, sources, (self.batch, axes))
        self._add_star_steps([star.tau for star in stars])

    def _add_star_steps(self, steps: list[Any]) -> None:
        if all(tau is None for tau in steps):
            return
        for m, tau in enumerate(steps):
            if tau is None:
                raise InvalidValueError(f"star[{m}].tau is None; give a step for every star or for none")
            if not is_array(tau):
                steps[m] = positive(f"star[{m}].tau", tau, True)
        if not any(is_array(tau) for tau in steps) and len(set(steps)) == 1:
            self.opts.star_tau = steps[0]
            return
        arrays = [self._numbers("", tau, "") for tau in steps]
        sources = [self._stacked(tau, f"star[{m}].tau") for m, tau in enumerate(arrays)]
        for m, source in enumerate(sources):
            if math.prod(source.shape) != 1:
                raise InvalidValueError(f"star[{m}].tau has shape {source.shape}; it must have one element")
        self._add_stack("star_tau", arrays, [source.reshaped((1,)) for source in sources], (1,))
        self.add("star_tau", self.views["star_tau"].reshaped((len(steps),)))

    def _stacked(self, array: Any, name: str) -> View:
        """The view of an array that will be copied into one with others: the library sees the copy alone."""
        source = self.view(array, name)
        if source.dtype != self.parameter_dtype:
            raise InvalidTypeError(
                f"{name} has dtype {_ffi.DTYPE_NAMES[source.dtype]}; it must be "
                f"{_ffi.DTYPE_NAMES[self.parameter_dtype]}"
            )
        if source.device != self.lead.device:
            raise InvalidValueError(
                f"{name} lives on {source.device}; it must be on the features' device {self.lead.device}"
            )
        return source

    def _add_stack(self, name: str, arrays: list[Any], sources: list[View], shape: tuple[int, ...]) -> None:
        source = stack(arrays, sources, shape, self.stream)
        self.arrays.append(source.keep[0])
        self.add(name, source)

    def read_info(self, address: int, stream: int) -> Info:
        return Info(self.read_infos(address, self.batch, stream))

    @property
    def has_volume(self) -> bool:
        return any(name in self.views for name in ("volume", "volume_lower", "volume_upper"))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of the C library's output `name`."""
        batch, classes, spatial = self.batch, self.classes, self.spatial
        stars, axes = len(self.star_classes), len(spatial)
        shapes: dict[str, tuple[int, ...]] = {
            "u": (batch, classes, *spatial),
            "features": (batch, classes, *spatial),
            "tv_dual": (batch, classes, axes, *spatial),
            "volume_dual": (batch, classes),
            "volume": (batch, classes),
            "volume_lower": (batch, classes),
            "volume_upper": (batch, classes),
            "star_dual": (batch, stars, *spatial),
            "star_tau": (stars,),
            "star_center": (batch, stars, axes),
        }
        if name in ("tv_edge", "td_edge", "td_kernel"):
            return self.views[name].shape
        return shapes.get(name, (1,))

    def allocate(self, struct: ct.Structure, names: Iterable[str]) -> dict[str, tuple[Any, View]]:
        """Uninitialised arrays for these fields of an outputs or gradients struct."""
        made = {}
        for name in names:
            shape = self.shape_of(name)
            dtype = self.lead.dtype if name in ("u", "features") else self.parameter_dtype
            array, target = self.made(name, shape, dtype)
            setattr(struct, name, ct.pointer(target.tensor))
            made[name] = (array, target)
        return made
