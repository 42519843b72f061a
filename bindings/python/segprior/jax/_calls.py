"""Runs a `Kernel` inside a JAX program, and says what `vmap` does with it.

`vmap` folds its axis into the images of one call where each image has its own arguments and results; anything
else becomes a loop over calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from ._kernels import Axis, Kernel, Output
from ._library import register


def run(kernel: Kernel, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The kernel's results. A kernel that writes `saved` has one result more, one that reads it one argument
    more, both behind the last: the tag of the saved state, see `_fold`."""
    register()

    @custom_vmap
    def call(*given: Any) -> tuple[Any, ...]:
        if kernel.reads_saved() and kernel.foldable:
            return _unless_taken_apart(kernel, given)
        found = _ffi_call(kernel, given[: len(kernel.arguments)])
        return (*found, *([_whole_tag()] if kernel.writes_saved() else []))

    @call.def_vmap
    def rule(calls: int, is_mapped: Sequence[bool], *given: Any) -> tuple[Any, Any]:
        found = _mapped(kernel, calls, is_mapped, given)
        return found, tuple(True for _ in found)

    return tuple(call(*arrays))


def _unless_taken_apart(kernel: Kernel, given: Sequence[Any]) -> tuple[Any, ...]:
    """The results; NaN without the state of a call that was folded with others. (To compute it again, as
    `_loop` does, would take the memory of a second one.) Inside one program the tag is a constant, and the
    compiler drops the condition."""

    def nothing(*_: Any) -> tuple[Any, ...]:
        nan = [jnp.full(result.shape, jnp.nan, result.dtype) for result in kernel.results]
        return tuple(as_varying(array, varying(given)) for array in nan)

    return _if_whole(lambda *given: tuple(_ffi_call(kernel, given[:-1])), nothing, given)


def _ffi_call(kernel: Kernel, arrays: Sequence[Any]) -> Sequence[Any]:
    if kernel.empty:
        # The library leaves the results of an empty problem alone; here they are sums over nothing.
        return [jnp.zeros(result.shape, result.dtype) for result in kernel.results]
    found = jax.ffi.ffi_call(
        f"segprior_{kernel.call}",
        [jax.ShapeDtypeStruct(result.shape, np.dtype(result.dtype)) for result in kernel.results],
    )(
        *arrays,
        options=np.frombuffer(kernel.options, np.uint8),
        star_classes=np.array(kernel.star_classes, np.int32),
        arguments=np.array([argument.slot for argument in kernel.arguments], np.int32),
        results=np.array([result.slot for result in kernel.results], np.int32),
    )
    return [as_varying(array, varying(arrays)) for array in found]


def varying(arrays: Iterable[Any]) -> frozenset[Any]:
    """The mesh axes of `shard_map` over which any of the arrays varies."""
    none: frozenset[Any] = frozenset()
    avals = [getattr(array, "aval", None) for array in arrays]
    # jax 0.10 has `manual_axis_type`, earlier ones `vma`, the first neither.
    types = [getattr(aval, "manual_axis_type", None) for aval in avals]
    return none.union(
        *(getattr(aval, "vma", none) for aval in avals), *(getattr(kind, "varying", none) for kind in types)
    )


def as_varying(array: Any, axes: frozenset[Any]) -> Any:
    """The array as one that varies over these axes; the gradient of a shared one is a sum over them."""
    missing = tuple(axes - varying([array]))
    if not missing:
        return array
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(array, missing, to="varying")
    older: Any = jax.lax  # jax < 0.8
    return older.pvary(array, missing)


def _whole_tag() -> Any:
    """The tag of a saved state that is there; 0: that of a call which was folded with others."""
    return jnp.ones((), jnp.int32)


def _if(
    condition: Callable[..., Any], yes: Callable[..., Any], no: Callable[..., Any], arrays: Sequence[Any]
) -> tuple[Any, ...]:
    """`yes` or `no` of the arrays, never both, which `vmap` would make of a condition: it becomes a loop."""

    @custom_vmap
    def choice(*given: Any) -> tuple[Any, ...]:
        return tuple(jax.lax.cond(condition(*given), yes, no, *given))

    @choice.def_vmap
    def rule(_: int, is_mapped: Sequence[bool], *given: Any) -> tuple[Any, Any]:
        found = _one_by_one(choice, is_mapped, given)
        return found, tuple(True for _ in found)

    return tuple(choice(*arrays))


