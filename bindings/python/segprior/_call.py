"""What the calls of all operators share: checked values; the leading array, its framework and stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _ffi
from ._arrays import ANY, PARAMETER, View, is_array, to_integers, view
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


def positive(name: str, value: Any, optional: bool = False) -> float:
    """`optional`: the caller takes None too."""
    found = number(name, value)
    if not 0 < found < math.inf:
        default = " (None: the default)" if optional else ""
        raise InvalidValueError(f"{name} = {found}; it must be > 0 and finite{default}")
    return found


def not_negative(name: str, value: Any) -> float:
    found = number(name, value)
    if not 0 <= found < math.inf:
        raise InvalidValueError(f"{name} = {found}; it must be >= 0 and finite")
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


class _Default(int):
    """A default that is told from the same number given by the caller."""


_UNKNOWN = 255
IGNORE_INDEX = _Default(_UNKNOWN)


def ignored_label(ignore_index: Any, values: int) -> int:
    """The library's ignore_label, where labels are 0 .. values - 1. Negative ones are always unknown, so -1 says
    nothing new."""
    if ignore_index is IGNORE_INDEX:
        return -1 if values > _UNKNOWN else _UNKNOWN
    if ignore_index is None:
        return -1
    return integer("ignore_index", ignore_index, -(2**63), 63)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise InvalidTypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def choice(name: str, value: Any, choices: dict[Any, int]) -> int:
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise InvalidValueError(f"{name} is {value!r}; it must be {', '.join(map(repr, choices))}")
    return choices[value]


def wanted_names(wanted: Any, applicable: Sequence[str]) -> list[str]:
    """The gradients to compute, each once; None: all that apply."""
    if isinstance(wanted, str) or not (wanted is None or isinstance(wanted, Iterable)):
        raise InvalidTypeError(f"wanted is {wanted!r}; it must be a list of names of gradients")
    names = list(applicable) if wanted is None else list(wanted)
    for name in names:  # before duplicates are dropped: a wrong one may have no hash
        if name not in applicable:
            raise InvalidValueError(
                f"wanted has {name!r}; this call has gradients for {', '.join(applicable)}"
            )
    return list(dict.fromkeys(names))


class Work:
    """The array that a call is about, called `name`, and what follows from it."""

    def __init__(
        self, array: Any, name: str, allowed: tuple[int, ...], stream: int | None, threads: int | None
    ) -> None:
        if stream is not None:
            stream = integer("stream", stream, 0, 64)
        self.threads = 0 if threads is None else integer("threads", threads, 0)
        self.lead = view(array, name, stream, allowed)
        self.framework: NumpyFramework = framework_for(array, self.lead.device, name)
        self.stream_given = stream is not None
        self.stream: int = self.framework.current_stream() if stream is None else stream
        self.arrays: list[Any] = [array]  # whose memory is read
        self._sources: list[View] = []  # keep what was exported for reading

    @property
    def empty(self) -> bool:
        return 0 in self.lead.shape

    def view(self, array: Any, name: str, allowed: tuple[int, ...] = PARAMETER) -> View:
        """A view of one more array that the call reads."""
        found = view(array, name, self.stream, allowed)
        self.arrays.append(array)
        self._sources.append(found)
        return found

    def widen_lead(self, array: Any) -> None:
        """`lead`, a view of `array` of 32 or 64 bits, as int64."""
        self.lead = to_integers(array, self.lead, _ffi.INT64, self.stream)
        self.arrays.append(self.lead.keep[0])

    def numbers(self, name: str, value: Any, rule: str, dtype: int) -> Any:
        """An array as it is; sequences of numbers as an array of the call's framework."""
        if is_array(value):
            return value
        try:
            numbers = np.array(value, np.float64 if dtype in PARAMETER else None)
            if dtype not in PARAMETER and numbers.size and numbers.dtype.kind not in "iu":
                raise TypeError(f"{value!r} are not integers")
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidTypeError(f"{name} must be an array or numbers {rule}: {error}") from error
        return self.framework.numbers(numbers, dtype)

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


class Call(Work):
    """A call about an array of images; `axes` names those before the spatial ones: "B, I", or "B"."""

    def __init__(
        self,
        array: Any,
        name: str,
        axes: str,
        allowed: tuple[int, ...],
        stream: int | None,
        threads: int | None,
    ) -> None:
        super().__init__(array, name, allowed, stream, threads)
        self.lead_given = self.lead  # before its axis of one channel is left out
        leading = len(axes.split(", "))
        if leading == 1:
            self.lead = without_channel(self.lead, max(1, len(self.lead.shape) - 2))
        shape = self.lead.shape
        if not leading < len(shape) <= leading + 3:
            raise InvalidValueError(
                f"{name} has shape {self.lead_given.shape}; it must be [{axes}, *S] with 1 to 3 spatial axes"
            )
        self.batch: int = shape[0]
        self.classes: int = shape[1] if leading > 1 else 0
        self.spatial: tuple[int, ...] = shape[leading:]

    def field(self, name: str, value: Any, allowed: tuple[int, ...]) -> View:
        """[*S], [1, *S] or [B, *S] as the latter two, which may have an axis of one channel after the first."""
        source = self.view(value, name, allowed)
        if source.shape == self.spatial:
            return source.reshaped((1, *source.shape))
        found = without_channel(source, len(self.spatial))
        if found.shape not in ((1, *self.spatial), (self.batch, *self.spatial)):
            rule = _names(self.spatial, (1, *self.spatial), (self.batch, *self.spatial))
            raise InvalidValueError(
                f"{name} has shape {source.shape}; it must be [*S], [1, *S] or [B, *S], here {rule}"
            )
        return found

    def rows(self, name: str, source: View, grouped: bool = False) -> View:
        """[I], [1, I] or [B, I] as the latter two; `grouped`: any number of rows up to B."""
        shape = source.shape
        if shape == (self.classes,):
            return source.reshaped((1, *shape))
        counts = range(1, self.batch + 1) if grouped else (1, self.batch)
        if len(shape) != 2 or shape[1] != self.classes or shape[0] not in counts:
            rule = _names((self.classes,), (self.batch, self.classes))
            raise InvalidValueError(f"{name} has shape {shape}; it must be [I] or [B, I], here {rule}")
        return source


def _names(*shapes: tuple[int, ...]) -> str:
    return " or ".join(dict.fromkeys(str(list(shape)) for shape in shapes))


def without_channel(source: View, axes: int) -> View:
    """[B, 1, *S] as [B, *S], where S has `axes` axes (or of a slice: [B, 1, 1, *S]); anything else as it is."""
    shape = source.shape
    while len(shape) > axes + 1 and shape[1] == 1:
        shape = (shape[0], *shape[2:])
    return source if shape == source.shape else source.reshaped(shape)
