"""The custom operators `segprior::softcut`, `softcut_backward` and `softcut_double_backward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .. import _ffi
from ..errors import InvalidValueError
from ._define import Derivative, apply, define
from ._plan import Operator, contiguous, fake_size, kind_of, plan
from .report import REPORT_BYTES

INPUTS = ("scores", "edges[0]", "edges[1]", "edges[2]", "diagonals[0]", "diagonals[1]", "conductance", "init")
_SCHEMA_NAMES = ("edge0", "edge1", "edge2", "diagonal0", "diagonal1", "conductance", "init")
_COUNT = len(INPUTS)
_DIFFERENTIABLE = 7  # the first of them
_SOFTCUT = Operator("softcut", _ffi.SoftcutOpts, _ffi.SoftcutInputs, INPUTS, passes=3)


def _make(like: Sequence[Optional[Tensor]], empty: bool) -> list[Tensor]:
    """The library leaves the outputs of an empty problem alone; here they are sums over nothing."""
    make = torch.zeros_like if empty else torch.empty_like
    return [make(t, memory_format=torch.contiguous_format) for t in like if t is not None]


def _is_empty(scores: Tensor) -> bool:
    return scores.numel() == 0


def _make_outputs(scores: Optional[Tensor], saved_bytes: int) -> tuple[Tensor, ...]:
    """x, the report of each system, the saved state."""
    assert scores is not None
    empty = _is_empty(scores)
    make, device = torch.zeros if empty else torch.empty, scores.device
    return (
        *_make([scores], empty),
        make((*scores.shape[:2], REPORT_BYTES), dtype=torch.uint8, device=device),
        torch.empty(saved_bytes, dtype=torch.uint8, device=device),
    )


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, options = contiguous(arguments[:_COUNT]), arguments[_COUNT]
    found = plan(_SOFTCUT, options, tensors)
    x, report, saved = made = _make_outputs(tensors[0], found.sizes[3])
    struct = found.struct("outputs", _ffi.SoftcutOutputs, ("x",), (x,))
    struct.fields.info = report.data_ptr()
    found.run("forward", tensors, (struct.reference,), found.sizes[0], saved)
    return made


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, options = arguments[:_COUNT], arguments[_COUNT]
    return _make_outputs(tensors[0], fake_size(_SOFTCUT, options, tensors, 3))


def _backward(grad_x: Tensor, x: Tensor, saved: Tensor, *arguments: Any) -> list[Tensor]:
    tensors, options, wanted = contiguous(arguments[:_COUNT]), arguments[_COUNT], arguments[_COUNT + 1]
    grads = _make([tensors[i] for i in wanted], _is_empty(x))
    found = plan(_SOFTCUT, options, tensors)
    names = tuple([INPUTS[i] for i in wanted])
    struct = found.struct(("grads", names), _ffi.SoftcutGrads, names, grads)
    given = contiguous((x, grad_x))  # in a name, because the library gets addresses alone
    references = found.views(("x", "grad_x"), given)
    found.run("backward", tensors, (*references, struct.reference), found.sizes[1], saved)
    return grads


def _fake_backward(grad_x: Tensor, x: Tensor, saved: Tensor, *arguments: Any) -> list[Tensor]:
    return _make([arguments[i] for i in arguments[_COUNT + 1]], _is_empty(x))


def _double_backward(*arguments: Any) -> list[Tensor]:
    """Arguments: seven cotangents; x, grad_scores, saved; softcut's inputs; options; wanted.

    Numbers in `wanted`: 0 is grad_x, 1 + i the input i.
    """
    cotangents, rest = contiguous(arguments[:_DIFFERENTIABLE]), arguments[_DIFFERENTIABLE:]
    x, grad_scores, saved = rest[:3]
    tensors, options, wanted = contiguous(rest[3 : 3 + _COUNT]), rest[3 + _COUNT], rest[4 + _COUNT]
    grads = _fake_double_backward(*arguments)
    found = plan(_SOFTCUT, options, tensors)
    incoming = found.struct(kind_of(cotangents), _ffi.SoftcutCotangents, INPUTS[:_DIFFERENTIABLE], cotangents)
    names = tuple([("grad_x", *INPUTS)[i] for i in wanted])
    struct = found.struct(("second grads", names), _ffi.SoftcutSecondGrads, names, grads)
    given = contiguous((x, grad_scores))
    references = found.views(("x", "grad_scores"), given)
    found.run(
        "double_backward", tensors, (*references, incoming.reference, struct.reference), found.sizes[2], saved
    )
    return grads


def _fake_double_backward(*arguments: Any) -> list[Tensor]:
    x, grad_scores, _, *inputs = arguments[_DIFFERENTIABLE : _DIFFERENTIABLE + 3 + _COUNT]
    return _make([(grad_scores, *inputs)[i] for i in arguments[-1]], _is_empty(x))


def _differentiate(ctx: Any, grad_x: Optional[Tensor], *others: None) -> tuple[Optional[Tensor], ...]:
    grads: list[Optional[Tensor]] = [None] * (_COUNT + 1)
    if grad_x is None:
        return tuple(grads)
    x, saved, *tensors = ctx.saved_tensors
    wanted = [i for i in range(_DIFFERENTIABLE) if ctx.needs_input_grad[i]]
    if torch.is_grad_enabled() and 0 not in wanted:  # create_graph: the second derivatives need it
        wanted = [0, *wanted]
    found = apply(softcut_backward, grad_x, x, saved, *tensors, ctx.options, wanted)
    for i, grad in zip(wanted, found):
        grads[i] = grad
    return tuple(grads)


def _remember(ctx: Any, arguments: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    x, report, saved = outputs
    ctx.save_for_backward(x, saved, *arguments[:_COUNT])
    ctx.options = arguments[_COUNT]
    ctx.mark_non_differentiable(report, saved)
    ctx.set_materialize_grads(False)  # zeros as large as `saved`, for one


def _differentiate_backward(ctx: Any, *incoming: Optional[Tensor]) -> tuple[Optional[Tensor], ...]:
    """`softcut_backward` as a function of grad_x and of softcut's arguments.

    x counts as the solution for those arguments, not as an argument of its own: its share is in
    their gradients.
    """
    cotangents: list[Optional[Tensor]] = [None] * _DIFFERENTIABLE
    for i, cotangent in zip(ctx.wanted, incoming):
        cotangents[i] = cotangent
    # Arguments: grad_x, x, saved, the inputs, options, wanted.
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[3 : 3 + _DIFFERENTIABLE])
    wanted = [i for i, needs in enumerate(needed) if needs]
    found = apply(softcut_double_backward, *cotangents, *ctx.saved_tensors, ctx.options, wanted)
    second = dict(zip(wanted, found))
    return (second.get(0), None, None, *[second.get(1 + i) for i in range(_COUNT)], None, None)


def _remember_backward(ctx: Any, arguments: tuple[Any, ...], grads: tuple[Tensor, ...]) -> None:
    _, x, saved, *tensors = arguments[: 3 + _COUNT]
    ctx.options, ctx.wanted = arguments[3 + _COUNT :]
    if 0 not in ctx.wanted:
        raise InvalidValueError(
            f"wanted = {ctx.wanted}; the gradients of the gradients need 0, that of the scores"
        )
    ctx.save_for_backward(x, grads[ctx.wanted.index(0)], saved, *tensors)
    ctx.set_materialize_grads(False)


_OPTIONAL = ", ".join(f"Tensor? {name}" for name in _SCHEMA_NAMES)
_COTANGENTS = ", ".join(
    f"Tensor? grad_of_{name}" for name in ("scores", *_SCHEMA_NAMES[: _DIFFERENTIABLE - 1])
)
softcut = define(
    f"softcut(Tensor scores, {_OPTIONAL}, str options) -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    Derivative(_remember, _differentiate),
)
softcut_backward = define(
    f"softcut_backward(Tensor grad_x, Tensor x, Tensor saved, Tensor scores, {_OPTIONAL}, str options, "
    "int[] wanted) -> Tensor[]",
    _backward,
    _fake_backward,
    Derivative(_remember_backward, _differentiate_backward),
)
softcut_double_backward = define(
    f"softcut_double_backward({_COTANGENTS}, Tensor x, Tensor grad_scores, Tensor saved, Tensor scores, "
    f"{_OPTIONAL}, str options, int[] wanted) -> Tensor[]",
    _double_backward,
    _fake_double_backward,
    no_gradient="segprior.torch.softcut has first and second derivatives; third ones are not computed",
)
