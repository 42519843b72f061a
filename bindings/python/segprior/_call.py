"""Arguments of one call of the entropic softmax, checked and held as the C library's structs."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _ffi
from ._arrays import View, is_array, repeat_rows, view
from ._frameworks import NumpyFramework, framework_for
from .errors import InvalidTypeError, InvalidValueError


def number(name: str, value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text is not read as a number")
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} is {value!r}; it must be a number or a one-element array") from error
    except OverflowError as error:
        raise InvalidValueError(f"{name} = {value}; it must be a number that float64 can hold") from error


def positive(name: str, value: Any) -> float:
    found = number(name, value)
    if not found > 0:
        raise InvalidValueError(f"{name} = {found}; it must be > 0 (None: the default)")
    return found


def integer(name: str, value: Any, least: int, bits: int = 31) -> int:
    """`bits`: of the largest value that its C type holds."""
    wrong_type = f"{name} is {value!r}; it must be an integer"
    wrong_value = f"{name} = {value!r}; it must be an integer >= {least} and < 2**{bits}"
    if isinstance(value, (str, bytes)):
        raise InvalidTypeError(wrong_type)
    try:
        found = int(value)
    except TypeError as error:
        raise InvalidTypeError(wrong_type) from error
    except (ValueError, OverflowError) as error:  # NaN, inf
        raise InvalidValueError(wrong_value) from error
    if found != value or not least <= found < 2**bits:
        raise InvalidValueError(wrong_value)
    return found


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise InvalidTypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


class Call:
    """Options and inputs of one forward call; kept for its backward."""

    def __init__(self, features: Any, stream: int | None, threads: int | None) -> None:
        lib = _ffi.library()
        if stream is not None:
            stream = integer("stream", stream, 0, 64)
        self.threads = 0 if threads is None else integer("threads", threads, 0)
        source = view(features, "features", stream)
        if not 3 <= len(source.shape) <= 5:
            raise InvalidValueError(
                f"features has shape {source.shape}; it must be [B, I, *S] with 1 to 3 spatial axes"
            )
        self.features = source
        self.batch, self.classes, *self.spatial = source.shape
        self.framework: NumpyFramework = framework_for(features, source.device)
        self.stream_given = stream is not None
        self.stream: int = self.framework.current_stream() if stream is None else stream
        self.opts = _ffi.SoftmaxOpts()
        lib.check(lib.softmax_opts_init(ct.byref(self.opts), ct.sizeof(self.opts)))
        self.arrays: list[Any] = [features]  # whose memory is read
        self.views: dict[str, View] = {}
        self.inputs = _ffi.SoftmaxInputs(struct_size=ct.sizeof(_ffi.SoftmaxInputs))
        self.given_shapes: dict[
            str, tuple[int, ...]
        ] = {}  # for gradients whose argument was lifted to [B, ...]
        self.add("features", source)

    def view(self, array: Any, name: str) -> View:
        found = view(array, name, self.stream)
        self.arrays.append(array)
        return found

    def add(self, name: str, source: View) -> None:
        self.views[name] = source
        setattr(self.inputs, name, ct.pointer(source.tensor))

    def context(self, stream: int | None = None) -> _ffi.Context:
        """This thread's context, set to work on `stream`; None: the stream of the forward call."""
        found = _ffi.context(self.features.device)
        found.configure(self.stream if stream is None else stream, self.threads)
        return found

    def backward_stream(self) -> int:
        """The stream for a backward call now: the one given to the forward call, else the current one."""
        return self.stream if self.stream_given else self.framework.current_stream()

    def hold(self, arrays: Sequence[Any], stream: int) -> None:
        """To be called when work that reads `arrays` was queued on `stream`, which may not be their own."""
        owners = {self.stream, self.framework.current_stream()} - {stream}
        if owners:
            self.framework.hold(arrays, owners, stream)

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
            except (TypeError, ValueError, OverflowError) as error:
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
            source = repeat_rows(value, source, self.batch, self.stream)
            self.arrays.append(source.keep[0])
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
