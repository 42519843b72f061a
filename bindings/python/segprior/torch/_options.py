"""Options of an operator as text, which is how a custom operator and a traced graph carry them.

``"iterations=30 tv=1 spacing=1.0,1.0,2.5"``: fields of the C struct that differ from its defaults.
"""

from __future__ import annotations

import ctypes as ct
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .. import _ffi
from .._call import IGNORE_INDEX

_Options = TypeVar("_Options")
# Whose values cannot change behind a cache's back, as those of tensors and arrays can.
_PLAIN = frozenset((int, float, bool, str, tuple, type(None), type(IGNORE_INDEX)))


def remembered(function: Callable[..., _Options]) -> Callable[..., _Options]:
    """`function`, which makes options of what a caller gives, with a cache of its results."""
    known = functools.lru_cache(maxsize=1024, typed=True)(function)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> _Options:
        if torch.compiler.is_compiling():  # the tracer complains about the cache
            return function(*values, **named)
        plain = _PLAIN.issuperset(map(type, values)) and _PLAIN.issuperset(map(type, named.values()))
        return (known if plain else function)(*values, **named)

    return call


def to_text(**fields: Any) -> str:
    """Fields of an options struct as text; None: the library's default. Floats keep all their digits."""
    return " ".join([f"{name}={_value(value)}" for name, value in fields.items() if value is not None])


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(_value, value))
    # Not repr(value), though the same: in an f-string alone torch.compile takes a number that varies.
    return f"{int(value)}" if isinstance(value, bool) else f"{value}"


@functools.lru_cache(maxsize=1024)
def fields_of(text: str) -> dict[str, list[float | int]]:
    """The numbers of each field."""
    pairs = (field.split("=") for field in text.split())
    return {name: [_number(part) for part in values.split(",")] for name, values in pairs}


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def to_struct(prefix: str, struct_type: type[ct.Structure], text: str) -> ct.Structure:
    """A C struct with the library's defaults, but for the fields in the text."""
    lib, opts = _ffi.library(), struct_type()
    lib.check(getattr(lib, f"{prefix}_opts_init")(ct.byref(opts), ct.sizeof(opts)))
    kinds: dict[str, Any] = {field[0]: field[1] for field in struct_type._fields_}
    for name, values in fields_of(text).items():
        kind = kinds[name]
        if issubclass(kind, ct.Array):
            for i, value in enumerate(values):
                getattr(opts, name)[i] = value
        elif issubclass(kind, ct._Pointer):  # ctypes keeps the array alive as long as the struct
            setattr(opts, name, (kind._type_ * len(values))(*values))
        else:
            setattr(opts, name, values[0])
    return opts
