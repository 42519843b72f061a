"""The custom operator `segprior::proposal`, which has no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _ffi
from ._define import define
from ._plan import Operator, contiguous, plan
from ._tensors import parameter_dtype
from .report import REPORT_BYTES

INPUTS = ("logits", "lower", "upper", "mask")
_COUNT = len(INPUTS)
_PROPOSAL = Operator("proposal", _ffi.ProposalOpts, _ffi.ProposalInputs, INPUTS, passes=1)
_OUTPUTS = ("proposal", "dual", "volume")


def _make_outputs(*arguments: Any) -> tuple[Tensor, ...]:
    """The proposal, its dual and volume, the report of each image."""
    logits: Tensor = arguments[0]
    # The library leaves the outputs of an empty problem alone; here they are sums over nothing.
    make, device = torch.empty if logits.numel() else torch.zeros, logits.device
    real = parameter_dtype(logits)
    batch, classes = logits.shape[:2]
    return (
        torch.empty_like(logits, memory_format=torch.contiguous_format),
        make((batch, classes), dtype=real, device=device),
        make((batch, classes), dtype=real, device=device),
        make((batch, REPORT_BYTES), dtype=torch.uint8, device=device),
    )


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, options = contiguous(arguments[:_COUNT]), arguments[_COUNT]
    found = plan(_PROPOSAL, options, tensors)
    made = _make_outputs(*tensors)
    struct = found.struct("outputs", _ffi.ProposalOutputs, _OUTPUTS, made[:3])
    struct.fields.info = made[3].data_ptr()
    found.run("forward", tensors, (struct.reference,), found.sizes[0])
    return made


proposal = define(
    "proposal(Tensor logits, Tensor? lower, Tensor? upper, Tensor? mask, str options) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _make_outputs,
)
