"""The entropic softmax as a JAX function: its calls and their derivatives. Arguments: softmax.py."""

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
    SAVED_PLACE,
    Axis,
    Kernel,
    Output,
    Place,
    info_output,
    loose,
    saved_output,
    slot,
)

_OF_AN_IMAGE = ("features", "volume", "volume_lower", "volume_upper", "star_center")
_DUALS_OF_AN_IMAGE = ("init_tv_dual", "init_volume_dual", "init_star_dual")
_FIELDS = ("tv_edge", "td_edge", "mask")
_OF_THE_ITERATION = ("tv_tau", "star_tau")  # which the limit does not depend on
_DIFFERENTIABLE = (
    *("features", "eps", "tv_lam", "tv_tau", "tv_edge", "volume", "volume_lower", "volume_upper"),
    *("td_lam", "td_sigma", "td_kernel", "td_edge", "star_tau", "star_center"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a call that is known when it is traced."""

    options: bytes  # segprior_softmax_opts, with the checkpoints and the mode of backward
    star_classes: tuple[int, ...]
    features: tuple[tuple[int, ...], str]  # shape and dtype
    real: str  # dtype of the rest
    duals: tuple[tuple[str, tuple[int, ...]], ...]  # the wanted ones and their shapes
    saved_bytes: int
    mode: str

    @property
    def images(self) -> int:
        return self.features[0][0]

    @property
    def empty(self) -> bool:
        return 0 in self.features[0]

    def axis(self, name: str) -> Axis:
        if name in _OF_AN_IMAGE or name in _DUALS_OF_AN_IMAGE:
            return Axis.FIRST
        return Axis.FIRST_OR_SHARED if name in _FIELDS else Axis.NONE


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(plan: Plan, arrays: dict[str, Any]) -> dict[str, Any]:
    """u, the duals that `plan` wants and "info", by name."""
    return _forward((plan, False, True), arrays)[0]


_Setting = tuple[Plan, bool, bool]  # the plan, whether to keep state for backward, whether to fold under vmap


def _forward_kernel(setting: _Setting, names: Sequence[str]) -> Kernel:
    plan, keep, foldable = setting
    options = _ffi.SoftmaxOpts.from_buffer_copy(plan.options)
    if not keep:
        options.checkpoint_interval = 0
    results = [
        Output(slot(_ffi.SoftmaxOutputs, "u"), Axis.FIRST, *plan.features),
        *(
            Output(slot(_ffi.SoftmaxOutputs, name), Axis.FIRST, shape, plan.real)
            for name, shape in plan.duals
        ),
        info_output(_ffi.SoftmaxOutputs, plan.images),
        *([saved_output(plan.saved_bytes)] if keep else []),
    ]
    return Kernel(
        call="softmax_forward",
        options=bytes(options),
        arguments=tuple(Place(slot(_ffi.SoftmaxInputs, name), plan.axis(name)) for name in names),
        results=tuple(results),
        images=plan.images,
        foldable=foldable,
        empty=plan.empty,
        star_classes=plan.star_classes,
    )


def _forward(setting: _Setting, arrays: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The results by name; the saved state and its tag, if kept."""
    names = sorted(arrays)
    made = run(_forward_kernel(setting, names), [arrays[name] for name in names])
    found = dict(zip(["u", *(name for name, _ in setting[0].duals), "info"], made))
    return found, tuple(made[len(found) :])


def _solve_forward(plan: Plan, primals: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    wanted, arrays = perturbed(primals, _DIFFERENTIABLE), values(primals)
    allowed = {"last": ("features",), "implicit": [n for n in _DIFFERENTIABLE if n not in _OF_THE_ITERATION]}
    for name in wanted:
        if name not in allowed.get(plan.mode, _DIFFERENTIABLE):
            raise NotSupportedError(
                f"mode is {plan.mode!r}, which has no gradient for {name}; take mode='unrolled', or "
                f"jax.lax.stop_gradient({name})"
            )
    keep = plan.mode != "last"
    results, saved = _forward_once((plan, keep, _is_foldable(plan, arrays, wanted)), arrays)
    return results, (arrays, saved if keep else (results["u"],), note(wanted, arrays))


def _is_foldable(plan: Plan, arrays: dict[str, Any], wanted: tuple[str, ...]) -> bool:
    """Whether every wanted gradient belongs to one image; the same answer for forward and backward, which
    share the saved state."""
    return all(
        name in _OF_AN_IMAGE or (name in _FIELDS and arrays[name].shape[0] == plan.images) for name in wanted
    )


def _solve_backward(plan: Plan, residuals: Any, incoming: dict[str, Any]) -> tuple[dict[str, Any]]:
    arrays, state, names = residuals
    wanted = noted(names, arrays)
    found: dict[str, Any] = dict.fromkeys(arrays)
    if wanted:
        grad_u = cotangent(incoming["u"], plan.features)
        found.update(_gradients((plan, wanted), arrays, state, grad_u))
    return (found,)


_solve.defvjp(_solve_forward, _solve_backward, symbolic_zeros=True)
solve = compiled(_solve)


def _backward(
    setting: tuple[Plan, tuple[str, ...]], arrays: dict[str, Any], state: tuple[Any, ...], grad_u: Any
) -> dict[str, Any]:
    plan, wanted = setting
    names = sorted(arrays)
    foldable = _is_foldable(plan, arrays, wanted)

    def axis(name: str) -> Axis:  # with a gradient per image, its argument is given per image too
        return Axis.FIRST if name in wanted and name in _FIELDS else plan.axis(name)

    arguments = [Place(slot(_ffi.SoftmaxInputs, name), axis(name)) for name in names]
    arguments.append(loose(1))
    given = [*(arrays[name] for name in names), grad_u]
    if plan.mode == "last":
        arguments.append(loose(0))
    else:
        arguments.append(SAVED_PLACE)
    kernel = Kernel(
        call="softmax_backward",
        options=plan.options,
        arguments=tuple(arguments),
        results=tuple(
            Output(slot(_ffi.SoftmaxGrads, name), axis(name), arrays[name].shape, str(arrays[name].dtype))
            for name in wanted
        ),
        images=plan.images,
        foldable=foldable,
        empty=plan.empty,
        star_classes=plan.star_classes,
        forward=None if plan.mode == "last" else _forward_kernel((plan, True, foldable), names),
    )
    return dict(zip(wanted, run(kernel, [*given, *state])))


def _refuse() -> Exception:
    return NotSupportedError(
        "segprior.jax.softmax has first derivatives only: its gradient has no derivative"
    )


# A second derivative would differentiate both passes of the first.
_forward_once = underivable(_forward, _refuse)
_gradients = compiled(underivable(_backward, _refuse))
