"""libsegprior as a contender: prepared calls of the C functions, as a C program would make them.

Memory (outputs, workspace, saved state) is allocated once, before the clock starts.
"""

from __future__ import annotations

import ctypes as ct
from typing import Any

import numpy as np

from segprior import _ffi
from segprior._arrays import View, view
from segprior._frameworks import framework_for

from .problem import TD_SIGMA, TD_SIZE, Problem

DEVICES = {"cpu": _ffi.DeviceKey(_ffi.CPU, 0), "cuda": _ffi.DeviceKey(_ffi.CUDA, 0)}


def to_device(array: np.ndarray, device: str) -> Any:
    if device == "cpu":
        return array
    import torch

    return torch.from_numpy(array).to(device)


class Call:
    """One problem with all its memory. Calling it runs forward, and backward too if asked for.

    Attributes: u and grad_features (arrays of the device), workspace_bytes, saved_bytes, context.
    """

    def __init__(
        self,
        problem: Problem,
        device: str = "cpu",
        threads: int = 0,
        *,
        backward: bool = False,
        checkpoint: int = 0,
        accelerate: bool = False,
        start: Call | None = None,
    ) -> None:
        self._lib = lib = _ffi.library()
        self._backward = backward
        self.context = _ffi.Context(DEVICES[device])
        self.context.configure(0, threads)
        self._opts = opts = _ffi.SoftmaxOpts()
        lib.check(lib.softmax_opts_init(ct.byref(opts), ct.sizeof(opts)))
        priors = problem.priors
        opts.iterations, opts.accelerate, opts.eps = problem.iterations, int(accelerate), problem.eps
        opts.init_eps = 0 if problem.init_eps == problem.eps else problem.init_eps
        opts.tv, opts.tv_lam = int("tv" in priors), problem.lam
        opts.td, opts.td_lam = int("td" in priors), problem.lam
        opts.td_size, opts.td_sigma = TD_SIZE, TD_SIGMA
        opts.checkpoint_interval = checkpoint if backward else 0
        opts.backward_mode = _ffi.BACKWARD_UNROLLED

        self._keep: list[Any] = []
        if "star" in priors:
            classes = (ct.c_int32 * 1)(0)
            self._keep.append(classes)
            opts.star_count, opts.star_classes, opts.star_tau = 1, classes, problem.star_tau
        features = to_device(problem.features, device)
        self._framework = framework_for(features, DEVICES[device])
        self._inputs = _ffi.SoftmaxInputs(struct_size=ct.sizeof(_ffi.SoftmaxInputs))
        self._set(self._inputs, "features", features)
        if "volume" in priors:
            self._set(self._inputs, "volume", to_device(problem.volume, device))
        if "star" in priors:
            self._set(self._inputs, "star_center", to_device(problem.star_center, device))
        if start is not None:
            self._set(self._inputs, "init_tv_dual", start.tv_dual)
            self._set(self._inputs, "init_volume_dual", start.volume_dual)

        dtype = {"float32": _ffi.FLOAT32, "float64": _ffi.FLOAT64}[problem.dtype]
        self._outputs = _ffi.SoftmaxOutputs(struct_size=ct.sizeof(_ffi.SoftmaxOutputs))
        self._grads = _ffi.SoftmaxGrads(struct_size=ct.sizeof(_ffi.SoftmaxGrads))
        self.u = self._framework.empty(problem.shape, dtype)
        self._u = self._set(self._outputs, "u", self.u)
        self.workspace_bytes, self.saved_bytes = self._sizes()
        if backward:
            self.grad_features = self._framework.empty(problem.shape, dtype)
            self._set(self._grads, "features", self.grad_features)
            self._grad_u = self._view(to_device(problem.grad_u, device), "grad_u")
        self._workspace = self._buffer(self.workspace_bytes)
        self._saved = self._buffer(self.saved_bytes) if self.saved_bytes else None

    def keep_duals(self, problem: Problem) -> None:
        """Lets forward return its duals, from which another Call can start."""
        dtype = {"float32": _ffi.FLOAT32, "float64": _ffi.FLOAT64}[problem.dtype]
        batch, classes, *spatial = problem.shape
        self.tv_dual = self._framework.empty((batch, classes, len(spatial), *spatial), dtype)
        self.volume_dual = self._framework.empty((batch, classes), dtype)
        self._set(self._outputs, "tv_dual", self.tv_dual)
        self._set(self._outputs, "volume_dual", self.volume_dual)

    def _view(self, array: Any, name: str) -> View:
        found = view(array, name)
        self._keep.append(found)
        return found

    def _set(self, struct: ct.Structure, name: str, array: Any) -> View:
        found = self._view(array, name)
        setattr(struct, name, ct.pointer(found.tensor))
        return found

    def _buffer(self, count: int) -> int:
        memory, address = self._framework.buffer(count)
        self._keep.append(memory)
        return address

    def _sizes(self) -> tuple[int, int]:
        forward, backward, saved = ct.c_size_t(), ct.c_size_t(), ct.c_size_t()
        common = (self.context.handle, ct.byref(self._opts), ct.byref(self._inputs))
        self._lib.check(self._lib.softmax_workspace_size(*common, ct.byref(forward), ct.byref(backward)))
        self._lib.check(self._lib.softmax_saved_size(*common, ct.byref(saved)))
        return max(forward.value, backward.value if self._backward else 0), saved.value

    def use_stream(self, stream: int) -> None:
        self.context.configure(stream, 0)

    def __call__(self) -> Any:
        lib, common = self._lib, (self.context.handle, ct.byref(self._opts), ct.byref(self._inputs))
        memory = (self._workspace, self.workspace_bytes, self._saved, self.saved_bytes)
        lib.check(lib.softmax_forward(*common, ct.byref(self._outputs), *memory))
        if not self._backward:
            return self.u
        lib.check(
            lib.softmax_backward(
                *(*common, ct.byref(self._u.tensor), ct.byref(self._grad_u.tensor), ct.byref(self._grads)),
                *memory,
            )
        )
        return self.u, self.grad_features
