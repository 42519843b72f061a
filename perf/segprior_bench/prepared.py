"""What prepared calls of the C functions share: a context, and memory that is allocated before the clock starts."""

from __future__ import annotations

import ctypes as ct
from typing import Any

from segprior import _ffi
from segprior._arrays import FIELD, LABELS, view
from segprior._frameworks import framework_for

from .ours import DEVICES


class PreparedCall:
    """Its arrays live on `device`, in the framework of `like`."""

    def __init__(self, like: Any, device: str, threads: int) -> None:
        self._lib = _ffi.library()
        self.context = _ffi.Context(DEVICES[device])
        self.context.configure(0, threads)
        self._framework = framework_for(like, DEVICES[device])
        self._keep: list[Any] = []

    def _tensor(self, array: Any) -> Any:
        found = view(array, "", None, (*FIELD, *LABELS))
        self._keep.append(found)
        return ct.pointer(found.tensor)

    def _made(self, shape: tuple[int, ...], dtype: int) -> tuple[Any, Any]:
        """A new array and its tensor."""
        array = self._framework.empty(shape, dtype)
        return array, self._tensor(array)

    def _buffer(self, count: int) -> int:
        memory, address = self._framework.buffer(count)
        self._keep.append(memory)
        return address

    def use_stream(self, stream: int) -> None:
        self.context.configure(stream, 0)
