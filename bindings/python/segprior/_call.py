"""Arguments of one call of the entropic softmax, checked and held as the C library's structs."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _ffi
from ._arrays import View, is_array, repeat_rows, view
from ._frameworks import NumpyFramework, framework_for
from .errors import InvalidTypeError, InvalidValueError


def number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} is {value!r}; it must be a number or a one-element array") from error


def positive(name: str, value: Any) -> float:
    found = number(name, value)
    if not found > 0:
        raise InvalidValueError(f"{name} = {found}; it must be > 0 (None: the default)")
    return found


def integer(name: str, value: Any, least: int) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} is {value!r}; it must be an integer") from error
    if found != value or not least <= found < 2**31:
        raise InvalidValueError(f"{name} = {value!r}; it must be an integer >= {least}")
    return found


class Call:
    """Options and inputs of one forward call; kept for its backward."""

    def __init__(self, features: Any, stream: int | None, threads: int | None) -> None:
        lib = _ffi.library()
        source = view(features, "features", stream)
        if not 3 <= len(source.shape) <= 5:
            raise InvalidValueError(
                f"features has shape {source.shape}; it must be [B, I, *S] with 1 to 3 spatial axes"
            )
        self.features = source
        self.batch, self.classes, *self.spatial = source.shape
        self.framework: NumpyFramework = framework_for(features, source.device)
        own_stream = self.framework.current_stream()
        self.stream = own_stream if stream is None else int(stream)
        self.threads = 0 if threads is None else int(threads)
        self.opts = _ffi.SoftmaxOpts()
        lib.check(lib.softmax_opts_init(ct.byref(self.opts), ct.sizeof(self.opts)))
        self.views: dict[str, View] = {}
        self.inputs = _ffi.SoftmaxInputs(struct_size=ct.sizeof(_ffi.SoftmaxInputs))
        self.given_shapes: dict[
            str, tuple[int, ...]
        ] = {}  # for gradients whose argument was lifted to [B, ...]
        self.add("features", source)

    def view(self, array: Any, name: str) -> View:
        return view(array, name, self.stream)

    def add(self, name: str, source: View) -> None:
        self.views[name] = source
        setattr(self.inputs, name, ct.pointer(source.tensor))

    def context(self) -> _ffi.Context:
        found = _ffi.context(self.features.device)
        found.configure(self.stream, self.threads)
        return found

    def add_scalar(self, name: str, value: Any) -> None:
        """A float goes to the options, a one-element array to the inputs."""
        if is_array(value):
            source = self.view(value, name)
            if math.prod(source.shape) != 1:
                raise InvalidValueError(f"{name} has shape {source.shape}; it must have one element")
            self.add(name, source.reshaped((1,)))
        else:
            setattr(self.opts, name, number(name, value))

    def add_edge(self, edge: Any) -> None:
        source = self.view(edge, "tv_edge")
        self.given_shapes["tv_edge"] = source.shape
        lifted = len(source.shape) == len(self.spatial)
        self.add("tv_edge", source.reshaped((1, *source.shape)) if lifted else source)

    def add_bounds(self, name: str, value: Any) -> None:
        if not is_array(value):
            try:
                numbers = np.array(value, np.float64)
            except (TypeError, ValueError) as error:
                raise InvalidTypeError(
                    f"{name} must be an array or numbers [I] or [B, I]: {error}"
                ) from error
            value = self.framework.numbers(numbers, self.features.dtype)
        source = self.view(value, name)
        self.given_shapes[name] = source.shape
        if len(source.shape) == 1:
            if source.shape[0] != self.classes:
                raise InvalidValueError(
                    f"{name} has shape {source.shape}; it must be [{self.classes}] or "
                    f"[{self.batch}, {self.classes}]"
                )
            source = repeat_rows(value, source, self.batch)
        self.add(name, source)

    @property
    def empty(self) -> bool:
        return 0 in self.features.shape

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of the C library's output `name`."""
        batch, classes, spatial = self.batch, self.classes, self.spatial
        if name == "tv_dual":
            return (batch, classes, len(spatial), *spatial)
        if name == "volume_dual" or name.startswith("volume"):
            return (batch, classes)
        if name == "tv_edge":
            return self.views[name].shape
        return (batch, classes, *spatial) if name in ("u", "features") else (1,)

    def allocate(self, struct: ct.Structure, names: Iterable[str]) -> dict[str, tuple[Any, View]]:
        """Uninitialised arrays for these fields of an outputs or gradients struct."""
        made = {}
        for name in names:
            shape, dtype = self.shape_of(name), self.features.dtype
            # The library leaves the outputs of an empty problem alone; here they are sums over nothing.
            array = (
                self.framework.numbers(np.zeros(shape), dtype)
                if self.empty
                else self.framework.empty(shape, dtype)
            )
            target = view(array, name)
            setattr(struct, name, ct.pointer(target.tensor))
            made[name] = (array, target)
        return made
