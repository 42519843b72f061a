"""The custom operators `segprior::softmax` and `segprior::softmax_backward`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .. import _ffi
from ..errors import InvalidValueError
from ._define import Derivative, apply, define
from ._options import fields_of
from ._plan import Operator, Tensors, contiguous, fake_size, plan
from ._tensors import parameter_dtype
from .report import REPORT_BYTES

INPUTS = (
    *("features", "eps", "tv_lam", "tv_tau", "tv_edge", "volume", "volume_lower", "volume_upper"),
    *("td_lam", "td_sigma", "td_kernel", "td_edge", "star_center", "star_tau"),
    *("mask", "init_tv_dual", "init_volume_dual", "init_star_dual"),
)
_COUNT = len(INPUTS)
_DIFFERENTIABLE = 14  # the first of them
_VOLUME = slice(INPUTS.index("volume"), INPUTS.index("volume_upper") + 1)
_PARAMETERS = tuple(range(1, _DIFFERENTIABLE))
_STEPS = (INPUTS.index("tv_tau"), INPUTS.index("star_tau"))
_SOFTMAX = Operator("softmax", _ffi.SoftmaxOpts, _ffi.SoftmaxInputs, INPUTS, passes=2)


def _dual_shapes(features: Tensor, tv: bool, volume: bool, stars: int) -> list[tuple[str, tuple[int, ...]]]:
    """The duals of a problem with these priors, in the order in which the operator's output holds them."""
    batch, classes, *spatial = features.shape
    shapes: list[tuple[str, tuple[int, ...]]] = []
    if tv:
        shapes.append(("tv_dual", (batch, classes, len(spatial), *spatial)))
    if volume:
        shapes.append(("volume_dual", (batch, classes)))
    if stars:
        shapes.append(("star_dual", (batch, stars, *spatial)))
    return shapes


def split_duals(duals: Tensor, features: Tensor, tv: bool, volume: bool, stars: int) -> dict[str, Tensor]:
    """The operator's output of all duals as views of each."""
    shapes = _dual_shapes(features, tv, volume, stars)
    parts = duals.split([math.prod(shape) for _, shape in shapes])
    return {name: part.view(shape) for (name, shape), part in zip(shapes, parts)}


def _priors(tensors: Tensors, options: str) -> tuple[bool, bool, int]:
    """Whether there is TV, whether volumes, and the number of star classes."""
    fields = fields_of(options)
    volume = any(tensor is not None for tensor in tensors[_VOLUME])
    return fields.get("tv") == [1], volume, int(fields.get("star_count", [0])[0])


def _make_outputs(tensors: Tensors, options: str, duals: bool, saved_bytes: int) -> tuple[Tensor, ...]:
    """u, the duals one after another (none: empty), the reports, the saved state."""
    features = tensors[0]
    assert features is not None
    shapes = _dual_shapes(features, *_priors(tensors, options)) if duals else []
    count = sum(math.prod(shape) for _, shape in shapes)
    # The library leaves those of an empty problem alone.
    make = torch.empty if features.numel() else torch.zeros
    return (
        torch.empty_like(features, memory_format=torch.contiguous_format),
        make(count, dtype=parameter_dtype(features), device=features.device),
        make((features.shape[0], REPORT_BYTES), dtype=torch.uint8, device=features.device),
        torch.empty(saved_bytes, dtype=torch.uint8, device=features.device),
    )


def _settings(options: str, checkpoint: int, keep: bool, duals: bool) -> tuple[str, bool]:
    """The options in full, and `duals`."""
    return (f"{options} checkpoint_interval={checkpoint}" if keep else options), duals


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors = contiguous(arguments[:_COUNT])
    options, duals = _settings(*arguments[_COUNT:])
    features = tensors[0]
    assert features is not None
    found = plan(_SOFTMAX, options, tensors)
    made = _make_outputs(tensors, options, duals, found.sizes[2])
    u, dual_memory, report, saved = made
    outputs = {"u": u, **(split_duals(dual_memory, features, *_priors(tensors, options)) if duals else {})}
    struct = found.struct(duals, _ffi.SoftmaxOutputs, tuple(outputs), tuple(outputs.values()))
    struct.fields.info = report.data_ptr()
    found.run("forward", tensors, (struct.reference,), found.sizes[0], saved)
    return made


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors = arguments[:_COUNT]
    options, duals = _settings(*arguments[_COUNT:])
    return _make_outputs(tensors, options, duals, fake_size(_SOFTMAX, options, tensors, 2))


