"""SoftCut as a twice differentiable JAX function: its calls and their derivatives. Arguments: softcut.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from .. import _ffi
from ..errors import NotSupportedError
from ._arguments import compiled, cotangent, note, noted, perturbed, underivable, values
from ._calls import run
from ._kernels import (
    COTANGENTS,
    SAVED_PLACE,
    STRUCT,
    Axis,
    Kernel,
    Output,
    Place,
    info_output,
    loose,
    saved_output,
    slot,
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a call that is known when it is traced."""

    options: bytes  # segprior_softcut_opts
    scores: tuple[tuple[int, ...], str]  # shape and dtype, of x too
    saved_bytes: int
    foldable: bool  # no stopping rule over the batch

    def kernel(
        self,
        call: str,
        arguments: Sequence[Place],
        results: Sequence[Output],
        forward: Kernel | None = None,
    ) -> Kernel:
        shape = self.scores[0]
        return Kernel(
            call=f"softcut_{call}",
            options=self.options,
            arguments=tuple(arguments),
            results=tuple(results),
            images=shape[0],
            foldable=self.foldable,
            empty=0 in shape,
            forward=forward,
        )


def _slot(struct: Any, name: str, group: int = STRUCT) -> int:
    """`name`: a field, or a member of a family as "edges[1]"."""
    field, _, member = name.removesuffix("]").partition("[")
    return slot(struct, "init" if field == "x0" else field, int(member or 0), group)


def _inputs(arrays: dict[str, Any]) -> tuple[list[Place], list[Any]]:
    names = sorted(arrays)
    places = [Place(_slot(_ffi.SoftcutInputs, name), Axis.FIRST) for name in names]
    return places, [arrays[name] for name in names]


def _like(struct: Any, names: Sequence[str], arrays: dict[str, Any]) -> list[Output]:
    return [
        Output(_slot(struct, name), Axis.FIRST, arrays[name].shape, str(arrays[name].dtype)) for name in names
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(plan: Plan, arrays: dict[str, Any]) -> tuple[Any, Any]:
    """x and the info of each system. `arrays`: scores, edges[m], diagonals[m], conductance, x0."""
    return _forward(plan, arrays, keep=False)[:2]


def _forward_kernel(plan: Plan, places: Sequence[Place], keep: bool) -> Kernel:
    shape = plan.scores[0]
    results = [
        Output(_slot(_ffi.SoftcutOutputs, "x"), Axis.FIRST, *plan.scores),
        info_output(_ffi.SoftcutOutputs, shape[0] * shape[1]),
        *([saved_output(plan.saved_bytes)] if keep else []),
    ]
    return plan.kernel("forward", places, results)


def _forward(plan: Plan, arrays: dict[str, Any], keep: bool) -> tuple[Any, ...]:
    """x, info, and with `keep` the saved state and its tag."""
    places, given = _inputs(arrays)
    return run(_forward_kernel(plan, places, keep), given)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve_and_keep(plan: Plan, arrays: dict[str, Any]) -> tuple[Any, ...]:
    """`_solve` with the saved state and its tag: what the forward pass of a derivative runs, itself
    differentiable because that of a second derivative differentiates it."""
    return _forward(plan, arrays, keep=True)


def _keep_forward(plan: Plan, primals: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    arrays = values(primals)
    x, info, *saved = _solve_and_keep(plan, arrays)
    wanted = perturbed(primals, [name for name in arrays if name != "x0"])
    return (x, info, *saved), (arrays, x, tuple(saved), note(wanted, arrays))


def _solve_forward(plan: Plan, primals: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    results, residuals = _keep_forward(plan, primals)
    return results[:2], residuals


def _solve_backward(plan: Plan, residuals: Any, incoming: tuple[Any, ...]) -> tuple[dict[str, Any]]:
    arrays, x, saved, names = residuals
    wanted = noted(names, arrays)
    found: dict[str, Any] = dict.fromkeys(arrays)
    if wanted:
        # x0 only says where the iteration starts.
        matrix = {name: array for name, array in arrays.items() if name != "x0"}
        grad_x = cotangent(incoming[0], plan.scores)
        found.update(_gradients((plan, wanted), matrix, x, saved, grad_x))
    return (found,)


_solve.defvjp(_solve_forward, _solve_backward, symbolic_zeros=True)
_solve_and_keep.defvjp(_keep_forward, _solve_backward, symbolic_zeros=True)
solve = compiled(_solve)

_Setting = tuple[Plan, tuple[str, ...]]


def _backward(
    setting: _Setting, arrays: dict[str, Any], x: Any, saved: tuple[Any, ...], grad_x: Any
) -> dict[str, Any]:
    """The gradients that `setting` wants, by name."""
    plan, wanted = setting
    places, given = _inputs(arrays)
    forward = _forward_kernel(plan, places, keep=True)
    places = [*places, loose(0), loose(1), SAVED_PLACE]
    kernel = plan.kernel("backward", places, _like(_ffi.SoftcutGrads, wanted, arrays), forward)
    return dict(zip(wanted, run(kernel, [*given, x, grad_x, *saved])))


def _refuse() -> Exception:
    return NotSupportedError("segprior.jax.softcut has first and second derivatives, no third ones")


_matrix_gradients = jax.custom_vjp(_backward, nondiff_argnums=(0,))
_last_gradients = underivable(_backward, _refuse)


def _gradients_forward(
    setting: _Setting, arrays: dict[str, Any], x: Any, saved: tuple[Any, ...], grad_x: Any
) -> tuple[dict[str, Any], Any]:
    plan, wanted = setting
    with_scores = wanted if "scores" in wanted else ("scores", *wanted)  # the second solve needs the first's
    found = _last_gradients((plan, with_scores), arrays, x, saved, grad_x)
    return {name: found[name] for name in wanted}, (arrays, x, saved, found["scores"])


def _gradients_backward(setting: _Setting, residuals: Any, incoming: dict[str, Any]) -> tuple[Any, ...]:
    """With respect to the scores and the matrix through x too, which is a function of them: none for x."""
    arrays, x, saved, grad_scores = residuals
    found = _second_gradients(setting[0], arrays, x, saved, grad_scores, incoming)
    grad_x = found.pop("grad_x")
    return found, None, (None, None), grad_x


_matrix_gradients.defvjp(_gradients_forward, _gradients_backward)
_gradients = compiled(_matrix_gradients)


def _double_backward(
    plan: Plan,
    arrays: dict[str, Any],
    x: Any,
    saved: tuple[Any, ...],
    grad_scores: Any,
    incoming: dict[str, Any],
) -> dict[str, Any]:
    places, given = _inputs(arrays)
    forward = _forward_kernel(plan, places, keep=True)
    names = list(incoming)
    incoming_places = [Place(_slot(_ffi.SoftcutCotangents, name, COTANGENTS), Axis.FIRST) for name in names]
    places = [*places, *incoming_places, loose(0), loose(1), SAVED_PLACE]
    wanted = sorted(arrays)
    results = _like(_ffi.SoftcutSecondGrads, wanted, arrays)
    results.append(Output(_slot(_ffi.SoftcutSecondGrads, "grad_x"), Axis.FIRST, *plan.scores))
    given = [*given, *(incoming[name] for name in names), x, grad_scores, *saved]
    made = run(plan.kernel("double_backward", places, results, forward), given)
    return dict(zip([*wanted, "grad_x"], made))


_second_gradients = compiled(underivable(_double_backward, _refuse))
