"""Connected components of libsegprior as a contender: a prepared call of the C function."""

from __future__ import annotations

import ctypes as ct
from typing import Any

from segprior import _ffi

from .components_problem import ComponentsProblem
from .ours import to_device
from .prepared import PreparedCall


class ComponentsCall(PreparedCall):
    """Calling it returns the components, int32 [1, *S]."""

    def __init__(self, problem: ComponentsProblem, device: str, threads: int) -> None:
        array = to_device(problem.map[None], device)
        super().__init__(array, device, threads)
        lib = self._lib
        self._opts = opts = _ffi.ComponentsOpts()
        lib.check(lib.components_opts_init(ct.byref(opts), ct.sizeof(opts)))
        opts.full = int(problem.full)
        self._map = self._tensor(array)
        self.components, self._components = self._made((1, *problem.spatial), _ffi.INT32)
        self.count, self._count = self._made((1,), _ffi.INT64)
        size = ct.c_size_t()
        lib.check(lib.components_workspace_size(self.context.handle, opts, self._map, None, ct.byref(size)))
        self._memory = (self._buffer(size.value), size.value)

    def __call__(self) -> Any:
        outputs = (self._components, self._count, None)
        call = (self.context.handle, ct.byref(self._opts), self._map, None, *outputs, *self._memory)
        self._lib.check(self._lib.components(*call))
        return self.components
