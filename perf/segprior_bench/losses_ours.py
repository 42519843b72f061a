"""Losses and proposals of libsegprior as contenders: prepared calls of the C functions."""

from __future__ import annotations

import ctypes as ct
from typing import Any

import numpy as np
from segprior import _ffi

from . import losses_problem
from .losses_problem import LossProblem
from .ours import to_device
from .prepared import PreparedCall

TERMS = ("size", "cross_entropy", "focal", "dice", "focal_dice")  # in the order of losses.h


class LossCall(PreparedCall):
    """Calling it runs forward and backward; returns (loss [1], gradient of the logits)."""

    def __init__(self, problem: LossProblem, device: str, threads: int) -> None:
        scores = to_device(problem.scores, device)
        super().__init__(scores, device, threads)
        lib = self._lib
        self._opts = opts = _ffi.LossOpts()
        lib.check(lib.loss_opts_init(ct.byref(opts), ct.sizeof(opts)))
        for k, term in enumerate(TERMS):
            opts.weights[k] = problem.weights.get(term, 0.0)
        opts.reduction, opts.size_per_voxel = _ffi.REDUCTION_MEAN, 1
        opts.ignore_label = losses_problem.IGNORED
        opts.dice_smooth_nr = opts.dice_smooth_dr = losses_problem.SMOOTH
        opts.focal_gamma = losses_problem.FOCAL_GAMMA
        opts.focal_dice_threshold = losses_problem.FOCAL_DICE_THRESHOLD
        opts.focal_dice_gamma = losses_problem.FOCAL_DICE_GAMMA
        self._inputs = _ffi.LossInputs(struct_size=ct.sizeof(_ffi.LossInputs))
        self._inputs.scores = self._tensor(scores)
        self._inputs.labels = self._tensor(to_device(problem.labels, device))
        if "size" in problem.weights:
            lower, upper = (to_device(a, device) for a in problem.bounds)
            self._inputs.size_lower, self._inputs.size_upper = self._tensor(lower), self._tensor(upper)
        self._outputs = _ffi.LossOutputs(struct_size=ct.sizeof(_ffi.LossOutputs))
        self._cotangents = _ffi.LossCotangents(struct_size=ct.sizeof(_ffi.LossCotangents))
        self._grads = _ffi.LossGrads(struct_size=ct.sizeof(_ffi.LossGrads))
        self.total, self._outputs.total = self._made((1,), _ffi.FLOAT32)
        self.gradient, self._grads.scores = self._made(problem.shape, _ffi.FLOAT32)
        self._cotangents.total = self._tensor(to_device(np.ones(1, np.float32), device))
        self._common = (self.context.handle, ct.byref(opts), ct.byref(self._inputs))
        forward, backward, saved = (ct.c_size_t() for _ in range(3))
        lib.check(lib.loss_workspace_size(*self._common, ct.byref(forward), ct.byref(backward)))
        lib.check(lib.loss_saved_size(*self._common, ct.byref(saved)))
        workspace = max(forward.value, backward.value)
        self._memory = (self._buffer(workspace), workspace, self._buffer(saved.value), saved.value)

    def __call__(self) -> Any:
        lib = self._lib
        lib.check(lib.loss_forward(*self._common, ct.byref(self._outputs), *self._memory))
        arguments = (ct.byref(self._cotangents), ct.byref(self._grads))
        lib.check(lib.loss_backward(*self._common, *arguments, *self._memory))
        return self.total, self.gradient


class ProposalCall(PreparedCall):
    """Calling it returns Q. The problem's bounds are those of the sizes."""

    METHODS = {"exact": _ffi.PROPOSAL_EXACT, "gradient": _ffi.PROPOSAL_GRADIENT}

    def __init__(self, problem: LossProblem, device: str, threads: int, method: str, step: float | None = None) -> None:
        """`step`: None, the library's default. The cap is the default too, 500."""
        logits = to_device(problem.scores, device)
        super().__init__(logits, device, threads)
        lib = self._lib
        self._opts = opts = _ffi.ProposalOpts()
        lib.check(lib.proposal_opts_init(ct.byref(opts), ct.sizeof(opts)))
        opts.method = self.METHODS[method]
        if step is not None:
            opts.step = step
        self._inputs = _ffi.ProposalInputs(struct_size=ct.sizeof(_ffi.ProposalInputs))
        self._inputs.logits = self._tensor(logits)
        lower, upper = (to_device(a, device) for a in problem.bounds)
        self._inputs.lower, self._inputs.upper = self._tensor(lower), self._tensor(upper)
        self._outputs = _ffi.ProposalOutputs(struct_size=ct.sizeof(_ffi.ProposalOutputs))
        self.proposal, self._outputs.proposal = self._made(problem.shape, _ffi.FLOAT32)
        self._images = problem.shape[0]
        self._outputs.info = self._buffer(ct.sizeof(_ffi.Info) * self._images)
        self._common = (self.context.handle, ct.byref(opts), ct.byref(self._inputs))
        size = ct.c_size_t()
        lib.check(lib.proposal_workspace_size(*self._common, ct.byref(size)))
        self._memory = (self._buffer(size.value), size.value)

    def __call__(self) -> Any:
        lib = self._lib
        lib.check(lib.proposal_forward(*self._common, ct.byref(self._outputs), *self._memory))
        return self.proposal

    def report(self) -> tuple[int, float]:
        """Of the last call, over its images: the most dual updates, and the largest violation of a bound in voxels."""
        raw = (_ffi.Info * self._images)()
        self._lib.check(self._lib.info_read_sync(self.context.handle, self._outputs.info, self._images, raw))
        return max(info.iterations for info in raw), max(info.residual for info in raw)
