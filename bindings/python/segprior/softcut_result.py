"""What `softcut` returns, its backward pass, and the backward pass of that."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable
from typing import Any

from . import _ffi
from ._arrays import View, view
from ._call import wanted_names
from ._frameworks import root_package
from ._softcut_call import Made, SoftcutCall, assign
from .errors import InvalidValueError, NotSupportedError
from .report import Systems

Buffer = tuple[Any, int]  # memory and its aligned address


class _Solved:
    """Results of a pass that solves systems, and their reports."""

    def __init__(self, call: SoftcutCall, made: Made, info: Buffer, stream: int, passes: int = 1) -> None:
        self._call, self._made = call, made
        self._info_buffer, self._stream, self._passes = info, stream, passes
        self._info: Systems | None = None
        for name, value in call.finish(made).items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._made)})"

    @property
    def info(self) -> Systems:
        """Status, iterations, residual of each system. Read on first use; on CUDA that waits for the stream."""
        if self._info is None:
            self._info = self._call.read_info(self._info_buffer[1], self._stream, self._passes)
        return self._info


class SoftcutSecondGradients(_Solved):
    """Results of `SoftcutGradients.backward`, each with the shape and dtype of its argument.

    With l = ``scores`` of the `SoftcutGradients`, x the solution, A(b, c) the matrix of weights b and
    conductance c:

    Attributes:
        grad_x: ``y = A^-1 (a - A(b, c) x)``, [B, K, *S].
        scores: ``z = -A^-1 A(b, c) l``, [B, K, *S].
        edges, diagonals: tuples, ``-(y_a - y_b) (l_a - l_b) - (z_a - z_b) (x_a - x_b)``; diagonals None
            where `softcut` had none.
        conductance: ``-y l - z x``; None where `softcut` had none.
    """

    grad_x: Any = None
    scores: Any = None
    edges: Any = None
    diagonals: Any = None
    conductance: Any = None

    @property
    def info(self) -> Systems:
        """Fields [2, B, K]: of the solves for y, then of those for z."""
        return super().info


class SoftcutGradients(_Solved):
    """Gradients of a scalar loss, each with the shape and dtype of its argument, None if not computed.

    With ``l = A^-1 grad_x``; where the classes share a matrix, its gradients are sums over them:

    Attributes:
        scores: l, [B, K, *S].
        edges, diagonals: tuples, ``-(l_a - l_b) (x_a - x_b)`` for the edge between voxels a and b.
        conductance: ``-l x``.
    """

    scores: Any = None
    edges: Any = None
    diagonals: Any = None
    conductance: Any = None

    def __init__(self, result: SoftcutResult, made: Made, info: Buffer, stream: int) -> None:
        super().__init__(result._call, made, info, stream)
        self._result = result

    @property
    def info(self) -> Systems:
        """Fields [B, K]: of the backward solves; residuals are relative to grad_x, L2."""
        return super().info

    def backward(
        self, scores: Any = None, edges: Any = None, diagonals: Any = None, conductance: Any = None
    ) -> SoftcutSecondGradients:
        """Double backward: the gradients of a scalar function of these gradients.

        Args:
            scores: a, its gradient with respect to `scores` of this object; shape and dtype of that. None: 0.
            edges, diagonals: b, likewise; tuples. None, as a whole or one of them: 0.
            conductance: c, likewise. None: 0.

        Raises:
            InvalidValueError, InvalidTypeError: an argument is wrong; the text names it. Or `scores`, which
                the formulas need, were not wanted in `SoftcutResult.backward`.
        """
        call, lib, result = self._call, _ffi.library(), self._result
        if "scores" not in self._made:
            raise InvalidValueError("wanted had no 'scores', which the gradients of the gradients need")
        stream = call.backward_stream()
        cotangents = _ffi.SoftcutCotangents(struct_size=ct.sizeof(_ffi.SoftcutCotangents))
        given = {"scores": scores, "edges": edges, "diagonals": diagonals, "conductance": conductance}
        read: list[View] = []
        for name, value in given.items():
            if value is None:
                continue
            if name not in call.given:
                raise InvalidValueError(f"{name} is given, but softcut was called without {name}")
            views = call.read(name, value, stream, gaps=True)
            assign(cotangents, name, views)
            read += [source for source in views if source is not None]
        if stream != self._stream:  # which has waited for forward's
            call.framework.wait(stream, self._stream)
        grads = _ffi.SoftcutSecondGrads(struct_size=ct.sizeof(_ffi.SoftcutSecondGrads))
        context, size = call.context(stream), ct.c_size_t()
        common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
        lib.check(lib.softcut_workspace_size(*common, None, None, ct.byref(size)))
        with call.framework.on_stream(stream):
            made = call.allocate(grads, ["grad_x", *call.differentiable])
            info = call.info_buffer(2)
            grads.info = info[1]
            workspace, address = call.framework.buffer(size.value)
            l_array, l_view = self._made["scores"][0]
            status = lib.softcut_double_backward(
                *(*common, ct.byref(result._x.tensor), ct.byref(l_view.tensor)),
                *(ct.byref(cotangents), ct.byref(grads), address, size.value, *result._saved_memory),
            )
            lib.check(status)
            del workspace
            found = SoftcutSecondGradients(call, made, info, stream, 2)
        call.hold([*call.arrays, l_array, *(source.keep[0] for source in read)], stream)
        return found


class SoftcutResult(_Solved):
    """What `softcut` returns.

    Attributes:
        x: the solution [B, K, *S], of the scores' dtype.

    The result refers to the arrays it was computed from: do not change them in place before `backward`.
    """

    x: Any = None

    def __init__(self, call: SoftcutCall, made: Made, saved: tuple[Any, int, int], info: Buffer) -> None:
        super().__init__(call, made, info, call.stream)
        self._saved = saved  # memory, its address, bytes
        self._x = made["x"][0][1]
        call.arrays += [made["x"][0][0]] + ([] if saved[0] is None else [saved[0]])

    def __repr__(self) -> str:
        return f"SoftcutResult(x={list(self._x.shape)} on {self._call.lead.device})"

    @property
    def info(self) -> Systems:
        """Fields [B, K]. The residual is that of `x`, computed anew, in the norm and scale of the stopping
        rule. Read on first use; on CUDA that waits for the stream."""
        return super().info

    @property
    def _saved_memory(self) -> tuple[int | None, int]:
        return self._saved[1] or None, self._saved[2]

    def backward(self, grad_x: Any, wanted: Iterable[str] | None = None) -> SoftcutGradients:
        """Gradients of a scalar loss from ``grad_x`` = its gradient with respect to `x`: one more solve.

        They are those of the solution, not of the iteration, and as accurate as its stopping (`backward_tol`)
        and forward's (`tol`) let them be.

        Args:
            grad_x: [B, K, *S], dtype and device of the scores.
            wanted: names among "scores", "edges", "diagonals", "conductance"; None: all that were given. `x0`
                is a constant.

        On CUDA it runs on the `stream` that was given to `softcut`, else on the framework's current stream at
        this call, which first waits for the stream of `softcut`.

        Raises:
            InvalidValueError, InvalidTypeError: an argument is wrong; the text names it.
            NotSupportedError: `grad_x` is a torch tensor that requires grad; the result would not be
                connected to it. `SoftcutGradients.backward` has second derivatives.
        """
        call, lib = self._call, _ffi.library()
        names = wanted_names(wanted, call.differentiable)
        if root_package(grad_x) == "torch" and grad_x.requires_grad:
            raise NotSupportedError(
                "grad_x requires grad, which the result would not be connected to; pass grad_x.detach(), "
                "and use the result's own backward for second derivatives"
            )
        stream = call.backward_stream()
        incoming = view(grad_x, "grad_x", stream)
        if stream != call.stream:
            call.framework.wait(stream, call.stream)
        grads = _ffi.SoftcutGrads(struct_size=ct.sizeof(_ffi.SoftcutGrads))
        context, size = call.context(stream), ct.c_size_t()
        common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
        lib.check(lib.softcut_workspace_size(*common, None, ct.byref(size), None))
        with call.framework.on_stream(stream):
            made = call.allocate(grads, names)
            info = call.info_buffer()
            grads.info = info[1]
            # Held in a name until the call has been queued; freeing it then is ordered on the same stream.
            workspace, address = call.framework.buffer(size.value)
            status = lib.softcut_backward(
                *(*common, ct.byref(self._x.tensor), ct.byref(incoming.tensor), ct.byref(grads)),
                *(address, size.value, *self._saved_memory),
            )
            lib.check(status)
            del workspace
            found = SoftcutGradients(self, made, info, stream)
        call.hold([*call.arrays, grad_x], stream)
        return found
