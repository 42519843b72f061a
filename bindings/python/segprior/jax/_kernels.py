"""Calls of libsegprior_jax.so, but for the arrays: which function, its options, and where its arrays go.

An array goes to a place in the C structs that a number says: 64 times a group plus the index of the pointer
in the group's struct. bindings/jax/call.h has the other half of this.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

_GROUP = 64
STRUCT, COTANGENTS, INFO, LOOSE, SAVED = 0, 1, 1, 2, 3


class Axis(enum.Enum):
    """Where the images of an argument or result are."""

    FIRST = 0
    SECOND = 1
    FIRST_OR_SHARED = 2  # an argument with 1 or B on its first axis
    NONE = 3  # shared by all images, or a sum over them
    SAVED = 4  # bytes that forward left for backward


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a buffer goes."""

    slot: int
    axis: Axis


@dataclasses.dataclass(frozen=True)
class Output(Place):
    shape: tuple[int, ...]
    dtype: str


def slot(struct: Any, name: str, member: int = 0, group: int = STRUCT) -> int:
    """The place of a struct's pointer; `member` of a field that is an array of pointers."""
    # The struct's size comes before its pointers.
    return _GROUP * group + getattr(struct, name).offset // 8 - 1 + member


def loose(index: int, axis: Axis = Axis.FIRST) -> Place:
    return Place(_GROUP * LOOSE + index, axis)


SAVED_PLACE = Place(_GROUP * SAVED, Axis.SAVED)


def saved_output(size: int) -> Output:
    # Whole blocks, so that parts of a stack of them, which loops make, are aligned as the library wants it.
    return Output(SAVED_PLACE.slot, Axis.SAVED, (-(-size // 256) * 256,), "uint8")


def info_output(struct: Any, systems: int) -> Output:
    """segprior_info [systems] as int32 [systems, 4]; report.py reads it."""
    return Output(slot(struct, "info", group=INFO), Axis.FIRST, (systems, 4), "int32")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A C call but for its arrays.

    `foldable`: results of an image depend on that image alone. `forward`: for a backward call, the call that
    wrote its saved state; its arguments are the first of this one's.
    """

    call: str  # of _library.CALLS
    options: bytes
    arguments: tuple[Place, ...]
    results: tuple[Output, ...]
    images: int
    foldable: bool
    empty: bool = False
    star_classes: tuple[int, ...] = ()
    forward: Kernel | None = None

    def writes_saved(self) -> bool:
        return any(result.axis is Axis.SAVED for result in self.results)

    def reads_saved(self) -> bool:
        return any(argument.axis is Axis.SAVED for argument in self.arguments)

    def folded(self, calls: int) -> Kernel:
        """The kernel of `calls` times the images."""
        return dataclasses.replace(
            self,
            results=tuple(_folded_output(result, calls) for result in self.results),
            images=self.images * calls,
            forward=None if self.forward is None else self.forward.folded(calls),
        )


def _folded_output(output: Output, calls: int) -> Output:
    axis = 1 if output.axis is Axis.SECOND else 0
    shape = (*output.shape[:axis], calls * output.shape[axis], *output.shape[axis + 1 :])
    return dataclasses.replace(output, shape=shape)
