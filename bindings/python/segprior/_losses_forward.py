"""The forward call that all losses share, and the checks of their options."""

from __future__ import annotations

import ctypes as ct
from typing import Any

from . import _ffi
from ._call import flag, not_negative, number
from ._losses_call import LossCall
from .errors import InvalidValueError
from .losses_result import LossResult


def label_arguments(
    labels: Any,
    target: Any,
    ignore_index: Any,
    background: Any,
    labelled: Any,
    mask: Any,
    class_weights: Any,
) -> dict[str, Any]:
    return {
        "labels": (labels, target, ignore_index, background, labelled),
        "mask": mask,
        "class_weights": class_weights,
    }


def dice_options(squared: Any, smooth_nr: Any, smooth_dr: Any, batch: Any) -> dict[str, Any]:
    return {
        "dice_squared": flag("squared", squared),
        "dice_smooth_nr": not_negative("smooth_nr", smooth_nr),
        "dice_smooth_dr": not_negative("smooth_dr", smooth_dr),
        "dice_batch": flag("batch", batch),
    }


def fraction(name: str, value: Any) -> float:
    found = number(name, value)
    if not 0 <= found <= 1:
        raise InvalidValueError(f"{name} = {found}; it must be 0 .. 1")
    return found


def at_least_one(name: str, value: Any) -> float:
    found = not_negative(name, value)
    if found < 1:
        raise InvalidValueError(f"{name} = {found}; it must be >= 1")
    return found


def compute(
    call: LossCall,
    *,
    labels: tuple[Any, ...] | None = None,
    mask: Any = None,
    class_weights: Any = None,
    bounds: tuple[Any, ...] = (None, None, None, None),
    rows: bool = False,
    **options: Any,
) -> LossResult:
    """Arguments as `label_arguments` packs them; `bounds`: those of `LossCall.add_bounds`; `rows`: class weights
    may have one per term; `options`: fields of segprior_loss_opts, checked."""
    for name, value in options.items():
        setattr(call.opts, name, value)
    if labels is not None:
        call.add_labels(*labels)
    call.add_mask(mask)
    call.add_class_weights(class_weights, rows)
    call.add_bounds(*bounds)
    return _forward(_ffi.library(), call)


def _forward(lib: _ffi.Library, call: LossCall) -> LossResult:
    context, size, saved_size = call.context(), ct.c_size_t(), ct.c_size_t()
    common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
    lib.check(lib.loss_workspace_size(*common, ct.byref(size), None))
    lib.check(lib.loss_saved_size(*common, ct.byref(saved_size)))
    with call.framework.on_stream(call.stream):
        outputs, made = call.allocate_outputs()
        info = call.framework.buffer(ct.sizeof(_ffi.Info) * call.batch)
        outputs.info = info[1]
        workspace, address = call.framework.buffer(size.value)
        saved = call.framework.buffer(saved_size.value)
        lib.check(
            lib.loss_forward(*common, ct.byref(outputs), address, size.value, saved[1], saved_size.value)
        )
        del workspace
    call.hold(call.arrays, call.stream)
    return LossResult(call, made, (*saved, saved_size.value), info)
