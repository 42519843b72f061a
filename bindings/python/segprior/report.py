"""How the iteration of each image of a batch, or of each linear system, ended."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from . import _ffi


class Status(enum.IntEnum):
    """How the iteration of an image or system ended; a result, not an error (core.h)."""

    CONVERGED = 0  #: the residual fell below the tolerance
    ITERATION_CAP = 1  #: all iterations were done: the normal end without a tolerance
    NONFINITE_INPUT = 2  #: features, scores or a warm start hold NaN or inf: the image's results are NaN
    INFEASIBLE_VOLUME = 3  #: the volumes cannot all hold; the result is finite, for rescaled volumes
    BREAKDOWN = 4  #: the numbers exceed the floating-point range (tiny eps): the results are NaN
    INVALID_PARAMETER = 5  #: a parameter array holds a value outside its domain: the results are NaN
    #: the iteration met the tolerance by its own account, the residual computed anew does not: the rounding
    #: of the dtype limits it, and more iterations would not help
    PRECISION_LIMIT = 6


class ImageInfo(NamedTuple):
    """Report of one image."""

    status: Status
    iterations: int  #: iterations done
    residual: float  #: max |u_T - u_(T-1)| at the last check; NaN if the image failed


class SystemInfo(NamedTuple):
    """Report of one linear system."""

    status: Status
    iterations: int  #: iterations done
    residual: (
        float  #: of the x returned, in the norm and scale of the stopping rule; NaN if the system failed
    )


class Systems:
    """The reports of linear systems: ``info[b, k]`` is a `SystemInfo`; the fields of all are arrays [B, K].

    Attributes:
        status: [B, K] of `Status`. iterations: [B, K], int64. residual: [B, K], float64.
    """

    def __init__(self, raw: Sequence[_ffi.Info], shape: tuple[int, ...]) -> None:
        self.status = np.empty(shape, object)
        self.status.ravel()[:] = [Status(i.status) for i in raw]
        self.iterations = np.array([i.iterations for i in raw], np.int64).reshape(shape)
        self.residual = np.array([i.residual for i in raw], np.float64).reshape(shape)

    def __getitem__(self, index: tuple[int, ...]) -> SystemInfo:
        return SystemInfo(self.status[index], int(self.iterations[index]), float(self.residual[index]))

    def __repr__(self) -> str:
        names = [status.name for status in Status]
        counts = [int((self.status == status).sum()) for status in Status]
        ends = ", ".join(f"{count} {name}" for name, count in zip(names, counts) if count)
        return f"Systems({ends or 'none'}, at most {self.iterations.max(initial=0)} iterations)"


class Info(Sequence[ImageInfo]):
    """The reports of a batch: ``info[b]`` is an `ImageInfo`; the fields of all images are arrays [B]."""

    def __init__(self, raw: Sequence[_ffi.Info]) -> None:
        self._images = [ImageInfo(Status(i.status), i.iterations, i.residual) for i in raw]

    @overload
    def __getitem__(self, index: int) -> ImageInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageInfo]: ...
    def __getitem__(self, index: int | slice) -> ImageInfo | list[ImageInfo]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[ImageInfo]:
        return iter(self._images)

    def __repr__(self) -> str:
        return f"Info({self._images!r})"

    @property
    def status(self) -> list[Status]:
        return [image.status for image in self._images]

    @property
    def iterations(self) -> np.ndarray:
        return np.array([image.iterations for image in self._images], np.int64)

    @property
    def residual(self) -> np.ndarray:
        return np.array([image.residual for image in self._images], np.float64)
