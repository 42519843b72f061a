"""What the losses return, and their backward pass."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable
from typing import Any

from . import _ffi
from ._arrays import is_array, view
from ._call import wanted_names
from ._frameworks import root_package
from ._losses_call import TERMS, LossCall
from .errors import NotSupportedError
from .report import Info

Buffer = tuple[Any, int, int]  # memory, its aligned address, bytes


class LossGradients:
    """Gradients of a scalar function of a loss, each with the shape and dtype of its argument, or None.

    Attributes:
        scores: [B, I, *S]; exactly 0 at masked voxels, and for cross entropy and focal loss at those
            without a label.
        class_weights, lower, upper: of the arguments of these names; None where there were none.
    """

    scores: Any = None
    class_weights: Any = None
    lower: Any = None
    upper: Any = None

    def __repr__(self) -> str:
        return f"LossGradients({', '.join(vars(self))})"


class LossResult:
    """What the losses return.

    Reals are of the scores' dtype, float32 if that has 16 bits.

    Attributes:
        value: the loss, an array of shape []. With ``reduction="none"``: [B, *S] of `cross_entropy` and
            `focal` (0 where masked or without label), [B, I] of the others.
        terms: the terms that were computed, by name, reduced and without their weights; sums with
            ``reduction="none"``.
        items: the same, unreduced: [B, I]. Size penalties with `groups` have those in the rows of the images,
            Dice losses with ``batch=True`` the whole batch in row 0; the other rows are then 0.

    The result refers to the arrays it was computed from: do not change them in place before `backward`.
    """

    value: Any
    terms: dict[str, Any]
    items: dict[str, Any]

    def __init__(self, call: LossCall, made: dict[str, Any], saved: Buffer, info: tuple[Any, int]) -> None:
        self._call, self._saved, self._info_buffer = call, saved, info
        self._info: Info | None = None
        finished = {name: call.framework.finish(array) for name, array in made.items()}
        self.terms = {term: finished["terms"][TERMS[term]] for term in call.terms}
        self.items = {term: finished["items"][TERMS[term]] for term in call.terms}
        if call.is_reduced:
            self.value = finished["total"]
        else:
            self.value = finished["voxels"] if call.is_per_voxel else self.items[call.terms[0]]
        call.arrays.append(saved[0])

    def __repr__(self) -> str:
        shape = list(self._call.lead.shape)
        return f"LossResult({', '.join(self.terms)} of scores {shape} on {self._call.lead.device})"

    @property
    def info(self) -> Info:
        """How each image went: CONVERGED is good; iterations and residual say nothing. A failed image makes
        `value` NaN; this tells which it was and why. Read on first use; on CUDA that waits for the stream."""
        if self._info is None:
            self._info = self._call.read_info(self._info_buffer[1], self._call.stream)
        return self._info

    def backward(self, grad: Any = None, wanted: Iterable[str] | None = None) -> LossGradients:
        """Gradients of a scalar function of `value` from ``grad``, its gradient with respect to `value`.

        Args:
            grad: a number or an array of one element, None: 1. With ``reduction="none"`` an array like
                `value`.
            wanted: names among "scores", "class_weights", "lower", "upper"; None: all that were given (but
                not "class_weights" with a `value` per voxel, for which they are not implemented).

        On CUDA it runs on the `stream` that was given to the loss, else on the framework's current stream at
        this call, which first waits for the stream of the loss.

        Raises:
            InvalidValueError, InvalidTypeError: an argument is wrong; the text names it.
            NotSupportedError: "class_weights" as above; or `grad` is a torch tensor that requires grad: the
                library has first derivatives only.
        """
        call, lib = self._call, _ffi.library()
        names = wanted_names(wanted, call.differentiable)
        if wanted is None and call.is_per_voxel:
            names = [name for name in names if name != "class_weights"]
        if root_package(grad) == "torch" and grad.requires_grad:
            raise NotSupportedError(
                "grad requires grad, but segprior has first derivatives only (no double backward); "
                "pass grad.detach()"
            )
        stream = call.backward_stream()
        incoming = view(grad, "grad", stream) if is_array(grad) else None
        if stream != call.stream:
            call.framework.wait(stream, call.stream)
        context, size = call.context(stream), ct.c_size_t()
        common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
        lib.check(lib.loss_workspace_size(*common, None, ct.byref(size)))
        with call.framework.on_stream(stream):
            cotangents, read = call.incoming(grad, incoming)
            grads, made = call.allocate(names)
            # Held in a name until the call has been queued; freeing it then is ordered on the same stream.
            workspace, address = call.framework.buffer(size.value)
            status = lib.loss_backward(
                *(*common, ct.byref(cotangents), ct.byref(grads)),
                *(address, size.value, self._saved[1], self._saved[2]),
            )
            lib.check(status)
            del workspace
            found = LossGradients()
            for name, array in made.items():
                setattr(found, name, call.as_given(name, call.framework.finish(array)))
        call.hold([*call.arrays, *(array for array, _ in read)], stream)
        return found