def _if_whole(yes: Callable[..., Any], no: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """`_if` of whether the last array is the tag of a whole state."""
    return _if(lambda *given: given[-1] == _whole_tag(), yes, no, arrays)


def _one_by_one(
    function: Callable[..., Any], is_mapped: Sequence[bool], arrays: Sequence[Any]
) -> tuple[Any, ...]:
    """The results of `function` for each slice of the mapped arrays, stacked."""

    def body(slices: list[Any]) -> tuple[Any, ...]:
        rest = iter(slices)
        return tuple(function(*(next(rest) if one else array for array, one in zip(arrays, is_mapped))))

    return tuple(jax.lax.map(body, [array for array, one in zip(arrays, is_mapped) if one]))


def _mapped(kernel: Kernel, calls: int, is_mapped: Sequence[bool], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The results of `calls` calls, stacked; the arrays that `is_mapped` have a first axis for them."""
    if not _can_fold(kernel, is_mapped):
        return _loop(kernel, is_mapped, arrays)
    return _fold(kernel, calls, is_mapped, arrays)


def _can_fold(kernel: Kernel, is_mapped: Sequence[bool]) -> bool:
    if not kernel.foldable or kernel.images == 0:
        return False
    for place, mapped in zip(kernel.arguments, is_mapped):
        if mapped and place.axis is Axis.NONE:
            return False
        if not mapped and place.axis is Axis.SAVED:
            return False
    return True


def _loop(kernel: Kernel, is_mapped: Sequence[bool], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Call by call; a state that is not there is computed again."""
    forward = kernel.forward

    def once(*given: Any) -> tuple[Any, ...]:
        if forward is None or not kernel.foldable:
            return run(kernel, given)
        return _if_whole(lambda *given: run(kernel, given), anew, given)

    def anew(*given: Any) -> tuple[Any, ...]:
        assert forward is not None
        *_, saved, tag = run(forward, given[: len(forward.arguments)])
        return run(kernel, [*given[:-2], saved, tag])

    return _one_by_one(once, is_mapped, arrays)


def _fold(kernel: Kernel, calls: int, is_mapped: Sequence[bool], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The results of `calls` calls as one with all their images.

    Their common state has no part that belongs to one of them, and what goes on between forward and backward
    may choose among the states of several such calls (a mapped condition does). So none is handed out:
    backward has it from the same forward call made again, which is one with the first inside one program.
    """
    made = _of_all(kernel, calls, is_mapped, arrays)
    found = [_unfolded(result, calls, array) for result, array in zip(kernel.results, made)]
    return (*found, *([jnp.zeros(calls, jnp.int32)] if kernel.writes_saved() else []))


def _of_all(kernel: Kernel, calls: int, is_mapped: Sequence[bool], arrays: Sequence[Any]) -> tuple[Any, ...]:
    given = [
        _folded_argument(place.axis, kernel.images, calls, mapped, array)
        for place, mapped, array in zip(kernel.arguments, is_mapped, arrays)
        if place.axis is not Axis.SAVED
    ]
    if kernel.reads_saved():
        assert kernel.forward is not None
        own = len(kernel.forward.arguments)
        given.extend(_of_all(kernel.forward, calls, is_mapped[:own], arrays[:own])[-2:])
    return run(kernel.folded(calls), given)


def _folded_argument(axis: Axis, images: int, calls: int, mapped: bool, array: Any) -> Any:
    if axis is Axis.NONE or (axis is Axis.FIRST_OR_SHARED and not mapped and array.shape[0] == 1):
        return array
    if not mapped:
        array = jnp.broadcast_to(array, (calls, *array.shape))
    if axis is Axis.SECOND:
        array = jnp.moveaxis(array, 0, 1)
        return array.reshape(array.shape[0], -1, *array.shape[3:])
    if axis is Axis.FIRST_OR_SHARED and array.shape[1] != images:
        array = jnp.broadcast_to(array, (calls, images, *array.shape[2:]))
    return array.reshape(math.prod(array.shape[:2]), *array.shape[2:])


def _unfolded(result: Output, calls: int, array: Any) -> Any:
    if result.axis is Axis.SAVED:
        return as_varying(jnp.zeros((calls, *result.shape), array.dtype), varying([array]))
    if result.axis is Axis.SECOND:
        return jnp.moveaxis(array.reshape(result.shape[0], calls, *result.shape[1:]), 1, 0)
    return array.reshape(calls, *result.shape)
