"""`lagrangian_proposal`: the segmentation nearest to a network's that has the sizes it should have."""

from __future__ import annotations

import ctypes as ct
from typing import Any

from . import _ffi
from ._arrays import FIELD, MASK
from ._call import Call, choice, integer, not_negative, positive
from .report import Info

__all__ = ["ProposalResult", "lagrangian_proposal"]

METHODS = {"exact": _ffi.PROPOSAL_EXACT, "gradient": _ffi.PROPOSAL_GRADIENT}


class ProposalResult:
    """What `lagrangian_proposal` returns. Arrays: the framework and device of the logits.

    Attributes:
        proposal: Q [B, I, *S], of the logits' dtype; 0 where masked. A target for the losses.
        dual: f [B, I], float64 if the logits are, else float32; "exact": -inf for a class whose upper bound
            is 0.
        volume: sum_x Q_i [B, I], likewise.
    """

    proposal: Any
    dual: Any
    volume: Any

    def __init__(self, call: Call, made: dict[str, Any], info: tuple[Any, int]) -> None:
        self._call, self._info_buffer = call, info
        self._info: Info | None = None
        for name, array in made.items():
            setattr(self, name, call.framework.finish(array))

    def __repr__(self) -> str:
        return f"ProposalResult(proposal={list(self._call.lead.shape)} on {self._call.lead.device})"

    @property
    def info(self) -> Info:
        """Per image: CONVERGED, ITERATION_CAP, INFEASIBLE_VOLUME (the bounds leave no segmentation: Q as the
        iterations leave it), or why it failed; dual updates done; residual: how far, in voxels, `volume` is
        outside the bounds. Read on first use; on CUDA that waits for the stream."""
        if self._info is None:
            call = self._call
            self._info = Info(call.read_infos(self._info_buffer[1], call.batch, call.stream))
        return self._info


def lagrangian_proposal(
    logits: Any,
    lower: Any = None,
    upper: Any = None,
    method: str = "exact",
    max_iters: int = 500,
    step: float = 5e-5,
    tol: float = 1e-6,
    mask: Any = None,
    *,
    threads: int | None = None,
    stream: int | None = None,
) -> ProposalResult:
    """The latent proposal of [CCNN]: ``Q = argmin KL(Q || P)`` subject to ``lower_i <= sum_x Q_i <= upper_i``
    over the simplex, with P the softmax of the logits. ``Q = softmax(logits + f)``, one number f per class.

    Q is a constant target for the network: the gradient of ``min KL(Q || P)`` is that of
    ``cross_entropy(logits, target=Q)``. As a differentiable function of the logits it is
    ``segprior.softmax(logits, volume=Volume(lower=..., upper=...), tol=...)``.

    Args:
        logits: [B, I, *S], as the scores of the losses. ln P will do.
        lower, upper: bounds in voxels: [I] for every image or [B, I]; numbers, or an array of the logits'
            dtype (float32 if that has 16 bits). ``upper`` may hold inf. None: 0, inf.
        method: "exact": each update solves for one f_i at a time, a few do; "gradient": projected gradient
            ascent on the dual as in [CCNN], which ends at the first Q that has the sizes.
        max_iters: cap of the updates, >= 0; each reads the logits once.
        step: > 0, of "gradient".
        tol: >= 0; an image stops when its volumes are within the bounds up to tol * J voxels, and, "exact",
            no class is pushed further than its bound asks.
        mask: valid voxels, bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked. None: all valid.
        threads, stream: as for the losses.

    Raises: as the losses.

    References:
        [CCNN] Pathak, Kraehenbuehl, Darrell, "Constrained convolutional neural networks for weakly supervised
        segmentation", arXiv 1506.03648.
    """
    lib = _ffi.library()
    call = Call(logits, "logits", "B, I", FIELD, stream, threads)
    real = _ffi.FLOAT64 if call.lead.dtype == _ffi.FLOAT64 else _ffi.FLOAT32
    opts = _ffi.ProposalOpts()
    lib.check(lib.proposal_opts_init(ct.byref(opts), ct.sizeof(opts)))
    opts.method = choice("method", method, METHODS)
    opts.iterations = integer("max_iters", max_iters, 0)
    opts.step = positive("step", step)
    opts.tolerance = not_negative("tol", tol)
    inputs = _ffi.ProposalInputs(struct_size=ct.sizeof(_ffi.ProposalInputs))
    inputs.logits = ct.pointer(call.lead.tensor)
    for name, value in (("lower", lower), ("upper", upper)):
        if value is not None:
            source = call.view(call.numbers(name, value, "[I] or [B, I]", real), name)
            setattr(inputs, name, ct.pointer(call.rows(name, source).tensor))
    if mask is not None:
        inputs.mask = ct.pointer(call.field("mask", mask, MASK).tensor)

    context, size = call.context(), ct.c_size_t()
    common = (context.handle, ct.byref(opts), ct.byref(inputs))
    lib.check(lib.proposal_workspace_size(*common, ct.byref(size)))
    outputs = _ffi.ProposalOutputs(struct_size=ct.sizeof(_ffi.ProposalOutputs))
    shapes = {"proposal": (call.lead.shape, call.lead.dtype)}
    shapes["dual"] = shapes["volume"] = ((call.batch, call.classes), real)
    with call.framework.on_stream(call.stream):
        made = {}
        for name, (shape, dtype) in shapes.items():
            made[name], target = call.made(name, shape, dtype)
            setattr(outputs, name, ct.pointer(target.tensor))
        info = call.framework.buffer(ct.sizeof(_ffi.Info) * call.batch)
        outputs.info = info[1]
        workspace, address = call.framework.buffer(size.value)
        lib.check(lib.proposal_forward(*common, ct.byref(outputs), address, size.value))
        del workspace
    call.hold(call.arrays, call.stream)
    return ProposalResult(call, made, info)
