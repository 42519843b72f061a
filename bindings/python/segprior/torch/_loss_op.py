"""The custom operators `segprior::loss` and `segprior::loss_backward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .. import _ffi
from ._define import Derivative, apply, define
from ._plan import Operator, Tensors, contiguous, fake_size, kind_of, plan
from ._tensors import parameter_dtype
from .report import REPORT_BYTES

INPUTS = (
    *("scores", "labels", "target", "mask", "labelled"),
    *("class_weights", "size_lower", "size_upper", "size_groups"),
)
_COUNT = len(INPUTS)
_DIFFERENTIABLE = (0, 5, 6, 7)
_OUTPUTS = ("total", "terms", "items", "voxels")
_LOSS = Operator("loss", _ffi.LossOpts, _ffi.LossInputs, INPUTS, passes=2)


def _make_outputs(scores: Tensor, voxels: bool, saved_bytes: int) -> tuple[Tensor, ...]:
    """total [], terms [5], items [5, B, I], voxels [B, *S] (not wanted: empty), reports, the saved state."""
    batch, classes, *spatial = scores.shape
    shapes = (
        (),
        (_ffi.LOSS_TERMS,),
        (_ffi.LOSS_TERMS, batch, classes),
        (batch, *spatial) if voxels else (0,),
    )
    dtype, device = parameter_dtype(scores), scores.device
    return (
        *[torch.empty(shape, dtype=dtype, device=device) for shape in shapes],
        torch.empty((batch, REPORT_BYTES), dtype=torch.uint8, device=device),
        torch.empty(saved_bytes, dtype=torch.uint8, device=device),
    )


def _for_library(values: Sequence[Tensor]) -> list[Tensor]:
    """The total, which is [] to torch, is [1] to the library."""
    return [value.view(1) if value.dim() == 0 else value for value in values]


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, options, voxels = contiguous(arguments[:_COUNT]), arguments[_COUNT], arguments[_COUNT + 1]
    scores = tensors[0]
    assert scores is not None
    found = plan(_LOSS, options, tensors)
    made = _make_outputs(scores, voxels, found.sizes[2])
    *values, report, saved = made
    names = _OUTPUTS if voxels else _OUTPUTS[:-1]
    outputs = _for_library(values[: len(names)])
    struct = found.struct(voxels, _ffi.LossOutputs, names, outputs)
    struct.fields.info = report.data_ptr()
    found.run("forward", tensors, (struct.reference,), found.sizes[0], saved)
    return made


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, options, voxels = arguments[:_COUNT], arguments[_COUNT], arguments[_COUNT + 1]
    return _make_outputs(tensors[0], voxels, fake_size(_LOSS, options, tensors, 2))


def _make_grads(tensors: Tensors, wanted: list[int]) -> list[Tensor]:
    grads = []
    for i in wanted:
        tensor = tensors[i]
        assert tensor is not None
        grads.append(torch.empty_like(tensor, memory_format=torch.contiguous_format))
    return grads


def _backward(*arguments: Any) -> list[Tensor]:
    incoming, saved, inputs = _split(arguments)
    tensors, options, wanted = contiguous(inputs[:_COUNT]), inputs[_COUNT], inputs[_COUNT + 1]
    found = plan(_LOSS, options, tensors)
    given = tuple([name for name, grad in zip(_OUTPUTS, incoming) if grad is not None])
    # In names, as `grads`, because the library gets addresses alone.
    kept = [grad.contiguous() for grad in incoming if grad is not None]
    read = found.struct((given, kind_of(kept)), _ffi.LossCotangents, given, _for_library(kept))
    grads = _make_grads(tensors, wanted)
    names = tuple([INPUTS[i] for i in wanted])
    written = found.struct(names, _ffi.LossGrads, names, grads)
    found.run("backward", tensors, (read.reference, written.reference), found.sizes[1], saved)
    return grads


def _fake_backward(*arguments: Any) -> list[Tensor]:
    *_, inputs = _split(arguments)
    return _make_grads(inputs[:_COUNT], inputs[_COUNT + 1])


def _split(arguments: tuple[Any, ...]) -> tuple[tuple[Optional[Tensor], ...], Tensor, tuple[Any, ...]]:
    """Of `loss_backward`: incoming gradients, the saved state, and the operands of `loss`."""
    count = len(_OUTPUTS)
    return arguments[:count], arguments[count], arguments[count + 1 :]


def _differentiate(ctx: Any, *incoming: Optional[Tensor]) -> tuple[Optional[Tensor], ...]:
    grads: list[Optional[Tensor]] = [None] * (_COUNT + 2)
    given = incoming[: len(_OUTPUTS)]
    if any(grad is not None for grad in given):
        saved, *tensors = ctx.saved_tensors
        wanted = [i for i in _DIFFERENTIABLE if ctx.needs_input_grad[i]]
        found = apply(loss_backward, *given, saved, *tensors, ctx.options, wanted)
        for i, grad in zip(wanted, found):
            grads[i] = grad
    return tuple(grads)


def _remember(ctx: Any, arguments: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    *_, voxels, report, saved = outputs
    ctx.save_for_backward(saved, *arguments[:_COUNT])
    ctx.options, has_voxels = arguments[_COUNT:]
    ctx.set_materialize_grads(False)  # an output that is not used has no gradient, which costs nothing
    ctx.mark_non_differentiable(report, saved, *([] if has_voxels else [voxels]))


_OPTIONAL = ", ".join(f"Tensor? {name}" for name in INPUTS[1:])
loss = define(
    f"loss(Tensor scores, {_OPTIONAL}, str options, bool voxels) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    Derivative(_remember, _differentiate),
)
loss_backward = define(
    f"loss_backward({', '.join(f'Tensor? grad_{name}' for name in _OUTPUTS)}, Tensor saved, Tensor scores, "
    f"{_OPTIONAL}, str options, int[] wanted) -> Tensor[]",
    _backward,
    _fake_backward,
    no_gradient="the losses of segprior.torch have no second derivatives",
)
