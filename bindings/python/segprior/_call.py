"""What the calls of all operators share: checked numbers; the leading array, its framework and stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _ffi
from ._arrays import ANY, View, view
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
    """The array that a call is about, called `name`, and what follows from it."""

    def __init__(
        self,
        array: Any,
        name: str,
        axes: str,
        allowed: tuple[int, ...],
        stream: int | None,
        threads: int | None,
    ) -> None:
        if stream is not None:
            stream = integer("stream", stream, 0, 64)
        self.threads = 0 if threads is None else integer("threads", threads, 0)
        self.lead = view(array, name, stream, allowed)
        if not 3 <= len(self.lead.shape) <= 5:
            raise InvalidValueError(
                f"{name} has shape {self.lead.shape}; it must be [{axes}, *S] with 1 to 3 spatial axes"
            )
        self.batch, self.classes, *self.spatial = self.lead.shape
        self.framework: NumpyFramework = framework_for(array, self.lead.device, name)
        self.stream_given = stream is not None
        self.stream: int = self.framework.current_stream() if stream is None else stream
        self.arrays: list[Any] = [array]  # whose memory is read

    @property
    def empty(self) -> bool:
        return 0 in self.lead.shape

    def context(self, stream: int | None = None) -> _ffi.Context:
        """This thread's context, set to work on `stream`; None: the stream of the forward call."""
        found = _ffi.context(self.lead.device)
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

    def made(self, name: str, shape: Sequence[int], dtype: int) -> tuple[Any, View]:
        """An uninitialised array for an output of the library, and its view."""
        # The library leaves the outputs of an empty problem alone; here they are sums over nothing.
        array = (
            self.framework.numbers(np.zeros(shape), dtype)
            if self.empty
            else self.framework.empty(shape, dtype)
        )
        return array, view(array, name, allowed=ANY)

    def read_infos(self, address: int, count: int, stream: int) -> list[_ffi.Info]:
        """The reports at this address, which work on `stream` writes; waits for it on CUDA."""
        raw = (_ffi.Info * count)()
        if not self.empty:
            lib, context = _ffi.library(), self.context(stream)
            lib.check(lib.info_read_sync(context.handle, address, count, raw))
        return list(raw)
