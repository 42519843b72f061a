"""Registration of the custom operators `torch.ops.segprior.*`.

They are registered with `torch.library` piece by piece, because the wrapper that
`torch.library.register_autograd` makes takes time that grows with the square of the number of arguments: 60
microseconds for an operator with 20, four times what the rest of a call costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import NotSupportedError

_library = torch.library.Library("segprior", "DEF")
_below_autograd = torch._C._AutoDispatchBelowAutograd
_in_transform = torch._C._are_functorch_transforms_active
_transformed: dict[Any, type[torch.autograd.Function]] = {}


class Derivative(NamedTuple):
    """How an operator is differentiated; `ctx` is that of a torch.autograd.Function."""

    remember: Callable[..., None]  #: (ctx, arguments, outputs): keeps what `backward` needs
    backward: Callable[..., Any]  #: (ctx, *gradients of the outputs or None) -> those of the arguments
    #: arguments -> those with which the operator is called where backward will follow
    change: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments


def define(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    derivative: Optional[Derivative] = None,
    no_gradient: str = "",
) -> Callable[..., Any]:
    """Defines an operator.

    Args:
        schema: "name(Tensor a, ...) -> ...".
        kernel: computes it on the CPU and on CUDA. fake: makes outputs of the right shapes.
        derivative: None: it has none.
        no_gradient: without `derivative`, the error of differentiating the outputs; "": they are constants.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    for key in ("CPU", "CUDA"):
        _library.impl(name, kernel, key)
    torch.library.register_fake(f"segprior::{name}", fake, lib=_library)
    operator: Callable[..., Any] = getattr(torch.ops.segprior, name).default
    if no_gradient:
        derivative = _refusal(no_gradient)
    function = None
    if derivative is not None:
        function, _transformed[operator] = _functions(operator, derivative)

    def autograd(*arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            _refuse_tangents(name, arguments)
        if function is not None and torch.is_grad_enabled() and _any_requires_grad(arguments):
            if _in_transform():
                raise NotSupportedError(
                    f"torch.ops.segprior.{name} called by its name has no derivatives by torch.func"
                )
            return function.apply(*arguments)
        return below_autograd(operator, *arguments)

    _library.impl(name, autograd, "Autograd")
    torch.library.register_vmap(f"segprior::{name}", _one_by_one(operator), lib=_library)
    return operator


def apply(operator: Callable[..., Any], *arguments: Any) -> Any:
    """Calls an operator; within a transform of torch.func, its Function instead.

    Those transforms see through a Function, but not through an operator that calls one.
    """
    if not torch.compiler.is_compiling() and _in_transform():
        function = _transformed.get(operator)
        if function is not None:
            return function.apply(*arguments)
    return operator(*arguments)


def below_autograd(operator: Callable[..., Any], *arguments: Any) -> Any:
    with _below_autograd():
        return operator(*arguments)


def _any_requires_grad(arguments: tuple[Any, ...]) -> bool:
    for argument in arguments:  # in a third of the time of any()
        if isinstance(argument, Tensor) and argument.requires_grad:
            return True
    return False


def _functions(
    operator: Callable[..., Any], derivative: Derivative
) -> tuple[type[torch.autograd.Function], type[torch.autograd.Function]]:
    """The operator with its derivative, and the same as the transforms of torch.func need it.

    The first does without `setup_context`, which costs a third of the overhead of a call.
    """

    def compute(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(below_autograd(operator, *derivative.change(*arguments)))

    class Plain(torch.autograd.Function):
        backward = staticmethod(derivative.backward)  # type: ignore[assignment]

        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
            outputs = compute(*arguments)
            derivative.remember(ctx, arguments, outputs)
            return outputs

    class Transformed(torch.autograd.Function):
        generate_vmap_rule = True
        forward = staticmethod(compute)  # type: ignore[assignment]
        setup_context = staticmethod(derivative.remember)  # type: ignore[assignment]
        backward = staticmethod(derivative.backward)  # type: ignore[assignment]

    return Plain, Transformed


def _refusal(text: str) -> Derivative:
    """An error for those who differentiate, and none for those who only ask for a graph."""

    def refuse(ctx: Any, *grads: Optional[Tensor]) -> None:
        raise NotSupportedError(text)

    return Derivative(remember=lambda *_: None, backward=refuse)


def _refuse_tangents(name: str, arguments: tuple[Any, ...]) -> None:
    """Without this a tangent would be lost, and forward mode give zero."""
    for argument in arguments:
        if isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None:
            raise NotSupportedError(f"torch.ops.segprior.{name} has no forward-mode derivatives (jvp)")


def _one_by_one(operator: Callable[..., Any]) -> Callable[..., Any]:
    """vmap for every combination of mapped arguments: a call for each element, in turn.

    Images of one batch are computed at once; a mapped axis is not folded into the batch, because parameters
    and their gradients are shared by the batch.
    """

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        def element(k: int) -> Any:
            return operator(
                *[a.select(d, k) if isinstance(d, int) else a for a, d in zip(arguments, in_dims)]
            )

        if info.batch_size == 0:  # of what shape are results that were never computed?
            raise NotSupportedError(f"vmap of {operator} over an axis of 0 elements is not supported")
        results = [element(k) for k in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        stacked = [torch.stack(column) for column in zip(*results)]
        together = type(results[0])  # a tuple or a list, as the schema says
        return together(stacked), together([0] * len(stacked))

    return rule
