"""SoftCut of libsegprior as a contender: prepared calls of the C functions, all memory allocated beforehand."""

from __future__ import annotations

import ctypes as ct
from typing import Any

import numpy as np

import segprior
from segprior import _ffi
from segprior._arrays import view
from segprior._frameworks import framework_for
from segprior.softcut import SOLVERS

from .ours import DEVICES, to_device
from .softcut_problem import SoftcutProblem

_DTYPES = {"float32": _ffi.FLOAT32, "float64": _ffi.FLOAT64}


class SoftcutCall:
    """Calling it runs forward, and backward too if asked for; returns x, or (x, grad scores, grad edges).

    Attributes: workspace_bytes, saved_bytes.
    """

    def __init__(
        self,
        problem: SoftcutProblem,
        device: str,
        threads: int,
        solver: str,
        tol: float,
        backward: bool = False,
        max_iterations: int = 100000,
    ) -> None:
        self._lib = lib = _ffi.library()
        self._problem, self._backward = problem, backward
        self.context = _ffi.Context(DEVICES[device])
        self.context.configure(0, threads)
        self._opts = opts = _ffi.SoftcutOpts()
        lib.check(lib.softcut_opts_init(ct.byref(opts), ct.sizeof(opts)))
        opts.solver, opts.max_iterations = SOLVERS[solver], max_iterations
        opts.tolerance = opts.backward_tolerance = tol
        self._keep: list[Any] = []
        scores = to_device(problem.scores, device)
        self._framework = framework_for(scores, DEVICES[device])
        self._inputs = _ffi.SoftcutInputs(struct_size=ct.sizeof(_ffi.SoftcutInputs))
        self._inputs.scores = self._tensor(scores)
        self._outputs = _ffi.SoftcutOutputs(struct_size=ct.sizeof(_ffi.SoftcutOutputs))
        self._grads = _ffi.SoftcutGrads(struct_size=ct.sizeof(_ffi.SoftcutGrads))
        self.x = self._empty(problem.shape)
        self._outputs.x = self._tensor(self.x)
        self._info = self._buffer(ct.sizeof(_ffi.Info) * problem.systems)
        self._outputs.info = self._info
        self.gradients: list[Any] = []
        if backward:
            self._grad_x = self._tensor(to_device(problem.grad_x, device))
            self.gradients.append(self._empty(problem.shape))
            self._grads.scores = self._tensor(self.gradients[0])
        for m, w in enumerate(problem.edges):
            self._inputs.edges[m] = self._tensor(to_device(w, device))
            if backward:
                self.gradients.append(self._empty(w.shape))
                self._grads.edges[m] = self._tensor(self.gradients[-1])
        sizes = [ct.c_size_t() for _ in range(3)]
        common = (self.context.handle, ct.byref(opts), ct.byref(self._inputs))
        lib.check(lib.softcut_workspace_size(*common, ct.byref(sizes[0]), ct.byref(sizes[1]), None))
        lib.check(lib.softcut_saved_size(*common, ct.byref(sizes[2])))
        self.workspace_bytes = max(sizes[0].value, sizes[1].value if backward else 0)
        self.saved_bytes = sizes[2].value
        self._workspace, self._saved = self._buffer(self.workspace_bytes), self._buffer(self.saved_bytes)

    def _empty(self, shape: tuple[int, ...]) -> Any:
        return self._framework.empty(shape, _DTYPES[self._problem.dtype])

    def _tensor(self, array: Any) -> Any:
        found = view(array, "")
        self._keep.append(found)
        return ct.pointer(found.tensor)

    def _buffer(self, count: int) -> int:
        memory, address = self._framework.buffer(count)
        self._keep.append(memory)
        return address

    def use_stream(self, stream: int) -> None:
        self.context.configure(stream, 0)

    @property
    def iterations(self) -> int:
        """The most that a system took in the last forward call."""
        count = self._problem.systems
        raw = (_ffi.Info * count)()
        self._lib.check(self._lib.info_read_sync(self.context.handle, self._info, count, raw))
        return int(np.max([info.iterations for info in raw]))

    def __call__(self) -> Any:
        lib, common = self._lib, (self.context.handle, ct.byref(self._opts), ct.byref(self._inputs))
        memory = (self._workspace, self.workspace_bytes, self._saved, self.saved_bytes)
        lib.check(lib.softcut_forward(*common, ct.byref(self._outputs), *memory))
        if not self._backward:
            return self.x
        arguments = (self._outputs.x, self._grad_x, ct.byref(self._grads))
        lib.check(lib.softcut_backward(*common, *arguments, *memory))
        return self.x, *self.gradients


class CsrCall:
    """`csr_solve` on the assembled matrices, one after the other: IC(0) of Eigen on the CPU, of cuSPARSE on CUDA."""

    def __init__(self, problem: SoftcutProblem, device: str, threads: int, tol: float) -> None:
        self._problem, self._more = problem, {"threads": threads, "tol": tol, "max_iters": 100000}
        right = problem.scores.reshape(problem.systems, 1, -1)
        self._work = [
            [to_device(a, device) for a in (matrix.indptr, matrix.indices, matrix.data, p)]
            for matrix, p in zip(problem.matrices(), right)
        ]
        self._results: list[Any] = []

    def __call__(self) -> Any:
        self._results = [segprior.csr_solve(*work, x0=work[-1], **self._more) for work in self._work]
        found = [r.x if isinstance(r.x, np.ndarray) else r.x.cpu().numpy() for r in self._results]
        return np.stack(found).reshape(self._problem.shape)

    @property
    def iterations(self) -> int:
        return int(max(r.info.iterations.max() for r in self._results))