def _make_grads(tensors: Sequence[Any], wanted: list[int]) -> list[Tensor]:
    """The library leaves the gradients of an empty problem alone; here they are sums over nothing."""
    make = torch.empty_like if tensors[0].numel() else torch.zeros_like
    return [make(tensors[i], memory_format=torch.contiguous_format) for i in wanted]


def _backward(grad_u: Tensor, u: Tensor, saved: Tensor, *arguments: Any) -> list[Tensor]:
    tensors, options, wanted = contiguous(arguments[:_COUNT]), arguments[_COUNT], arguments[_COUNT + 1]
    found = plan(_SOFTMAX, options, tensors)
    grads = _make_grads(tensors, wanted)
    names = tuple([INPUTS[i] for i in wanted])
    struct = found.struct(names, _ffi.SoftmaxGrads, names, grads)
    cotangents = contiguous((u, grad_u))  # in a name, because the library gets addresses alone
    references = found.views(("u", "grad_u"), cotangents)
    found.run("backward", tensors, (*references, struct.reference), found.sizes[1], saved)
    return grads


def _fake_backward(grad_u: Tensor, u: Tensor, saved: Tensor, *arguments: Any) -> list[Tensor]:
    return _make_grads(arguments[:_COUNT], arguments[_COUNT + 1])


def _check_gradients(needed: tuple[bool, ...], options: str, checkpoint: int) -> None:
    """Whether this mode has the gradients that backward will be asked for."""
    mode = fields_of(options)["backward_mode"][0]
    if mode == _ffi.BACKWARD_LAST:
        without, text = _PARAMETERS, "'last', which has gradients for features alone"
    elif checkpoint == 0:
        raise InvalidValueError("checkpoint = 0 keeps nothing for backward, but a gradient is required")
    elif mode == _ffi.BACKWARD_IMPLICIT:
        without, text = _STEPS, "'implicit', whose limit does not depend on the steps"
    else:
        return
    for i in without:
        if needed[i]:
            raise InvalidValueError(f"{INPUTS[i]} requires grad; mode is {text}")


def _keeping(*arguments: Any) -> tuple[Any, ...]:
    """The arguments of the operator that keeps what backward needs."""
    *others, _, duals = arguments
    return *others, True, duals


def _differentiate(ctx: Any, grad_u: Optional[Tensor], *others: None) -> tuple[Optional[Tensor], ...]:
    grads: list[Optional[Tensor]] = [None] * (_COUNT + 4)
    if grad_u is None:
        return tuple(grads)
    u, saved, *tensors = ctx.saved_tensors
    wanted = [i for i in range(_DIFFERENTIABLE) if ctx.needs_input_grad[i]]
    found = apply(softmax_backward, grad_u.to(u.dtype), u, saved, *tensors, ctx.options, wanted)
    for i, grad in zip(wanted, found):
        grads[i] = grad
    return tuple(grads)


def _remember(ctx: Any, arguments: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    options, checkpoint = arguments[_COUNT : _COUNT + 2]
    _check_gradients(ctx.needs_input_grad, options, checkpoint)
    u, duals, report, saved = outputs
    ctx.save_for_backward(u, saved, *arguments[:_COUNT])
    ctx.options = f"{options} checkpoint_interval={checkpoint}"
    ctx.mark_non_differentiable(duals, report, saved)
    ctx.set_materialize_grads(False)  # zeros as large as `saved`, for one


_OPTIONAL = ", ".join(f"Tensor? {name}" for name in INPUTS[1:])
softmax = define(
    f"softmax(Tensor features, {_OPTIONAL}, str options, "
    "int checkpoint, bool keep, bool duals) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    Derivative(_remember, _differentiate, _keeping),
)
softmax_backward = define(
    f"softmax_backward(Tensor grad_u, Tensor u, Tensor saved, Tensor features, {_OPTIONAL}, str options, "
    "int[] wanted) -> Tensor[]",
    _backward,
    _fake_backward,
    no_gradient="segprior.torch.softmax has no second derivatives; softcut has",
)
