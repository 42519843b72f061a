"""Arguments and results of the SoftCut calls, checked and held as the C library's structs."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable, Sequence
from typing import Any

from . import _ffi
from ._arrays import FIELD, PARAMETER, View, view
from ._call import Call
from .errors import InvalidTypeError, InvalidValueError
from .report import Systems

FAMILIES = ("edges", "diagonals")  # arguments that are tuples of arrays
_FIELDS = ("scores", "x", "grad_x")  # [B, K, *S] of the scores' dtype
Made = dict[str, list[tuple[Any, View]]]


def assign(struct: ct.Structure, name: str, views: Sequence[View | None]) -> None:
    """Sets the pointer of one field of a struct, or those of a family."""
    for i, source in enumerate(views):
        if source is None:
            continue
        if name in FAMILIES:
            getattr(struct, name)[i] = ct.pointer(source.tensor)
        else:
            setattr(struct, name, ct.pointer(source.tensor))


class SoftcutCall(Call):
    """Options and inputs of one forward call; kept for its backward passes."""

    def __init__(self, scores: Any, stream: int | None, threads: int | None) -> None:
        lib = _ffi.library()
        super().__init__(scores, "scores", "B, K", PARAMETER, stream, threads)
        self.opts = _ffi.SoftcutOpts()
        lib.check(lib.softcut_opts_init(ct.byref(self.opts), ct.sizeof(self.opts)))
        self.inputs = _ffi.SoftcutInputs(struct_size=ct.sizeof(_ffi.SoftcutInputs))
        self.given: dict[str, Sequence[View | None]] = {"scores": [self.lead]}
        assign(self.inputs, "scores", [self.lead])

    def read(self, name: str, value: Any, stream: int, gaps: bool = False) -> Sequence[View | None]:
        """Views of an argument, which `stream` will read; `gaps`: a family's members may be None."""
        if name not in FAMILIES:
            return [view(value, name, stream)]
        axes = len(self.spatial)
        count, rule = (axes, "one array per spatial axis") if name == "edges" else (2, "one per direction")
        if not isinstance(value, (tuple, list)):
            raise InvalidTypeError(f"{name} is {type(value).__name__}; it must be a tuple, {rule}")
        if len(value) != count:
            raise InvalidValueError(f"{name} has {len(value)} members; it must have {count}, {rule}")
        return [
            None if array is None and gaps else view(array, f"{name}[{i}]", stream, FIELD)
            for i, array in enumerate(value)
        ]

    def add(self, name: str, value: Any) -> None:
        """Reads an argument of `softcut`; None: absent."""
        if value is None:
            return
        views = self.read(name, value, self.stream)
        self.arrays += [source.keep[0] for source in views if source is not None]
        self.given[name] = views
        assign(self.inputs, "init" if name == "x0" else name, views)

    @property
    def differentiable(self) -> list[str]:
        """Names of the given arguments that have gradients."""
        return [name for name in self.given if name != "x0"]

    def allocate(self, struct: ct.Structure, names: Iterable[str]) -> Made:
        """Uninitialised arrays for these fields of an outputs or gradients struct."""
        found: Made = {}
        for name in names:
            like = [self.lead] if name in _FIELDS else self.given[name]
            found[name] = [self.made(name, one.shape, one.dtype) for one in like if one is not None]
            assign(struct, name, [target for _, target in found[name]])
        return found

    def finish(self, made: Made) -> dict[str, Any]:
        """What the caller gets for the arrays of `allocate`."""
        found: dict[str, Any] = {}
        for name, slots in made.items():
            arrays = tuple(self.framework.finish(array) for array, _ in slots)
            found[name] = arrays if name in FAMILIES else arrays[0]
        return found

    def info_buffer(self, passes: int = 1) -> tuple[Any, int]:
        return self.framework.buffer(ct.sizeof(_ffi.Info) * passes * self.batch * self.classes)

    def read_info(self, address: int, stream: int, passes: int = 1) -> Systems:
        shape = (self.batch, self.classes) if passes == 1 else (passes, self.batch, self.classes)
        return Systems(self.read_infos(address, passes * self.batch * self.classes, stream), shape)
